"""EventSource -> EventSource that notices a partition which stands still although there is more to read.

Clients have had, and will have, mistakes after which a partition is never fetched again: lag grows, and nothing
says why. First the partition is sought to where it stands, which makes a client fetch anew; if that is not
enough, the consumer is replaced, which its caller sees as all partitions lost and then assigned.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from stream_iwae.delivery import Log
from stream_iwae.ports import Clock, CommittedOffset, EventSource, GroupToken, Polled, Telemetry

STALLED_AFTER_S: Final = 60.0  # longer than a fetch takes that waits for a broker to come back
_STALLED_AFTER_POLLS: Final = 100  # in which any other partition with a backlog has had its turn


@dataclass(slots=True)
class _Watch:
    """How long a partition has stood still."""

    position: int
    since_s: float
    n_polls: int = 0
    is_nudged: bool = False


class StallWatchdog:
    """Passes everything on to a source that it can replace."""

    def __init__(self, open_source: Callable[[], EventSource], clock: Clock, telemetry: Telemetry, log: Log) -> None:
        self._open, self._clock, self._telemetry, self._log = open_source, clock, telemetry, log
        self._source = open_source()
        self.topic = self._source.topic
        self._owned: set[int] = set()
        self._paused: set[int] = set()
        self._watches: dict[int, _Watch] = {}

    def poll(self, timeout_s: float) -> Polled:
        """As the source's; all partitions are lost where it had to be replaced."""
        polled = self._source.poll(timeout_s)
        self._owned = (self._owned - polled.revoked - polled.lost) | polled.assigned
        self._paused = (self._paused & self._owned) | polled.assigned
        stalled = self._stalled()
        if not stalled:
            return polled
        self._telemetry.count("consumer_stalls", len(stalled), topic=self.topic)
        if any(self._watches[partition].is_nudged for partition in stalled):
            return self._replace(polled, stalled)
        self._log.warning("partitions stand still, fetching them anew", partitions=sorted(stalled))
        for partition in stalled:
            position = self._source.position(partition)
            self._source.seek(partition, position)
            self._watches[partition] = _Watch(position, self._clock.monotonic_s(), is_nudged=True)
        return polled

    def _stalled(self) -> set[int]:
        """Partitions that could be read further, and have not been for long."""
        now_s = self._clock.monotonic_s()
        suspects = set()
        for partition in self._owned:
            watch = self._watches.get(partition)
            position = None if partition in self._paused else self._source.position(partition)
            if position is None:
                self._watches.pop(partition, None)
            elif watch is None or watch.position != position:
                self._watches[partition] = _Watch(position, now_s)
            else:
                watch.n_polls += 1
                if now_s - watch.since_s >= STALLED_AFTER_S and watch.n_polls >= _STALLED_AFTER_POLLS:
                    suspects.add(partition)
        if not suspects:
            return suspects
        # Not the high water mark: behind an open transaction there is nothing to read, and no fetch may have told it.
        ends = self._source.end_offsets(frozenset(suspects))
        stalled = {partition for partition in suspects if ends[partition] > self._watches[partition].position}
        for partition in suspects - stalled:  # quiet; asked about again when as much time has passed
            self._watches[partition] = _Watch(self._watches[partition].position, now_s)
        return stalled

    def _replace(self, polled: Polled, stalled: set[int]) -> Polled:
        self._log.error("partitions stand still all the same, making a new consumer", partitions=sorted(stalled))
        self._source.close()
        self._source = self._open()
        lost = frozenset(self._owned) | polled.revoked | polled.lost
        self._owned, self._paused, self._watches = set(), set(), {}
        return Polled(lost=lost, gaps=polled.gaps)  # the records that were polled are read again

    def n_partitions(self) -> int:
        """As the source's."""
        return self._source.n_partitions()

    def committed(self, partitions: frozenset[int]) -> dict[int, CommittedOffset | None]:
        """As the source's."""
        return self._source.committed(partitions)

    def beginning_offsets(self, partitions: frozenset[int]) -> dict[int, int]:
        """As the source's."""
        return self._source.beginning_offsets(partitions)

    def end_offsets(self, partitions: frozenset[int]) -> dict[int, int]:
        """As the source's."""
        return self._source.end_offsets(partitions)

    def offsets_for_time(self, partitions: frozenset[int], timestamp_ms: int) -> dict[int, int]:
        """As the source's."""
        return self._source.offsets_for_time(partitions, timestamp_ms)

    def seek(self, partition: int, offset: int) -> None:
        """As the source's."""
        self._source.seek(partition, offset)

    def position(self, partition: int) -> int:
        """As the source's."""
        return self._source.position(partition)

    def high_water(self, partition: int) -> int | None:
        """As the source's."""
        return self._source.high_water(partition)

    def pause(self, partitions: frozenset[int]) -> None:
        """As the source's."""
        self._paused |= partitions
        self._source.pause(partitions)

    def resume(self, partitions: frozenset[int]) -> None:
        """As the source's."""
        self._paused -= partitions
        self._source.resume(partitions)

    def group_token(self) -> GroupToken:
        """As the source's."""
        return self._source.group_token()

    def close(self) -> None:
        """As the source's."""
        self._source.close()
