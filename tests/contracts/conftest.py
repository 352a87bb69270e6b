"""The same small world twice: in memory, and on a real Kafka. Every contract is run against both."""

import itertools
import secrets
import time

import pytest

from stream_iwae.adapters.memory import (
    MemoryEventSource,
    MemoryModelStore,
    MemoryOutputSink,
    MemoryStateReader,
    ModelShelf,
    VirtualClock,
)
from stream_iwae.adapters.memory_broker import MemoryBroker

NOW_MS = 1_700_000_000_000
DEADLINE_S = 40.0


class MemoryWorld:
    """Topics, members and sinks of one MemoryBroker."""

    name = "memory"
    max_message = 1_048_576
    max_metadata = 4_096

    def __init__(self):
        self.clock = VirtualClock(NOW_MS)
        self.broker = MemoryBroker(self.clock.now_ms)
        self._numbers = itertools.count()
        self._members = {}
        self._topics = {}

    def topic(self, partitions=1, **_):
        name = f"topic-{next(self._numbers)}"
        self.broker.create_topic(name, partitions)
        return name

    def produce(self, topic, partition, *values, timestamp_ms=NOW_MS, key=None):
        for value in values:
            self.broker.append(topic, partition, key, value, timestamp_ms)

    def expire(self, topic, partition, before):
        """Retention deletes what lies before an offset."""
        self.broker.delete_before(topic, partition, before)

    def records(self, topic):
        return [(p, e.key, e.value, tuple(e.headers)) for p, _, e in self.broker.committed_records(topic)]

    def source(self, topic, group="group", member="a", cut=10_000):
        self._topics[group] = topic
        self._members.setdefault(group, {})[member] = None
        self._rebalance(group)
        return MemoryEventSource(self.broker, topic, group, member, lambda: cut)

    def leave(self, source, group="group", member="a"):
        source.close()
        del self._members[group][member]
        self._rebalance(group)

    def _rebalance(self, group):
        members = list(self._members[group])
        n_partitions = len(self.broker.logs[self._topics[group]])
        shares = {m: frozenset(range(i, n_partitions, len(members))) for i, m in enumerate(members)}
        self.broker.rebalance(group, shares)

    def sink(self, transactional_id="sink"):
        return MemoryOutputSink(self.broker, transactional_id)

    def state_reader(self, topic):
        return MemoryStateReader(self.broker, topic)

    def close(self):
        """Nothing is held."""


class WatchedWorld(MemoryWorld):
    """The same, each source behind its watchdog."""

    def source(self, *given, **settings):
        class Quiet:
            def __getattr__(self, _):
                return lambda *_, **__: None

        from stream_iwae.adapters.stall_watchdog import StallWatchdog

        open_source = super().source
        return StallWatchdog(lambda: open_source(*given, **settings), self.clock, Quiet(), Quiet())


