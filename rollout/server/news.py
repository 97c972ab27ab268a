"""What the membership loop has to look at again, told by whoever knows, in any thread."""

from __future__ import annotations

import threading


class News:
    """Services to which something may have happened, or all of them."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._services: set[str] = set()
        self._all = False
        self._woken = False

    def tell(self, service: str) -> None:
        """Look at this service again; empty: only end the wait."""
        with self._changed:
            if service:
                self._services.add(service)
            self._woken = True
            self._changed.notify_all()

    def tell_all(self) -> None:
        with self._changed:
            self._all = True
        self.tell("")

    def there(self) -> bool:
        with self._changed:
            return self._all or bool(self._services)

    def wait(self, seconds: float) -> None:
        """Until somebody tells something, since the last wait; at most `seconds`."""
        with self._changed:
            if not self._woken:
                self._changed.wait(seconds)
            self._woken = False

    def take(self, services: set[str]) -> set[str]:
        """Those of `services` to look at; from here on nothing has happened to them."""
        with self._changed:
            taken = set(services) if self._all else self._services & services
            self._services, self._all = set(), False
            return taken
