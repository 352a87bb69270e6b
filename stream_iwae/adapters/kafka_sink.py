"""OutputSink on kafka-python: one Kafka transaction a commit.

1. begin; 2. send all; 3. flush, and check every future: a record that expires inside a transaction fails
only its future, and the commit would succeed without it; 4. offsets with the group's metadata; 5. commit.
"""

from collections.abc import Mapping, Sequence
from typing import Final

from kafka import KafkaProducer, TopicPartition
from kafka.errors import (
    AuthorizationError,
    CommitFailedError,
    FencedInstanceIdError,
    IllegalGenerationError,
    InvalidProducerEpochError,
    KafkaError,
    KafkaTimeoutError,
    ProducerFencedError,
    RebalanceInProgressError,
    UnknownMemberIdError,
)
from kafka.structs import OffsetAndMetadata

from stream_iwae.adapters.kafka_client import client_settings, connected
from stream_iwae.adapters.kafka_config import KafkaConfig
from stream_iwae.adapters.kafka_permissions import refused, topic_permission, write_transactions
from stream_iwae.adapters.kafka_transactions import keep_requests
from stream_iwae.errors import (
    AmbiguousCommitError,
    BrokerUnreachableError,
    ConfigurationError,
    DeliveryError,
    FencedError,
    StaleGroupError,
)
from stream_iwae.ports import CommittedOffset, GroupToken, OutputRecord

_STALE: Final = (CommitFailedError, IllegalGenerationError, RebalanceInProgressError, UnknownMemberIdError)
_FENCED: Final = (ProducerFencedError, InvalidProducerEpochError)
_REQUEST_TIMEOUT_MS: Final = 30_000
_OVERHEAD_BYTES: Final = 2_048  # of a record beside key, value and headers
# librdkafka marks the end of what it stores beside an offset, and in what it reads runs past an end that is not marked.
METADATA_END: Final = "\0"
MAX_METADATA_BYTES: Final = 4_096 - len(METADATA_END)  # beside an offset; the broker's default


