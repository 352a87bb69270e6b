"""The in-memory twins with an effect before and after every call that leaves the process."""

from stream_iwae.adapters.memory import MemoryEventSource, MemoryOutputSink, MemoryStateReader
from stream_iwae.ports import Fence, OutputRecord


class Source(MemoryEventSource):
    """Polls end at the cuts of the log; the world notes what was delivered."""

    def __init__(self, world, topic, group, member, cuts) -> None:
        super().__init__(world.broker, topic, group, member)
        self._world, self._cuts = world, cuts

    def poll(self, timeout_s):
        self._world.effect("poll")
        self._world.broker.check_incarnation(self.group_token())
        self._world.coordinators[self._group].rejoin(self._member)
        polled = super().poll(timeout_s)
        for records in polled.records:
            self._world.delivered(records)
        self._world.effect("polled")
        return polled

    def _reach(self, partition, start):
        cuts = self._cuts(partition)
        if cuts is None:
            return start + self._world.rng.randrange(1, 25)
        return self._world.rng.choice([cut for cut in cuts if cut > start] or [start])

    def committed(self, partitions):
        self._world.effect("committed?")
        return super().committed(partitions)

    def beginning_offsets(self, partitions):
        self._world.effect("beginning?")
        return super().beginning_offsets(partitions)

    def end_offsets(self, partitions):
        self._world.effect("end?")
        return super().end_offsets(partitions)


class Sink(MemoryOutputSink):
    """The steps of a commit have effects of their own, in the broker."""

    def __init__(self, world, transactional_id) -> None:
        world.effect("init")
        super().__init__(world.broker, transactional_id)
        self._world = world

    def recover(self):
        self._world.effect("recover")
        super().recover()
        self._world.effect("recovered")


class StateReader(MemoryStateReader):
    def __init__(self, world, topic) -> None:
        super().__init__(world.broker, topic)
        self._world = world

    def read(self, partition):
        self._world.effect("state?")
        return super().read(partition)


class ModelTopic:
    """The models topic: what is announced and fenced goes the way of all transactions."""

    TOPIC = "models"

    def __init__(self, world, sink=None) -> None:
        self._world, self._sink = world, sink
        self._n_seen = 0

    def poll(self):
        self._world.effect("model?")
        found = self._world.announced()
        if len(found) == self._n_seen:
            return None
        self._n_seen = len(found)
        return found[-1]

    def publish(self, version, blob, announced_ms, fence: Fence | None = None):
        records = [OutputRecord(self.TOPIC, b"current", blob, 0)]
        if fence is None:
            self._sink.commit(records, {}, "", None)
        else:
            self._sink.commit(records, fence.offsets, fence.topic, fence.group)

    def versions(self):
        return [announced.version for announced in self._world.announced()]

    def load(self, version):
        return next(found.blob for found in reversed(self._world.announced()) if found.version == version)

    def close(self):
        pass


class Tally:
    """Counters as plain numbers, kept by the world: they survive the process, as a scraped metric does."""

    def __init__(self, counts) -> None:
        self._counts = counts

    def count(self, name, amount=1, **labels):
        self._counts[name, *labels.values()] += amount

    def gauge(self, name, value, **labels):
        pass

    def forget(self, name, **labels):
        pass

    def observe(self, name, value, **labels):
        pass

    def info(self, name, **labels):
        pass

    def status(self, section, values):
        pass

    def progress(self, component, now_s):
        pass


class Log:
    """Lines go to the trace."""

    def __init__(self, world) -> None:
        self._world = world

    def info(self, event, **fields):
        self._world.tell(event, fields)

    warning = error = info
