import json
from collections import Counter, deque
from dataclasses import replace

import numpy as np
import pytest

from stream_iwae.batches import FeatureSchema, Kind, RecordBatch, TrainingBatch
from stream_iwae.detection.config import DetectionConfig
from stream_iwae.errors import ArtefactError, StaleGroupError
from stream_iwae.learning.config import LearningConfig
from stream_iwae.learning.learner import Learner
from stream_iwae.learning.served import Scored
from stream_iwae.ports import ModelAnnouncement, Polled
from stream_iwae.trainer import Trainer
from stream_iwae.wire import encode_training

HOUR = 3_600_000
SCHEMA = FeatureSchema(("in", "out"), (Kind.GAUGE, Kind.GAUGE), ("B", "B"))


class TopicTwin:
    """One partition of a topic; `records_per_poll` at a time."""

    topic = "training"

    def __init__(self, records_per_poll=2):
        self.log = []
        self.records_per_poll = records_per_poll
        self.at = 0
        self.paused = True
        self.changes = deque([Polled(assigned=frozenset({0}))])
        self.polls = 0

    def poll(self, timeout_s):
        self.polls += 1
        if self.changes:
            return self.changes.popleft()
        values = [] if self.paused else self.log[self.at : self.at + self.records_per_poll]
        if not values:
            return Polled()
        start, self.at = self.at, self.at + len(values)
        offsets = np.arange(start, self.at)
        batch = RecordBatch("training", 0, offsets, offsets, values, self.at)
        return Polled(records=(batch,))

    def beginning_offsets(self, partitions):
        return dict.fromkeys(partitions, 0)

    def end_offsets(self, partitions):
        return dict.fromkeys(partitions, len(self.log))

    def position(self, partition):
        return self.at

    def seek(self, partition, offset):
        self.at = offset

    def group_token(self):
        return "the owner"

    def pause(self, partitions):
        self.paused = True

    def resume(self, partitions):
        self.paused = False

    def close(self):
        pass


class StoreTwin:
    def __init__(self):
        self.blobs = {}
        self.news = deque()
        self.refusals = deque()  # errors that the next publications meet
        self.fences = []

    def publish(self, version, blob, announced_ms, fence):
        self.fences.append(fence)
        if self.refusals:
            raise self.refusals.popleft()
        self.blobs[version] = blob
        self.announce(version)

    def announce(self, version):
        self.news.append(ModelAnnouncement(version, self.blobs[version]))

    def poll(self):
        newest = self.news[-1] if self.news else None
        self.news.clear()
        return newest

    def versions(self):
        return list(self.blobs)

    def load(self, version):
        return self.blobs[version]

    def close(self):
        pass


class TelemetryTwin:
    def __init__(self):
        self.counts = Counter()
        self.gauges = {}
        self.sections = {}
        self.beats = 0

    def count(self, name, amount=1, **labels):
        self.counts[(name, *labels.values())] += amount

    def gauge(self, name, value, **labels):
        self.gauges[name] = value

    def observe(self, name, value, **labels):
        self.counts[(name, "observed")] += 1

    def info(self, name, **labels):
        pass

    def status(self, section, values):
        self.sections[section] = values

    def progress(self, component, now_s):
        self.beats += 1


class ClockTwin:
    """Every look takes a second; a training step takes as long as its ticks."""

    def __init__(self, step_s=0.0):
        self.now_s = 0.0
        self.step_s = step_s

    def now_ms(self):
        return int(self.now_s * 1000)

    def monotonic_s(self):
        self.now_s += self.step_s
        return self.now_s


class LogTwin:
    def __init__(self):
        self.lines = []

    def info(self, event, **fields):
        self.lines.append((event, fields))

    warning = info


