"""Flows as the tools of attackers make them: packet for packet the same, unlike those of people."""

import numpy as np

from stream_iwae.lab.flows import (
    RESET,
    SYN,
    SYN_ACK,
    SYN_RESET,
    TCP,
    Conversations,
    Floats,
    Flows,
    Ints,
    both_directions,
)

CLOSED, FILTERED, OPEN = range(3)  # what a probe finds


def everywhere(value: int, ts: Ints) -> Ints:
    """The same value for each of N times."""
    return np.full(len(ts), value, np.int64)


def probes(
    ts: Ints, src: Ints, dst: Ints, src_port: Ints, dst_port: Ints, state: Ints, rng: np.random.Generator
) -> Flows:
    """One SYN per row and what comes back: a reset, nothing, or a SYN-ACK that the scanner resets.

    Args:
        ts: (N,), as are the next four.
        src: The scanner.
        dst: Who is asked.
        src_port: Of the scanner.
        dst_port: Asked for.
        state: (N,), CLOSED, FILTERED or OPEN. Up to two repeats where a filter swallows the SYN.
        rng: For repeats and round trips.
    """
    n = len(ts)
    repeats = rng.integers(0, 3, n)
    sent = np.where(state == FILTERED, 1 + repeats, np.where(state == OPEN, 2, 1))
    took_ms = np.where(state == FILTERED, 1 + 1_000 * repeats, rng.integers(1, 30, n))
    size = np.where(state == OPEN, 42, 44)  # bytes a packet: a SYN with one option, a reset has none
    asked = _segments((ts, src, dst, src_port, dst_port), size, sent, took_ms, np.where(state == OPEN, SYN_RESET, SYN))
    flags = np.where(state == OPEN, SYN_ACK, RESET)
    answer_size = np.where(state == OPEN, 44, 40)
    answers = _segments((ts, dst, src, dst_port, src_port), answer_size, np.ones(n, np.int64), took_ms, flags)
    return Flows.concat([asked, answers.take(state != FILTERED)])


def half_open(ts: Ints, attacker: int, target: int, port: int, rng: np.random.Generator) -> Flows:
    """One SYN a row, each from another port; half of them are answered by one to three SYN-ACKs."""
    n = len(ts)
    ports = rng.integers(1_024, 65_536, n)
    src, dst, dst_port, one = (
        everywhere(attacker, ts),
        everywhere(target, ts),
        everywhere(port, ts),
        np.ones(n, np.int64),
    )
    syn = _segments((ts, src, dst, ports, dst_port), 40 * one, one, one, SYN * one)
    sent = rng.integers(1, 4, n)
    answers = _segments((ts, dst, src, dst_port, ports), 44 * one, sent, 1 + 1_000 * (sent - 1), SYN_ACK * one)
    return Flows.concat([syn, answers.take(rng.random(n) < 0.5)])


def exchange(
    ts: Ints,
    client: int,
    server: int,
    port: int,
    proto: int,
    up: Floats,
    down: Floats,
    duration_ms: Floats,
    rng: np.random.Generator,
) -> Flows:
    """Whole conversations of one client with one server, all answered; payloads in bytes, all (N,)."""
    n = len(ts)
    talk = Conversations(
        ts=ts,
        client=everywhere(client, ts),
        server=everywhere(server, ts),
        client_port=rng.integers(33_000, 60_000, n),
        server_port=everywhere(port, ts),
        proto=everywhere(proto, ts),
        up=up,
        down=down,
        duration_ms=duration_ms.astype(np.int64).clip(1),
        is_answered=np.ones(n, np.bool_),
        is_ongoing=np.zeros(n, np.bool_),
    )
    return both_directions(talk, np.zeros(n, np.int64))


def _segments(ends: tuple[Ints, Ints, Ints, Ints, Ints], size: Ints, sent: Ints, took_ms: Ints, flags: Ints) -> Flows:
    """TCP packets without payload, `sent` of them a flow."""
    return Flows(*ends, np.full(len(sent), TCP), size * sent, sent, took_ms, flags)
