"""pydantic's verdicts in our words: the place as the user wrote it, one sentence, and the way out."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, TypeVar, get_args

from rollout.spec.faults import Faults, Place, Refused, did_you_mean, dotted
from rollout.spec.values import shown

if TYPE_CHECKING:
    from pydantic import BaseModel

    Section = TypeVar("Section", bound=BaseModel)

_PLANNED = {"canary"}

# how pydantic's names of errors begin → what it wanted
_WANTED = (
    ("model_", "a mapping"), ("dict_", "a mapping"), ("tuple_", "a list"), ("list_", "a list"),
    ("int_", "a whole number"), ("float_", "a number"), ("bool_", "true or false"),
)  # fmt: skip


def validate(model: type[Section], raw: object, place: Place, faults: Faults) -> Section | None:
    """The section, or None with its faults added. An empty section (`x-rollout:`) is one without keys. `raw` is as
    Compose writes it, a dollar twice."""
    from pydantic import ValidationError

    try:
        return model.model_validate({} if raw is None else _unescaped(raw))
    except ValidationError as error:
        for one in error.errors(include_url=False):
            at = _place(model, one["loc"])
            message, hint = _said(one, model, at)
            faults.add((*place, *at), message, hint)
        return None


def _unescaped(raw: object) -> object:
    """What the user meant: Compose has filled in its variables, and would again in what it has written."""
    if isinstance(raw, str):
        return raw.replace("$$", "$")
    if isinstance(raw, Mapping):
        return {key: _unescaped(value) for key, value in raw.items()}
    return [_unescaped(value) for value in raw] if isinstance(raw, list) else raw


def _said(error: Mapping[str, Any], model: type[BaseModel], at: Place) -> tuple[str, str]:
    cause = error.get("ctx", {}).get("error")
    if isinstance(cause, Refused):
        return cause.message, cause.hint
    kind, value, context = error["type"], error["input"], error.get("ctx", {})
    if kind == "extra_forbidden":
        return f"unknown key {dotted(at[-1:])}", did_you_mean(at[-1], _keys(model, at[:-1]))
    if kind == "missing":
        return "is missing", _example(model, at)
    if kind == "literal_error":
        return _not_one_of(value, _choices(model, at))
    return _plain(kind, value, context), ""


def _not_one_of(value: object, choices: Iterable[str]) -> tuple[str, str]:
    known = list(choices)
    if isinstance(value, str) and value in _PLANNED:
        return f"{value} is not available yet", f"known: {', '.join(known)}"
    near = did_you_mean(value, known)
    return f"unknown value {shown(value)}", near if near.startswith("known") else f"{near} known: {', '.join(known)}"


def _plain(kind: str, value: object, context: Mapping[str, Any]) -> str:
    if kind == "greater_than_equal":
        return f"must be at least {context['ge']:g}, not {shown(value)}"
    if kind == "less_than_equal":
        return f"must be at most {context['le']:g}, not {shown(value)}"
    for start, wanted in _WANTED:
        if kind.startswith(start):
            return f"must be {wanted}, not {shown(value)}"
    return "keys must be words" if kind == "invalid_key" else f"{shown(value)} is not allowed here"


def _place(model: type[BaseModel], loc: tuple[int | str, ...]) -> Place:
    """Without the steps pydantic adds for the branches of a union."""
    return tuple(part for part in loc if isinstance(part, int) or not part.startswith(("function-", "tuple[")))


def _model_at(model: type[BaseModel], at: Place) -> type[BaseModel]:
    for part in at:
        if not isinstance(part, int):  # a place in a list, of which the key before said what it holds
            model = _section_in(model.model_fields[part].annotation)
    return model


def _section_in(annotation: Any) -> type[BaseModel]:
    """The model that a field is, or holds a list of."""
    if isinstance(annotation, type) and not get_args(annotation):
        return annotation
    return next(_section_in(inner) for inner in get_args(annotation) if inner is not Ellipsis)


def _keys(model: type[BaseModel], at: Place) -> list[str]:
    return sorted(_model_at(model, at).model_fields)


def _choices(model: type[BaseModel], at: Place) -> list[str]:
    names = [part for part in at if not isinstance(part, int)]
    annotation = _model_at(model, (*names[:-1],)).model_fields[names[-1]].annotation
    return list(_words_in(annotation))


def _words_in(annotation: Any) -> Iterator[str]:
    """The words of the `Literal` in a field's type, however it is wrapped."""
    if isinstance(annotation, str):
        yield annotation
    for inner in get_args(annotation):
        yield from _words_in(inner)


def _example(model: type[BaseModel], at: Place) -> str:
    return {
        "proxy": "like proxy: { type: nginx, service: edge, config: ./edge/rollout.d }",
        "type": "nginx or haproxy",
        "config": "the directory the proxy has mounted, like ./edge/rollout.d",
    }.get(str(at[-1]), "")
