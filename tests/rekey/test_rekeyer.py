"""The re-keyer's loop and the service behind it: order, history, idle sources, accounts, refusals."""

import json
import random
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rekey_world import START_MS, RekeyWorld, direct, event, scattered, the_stages

from stream_iwae.errors import ConfigurationError
from stream_iwae.features.config import FeaturesConfig
from stream_iwae.rekey.batch import decode_header
from stream_iwae.wire import decode_training

HOUR_MS = 3_600_000


def messages(*events):
    return [json.dumps(each).encode() for each in events]


@pytest.fixture
def a_world():
    """Member `a` has everything; nothing runs yet."""

    def make(logs, stages=None, **settings):
        world = RekeyWorld(logs, stages or the_stages(), **settings)
        world.assign("g-rekeyer", len(logs), lambda _: "a")
        world.assign("g", world.n_targets, lambda _: "a")
        return world

    return make


def headers(world, target=0):
    found = [(p, decode_header(entry.value)) for p, _, entry in world.broker.committed_records("rekeyed")]
    return [header for partition, header in found if partition == target]


def run_rekeyer(world, turns=5):
    if "a" not in world.rekeyers:
        world.start_rekeyer("a")
    for _ in range(turns):
        world.clock.advance(10)
        world.rekeyers["a"].step()
    return world.rekeyers["a"]


def run_service(world, turns=20):
    if "a" not in world.services:
        world.start_service("a")
    for _ in range(turns):
        world.clock.advance(10)
        world.services["a"].step()
    return world.services["a"]


# --- the same as without -------------------------------------------------------------------------


@settings(max_examples=12)
@given(st.integers(0, 10**6))
def test_one_partition_in_any_disorder_gives_the_same_windows_alerts_and_late_events(seed):
    """Each event meets the watermark it would have met, whatever went to other targets in between."""
    rng = random.Random(seed)
    whole, _ = scattered(rng, 120, n_sources=1, disorder=(0, 0, 4000, 15_000, 40_000))
    world = RekeyWorld([whole], the_stages(idle_after="10m"), n_targets=3, rng=rng, most=5).run()
    reference = direct(whole, the_stages())

    late = [sum(service.totals.late for service in each.services.values()) for each in (world, reference)]
    assert late[0] == late[1] > 0
    assert world.windows() == reference.windows()
    assert world.alerts() == reference.alerts()


def test_several_events_travel_in_one_message(a_world):
    log = messages(*(event(START_MS + i, f"h{i % 7}") for i in range(500)))
    world = a_world([log, log])

    run_rekeyer(world)

    sizes = [sum(part.n_events for part in header.parts) for target in (0, 1) for header in headers(world, target)]
    assert sum(sizes) == 1000
    assert len(sizes) <= 6


def test_a_transaction_tells_every_target_how_far_every_source_is(a_world):
    world = a_world([messages(event(START_MS + 5, "h0")), messages(event(START_MS + 9, "h0")), []], n_targets=4)

    run_rekeyer(world)

    for target in range(4):
        said = {part.source: part.reached_ms for header in headers(world, target) for part in header.parts}
        assert said[0] == START_MS + 5
        assert said[1] == START_MS + 9
        assert said[2] < 0


# --- accounts ------------------------------------------------------------------------------------


def test_every_event_has_one_fate_in_each_stage(a_world):
    log = [*messages(event(START_MS, "a"), event(START_MS + 1, "b"), {"ts": START_MS}), b"{", None]
    log += messages(event(START_MS + 90_000, "a"), event(START_MS + 2, "a"))
    world = a_world([log])

    rekeyer, service = run_rekeyer(world), run_service(world)

    assert rekeyer.totals.is_balanced
    assert service.totals.is_balanced
    assert (rekeyer.totals.consumed, rekeyer.totals.forwarded) == (7, 4)
    assert rekeyer.totals.rejected == {"no_entity": 1, "invalid_json": 1}
    assert rekeyer.totals.skipped == {"empty": 1}
    assert (service.totals.consumed, service.totals.aggregated, service.totals.late) == (4, 3, 1)
    telemetry = world.telemetry["a"]
    assert telemetry.counters["events_forwarded", frozenset({("topic", "events")})] == 4
    assert telemetry.total("events_consumed") == telemetry.total("events_forwarded") + telemetry.total(
        "events_rejected"
    ) + telemetry.total("events_skipped")


def test_a_dead_letter_has_the_bytes_and_the_place_where_it_was_found(a_world):
    world = a_world([[], [*messages(event(START_MS, "a")), b"\xff"]])

    run_rekeyer(world)
    run_service(world)

    ((_, _, letter),) = world.broker.committed_records("dead-letters")
    assert letter.value == b"\xff"
    where = dict(letter.headers)
    assert (where["topic"], where["partition"], where["offset"]) == (b"events", b"1", b"1")


