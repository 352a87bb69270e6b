"""What is usual for an entity, and how far a window lies beyond it."""

import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stream_iwae.batches import OTHER_ENTITY, SOURCE_PREFIX, Kind
from stream_iwae.features.kinds import KNOWN
from stream_iwae.features.profiles import Profiles
from stream_iwae.state import N_SHARDS, shard_of

sys.path.insert(0, str(Path(__file__).parent))  # tests are no package; `plain_profile` is theirs alone
from plain_profile import PlainProfiles

REPEATED = settings(deadline=None, max_examples=40)


def profiles_of(kinds=(Kind.MAGNITUDE,), n_windows=1_440, max_entities=1_000):
    return Profiles(kinds, n_windows, max_entities)


def take(profiles, wave):
    """(entity, values) of one wave -> how far each lies beyond, (N, P)."""
    entities = [entity for entity, _ in wave]
    places = profiles.places(np.array([values for _, values in wave], dtype=np.float64))
    usual = profiles.usual(entities, places)
    beyond = profiles.beyond(usual, places)
    profiles.learn(entities, places, usual)
    return beyond


def a_day(profiles, levels, n_waves=200, seed=0):
    """Waves of one number an entity that varies by a fifth around its level."""
    rng = np.random.default_rng(seed)
    for _ in range(n_waves):
        take(profiles, [(name, [level * np.exp(0.2 * rng.standard_normal())]) for name, level in levels.items()])


def beyond_of(profiles, entity, value):
    places = profiles.places(np.array([[value]]))
    return float(profiles.beyond(profiles.usual([entity], places), places)[0, 0])


# --- behaviour -----------------------------------------------------------------------------------


def test_what_is_loud_as_ever_is_usual_and_what_is_newly_loud_is_not():
    profiles = profiles_of()
    a_day(profiles, {"loud": 10_000.0, "quiet": 10.0})

    assert beyond_of(profiles, "loud", 12_000.0) == 1
    assert beyond_of(profiles, "quiet", 12.0) == 1
    assert beyond_of(profiles, "quiet", 12_000.0) > 60


def test_what_falls_silent_lies_below():
    profiles = profiles_of()
    a_day(profiles, {"loud": 10_000.0, "quiet": 10.0})

    assert beyond_of(profiles, "loud", 0.0) < 1 / 250


def test_what_is_told_is_the_factor_from_the_limit():
    profiles = profiles_of()
    a_day(profiles, {"host": 100.0})

    once, twice = beyond_of(profiles, "host", 2_047.0), beyond_of(profiles, "host", 4_095.0)
    assert once > 1
    assert twice / once == pytest.approx(2.0)


def test_a_newcomer_that_behaves_like_others_is_usual_and_one_that_does_not_is_seen():
    profiles = profiles_of()
    a_day(profiles, {f"client {i}": 50.0 for i in range(5)} | {f"server {i}": 20_000.0 for i in range(5)})

    assert beyond_of(profiles, "new client", 60.0) == 1
    assert beyond_of(profiles, "new server", 25_000.0) == 1
    assert beyond_of(profiles, "new stranger", 10_000_000.0) > 8


def test_a_newcomer_like_one_who_left_soon_borrows_from_those_who_stayed():
    profiles = profiles_of()
    a_day(profiles, {f"client {i}": 50.0 for i in range(5)} | {"guest": 1e6}, n_waves=40)
    a_day(profiles, {f"client {i}": 50.0 for i in range(5)}, n_waves=60, seed=1)

    assert profiles._kinds.n == 2
    assert beyond_of(profiles, "like the guest", 1e6) > 8


def test_with_time_a_newcomer_s_own_past_takes_over():
    profiles = profiles_of()
    levels = {f"client {i}": 50.0 for i in range(9)}
    a_day(profiles, levels)
    early = beyond_of(profiles, "odd one", 5_000.0)
    a_day(profiles, levels | {"odd one": 5_000.0}, n_waves=300, seed=1)

    assert early > 8
    assert beyond_of(profiles, "odd one", 5_000.0) == 1


