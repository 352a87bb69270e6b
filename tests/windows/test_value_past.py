import numpy as np
import polars as pl
import pytest

from stream_iwae.state import N_SHARDS, KeyedState
from stream_iwae.windows.value_counts import ValueCounts
from stream_iwae.windows.value_past import BUCKETS, ROWS, ValuePast, ValuePasts


def wave(past, *pairs):
    """One window of (entity, value, n): the surge of each entity, by name."""
    entities = sorted({entity for entity, _, _ in pairs})
    numbers = np.repeat([entities.index(entity) for entity, _, _ in pairs], [n for *_, n in pairs]).astype(np.uint32)
    values = pl.Series([value for _, value, n in pairs for _ in range(n)])
    found = past.surge(ValueCounts.count(numbers, values), np.zeros(len(entities), dtype=np.uint32))
    return dict(zip(entities, found.tolist(), strict=True))


def test_a_value_that_always_occurs_alike_does_not_surge_and_a_new_one_does():
    past = ValuePast("x", 10_000)
    for _ in range(99):
        assert wave(past, ("a", "p", 3)) == {"a": pytest.approx(1, rel=1e-5)}

    found = wave(past, ("a", "p", 3), ("b", "new", 1))
    assert found["a"] == pytest.approx(1, rel=1e-5)
    assert found["b"] == pytest.approx(100, rel=0.01)  # never in a hundred waves


def test_ten_times_as_much_as_usual_is_nearly_ten():
    past = ValuePast("x", 10_000)
    for _ in range(200):
        wave(past, ("a", "p", 2))

    assert wave(past, ("a", "p", 20))["a"] == pytest.approx(20 * 201 / 420, rel=0.01)


def test_all_entities_together_are_what_surges():
    past = ValuePast("x", 10_000)
    for _ in range(100):
        wave(past, ("a", "p", 1), ("b", "q", 1))

    found = wave(past, *((f"host {i}", "p", 1) for i in range(50)), ("b", "q", 1))
    assert found["host 7"] == pytest.approx(50 * 101 / 150, rel=0.01)
    assert found["b"] == pytest.approx(1, rel=1e-4)


def test_what_was_long_ago_is_forgotten():
    past = ValuePast("x", 10)
    for _ in range(50):
        wave(past, ("a", "p", 5))
    for _ in range(200):
        wave(past, ("a", "q", 1))

    assert wave(past, ("a", "p", 1))["a"] == pytest.approx(1 / (1 - np.exp(-0.1)), rel=1e-3)


def test_a_flood_of_forged_values_takes_no_memory_and_hides_no_more_than_it_is():
    past, state = ValuePasts({"x": 10_000}), KeyedState()
    for at in range(20):
        wave(past["x"], ("a", "p", 1), *(("b", f"forged {at} {i}", 1) for i in range(2_000)))
    state.restore(past.state.snapshot())

    assert sum(len(part) for key, record in state.items() if "/" in key for part in record) == ROWS * BUCKETS * 8
    assert wave(past["x"], ("a", "p", 1), ("c", "new", 5))["a"] == pytest.approx(1, abs=0.3)


@pytest.mark.parametrize("cut", [0, 1, 7])
def test_a_past_restored_from_its_changes_goes_on_to_the_bit(cut):
    rng = np.random.default_rng(cut)
    waves = [
        [("a", f"v{v}", int(n)) for v, n in zip(rng.permutation(30)[:9], rng.integers(1, 5, 9), strict=True)]
        for _ in range(12)
    ]
    whole, stored, found = ValuePasts({"x": 20, "y": 20}), {}, []
    for at, one in enumerate(waves):
        found.append(wave(whole["x"], *one))
        if at < cut:
            stored |= whole.state.take_changes()
    again = ValuePasts({"x": 20, "y": 20})
    again.restore(stored)

    assert [wave(again["x"], *one) for one in waves[cut:]] == found[cut:]
    assert again.state.snapshot() == whole.state.snapshot()
    shards = [again.state.shard(number) for number in range(N_SHARDS)]
    assert {key: value for shard in shards for key, value in shard.items()} == whole.state.snapshot()


def test_a_wave_without_a_value_passes_too():
    past = ValuePast("x", 10_000)
    for _ in range(10):
        wave(past, ("a", "p", 1))
    nothing = ValueCounts.count(np.zeros(1, dtype=np.uint32), pl.Series([None], dtype=pl.String))
    assert np.isnan(past.surge(nothing, np.zeros(1, dtype=np.uint32))).all()

    assert wave(past, ("a", "p", 1))["a"] == pytest.approx(12 / 11, rel=0.01)