def test_what_is_no_batch_on_the_rekeyed_topic_is_a_dead_letter_of_the_service(a_world):
    world = a_world([messages(event(START_MS, "a"), event(START_MS + 90_000, "a"))])
    world.broker.append("rekeyed", 0, None, b'{"ts": 1}', 0)

    run_rekeyer(world)
    service = run_service(world)

    ((_, _, letter),) = world.broker.committed_records("dead-letters")
    where = dict(letter.headers)
    assert (where["topic"], where["offset"], where["reason"]) == (b"rekeyed", b"0", b"bad_batch")
    assert letter.value == b'{"ts": 1}'
    assert service.totals.aggregated == 2
    assert service.totals.is_balanced


def test_an_event_that_no_message_could_hold_is_a_dead_letter_and_moves_no_time(a_world):
    huge = json.dumps(event(START_MS + HOUR_MS, "x" * 600_000)).encode()
    world = a_world([[*messages(event(START_MS, "a")), huge, *messages(event(START_MS + 1, "a"))]])

    rekeyer = run_rekeyer(world)

    assert rekeyer.totals.rejected == {"too_large": 1}
    assert rekeyer.totals.forwarded == 2
    assert rekeyer.partitions[0].reached_ms == START_MS + 1


# --- idle sources --------------------------------------------------------------------------------


def test_a_quiet_partition_holds_nothing_back_for_longer_than_idle_after(a_world):
    world = a_world([messages(event(START_MS, "a"), event(START_MS + 60_000, "a")), []], the_stages(idle_after="30s"))

    run_rekeyer(world)
    assert run_service(world).totals.windows == 0

    world.clock.advance(30_000)
    run_rekeyer(world)
    n_windows = run_service(world).totals.windows
    assert n_windows >= 1
    n_words = len(headers(world))
    world.clock.advance(600_000)
    run_rekeyer(world)
    assert len(headers(world)) == n_words, "an idle source says so once"


def test_who_begins_to_read_in_the_middle_hears_who_is_idle(a_world):
    """Said once it would be long gone, and all would wait for a partition that has no events."""
    world = a_world([messages(event(START_MS, "a")), []], the_stages(idle_after="30s"), start="latest")
    run_rekeyer(world)
    world.clock.advance(30_000)
    run_rekeyer(world)
    service = run_service(world)
    assert not service.totals.consumed

    world.feed(0, messages(event(START_MS + 60_000, "a"), event(START_MS + 120_000, "a")))
    run_rekeyer(world)
    assert run_service(world).totals.windows >= 1


def test_an_idle_partition_that_wakes_is_waited_for_again(a_world):
    world = a_world([messages(event(START_MS, "a")), []], the_stages(idle_after="30s"))
    run_rekeyer(world)
    world.clock.advance(30_000)
    rekeyer = run_rekeyer(world)
    assert rekeyer.partitions[1].is_idle

    world.feed(1, messages(event(START_MS + 1, "b")))
    run_rekeyer(world)
    assert not rekeyer.partitions[1].is_idle
    world.feed(0, messages(event(START_MS + 60_000, "a")))
    run_rekeyer(world)
    assert run_service(world).totals.windows == 0


# --- cold start ----------------------------------------------------------------------------------


def training_rows(world):
    return [decode_training(entry.value) for _, _, entry in world.broker.committed_records("training")]


def a_past(n, bursts=()):
    events = []
    for second in range(0, n, 5):
        events += [event(START_MS + second * 1000 + i, f"h{i}") for i in range(4)]
        events += [event(START_MS + second * 1000 + i, "loud") for i in range(40) if second in bursts]
    return messages(*events)


def test_what_was_there_before_only_teaches_and_what_comes_after_alerts(a_world):
    """Both begin at the same time on an empty re-keyed topic; the history is that of the events."""
    world = a_world([a_past(60, bursts={30}), a_past(60)], start="history")

    service = run_service(world)
    assert service.pipelines[0].history_until is not None, "history cannot be over before anything was said"
    run_rekeyer(world)
    run_service(world)
    assert all(pipeline.history_until is None for pipeline in service.pipelines.values())
    assert not world.alerts(), "an attack of the past alerts nobody"
    rows = training_rows(world)
    assert sum(len(batch) for batch in rows) > 20
    assert sorted(batch.partition for batch in rows if batch.history_ended) == [0, 1]
    assert all(batch.in_history for batch in rows if len(batch))

    later = [each.replace(b"17000000", b"17000001") for each in a_past(60, bursts={30})]  # 100 s on
    world.feed(0, later)
    world.feed(1, later)
    run_rekeyer(world)
    run_service(world)
    assert world.alerts()


