"""Bounded samples of the stream that are rebuilt exactly by reading the training topic again.

A buffer keeps, of each stratum of event time, the rows with the smallest hashes. So its content is a
function of the set of rows it has seen: the order, the batches and repetitions change nothing.
"""

import numpy as np

from stream_iwae.learning.rows import Rows, Salt, mix


class StratifiedBuffer:
    """At most `capacity` rows of the newest strata, an equal share of each stratum seen."""

    def __init__(self, capacity: int, stratum_ms: int, span_ms: int, n_features: int) -> None:
        self._capacity = capacity
        self._stratum_ms = stratum_ms
        self._max_strata = max(1, min(span_ms // stratum_ms, capacity))
        self._seen: set[int] = set()  # strata, up to max_strata of them: the share only ever shrinks
        self._newest: int | None = None
        self._kept = Rows.empty(n_features)
        self._added: list[Rows] = []
        self._n_added = 0

    def __len__(self) -> int:
        return len(self.rows())

    def add(self, rows: Rows) -> None:
        """Take what belongs into the buffer; a row already there is no second row."""
        if not len(rows):
            return
        strata = rows.window_end_ms // self._stratum_ms
        if len(self._seen) < self._max_strata:
            self._seen.update(np.unique(strata).tolist())
        newest = int(strata.max())
        self._newest = newest if self._newest is None else max(self._newest, newest)
        self._added.append(rows)
        self._n_added += len(rows)
        if self._n_added > self._capacity // 4:  # pruning sorts all rows, so not at every call
            self._prune()

    def rows(self) -> Rows:
        """The content, sorted by stratum and hash."""
        if self._added:
            self._prune()
        return self._kept

    def _prune(self) -> None:
        rows = Rows.concatenate([self._kept, *self._added])
        self._added, self._n_added = [], 0
        strata = rows.window_end_ms // self._stratum_ms
        rows = rows.take(strata > (self._newest or 0) - self._max_strata)
        rows = rows.take(np.sort(np.unique(rows.row_ids, return_index=True)[1]))
        strata = rows.window_end_ms // self._stratum_ms
        order = np.lexsort((mix(rows.row_ids, Salt.PRIORITY), strata))
        rows, strata = rows.take(order), strata[order]
        rank = np.arange(len(rows)) - np.searchsorted(strata, strata)  # within the stratum
        quota = self._capacity // min(len(self._seen), self._max_strata)
        self._kept = rows.take(rank < quota)


def smallest(rows: Rows, n: int) -> Rows:
    """At most n rows, those with the smallest hashes, which are others than a buffer prefers."""
    return rows.take(np.argsort(mix(rows.row_ids, Salt.DRAW))[:n])
