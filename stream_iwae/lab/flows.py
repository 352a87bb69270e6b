"""Flows as columns: a conversation becomes the two flows that NetFlow reports, and flows become JSON."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields
from typing import Final, Self

import msgspec
import numpy as np
from numpy.typing import NDArray

ICMP, TCP, UDP = 0, 1, 2
PROTOCOLS: Final = ("icmp", "tcp", "udp")

# TCP flags of a whole flow, as nfdump prints them: urgent, ack, push, reset, syn, fin.
NO_FLAGS, COMPLETE, SYN, SYN_ACK, RESET, SYN_RESET, ONGOING = range(7)
FLAGS: Final = ("......", ".AP.SF", "....S.", ".A..S.", ".A.R..", "...RS.", ".AP...")

HEADER_BYTES: Final = np.array([28, 52, 28])  # by protocol: IP, and TCP with timestamps, or UDP or ICMP
PAYLOAD_BYTES: Final = np.array([1472, 1448, 1232])  # by protocol: most that a packet carries; QUIC stays below 1280

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]


class Flow(msgspec.Struct, frozen=True):
    """One event of the preset `simulated`."""

    ts: int  # end of the flow, milliseconds since 1970
    src: str
    dst: str
    src_port: int
    dst_port: int
    proto: str
    bytes: int
    packets: int
    duration_s: float
    flags: str
    exporter: str


@dataclass(frozen=True, slots=True)
class Flows:
    """N flows. Addresses and exporters are places in the tables of the `Network`."""

    ts: Ints  # (N,), as in `Flow`
    src: Ints  # (N,)
    dst: Ints  # (N,)
    src_port: Ints  # (N,)
    dst_port: Ints  # (N,)
    proto: Ints  # (N,), place in PROTOCOLS
    n_bytes: Ints  # (N,)
    packets: Ints  # (N,)
    duration_ms: Ints  # (N,)
    flags: Ints  # (N,), place in FLAGS

    def __len__(self) -> int:
        return len(self.ts)

    def take(self, rows: NDArray[np.intp] | NDArray[np.bool_]) -> Self:
        """The rows at these places, or where a mask holds."""
        return type(self)(*(getattr(self, column.name)[rows] for column in fields(self)))

    @classmethod
    def concat(cls, parts: Sequence["Flows"]) -> "Flows":
        """All rows of all parts."""
        return cls(*(np.concatenate([getattr(part, column.name) for part in parts]) for column in fields(cls)))

    @classmethod
    def none(cls) -> Self:
        """No flow."""
        return cls(*(np.empty(0, np.int64) for _ in fields(cls)))


@dataclass(frozen=True, slots=True)
class Conversations:
    """N exchanges between who asks (the client) and who answers; payloads without headers."""

    ts: Ints  # (N,)
    client: Ints  # (N,)
    server: Ints  # (N,)
    client_port: Ints  # (N,)
    server_port: Ints  # (N,)
    proto: Ints  # (N,)
    up: Floats  # (N,), payload bytes of the client
    down: Floats  # (N,), payload bytes of the server
    duration_ms: Ints  # (N,)
    is_answered: NDArray[np.bool_]  # (N,); without an answer the flow is the client's first packets
    is_ongoing: NDArray[np.bool_]  # (N,); part of a longer flow, cut off by the exporter's active timeout


def both_directions(talk: Conversations, retries: Ints) -> Flows:
    """The request flows, and a reply flow for each that was answered.

    Who downloads sends an acknowledgement for every second packet, so both directions of TCP grow together.

    Args:
        talk: N conversations.
        retries: (N,), how often the first packet was sent again where nobody answered.
    """
    is_tcp = talk.proto == TCP
    up_packets, down_packets = _packets(talk.up, talk.proto), _packets(talk.down, talk.proto)
    handshake = np.where(is_tcp & ~talk.is_ongoing, 4, 0)
    up_sent = np.where(is_tcp, handshake + up_packets + down_packets // 2, np.maximum(up_packets, 1))
    down_sent = np.where(is_tcp, np.maximum(handshake - 1, 0) + down_packets + up_packets // 2, down_packets)
    lonely = ~talk.is_answered
    flags = np.where(is_tcp, np.where(talk.is_ongoing, ONGOING, COMPLETE), NO_FLAGS)
    header = HEADER_BYTES[talk.proto]
    up_sent = np.maximum(np.where(lonely & is_tcp, 1 + retries, up_sent), 1)
    up_bytes = np.where(lonely & is_tcp, 60 * up_sent, talk.up.astype(np.int64) + header * up_sent)
    requests = Flows(
        *(talk.ts, talk.client, talk.server, talk.client_port, talk.server_port, talk.proto),
        *(up_bytes, up_sent, talk.duration_ms, np.where(lonely & is_tcp, SYN, flags)),
    )
    down_sent = np.maximum(down_sent, 1)
    replies = Flows(
        *(talk.ts, talk.server, talk.client, talk.server_port, talk.client_port, talk.proto),
        *(talk.down.astype(np.int64) + header * down_sent, down_sent, talk.duration_ms, flags),
    )
    return Flows.concat([requests, replies.take(talk.is_answered)])


def _packets(payload: Floats, proto: Ints) -> Ints:
    packets: Ints = np.ceil(payload / PAYLOAD_BYTES[proto]).astype(np.int64)
    return packets


def to_events(flows: Flows, addresses: NDArray[np.object_], exporters: NDArray[np.object_]) -> list[Flow]:
    """The rows as events.

    Args:
        flows: N rows.
        addresses: Text of each address.
        exporters: (N,), name of the exporter of each row.
    """
    columns: Iterator[list[object]] = iter(
        (
            flows.ts.tolist(),
            addresses[flows.src].tolist(),
            addresses[flows.dst].tolist(),
            flows.src_port.tolist(),
            flows.dst_port.tolist(),
            np.array(PROTOCOLS, object)[flows.proto].tolist(),
            flows.n_bytes.tolist(),
            flows.packets.tolist(),
            (flows.duration_ms / 1000).tolist(),
            np.array(FLAGS, object)[flows.flags].tolist(),
            exporters.tolist(),
        )
    )
    return list(map(Flow, *columns))
