"""Each check is seen to fail: on records made by the pipeline itself, spoilt in the one way that it is there to notice."""

from collections import Counter
from dataclasses import replace

import pytest

from stream_iwae.config import Config
from tests.outages.checks import CHECKS, Found, violations
from tests.outages.effects import Published, effects_of
from tests.outages.fleet import Exit
from tests.outages.logs import (
    GRACE_MS,
    N_PARTITIONS,
    SIZE_MS,
    START_MS,
    Stored,
    fates_of,
    last_messages,
    window_of_messages,
)
from tests.outages.reference import Committed, published_of, reference_of
from tests.outages.settings import Names, configuration, pinned_model

N_WINDOWS = 40


@pytest.fixture(scope="module")
def config():
    return Config.model_validate(configuration("x:1", Names("g"), "a", "kafka-python"))


@pytest.fixture(scope="module")
def log():
    messages = [m for number in range(N_WINDOWS) for m in window_of_messages(5, number)] + last_messages(N_WINDOWS)
    logs = {partition: [] for partition in range(N_PARTITIONS)}
    for message in messages:
        logs[message.partition].append(Stored(len(logs[message.partition]), START_MS + 10**9, message.value))
    return logs


@pytest.fixture(scope="module")
def published(config, log):
    return published_of(config, log, pinned_model())[0]


@pytest.fixture(scope="module")
def reference(config, log):
    return reference_of(config, log, pinned_model())


@pytest.fixture
def found(log, published, reference):
    """A schedule in which all went well."""
    effects = effects_of(published)
    return Found(
        sent={partition: [stored.value for stored in records] for partition, records in log.items()},
        log={partition: list(records) for partition, records in log.items()},
        reference=reference,
        effects=effects,
        committed=dict(reference.committed),
        ends={("g.alerts", 0): (17, 17)},
        exits=[Exit("replica1", 0, "drained", was_told=True)],
        versions=["1.0", "1.1", "2.0"],
        rows_learnt=effects.rows.total(),
    )


def test_a_run_in_order_violates_nothing(found):
    assert violations(found) == {}
    assert found.effects.alerts.total() > 5
    assert found.effects.dead_letters.total() > 5


def without(kind, number):
    """The records of a kind but one."""

    def change(published):
        places = [at for at, record in enumerate(published) if record.kind == kind]
        return [record for at, record in enumerate(published) if at != places[number]]

    return change


def doubled(kind, number):
    """One record of a kind twice, the second time at the end."""

    def change(published):
        return [*published, [record for record in published if record.kind == kind][number]]

    return change


def first_again(published):
    """The first alert of whoever has most of them, once more at the end."""
    alerts = [record for record in published if record.kind == "alerts"]
    loudest, n = Counter(record.key for record in alerts).most_common(1)[0]
    assert n > 1
    return [*published, next(record for record in alerts if record.key == loudest)]


def swapped(kind):
    """The records of a kind from the last to the first."""

    def change(published):
        turned = iter([record for record in published if record.kind == kind][::-1])
        return [next(turned) if record.kind == kind else record for record in published]

    return change


@pytest.mark.parametrize(
    ("change", "noticed"),
    [
        (without("alerts", 3), {"I11"}),
        (first_again, {"I2", "I4", "I11"}),
        (swapped("alerts"), {"I4"}),
        (without("scores", 5), {"I1"}),
        (doubled("scores", 5), {"I1"}),
        (without("dead_letters", 2), {"I1", "sum"}),
        (doubled("dead_letters", 2), {"I1", "sum"}),
        (without("training", 7), {"I1", "sum", "trainer"}),
        (doubled("training", 7), {"I1", "I4", "sum", "trainer"}),
        (swapped("training"), {"I4"}),
        (without("state", -2), {"I6"}),  # the last delta; behind it comes a snapshot of one shard
    ],
)
def test_what_is_lost_repeated_or_out_of_order_is_noticed(change, noticed, found, published):
    found.effects = effects_of(change(published))

    assert set(violations(found)) == noticed


