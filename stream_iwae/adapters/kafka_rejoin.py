"""Works around a rebalance storm of kafka-python 3.0.12, and tells which generation we know of and when we are fenced.

Joining a group goes on in the background when a poll ends before it does. But where it also finishes between
two polls, the next poll throws its result away and joins anew, which sends every other member back to join as
well: members that spend most of their time between polls may rebalance for ever. Here the result is kept and
used. It rests on private names of the client, whose version is pinned; the contract tests notice a change.
"""

from collections.abc import Callable
from typing import Any

from kafka import KafkaConsumer
from kafka.coordinator.base import MemberState
from kafka.errors import FencedInstanceIdError


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


def tell_settled(consumer: KafkaConsumer, settled: Callable[[Any, Any], None]) -> None:
    """Call `settled` with the group's metadata and the partitions that are ours now, after each join.

    By then the listener has heard of all that the join changed.

    Joins go on in the background, so the metadata at any other time may be of a generation whose changes nobody has
    been told yet: with it the broker would accept what a member that slept has done for partitions it has lost.
    """
    coordinator: Any = consumer._coordinator  # noqa: SLF001
    complete = coordinator._on_join_complete_async  # noqa: SLF001

    async def complete_and_tell(*arguments: Any) -> None:
        await complete(*arguments)
        settled(coordinator.group_metadata(), consumer.assignment())

    coordinator._on_join_complete_async = complete_and_tell  # noqa: SLF001


def tell_fenced(consumer: KafkaConsumer, fenced: Callable[[Exception], None]) -> None:
    """Call `fenced` when a heartbeat learns that another process is this member now.

    The client writes a line and sends no more heartbeats, but goes on fetching as if nothing had happened.
    """
    coordinator: Any = consumer._coordinator  # noqa: SLF001
    send = coordinator._send_heartbeat_request  # noqa: SLF001

    async def send_and_tell() -> Any:
        try:
            return await send()
        except FencedInstanceIdError as error:
            fenced(error)
            raise

    coordinator._send_heartbeat_request = send_and_tell  # noqa: SLF001
