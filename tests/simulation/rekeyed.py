"""The invariants of re-keying: what a world's re-keyed topic holds, against its sources in plain loops.

What of I1 to I11 is about any group, any producer and any commit holds for re-keyers as for the service; these are
about events on their way from one to the other, and about both stages together.
"""

import json
from collections import Counter
from collections.abc import Iterable

import polars as pl

from stream_iwae.batches import NEVER_MS, REACHED
from stream_iwae.rekey.batch import decode_events, decode_header
from tests.simulation.logs import PARTITIONS
from tests.simulation.processes import TOPICS
from tests.simulation.reference import Effects, differences
from tests.simulation.scattered import ORDERED, REKEYED, Source, Told, is_closing, source_until

_SCHEMA = pl.Schema(
    {"timestamp_ms": pl.Int64, "entity": pl.String, "src": pl.String, "bytes": pl.Float64, REACHED: pl.Int64}
)


class Rekeyed:
    """What is committed on the re-keyed topic, and what should be."""

    def __init__(self, world) -> None:
        self.told: list[tuple[int, int, Told]] = []  # (target, source, event)
        self.words: list[list[tuple[int, int, bool, bool]]] = [[] for _ in PARTITIONS]  # by target; see `Part`
        self.n_dozing = 0  # parts with events of a source that is idle
        for target in PARTITIONS:
            for entry in world.broker.logs[REKEYED][target]:
                if entry.is_visible and not entry.is_marker:
                    self._read(target, entry.value)
        is_unruly = world.schedule.windows not in ORDERED
        number, positions = world.schedule.log, world.source_positions()
        self.wanted = {s: source_until(number, s, at, is_unruly=is_unruly) for s, at in positions.items()}
        self.wanted_at = lambda s, at: source_until(number, s, at, is_unruly=is_unruly)

    def _read(self, target: int, value: bytes) -> None:
        header = decode_header(value)
        rows = decode_events(value, header, _SCHEMA).select("timestamp_ms", "entity", "bytes", REACHED).rows()
        for part in header.parts:
            self.told += [(target, part.source, Told(*row)) for row in rows[: part.n_events]]
            del rows[: part.n_events]
            self.n_dozing += part.is_idle and part.n_events > 0
            self.words[target].append((part.source, part.reached_ms, part.is_idle, part.is_history))


def waking(world) -> list[int]:
    """The sources that some partition believes to be awake, by the last word that is committed."""
    last = {}
    for target, _, entry in world.broker.committed_records(REKEYED):
        last.update(((target, part.source), part.is_idle) for part in decode_header(entry.value).parts)
    return sorted({source for (_, source), is_idle in last.items() if not is_idle})


def r1_each_event_is_rekeyed_once(view) -> list[str]:
    """Below the committed position of its source, and to the partition that its entity belongs to."""
    rekeyed = view.rekeyed
    have = Counter((source, told.entity, told.ts, told.n_bytes) for _, source, told in rekeyed.told)
    want = Counter((s, told.entity, told.ts, told.n_bytes) for s, of in rekeyed.wanted.items() for told in of.events)
    letters = Counter(entry.key for entry in view.published[TOPICS.dead_letters])
    wanted_letters = Counter(key for source in rekeyed.wanted.values() for key in source.letters)
    found = [f"{told} in partition {target}" for target, _, told in rekeyed.told if told.entity[1] != str(target)][:3]
    return found + differences("events", have, want) + differences("dead letters", letters, wanted_letters)


def r4_order_per_entity_is_kept(view) -> list[str]:
    """The events of an entity from one source come in the order that they have there."""
    rekeyed = view.rekeyed
    found = []
    for number, source in rekeyed.wanted.items():
        have = _by_entity(told for _, of, told in rekeyed.told if of == number)
        want = _by_entity(source.events)
        found += [
            f"events of {entity} from source {number} come as {have[entity]}"
            for entity in have.keys() & want.keys()
            if have[entity] != want[entity] and sorted(have[entity]) == sorted(want[entity])
        ]
    return found


