"""Works around a transaction of kafka-python 3.0.12 that waits for ever.

Where a coordinator cannot be reached, the producer's thread looks for another, but forgets the request that it had in
hand: whoever waits for its answer does so for good, although all brokers are there again. It forgets none where the
client says that a broker is not ready instead of raising an error. It rests on private names of the client, whose
version is pinned; tests/adapters/test_kafka_sink.py notices a change.
"""

from typing import Any

from kafka import KafkaProducer
from kafka.errors import KafkaError


def keep_requests(producer: KafkaProducer) -> None:
    """Let `producer` try a request of a transaction again when its coordinator cannot be reached."""
    client: Any = producer._sender._client  # noqa: SLF001  # there is no public way
    await_ready = client.await_ready

    def is_ready(*arguments: Any, **settings: Any) -> bool:
        try:
            return bool(await_ready(*arguments, **settings))
        except KafkaError:
            return False

    client.await_ready = is_ready
