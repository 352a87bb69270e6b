"""One schedule: topics, processes, load, faults, and what was found when all is over."""

import shutil
import threading
import time
import traceback
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import yaml

from stream_iwae.adapters.clock import SystemClock
from stream_iwae.adapters.kafka_sink import KafkaOutputSink
from stream_iwae.adapters.kafka_topics import ensure_topics
from stream_iwae.adapters.model_store import POINTER, KafkaModelStore, read_pointer
from stream_iwae.config import Config
from stream_iwae.errors import ArtefactError, StreamIwaeError
from stream_iwae.iwae.artefact import unpack
from tests.outages.checks import Found, violations
from tests.outages.cluster import Cluster, Onlooker
from tests.outages.effects import Published, effects_of
from tests.outages.faults import KINDS, Scene
from tests.outages.fleet import Fleet, OutageError, Slot, wait_for
from tests.outages.load import Load
from tests.outages.logs import N_PARTITIONS
from tests.outages.reference import reference_of
from tests.outages.schedule import REPLICAS, Fault, Schedule
from tests.outages.settings import PINNED, TRANSACTION_S, Names, configuration, pinned_model

_READY_S: Final = 60.0
_FAULTS_S: Final = 120.0  # for all faults of a schedule to be over
_CAUGHT_UP_S: Final = 60.0  # from the end of the load
_ABANDONED_S: Final = TRANSACTION_S + 5.0  # until the brokers have aborted what a process left behind
_MARKERS_S: Final = 5.0  # from the end of the last process to the end of its last transaction: less than a time-out


@dataclass(slots=True)
class Verdict:
    """What a schedule came to."""

    schedule: Schedule
    violated: dict[str, list[str]] = field(default_factory=dict)
    seconds: float = 0.0
    caught_up_s: float = 0.0  # from the end of the load until all was committed
    n_records: int = 0
    n_alerts: int = 0
    n_given_up: int = 0  # processes that ended by themselves and were started again

    def describe(self) -> str:
        """A line for people, more where something is wrong."""
        line = (
            f"{self.schedule.describe()}; {self.n_records} records, {self.n_alerts} alerts, caught up in "
            f"{self.caught_up_s:.1f} s, {self.n_given_up} gave up; {self.seconds:.0f} s: "
            f"{'FAILED' if self.violated else 'ok'}"
        )
        wrong = [
            f"  {name} violated: {sentence[:1500]}" for name, all_ in self.violated.items() for sentence in all_[:3]
        ]
        again = f'  again: make outages SEED={self.schedule.seed} OUTAGES="--schedules 1"'
        return "\n".join([line, *wrong, *([again] if wrong else [])])


def run(schedule: Schedule, cluster: Cluster, directory: Path, bug: str | None = None) -> Verdict:
    """Run a schedule on brokers that others may have used before; logs stay in `directory` where it fails."""
    began_s = time.monotonic()
    verdict = Verdict(schedule)
    directory.mkdir(parents=True, exist_ok=True)
    try:
        found = _Course(schedule, cluster, directory, bug, verdict).found()
        verdict.violated = violations(found)
    except (OutageError, StreamIwaeError) as error:
        verdict.violated = {"course": [f"{error}", traceback.format_exc()]}
    if not verdict.violated:
        shutil.rmtree(directory)
    verdict.seconds = time.monotonic() - began_s
    return verdict


