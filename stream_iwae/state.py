"""Keyed state that can be written as deltas and snapshots, and read back.

Each kind of state (presence, incidents, counters) is a `KeyedState`: a mapping from a key to a
value of plain msgpack types, which remembers what changed since it was last asked.
"""

from collections.abc import Iterator, Mapping
from typing import Generic, TypeVar

T = TypeVar("T")


class KeyedState(Generic[T]):
    """A mapping that remembers which keys changed."""

    def __init__(self) -> None:
        self._values: dict[str, T] = {}
        self._changed: set[str] = set()

    def __len__(self) -> int:
        return len(self._values)

    def __contains__(self, key: object) -> bool:
        return key in self._values

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def get(self, key: str) -> T | None:
        """The value of a key, or None."""
        return self._values.get(key)

    def items(self) -> Iterator[tuple[str, T]]:
        """All keys and values, in order of insertion."""
        return iter(self._values.items())

    def put(self, key: str, value: T) -> None:
        """Set a value."""
        self._values[key] = value
        self._changed.add(key)

    def remove(self, key: str) -> None:
        """Forget a key; no error where it is unknown."""
        if self._values.pop(key, None) is not None:
            self._changed.add(key)

    def take_changes(self) -> dict[str, T | None]:
        """What changed since the last call; None for a removed key."""
        changes = {key: self._values.get(key) for key in sorted(self._changed)}
        self._changed.clear()
        return changes

    def snapshot(self) -> dict[str, T]:
        """All values, as a copy of the mapping."""
        return dict(self._values)

    def restore(self, values: Mapping[str, T]) -> None:
        """Replace everything; nothing counts as changed."""
        self._values = dict(values)
        self._changed.clear()
