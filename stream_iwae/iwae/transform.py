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

from stream_iwae.iwae.kinds import LARGEST, resolve, unit_of
from stream_iwae.iwae.neighbours import one_hot

SCALE_FLOOR: Final = 0.05  # of a logarithm, and of any constant column
RANGE_FLOOR: Final = 0.05  # of a gauge's or ratio's range, whatever its unit
NARROW_FLOOR: Final = 0.25  # at most, of the range of one that moves little beside others of its unit
MAX_CLASSES: Final = 255  # the most frequent values of a category; the others count as unseen
NEAR, FAR = 2.0, 8.0  # divisors of the two bounded scales
_CLIP: Final = 0.9999  # a location at or past the bound still has an inverse
_NEAR_LIMIT: Final = 0.95  # beyond it the near scale is saturated and the far one is inverted
_LOG_LIMIT: Final = 230.0  # log1p of LARGEST, nearly
_ROUNDING: Final = 1e-9  # a column that varies by less than this share of its size is constant
_LOGGED: Final = ("magnitude", "count", "signed")
_OF_ONE_UNIT: Final = ("gauge", "ratio")  # where they lie within [-1, 1]: shares, or scaled alike
_KINDS: Final = frozenset({"magnitude", "ratio", "count", "gauge", "category", "cyclic", "signed"})
_EDGE: Final = 0.005  # quantiles between which the bulk of a column lies
_NEAR_CODE: Final = 0.1  # of the gap between two codes: so close to one, a number is taken for it


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

    kinds: tuple[str, ...]  # D, `number` resolved
    units: tuple[float, ...]  # C, what log1p counts in
    means: tuple[float, ...]  # C, in the unit after log1p where it applies
    scales: tuple[float, ...]  # C
    classes: tuple[tuple[float, ...], ...]  # G sorted tuples of codes, CRC-32 of texts; class i + 1 is code i

    def __post_init__(self) -> None:
        unknown = sorted(set(self.kinds) - _KINDS)
        if unknown:
            raise ValueError(f"no such kinds of feature: {unknown}; there are {sorted(_KINDS)}")
        counts = (len(self.units), len(self.means), len(self.scales), len(self.classes))
        if counts != (*(len(self.continuous),) * 3, len(self.categories)):
            raise ValueError(f"the kinds {self.kinds} do not fit {counts} units, means, scales and categories")
        positive = (*self.scales, *self.units)
        if not np.isfinite([*self.means, *positive]).all() or min(positive, default=1.0) <= 0:
            raise ValueError("a mean is not finite, or a scale or unit is no positive number")

    @classmethod
    def fit(cls, values: NDArray[np.float64], kinds: tuple[str, ...]) -> Self:
        """Fit on (N, D) raw values; missing and non-finite ones are left out. A `number` becomes what it looks like."""
        if values.ndim != 2 or values.shape[1] != len(kinds):
            raise ValueError(f"need (N, {len(kinds)}) values, got {values.shape}")
        resolved = tuple(resolve(column, kind) for column, kind in zip(values.T, kinds, strict=True))
        units, means, scales, classes = [], [], [], []
        spreads: dict[int, float] = {}  # of columns within [-1, 1], by their place among the C
        for column, kind, given in zip(values.T, resolved, kinds, strict=True):
            present = column[np.isfinite(column)].clip(-LARGEST, LARGEST)
            if kind == "category":
                classes.append(_frequent(present))
                continue
            units.append(unit_of(present) if given == "number" and kind in _LOGGED else 1.0)
            if kind == "cyclic" or not present.size:
                means.append(0.0)
                scales.append(1.0)
            else:
                flat = _flattened(present, kind, units[-1])
                bulk = _bulk(flat)
                means.append(float(bulk.mean()))
                scales.append(_scale(bulk, kind))
                if kind in _OF_ONE_UNIT and np.abs(bulk).max() <= 1:
                    spreads[len(scales) - 1] = float(np.ptp(bulk))
        widest = max(spreads.values(), default=0.0)
        for i, spread in spreads.items():
            scales[i] = max(scales[i], min(RANGE_FLOOR * widest, NARROW_FLOOR * spread))
        return cls(resolved, tuple(units), tuple(means), tuple(scales), tuple(classes))

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
        raw = np.where(is_there, values, 0.0).clip(-LARGEST, LARGEST)
        columns, kinds = self.continuous, [self.kinds[column] for column in self.continuous]
        flat = raw[:, columns]  # (N, C)
        logged = [i for i, kind in enumerate(kinds) if kind in _LOGGED]
        flat[:, logged] = _flattened(flat[:, logged], "magnitude", np.asarray(self.units)[logged])
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

    def points(self, rows: Encoded) -> Tensor:
        """Coordinates (N, E) in which a distance has a meaning: both bounded scales, and halves of one-hot classes.

        0 where missing; an unseen class has no 1.
        """
        seen = rows.classes * (rows.class_mask > 0)
        hot = [one_hot(column, count) for column, count in zip(seen.T, self.class_counts, strict=True)]
        return torch.cat([rows.bounded, *hot], dim=1)

    @property
    def point_owners(self) -> NDArray[np.int64]:
        """The column, of D, that each of the E coordinates of `points` comes from."""
        categories = np.repeat(np.array(self.categories, dtype=np.int64), self.class_counts)
        return np.array([*self.continuous, *self.continuous, *categories], dtype=np.int64)

    def _class_indices(self, raw: NDArray[np.float64]) -> NDArray[np.int64]:
        indices = np.zeros((len(raw), len(self.classes)), dtype=np.int64)
        for i, (column, codes) in enumerate(zip(self.categories, self.classes, strict=True)):
            if codes:
                known = np.asarray(codes, dtype=np.float64)
                at = np.searchsorted((known[1:] + known[:-1]) / 2, raw[:, column])  # the nearest code
                reach = _NEAR_CODE * float(np.diff(known).min(initial=1.0))  # never more: texts' codes lie anywhere
                indices[:, i] = np.where(np.abs(known[at] - raw[:, column]) <= reach, at + 1, 0)
        return indices

    def decode(self, bounded: NDArray[np.float64]) -> NDArray[np.float64]:
        """Raw values (R, C) of locations (R, 2C) on the bounded scales."""
        n_continuous = len(self.continuous)
        near, far = bounded[:, :n_continuous], bounded[:, n_continuous:]
        raw = np.empty_like(near)
        parts = zip(self.continuous, self.units, self.means, self.scales, strict=True)
        for i, (column, unit, mean, scale) in enumerate(parts):
            kind = self.kinds[column]
            if kind == "cyclic":
                raw[:, i] = np.arctan2(near[:, i], far[:, i]) / (2 * np.pi) % 1.0
                continue
            z_near = NEAR * np.arctanh(np.clip(near[:, i], -_CLIP, _CLIP))
            z_far = FAR * np.arctanh(np.clip(far[:, i], -_CLIP, _CLIP))
            flat = np.where(np.abs(near[:, i]) < _NEAR_LIMIT, z_near, z_far) * scale + mean
            if kind in _LOGGED:
                least = -_LOG_LIMIT if kind == "signed" else 0.0  # the others are never below zero
                logs = np.clip(flat, least, _LOG_LIMIT)
                raw[:, i] = np.sign(logs) * unit * np.expm1(np.abs(logs))
            else:
                raw[:, i] = np.clip(flat, 0.0, 1.0) if kind == "ratio" else flat
        return raw

    def to_json(self) -> dict[str, Any]:
        """Plain values; `from_json` reads them."""
        return {
            "kinds": list(self.kinds),
            "units": list(self.units),
            "means": list(self.means),
            "scales": list(self.scales),
            "classes": [list(codes) for codes in self.classes],
        }

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Self:
        """Read what `to_json` wrote; raises KeyError, TypeError or ValueError for anything else."""
        return cls(
            tuple(str(kind) for kind in data["kinds"]),
            tuple(float(unit) for unit in data["units"]),
            tuple(float(mean) for mean in data["means"]),
            tuple(float(scale) for scale in data["scales"]),
            tuple(tuple(float(code) for code in codes) for codes in data["classes"]),
        )


