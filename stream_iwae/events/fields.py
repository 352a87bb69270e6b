"""Canonical values: one text for one address or protocol, however an emitter writes it."""

import ipaddress
from typing import Final

import polars as pl

_PROTOCOLS: Final = {
    "0": "hopopt", "1": "icmp", "2": "igmp", "4": "ipip", "6": "tcp", "17": "udp", "41": "ipv6", "47": "gre",
    "50": "esp", "51": "ah", "58": "icmp6", "89": "ospf", "103": "pim", "112": "vrrp", "132": "sctp",
    "ipv6-icmp": "icmp6", "icmpv6": "icmp6", "icmp-ipv6": "icmp6",
}  # fmt: skip


def canonical_address(text: str) -> str:
    """IPv6 compressed and lower case, IPv4-mapped IPv6 as IPv4; anything else as it is.

    >>> canonical_address("::FFFF:192.0.2.1")
    '192.0.2.1'
    """
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return text
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None:
        return str(address.ipv4_mapped)
    return str(address)


def without_port(text: str) -> str:
    """The address of `ip:port`, `[ip]:port` or `ip`.

    >>> without_port("203.0.113.7:57400")
    '203.0.113.7'
    """
    if text.startswith("["):
        return text[1:].partition("]")[0]
    return text.rpartition(":")[0] if text.count(":") == 1 else text


def canonical_protocol(text: str) -> str:
    """One lower-case name for a protocol's name or number.

    >>> canonical_protocol("6"), canonical_protocol("UDP")
    ('tcp', 'udp')
    """
    lowered = text.lower()
    return _PROTOCOLS.get(lowered, lowered)


def canonical_column(column: pl.Series, kind: str, strip_port: bool) -> pl.Series:
    """Canonical values of a String column, computed once for each distinct value that may need it."""
    if kind == "address" and not column.str.contains(":", literal=True).any():
        return column
    distinct = column.unique().drop_nulls()
    if kind == "protocol":
        canonical = [canonical_protocol(text) for text in distinct]
    elif kind == "address":
        canonical = [canonical_address(without_port(text) if strip_port else text) for text in distinct]
    else:
        return column
    if canonical == distinct.to_list():
        return column
    return column.replace_strict(distinct, pl.Series(canonical, dtype=pl.String), default=None, return_dtype=pl.String)
