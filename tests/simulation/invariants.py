"""The invariants of exactly-once processing, each as a check of what a world has left on its logs.

I1 to I11 are those of Kafka's transactions and ours together; `sum` is the accounting of events, `models` what
trainers announce, `exits` how processes end. A check returns sentences, none where all is well.
"""

import functools
import json
from collections import Counter
from collections.abc import Callable, Collection
from typing import Final

from stream_iwae.wire import decode_training
from tests.simulation.logs import PARTITIONS
from tests.simulation.models import digest_of
from tests.simulation.ports import ModelTopic
from tests.simulation.processes import TOPICS
from tests.simulation.reference import (
    CLOCK_CLOSES_UNTIL_MS,
    Effects,
    Prefix,
    Reference,
    RereadLog,
    collect,
    differences,
)
from tests.simulation.rekeyed import (
    Rekeyed,
    r1_each_event_is_rekeyed_once,
    r4_order_per_entity_is_kept,
    r6_time_is_that_of_the_prefix,
    r11_as_if_all_were_one_partition,
    sum_of_rekeyed,
)

PUBLISHED: Final = (TOPICS.alerts, TOPICS.dead_letters, TOPICS.scores, TOPICS.training)


class View:
    """What a read_committed reader finds at one moment, beside what it should find."""

    def __init__(self, world, reference: Reference | RereadLog | Effects | None) -> None:
        self.world, self.positions = world, world.positions()
        self.reference, self.in_order = reference, None
        if world.is_rekeyed:
            self.reference, self.in_order = world.reread, reference
            self.rekeyed = Rekeyed(world)
        self.reference.read([*self.positions.items(), *((p, position) for p, position, _ in world.restores)])
        broker = world.broker
        self.published = {
            topic: [entry for log in broker.logs[topic] for entry in log if entry.is_visible and not entry.is_marker]
            for topic in (*PUBLISHED, ModelTopic.TOPIC)
        }  # whatever is committed, even behind a transaction that is open: at half time one may be
        scored = f"{world.scored}/".encode()
        records = [
            (topic, entry.key, entry.value)
            for topic in PUBLISHED
            for entry in self.published[topic]
            if topic != TOPICS.dead_letters or entry.key.startswith(scored)
        ]
        self.found = collect(records)
        self.has_gap = any(broker.first_offset("events", partition) for partition in PARTITIONS)
        self.is_pinned = not world.schedule.group.has_trainers

    def expected(self, partition: int) -> Prefix:
        """What is published once the partition is committed up to where it is."""
        position = self.positions.get(partition, 0)
        commits = (c for c in self.world.commits if (c.topic, c.partition) == (self.world.scored, partition))
        last = max(commits, key=lambda c: c.seq, default=None)
        is_ahead = (
            last is not None
            and self.world.schedule.group.is_idle
            and position >= self.world.logs[partition].second_part
            and (last.watermark_ms or 0) > CLOCK_CLOSES_UNTIL_MS - 300_000
        )
        return self.reference.at(partition, position, is_clock_ahead=is_ahead)


def i1_each_input_has_its_effect_once(view: View) -> list[str]:
    """Windows, training rows and dead letters are those of the input below the committed position, each once."""
    found = []
    for partition in PARTITIONS:
        have = view.found[partition]
        want = view.expected(partition).effects
        for name in ("windows", "rows", "dead_letters"):
            if name == "windows" and not view.is_pinned:
                continue  # which windows were scored depends on when the first model came
            if view.has_gap:
                found += [f"{name} {partition}: {item} {n} times" for item, n in getattr(have, name).items() if n > 1]
            else:
                found += differences(f"{name} of partition {partition}", getattr(have, name), getattr(want, name))
    return found


def i2_no_alert_twice(view: View) -> list[str]:
    """No `alert_id` is read twice."""
    entries = view.published[TOPICS.alerts]
    n_ids = sum(len(view.found[partition].alerts) for partition in PARTITIONS)
    return [f"{len(entries)} alerts have {n_ids} ids"] if len(entries) != n_ids else []