def _flattened(raw: NDArray[np.float64], kind: str, unit: float | NDArray[np.float64] = 1.0) -> NDArray[np.float64]:
    return np.sign(raw) * np.log1p(np.abs(raw) / unit) if kind in _LOGGED else raw


def _bulk(flat: NDArray[np.float64]) -> NDArray[np.float64]:
    """All values, those far out drawn in to within thrice the bulk's width of it: one wild value blinds no column."""
    low, high = np.quantile(flat, _EDGE, method="higher"), np.quantile(flat, 1 - _EDGE, method="lower")
    reach = 3 * float(high - low)
    if reach <= 0:  # but for a few, all are one value: these few are no further out than ten times their middle one
        low = high = np.median(flat)
        others = np.abs(flat[flat != low] - low)
        reach = 10 * float(np.median(others)) if others.size else 0.0
    return flat.clip(low - reach, high + reach)


def _scale(flat: NDArray[np.float64], kind: str) -> float:
    """Standard deviation with a floor. The floor of a gauge or ratio follows its range, for it may have any unit."""
    deviation = float(flat.std())
    if kind in _LOGGED:
        return max(deviation, SCALE_FLOOR)
    spread = float(flat.max() - flat.min())
    is_constant = spread <= _ROUNDING * float(np.abs(flat).max())
    return SCALE_FLOOR if is_constant else max(deviation, RANGE_FLOOR * spread, 1 / LARGEST)


def _frequent(present: NDArray[np.float64]) -> tuple[float, ...]:
    codes, counts = np.unique(present, return_counts=True)
    kept = np.argsort(-counts, kind="stable")[:MAX_CLASSES]
    return tuple(sorted(float(code) for code in codes[kept]))