class KafkaWorld:
    """The same on Apache Kafka; whatever is opened is closed in the end."""

    name = "kafka"
    max_message = 65_536
    max_metadata = 4_095  # its end is marked by a byte

    def __init__(self, kafka, admin, topic):
        from kafka import KafkaProducer

        self._kafka, self._admin, self._topic = kafka, admin, topic
        self._run = secrets.token_hex(4)
        self._opened = []
        self._producer = self._closing(KafkaProducer(bootstrap_servers=kafka.bootstrap_servers))

    def _closing(self, opened):
        self._opened.append(opened)
        return opened

    def config(self, instance="a", group="group", **settings):
        from stream_iwae.adapters.kafka_config import KafkaConfig

        topics = {"events": "unused", **settings.pop("topics", {})}
        wanted = {
            "bootstrap_servers": self._kafka.bootstrap_servers,
            "group": f"{group}-{self._run}",
            "instance": instance,
            "topics": topics,
            "session_timeout": "10s",
            "transaction_timeout": "5s",
            "max_message": "64KiB",
            **settings,
        }
        return KafkaConfig.model_validate(wanted)

    def topic(self, partitions=1, **config):
        # Records here are of 2023: retention by time would delete them whenever the broker looks for old ones.
        return self._topic(partitions, {"retention.ms": "-1", **config})

    def produce(self, topic, partition, *values, timestamp_ms=NOW_MS, key=None):
        futures = [
            self._producer.send(topic, value, key=key, partition=partition, timestamp_ms=timestamp_ms)
            for value in values
        ]
        for future in futures:
            future.get(timeout=20)

    def expire(self, topic, partition, before):
        from kafka import TopicPartition

        self._admin.delete_records({TopicPartition(topic, partition): before})

    def records(self, topic):
        from kafka import KafkaConsumer, TopicPartition

        settings = {"bootstrap_servers": self._kafka.bootstrap_servers, "enable_auto_commit": False}
        consumer = KafkaConsumer(**settings, isolation_level="read_committed", auto_offset_reset="earliest")
        plain = KafkaConsumer(**settings, isolation_level="read_uncommitted")
        try:
            mine = [TopicPartition(topic, p) for p in sorted(consumer.partitions_for_topic(topic))]
            consumer.assign(mine)
            # A commit is answered before its markers are written, so the last stable offset may lag behind it.
            ends = plain.end_offsets(mine)
            found = []
            deadline = time.monotonic() + DEADLINE_S
            while any(consumer.position(tp) < ends[tp] for tp in mine):
                assert time.monotonic() < deadline
                for batch in consumer.poll(timeout_ms=200).values():
                    found += [(r.partition, r.offset, r.key, r.value, tuple(r.headers)) for r in batch]
            return [(p, key, value, headers) for p, _, key, value, headers in sorted(found, key=lambda r: r[:2])]
        finally:
            consumer.close()
            plain.close()

    def source(self, topic, group="group", member="a", cut=10_000):
        from stream_iwae.adapters.kafka_source import KafkaEventSource

        config = self.config(member, group, max_poll_records=cut)
        return self._closing(KafkaEventSource(config, topic, config.group))

    def leave(self, source, group="group", member="a"):
        from kafka.admin import MemberToRemove

        source.close()
        self._opened.remove(source)
        group_id = f"{group}-{self._run}"
        self._admin.remove_group_members(group_id, [MemberToRemove(group_instance_id=member)])

    def sink(self, transactional_id="sink"):
        from stream_iwae.adapters.kafka_sink import KafkaOutputSink

        return self._closing(KafkaOutputSink(self.config(), f"{transactional_id}-{self._run}"))

    def state_reader(self, topic):
        from stream_iwae.adapters.kafka_state import KafkaStateReader

        return self._closing(KafkaStateReader(self.config(topics={"state": topic})))

    def close(self):
        for opened in reversed(self._opened):
            opened.close()


class ConfluentWorld(KafkaWorld):
    """Apache Kafka through confluent-kafka: source and sink, the rest is the other client's."""

    name = "confluent"

    def source(self, topic, group="group", member="a", cut=10_000):
        from stream_iwae.adapters.confluent_source import ConfluentEventSource

        config = self.config(member, group, max_poll_records=cut)
        return self._closing(ConfluentEventSource(config, topic, config.group))

    def sink(self, transactional_id="sink"):
        from stream_iwae.adapters.confluent_sink import ConfluentOutputSink

        return self._closing(ConfluentOutputSink(self.config(), f"{transactional_id}-{self._run}"))


WORLDS = {"kafka": KafkaWorld, "confluent": ConfluentWorld}


@pytest.fixture(params=["memory", "watched", *(pytest.param(name, marks=pytest.mark.kafka) for name in WORLDS)])
def world(request):
    if request.param in {"memory", "watched"}:
        made = MemoryWorld() if request.param == "memory" else WatchedWorld()
    else:
        if request.param == "confluent":
            pytest.importorskip("confluent_kafka", reason="the extra `fast` is not installed")
        kafka, admin = request.getfixturevalue("kafka"), request.getfixturevalue("kafka_admin")
        made = WORLDS[request.param](kafka, admin, request.getfixturevalue("topic"))
    yield made
    made.close()