def test_history_is_over_only_when_every_source_has_passed_it(a_world):
    world = a_world([a_past(60), a_past(60)], start="history")
    world.assign("g-rekeyer", 2, lambda p: "ab"[p])
    run_rekeyer(world)
    service = run_service(world)
    assert all(pipeline.history_until is not None for pipeline in service.pipelines.values())

    world.start_rekeyer("b")
    for _ in range(5):
        world.rekeyers["b"].step()
    run_service(world)
    assert all(pipeline.history_until is None for pipeline in service.pipelines.values())


def test_the_first_live_event_shares_no_message_with_the_history(a_world):
    world = a_world([a_past(20)], start="history")
    world.start_rekeyer("a")
    rekeyer = world.rekeyers["a"]
    rekeyer.step()  # takes over; the history ends here
    world.feed(0, messages(event(START_MS + 20_000, "new")))
    for _ in range(4):
        rekeyer.step()

    flags = [part.is_history for header in headers(world) for part in header.parts]
    assert flags == sorted(flags, reverse=True)
    pairs = zip(headers(world, 0), headers(world, 1), strict=True)  # of each transaction
    sizes = [sum(part.n_events for header in pair for part in header.parts) for pair in pairs]
    assert sizes == [0, 16, 1]


def test_a_new_service_on_an_old_rekeyed_topic_learns_from_what_it_holds(a_world):
    world = a_world([a_past(120)], start="earliest")
    run_rekeyer(world)
    world.settings = replace(world.settings, start="history")

    service = run_service(world)

    assert all(pipeline.history_until is None for pipeline in service.pipelines.values())
    assert not world.alerts()
    assert sum(len(batch) for batch in training_rows(world)) > 20


# --- refusals and restarts -----------------------------------------------------------------------


def test_the_rekeyer_refuses_to_go_on_under_another_configuration(a_world):
    world = a_world([messages(event(START_MS, "a"))])
    run_rekeyer(world)
    world.n_targets = 1
    world.broker.rebalance("g-rekeyer", {"a": frozenset({0})})
    world.start_rekeyer("a")
    with pytest.raises(ConfigurationError, match="another number of partitions"):
        world.rekeyers["a"].step()


def test_the_service_refuses_events_that_were_decoded_under_another_configuration(a_world):
    world = a_world([messages(event(START_MS, "a"))])
    run_rekeyer(world)
    other = FeaturesConfig.model_validate([{"name": "flows", "aggregate": "count"}])
    world.stages = replace(world.stages, features=other)
    with pytest.raises(ConfigurationError, match=r"kafka\.topics\.rekeyed"):
        run_service(world)


def test_a_restarted_rekeyer_repeats_nothing_and_says_where_it_is(a_world):
    world = a_world([messages(event(START_MS, "a"), event(START_MS + 7, "b"))])
    run_rekeyer(world)
    before = world.forwarded()[0]
    world.broker.rebalance("g-rekeyer", {"a": frozenset({0})})
    del world.rekeyers["a"]

    run_rekeyer(world)

    assert world.forwarded()[0] == before
    (part,) = headers(world)[-1].parts
    assert (part.n_events, part.reached_ms) == (0, START_MS + 7)


def test_a_zombie_commits_nothing(a_world):
    """It slept through a rebalance, and the other has done its work."""
    world = a_world([messages(event(START_MS, "a"))])
    run_rekeyer(world, turns=1)
    zombie = world.rekeyers.pop("a")
    world.feed(0, messages(event(START_MS + 1, "b")))
    zombie._poll(0.0)  # has records in hand
    while zombie._records:
        zombie._process(zombie._records.popleft())
    world.broker.rebalance("g-rekeyer", {"b": frozenset({0})})
    world.start_rekeyer("b")
    for _ in range(3):
        world.rekeyers["b"].step()
    before = world.forwarded()[0]

    zombie.commit()

    assert world.forwarded()[0] == before
    assert before.total() == 2
    assert not zombie.partitions
    assert not [name for name, _ in world.telemetry["a"].gauges if name == "consumer_lag_records"]


def test_records_lost_to_retention_are_counted(a_world):
    world = a_world([messages(*(event(START_MS + i, "a") for i in range(6)))])
    world.start_rekeyer("a")
    world.rekeyers["a"].step()
    world.rekeyers["a"]._source.seek(0, 0)
    world.broker.delete_before("events", 0, 4)
    world.rekeyers["a"].step()
    assert world.telemetry["a"].total("consumer_gap_records") == 4


def test_a_tombstone_among_the_batches_is_skipped(a_world):
    world = a_world([messages(event(START_MS, "a"))])
    run_rekeyer(world)
    world.broker.append("rekeyed", 0, b"k", None, 0)
    service = run_service(world)
    assert service.totals.skipped == {"empty": 1}
    assert service.totals.is_balanced
