"""How far a number is from what the entity's last windows had: it sees a step or a spike in a gauge of any level.

A mean that fades over RECENT_WINDOWS windows for each of R features and each entity. It learns from every closed
window, never by verdict, in waves of equal window end, so where a poll cuts the log changes nothing.
"""

from collections.abc import Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from stream_iwae.batches import SOURCE_PREFIX
from stream_iwae.features.profile_table import SHARED_KEY, ProfileTable, Record
from stream_iwae.state import KeyedState

RECENT_WINDOWS: Final = 8
_LEAST_SHARE: Final = 2 / (RECENT_WINDOWS + 1)  # of a new window in the mean, as an exponential mean of so many has
_LIMIT: Final = 1e15  # float32 holds it

Values = NDArray[np.float64]


class Recent:
    """What each entity of a partition had of late.

    Args:
        n_features: R.
        max_entities: How many are remembered; of others nothing is recent.
    """

    def __init__(self, n_features: int, max_entities: int) -> None:
        self._max_entities = max_entities
        self._table = ProfileTable(n_features)  # its variances stay 0
        self._wave = 0

    @property
    def state(self) -> KeyedState[Record]:
        """All that has to survive."""
        return self._table

    def restore(self, values: dict[str, Record]) -> None:
        """Go on from a snapshot of `state`."""
        self._table.restore(values)
        shared = self._table.get(SHARED_KEY)
        self._wave = 0 if shared is None else int(shared[0])

    def differences(self, entities: Sequence[str], values: Values) -> Values:
        """(N, R) numbers less what their entities had before this wave; NaN where nothing is known."""
        rows = self._table.rows(entities)
        is_known = (rows[:, None] >= 0) & (self._table.count[rows] > 0)
        return np.where(is_known, values - self._table.mean[rows].astype(np.float64), np.nan)

    def learn(self, entities: Sequence[str], values: Values) -> None:
        """Take in one wave: windows with the same end, one an entity, in an order that every replay repeats."""
        self._wave += 1
        table = self._table
        rows = self._admitted(entities, values)
        is_kept = rows >= 0
        rows, values = rows[is_kept], values[is_kept].clip(-_LIMIT, _LIMIT)
        is_there = np.isfinite(values)
        n = np.minimum(table.count[rows].astype(np.int64) + is_there, RECENT_WINDOWS)
        share = np.where(is_there, np.maximum(1.0 / np.maximum(n, 1), _LEAST_SHARE), 0.0)
        mean = table.mean[rows].astype(np.float64)
        table.mean[rows] = mean + share * np.where(is_there, values - mean, 0.0)
        table.count[rows] = n
        table.last_wave[rows] = self._wave
        table.touch(rows)
        table.put(SHARED_KEY, [self._wave])

    def _admitted(self, entities: Sequence[str], values: Values) -> NDArray[np.int64]:
        """The row of each entity, (N,), newcomers given one while there is room; -1 for those without."""
        table, rows = self._table, self._table.rows(entities)
        is_new = (rows < 0) & np.isfinite(values).any(axis=1)
        new = [at for at in np.flatnonzero(is_new).tolist() if not entities[at].startswith(SOURCE_PREFIX)]
        if len(new) > self._max_entities - table.n_entities:
            table.forget_before(self._wave)
            rows = table.rows(entities)
        for at in new[: max(0, self._max_entities - table.n_entities)]:
            rows[at] = table.add(entities[at])
        return rows
