"""The load: sent while faults strike, so that the log is known to the record whatever happens to brokers."""

import threading
from typing import Any, Final

from confluent_kafka import Producer

from tests.outages.fleet import OutageError
from tests.outages.logs import N_PARTITIONS, Message, last_messages, window_of_messages

_WINDOW_S: Final = 0.25  # of wall time for a window of event time
_FEWEST, _MOST = 36, 240  # windows of a log
_FLUSH_S: Final = 60.0


class Load:
    """A thread that sends window after window until the faults are over."""

    def __init__(self, bootstrap_servers: str, topic: str, seed: int) -> None:
        self.sent: dict[int, list[bytes | None]] = {partition: [] for partition in range(N_PARTITIONS)}
        self.n_windows = 0
        self._topic, self._seed = topic, seed
        self._failed: list[str] = []
        self._are_faults_over = threading.Event()
        self._producer = Producer(
            {
                "bootstrap.servers": bootstrap_servers,
                "enable.idempotence": True,  # none twice, and in order
                "acks": "all",
                "linger.ms": 10,
                "message.timeout.ms": 0,  # sent until it has arrived
                "log_level": 0,
            }
        )
        self._thread = threading.Thread(target=self._run, daemon=True)

    def start(self) -> None:
        self._thread.start()

    def finish(self) -> None:
        """End the load, and close every window.

        Raises:
            OutageError: Not all of it could be sent.
        """
        self._are_faults_over.set()
        self._thread.join()
        for message in last_messages(self.n_windows):
            self._send(message)
        left = self._producer.flush(_FLUSH_S)
        if left or self._failed:
            raise OutageError(f"the load could not be sent: {left} records left, {self._failed[:3]}")

    def abort(self) -> None:
        """Stop sending."""
        self._are_faults_over.set()
        if self._thread.is_alive():
            self._thread.join()

    def _run(self) -> None:
        while self.n_windows < _FEWEST or (self.n_windows < _MOST and not self._are_faults_over.is_set()):
            for message in window_of_messages(self._seed, self.n_windows):
                self._send(message)
            self.n_windows += 1
            self._producer.poll(0)
            self._are_faults_over.wait(_WINDOW_S)

    def _send(self, message: Message) -> None:
        self.sent[message.partition].append(message.value)
        while True:
            try:
                self._producer.produce(self._topic, message.value, b"k", message.partition, on_delivery=self._note)
            except BufferError:
                self._producer.poll(0.05)
            else:
                return

    def _note(self, error: Any, _: Any) -> None:
        if error is not None:
            self._failed.append(str(error))
