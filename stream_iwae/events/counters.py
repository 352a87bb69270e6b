"""Cumulative counters -> differences, per series; a restart loses none."""

import heapq
from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from typing import Final

import polars as pl

from stream_iwae.batches import ENTITY_SEPARATOR, EventBatch
from stream_iwae.events.config import EventsConfig
from stream_iwae.state import KeyedState

Baseline = list[float]  # [time in ms, value of each cumulative field; NaN where not seen]
SERIES_AN_ENTITY: Final = 4  # on average, of as many entities as a pane holds: interfaces, queues, peers
_HALF: Final = 2  # a step back from above half the range is a wrap, another one a reset


class CounterTracker:
    """Remembers the last (time, values) of each series of one partition, of `max_series` at most.

    Where there is no room, series that have paused for longer than `max_gap` give way, as they begin anew in any
    case; if there are none, the newcomer's sample is skipped (`too_many_series`) until one does: forged names must
    not displace what is measured. All of it follows from what is remembered and the sample alone, so neither a
    restart nor where a poll cuts changes a difference.

    The state that is persisted is the one before the committed offset: a restart replays from
    there and takes the same differences again. `_ahead` holds what came after it.
    """

    def __init__(self, config: EventsConfig, max_series: int) -> None:
        self._fields = [name for name, field in config.fields.items() if field.counter == "cumulative"]
        self._ranges = [2.0 ** config.fields[name].bits for name in self._fields]
        self._series = list(config.series)
        self._max_gap_ms = config.max_gap
        self._max_series = max_series
        self.state: KeyedState[Baseline] = KeyedState()
        self._current: dict[str, Baseline] = {}
        self._ahead: list[tuple[int, str, Baseline | None]] = []  # (offset, series, baseline), in offset order
        self._by_age: list[tuple[float, str]] | None = None  # a heap of (time, series), each no later; None: not needed

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
            reason = self._reason_to_skip(former, time_ms, offset)
            is_kept.append(reason is None)
            if reason is not None:
                skipped[reason] += 1
                if reason != "first_sample":
                    continue
            fresh = [float("nan") if value is None else float(value) for value in values]
            baseline = [float(time_ms), *fresh]
            if former is None and self._by_age is not None:
                heapq.heappush(self._by_age, (baseline[0], key))
            if former is not None and reason is None:
                for column, value, last, span in zip(columns, fresh, former[1:], self._ranges, strict=True):
                    column[row] = _step(last, value, span)
                # A field that is missing this time keeps its baseline.
                baseline[1:] = [last if new != new else new for new, last in zip(fresh, former[1:], strict=True)]  # noqa: PLR0124
            self._current[key] = baseline
            self._ahead.append((offset, key, baseline))
        changed = frame.with_columns(
            pl.Series(name, column, dtype=pl.Float64) for name, column in zip(self._fields, columns, strict=True)
        )
        return replace(events, frame=changed.filter(pl.Series(is_kept, dtype=pl.Boolean))), skipped

    def _reason_to_skip(self, former: Baseline | None, time_ms: int, offset: int) -> str | None:
        """Why a sample has no difference, None where it has one; only a `first_sample` is remembered."""
        if former is None:
            return "first_sample" if self._has_room(time_ms - self._max_gap_ms, offset) else "too_many_series"
        if time_ms <= former[0]:
            return "out_of_order"
        return "first_sample" if time_ms - former[0] > self._max_gap_ms else None

    # --- room ---------------------------------------------------------------------------------

    def _has_room(self, before_ms: int, offset: int) -> bool:
        """Whether one more series fits in, once those last seen before `before_ms` are gone if need be."""
        if len(self._current) < self._max_series:
            return True
        if self._by_age is None:
            self._by_age = [(baseline[0], key) for key, baseline in self._current.items()]
            heapq.heapify(self._by_age)
        while self._by_age and self._by_age[0][0] < before_ms:
            _, key = heapq.heappop(self._by_age)
            seen_ms = self._current[key][0]
            if seen_ms >= before_ms:  # it has had samples since it was put there
                heapq.heappush(self._by_age, (seen_ms, key))
                continue
            del self._current[key]
            self._ahead.append((offset, key, None))
        return len(self._current) < self._max_series

    # --- what is kept ---------------------------------------------------------------------------

    def settle(self, offset: int) -> None:
        """Move everything learnt from records below `offset` into the state that is persisted."""
        n_settled = 0
        for at, key, baseline in self._ahead:
            if at >= offset:
                break
            if baseline is None:
                self.state.remove(key)
            else:
                self.state.put(key, baseline)
            n_settled += 1
        del self._ahead[:n_settled]

    def restore(self, snapshot: Mapping[str, Baseline]) -> None:
        """Go on from a persisted state; the records from its offset on are replayed."""
        self.state.restore(snapshot)
        self._current = dict(snapshot)
        self._ahead = []
        self._by_age = None


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
