"""Ids of training rows: the same for the same window in every process."""

import hashlib
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray


def hash_entities(entities: Sequence[str]) -> NDArray[np.uint64]:
    """64 bits of each entity key, the same in every process."""
    digests = b"".join(hashlib.blake2b(entity.encode(), digest_size=8).digest() for entity in entities)
    return np.frombuffer(digests, dtype="<u8").astype(np.uint64)


def hash_rows(
    entity_ids: NDArray[np.uint64], window_end_ms: NDArray[np.int64], offsets: NDArray[np.int64], partition: int
) -> NDArray[np.uint64]:
    """One 64-bit id a row: the SplitMix64 finaliser over entity, window end and offset.

    Source: Steele, Lea, Flood 2014, Fast splittable pseudorandom number generators, figure 17.
    """
    mixed = entity_ids.copy()
    for part in (window_end_ms.astype(np.uint64), offsets.astype(np.uint64), np.uint64(partition)):
        mixed = (mixed ^ part) + np.uint64(0x9E3779B97F4A7C15)
        mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        mixed ^= mixed >> np.uint64(31)
    return mixed