def test_nothing_is_said_before_a_kind_has_a_past():
    profiles = profiles_of()
    for wave in range(int(KNOWN)):
        assert np.isnan(take(profiles, [("host", [1.0 + wave % 2])])).all()
    assert np.isfinite(take(profiles, [("host", [1.0])])).all()


def test_before_a_whole_span_has_been_seen_more_passes_for_usual():
    short, long = profiles_of(n_windows=100), profiles_of(n_windows=1_000)
    for profiles in (short, long):
        a_day(profiles, {"host": 100.0, "other": 100.0}, n_waves=100)

    assert 1 < beyond_of(long, "host", 3_000.0) < beyond_of(short, "host", 3_000.0)


def test_an_attack_of_some_windows_stays_beyond_what_is_usual():
    profiles = profiles_of()
    a_day(profiles, {"host": 50.0, "other": 40.0}, n_waves=600)
    beyond = [take(profiles, [("host", [5_000.0]), ("other", [40.0])])[0, 0] for _ in range(30)]

    assert min(beyond) > 4


def test_one_monstrous_window_moves_a_profile_no_more_than_the_edge_would():
    calm, shaken = profiles_of(), profiles_of()
    for profiles in (calm, shaken):
        a_day(profiles, {"host": 50.0, "other": 40.0})
    places = calm.places(np.array([[1e12]]))
    usual = calm.usual(["host"], places)
    edge = np.expm1(usual.mean[0, 0] + 3 * usual.spread[0, 0])
    take(calm, [("host", [edge])])
    take(shaken, [("host", [1e12])])

    assert calm.state.get("host") == shaken.state.get("host")


def test_a_missing_value_is_neither_judged_nor_learnt():
    profiles = profiles_of((Kind.MAGNITUDE, Kind.RATIO))
    for _ in range(110):
        take(profiles, [("host", [10.0, 0.5])])
    before = profiles.state.get("host")

    beyond = take(profiles, [("host", [10.0, np.nan])])
    after = profiles.state.get("host")

    assert np.isfinite(beyond[0, 0])
    assert np.isnan(beyond[0, 1])
    assert before[1][4:] == after[1][4:]  # the mean of the second feature
    assert np.frombuffer(after[3], "<u2").tolist() == [111, 110]


@pytest.mark.parametrize("name", [OTHER_ENTITY, SOURCE_PREFIX + "r1"])
def test_those_folded_and_whole_sources_have_no_profile(name):
    profiles = profiles_of()
    for _ in range(110):
        beyond = take(profiles, [("host", [10.0]), (name, [99_999.0])])

    assert np.isnan(beyond[1, 0])
    assert np.isfinite(beyond[0, 0])
    assert profiles.state.get(name) is None


def test_a_constant_gauge_has_a_finite_deviation():
    profiles = profiles_of((Kind.GAUGE,))
    for _ in range(110):
        take(profiles, [("host", [5.0])])

    assert beyond_of(profiles, "host", 5.0) == 0
    assert 0 < beyond_of(profiles, "host", 6.0) <= 100


# --- against a plain loop ------------------------------------------------------------------------

VALUE = st.one_of(st.none(), st.sampled_from([0.0, 1.0, 3.0, 50.0, 5_000.0, 1e9, -20.0]))


@st.composite
def histories(draw):
    """A calm past that makes kinds, then waves of anything."""
    names = [f"h{i}" for i in range(draw(st.integers(1, 5)))]
    levels = {name: draw(st.sampled_from([2.0, 40.0, 900.0])) for name in names}
    calm = [
        [
            (name, [levels[name] * (1 + 0.1 * ((wave * 7 + i) % 5)), 0.1 * ((wave + i) % 3)])
            for i, name in enumerate(names)
        ]
        for wave in range(draw(st.sampled_from([0, 35, 110])))
    ]
    pool = [*names, "new 1", "new 2", "new 3", OTHER_ENTITY]
    wild = draw(
        st.lists(st.dictionaries(st.sampled_from(pool), st.tuples(VALUE, VALUE), min_size=1, max_size=6), max_size=12)
    )
    return [*calm, *[sorted((name, list(values)) for name, values in wave.items()) for wave in wild]]


