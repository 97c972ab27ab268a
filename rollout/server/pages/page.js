// Follows the sidecar: asks for the page's contents again when something happens, and sends what a button means once it
// was confirmed. Everything shown is rendered by the sidecar.
"use strict";

const CALM = 5000; // ms between two looks while nothing happens
const BUSY = 1000; // the same while a rollout is under way: its times go on
const SETTLE = 120; // events come in bunches: one look for each
const PRESS = 2000; // the longest that new contents wait for a finger: its release may not be told
const main = document.getElementById("main");
let csrf = document.querySelector("meta[name=rollout-csrf]").content;
let pending = 0;
let looking = false;
let again = false;
let released = Promise.resolve();

function part(name, root) {
  return root.querySelector(`[data-part="${CSS.escape(name)}"]`);
}

// Puts the new contents in where they differ. What a person has opened stays open, what has the focus keeps it.
function show(text) {
  const fresh = new DOMParser().parseFromString(`<main>${text}</main>`, "text/html").querySelector("main");
  const open = new Set([...main.querySelectorAll("details[open][id]")].map((one) => one.id));
  const active = main.contains(document.activeElement) ? document.activeElement : null;
  const heir = active && heirOf(active, cardOf(active), fresh);
  fresh.querySelectorAll("details[id]").forEach((one) => one.toggleAttribute("open", open.has(one.id)));
  const names = (root) => [...root.querySelectorAll("[data-part]")].map((one) => one.dataset.part).join("\n");
  if (names(fresh) !== names(main)) {
    main.replaceChildren(...fresh.childNodes);
  } else {
    fresh.querySelectorAll("[data-part]").forEach((one) => {
      const old = part(one.dataset.part, main);
      if (old && !one.querySelector("[data-part]") && old.innerHTML !== one.innerHTML) old.replaceChildren(...one.childNodes);
    });
  }
  if (heir && main.contains(heir)) heir.focus({ preventScroll: true });
}

function cardOf(element) {
  return element.closest("[data-part]").dataset.part;
}

// What has the focus in `root` after `element`: the same anew, else its card's heading, where Enter means nothing.
function heirOf(element, card, root) {
  const name = focusName(element);
  const heir = (name && root.querySelector(name)) || (part(card, root) || root).querySelector("h2");
  if (heir.matches("h2")) heir.tabIndex = -1;
  return heir;
}

function focusName(element) {
  if (element.id) return `#${CSS.escape(element.id)}`;
  const holder = element.closest("details[id]");
  return element.matches("summary") && holder ? `#${CSS.escape(holder.id)} > summary` : "";
}

// A button that is replaced between press and release would not be clicked.
function press() {
  released = new Promise((done) => {
    const after = () => setTimeout(done); // the click itself comes right after the release
    for (const end of ["pointerup", "pointercancel", "keyup"]) addEventListener(end, after, { once: true });
    setTimeout(done, PRESS);
  });
}

async function look() {
  if (looking) { again = true; return; }
  looking = true;
  clearTimeout(pending);
  try {
    const answer = await fetch("/fragment", { headers: { Accept: "text/html" } });
    if (answer.status === 401) { location.assign("/login"); return; }
    // also what it says of a project that cannot be read, which is a 503
    if (!answer.headers.has("Rollout-Csrf")) throw new Error("not an answer of the sidecar");
    csrf = answer.headers.get("Rollout-Csrf"); // of a sidecar that was started anew since the page was loaded
    const text = await answer.text();
    await released;
    show(text);
    connected(true);
  } catch {
    connected(false);
  } finally {
    looking = false;
  }
  if (again) { again = false; soon(SETTLE); } else soon(main.querySelector(".rollout") ? BUSY : CALM);
}

function soon(wait) {
  clearTimeout(pending);
  pending = setTimeout(() => (document.hidden ? soon(CALM) : look()), wait);
}

function connected(yes) {
  document.querySelector("#connection > p").hidden = yes; // within what is always there, or a screen reader is not told
}

function say(text, bad) {
  const line = document.createElement("p");
  line.textContent = text;
  line.classList.toggle("bad", Boolean(bad));
  document.getElementById("said").append(line);
  setTimeout(() => line.remove(), bad ? 15000 : 6000);
}

async function ask(method, address, body) {
  const answer = await fetch(address, {
    method,
    headers: { "Content-Type": "application/json", "Rollout-Csrf": csrf },
    body: body === undefined ? undefined : JSON.stringify(body),
  });
  if (answer.status === 401) location.assign("/login");
  const found = answer.status === 204 ? {} : await answer.json();
  if (!answer.ok) throw new Error([found.message, ...(found.details || []), found.hint].filter(Boolean).join(" · "));
  return found;
}

async function carryOut(button, image) {
  const body = JSON.parse(button.dataset.body);
  if (image) body.image = image;
  const what = button.dataset.title.replace(/\?$/, "");
  try {
    let found = await ask("POST", button.dataset.address, body);
    say(`${what}: asked for`);
    while ("exit_code" in found && found.exit_code === null) found = await ask("GET", `/v1/operations/${found.id}?wait=30`);
    if (found.exit_code) throw new Error([found.message, found.hint].filter(Boolean).join(" · "));
    if ("exit_code" in found) say(`${what}: done`);
  } catch (error) {
    say(`${what}: ${error.message}`, true);
  }
  soon(SETTLE);
}

function confirmed(button) {
  const card = cardOf(button);
  const dialog = document.getElementById("confirm");
  const yes = document.getElementById("confirm-yes");
  const image = document.getElementById("image");
  document.getElementById("confirm-title").textContent = button.dataset.title;
  document.getElementById("confirm-text").textContent = button.dataset.text;
  document.getElementById("confirm-image").hidden = !("image" in button.dataset);
  yes.textContent = button.textContent;
  yes.classList.toggle("danger", button.classList.contains("danger"));
  image.value = "";
  dialog.returnValue = "cancel";
  dialog.addEventListener("close", () => {
    heirOf(button, card, main).focus();
    if (dialog.returnValue === "yes") carryOut(button, image.value.trim());
  }, { once: true });
  dialog.showModal();
  document.getElementById("confirm-no").focus();
}

main.addEventListener("pointerdown", press);
main.addEventListener("keydown", (event) => event.repeat || press());
main.addEventListener("click", (event) => {
  const button = event.target.closest("button[data-address]");
  if (button) confirmed(button);
});
// Enter in the image's field means the button that is named, not the first one of the form
document.getElementById("image").addEventListener("keydown", (event) => {
  if (event.key === "Enter") { event.preventDefault(); document.getElementById("confirm-yes").click(); }
});
document.getElementById("logout")?.addEventListener("click", async () => {
  await ask("POST", "/logout");
  location.assign("/login");
});
document.addEventListener("visibilitychange", () => document.hidden || soon(0));

const stream = new EventSource("/v1/events");
for (const kind of document.querySelector("meta[name=rollout-events]").content.split(" ")) {
  stream.addEventListener(kind, () => soon(SETTLE));
}
stream.addEventListener("open", () => soon(SETTLE));
stream.addEventListener("error", () => connected(false));
soon(CALM);
document.documentElement.classList.add("live"); // buttons are shown from now on
