"""Rows -> the samples that learning draws from: what to learn, calibrate and compare on."""

import numpy as np
from numpy.typing import NDArray

from stream_iwae.learning.buffers import StratifiedBuffer, smallest
from stream_iwae.learning.config import LearningConfig
from stream_iwae.learning.gate import cap_entities, learnable
from stream_iwae.learning.rows import Rows, Salt, is_chosen

_DAY_MS = 86_400_000
_ALWAYS_MS = 100 * 365 * _DAY_MS


class Samples:
    """Five bounded buffers; each row's own hash says which of them it may enter.

    A fifth of the rows calibrates, ungated. A tenth of the rest is held out, and what of it came
    before the first model is the frozen reference. The others are learnt, now and later.
    """

    def __init__(self, config: LearningConfig, n_features: int) -> None:
        self._config = config

        def buffer(capacity: int, span_ms: int) -> StratifiedBuffer:
            return StratifiedBuffer(capacity, config.stratum, span_ms, n_features)

        self._recent = buffer(config.recent_capacity, config.recent_span)
        self._history = buffer(config.history_capacity, config.history_span)
        self._calibrate = buffer(config.calibrate_capacity, config.calibrate_span)
        self._held_out = buffer(config.reference_capacity, config.calibrate_span)
        self._reference = buffer(config.reference_capacity, _ALWAYS_MS)
        self._counts: dict[int, int] = {}  # windows by stratum of event time, over the span of calibration
        self.reference_until_ms: int | None = None  # None: the reference still grows
        self.first_ms: int | None = None
        self.newest_ms: int | None = None
        self.n_rows = 0
        self.n_gated = 0  # rows that the gate kept from being learnt

    def add(self, rows: Rows) -> None:
        """Let each row into the buffers it belongs to."""
        if not len(rows):
            return
        self._count(rows)
        is_calibrate = is_chosen(rows.row_ids, Salt.CALIBRATE, self._config.calibrate_share)
        self._calibrate.add(rows.take(is_calibrate))
        is_ordinary = learnable(rows, self._config.gate_p)
        self.n_gated += int(np.count_nonzero(~is_ordinary))
        rows = rows.take(~is_calibrate & is_ordinary)
        is_held_out = is_chosen(rows.row_ids, Salt.HELD_OUT, self._config.held_out_share)
        held_out, learn = rows.take(is_held_out), rows.take(~is_held_out)
        self._held_out.add(held_out)
        self._recent.add(learn)
        self._history.add(learn)
        until_ms = self.reference_until_ms
        self._reference.add(held_out if until_ms is None else held_out.take(held_out.window_end_ms <= until_ms))

    def warmup(self) -> Rows:
        """What a first model learns from."""
        return smallest(cap_entities(self._recent.rows(), self._config.max_source_share), self._config.warmup_windows)

    def tuning(self) -> Rows:
        """What a fine-tuning learns from: half recent, half older."""
        half = self._config.tuning_rows // 2
        recent = smallest(cap_entities(self._recent.rows(), self._config.max_source_share), half)
        history = self._history.rows()
        older = history.take(~np.isin(history.row_ids, recent.row_ids))
        older = smallest(cap_entities(older, self._config.max_source_share), max(half, len(recent)))
        return Rows.concatenate([recent, older])

    def calibrate(self) -> Rows:
        """Ungated rows that no model has learnt."""
        return self._calibrate.rows()

    def calibrate_weights(self) -> NDArray[np.float64]:
        """How many windows of the stream each row of `calibrate` stands for: a buffer keeps fewer of a busy hour."""
        strata = self._calibrate.rows().window_end_ms // self._config.stratum
        found, owners, kept = np.unique(strata, return_inverse=True, return_counts=True)
        counts = np.array(
            [self._counts.get(stratum, n) for stratum, n in zip(found.tolist(), kept.tolist(), strict=True)]
        )
        weights: NDArray[np.float64] = (counts / kept)[owners]
        return weights

    def held_out(self) -> Rows:
        """Ordinary rows of the last days that no model has learnt."""
        return self._held_out.rows()

    def reference(self) -> Rows:
        """Ordinary rows of the warm-up that no model has learnt."""
        return self._reference.rows()

    def windows_per_day(self) -> float:
        """How many windows a day the stream has, over the span of calibration."""
        n_rows = sum(self._counts.values())
        if self.newest_ms is None or self.first_ms is None:
            return 1.0
        oldest_ms = max(self.first_ms, min(self._counts) * self._config.stratum)
        span_ms = max(self.newest_ms - oldest_ms, 60_000)  # a handful of windows of one moment is no rate
        return max(1.0, n_rows * _DAY_MS / span_ms)

    def gated_share(self) -> float:
        """The share of all rows that the gate kept from being learnt."""
        return self.n_gated / self.n_rows if self.n_rows else 0.0

    def sizes(self) -> dict[str, int]:
        """Rows in each buffer."""
        return {
            "recent": len(self._recent),
            "history": len(self._history),
            "calibrate": len(self._calibrate),
            "held_out": len(self._held_out),
            "reference": len(self._reference),
        }

    def _count(self, rows: Rows) -> None:
        first_ms, newest_ms = int(rows.window_end_ms.min()), int(rows.window_end_ms.max())
        self.n_rows += len(rows)
        self.first_ms = first_ms if self.first_ms is None else min(self.first_ms, first_ms)
        self.newest_ms = newest_ms if self.newest_ms is None else max(self.newest_ms, newest_ms)
        strata, counts = np.unique(rows.window_end_ms // self._config.stratum, return_counts=True)
        for stratum, count in zip(strata.tolist(), counts.tolist(), strict=True):
            self._counts[stratum] = self._counts.get(stratum, 0) + count
        oldest = (self.newest_ms - self._config.calibrate_span) // self._config.stratum
        if min(self._counts) < oldest:
            self._counts = {stratum: count for stratum, count in self._counts.items() if stratum >= oldest}
