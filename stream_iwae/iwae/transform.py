"""Raw feature values -> bounded inputs, masks and class indices; fitted once, frozen with the model.

N rows, D features, C of them continuous, G categories. Every scale has a floor: a constant column has no
variance, and a deviation from it saturates. Two bounded scales of each value, tanh(z/2) and tanh(z/8): the
first sees ordinary variation, the second how far out an outlier lies.
"""

from dataclasses import dataclass
from typing import Any, Final, NamedTuple, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

SCALE_FLOOR: Final = 0.05  # of a logarithm, and of any constant column
RANGE_FLOOR: Final = 0.05  # of a gauge's or ratio's range, whatever its unit
MAX_CLASSES: Final = 255  # the most frequent values of a category; the others count as unseen
NEAR, FAR = 2.0, 8.0  # divisors of the two bounded scales
_CLIP: Final = 0.9999  # a location at or past the bound still has an inverse
_NEAR_LIMIT: Final = 0.95  # beyond it the near scale is saturated and the far one is inverted
_LIMIT: Final = 1e100  # values beyond it count as it: their squares would overflow
_LOG_LIMIT: Final = 230.0  # log1p of _LIMIT, nearly
_ROUNDING: Final = 1e-9  # a column that varies by less than this share of its size is constant
_LOGGED: Final = ("magnitude", "count")
_KINDS: Final = frozenset({"magnitude", "ratio", "count", "gauge", "category", "cyclic"})


class Encoded(NamedTuple):
    """N rows as the network takes them."""

    bounded: Tensor  # (N, 2C) targets: near scale of all, then far scale of all; 0 where masked
    mask: Tensor  # (N, C), 1 where present
    classes: Tensor  # (N, G) int64 class index of each category, 0 for the unseen
    class_mask: Tensor  # (N, G), 1 where present

    def rows(self, index: Tensor) -> "Encoded":
        """A choice of rows."""
        return Encoded(*(part[index] for part in self))