def i3_aborted_data_is_never_delivered(view: View) -> list[str]:
    """No process was given a record of an aborted or open transaction."""
    return [f"delivered and not committed: {view.world.invisible[:3]}"] if view.world.invisible else []


def i4_order_per_key_is_kept(view: View) -> list[str]:
    """Training rows and alerts of an entity come in the order of their windows' ends."""
    if view.world.schedule.windows.endswith("record"):
        return []  # each event is a window, in the order of the log, whatever its time
    told: list[tuple[object, str | int]] = []
    for entry in view.published[TOPICS.training]:
        told += _ends_of(entry.value)
    for entry in view.published[TOPICS.alerts]:
        told.append((entry.key, json.loads(entry.value)["window_end"]))
    last: dict[object, str | int] = {}
    found = []
    for key, end in told:
        if end < last.get(key, end):
            found.append(f"of {key} a window that ends at {end} comes after one at {last[key]}")
        last[key] = end
    return found


@functools.lru_cache(maxsize=20_000)
def _ends_of(value: bytes) -> list[tuple[int, int]]:
    rows = decode_training(value)
    return list(zip(rows.entity_ids.tolist(), rows.window_end_ms.tolist(), strict=True))


def i5_commits_never_go_back(view: View) -> list[str]:
    """Offset, position and number of a partition's commits never fall; offset <= position <= end of the log."""
    found = []
    for former, commit in _pairs(view):
        if commit.offset < former.offset or commit.position < former.position or commit.seq <= former.seq:
            found.append(f"after {former} came {commit}")
    beyond = [commit for commit in view.world.commits if not commit.offset <= commit.position <= commit.log_end]
    return found + [f"beyond its position or the log: {commit}" for commit in beyond]


def i6_state_is_that_of_the_prefix(view: View) -> list[str]:
    """What was restored, and what the state topic holds, equals the state computed from the input alone."""
    if view.has_gap:
        return []
    held = [(p, position, view.world.state(p), [view.expected(p).state]) for p, position in view.positions.items()]
    restored = [(p, position, state, _possible(view, p, position)) for p, position, state in view.world.restores]
    found = []
    for partition, position, state, wanted in held + restored:
        have, want = _comparable(state, view), [_comparable(one, view) for one in wanted]
        if have not in want:
            found.append(f"state of partition {partition} at {position}: {have} is not {want[0]}")
    return found


def _possible(view: View, partition: int, position: int) -> list[dict]:
    states = [view.reference.at(partition, position).state]
    if view.world.schedule.group.is_idle and position >= view.world.logs[partition].second_part:
        states.append(view.reference.at(partition, position, is_clock_ahead=True).state)
    return states


def _comparable(state: dict, view: View) -> dict:
    """Kinds that hold nothing are as good as absent; without a pinned model incidents are another matter."""
    left_out = () if view.is_pinned else ("incidents",)
    return {kind: values for kind, values in state.items() if values and kind not in left_out}


def i7_one_owner_emits(view: View) -> list[str]:
    """Whoever commits for a partition owned it then."""
    return [f"committed without owning it: {commit}" for commit in view.world.commits if not commit.is_owner]


def i8_the_watermark_never_goes_back(view: View) -> list[str]:
    """Nor is it forgotten."""
    return [
        f"after {former} came {commit}"
        for former, commit in _pairs(view)
        if former.watermark_ms is not None and (commit.watermark_ms or 0) < former.watermark_ms
    ]


def i9_all_is_caught_up(view: View) -> list[str]:
    """Once the faults are over everything is read and committed in so many turns, and no transaction hangs."""
    hanging = [f"the transaction of {name} hangs" for name in view.world.broker.open]
    return view.world.stalled + hanging


def i10_sigterm_leaves_nothing(view: View) -> list[str]:
    """No open transaction, and all that was scored is committed."""
    return view.world.unclean