@pytest.fixture
def worlds(kafka, kafka_admin, topic):
    """Both clients, as one group after the other."""
    pytest.importorskip("confluent_kafka", reason="the extra `fast` is not installed")
    made = {name: world(kafka, kafka_admin, topic) for name, world in WORLDS.items()}
    for world in made.values():
        world._run = made["kafka"]._run
    yield made
    for world in made.values():
        world.close()


class Taken:
    """Everything some polls brought."""

    def __init__(self):
        self.values = []
        self.offsets = []
        self.batches = []
        self.assigned = set()
        self.revoked = set()
        self.gaps = []

    def add(self, polled):
        self.assigned |= polled.assigned
        self.revoked |= polled.revoked | polled.lost
        self.gaps += polled.gaps
        for batch in polled.records:
            self.batches.append(batch)
            self.values += batch.values
            self.offsets += batch.offsets.tolist()


@pytest.fixture
def poll_until():
    """Poll one source, or several in turn, until a condition on what they brought holds."""

    def run(sources, condition, wait_s=0.05):
        is_one = not isinstance(sources, list | tuple)
        several = [sources] if is_one else sources
        taken = [Taken() for _ in several]
        deadline = time.monotonic() + DEADLINE_S
        while not condition(*taken):
            assert time.monotonic() < deadline, [vars(t) for t in taken]
            for source, seen in zip(several, taken, strict=True):
                seen.add(source.poll(wait_s))
        return taken[0] if is_one else taken

    return run


@pytest.fixture
def assigned(poll_until):
    """Poll until a source has its partitions, then read them from the beginning."""

    def run(source, n=1, start=0):
        taken = poll_until(source, lambda seen: len(seen.assigned) >= n)
        for partition in taken.assigned:
            source.seek(partition, start)
        return taken

    return run


@pytest.fixture(params=["memory", "directory", pytest.param("kafka", marks=pytest.mark.kafka)])
def stores(request, tmp_path):
    """Make stores that see the same artefacts: ``stores()``; and ``stores.damage(version)``."""
    if request.param == "kafka":
        kafka, admin = request.getfixturevalue("kafka"), request.getfixturevalue("kafka_admin")
        made = KafkaStores(KafkaWorld(kafka, admin, request.getfixturevalue("topic")))
        yield made
        made.world.close()
    elif request.param == "directory":
        yield DirectoryStores(tmp_path / "models")
    else:
        yield MemoryStores()


class MemoryStores:
    def __init__(self):
        self.shelf = ModelShelf()

    def __call__(self):
        return MemoryModelStore(self.shelf)

    def damage(self, version):
        self.shelf.damaged.add(version)


class DirectoryStores:
    def __init__(self, directory):
        self.directory = directory

    def __call__(self):
        from stream_iwae.adapters.model_store import DirectoryModelStore

        return DirectoryModelStore(self.directory)

    def damage(self, version):
        path = self.directory / f"{version}.siwae"
        path.write_bytes(path.read_bytes()[:-1])


class KafkaStores:
    def __init__(self, world):
        self.world = world
        self.models = world.topic(**{"cleanup.policy": "compact"})
        self._sinks = itertools.count()

    def __call__(self):
        from stream_iwae.adapters.model_store import KafkaModelStore

        class SteppingClock(VirtualClock):
            """Every look is a second later: no poll is put off."""

            def monotonic_s(self):
                self.advance(1000)
                return super().monotonic_s()

        config = self.world.config(topics={"models": self.models})
        sink = self.world.sink(f"models-{next(self._sinks)}")
        store = KafkaModelStore(config, SteppingClock(), sink)
        return self.world._closing(store)

    def damage(self, version):
        self.world.produce(self.models, 0, None, key=f"{version}/0/1".encode())