class KafkaOutputSink:
    """A transactional producer that can be replaced."""

    def __init__(self, config: KafkaConfig, transactional_id: str) -> None:
        self._config = config
        self._transactional_id = transactional_id
        self._is_fenced = False
        self._producer = self._connect()

    def _connect(self) -> KafkaProducer:
        config = self._config
        producer = connected(
            config,
            lambda: KafkaProducer(
                **client_settings(config, "sink"),
                transactional_id=self._transactional_id,
                enable_idempotence=True,
                acks="all",
                compression_type="lz4",
                linger_ms=5,
                batch_size=262_144,
                max_request_size=max(config.max_message, 1_048_576),
                transaction_timeout_ms=config.transaction_timeout,
                # A request that is not answered is given up before the transaction is, and the rest after it.
                max_block_ms=config.transaction_timeout,
                request_timeout_ms=min(_REQUEST_TIMEOUT_MS, config.transaction_timeout),
                delivery_timeout_ms=config.transaction_timeout + 10_000,
            ),
        )
        keep_requests(producer)
        try:
            producer.init_transactions()
        except AuthorizationError as error:
            _close(producer, timeout_s=0)
            raise refused(config, error, write_transactions(self._transactional_id)) from error
        except KafkaError as error:
            _close(producer, timeout_s=0)
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
        producer, are_offsets_told = self._producer, False
        try:
            producer.begin_transaction()
            self._send(producer, records)
            if offsets:
                are_offsets_told = True
                wanted = {
                    TopicPartition(source_topic, partition): OffsetAndMetadata(
                        found.offset, found.metadata + METADATA_END, -1
                    )
                    for partition, found in offsets.items()
                }
                producer.send_offsets_to_transaction(wanted, group)
        except ConfigurationError:
            self._abort()
            raise
        except AuthorizationError as error:
            self._abort()
            raise refused(self._config, error, write_transactions(self._transactional_id)) from error
        except (KafkaError, DeliveryError, ValueError) as error:  # ValueError: the client's for an unknown partition
            raise self._give_up(error, are_offsets_told=are_offsets_told) from error
        try:
            producer.commit_transaction()
        except _FENCED as error:
            self._is_fenced = True
            raise FencedError(f"another producer uses {self._transactional_id!r}: {error!r}") from error
        except KafkaError as error:
            raise AmbiguousCommitError(f"the commit's fate is unknown: {error!r}") from error

    def _send(self, producer: KafkaProducer, records: Sequence[OutputRecord]) -> None:
        futures = [
            producer.send(
                record.topic, record.value, key=record.key, partition=record.partition, headers=list(record.headers)
            )
            for record in records
        ]
        producer.flush(timeout=self._config.transaction_timeout / 1000)
        for record, future in zip(records, futures, strict=True):
            if not future.succeeded():
                failure = future.exception or KafkaTimeoutError("not acknowledged in time")
                if isinstance(failure, AuthorizationError):
                    raise refused(self._config, failure, topic_permission(self._config, "WRITE", record.topic))
                raise DeliveryError(f"a record of {record.topic} failed") from failure

    def _give_up(self, error: Exception, *, are_offsets_told: bool) -> DeliveryError:
        """End the transaction, and say what its error asks of the caller.

        A fenced producer shows as the failure of whatever it did first, be it only a record. It is not replaced
        here: that would fence the other one in return, and two twins would go on like that for ever.
        """
        cause = error.__cause__ if isinstance(error, DeliveryError) and error.__cause__ is not None else error
        if isinstance(cause, _FENCED):
            self._is_fenced = True  # the client forgets why it fails from now on
            return FencedError(f"another producer uses {self._transactional_id!r}: {cause!r}")
        if isinstance(cause, FencedInstanceIdError):
            self._abort()
            return FencedError(f"kafka.instance {self._config.instance!r} is used twice")
        if are_offsets_told:
            # The client (3.0.12) keeps offsets that were refused, and would commit them with its next transaction.
            self._replace()
        else:
            self._abort()
        if isinstance(cause, _STALE):
            return StaleGroupError(f"the group has rebalanced: {cause!r}")
        what = f"{error}: {cause!r}" if cause is not error else repr(error)
        return DeliveryError(f"output could not be delivered: {what}")

    def _abort(self) -> None:
        """End the open transaction; a producer that cannot is replaced."""
        try:
            self._producer.abort_transaction()
        except KafkaError:
            self._replace()

    def _replace(self) -> None:
        """Recover, where that is the end of a transaction that has failed."""
        try:
            self.recover()
        except BrokerUnreachableError as error:
            raise DeliveryError(f"the transaction could not be aborted: {error}") from error

    def recover(self) -> None:
        """A new producer under the same id: its first act settles what the former left open."""
        _close(self._producer, timeout_s=0)
        self._producer = self._connect()
        self._is_fenced = False

    def close(self) -> None:
        """Release sockets and threads."""
        _close(self._producer, timeout_s=5)


def check_sizes(
    records: Sequence[OutputRecord],
    offsets: Mapping[int, CommittedOffset],
    max_message: int,
) -> None:
    """No record may stop the service for good: what a broker would refuse is refused here, before the transaction.

    Raises:
        DeliveryError: A record, or the metadata of an offset, is too large.
    """
    for record in records:
        size = len(record.key or b"") + len(record.value or b"") + _OVERHEAD_BYTES
        size += sum(len(name) + len(value) for name, value in record.headers)
        if size > max_message:
            raise DeliveryError(f"a record of {size} bytes for {record.topic}; kafka.max_message is {max_message}")
    for partition, found in offsets.items():
        size = len(found.metadata.encode())
        if size > MAX_METADATA_BYTES:  # the broker's refusal would be fatal to the producer
            raise DeliveryError(f"commit metadata of {size} bytes for partition {partition}")


def _close(producer: KafkaProducer, timeout_s: float) -> None:
    """Close, by force where that fails: the records of a transaction that has not ended are of no use."""
    try:
        producer.close(timeout=timeout_s)
    except KafkaError:
        # close() begins with a flush, and leaves its thread and sockets open where that cannot be done in time.
        producer._sender.force_close()  # noqa: SLF001  # the client has no public way
