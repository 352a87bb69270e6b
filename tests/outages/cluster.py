"""Three brokers that are struck, and what an onlooker can ask of them."""

import os
import signal
import threading
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Final

from confluent_kafka import Consumer, IsolationLevel, KafkaError, KafkaException, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic, OffsetSpec
from kafka import KafkaAdminClient
from kafka import TopicPartition as KafkaPartition

from stream_iwae.lab.local_kafka import BrokerOptions, LocalKafkaError, RunningKafka, local_kafka, start, stop_node
from stream_iwae.windows.progress import decode_metadata
from tests.outages.effects import Published
from tests.outages.fleet import OutageError, wait_for
from tests.outages.logs import Stored
from tests.outages.reference import Committed

BROKERS: Final = 3
ASK_S: Final = 5.0
_SETTLE_S: Final = 60.0
_OPTIONS: Final = BrokerOptions(
    heap="256m",
    log_level="warn",
    properties={
        "log.segment.bytes": "16777216",
        "log.retention.check.interval.ms": "600000",
        "transaction.abort.timed.out.transaction.cleanup.interval.ms": "1000",  # soon after its time-out
    },
)


class Cluster:
    """The brokers. One is struck at a time: two of three hold a majority."""

    def __init__(self, running: RunningKafka) -> None:
        self.bootstrap_servers = running.bootstrap_servers
        self._directory: Path = running.directory
        self._pids = running.pids
        self.lock = threading.Lock()  # held while a broker is struck
        self._stopped: int | None = None
        self.admin = AdminClient({"bootstrap.servers": self.bootstrap_servers, "log_level": 0})

    # --- faults ------------------------------------------------------------------------------

    def stop_broker(self, number: int, *, is_killed: bool) -> None:
        stop_node(self._directory, number, is_killed=is_killed)

    def start_missing(self) -> None:
        """Start the broker that is away, and wait until all answer."""
        self._pids = start(self._directory, BROKERS, _OPTIONS).pids

    def kill(self) -> None:
        """End all of them at once: nobody needs their data, and in order it takes a quarter of a minute."""
        for number in range(1, BROKERS + 1):
            with suppress(LocalKafkaError):  # it is away already
                stop_node(self._directory, number, is_killed=True)

    def pause_broker(self, number: int) -> None:
        self._stopped = number
        os.kill(self._pids[number - 1], signal.SIGSTOP)

    def resume_broker(self) -> None:
        if self._stopped is not None:
            os.kill(self._pids[self._stopped - 1], signal.SIGCONT)
            self._stopped = None

    def coordinator_of(self, name: str, topic: str) -> int:
        """The broker that leads the partition of an internal topic that a group or transaction belongs to."""
        partitions = self.admin.list_topics(topic, timeout=ASK_S).topics[topic].partitions
        leader: int = partitions[java_hash(name) % len(partitions)].leader
        return leader if leader > 0 else 1

    # --- topics ------------------------------------------------------------------------------

    def create(self, topics: Mapping[str, int]) -> None:
        """Make topics with so many partitions each."""
        wanted = [NewTopic(name, n, BROKERS, config={"min.insync.replicas": "2"}) for name, n in topics.items()]
        for made in self.admin.create_topics(wanted, operation_timeout=_SETTLE_S).values():
            made.result(_SETTLE_S)

    def delete(self, topics: Iterable[str]) -> None:
        for gone in self.admin.delete_topics(list(topics), operation_timeout=_SETTLE_S).values():
            gone.result(_SETTLE_S)

    def wait_until_in_sync(self) -> float:
        """Until every replica of every partition is in sync; returns how long it took."""

        def is_in_sync() -> bool:
            try:
                metadata = self.admin.list_topics(timeout=ASK_S)
            except KafkaException:
                return False
            partitions = [p for topic in metadata.topics.values() for p in topic.partitions.values()]
            return len(metadata.brokers) == BROKERS and all(len(p.isrs) == len(p.replicas) for p in partitions)

        return wait_for(is_in_sync, _SETTLE_S, "all replicas of all partitions in sync")

    def ends(self, topics: Mapping[str, int]) -> dict[tuple[str, int], tuple[int, int]] | None:
        """(last stable offset, high water mark) by partition; None where a broker does not say."""
        wanted = {TopicPartition(name, p): OffsetSpec.latest() for name, n in topics.items() for p in range(n)}
        try:
            stable, high = (
                {
                    (at.topic, at.partition): found.result(ASK_S).offset
                    for at, found in self.admin.list_offsets(
                        wanted, isolation_level=level, request_timeout=ASK_S
                    ).items()
                }
                for level in (IsolationLevel.READ_COMMITTED, IsolationLevel.READ_UNCOMMITTED)
            )
        except KafkaException:
            return None
        return {place: (stable[place], high[place]) for place in high}

    def open_transactions(self) -> list[str]:
        """What the coordinators know of transactions that are under way, and partitions of their producers."""
        admin = KafkaAdminClient(bootstrap_servers=self.bootstrap_servers)
        try:
            known = [one for found in admin.list_transactions().values() for one in found]
            return [str(one) for one in known if "Complete" not in str(one) and "EMPTY" not in str(one).upper()]
        finally:
            admin.close()

    def producers(self, topic: str, partition: int) -> str:
        """What the leader of a partition knows of its producers."""
        admin = KafkaAdminClient(bootstrap_servers=self.bootstrap_servers)
        try:
            return str(admin.describe_producers([KafkaPartition(topic, partition)]))
        finally:
            admin.close()

    def read(self, topic: str, n_partitions: int) -> Iterator[Any]:
        """All committed records, each partition in the order of its log, up to its last stable offset."""
        consumer = Consumer(
            {
                "bootstrap.servers": self.bootstrap_servers,
                "group.id": "onlooker",
                "isolation.level": "read_committed",
                "enable.auto.commit": False,
                "enable.partition.eof": True,
                "auto.offset.reset": "error",
                "fetch.wait.max.ms": 20,
                "log_level": 0,
            }
        )
        try:
            consumer.assign([TopicPartition(topic, partition, 0) for partition in range(n_partitions)])
            left, deadline_s = set(range(n_partitions)), time.monotonic() + _SETTLE_S
            while left:
                if time.monotonic() > deadline_s:
                    raise OutageError(f"{topic} could not be read to its end: {sorted(left)} left")
                for message in consumer.consume(1000, 0.1):
                    error = message.error()
                    if error is None:
                        yield message
                    elif error.code() == KafkaError._PARTITION_EOF:
                        left.discard(message.partition())
        finally:
            consumer.close()

    def log_of(self, topic: str, n_partitions: int) -> dict[int, list[Stored]]:
        """What a topic holds, by partition."""
        logs: dict[int, list[Stored]] = {partition: [] for partition in range(n_partitions)}
        for message in self.read(topic, n_partitions):
            logs[message.partition()].append(Stored(message.offset(), message.timestamp()[1], message.value()))
        return logs

    def published(self, topics: Mapping[str, str], n_partitions: Mapping[str, int]) -> Iterator[Published]:
        """What the topics (kind -> name) hold."""
        for kind, name in topics.items():
            for message in self.read(name, n_partitions[name]):
                headers = tuple(message.headers() or ())
                yield Published(kind, message.partition(), message.key(), message.value(), headers)


