"""Fetched bytes -> records, three times as fast as kafka-python 3.0.12 makes them.

The client builds two objects for each record and reads each of its numbers by a call; that is most of what an
event costs a service in Python. We need the offset, the time and the value: here a record is a tuple of them,
read in one loop over the bytes of its batch. Checksums, aborted transactions and positions stay the client's own.
See docs/adr/0004; it rests on private names of the client, whose version is pinned. A batch that unpacks to too much
is passed over, and told of.
"""

from collections.abc import Callable, Iterator
from typing import Any, Final

from kafka import KafkaConsumer
from kafka.consumer.fetcher import Fetcher, IsolationLevel
from kafka.errors import CorruptRecordError

from stream_iwae.adapters.unpacking import TooLargeError, unpacked

Record = tuple[int, int, bytes | None]
"""Offset, record time in milliseconds, value."""

_NONE: Final = 1  # a size of -1 in zigzag form: there is no key, or no value
_NEWEST_FORMAT: Final = 2  # magic of a batch; older ones come from before Kafka 0.11


def read_plain_records(consumer: KafkaConsumer, max_unpacked: int, tell: Callable[[int, int, int], None]) -> None:
    """Let `consumer.poll` give tuples (offset, time in ms, value) instead of objects.

    Args:
        consumer: Whose records.
        max_unpacked: Bytes that a compressed batch may unpack to.
        tell: Called with the partition, the first offset and the number of records of a batch that is larger.
    """

    class Bounded(_PlainRecords):
        bound = max_unpacked
        on_too_large = staticmethod(tell)

    consumer._fetcher.PartitionRecords = Bounded  # noqa: SLF001  # there is no public way


class _PlainRecords(Fetcher.PartitionRecords):  # type: ignore[misc]  # the client publishes no types
    """The records of one fetch of one partition."""

    bound: int
    on_too_large: Callable[[int, int, int], None]

    def _maybe_skip_record(self, record: Record) -> bool:
        """Whether it lies before the fetch offset: a batch comes whole even if it is asked for from its middle."""
        return record[0] < int(self.fetch_offset)

    def take(self, n: int | None = None) -> list[Record]:
        records: list[Record] = super().take(n)
        if records and self.record_iterator is not None:  # else the position is past the last batch
            self.next_fetch_offset = records[-1][0] + 1
        return records

    def _unpack_records(self, tp: Any, records: Any, *_deserializers: object) -> Iterator[Record]:
        last_batch = None
        while (batch := records.next_batch()) is not None:
            last_batch = batch
            if self.check_crcs and not batch.validate_crc():
                raise CorruptRecordError(f"the batch of {tp} at offset {batch.base_offset} failed its checksum")
            if batch.magic == _NEWEST_FORMAT:
                self.leader_epoch = batch.leader_epoch
                if self._is_hidden(batch):
                    self.next_fetch_offset = batch.next_offset
                    continue
                try:
                    found = plain_records(batch, self.bound)
                except TooLargeError:
                    if batch.last_offset >= self.fetch_offset:
                        self.on_too_large(tp.partition, batch.base_offset, batch.records_count)
                    self.next_fetch_offset = batch.next_offset
                    continue
            else:
                found = [self._of_old_format(record) for record in batch]
            self.records_read += len(found)
            self.bytes_read += batch.size_in_bytes
            yield from found
        if last_batch is not None and last_batch.magic == _NEWEST_FORMAT:
            # Compaction may have removed the last records of a batch: go on behind it, not behind what is left.
            self.next_fetch_offset = last_batch.next_offset
        self.drain()

    def _of_old_format(self, record: Any) -> Record:
        if self.check_crcs and not record.validate_crc():
            raise CorruptRecordError(f"the record of {self.topic_partition} at {record.offset} failed its checksum")
        return record.offset, record.timestamp, record.value

    def _is_hidden(self, batch: Any) -> bool:
        """Whether readers must not see it: a marker, or data of an aborted transaction."""
        if self.isolation_level == IsolationLevel.READ_COMMITTED and batch.has_producer_id():
            self._consume_aborted_transactions_up_to(batch.last_offset)
            if self._contains_abort_marker(batch):
                self.aborted_producer_ids.discard(batch.producer_id)
            elif self._is_batch_aborted(batch):
                return True
        return bool(batch.is_control_batch)


def plain_records(  # noqa: C901  # a call for each number would cost more than all else
    batch: Any, max_unpacked: int
) -> list[Record]:
    """The records of one batch of the newest format, as (offset, time in ms, value).

    Raises:
        CorruptRecordError: The bytes are no such batch.
        TooLargeError: It unpacks to more than `max_unpacked` bytes.

    Source: Kafka's documentation, section 5.3.2, Record.
    """
    packed = bytes(memoryview(batch._buffer)[batch._pos :])  # noqa: SLF001
    data = unpacked(batch.compression_type, packed, max_unpacked)
    base_offset, base_ms = batch.base_offset, batch.first_timestamp
    appended_ms = batch.max_timestamp if batch.timestamp_type == batch.LOG_APPEND_TIME else None
    records: list[Record] = []
    at = 0
    try:
        # Numbers are zigzag varints; nearly all take one byte or two.
        for _ in range(batch.records_count):
            length, at = data[at], at + 1
            if length >= 0x80:
                length, at = length & 0x7F | data[at] << 7, at + 1
                if length >= 0x4000:
                    length, at = _long_varint(data, at, length)
            end = at + (length >> 1)
            delta_ms, at = data[at + 1], at + 2  # after a byte of attributes, which mean nothing yet
            if delta_ms >= 0x80:
                delta_ms, at = delta_ms & 0x7F | data[at] << 7, at + 1
                if delta_ms >= 0x4000:
                    delta_ms, at = _long_varint(data, at, delta_ms)
            delta, at = data[at], at + 1
            if delta >= 0x80:
                delta, at = delta & 0x7F | data[at] << 7, at + 1
                if delta >= 0x4000:
                    delta, at = _long_varint(data, at, delta)
            key_size, at = data[at], at + 1
            if key_size != _NONE:
                if key_size >= 0x80:
                    key_size, at = _long_varint(data, at, key_size & 0x7F, 7)
                at += key_size >> 1
            size, at = data[at], at + 1
            if size >= 0x80:
                size, at = size & 0x7F | data[at] << 7, at + 1
                if size >= 0x4000:
                    size, at = _long_varint(data, at, size)
            value_end = at if size == _NONE else at + (size >> 1)
            if value_end >= end:  # at least the number of headers follows
                raise CorruptRecordError(f"a record of the batch at {base_offset} is longer than it says")
            time_ms = base_ms + (delta_ms >> 1 ^ -(delta_ms & 1)) if appended_ms is None else appended_ms
            records.append((base_offset + (delta >> 1), time_ms, None if size == _NONE else data[at:value_end]))
            at = end  # past the headers, which nothing reads
    except IndexError as error:
        raise CorruptRecordError(f"the batch at {base_offset} ends within a record") from error
    if at != len(data):
        raise CorruptRecordError(f"the batch at {base_offset} has {len(data) - at} bytes after its last record")
    return records


def _long_varint(data: bytes, at: int, known: int, n_bits: int = 14) -> tuple[int, int]:
    """The whole of a number of which `n_bits` are known and say that it goes on, in zigzag form; and where it ends."""
    result = known & (1 << n_bits) - 1
    for shift in range(n_bits, 70, 7):
        byte, at = data[at], at + 1
        result |= (byte & 0x7F) << shift
        if byte < 0x80:
            return result, at
    raise CorruptRecordError("a number of a record is longer than 64 bits")
