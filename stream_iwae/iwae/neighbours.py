"""Distance to the third nearest of some ordinary rows: it sees gaps inside the normal, which a density smooths over.

The third, not the first: one odd row among the references, or two alike, make no other row ordinary.
"""

from dataclasses import dataclass
from typing import Final, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from stream_iwae.iwae.likelihoods import MIN_OUTPUTS

N_REFERENCES: Final = 1024
RANK: Final = 3
HALF: Final = 0.5


@dataclass(frozen=True, slots=True)
class Neighbours:
    """R reference points of E coordinates."""

    references: Tensor  # (R, E) float32

    def __post_init__(self) -> None:
        if self.references.ndim != 2 or len(self.references) < MIN_OUTPUTS:
            raise ValueError(f"need at least {MIN_OUTPUTS} reference points, got {tuple(self.references.shape)}")
        if not bool(torch.isfinite(self.references).all()):
            raise ValueError("a reference point is not finite")

    @classmethod
    def fit(cls, points: Tensor, rng: np.random.Generator) -> Self:
        """Keep a choice of (N, E) points, at the precision of an artefact."""
        chosen = np.sort(rng.permutation(len(points))[:N_REFERENCES])
        return cls(points[torch.from_numpy(chosen)].to(torch.float16).float())

    def score(self, points: Tensor) -> Tensor:
        """(N, E) -> (N,), Euclidean, float64."""
        squares = self._squares(points).topk(RANK, dim=1, largest=False).values[:, -1]  # (N,)
        return (squares + points.square().sum(dim=1)).clamp_min(0.0).sqrt().double()

    def differences(self, points: Tensor) -> Tensor:
        """Squared difference in each coordinate from the nearest reference, (N, E)."""
        return (points - self.references[self._squares(points).argmin(dim=1)]).square()

    def to(self, device: torch.device) -> "Neighbours":
        """The same points on a device."""
        return Neighbours(self.references.to(device))

    def _squares(self, points: Tensor) -> Tensor:
        """Squared distances (N, R), less what is the same for all references."""
        return torch.addmm(self.references.square().sum(dim=1), points, self.references.T, alpha=-2.0)


def one_hot(classes: Tensor, count: int) -> Tensor:
    """Halves of one-hot rows, (N, count): two that differ are .7 apart, numbers 2 at most; class 0 has no 1."""
    known = torch.arange(count, device=classes.device)
    return ((classes.unsqueeze(-1) == known) & (known > 0)) * HALF


def sum_by_owner(squares: NDArray[np.float64], owners: NDArray[np.int64], n: int) -> NDArray[np.float64]:
    """Add (N, E) squares up to the (N, n) features that own the coordinates."""
    summed = np.zeros((len(squares), n))
    np.add.at(summed.T, owners, squares.T)
    return summed
