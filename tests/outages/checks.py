"""What has to hold after a schedule, each as a check of what was found on the brokers and how processes ended.

I1 to I11 are named as in tests/simulation/invariants.py; `log` says that the load itself is as it was sent, `sum` is the
accounting of events, `trainer` what was learnt, `exits` how processes ended. A check returns sentences, none where all
is well.
"""

import signal
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from tests.outages.effects import Effects
from tests.outages.fleet import GIVES_UP, Exit
from tests.outages.logs import Stored, fates_of
from tests.outages.reference import Committed, Reference


@dataclass(slots=True)
class Found:
    """All that is known of a schedule that is over."""

    sent: dict[int, list[bytes | None]]  # by partition, in the order of sending
    log: dict[int, list[Stored]]
    reference: Reference
    effects: Effects
    committed: dict[int, Committed]
    went_back: list[str] = field(default_factory=list)  # commits that did, as far as somebody looked
    stalled: list[str] = field(default_factory=list)  # what did not come about in time
    ends: dict[tuple[str, int], tuple[int, int]] = field(default_factory=dict)  # (last stable offset, high water mark)
    exits: list[Exit] = field(default_factory=list)
    may_end: bool = False  # whether processes may give up in this schedule
    versions: list[str] = field(default_factory=list)  # announced by the trainer, in order
    damaged: list[str] = field(default_factory=list)  # of these, what cannot be loaded
    rows_learnt: int | None = None  # that the trainer says to hold


def the_log_is_what_was_sent(found: Found) -> list[str]:
    """Else nothing else could be judged."""
    return [
        f"partition {partition}: {len(sent)} sent, {len(found.log.get(partition, []))} stored, or in another order"
        for partition, sent in found.sent.items()
        if [stored.value for stored in found.log.get(partition, [])] != sent
    ]


def i1_each_input_has_its_effect_once(found: Found) -> list[str]:
    """Windows with their scores, training rows and dead letters are those of an undisturbed run, each once."""
    have, want = found.effects, found.reference.effects
    return [
        *_differences("windows", have.windows, want.windows),
        *_differences("training rows", have.rows, want.rows),
        *_differences("dead letters", have.dead_letters, want.dead_letters),
    ]


def i2_no_alert_twice(found: Found) -> list[str]:
    """No `alert_id` is read twice."""
    ids = Counter(alert_id for alert_id, _ in found.effects.alerts.elements())
    return [f"alert {alert_id} {n} times" for alert_id, n in ids.items() if n > 1]


def i4_order_per_key_is_kept(found: Found) -> list[str]:
    """Training rows and alerts of an entity come in the order of their windows' ends."""
    return found.effects.disorder


def i5_commits_never_go_back(found: Found) -> list[str]:
    """Nor do their watermarks; none is beyond its position or the log."""
    beyond = [
        f"partition {partition}: {commit} of a log of {len(found.log[partition])}"
        for partition, commit in found.committed.items()
        if not commit.offset <= commit.position <= len(found.log[partition])
    ]
    return found.went_back + beyond


def i6_state_is_that_of_the_log(found: Found) -> list[str]:
    """State on the topic and what is committed, watermark included, are those of an undisturbed run."""
    have, want = found.effects.states, found.reference.effects.states
    wrong = [f"state of partition {p}: {have.get(p)} is not {want.get(p)}" for p in want if have.get(p) != want.get(p)]
    committed, due = found.committed, found.reference.committed
    return wrong + [
        f"committed for partition {p}: {committed.get(p)}, should be {due[p]}"
        for p in due
        if committed.get(p) != due[p]
    ]


def i9_all_is_caught_up(found: Found) -> list[str]:
    """No lag, no partition that stands still, no open transaction: in time."""
    open_ones = [
        f"{topic}/{partition} is stable up to {stable} of {high}"
        for (topic, partition), (stable, high) in sorted(found.ends.items())
        if stable != high
    ]
    behind = [
        f"partition {partition} is committed up to {found.committed.get(partition)} of {len(log)}"
        for partition, log in found.log.items()
        if partition not in found.committed or found.committed[partition].position != len(log)
    ]
    return found.stalled + open_ones + behind


def i10_sigterm_ends_in_order(found: Found) -> list[str]:
    """With code 0, unless nothing could be delivered then, or before it had begun with anything."""
    allowed = {0} | (GIVES_UP if found.may_end else frozenset())
    told = [ended for ended in found.exits if ended.was_told and (ended.code, ended.said) != (-signal.SIGTERM, "")]
    return [f"{ended} after SIGTERM" for ended in told if ended.code not in allowed]


def i11_the_same_alerts(found: Found) -> list[str]:
    """As of an undisturbed run with the same model, to the letter but for `detected_at`."""
    return _differences("alerts", found.effects.alerts, found.reference.effects.alerts)


def sum_of_fates(found: Found) -> list[str]:
    """Each record is in a closed window, in one of the last that are open, late, rejected or skipped: counted plainly."""
    fates = Counter[str]()
    for log in found.log.values():
        fates += fates_of(log)
    n_open = len(found.log)  # the last record of each partition
    have = {"aggregated": found.effects.n_events_in_rows + n_open, "rejected": found.effects.dead_letters.total()}
    wrong = [f"{n} {fate}, should be {fates[fate]}" for fate, n in have.items() if n != fates[fate]]
    n_records = sum(map(len, found.log.values()))
    return wrong + ([] if fates.total() == n_records else [f"{fates.total()} fates of {n_records} records"])


def the_trainer_has_learnt(found: Found) -> list[str]:
    """It holds every row, and has announced models that load, each newer than the one before."""
    wrong = list(found.damaged)
    if found.rows_learnt != found.effects.rows.total():
        wrong.append(f"the trainer holds {found.rows_learnt} of {found.effects.rows.total()} rows")
    numbers = [tuple(map(int, version.split("."))) for version in found.versions]
    if not numbers or numbers != sorted(set(numbers)):
        wrong.append(f"versions announced: {found.versions}")
    return wrong


def nobody_ends_by_a_mistake(found: Found) -> list[str]:
    """A process may give up where nothing can be delivered, or where another has taken its name; else it lives."""
    allowed = GIVES_UP if found.may_end else frozenset()
    return [f"{ended}" for ended in found.exits if not ended.was_told and ended.code not in allowed]


def _differences(name: str, have: Counter, want: Counter) -> list[str]:
    lost, extra = want - have, have - want
    return ([f"lost {name}, {lost.total()}: {list(lost)[:2]}"] if lost else []) + (
        [f"wrong or repeated {name}, {extra.total()}: {list(extra)[:2]}"] if extra else []
    )


CHECKS: Final[Mapping[str, Callable[[Found], Sequence[str]]]] = {
    "log": the_log_is_what_was_sent,
    "I1": i1_each_input_has_its_effect_once,
    "I2": i2_no_alert_twice,
    "I4": i4_order_per_key_is_kept,
    "I5": i5_commits_never_go_back,
    "I6": i6_state_is_that_of_the_log,
    "I9": i9_all_is_caught_up,
    "I10": i10_sigterm_ends_in_order,
    "I11": i11_the_same_alerts,
    "sum": sum_of_fates,
    "trainer": the_trainer_has_learnt,
    "exits": nobody_ends_by_a_mistake,
}


def violations(found: Found) -> dict[str, list[str]]:
    """The checks that fail, with what is wrong."""
    return {name: list(wrong) for name, check in CHECKS.items() if (wrong := check(found))}
