"""Entity -> partition of the re-keyed topic: the same in every process and version."""

import zlib
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray


def partition_of(entity: str, n_partitions: int) -> int:
    """Where all events of an entity go.

    >>> partition_of("192.0.2.1", 8)
    7
    """
    return zlib.crc32(entity.encode()) % n_partitions


def partitions_of(entities: Sequence[str], n_partitions: int) -> NDArray[np.int64]:
    """Where each of N entities goes, (N,)."""
    hashes = np.fromiter((zlib.crc32(entity.encode()) for entity in entities), np.int64, len(entities))
    return hashes % n_partitions
