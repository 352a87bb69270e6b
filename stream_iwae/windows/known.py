"""Who keeps a name of its own where a window has more entities than `max_entities`: newcomers share what is left.

A flood of forged addresses may come first in a window; whoever was there in the windows before must not be folded
into `other` behind it. What is known must not depend on where a poll or a restart cuts the log: it is what the waves
of windows had shown that were closed just before the row, and is read back as such from what later ones added.
"""

import itertools
from collections.abc import Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from stream_iwae.windows.presence_table import PresenceTable

_BITS: Final = 32  # newest windows that count; as many again may have been added since, of the 64 that are remembered
_RECENT: Final = np.uint64(2**_BITS - 1)
_ONE: Final = np.uint64(1)


def are_known(
    table: PresenceTable, entities: Sequence[str], n_since: int, n_until: int, absent_windows: int
) -> NDArray[np.bool_]:
    """Whether each of N entities was there lately, (N,).

    Args:
        table: Who was there in which windows.
        entities: Who is asked about.
        n_since: Waves that the table has seen beyond those that count; above 0 in a replay.
        n_until: Waves until the window closes; only one that is certain to be remembered until then is known, so that
            a replay finds it too.
        absent_windows: For how many windows anybody is remembered at least.
    """
    rows = table.rows(entities)
    if n_since > _BITS or n_until >= _BITS or not table.n_entities:
        return np.zeros(len(rows), dtype=np.bool_)
    bits = np.where(rows >= 0, table.bits[rows] >> np.uint64(max(0, n_since)), np.uint64(0)) & _RECENT
    away = np.bitwise_count((bits & (~bits + _ONE)) - _ONE).astype(np.int64)
    there = np.bitwise_count(bits).astype(np.int64)
    known: NDArray[np.bool_] = (bits != 0) & (away + n_until <= np.maximum(there, absent_windows))
    return known


def cuts_at_waves(waves: NDArray[np.int64]) -> list[tuple[int, int]]:
    """Parts [start, stop) of N rows with the same last closed wave each, in order."""
    edges = [0, *(np.flatnonzero(np.diff(waves)) + 1).tolist(), len(waves)]
    return list(itertools.pairwise(edges))
