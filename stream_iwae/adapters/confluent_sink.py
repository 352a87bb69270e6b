"""OutputSink on confluent-kafka: one Kafka transaction a commit, in the steps of `kafka_sink`."""

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Final

from confluent_kafka import KafkaError, KafkaException, Message, Producer, TopicPartition

from stream_iwae.adapters.bounded_call import within
from stream_iwae.adapters.confluent_client import Errors, confluent_settings, refusal, unconnected
from stream_iwae.adapters.kafka_config import KafkaConfig
from stream_iwae.adapters.kafka_permissions import check_permissions, topic_permission, write_transactions
from stream_iwae.adapters.kafka_sink import check_sizes
from stream_iwae.errors import (
    AmbiguousCommitError,
    BrokerUnreachableError,
    ConfigurationError,
    DeliveryError,
    FencedError,
    StaleGroupError,
    StreamIwaeError,
)
from stream_iwae.ports import CommittedOffset, GroupToken, OutputRecord

_STALE: Final = frozenset(
    {KafkaError.ILLEGAL_GENERATION, KafkaError.UNKNOWN_MEMBER_ID, KafkaError.REBALANCE_IN_PROGRESS}
)
_FENCED: Final = frozenset(
    {
        KafkaError._FENCED,  # noqa: SLF001  # the client's own name for a public number
        KafkaError.PRODUCER_FENCED,
        KafkaError.INVALID_PRODUCER_EPOCH,
    }
)
_QUEUE_KIB: Final = 128 * 1024
_FULL_QUEUE_S: Final = 0.05
_GRACE_S: Final = 2.0  # seen: librdkafka 2.16 never comes back from a commit of offsets whose coordinator has died
_CLOSE_S: Final = 10.0
_BY_KEY: Final = -1  # the client's number for a partition that its partitioner picks


