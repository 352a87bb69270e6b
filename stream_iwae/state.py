"""Keyed state that can be written as deltas and snapshots, and read back.

Each kind of state (presence, incidents, counters) is a `KeyedState`: a mapping from a key to a
value of plain msgpack types, which remembers what changed since it was last asked.
"""

import zlib
from collections.abc import Iterator, Mapping
from typing import Final, Generic, TypeVar

T = TypeVar("T")
N_SHARDS: Final = 64  # a snapshot of all state takes this many commits


def shard_of(key: str, n_shards: int = N_SHARDS) -> int:
    """The shard that snapshots a key."""
    return zlib.crc32(key.encode()) % n_shards


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

    def shard(self, number: int) -> dict[str, T]:
        """The values of one of N_SHARDS shards."""
        return {key: value for key, value in self._values.items() if shard_of(key) == number}

    def restore(self, values: Mapping[str, T]) -> None:
        """Replace everything; nothing counts as changed."""
        self._values = dict(values)
        self._changed.clear()
