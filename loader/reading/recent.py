"""Recent: what was used last, up to so many bytes."""

from collections import OrderedDict
from typing import Generic, TypeVar

Key = TypeVar("Key")
Value = TypeVar("Value")


class Recent(Generic[Key, Value]):
    """Keeps values of up to ``most`` bytes together; the least recently used go first."""

    def __init__(self, most: int) -> None:
        self._most, self._left = most, most
        self._kept: OrderedDict[Key, tuple[Value, int]] = OrderedDict()

    def get(self, key: Key) -> Value | None:
        """Return the value of ``key``, used now; None if it is not kept."""
        if (kept := self._kept.get(key)) is None:
            return None
        self._kept.move_to_end(key)
        return kept[0]

    def put(self, key: Key, value: Value, size: int) -> None:
        """Keep ``value``, of ``size`` bytes; one larger than all there may be is not kept."""
        if key in self._kept:
            self._left += self._kept.pop(key)[1]
        if size > self._most:
            return
        self._kept[key] = value, size
        self._left -= size
        while self._left < 0:
            _, (_, freed) = self._kept.popitem(last=False)
            self._left += freed
