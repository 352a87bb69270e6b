"""Works around a rebalance storm of kafka-python 3.0.12.

Joining a group goes on in the background when a poll ends before it does. But where it also finishes between
two polls, the next poll throws its result away and joins anew, which sends every other member back to join as
well: members that spend most of their time between polls may rebalance for ever. Here the result is kept and
used. It rests on private names of the client, whose version is pinned; the contract tests notice a change.
"""

from typing import Any

from kafka import KafkaConsumer
from kafka.coordinator.base import MemberState


def keep_finished_joins(consumer: KafkaConsumer) -> None:
    """Let `consumer` use the result of a join that finished while nobody waited for it."""
    coordinator: Any = consumer._coordinator  # noqa: SLF001  # there is no public way
    join = coordinator._do_join_and_sync_async  # noqa: SLF001
    finished: list[bytes] = []

    async def join_or_take() -> bytes:
        # A result that was used leaves the member STABLE, one of a lost membership UNJOINED.
        is_unused = bool(finished) and coordinator.state is MemberState.REBALANCING
        if not is_unused:
            finished.clear()
            finished.append(await join())
        return finished[0]

    coordinator._do_join_and_sync_async = join_or_take  # noqa: SLF001
