"""The merged time against a plain loop over everything that was said so far."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stream_iwae.batches import NEVER_MS
from stream_iwae.rekey.batch import Header, Part
from stream_iwae.rekey.merge import SourceMerge

FORGET_MS = 30_000


def word(source, reached, idle=False, history=False):
    return Part(source, 0, reached, idle, history)


@st.composite
def logs(draw):
    """Messages as (record time, number of sources, [(part, time reached before each of its events)])."""
    n_sources, now_ms, reached, messages = 1, 0, {}, []
    for _ in range(draw(st.integers(1, 12))):
        n_sources = max(n_sources, draw(st.integers(1, 4)))
        now_ms += draw(st.sampled_from([-500, 0, 100, 4_000, 9_000, 60_000, 3_600_000]))
        parts = []
        for _ in range(draw(st.integers(0, 3))):
            source = draw(st.integers(0, n_sources - 1))
            before = []
            for _ in range(draw(st.integers(0, 3))):
                before.append(reached.get(source, NEVER_MS))
                reached[source] = max(reached.get(source, NEVER_MS), draw(st.integers(0, 100)))
            is_idle = not before and draw(st.booleans())
            part = Part(source, len(before), reached.get(source, NEVER_MS), is_idle, draw(st.booleans()))
            parts.append((part, before))
        messages.append((now_ms, n_sources, parts))
    return messages


class PlainMerge:
    """Says everything again from the beginning, source by source."""

    def __init__(self):
        self.clock = self.last = None
        self.sources = {}  # source -> [reached, idle, history, heard]
        self.merged = NEVER_MS

    def awaited(self, but=None):
        return [
            reached
            for source, (reached, idle, _, heard) in self.sources.items()
            if source != but and not idle and self.clock - heard <= FORGET_MS
        ]

    def take(self, now_ms, n_sources, parts):
        if self.last is None:
            self.clock, self.last = 0, now_ms
        self.clock += min(max(0, now_ms - self.last), 10_000)
        self.last = max(self.last, now_ms)
        for source in range(n_sources):
            self.sources.setdefault(source, [NEVER_MS, False, True, self.clock])
        found = []
        for part, before in parts:
            for own in before:
                self.merged = max(self.merged, min([own, *self.awaited(but=part.source)]))
                found.append(self.merged)
            self.sources[part.source] = [part.reached_ms, part.is_idle, part.is_history, self.clock]
            idle = [reached for reached, is_idle, _, _ in self.sources.values() if is_idle]
            together = min(self.awaited()) if self.awaited() else max(idle, default=NEVER_MS)
            self.merged = max(self.merged, together)
        return found

    @property
    def is_history(self):
        return not self.sources or any(
            history and not idle and self.clock - heard <= FORGET_MS
            for _, idle, history, heard in self.sources.values()
        )


def take(merge, offset, message):
    now_ms, n_sources, parts = message
    before = np.array([own for _, each in parts for own in each], dtype=np.int64)
    return merge.take(Header("d", n_sources, [part for part, _ in parts]), offset, now_ms, before).tolist()


@given(logs())
def test_the_merged_time_is_the_least_of_the_sources_that_are_waited_for(log):
    merge, plain = SourceMerge(FORGET_MS), PlainMerge()
    for offset, message in enumerate(log):
        assert take(merge, offset, message) == plain.take(*message)
        assert merge.reached_ms == plain.merged
        assert merge.is_history == plain.is_history


@given(logs(), st.data())
def test_a_restart_from_any_offset_goes_on_the_same(log, data):
    merge = SourceMerge(FORGET_MS)
    at = data.draw(st.integers(0, len(log)))
    upto = data.draw(st.integers(at, len(log)))  # read further than the offset that is committed
    expected = {}
    for offset, message in enumerate(log[:upto]):
        expected[offset] = take(merge, offset, message)
    merge.settle(at)
    again = SourceMerge(FORGET_MS)
    again.restore({key: list(value) for key, value in merge.state.items()})
    for offset in range(at, upto):
        assert take(again, offset, log[offset]) == expected[offset]
    for offset in range(upto, len(log)):
        assert take(again, offset, log[offset]) == take(merge, offset, log[offset])
        assert (again.reached_ms, again.is_history) == (merge.reached_ms, merge.is_history)


@given(logs())
def test_looking_ahead_changes_nothing(log):
    merge = SourceMerge(FORGET_MS)
    for offset, message in enumerate(log):
        ahead = merge.copy()
        seen = take(ahead, offset, message)
        assert take(merge, offset, message) == seen


@pytest.fixture
def heard():
    """Three sources, the last of which is far behind."""
    merge = SourceMerge(FORGET_MS)
    merge.take(Header("d", 3, [word(0, 900), word(1, 800), word(2, 100)]), 0, 0, None)
    return merge


def test_the_slowest_source_holds_the_others_back(heard):
    assert heard.reached_ms == 100


def test_an_idle_source_holds_nobody_back(heard):
    heard.take(Header("d", 3, [word(2, 100, idle=True)]), 1, 10, None)
    assert heard.reached_ms == 800


def test_time_does_not_go_back_when_an_idle_source_wakes(heard):
    heard.take(Header("d", 3, [word(2, 100, idle=True)]), 1, 10, None)
    heard.take(Header("d", 3, [word(2, 150)]), 2, 20, None)
    assert heard.reached_ms == 800
    heard.take(Header("d", 3, [word(0, 2000), word(1, 2000)]), 3, 30, None)
    assert heard.reached_ms == 800  # it is waited for again


def test_a_source_that_is_never_heard_of_holds_back_for_so_long_and_no_longer():
    merge = SourceMerge(FORGET_MS)
    for second in range(31):
        merge.take(Header("d", 2, [word(0, second)]), second, second * 1000, None)
        assert merge.reached_ms == NEVER_MS
    merge.take(Header("d", 2, [word(0, 31)]), 31, 31_000, None)
    assert merge.reached_ms == 31


def test_an_hour_in_which_nobody_was_heard_forgets_nobody(heard):
    """After an outage of all, the first to come back must not run ahead of the others."""
    heard.take(Header("d", 3, [word(0, 5000)]), 1, 3_600_000, None)
    assert heard.reached_ms == 100
    heard.take(Header("d", 3, [word(1, 5000), word(2, 4000)]), 2, 3_601_000, None)
    assert heard.reached_ms == 4000


def test_where_all_are_idle_time_is_what_any_has_reached(heard):
    parts = [word(source, reached, idle=True) for source, reached in ((0, 900), (1, 800), (2, 100))]
    heard.take(Header("d", 3, parts), 1, 10, None)
    assert heard.reached_ms == 900