class _Course:
    """A schedule under way."""

    def __init__(
        self, schedule: Schedule, cluster: Cluster, directory: Path, bug: str | None, verdict: Verdict
    ) -> None:
        self._schedule, self._cluster, self._verdict = schedule, cluster, verdict
        self._directory, self._bug = directory, bug
        self._names = Names(f"outage-{schedule.seed}-{time.time_ns() % 10**9:x}")
        self._config = Config.load(self._write("replica1"))
        self._write("trainer", is_trainer=True)
        outputs = self._names.outputs
        several = {outputs[kind]: N_PARTITIONS for kind in ("alerts", "state", "scores")}
        self._ours = {**dict.fromkeys(outputs.values(), 1), **several, self._names.learnt: 1}
        self._faults_failed: list[str] = []

    def found(self) -> Found:
        """Run it."""
        cluster, names = self._cluster, self._names
        cluster.wait_until_in_sync()
        cluster.create({names.events: N_PARTITIONS})
        for name in ("replica1", "trainer"):  # now, so that no start of a process depends on a broker that is struck
            ensure_topics(Config.load(self._directory / f"{name}.yaml").kafka, N_PARTITIONS)
        self._pin_model()
        with ExitStack() as stack:
            onlooker = Onlooker(cluster, names.group, names.events, N_PARTITIONS)
            stack.callback(onlooker.close)
            slots = [Slot(f"replica{n}", "run", self._write(f"replica{n}"), self._bug) for n in range(1, REPLICAS + 1)]
            trainer = Slot("trainer", "train", self._directory / "trainer.yaml")
            fleet = stack.enter_context(Fleet(slots, trainer))
            for slot in (*slots[: self._schedule.n_replicas], trainer):
                slot.start()
            wait_for(lambda: all(r.status().get("partitions") for r in fleet.running), _READY_S, "all replicas work")
            load = Load(cluster.bootstrap_servers, names.events, self._schedule.seed)
            stack.callback(load.abort)
            load.start()
            self._strike(Scene(cluster, fleet, names, threading.Event()), onlooker)
            load.finish()
            stalled = [*self._faults_failed, *self._catch_up(load, fleet, onlooker)]
            rows_learnt = self._rows_learnt(fleet, stalled)
            fleet.stop()
            stalled += self._wait_until_stable("after SIGTERM", _MARKERS_S)
        return self._gather(load, fleet, onlooker, stalled, rows_learnt)

    def _write(self, instance: str, *, is_trainer: bool = False) -> Path:
        path = self._directory / f"{instance}.yaml"
        content = configuration(
            self._cluster.bootstrap_servers, self._names, instance, self._schedule.client, is_trainer=is_trainer
        )
        path.write_text(yaml.safe_dump(content))
        return path

    def _pin_model(self) -> None:
        config = self._config.kafka
        store = KafkaModelStore(config, SystemClock(), KafkaOutputSink(config, f"{config.group}-pin"))
        store.publish(PINNED, pinned_model(), 0)
        store.close()

    # --- faults ------------------------------------------------------------------------------

    def _strike(self, scene: Scene, onlooker: Onlooker) -> None:
        """Every fault at its time and in a thread of its own, until all are over."""
        began_s = time.monotonic()
        threads = [
            threading.Thread(target=self._strike_once, args=(scene, fault, began_s), daemon=True)
            for fault in self._schedule.faults
        ]
        for thread in threads:
            thread.start()
        try:
            while any(thread.is_alive() for thread in threads):
                onlooker.look()
                if time.monotonic() - began_s > _FAULTS_S:
                    raise OutageError("the faults do not come to an end")
                scene.is_aborted.wait(0.3)
        finally:
            scene.is_aborted.set()
            for thread in threads:
                thread.join()

    def _strike_once(self, scene: Scene, fault: Fault, began_s: float) -> None:
        kind = KINDS[fault.kind]
        slot = scene.fleet.trainer if kind.is_of_trainer else scene.fleet.replicas[fault.target]
        scene.hold(max(0.0, began_s + fault.at_s - time.monotonic()))
        if scene.is_aborted.is_set():
            return
        try:
            kind.strike(scene, slot, fault.amount)
        except Exception:  # noqa: BLE001  # whatever it was, the schedule has failed and says so
            self._faults_failed.append(f"{fault}: {traceback.format_exc()}")

    # --- afterwards --------------------------------------------------------------------------

    def _catch_up(self, load: Load, fleet: Fleet, onlooker: Onlooker) -> list[str]:
        """Until everything is committed, stable, owned once and without lag; what is not in time."""
        wanted = {partition: len(sent) for partition, sent in load.sent.items()}
        began_s = time.monotonic()

        def is_committed() -> bool:
            return {p: commit.position for p, commit in onlooker.look().items()} == wanted

        stalled = self._told(lambda: wait_for(is_committed, _CAUGHT_UP_S, f"committed up to {wanted}"))
        if stalled:
            fleet.dump()
        self._verdict.caught_up_s = time.monotonic() - began_s
        stalled += self._wait_until_stable("with all at work", _ABANDONED_S)
        stalled += self._told(lambda: wait_for(lambda: fleet.lag() == 0.0, 15.0, "no replica lags"))
        once = dict.fromkeys(range(N_PARTITIONS), 1)
        return stalled + self._told(
            lambda: wait_for(lambda: fleet.owners() == once, 15.0, "each partition has one owner")
        )

    def _told(self, wait: Callable[[], object]) -> list[str]:
        try:
            wait()
        except OutageError as error:
            return [str(error)]
        return []

    def _wait_until_stable(self, when: str, timeout_s: float) -> list[str]:
        """Until no transaction is open anywhere; else which partitions wait for one, and what brokers know of it."""
        unstable: dict[tuple[str, int], tuple[int, int]] = {}

        def are_stable() -> bool:
            unstable.clear()
            ends = self._cluster.ends(self._ours)
            unstable.update({place: at for place, at in (ends or {}).items() if at[0] != at[1]})
            return ends is not None and not unstable

        wrong = self._told(lambda: wait_for(are_stable, timeout_s, f"all transactions ended {when}"))
        if not wrong:
            return []
        producers = [self._cluster.producers(*place) for place in list(unstable)[:2]]
        return [f"{wrong[0]}: {unstable}, {producers}, {self._cluster.open_transactions()}"]

    def _rows_learnt(self, fleet: Fleet, stalled: list[str]) -> int | None:
        """What the trainer holds, once it holds all that is on the topic."""
        n_rows = effects_of(self._published("training")).rows.total()

        def held() -> int | None:
            running = fleet.trainer.running
            rows = None if running is None else running.status().get("rows")
            return None if rows is None else int(rows)

        stalled += self._told(lambda: wait_for(lambda: held() == n_rows, 30.0, f"the trainer holds {n_rows} rows"))
        return held()

    def _published(self, *kinds: str) -> list[Published]:
        topics = {kind: self._names.outputs[kind] for kind in kinds}
        return list(self._cluster.published(topics, self._ours))

    def _gather(
        self, load: Load, fleet: Fleet, onlooker: Onlooker, stalled: list[str], rows_learnt: int | None
    ) -> Found:
        log = self._cluster.log_of(self._names.events, N_PARTITIONS)
        effects = effects_of(self._published("alerts", "dead_letters", "scores", "training", "state"))
        versions, damaged = self._models()
        self._verdict.n_records = sum(map(len, log.values()))
        self._verdict.n_alerts = effects.alerts.total()
        self._verdict.n_given_up = sum(not ended.was_told for ended in fleet.exits)
        found = Found(
            sent=load.sent,
            log=log,
            reference=reference_of(self._config, log, pinned_model()),
            effects=effects,
            committed=onlooker.latest,
            went_back=onlooker.went_back,
            stalled=stalled,
            ends=self._cluster.ends(self._ours) or {},
            exits=fleet.exits,
            may_end=any(KINDS[fault.kind].may_end for fault in self._schedule.faults),
            versions=versions,
            damaged=damaged,
            rows_learnt=rows_learnt,
        )
        self._cluster.delete([self._names.events, *self._ours])
        return found

    def _models(self) -> tuple[list[str], list[str]]:
        """The versions that were announced, in order, and which of them cannot be loaded."""
        versions, damaged, parts = [], [], {}
        for record in self._cluster.published({"models": self._names.learnt}, self._ours):
            if record.key != POINTER.encode():
                parts[record.key] = record.value
                continue
            pointer = read_pointer(record.value or b"")
            versions.append(pointer.version)
            mine = sorted(key for key in parts if key.startswith(f"{pointer.version}/".encode()))
            try:
                unpack(pointer.check(b"".join(parts[key] for key in mine)).blob)
            except ArtefactError as error:
                damaged.append(f"model {pointer.version}: {error}")
        return versions, damaged