def test_another_wording_of_an_alert_is_noticed(found, published):
    spoilt = list(published)
    at = next(at for at, record in enumerate(spoilt) if record.kind == "alerts")
    spoilt[at] = spoilt[at]._replace(value=spoilt[at].value.replace(b'"windows":1', b'"windows":2'))
    found.effects = effects_of(spoilt)

    assert set(violations(found)) == {"I11"}


ANY_EXIT = Exit("replica2", 1, "error: output could not be delivered", was_told=False)
PLAIN = {
    "a record of the load twice": (lambda f: f.log[1].append(f.log[1][-1]), {"log", "I9", "sum"}),
    "the load in another order": (lambda f: f.sent[2].reverse(), {"log"}),
    "a commit that goes back": (lambda f: f.went_back.append("of partition 0"), {"I5"}),
    "a commit beyond the log": (lambda f: f.committed.update({0: Committed(9**9, 9**9, 0)}), {"I5", "I6", "I9"}),
    "a partition that stands still": (lambda f: f.committed.update({3: Committed(4, 5, START_MS)}), {"I6", "I9"}),
    "a partition without a commit": (lambda f: f.committed.pop(3), {"I6", "I9"}),
    "what does not come about": (lambda f: f.stalled.append("not after 60 s: no replica lags"), {"I9"}),
    "a transaction that hangs": (lambda f: f.ends.update({("g.state", 2): (9, 11)}), {"I9"}),
    "an unclean end": (lambda f: f.exits.append(Exit("replica1", -9, "", was_told=True)), {"I10"}),
    "a death": (lambda f: f.exits.append(ANY_EXIT), {"exits"}),
    "a model that cannot be loaded": (lambda f: f.damaged.append("model 1.0"), {"trainer"}),
    "an older model announced": (lambda f: f.versions.append("1.1"), {"trainer"}),
    "no model": (lambda f: f.versions.clear(), {"trainer"}),
}


@pytest.mark.parametrize("what", PLAIN)
def test_other_violations_are_noticed(what, found):
    change, noticed = PLAIN[what]
    change(found)

    assert set(violations(found)) == noticed


def test_a_watermark_that_was_forgotten_is_noticed(found):
    found.committed[0] = replace(found.committed[0], watermark_ms=None)

    assert set(violations(found)) == {"I6"}


def test_a_trainer_that_has_not_read_everything_is_noticed(found):
    found.rows_learnt -= 1

    assert set(violations(found)) == {"trainer"}


def test_giving_up_is_in_order_only_where_nothing_can_be_delivered(found):
    found.exits.append(ANY_EXIT)
    found.may_end = True
    assert violations(found) == {}

    found.exits.append(replace(ANY_EXIT, code=-11))
    assert set(violations(found)) == {"exits"}


def test_every_check_is_seen_to_fail_above():
    above = [{"I1", "I2", "I4", "I6", "I11", "sum", "trainer"}, *(noticed for _, noticed in PLAIN.values())]
    assert set().union(*above) == set(CHECKS)


def test_fates_are_counted_by_hand():
    def stored(time_ms, **more):
        value = b'{"ts": %d, "src": "a", "bytes": 1, "dst_port": 2}' % time_ms
        return Stored(0, more.get("record_ms", 2 * 10**12), more.get("value", value))

    late = stored(START_MS + SIZE_MS - 1)
    closing = stored(START_MS + SIZE_MS + GRACE_MS)
    records = [stored(START_MS), closing, late, stored(0, value=None), stored(0, value=b"17")]

    assert fates_of(records) == Counter(aggregated=2, late=1, skipped=1, rejected=1)
    assert fates_of([stored(START_MS + 700_000, record_ms=START_MS)]) == Counter(rejected=1)
    # An event moves the watermark no further than its record's time.
    assert fates_of([replace(closing, timestamp_ms=START_MS), late]) == Counter(aggregated=2)


def test_records_know_their_kind():
    effects = effects_of([Published("dead_letters", 0, b"t/0/1", b"?", (("reason", b"no_time"),))])
    assert effects.dead_letters == Counter({(b"t/0/1", b"no_time", b"?"): 1})