def i11_the_same_alerts(view: View) -> list[str]:
    """However the log was polled, and whatever failed."""
    if not view.is_pinned or view.has_gap:
        return []
    found = []
    for partition in PARTITIONS:
        have, want = view.found[partition].alerts, view.expected(partition).effects.alerts
        if have != want:
            differing = {key for key in have.keys() | want.keys() if have.get(key) != want.get(key)}
            found.append(
                f"alerts of partition {partition} differ: {sorted(differing)[:3]}, {len(have)} for {len(want)}"
            )
    return found


def sum_of_fates(view: View) -> list[str]:
    """consumed = aggregated + late + rejected + skipped; counted at most once, and exactly once if nobody died."""
    found = [f"not balanced: {totals}" for totals in view.world.totals if not totals.is_balanced]
    if view.has_gap:
        return found
    want = Counter()
    for partition in PARTITIONS:
        counts = view.expected(partition).counts
        want.update({name: getattr(counts, name) for name in ("consumed", "aggregated", "late", "windows")})
        want.update(counts.rejected)
        want.update(counts.skipped)
    have = Counter()
    for totals in view.world.totals:
        have.update({name: getattr(totals, name) for name in ("consumed", "aggregated", "late", "windows")})
        have.update(totals.rejected)
        have.update(totals.skipped)
    extra, lacking = have - want, want - have
    if extra:
        found.append(f"counted twice: {dict(extra)}")
    if lacking and not view.world.n_deaths and not view.world.struck:
        found.append(f"never counted: {dict(lacking)}")
    return found


def models_follow_the_rows(view: View) -> list[str]:
    """Each announced model was learnt from the training topic as far as it went, and is newer than the one before."""
    found = []
    row_ids = [row for rows in view.world.training_rows() for row in rows]
    former = 0
    for entry in view.published[ModelTopic.TOPIC] if not view.is_pinned else ():
        document = json.loads(entry.value)
        if document["digest"] != digest_of(row_ids[: document["n_rows"]]):
            found.append(f"{document} was learnt from other rows than those of the topic")
        if (major := int(document["version"].split(".")[0])) <= former:
            found.append(f"{document} came after {former}.0")
        former = major
    return found


def nobody_dies_of_a_mistake(view: View) -> list[str]:
    """A process may end because nothing can be delivered, or because another has its name, and for no other reason."""
    return view.world.errors


def _pairs(view: View):
    """Commits of a partition, each with the one before."""
    last = {}
    for commit in view.world.commits:
        place = commit.topic, commit.partition
        if place in last:
            yield last[place], commit
        last[place] = commit


INVARIANTS: Final[dict[str, Callable[[View], list[str]]]] = {
    "I1": i1_each_input_has_its_effect_once,
    "I2": i2_no_alert_twice,
    "I3": i3_aborted_data_is_never_delivered,
    "I4": i4_order_per_key_is_kept,
    "I5": i5_commits_never_go_back,
    "I6": i6_state_is_that_of_the_prefix,
    "I7": i7_one_owner_emits,
    "I8": i8_the_watermark_never_goes_back,
    "I9": i9_all_is_caught_up,
    "I10": i10_sigterm_leaves_nothing,
    "I11": i11_the_same_alerts,
    "sum": sum_of_fates,
    "models": models_follow_the_rows,
    "exits": nobody_dies_of_a_mistake,
}
REKEYED: Final[dict[str, Callable[[View], list[str]]]] = {
    "R1": r1_each_event_is_rekeyed_once,
    "R4": r4_order_per_entity_is_kept,
    "R6": r6_time_is_that_of_the_prefix,
    "R11": r11_as_if_all_were_one_partition,
    "R sum": sum_of_rekeyed,
}
AT_HALF_TIME: Final = ("I1", "I2", "I6", "I11", "R1", "R6")  # the others look at the whole run anyway


def violations(
    world, reference: Reference | RereadLog | Effects | None, names: Collection[str] = ()
) -> dict[str, list[str]]:
    """The invariants that do not hold, of all or of those named, with what is wrong."""
    view = View(world, reference)
    checks = INVARIANTS | REKEYED if world.is_rekeyed else INVARIANTS
    return {name: found for name in checks if (not names or name in names) and (found := checks[name](view))}
