"""What is added to a stream is told from a stream that moves."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stream_iwae.learning.addition import Sighting, is_addition

HOUR = 3_600_000
DAY = 24 * HOUR
WEEK = 7 * DAY
NOW = 20 * DAY


def seen(days, usual, odd):
    """An hourly sighting of some past days: `usual` and `odd` windows an hour, by days ago."""
    times, weights, is_odd = [], [], []
    for ago in range(days):
        for hour in range(24):
            for many, oddity in ((usual(ago), False), (odd(ago), True)):
                if many:
                    times.append(NOW - ago * DAY - hour * HOUR - 1)
                    weights.append(many)
                    is_odd.append(oddity)
    return Sighting(np.array(times), np.array(weights, float), np.array(is_odd))


def ask(sighting):
    return is_addition(sighting, NOW, DAY, WEEK, HOUR)


def test_odd_windows_beside_the_usual_ones_are_an_addition_however_many():
    assert ask(seen(9, usual=lambda ago: 100, odd=lambda ago: 1_000 if ago == 0 else 0))
    assert ask(seen(9, usual=lambda ago: 60 if ago == 0 else 100, odd=lambda ago: 40 if ago == 0 else 0))


def test_odd_windows_in_place_of_the_usual_ones_are_a_move():
    assert not ask(seen(9, usual=lambda ago: 40 if ago == 0 else 100, odd=lambda ago: 60 if ago == 0 else 0))


def test_what_has_lasted_the_whole_past_is_no_addition_any_more():
    assert ask(seen(9, usual=lambda ago: 100, odd=lambda ago: 50 if ago < 6 else 0))
    assert not ask(seen(9, usual=lambda ago: 100, odd=lambda ago: 50 if ago < 7 else 0))


@pytest.mark.parametrize("days", [0, 1, 6])
def test_who_has_not_seen_the_whole_past_does_not_know_what_is_usual(days):
    assert not ask(seen(days, usual=lambda ago: 100, odd=lambda ago: 1_000 if ago == 0 else 0))


@given(st.integers(1, 23))
def test_hours_in_which_there_was_nothing_are_not_counted(n_hours):
    """A network that works some hours of the day has the same rate of usual windows in each of them."""
    whole = seen(9, usual=lambda ago: 100, odd=lambda ago: 100 if ago == 0 else 0)
    works = (NOW - 1 - whole.window_end_ms) % DAY < n_hours * HOUR
    assert ask(Sighting(whole.window_end_ms[works], whole.weights[works], whole.is_odd[works]))


def test_a_sampled_hour_counts_with_what_its_rows_stand_for():
    usual = seen(9, usual=lambda ago: 100, odd=lambda ago: 100 if ago == 0 else 0)
    twice = Sighting(np.repeat(usual.window_end_ms, 2), np.repeat(usual.weights / 2, 2), np.repeat(usual.is_odd, 2))
    assert ask(usual)
    assert ask(twice)