@REPEATED
@given(histories(), st.sampled_from([5, 1_440]), st.sampled_from([2, 4, 100]))
def test_profiles_equal_those_of_a_plain_loop(waves, n_windows, max_entities):
    profiles = profiles_of((Kind.MAGNITUDE, Kind.RATIO), n_windows, max_entities)
    plain = PlainProfiles((True, False), n_windows, max_entities)
    for wave in waves:
        given_values = [(name, [np.nan if x is None else x for x in values]) for name, values in wave]
        found = take(profiles, given_values)
        expected = np.array([[np.nan if x is None else x for x in row] for row in plain.take(wave)])
        np.testing.assert_allclose(found, expected, rtol=1e-3, atol=2e-4)  # pasts are kept as float32
        assert set(profiles.state) - {SOURCE_PREFIX + "kinds"} == set(plain.own)


@REPEATED
@given(histories(), st.integers(0, 120), st.sampled_from([2, 100]))
def test_a_profile_restored_from_its_changes_goes_on_to_the_bit(waves, cut, max_entities):
    whole = profiles_of((Kind.MAGNITUDE, Kind.RATIO), 20, max_entities)
    stored, found = {}, []
    for at, wave in enumerate(waves):
        rows = [(name, [np.nan if x is None else x for x in values]) for name, values in wave]
        found.append(take(whole, rows))
        if at < cut:
            changes = whole.state.take_changes()
            stored = {key: value for key, value in {**stored, **changes}.items() if value is not None}
    if cut <= len(waves):
        again = profiles_of((Kind.MAGNITUDE, Kind.RATIO), 20, max_entities)
        again.restore(stored)
        for at in range(cut, len(waves)):
            rows = [(name, [np.nan if x is None else x for x in values]) for name, values in waves[at]]
            assert np.array_equal(take(again, rows), found[at], equal_nan=True)
        assert again.state.snapshot() == whole.state.snapshot()


# --- bounds --------------------------------------------------------------------------------------


def test_a_flood_of_forged_names_displaces_nobody_who_is_there():
    profiles = profiles_of(max_entities=50)
    a_day(profiles, {f"host {i}": 50.0 for i in range(20)}, n_waves=60)
    for wave in range(20):
        flood = [(f"forged {wave} {i}", [1.0]) for i in range(100)]
        take(profiles, [*flood, *((f"host {i}", [50.0]) for i in range(20))])
        assert len(profiles.state) <= 51

    assert all(f"host {i}" in profiles.state for i in range(20))


def test_those_gone_for_as_long_as_they_were_there_make_room_and_are_struck_out():
    profiles = profiles_of(max_entities=3)
    for _ in range(5):
        take(profiles, [("a", [1.0]), ("b", [1.0]), ("c", [1.0])])
    profiles.state.take_changes()
    for _ in range(5):
        take(profiles, [("a", [1.0])])
    take(profiles, [("a", [1.0]), ("d", [1.0])])

    changes = profiles.state.take_changes()
    assert changes["b"] is changes["c"] is None
    assert changes["d"] is not None
    assert set(profiles.state.snapshot()) == {"a", "d", SOURCE_PREFIX + "kinds"}


def test_only_those_who_were_there_are_written():
    profiles = profiles_of()
    take(profiles, [("a", [1.0]), ("b", [1.0])])
    profiles.state.take_changes()
    take(profiles, [("b", [1.0])])

    assert set(profiles.state.take_changes()) == {"b", SOURCE_PREFIX + "kinds"}


def test_the_shards_are_the_snapshot_in_parts():
    profiles = profiles_of(max_entities=40)
    for wave in range(4):
        take(profiles, [(f"host {wave} {i}", [1.0]) for i in range(20)])
    parts = [profiles.state.shard(number) for number in range(N_SHARDS)]

    assert sum(map(len, parts)) == len(profiles.state)
    assert {key: value for part in parts for key, value in part.items()} == profiles.state.snapshot()
    assert all(shard_of(key) == number for number, part in enumerate(parts) for key in part)
