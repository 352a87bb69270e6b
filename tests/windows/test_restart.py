import pytest
from hypothesis import given
from hypothesis import strategies as st
from plain import CONFIGS, REPEATED, Event, a_config, an_event_batch, an_operator
from scripts import assert_bit_equal, run, run_with_crashes, scripts

from stream_iwae.windows import panes
from stream_iwae.windows.progress import Progress

CUTS = st.sets(st.integers(0, 80))
CRASHES = st.sets(st.integers(1, 40), max_size=4)


@REPEATED
@given(scripts(), CONFIGS, CUTS, CRASHES)
def test_a_crash_loses_no_window_and_repeats_none(steps, config, cuts, crashes):
    assert_bit_equal(run_with_crashes(steps, config, cuts, crashes), run(steps, config))


@REPEATED
@given(scripts(), CONFIGS, CUTS, CRASHES)
def test_a_crash_changes_no_bit_where_chunks_are_reduced(steps, config, cuts, crashes):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(panes, "CHUNK_ROWS", 2)
        assert_bit_equal(run_with_crashes(steps, config, cuts, crashes), run(steps, config))


EVENTS = [Event(at, 100_000 + 400 * at, "ab"[at % 2], "", 1.0, "p") for at in range(20)]
EVENTS[9] = EVENTS[9]._replace(timestamp_ms=102_950)  # of the pane before that of offset 8, and not late


def naive(operator, position):
    """Last polled + 1, as consumers commit by themselves."""
    return Progress(position, operator.watermark_ms, operator.watermark_ms, position)


def forgetful(operator, position):
    """The oldest offset that is needed, without the watermarks."""
    return Progress(operator.progress(position).offset, None, None, position)


@pytest.mark.parametrize("rule", [naive, forgetful])
@pytest.mark.parametrize("shape", [{}, {"kind": "hopping", "advance": "500ms"}])
def test_the_test_catches_a_wrong_rule(rule, shape):
    config, cuts = a_config(grace="600ms", **shape), set(range(20))

    assert_bit_equal(run_with_crashes(EVENTS, config, cuts, {12}), run(EVENTS, config))
    with pytest.raises(AssertionError):
        assert_bit_equal(run_with_crashes(EVENTS, config, cuts, {12}, rule), run(EVENTS, config))


def test_the_oldest_offset_that_an_open_window_needs_is_committed():
    operator = an_operator(a_config())
    operator.add(an_event_batch([Event(5, 500, "a"), Event(6, 1_100, "a"), Event(7, 1_200, "a")]), 8)

    assert operator.progress(8) == Progress(6, 1_200, 500, 8)


def test_a_hopping_window_keeps_the_panes_behind_the_watermark():
    operator = an_operator(a_config(kind="hopping", advance="500ms"))
    operator.add(an_event_batch([Event(5, 600, "a"), Event(6, 1_100, "a")]), 7)

    assert operator.progress(7) == Progress(5, 1_100, None, 7)


def test_the_position_is_committed_where_nothing_is_open():
    operator = an_operator(a_config())
    assert operator.progress(3) == Progress(3, None, None, 3)
    operator.add(an_event_batch([Event(5, 500, "a")]), 6)
    operator.advance(1_000, 6)

    assert operator.progress(9) == Progress(9, 1_000, 1_000, 9)


def test_record_windows_commit_the_position():
    operator = an_operator(a_config(kind="record"))
    assert len(operator.add(an_event_batch([Event(5, 500, "a"), Event(6, 100, "a")]), 7).windows) == 2

    assert operator.progress(7).offset == 7


def test_a_replay_that_is_not_over_commits_what_was_committed():
    operator, again = an_operator(a_config()), an_operator(a_config())
    operator.add(an_event_batch([Event(5, 500, "a"), Event(6, 700, "a")]), 7)
    progress = operator.progress(7)
    again.restore(progress)
    assert again.watermark_ms == progress.watermark_ms
    again.add(an_event_batch([Event(5, 500, "a")]), 6)

    assert again.progress(6) == progress
    again.add(an_event_batch([Event(6, 700, "a")]), 7)
    assert again.progress(7) == progress


def test_the_same_late_decisions_come_out_of_a_replay():
    config = a_config(kind="hopping", advance="500ms", grace="0s")
    events = [Event(0, 700, "a"), Event(1, 1_100, "a"), Event(2, 800, "a"), Event(3, 1_600, "a")]
    operator, again = an_operator(config), an_operator(config)
    assert operator.add(an_event_batch(events[:3]), 3).n_late == 1
    again.restore(operator.progress(3))
    again.add(an_event_batch(events[:3]), 3)

    expected = operator.add(an_event_batch(events[3:]), 4).windows.frame
    assert_bit_equal(again.add(an_event_batch(events[3:]), 4).windows.frame, expected)
    assert expected["n_events"].to_list() == [2]
