import time

import pytest
from plain import FEW, Event, a_config, an_event_batch, an_operator

from stream_iwae.batches import OTHER_ENTITY, SOURCE_PREFIX
from stream_iwae.state import N_SHARDS, shard_of
from stream_iwae.windows.config import WindowsConfig
from stream_iwae.windows.presence import Presence

SIZE = 1_000


class Waves:
    """Feeds one event an entity and wave, and keeps the empty windows by wave."""

    def __init__(self, **fields):
        self.operator = an_operator(a_config(absent_windows=3, **fields), FEW)
        self.offset = 0
        self.now = 0
        self.rows = []

    def feed(self, present, n_waves=1, source="s"):
        """`present` entities in each of the next waves; returns (wave, entity, p-value) of every empty window."""
        events = []
        for _ in range(n_waves):
            for entity in present:
                events.append(Event(self.offset, self.now, entity, source, 1.0, "p"))
                self.offset += 1
            self.now += SIZE
        found = [self.operator.add(an_event_batch(events), self.offset).windows.frame] if events else []
        found.append(self.operator.advance(self.now, self.offset).frame)
        self.rows = [row for frame in found for row in frame.iter_rows(named=True)]
        return [
            (row["window_start_ms"] // SIZE, row["entity"], row["silence_p_value"])
            for row in self.rows
            if not row["n_events"]
        ]


def test_an_entity_that_falls_silent_has_empty_windows_a_few_times():
    waves = Waves()
    assert waves.feed("ab", 10) == []

    assert waves.feed("b", 6) == [(10, "a", None), (11, "a", None), (12, "a", None)]


def test_an_empty_window_has_counts_of_zero_and_no_other_value():
    waves = Waves()
    waves.feed("ab", 10)
    waves.feed("b")
    empty = next(row for row in waves.rows if row["entity"] == "a")

    assert (empty["n_events"], empty["n"], empty["window_start_ms"], empty["window_end_ms"]) == (0, 0, 10_000, 11_000)
    assert {empty[name] for name in ("first_offset", "last_offset", "total", "std", "median", "last_peer")} == {None}


def test_an_entity_with_a_short_past_is_not_missed():
    waves = Waves()
    waves.feed("ab", 9)

    assert waves.feed("b", 3) == []


def test_an_entity_that_was_there_too_seldom_is_not_missed():
    waves = Waves()
    for _ in range(10):
        waves.feed("ab", 3)
        waves.feed("b")

    assert waves.feed("b", 3) == []


def test_an_entity_that_is_back_can_be_missed_again():
    waves = Waves()
    waves.feed("ab", 20)
    assert len(waves.feed("b", 5)) == 3
    assert waves.feed("ab", 20) == []

    assert [wave for wave, _, _ in waves.feed("b", 5)] == [45, 46, 47]


def test_an_entity_that_stays_away_is_forgotten():
    waves = Waves()
    waves.feed("ab", 12)
    waves.feed("b", 70)

    assert set(waves.operator.presence) == {"b"}


def test_a_watermark_that_leaps_gives_each_missed_window_of_its_own():
    waves = Waves()
    waves.feed("a", 10)
    waves.now += 3_600_000

    assert waves.feed("") == [(10, "a", None), (11, "a", None), (12, "a", None)]


def test_a_leap_over_years_costs_no_more_than_the_waves_that_matter():
    waves = Waves()
    waves.feed("abcdef", 12)
    waves.now += 10 * 365 * 86_400_000
    began = time.process_time()

    assert len(waves.feed("")) == 3
    assert time.process_time() - began < 2
    assert len(waves.operator.presence) == 0


def test_hopping_windows_are_missed_once_a_hop():
    operator = an_operator(a_config(kind="hopping", advance="500ms", absent_windows=2, present_history=4), FEW)
    events = [Event(at, at * 500, "ab"[at % 2], "", 1.0, "p") for at in range(12)]
    operator.add(an_event_batch(events), 12)
    frame = operator.advance(60_000, 12).frame
    empty = frame.filter(frame["n_events"] == 0)

    assert empty.select("entity", "window_end_ms").rows() == [("a", 6_500), ("a", 7_000), ("b", 7_000), ("b", 7_500)]


def test_absences_can_be_switched_off():
    operator = an_operator(a_config(absent_windows=0), FEW)
    operator.add(an_event_batch([Event(at, at * SIZE, "a") for at in range(12)]), 12)

    assert operator.advance(60_000, 12).frame["n_events"].to_list() == [1]
    assert len(operator.presence) == 0


def test_folded_entities_are_nobody_to_miss():
    waves = Waves(max_entities=2)
    waves.feed("abc", 12)

    assert OTHER_ENTITY not in waves.operator.presence
    assert waves.feed("ab", 2) == []


# --- whole sources -------------------------------------------------------------------------------


def test_a_source_gone_quiet_is_one_row_with_the_probability_of_its_silence():
    waves = Waves()
    waves.feed("abcde", 10)

    found = waves.feed("", 5)
    assert [(wave, entity) for wave, entity, _ in found] == [(wave, SOURCE_PREFIX + "s") for wave in (10, 11, 12)]
    assert found[0][2] == pytest.approx((1 / 12) ** 5), "each was there 10 of 10 times: (0 + 1) / (10 + 2)"


def test_a_source_of_few_entities_is_not_judged_as_a_whole():
    waves = Waves()
    waves.feed("abcd", 10)

    assert waves.feed("") == [(10, entity, None) for entity in "abcd"]


def test_entities_without_a_source_are_missed_one_by_one():
    waves = Waves()
    waves.feed("abcde", 10, source="")

    assert waves.feed("") == [(10, entity, None) for entity in "abcde"]


def test_most_of_a_source_is_enough_and_less_is_not():
    waves, others = Waves(), Waves()
    waves.feed("abcde", 10)
    others.feed("abcde", 10)

    assert [entity for _, entity, _ in waves.feed("e")] == [SOURCE_PREFIX + "s"]
    assert [entity for _, entity, _ in others.feed("de")] == ["a", "b", "c"]


def test_other_sources_are_left_alone():
    operator = an_operator(a_config(absent_windows=3), FEW)
    events = [
        Event(12 * at + index, at * SIZE, entity, "st"[entity > "f"])
        for at in range(13)
        for index, entity in enumerate("abcdefghijkl" if at < 12 else "ghijkl")
    ]
    frame = operator.add(an_event_batch(events), 200).windows.frame
    assert frame["n_events"].min() == 1
    frame = operator.advance(13 * SIZE, 200).frame

    assert frame.filter(frame["n_events"] == 0)["entity"].to_list() == [SOURCE_PREFIX + "s"]


def test_a_source_that_is_back_has_three_ordinary_rows():
    waves = Waves()
    waves.feed("abcde", 10)
    waves.feed("", 2)

    whole = SOURCE_PREFIX + "s"
    assert waves.feed("abcde", 5) == [(12, whole, 1.0), (13, whole, 1.0), (14, whole, 1.0)]
    assert whole not in waves.operator.presence


def test_a_probability_never_reaches_zero():
    waves = Waves()
    entities = [f"entity-{at}" for at in range(400)]
    waves.feed(entities, 12)

    assert waves.feed("")[0][2] == 1e-300


# --- state ---------------------------------------------------------------------------------------


def test_deltas_build_up_the_snapshot():
    waves, built = Waves(), {}
    for present in ["abcdefg", *["abcdef"] * 12, "", "", "ab", *["abcdef"] * 5, *["h"] * 70]:
        waves.feed(present)
        for key, value in waves.operator.presence.take_changes().items():
            if value is None:
                built.pop(key, None)
            else:
                built[key] = value
        assert built == waves.operator.presence.snapshot()
        parts = [waves.operator.presence.shard(number) for number in range(N_SHARDS)]
        assert built == {key: value for part in parts for key, value in part.items()}
        assert all(shard_of(key) == number for number, part in enumerate(parts) for key in part)
    assert set(built) == {"h"}


def test_a_restored_presence_goes_on_as_before():
    waves, again = Waves(), Waves()
    waves.feed("abcdefg", 12)
    again.operator.presence.restore(dict(reversed(waves.operator.presence.snapshot().items())))
    again.operator.restore(waves.operator.progress(waves.offset))
    again.now, again.offset = waves.now, waves.offset
    assert again.operator.presence.take_changes() == {}

    for present in ["ab", "abcdefg", "", "g", "abcdefg"]:
        assert again.feed(present) == waves.feed(present)
    assert again.operator.presence.snapshot() == waves.operator.presence.snapshot()


def test_a_wave_of_a_hundred_thousand_entities_is_quick():
    presence = Presence(WindowsConfig())
    entities, sources = [f"192.0.2.{at}" for at in range(100_000)], ["s"] * 100_000
    for wave in range(12):
        presence.wave(wave, entities, sources)
    half = entities[::2]
    began = time.process_time()
    absences = presence.wave(12, half, sources[::2])

    assert len(absences) == 50_000
    assert time.process_time() - began < 1, "measured 0.2 s"
