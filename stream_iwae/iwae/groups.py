"""Rows that the network finds odd -> those that form a group of their own, apart from all others.

A group of attacks alike in a warm-up would make itself ordinary as a reference. Rare ordinary rows must stay one: they
are few of a kind, or lie at the edge of the common ones.
"""

from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

ODD_SHARE: Final = 0.1  # of the rows: those that the network likes least
LEAST_SHARE: Final = 0.02  # of the rows: a smaller group is a rare kind of ordinary
_APART: Final = 0.5  # the group is this much closer to itself than to the ordinary rows
_RANK: Final = 3  # as a distance is to the third nearest
_COMPARED: Final = 1024  # ordinary rows, at most
_AT_ONCE: Final = 1024  # odd rows


def in_group(points: Tensor, bounds: NDArray[np.float64], rng: np.random.Generator) -> NDArray[np.bool_]:
    """Whether each of N points belongs to a group that the network finds odd, (N,).

    An odd row does if a fiftieth of all rows are odd rows at no more than half the distance that its third nearest
    ordinary row has.

    Args:
        points: Coordinates, (N, E).
        bounds: Minus the estimated log p(x), nats, (N,); NaN where there is none.
        rng: Chooses the ordinary rows to compare with.
    """
    found = np.zeros(len(points), np.bool_)
    if not np.isfinite(bounds).any():
        return found
    is_odd = bounds > np.nanquantile(bounds, 1 - ODD_SHARE)
    odd, ordinary = np.flatnonzero(is_odd), np.flatnonzero(np.isfinite(bounds) & ~is_odd)
    rank = max(_RANK, int(LEAST_SHARE * len(points))) + 1  # a row is its own nearest
    if len(odd) < rank or len(ordinary) < _RANK:
        return found
    usual = points[torch.from_numpy(rng.permutation(ordinary)[:_COMPARED])]
    others = points[torch.from_numpy(odd)]
    for start in range(0, len(odd), _AT_ONCE):
        some = others[start : start + _AT_ONCE]
        found[odd[start : start + _AT_ONCE]] = (
            _distance(some, others, rank) < _APART * _distance(some, usual, _RANK)
        ).numpy()
    return found


def _distance(points: Tensor, others: Tensor, rank: int) -> Tensor:
    """From each of N points to the one of that rank among the others, (N,)."""
    return torch.cdist(points, others).kthvalue(rank, dim=1).values