class Onlooker:
    """Asks again and again what a group has committed."""

    def __init__(self, cluster: Cluster, group: str, topic: str, n_partitions: int) -> None:
        self._partitions = [TopicPartition(topic, partition) for partition in range(n_partitions)]
        self._consumer = Consumer(
            {
                "bootstrap.servers": cluster.bootstrap_servers,
                "group.id": group,
                "isolation.level": "read_committed",  # what an open transaction may still change is waited for
                "enable.auto.commit": False,
                "log_level": 0,
            }
        )
        self.latest: dict[int, Committed] = {}
        self.went_back: list[str] = []

    def look(self) -> dict[int, Committed]:
        """What is committed now, as far as the coordinator says."""
        try:
            answers = self._consumer.committed(self._partitions, timeout=ASK_S)
        except KafkaException:
            return self.latest
        for answer in answers:
            if answer.error is None and answer.offset >= 0:
                self._follow(answer.partition, answer.offset, answer.metadata)
        return self.latest

    def _follow(self, partition: int, offset: int, metadata: str) -> None:
        progress = decode_metadata(metadata, offset).progress
        found = Committed(offset, progress.position, progress.watermark_ms)
        former = self.latest.get(partition)
        self.latest[partition] = found
        if former is not None and (
            found.offset < former.offset
            or found.position < former.position
            or (found.watermark_ms or 0) < (former.watermark_ms or 0)
        ):
            self.went_back.append(f"of partition {partition}: after {former} came {found}")

    def close(self) -> None:
        self._consumer.close()


def java_hash(text: str) -> int:
    """String.hashCode() as Kafka makes it positive."""
    value = 0
    for unit in text.encode():
        value = (31 * value + unit) & 0xFFFFFFFF
    return value & 0x7FFFFFFF


@contextmanager
def three_brokers() -> Iterator[Cluster]:
    """Start them, and stop them at the end, also one that sleeps."""
    with local_kafka(brokers=BROKERS, options=_OPTIONS) as running:
        cluster = Cluster(running)
        try:
            yield cluster
        finally:
            cluster.kill()