class CentreWeights:
    def __init__(self, centre):
        self.centre = centre

    def score(self, values, tick):
        tick()
        scores = np.sum((values - self.centre) ** 2, axis=1)
        return Scored(scores, scores, np.ones(len(values)))

    def astonished(self, values, tick):
        return np.zeros(len(values), np.bool_)

    def tuned(self, rows, seed, tick):
        for _ in range(10):
            tick()
        return CentreWeights(float(rows.values.mean()))

    def cascading(self, threshold):
        return None

    def pack(self, version, extra):
        return json.dumps({"version": version, "centre": self.centre, "extra": extra}).encode()


class CentreMethod:
    def first(self, rows, labels, seed, tick):
        for _ in range(10):
            tick()
        return CentreWeights(float(rows.values.mean()))

    def unpack(self, blob):
        try:
            document = json.loads(blob)
        except ValueError as error:
            raise ArtefactError("damaged") from error
        return document["version"], CentreWeights(document["centre"]), document["extra"]


class World:
    def __init__(self, step_s=0.0):
        self.topic, self.store, self.telemetry = TopicTwin(), StoreTwin(), TelemetryTwin()
        self.clock, self.log = ClockTwin(step_s), LogTwin()

    def trainer(self):
        config = LearningConfig(min_windows=400, max_source_share=1.0)
        return Trainer(
            self.topic,
            self.store,
            self.telemetry,
            self.clock,
            self.log,
            lambda: Learner(config, DetectionConfig(), SCHEMA, CentreMethod()),
        )

    def restarted(self):
        self.topic.changes = deque([Polled(assigned=frozenset({0}))])
        self.topic.paused = True
        return self.trainer()

    def write(self, hours, start_hour=0, mean=0.0):
        for hour in range(start_hour, start_hour + hours):
            self.topic.log += encode_training(an_hour(hour, mean))

    def read_all(self, trainer):
        while self.topic.changes or self.topic.paused or self.topic.at < len(self.topic.log):
            trainer.step()
        trainer.step()