def _by_entity(events) -> dict[str, list[tuple[int, float]]]:
    found: dict[str, list[tuple[int, float]]] = {}
    for told in events:
        found.setdefault(told.entity, []).append((told.ts, told.n_bytes))
    return found


def r6_time_is_that_of_the_prefix(view) -> list[str]:
    """How far a source has come: told alike to every partition, with each event, at the end, and in the commits."""
    rekeyed = view.rekeyed
    of_source = [
        {source: [word for word in words if word[0] == source] for source in rekeyed.wanted} for words in rekeyed.words
    ]  # two re-keyers that write at once may come in another order elsewhere
    found = ["the partitions are told differently"] if any(one != of_source[0] for one in of_source) else []
    found += [f"{rekeyed.n_dozing} times who has events is idle"] if rekeyed.n_dozing else []
    have = Counter((source, told) for _, source, told in rekeyed.told)
    want = Counter((number, told) for number, source in rekeyed.wanted.items() for told in source.events)
    later = {(s, told.entity, told.ts, told.n_bytes) for s, told in want - have}
    wrong = [(s, told) for s, told in have - want if (s, told.entity, told.ts, told.n_bytes) in later]
    found += [f"before {told} of source {source}" for source, told in wrong[:3]]
    for target, words in enumerate(rekeyed.words):
        last = {source: reached_ms for source, reached_ms, *_ in words}
        found += [
            f"partition {target} was last told {last.get(number)} of source {number}, which is at {source.reached_ms}"
            for number, source in rekeyed.wanted.items()
            if last.get(number) != source.reached_ms
        ]
    for commit in view.world.commits:
        if commit.topic == "events":
            reached_ms = rekeyed.wanted_at(commit.partition, commit.position).reached_ms
            if commit.watermark_ms != (None if reached_ms == NEVER_MS else reached_ms):
                found.append(f"{commit} is not at {reached_ms}")
    return found


def r11_as_if_all_were_one_partition(view) -> list[str]:
    """In the end windows and alerts are those of a run over all events in one partition, in their order."""
    if view.in_order is None or view.world.stalled:
        return []
    have, want = _windows(view.found.values()), _windows([view.in_order])
    alerts, wanted = _alerts(view.found.values()), _alerts([view.in_order])
    return differences("windows", have, want) + differences("alerts", alerts, wanted)


def _windows(effects: Iterable[Effects]) -> Counter:
    found = sum((one.windows for one in effects), Counter())
    return Counter({window: n for window, n in found.items() if not is_closing(window[0])})


def _alerts(effects: Iterable[Effects]) -> Counter:
    """A group of incidents lies within one partition, so which it is says nothing here."""
    told = Counter()
    for text in (text for one in effects for text in one.alerts.values()):
        alert = json.loads(text)
        if not is_closing(alert["entity"]["src"]):
            told[json.dumps({name: value for name, value in alert.items() if name not in {"origin", "group_id"}})] += 1
    return told


def sum_of_rekeyed(view) -> list[str]:
    """consumed = forwarded + rejected + skipped; counted at most once, and exactly once if nobody died."""
    found = [f"not balanced: {totals}" for totals in view.world.rekeyer_totals if not totals.is_balanced]
    want, have = Counter(), Counter()
    for source in view.rekeyed.wanted.values():
        want.update(_fates(source))
    for totals in view.world.rekeyer_totals:
        have.update({"forwarded": totals.forwarded, "rejected": totals.rejected.total()})
        have.update({"skipped": totals.skipped.total()})
    extra, lacking = have - want, want - have
    if extra:
        found.append(f"counted twice: {dict(extra)}")
    if lacking and not view.world.n_deaths and not view.world.struck:
        found.append(f"never counted: {dict(lacking)}")
    return found


def _fates(source: Source) -> dict[str, int]:
    return {"forwarded": len(source.events), "rejected": len(source.letters), "skipped": source.n_empty}