class ConfluentOutputSink:
    """A transactional producer that can be replaced."""

    def __init__(self, config: KafkaConfig, transactional_id: str) -> None:
        self._config = config
        self._transactional_id = transactional_id
        self._timeout_s = config.transaction_timeout / 1000
        self._is_fenced = False
        self._producer = self._connect()

    def _connect(self) -> Producer:
        config, errors = self._config, Errors()
        producer = Producer(
            {
                **confluent_settings(config, "sink", errors),
                "transactional.id": self._transactional_id,
                "acks": "all",
                "compression.type": "lz4",
                "linger.ms": 5,
                "partitioner": "murmur2_random",  # as Kafka's own clients place a key
                "message.max.bytes": max(config.max_message, 1_048_576),
                "queue.buffering.max.kbytes": _QUEUE_KIB,
                "transaction.timeout.ms": config.transaction_timeout,
                # What is not delivered fails while the transaction is still open.
                "topic.metadata.propagation.max.ms": config.transaction_timeout // 4,
                "message.timeout.ms": config.transaction_timeout // 2,
            }
        )
        try:
            producer.init_transactions(max(self._timeout_s, config.connect_timeout / 1000))
        except KafkaException as error:
            refused = refusal(config, error.args[0], write_transactions(self._transactional_id))
            if refused is not None:
                raise refused from error
            if errors.refusal is not None or error.args[0].retriable():
                raise unconnected(config, errors.refusal or str(error)) from error
            raise DeliveryError(f"transactions of {self._transactional_id} cannot begin: {error}") from error
        return producer

    def commit(
        self,
        records: Sequence[OutputRecord],
        offsets: Mapping[int, CommittedOffset],
        source_topic: str,
        group: GroupToken,
    ) -> None:
        """Publish and commit in one transaction; see the port for what it raises."""
        check_sizes(records, offsets, self._config.max_message)
        if self._is_fenced:
            raise FencedError(f"another producer uses {self._transactional_id!r}")
        producer = self._producer
        try:
            producer.begin_transaction()
            self._send(producer, records)
            if offsets:
                wanted = [
                    TopicPartition(source_topic, partition, found.offset, found.metadata)
                    for partition, found in offsets.items()
                ]
                self._bounded(producer.send_offsets_to_transaction, wanted, group, self._timeout_s)
        except KafkaException as error:
            raise self._give_up(error.args[0]) from error
        except (DeliveryError, ConfigurationError):
            self._abort()
            raise
        try:
            self._bounded(producer.commit_transaction, self._timeout_s)
        except KafkaException as error:
            cause: KafkaError = error.args[0]
            if cause.code() in _FENCED or cause.txn_requires_abort():
                raise self._give_up(cause) from error
            raise AmbiguousCommitError(f"the commit's fate is unknown: {cause}") from error

    def _bounded(self, call: Callable[..., object], *arguments: object) -> None:
        """Call the client, which does not always keep to the time that it was given."""
        try:
            within(self._timeout_s + _GRACE_S, call, *arguments)
        except TimeoutError as error:
            raise KafkaException(KafkaError(KafkaError._TIMED_OUT, str(error))) from error  # noqa: SLF001

    def _send(self, producer: Producer, records: Sequence[OutputRecord]) -> None:
        failures: list[tuple[str | None, KafkaError]] = []

        def on_delivery(error: KafkaError | None, message: "Message[bytes, bytes]") -> None:
            if error is not None:
                failures.append((message.topic(), error))

        deadline_s = time.monotonic() + self._timeout_s
        for record in records:
            while not _is_enqueued(producer, record, on_delivery):
                if time.monotonic() >= deadline_s:
                    raise DeliveryError(f"the queue to the brokers stayed full, at a record of {record.topic}")
        try:
            left = producer.flush(max(0.0, deadline_s - time.monotonic()))
        except SystemError as shown:  # a fatal error of the client, while callbacks of ours were to be called
            if isinstance(shown.__cause__, KafkaException):
                raise shown.__cause__ from None
            raise
        if failures:
            topic, error = failures[0]
            if error.code() in _FENCED:
                raise KafkaException(error)
            wanted = topic_permission(self._config, "WRITE", str(topic))
            refused = refusal(self._config, error, wanted)
            if refused is not None:
                raise refused
            if error.code() == KafkaError._PURGE_QUEUE:  # noqa: SLF001  # so ends a record that may not be written, too
                with suppress(BrokerUnreachableError):
                    check_permissions(self._config, [wanted])
            raise DeliveryError(f"a record of {topic} failed: {error}")
        if left:
            raise DeliveryError(f"{left} records were not acknowledged in time")

    def _give_up(self, error: KafkaError) -> StreamIwaeError:
        """End the transaction, and say what its error asks of the caller."""
        if error.code() in _FENCED:
            self._is_fenced = True
            return FencedError(f"another producer uses {self._transactional_id!r}: {error}")
        self._abort()
        if error.code() in _STALE:
            return StaleGroupError(f"the group has rebalanced: {error}")
        if error.code() == KafkaError.FENCED_INSTANCE_ID:
            return FencedError(f"kafka.instance {self._config.instance!r} is used twice")
        refused = refusal(self._config, error, write_transactions(self._transactional_id))
        return refused or DeliveryError(f"output could not be delivered: {error}")

    def _abort(self) -> None:
        """End the open transaction; a producer that cannot is replaced."""
        try:
            self._producer.purge()
            self._bounded(self._producer.abort_transaction, self._timeout_s)
        except KafkaException:
            try:
                self.recover()
            except BrokerUnreachableError as error:
                raise DeliveryError(f"the transaction could not be aborted: {error}") from error

    def recover(self) -> None:
        """A new producer under the same id: its first act settles what the former left open."""
        former = self._producer
        self._producer = self._connect()
        self._is_fenced = False
        _end(former)  # only now: whatever it would still abort is settled

    def close(self) -> None:
        """Release sockets and threads; a transaction that is open is aborted."""
        producer = self._producer
        del self._producer
        _end(producer)


def _end(producer: Producer) -> None:
    producer.purge()
    # The client's close fails after a fatal error, being fenced for one. What it holds goes with its last reference.
    with suppress(SystemError, KafkaException, TimeoutError):
        within(_CLOSE_S, producer.close)


def _is_enqueued(
    producer: Producer, record: OutputRecord, on_delivery: "Callable[[KafkaError | None, Message[bytes, bytes]], None]"
) -> bool:
    """Whether the queue took the record; where it is full it drains for a moment."""
    partition = _BY_KEY if record.partition is None else record.partition
    try:
        producer.produce(
            record.topic,
            record.value,
            record.key,
            partition,
            on_delivery=on_delivery,
            headers=list(record.headers),
        )
    except BufferError:
        producer.poll(_FULL_QUEUE_S)
        return False
    return True
