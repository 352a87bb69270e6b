"""Cumulative counters -> differences, per series; a restart loses none."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from typing import Final

import polars as pl

from stream_iwae.batches import ENTITY_SEPARATOR, EventBatch
from stream_iwae.events.config import EventsConfig
from stream_iwae.state import KeyedState

Baseline = list[float]  # [time in ms, value of each cumulative field; NaN where not seen]
_HALF: Final = 2  # a step back from above half the range is a wrap, another one a reset


class CounterTracker:
    """Remembers the last (time, values) of each series of one partition.

    The state that is persisted is the one before the committed offset: a restart replays from
    there and takes the same differences again. `_ahead` holds what came after it.
    """

    def __init__(self, config: EventsConfig) -> None:
        self._fields = [name for name, field in config.fields.items() if field.counter == "cumulative"]
        self._ranges = [2.0 ** config.fields[name].bits for name in self._fields]
        self._series = list(config.series)
        self._max_gap_ms = config.max_gap
        self.state: KeyedState[Baseline] = KeyedState()
        self._current: dict[str, Baseline] = {}
        self._ahead: list[tuple[int, str, Baseline]] = []  # (offset, series, baseline), in offset order

    def difference(self, events: EventBatch) -> tuple[EventBatch, Mapping[str, int]]:
        """Replace cumulative values by what was added since the series' last sample.

        Returns:
            The events that have a difference, and how many have none, by reason.
        """
        if not self._fields or not len(events):
            return events, {}
        skipped: Counter[str] = Counter()
        frame = events.frame
        keys = frame.select(pl.concat_str(["entity", *self._series], separator=ENTITY_SEPARATOR, ignore_nulls=True))
        columns = [frame[name].to_list() for name in self._fields]
        is_kept = []
        for row, (offset, time_ms, key) in enumerate(
            zip(frame["offset"], frame["timestamp_ms"], keys.to_series(), strict=True)
        ):
            values = [column[row] for column in columns]
            former = self._current.get(key)
            if former is not None and time_ms <= former[0]:
                skipped["out_of_order"] += 1
                is_kept.append(False)
                continue
            fresh = [float("nan") if value is None else float(value) for value in values]
            if former is None or time_ms - former[0] > self._max_gap_ms:
                skipped["first_sample"] += 1
                is_kept.append(False)
                baseline = [float(time_ms), *fresh]
            else:
                for column, value, last, span in zip(columns, fresh, former[1:], self._ranges, strict=True):
                    column[row] = _step(last, value, span)
                is_kept.append(True)
                # A field that is missing this time keeps its baseline.
                kept = [last if new != new else new for new, last in zip(fresh, former[1:], strict=True)]  # noqa: PLR0124
                baseline = [float(time_ms), *kept]
            self._current[key] = baseline
            self._ahead.append((offset, key, baseline))
        changed = frame.with_columns(
            pl.Series(name, column, dtype=pl.Float64) for name, column in zip(self._fields, columns, strict=True)
        )
        return replace(events, frame=changed.filter(pl.Series(is_kept, dtype=pl.Boolean))), skipped

    def settle(self, offset: int) -> None:
        """Move everything learnt from records below `offset` into the state that is persisted."""
        n_settled = 0
        for at, key, baseline in self._ahead:
            if at >= offset:
                break
            self.state.put(key, baseline)
            n_settled += 1
        del self._ahead[:n_settled]

    def restore(self, snapshot: Mapping[str, Baseline]) -> None:
        """Go on from a persisted state; the records from its offset on are replayed."""
        self.state.restore(snapshot)
        self._current = dict(snapshot)
        self._ahead = []


def _step(last: float, value: float, span: float) -> float | None:
    """What was added between two samples; None where either is missing.

    >>> _step(10.0, 15.0, 2.0**32), _step(2.0**32 - 6, 4.0, 2.0**32), _step(500.0, 20.0, 2.0**32)
    (5.0, 10.0, 20.0)
    """
    if last != last or value != value:  # noqa: PLR0124  # NaN
        return None
    if value >= last:
        return value - last
    return value - last + span if last > span / _HALF else value
