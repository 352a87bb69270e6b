"""Who owns which partition of a group: sticky, cooperative, with static members and a session time-out."""

import random

from stream_iwae.adapters.memory_broker import MemoryBroker

SESSION_MS = 6_000


class Coordinator:
    """Gives the partitions of one topic to the members that are there.

    A partition that moves is first taken from its owner and given on once the owner has learnt of it; one whose
    owner's session has timed out is given on at once, whatever the owner believes.
    """

    def __init__(self, broker: MemoryBroker, group: str, n_partitions: int) -> None:
        self._broker, self._name = broker, group
        self.members: dict[str, int | None] = {}  # -> since when it is dead; None while it lives
        self.owner: dict[int, str | None] = dict.fromkeys(range(n_partitions))
        self._holder: dict[int, tuple[str, int] | None] = dict.fromkeys(range(n_partitions))  # may still believe so

    def join(self, member: str) -> None:
        """A process comes; one that comes again under its name within the session finds its partitions."""
        is_known = member in self.members
        self.members[member] = None
        if not is_known:
            self._assign()

    def die(self, member: str, now_ms: int) -> None:
        """A static member never says that it leaves; its heartbeats just end."""
        if member in self.members:
            self.members[member] = now_ms

    def expel(self, member: str) -> None:
        """Its session has timed out."""
        if self.members.pop(member, self) is self:
            return
        for partition, holder in self._holder.items():
            if holder is not None and holder[0] == member:
                self._holder[partition] = None
        self._assign()

    def rejoin(self, member: str) -> None:
        """A member polls: it lives, and if it was expelled while it was away it joins anew."""
        if self.members.get(member, 0) is not None:
            self.join(member)

    def move_one(self, rng: random.Random) -> None:
        """A planned rebalance: some partition gets another owner, or the group just begins anew."""
        partition = rng.choice(sorted(self.owner))
        self.owner[partition] = rng.choice(sorted(self.members)) if self.members else None
        self._announce()

    def settle(self, now_ms: int) -> None:
        """Expel who has been dead for a session, and give on what its owner knows to have lost."""
        for member, dead_since_ms in list(self.members.items()):
            if dead_since_ms is not None and now_ms - dead_since_ms >= SESSION_MS:
                self.expel(member)
        if any(self._awaits(partition) and self._is_free(partition) for partition in self.owner):
            self._announce()

    def _awaits(self, partition: int) -> bool:
        """Whether its owner has not been given it yet."""
        holder, owner = self._holder[partition], self.owner[partition]
        return owner is not None and (holder is None or holder[0] != owner)

    def _is_free(self, partition: int) -> bool:
        """Whether nobody else may believe to own it: the last generation that took it away was seen."""
        holder = self._holder[partition]
        if holder is None or holder[0] == self.owner[partition]:
            return True
        group = self._broker.group(self._name)
        return partition not in group.assignment.get(holder[0], ()) and group.seen.get(holder[0], -1) >= holder[1]

    def _assign(self) -> None:
        """Orphans go to who has least, then one partition at a time to who has two fewer."""
        for partition, owner in self.owner.items():
            if owner not in self.members:
                self.owner[partition] = None
        loads = {member: sum(owner == member for owner in self.owner.values()) for member in sorted(self.members)}
        for partition, owner in self.owner.items():
            if owner is None and loads:
                self.owner[partition] = min(loads, key=lambda member: (loads[member], member))
                loads[self.owner[partition]] += 1
        while loads and max(loads.values()) - min(loads.values()) > 1:
            most, least = max(loads, key=loads.__getitem__), min(loads, key=loads.__getitem__)
            partition = next(p for p, owner in self.owner.items() if owner == most)
            self.owner[partition] = least
            loads[most] -= 1
            loads[least] += 1
        self._announce()

    def _announce(self) -> None:
        """A new generation."""
        generation = self._broker.group(self._name).generation + 1
        assignment: dict[str, set[int]] = {member: set() for member in self.members}
        for partition, owner in self.owner.items():
            holder = self._holder[partition]
            if owner is not None and self._is_free(partition):
                assignment[owner].add(partition)
                self._holder[partition] = (owner, generation)
            elif holder is not None and partition in self._broker.group(self._name).assignment.get(holder[0], ()):
                self._holder[partition] = (holder[0], generation)  # this one takes it away
        self._broker.rebalance(self._name, {member: frozenset(held) for member, held in assignment.items()})
