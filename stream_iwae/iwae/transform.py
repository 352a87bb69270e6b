"""Raw feature values -> bounded inputs, masks and class indices; fitted once, frozen with the model.

N rows, D features, C of them continuous. Every scale has a floor: a constant column has no variance,
and a deviation from it saturates. Two bounded scales of each value, tanh(z/2) and tanh(z/8): the first sees
ordinary variation, the second how far out an outlier lies.
"""

from dataclasses import dataclass
from typing import Any, Final, NamedTuple, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

SCALE_FLOOR: Final = 0.05
NEAR, FAR = 2.0, 8.0  # divisors of the two bounded scales
_CLIP: Final = 0.9999  # a location at or past the bound still has an inverse
_NEAR_LIMIT: Final = 0.95  # beyond it the near scale is saturated and the far one is inverted
_LOGGED: Final = ("magnitude", "count")


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

    @classmethod
    def fit(cls, values: NDArray[np.float64], kinds: tuple[str, ...]) -> Self:
        """Fit on (N, D) raw values; missing and non-finite ones are left out."""
        if values.ndim != 2 or values.shape[1] != len(kinds):
            raise ValueError(f"need (N, {len(kinds)}) values, got {values.shape}")
        means, scales, classes = [], [], []
        for column, kind in zip(values.T, kinds, strict=True):
            present = column[np.isfinite(column)]
            if kind == "category":
                classes.append(tuple(int(code) for code in np.unique(present)))
                continue
            if kind == "cyclic":
                means.append(0.0)
                scales.append(1.0)
                continue
            flat = _flattened(present, kind)
            spread = 0.0 if kind in _LOGGED or not flat.size else SCALE_FLOOR * float(flat.max() - flat.min())
            means.append(float(flat.mean()) if flat.size else 0.0)
            scales.append(max(float(flat.std()) if flat.size else 0.0, spread, SCALE_FLOOR))
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
        near, far, present = [], [], []
        for column, mean, scale in zip(self.continuous, self.means, self.scales, strict=True):
            raw = values[:, column]
            is_there = np.isfinite(raw)
            raw = np.where(is_there, raw, 0.0)
            if self.kinds[column] == "cyclic":
                low, high = np.sin(2 * np.pi * raw), np.cos(2 * np.pi * raw)
            else:
                z = (_flattened(raw, self.kinds[column]) - mean) / scale
                low, high = np.tanh(z / NEAR), np.tanh(z / FAR)
            near.append(np.where(is_there, low, 0.0))
            far.append(np.where(is_there, high, 0.0))
            present.append(is_there)
        indices, class_present = [], []
        for column, codes in zip(self.categories, self.classes, strict=True):
            raw = values[:, column]
            is_there = np.isfinite(raw)
            known = np.asarray(codes, dtype=np.float64)
            at = np.searchsorted(known, np.where(is_there, raw, 0.0))
            is_known = np.isin(raw, known)
            indices.append(np.where(is_known, at + 1, 0))
            class_present.append(is_there)
        n = values.shape[0]
        return Encoded(
            _stacked(near + far, n, torch.float32),
            _stacked(present, n, torch.float32),
            _stacked(indices, n, torch.int64),
            _stacked(class_present, n, torch.float32),
        )

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
                raw[:, i] = np.sign(flat) * np.expm1(np.clip(np.abs(flat), 0.0, 700.0))
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
        transform = cls(
            tuple(str(kind) for kind in data["kinds"]),
            tuple(float(mean) for mean in data["means"]),
            tuple(float(scale) for scale in data["scales"]),
            tuple(tuple(int(code) for code in codes) for codes in data["classes"]),
        )
        numbers = np.array([*transform.means, *transform.scales])
        if not np.isfinite(numbers).all() or min(transform.scales, default=1.0) <= 0:
            raise ValueError("the transform has a scale that is no positive number")
        if len(transform.means) != len(transform.continuous) or len(transform.classes) != len(transform.categories):
            raise ValueError("the transform does not fit its kinds")
        return transform


def _flattened(raw: NDArray[np.float64], kind: str) -> NDArray[np.float64]:
    return np.sign(raw) * np.log1p(np.abs(raw)) if kind in _LOGGED else raw


def _stacked(columns: list[NDArray[Any]], n: int, dtype: torch.dtype) -> Tensor:
    if not columns:
        return torch.zeros((n, 0), dtype=dtype)
    return torch.from_numpy(np.stack(columns, axis=1)).to(dtype)
