"""The commits that wait, out as transactions until each is known to have happened; see docs/adr/0002.

What a transaction publishes is kept until then: an aborted one is sent again, an ambiguous one is settled first
and then compared to the letter.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Final, Generic, Protocol, TypeVar

from stream_iwae.errors import AmbiguousCommitError, DeliveryError, FencedError, StaleGroupError
from stream_iwae.ports import Clock, CommittedOffset, EventSource, OutputRecord, OutputSink, Telemetry

MAX_DELIVERY_ATTEMPTS: Final = 3
FENCED_TWICE_WITHIN_S: Final = 60.0
STALE_POLL_S: Final = 0.2  # for a rebalance to go on


class Log(Protocol):
    """Events with fields."""

    def info(self, event: str, **fields: object) -> object:
        """Say what happened."""

    def warning(self, event: str, **fields: object) -> object:
        """Say what an operator may want to change."""

    def error(self, event: str, **fields: object) -> object:
        """Say what went wrong."""


class Deliverable(Protocol):
    """One partition's share of a transaction."""

    @property
    def offset(self) -> CommittedOffset:
        """What is committed with it."""


C = TypeVar("C", bound=Deliverable)


class Delivery(Generic[C]):
    """Sends what waits, all or nothing."""

    def __init__(
        self,
        source: EventSource,
        sink: OutputSink,
        telemetry: Telemetry,
        clock: Clock,
        log: Log,
        compose: Callable[[Mapping[int, C]], Sequence[OutputRecord]],
        poll: Callable[[float], None],
        finish: Callable[[Mapping[int, C]], None],
    ) -> None:
        """Make records of commits by `compose`.

        `poll`, which takes a time-out in seconds, is called through a rebalance and takes what is no longer ours out of
        `waiting`; `finish` hears what is committed now, and only now.
        """
        self._source, self._sink, self._telemetry = source, sink, telemetry
        self._clock, self._log = clock, log
        self._compose, self._poll, self._finish = compose, poll, finish
        self.waiting: dict[int, C] = {}  # prepared, not yet known to be committed
        self._last_fenced_s: float | None = None

    def deliver(self) -> None:
        """Publish and commit everything that waits, all or nothing.

        Raises:
            DeliveryError: It failed three times; nothing was committed.
            FencedError: Another process has taken our identity twice within a minute.
        """
        attempts = 0
        while self.waiting:
            try:
                self._send()
            except StaleGroupError:
                # Poll through the rebalance: what is no longer ours is dropped, the rest is sent again.
                self._telemetry.count("consumer_commits", outcome="stale")
                self._poll(STALE_POLL_S)
            except AmbiguousCommitError as error:
                self._telemetry.count("consumer_commits", outcome="ambiguous")
                self._log.warning("commit is in doubt, settling it", reason=str(error))
                self._sink.recover()
                self._drop_committed()
            except FencedError:
                self._telemetry.count("consumer_commits", outcome="fenced")
                self._recover_once_a_minute()
                self._drop_committed()
            except DeliveryError as error:
                attempts += 1
                self._telemetry.count("consumer_commits", outcome="failed")
                self._telemetry.count("alerts_publish_failures")
                if attempts == MAX_DELIVERY_ATTEMPTS:
                    raise
                self._log.warning("delivery failed, sending again", attempt=attempts, reason=str(error))
            else:
                done, self.waiting = self.waiting, {}
                self._conclude(done)

    def _send(self) -> None:
        offsets = {partition: commit.offset for partition, commit in self.waiting.items()}
        self._sink.commit(self._compose(self.waiting), offsets, self._source.topic, self._source.group_token())

    def _drop_committed(self) -> None:
        """After an ambiguous commit: what is still ours, and the group holds to the letter, is done.

        Another owner may have come to the same commit meanwhile; its metadata names who made it.
        """
        self._poll(0.0)
        committed = self._source.committed(frozenset(self.waiting))
        self._conclude({p: self.waiting.pop(p) for p, found in committed.items() if found == self.waiting[p].offset})

    def _recover_once_a_minute(self) -> None:
        now_s = self._clock.monotonic_s()
        if self._last_fenced_s is not None and now_s - self._last_fenced_s < FENCED_TWICE_WITHIN_S:
            raise FencedError("fenced twice within a minute: is another replica running with the same kafka.instance?")
        self._last_fenced_s = now_s
        self._sink.recover()

    def _conclude(self, done: Mapping[int, C]) -> None:
        if done:
            self._telemetry.progress("commit", self._clock.monotonic_s())
            self._telemetry.count("consumer_commits", outcome="committed")
            self._finish(done)


def tell_passed_over(batch: tuple[int, int, int], topic: str, telemetry: Telemetry, log: Log) -> None:
    """Count the records of a batch that was too large to unpack, and say where they are: they have no other fate."""
    partition, offset, n_records = batch
    telemetry.count("consumer_oversized_records", n_records, topic=topic)
    log.error(
        "a compressed batch unpacks to more than kafka.max_unpacked and is passed over; restrict who may write here",
        topic=topic,
        partition=partition,
        offset=offset,
        records=n_records,
    )
