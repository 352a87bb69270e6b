"""Sends messages to a topic, and vouches that every one has arrived."""

from collections import deque
from collections.abc import Mapping
from types import TracebackType
from typing import Final, Self

from kafka import KafkaAdminClient, KafkaProducer
from kafka.errors import KafkaError, TopicAlreadyExistsError

from stream_iwae.errors import BrokerUnreachableError, DeliveryError

_MAX_IN_FLIGHT: Final = 20_000  # messages; the producer itself would buffer without bound
_DELIVERY_TIMEOUT_S: Final = 120.0
_KEPT: Final = {"retention.ms": "-1"}  # old events are no reason to delete what was sent a minute ago


def create_topic(
    bootstrap_servers: str,
    topic: str,
    partitions: int = 1,
    config: Mapping[str, str] | None = None,
) -> bool:
    """Make `topic` where it is missing, and leave it as it is where it exists.

    Args:
        bootstrap_servers: "host:port,host:port".
        topic: Its name.
        partitions: How many, where it has to be made.
        config: Topic settings over our own, which keep records for good.

    Returns:
        Whether it was missing.

    Raises:
        BrokerUnreachableError: No broker answers.
        DeliveryError: The broker refuses the topic.
    """
    wanted = {"num_partitions": partitions, "configs": {**_KEPT, **(config or {})}}
    try:
        admin = KafkaAdminClient(bootstrap_servers=bootstrap_servers, bootstrap_timeout_ms=10_000)
    except KafkaError as error:
        raise BrokerUnreachableError(f"no Kafka broker answers at {bootstrap_servers}: {error}") from error
    try:
        admin.create_topics({topic: wanted}, wait_for_metadata=True)
    except TopicAlreadyExistsError:
        return False
    except KafkaError as error:
        raise DeliveryError(f"topic {topic} could not be made: {error}") from error
    finally:
        admin.close()
    return True


class MessagePublisher:
    """A producer that checks the delivery of each message, with a bounded number of them under way.

    Leaving its `with` block waits for all. After a failure nothing is retried: what has arrived is
    a prefix of each partition, in order.
    """

    def __init__(self, bootstrap_servers: str, topic: str) -> None:
        try:
            self._producer = KafkaProducer(
                bootstrap_servers=bootstrap_servers,
                acks="all",
                enable_idempotence=True,
                compression_type="lz4",
                linger_ms=20,
                batch_size=262_144,
            )
        except KafkaError as error:
            raise BrokerUnreachableError(f"no Kafka broker answers at {bootstrap_servers}: {error}") from error
        self._topic = topic
        self._under_way: deque[object] = deque()  # kafka-python's futures, oldest first
        self.n_events = 0
        self.n_messages = 0
        self.n_bytes = 0  # of values, before compression

    def send(self, key: bytes | None, value: bytes, n_events: int = 1) -> None:
        """Send one message, which holds `n_events`; waits while too many are under way.

        Raises:
            DeliveryError: This or an earlier message could not be delivered.
        """
        try:
            self._under_way.append(self._producer.send(self._topic, value, key=key))
        except KafkaError as error:  # too large, or no such topic
            raise DeliveryError(f"a message of {len(value)} bytes to {self._topic} was refused: {error}") from error
        self.n_events += n_events
        self.n_messages += 1
        self.n_bytes += len(value)
        if len(self._under_way) > _MAX_IN_FLIGHT:
            self._settle(down_to=_MAX_IN_FLIGHT // 2)

    def flush(self) -> None:
        """Wait until every message has arrived.

        Raises:
            DeliveryError: One has not.
        """
        try:
            self._producer.flush(timeout=_DELIVERY_TIMEOUT_S)
        except KafkaError as error:
            raise DeliveryError(f"messages to {self._topic} are still under way: {error}") from error
        self._settle(down_to=0)

    def close(self) -> None:
        """Release sockets and threads, without waiting for messages."""
        self._producer.close(timeout=0)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if kind is None:
                self.flush()
        finally:
            self.close()

    def _settle(self, down_to: int) -> None:
        while len(self._under_way) > down_to:
            future = self._under_way.popleft()
            try:
                future.get(timeout=_DELIVERY_TIMEOUT_S)  # type: ignore[attr-defined]  # untyped library
            except KafkaError as error:
                raise DeliveryError(f"a message to {self._topic} did not arrive: {error}") from error