def an_hour(hour, mean=0.0, n=1_000):
    return TrainingBatch(
        schema_digest=SCHEMA.digest,
        model_version="",
        row_ids=np.arange(hour * n, hour * n + n, dtype=np.uint64),
        entity_ids=np.arange(n, dtype=np.uint64) % np.uint64(9),
        window_end_ms=hour * HOUR + np.arange(1, n + 1) * (HOUR // n),
        values=np.random.default_rng(hour).normal(mean, size=(n, 2)),
        scores=np.full(n, np.nan),
        p_values=np.full(n, np.nan),
        in_incident=np.zeros(n, np.bool_),
        labels={},
    )


@pytest.fixture
def world():
    return World()


def test_rows_become_a_published_model(world):
    world.write(1)
    world.read_all(world.trainer())

    assert world.store.versions() == ["1.0"]
    assert world.telemetry.counts["finetune_runs", "promoted"] == 1
    assert world.telemetry.gauges["replay_buffer_samples"] > 0
    assert world.telemetry.gauges["model_elbo"] < 0
    assert world.telemetry.sections["trainer"]["model_version"] == "1.0"


def test_each_run_is_counted_by_its_outcome(world):
    world.write(6)
    world.read_all(world.trainer())

    runs = {labels[0]: n for (name, *labels), n in world.telemetry.counts.items() if name == "finetune_runs"}
    assert set(runs) <= {"promoted", "rejected"}
    assert sum(runs.values()) == 6
    assert world.telemetry.counts["finetune_duration_seconds", "observed"] >= 6


def test_a_restart_reads_the_topic_again_and_repeats_no_training(world):
    world.write(3)
    before = world.trainer()
    world.read_all(before)
    stored = dict(world.store.blobs)
    runs = world.telemetry.counts.copy()

    after = world.restarted()
    world.read_all(after)

    assert world.store.blobs == stored
    assert world.telemetry.counts == runs
    assert after.learner.sizes() == before.learner.sizes()
    assert after.learner.served.version == before.learner.served.version


def test_a_restart_changes_nothing_of_what_is_learnt_later():
    undisturbed, restarted = World(), World()
    trainers = []
    for world in (undisturbed, restarted):
        world.write(3)
        trainers.append(world.trainer())
        world.read_all(trainers[-1])
    trainers[1] = restarted.restarted()
    restarted.read_all(trainers[1])
    for world, trainer in zip((undisturbed, restarted), trainers, strict=True):
        world.write(3, start_hour=3, mean=0.3)
        world.read_all(trainer)

    assert len(undisturbed.store.blobs) > 2
    assert restarted.store.blobs == undisturbed.store.blobs


def test_being_told_to_stop_ends_a_training_at_once(world):
    world.write(1)
    trainer = world.trainer()
    asked = []

    def should_stop():
        asked.append(1)
        return len(asked) > 8  # during the first training

    trainer.run(should_stop)

    assert world.store.versions() == []
    assert ("training interrupted", {"job": "first"}) in world.log.lines
    assert len(asked) < 15


def test_a_long_training_keeps_polling_and_loses_no_row():
    world = World(step_s=3.0)
    world.write(1)
    trainer = world.trainer()
    while not world.store.blobs:
        trainer.step()
    polls = world.topic.polls
    world.write(1, start_hour=1)
    world.read_all(trainer)

    assert polls > 3
    assert trainer.learner.n_rows == 2_000


def test_losing_the_topic_while_training_publishes_nothing():
    world = World(step_s=3.0)
    world.write(1)
    trainer = world.trainer()
    trainer.step()  # assigned
    world.topic.changes = deque([Polled(), Polled(lost=frozenset({0}))])
    trainer.step()
    while world.topic.changes or trainer.learner is not None:
        trainer.step()

    assert world.store.versions() == []
    world.topic.changes.append(Polled(assigned=frozenset({0})))
    world.read_all(trainer)
    assert world.store.versions() == ["1.0"]


def test_a_topic_that_is_lost_and_comes_back_in_one_poll_is_owned(world):
    world.write(1)
    trainer = world.trainer()
    trainer.step()
    world.topic.changes.append(Polled(lost=frozenset({0}), assigned=frozenset({0})))
    world.topic.paused = True
    world.read_all(trainer)

    assert world.store.versions() == ["1.0"]


def test_an_announcement_is_fenced_by_the_ownership_of_the_topic(world):
    world.write(1)
    world.read_all(world.trainer())

    (fence,) = world.store.fences
    assert (fence.topic, fence.group, list(fence.offsets)) == ("training", "the owner", [0])


def test_a_stale_announcement_is_refused_and_learning_begins_anew(world):
    world.write(1)
    world.store.refusals.append(StaleGroupError("the group has rebalanced"))
    trainer = world.trainer()
    world.read_all(trainer)
    assert ("training interrupted", {"job": "first"}) in world.log.lines
    world.read_all(trainer)

    assert world.store.versions() == ["1.0"]
    assert len(world.store.fences) == 2


def test_foreign_and_damaged_rows_are_skipped_and_counted(world):
    world.topic.log += encode_training(replace(an_hour(0), schema_digest="another"))
    world.topic.log += [b"damaged", None]
    world.write(1)
    world.read_all(world.trainer())

    assert world.telemetry.counts["training_records_skipped", "schema"] == 1_000
    assert world.telemetry.counts["training_records_skipped", "damaged"] == 1
    assert world.store.versions() == ["1.0"]


def test_a_stored_model_that_does_not_fit_is_followed_by_the_next_major_version(world):
    world.store.blobs["4.2"] = b"{"
    world.write(1)
    world.read_all(world.trainer())

    assert world.store.versions() == ["4.2", "5.0"]


def test_a_model_that_somebody_else_announces_is_adopted(world):
    world.write(3, mean=0.0)
    trainer = world.trainer()
    world.read_all(trainer)
    assert trainer.learner.served.version != "1.0"

    world.store.announce("1.0")
    trainer.step()

    assert trainer.learner.served.version == "1.0"


def test_rows_faster_than_training_leave_out_fine_tunings():
    world = World(step_s=1.0)
    world.write(30)
    world.read_all(world.trainer())

    assert world.telemetry.counts["finetune_runs", "skipped"] > 0
