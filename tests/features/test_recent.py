"""How far a number is from what its entity had of late."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stream_iwae.batches import OTHER_ENTITY, SOURCE_PREFIX
from stream_iwae.features.recent import RECENT_WINDOWS, Recent

NAN = float("nan")


def take(recent, wave):
    """{entity: values} of one wave -> its differences, (N, R)."""
    values = np.array(list(wave.values()), dtype=np.float64).reshape(len(wave), -1)
    found = recent.differences(list(wave), values)
    recent.learn(list(wave), values)
    return found


def test_the_mean_is_that_of_the_first_windows_and_then_fades():
    recent = Recent(1, 10)
    found = [take(recent, {"h": [value]})[0, 0] for value in (1.0, 3.0, 5.0)]

    assert np.array_equal(found, [NAN, 2.0, 3.0], equal_nan=True)  # nothing before; 3 - 1; 5 - (1 + 3) / 2

    for _ in range(200):
        take(recent, {"h": [10.0]})
    take(recent, {"h": [19.0]})
    assert take(recent, {"h": [10.0]})[0, 0] == pytest.approx(-2.0)  # 2 / (8 + 1) of the way to 19


def test_a_step_is_seen_at_any_level_and_a_new_level_is_soon_the_usual_one():
    recent = Recent(2, 10)
    for _ in range(20):
        take(recent, {"low": [0.1, 5.0], "high": [0.9, 5.0]})

    assert take(recent, {"low": [0.3, 5.0], "high": [0.9, 5.0]}) == pytest.approx(
        np.array([[0.2, 0.0], [0.0, 0.0]]), abs=1e-6
    )
    for _ in range(4 * RECENT_WINDOWS):
        after = take(recent, {"low": [0.3, 5.0]})
    assert abs(after[0, 0]) < 1e-3


def test_a_missing_number_is_neither_judged_nor_learnt():
    recent = Recent(2, 10)
    take(recent, {"h": [1.0, NAN]})

    assert np.array_equal(take(recent, {"h": [NAN, 7.0]}), [[NAN, NAN]], equal_nan=True)
    assert np.array_equal(take(recent, {"h": [4.0, 9.0]}), [[3.0, 2.0]], equal_nan=True)


@pytest.mark.parametrize("name", [OTHER_ENTITY, SOURCE_PREFIX + "exporter"])
def test_those_folded_and_whole_sources_have_no_past(name):
    recent = Recent(1, 10)
    take(recent, {name: [1.0]})

    assert np.isnan(take(recent, {name: [1.0]})).all()


def test_memory_is_bounded_and_those_gone_make_room():
    recent = Recent(1, 3)
    for _ in range(3):
        take(recent, {"a": [1.0], "b": [1.0], "c": [1.0]})
    take(recent, {f"forged {i}": [1.0] for i in range(50)} | {"a": [1.0], "b": [1.0], "c": [1.0]})
    assert np.isfinite(take(recent, {"a": [1.0], "b": [1.0], "c": [1.0]})).all()

    for _ in range(2 * RECENT_WINDOWS):
        take(recent, {"a": [1.0]})
    recent.state.take_changes()
    take(recent, {"a": [1.0], "d": [1.0]})
    changes = recent.state.take_changes()
    assert changes["b"] is changes["c"] is None
    assert changes["d"] is not None


@settings(max_examples=40)
@given(
    st.lists(
        st.dictionaries(st.sampled_from("abcd"), st.tuples(*[st.floats(-1e30, 1e30) | st.just(NAN)] * 2), min_size=1),
        max_size=40,
    ),
    st.integers(0, 40),
)
def test_restored_from_its_changes_it_goes_on_to_the_bit(waves, cut):
    whole, again = Recent(2, 3), Recent(2, 3)
    stored, found = {}, []
    for at, wave in enumerate(waves):
        found.append(take(whole, wave))
        if at < cut:
            stored |= whole.state.take_changes()
    again.restore({key: value for key, value in stored.items() if value is not None})
    for at in range(min(cut, len(waves)), len(waves)):
        assert np.array_equal(take(again, waves[at]), found[at], equal_nan=True)
    assert again.state.snapshot() == whole.state.snapshot()
