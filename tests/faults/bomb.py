"""How much memory one compressed batch can take: `python tests/faults/bomb.py --client confluent --codec zstd`."""

import argparse
import resource

from kafka import KafkaAdminClient, KafkaProducer

from stream_iwae.adapters.kafka_choice import open_source
from stream_iwae.adapters.kafka_config import KafkaConfig
from stream_iwae.events.config import EventsConfig
from stream_iwae.events.decode import Decoder
from stream_iwae.lab.local_kafka import local_kafka

TOPIC = "bombs"


def fill(servers, codec, n_records, record_bytes):
    """One batch, from a process of its own, whose memory is not counted."""
    admin = KafkaAdminClient(bootstrap_servers=servers)
    admin.create_topics(
        {TOPIC: {"num_partitions": 1, "configs": {"max.message.bytes": "1048576"}}}, wait_for_metadata=True
    )
    admin.close()
    size = 2 * n_records * record_bytes
    producer = KafkaProducer(
        bootstrap_servers=servers, compression_type=codec, batch_size=size, linger_ms=10_000, max_request_size=size
    )
    value = b'{"ts": 1767571200000, "src": "10.0.0.1", "flags": "' + b"x" * record_bytes + b'"}'
    futures = [producer.send(TOPIC, value) for _ in range(n_records)]
    producer.flush()
    for future in futures:
        future.get(timeout=60)
    producer.close()


def read(servers, client, n_records):
    """All fates of the records, by way of the service's own source and decoder."""
    config = KafkaConfig.model_validate(
        {"bootstrap_servers": servers, "client": client, "topics": {"events": TOPIC}, "instance": "a", "group": client}
    )
    source, decoder = open_source(config, TOPIC, client), Decoder(EventsConfig.model_validate({"preset": "simulated"}))
    n_found = 0
    while n_found < n_records:
        polled = source.poll(0.1)
        if polled.assigned:
            source.seek(0, 0)
            source.resume(frozenset({0}))
        n_found += sum(decoder.decode(records).n_consumed for records in polled.records)
        n_found += sum(n for _, _, n in polled.passed_over)
    source.close()
    return n_found


def main():
    import multiprocessing

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--client", default="kafka-python", choices=["kafka-python", "confluent"])
    parser.add_argument("--codec", default="zstd", choices=["zstd", "gzip", "lz4"])
    parser.add_argument("--records", type=int, default=200)
    parser.add_argument("--bytes", type=int, default=1_000_000)
    asked = parser.parse_args()
    with local_kafka() as kafka:
        filling = multiprocessing.Process(
            target=fill, args=(kafka.bootstrap_servers, asked.codec, asked.records, asked.bytes)
        )
        filling.start()
        filling.join()
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        n_found = read(kafka.bootstrap_servers, asked.client, asked.records)
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    whole = asked.records * asked.bytes / 2**20
    print(
        f"{asked.client}, {asked.codec}: {n_found} records of {whole:.0f} MiB in all, at most {peak / 1024:.0f} MiB of memory"
    )


if __name__ == "__main__":
    main()
