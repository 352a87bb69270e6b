"""Rows in topic order -> the row at which something is due.

A function of the rows alone, never of batches or clocks: a replay trains where the service trained.
"""

from enum import StrEnum

import numpy as np
from numpy.typing import NDArray

from stream_iwae.learning.config import LearningConfig


class Job(StrEnum):
    """What is to be done."""

    FIRST = "first"  # train the first model
    TUNE = "tune"  # fine-tune the serving weights, and offer the result for promotion
    CALIBRATE = "calibrate"  # fit the p-values of the serving weights again


class Schedule:
    """When to train: by number of windows at first, by event time later."""

    def __init__(self, config: LearningConfig) -> None:
        self._config = config
        self._histories: set[int] = set()  # input partitions whose history is being read back
        self._n_rows = 0
        self._first_at = config.min_windows
        self._tune_at_ms: int | None = None
        self._calibrate_at_ms: int | None = None

    @property
    def has_model(self) -> bool:
        """Whether a first model is no longer awaited."""
        return self._calibrate_at_ms is not None

    def begin_history(self, partition: int) -> None:
        """Rows of a partition's history come: the first model waits for its end."""
        self._histories.add(partition)

    def end_history(self, partition: int) -> None:
        """A partition has no more history to give."""
        self._histories.discard(partition)

    def next_due(self, window_end_ms: NDArray[np.int64]) -> tuple[int, Job] | None:
        """How many of the next rows come before the next job, and which it is; None if it is beyond them."""
        if not self.has_model:
            n = max(0, self._first_at - self._n_rows)
            return (n, Job.FIRST) if n <= len(window_end_ms) and not self._histories else None
        found: list[tuple[int, Job]] = []
        for job, at_ms in ((Job.TUNE, self._tune_at_ms), (Job.CALIBRATE, self._calibrate_at_ms)):
            if at_ms is None:
                continue
            reached = np.flatnonzero(window_end_ms >= at_ms)
            if len(reached):
                found.append((int(reached[0]) + 1, job))
        return min(found, key=lambda pair: pair[0], default=None)  # the first of equals: a tuning calibrates too

    def take(self, n: int) -> None:
        """Count n rows as seen."""
        self._n_rows += n

    def trained(self, now_ms: int) -> None:
        """New weights serve from this event time on."""
        self._tune_at_ms = now_ms + self._config.interval if self._config.interval else None

    def tried(self, now_ms: int) -> None:
        """A fine-tuning changed nothing: the next is due whole intervals after the last promotion.

        So a restart, which knows of promotions alone, tunes at the same rows.
        """
        if self._tune_at_ms is not None and self._tune_at_ms <= now_ms:
            behind = (now_ms - self._tune_at_ms) // self._config.interval
            self._tune_at_ms += (behind + 1) * self._config.interval

    def calibrated(self, now_ms: int, first_ms: int) -> None:
        """P-values were fitted at this event time.

        Until there is a day of rows they are fitted anew whenever the span of rows has doubled: the
        tail of a small sample is mostly guessed.
        """
        wait_ms = min(self._config.calibration_interval, max(now_ms - first_ms, self._config.stratum))
        self._calibrate_at_ms = now_ms + wait_ms

    def first_failed(self) -> None:
        """The first training failed: try again with half as many rows more."""
        self._first_at = self._n_rows + self._config.min_windows // 2

    def catch_up(self, now_ms: int) -> None:
        """Rows up to this event time were read again: fine-tunings that fell due among them are left out."""
        self.tried(now_ms)