@dataclass(frozen=True, slots=True)
class Transform:
    """Frozen scales and classes of D features."""

    kinds: tuple[str, ...]  # D
    means: tuple[float, ...]  # C, in the unit after log1p where it applies
    scales: tuple[float, ...]  # C
    classes: tuple[tuple[int, ...], ...]  # G sorted tuples of CRC-32 codes; class i + 1 is code i

    def __post_init__(self) -> None:
        unknown = sorted(set(self.kinds) - _KINDS)
        if unknown:
            raise ValueError(f"no such kinds of feature: {unknown}; there are {sorted(_KINDS)}")
        counts = (len(self.means), len(self.scales), len(self.classes))
        if counts != (len(self.continuous), len(self.continuous), len(self.categories)):
            raise ValueError(f"the kinds {self.kinds} do not fit {counts} means, scales and categories")
        if not np.isfinite([*self.means, *self.scales]).all() or min(self.scales, default=1.0) <= 0:
            raise ValueError("a mean is not finite or a scale is no positive number")

    @classmethod
    def fit(cls, values: NDArray[np.float64], kinds: tuple[str, ...]) -> Self:
        """Fit on (N, D) raw values; missing and non-finite ones are left out."""
        if values.ndim != 2 or values.shape[1] != len(kinds):
            raise ValueError(f"need (N, {len(kinds)}) values, got {values.shape}")
        means, scales, classes = [], [], []
        for column, kind in zip(values.T, kinds, strict=True):
            present = column[np.isfinite(column)]
            if kind == "category":
                classes.append(_frequent(present))
            elif kind == "cyclic" or not present.size:
                means.append(0.0)
                scales.append(1.0)
            else:
                flat = _flattened(present.clip(-_LIMIT, _LIMIT), kind)
                means.append(float(flat.mean()))
                scales.append(_scale(flat, kind))
        return cls(kinds, tuple(means), tuple(scales), tuple(classes))

    @property
    def continuous(self) -> list[int]:
        """Columns that are no category, in order."""
        return [i for i, kind in enumerate(self.kinds) if kind != "category"]

    @property
    def categories(self) -> list[int]:
        """Columns that are categories, in order."""
        return [i for i, kind in enumerate(self.kinds) if kind == "category"]

    @property
    def class_counts(self) -> list[int]:
        """Classes of each category, the one for unseen values included."""
        return [len(codes) + 1 for codes in self.classes]

    def encode(self, values: NDArray[np.float64]) -> Encoded:
        """Turn (N, D) raw values into what the network takes, float32 on the CPU."""
        is_there = np.isfinite(values)
        raw = np.where(is_there, values, 0.0).clip(-_LIMIT, _LIMIT)
        columns, kinds = self.continuous, [self.kinds[column] for column in self.continuous]
        flat = raw[:, columns]  # (N, C)
        logged = [i for i, kind in enumerate(kinds) if kind in _LOGGED]
        flat[:, logged] = _flattened(flat[:, logged], "magnitude")
        z = (flat - np.asarray(self.means)) / np.asarray(self.scales)
        near, far = np.tanh(z / NEAR), np.tanh(z / FAR)
        cyclic = [i for i, kind in enumerate(kinds) if kind == "cyclic"]
        angle = 2.0 * np.pi * flat[:, cyclic]
        near[:, cyclic], far[:, cyclic] = np.sin(angle), np.cos(angle)
        mask = is_there[:, columns]
        return Encoded(
            torch.from_numpy(np.concatenate([near * mask, far * mask], axis=1)).float(),
            torch.from_numpy(mask).float(),
            torch.from_numpy(self._class_indices(raw)),
            torch.from_numpy(is_there[:, self.categories]).float(),
        )

    def _class_indices(self, raw: NDArray[np.float64]) -> NDArray[np.int64]:
        indices = np.zeros((len(raw), len(self.classes)), dtype=np.int64)
        for i, (column, codes) in enumerate(zip(self.categories, self.classes, strict=True)):
            if codes:
                known = np.asarray(codes, dtype=np.float64)
                at = np.minimum(np.searchsorted(known, raw[:, column]), len(known) - 1)
                indices[:, i] = np.where(known[at] == raw[:, column], at + 1, 0)
        return indices

    def decode(self, bounded: NDArray[np.float64]) -> NDArray[np.float64]:
        """Raw values (R, C) of locations (R, 2C) on the bounded scales."""
        n_continuous = len(self.continuous)
        near, far = bounded[:, :n_continuous], bounded[:, n_continuous:]
        raw = np.empty_like(near)
        for i, (column, mean, scale) in enumerate(zip(self.continuous, self.means, self.scales, strict=True)):
            kind = self.kinds[column]
            if kind == "cyclic":
                raw[:, i] = np.arctan2(near[:, i], far[:, i]) / (2 * np.pi) % 1.0
                continue
            z_near = NEAR * np.arctanh(np.clip(near[:, i], -_CLIP, _CLIP))
            z_far = FAR * np.arctanh(np.clip(far[:, i], -_CLIP, _CLIP))
            flat = np.where(np.abs(near[:, i]) < _NEAR_LIMIT, z_near, z_far) * scale + mean
            if kind in _LOGGED:
                raw[:, i] = np.expm1(np.clip(flat, 0.0, _LOG_LIMIT))  # these kinds are never below zero
            else:
                raw[:, i] = np.clip(flat, 0.0, 1.0) if kind == "ratio" else flat
        return raw

    def to_json(self) -> dict[str, Any]:
        """Plain values; `from_json` reads them."""
        return {
            "kinds": list(self.kinds),
            "means": list(self.means),
            "scales": list(self.scales),
            "classes": [list(codes) for codes in self.classes],
        }

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Self:
        """Read what `to_json` wrote; raises KeyError, TypeError or ValueError for anything else."""
        return cls(
            tuple(str(kind) for kind in data["kinds"]),
            tuple(float(mean) for mean in data["means"]),
            tuple(float(scale) for scale in data["scales"]),
            tuple(tuple(int(code) for code in codes) for codes in data["classes"]),
        )


def _flattened(raw: NDArray[np.float64], kind: str) -> NDArray[np.float64]:
    return np.sign(raw) * np.log1p(np.abs(raw)) if kind in _LOGGED else raw


def _scale(flat: NDArray[np.float64], kind: str) -> float:
    """Standard deviation with a floor. The floor of a gauge or ratio follows its range, for it may have any unit."""
    deviation = float(flat.std())
    if kind in _LOGGED:
        return max(deviation, SCALE_FLOOR)
    spread = float(flat.max() - flat.min())
    is_constant = spread <= _ROUNDING * float(np.abs(flat).max())
    return SCALE_FLOOR if is_constant else max(deviation, RANGE_FLOOR * spread)


def _frequent(present: NDArray[np.float64]) -> tuple[int, ...]:
    codes, counts = np.unique(present, return_counts=True)
    kept = np.argsort(-counts, kind="stable")[:MAX_CLASSES]
    return tuple(sorted(int(code) for code in codes[kept]))
