"""Small on the wire and large in memory: batches that a client unpacks to hundreds of times their size."""

import pytest
from kafka import KafkaProducer

from stream_iwae.adapters.kafka_choice import open_source
from stream_iwae.adapters.kafka_config import KafkaConfig
from stream_iwae.errors import StreamIwaeError
from stream_iwae.events.config import EventsConfig
from stream_iwae.events.decode import Decoder

pytestmark = pytest.mark.kafka

N_RECORDS, RECORD_BYTES = 40, 1_500_000
CLIENTS = pytest.mark.parametrize("client", ["kafka-python", "confluent"])


def producer_of(kafka, codec):
    return KafkaProducer(
        bootstrap_servers=kafka.bootstrap_servers,
        compression_type=codec,
        batch_size=N_RECORDS * RECORD_BYTES * 2,
        linger_ms=5_000,
        max_request_size=N_RECORDS * RECORD_BYTES * 2,
    )


@CLIENTS
@pytest.mark.parametrize("codec", ["gzip", "lz4", "zstd", "snappy"])
def test_a_batch_of_sixty_megabytes_in_a_few_kilobytes_is_dead_letters_and_what_follows_is_read(
    kafka, topic, client, codec
):
    name = topic(config={"max.message.bytes": "4000000"})
    producer = producer_of(kafka, codec)
    bomb = b'{"ts": 1767571200000, "src": "10.0.0.1", "flags": "' + b"x" * RECORD_BYTES + b'"}'
    futures = [producer.send(name, bomb) for _ in range(N_RECORDS)]
    good = b'{"ts": 1767571200000, "src": "10.0.0.2", "bytes": 1}'
    futures.append(producer.send(name, good))
    producer.flush()
    assert all(future.succeeded() for future in futures), futures[0].exception
    producer.close()
    settings = {"bootstrap_servers": kafka.bootstrap_servers, "client": client, "topics": {"events": name}}
    source = open_source(KafkaConfig.model_validate({**settings, "instance": "a", "group": name}), name, name)
    values = []
    try:
        for _ in range(300):
            polled = source.poll(0.1)
            if polled.assigned:
                source.seek(0, 0)
                source.resume(frozenset({0}))
            decoder = Decoder(EventsConfig.model_validate({"preset": "simulated"}))
            values += [decoder.decode(records) for records in polled.records]
            if sum(found.n_consumed for found in values) == N_RECORDS + 1:
                break
    finally:
        source.close()

    assert sum(found.n_consumed for found in values) == N_RECORDS + 1
    assert sum(len(found.events) for found in values) == 1
    assert {rejected.reason for found in values for rejected in found.rejected} == {"too_large"}


@pytest.mark.parametrize("is_last", [True, False])
@pytest.mark.parametrize("codec", ["gzip", "lz4", "zstd", "snappy"])
def test_a_batch_beyond_the_bound_is_passed_over_and_told_and_what_follows_is_read(kafka, topic, codec, is_last):
    name = topic(config={"max.message.bytes": "4000000"})
    before, after = b'{"ts": 1767571200000, "src": "10.0.0.1"}', b'{"ts": 1767571200000, "src": "10.0.0.2"}'
    for values in ([before], [b"x" * RECORD_BYTES] * N_RECORDS, [] if is_last else [after]):
        producer = producer_of(kafka, codec)
        futures = [producer.send(name, value) for value in values]
        producer.flush()
        assert all(future.succeeded() for future in futures)
        producer.close()
    settings = {"bootstrap_servers": kafka.bootstrap_servers, "topics": {"events": name}, "max_unpacked": "32MiB"}
    source = open_source(KafkaConfig.model_validate({**settings, "instance": "a", "group": name}), name, name)
    values, passed_over, end = [], [], N_RECORDS + (1 if is_last else 2)
    try:
        for _ in range(300):
            polled = source.poll(0.1)
            if polled.assigned:
                source.seek(0, 0)
                source.resume(frozenset({0}))
            values += [value for records in polled.records for value in records.values]
            passed_over += polled.passed_over
            if values and source.position(0) == end:
                break
        assert source.position(0) == end
    finally:
        source.close()

    assert values == ([before] if is_last else [before, after])
    assert passed_over == [(0, 1, N_RECORDS)]


def test_a_batch_that_the_client_cannot_unpack_ends_the_service_instead_of_stalling_it(kafka, topic):
    name = topic(config={"max.message.bytes": "4000000"})
    n_records, size = 110, 1_000_000  # librdkafka unpacks at most 100 MB of zstd
    producer = KafkaProducer(
        bootstrap_servers=kafka.bootstrap_servers, compression_type="zstd", batch_size=2 * n_records * size,
        linger_ms=10_000, max_request_size=2 * n_records * size,
    )  # fmt: skip
    futures = [producer.send(name, b"x" * size) for _ in range(n_records)]
    producer.flush()
    assert all(future.succeeded() for future in futures)
    producer.close()
    settings = {"bootstrap_servers": kafka.bootstrap_servers, "client": "confluent", "topics": {"events": name}}
    source = open_source(KafkaConfig.model_validate({**settings, "instance": "a", "group": name}), name, name)

    def read():
        for _ in range(200):
            if source.poll(0.1).assigned:
                source.seek(0, 0)
                source.resume(frozenset({0}))

    try:
        with pytest.raises(StreamIwaeError, match=r"offset 0 cannot be unpacked.*kafka-python reads"):
            read()
    finally:
        source.close()
