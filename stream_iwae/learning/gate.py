"""Which rows may be learnt, and how many of one entity."""

import numpy as np
from numpy.typing import NDArray

from stream_iwae.learning.rows import Rows, Salt, mix


def learnable(rows: Rows, gate_p: float) -> NDArray[np.bool_]:
    """Whether each row may be learnt, (N,).

    Before the first model nothing has judged the rows and all may be; later a row needs a p-value
    above `gate_p` (unscorable rows have none), no open incident, and one finite value.
    """
    with np.errstate(invalid="ignore"):
        is_ordinary = ~rows.was_judged | (rows.p_values > gate_p)
    return is_ordinary & ~rows.in_incident & np.isfinite(rows.values).any(axis=1)


def cap_entities(rows: Rows, max_share: float) -> Rows:
    """Leave of each entity at most `max_share` of the rows, those with the smallest hashes.

    Among few entities each may supply twice its fair share instead, or little would be left.
    """
    entities, codes = np.unique(rows.entity_ids, return_inverse=True)
    if not len(rows):
        return rows
    cap = int(np.ceil(len(rows) * min(1.0, max(max_share, 2 / len(entities)))))
    order = np.lexsort((mix(rows.row_ids, Salt.DRAW), codes))
    codes = codes[order]
    rank = np.arange(len(rows)) - np.searchsorted(codes, codes)
    return rows.take(np.sort(order[rank < cap]))
