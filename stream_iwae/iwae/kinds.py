"""A column of numbers whose kind nobody gave -> what it is, from its values alone; no label is asked.

The questions are put in this order: two values, or a few codes with gaps between them (6, 17; 200, 404), are a
category; values at or above zero, or on both sides of it, that span more than a power of ten beyond their
typical size are heavy-tailed; all others, constants and bounded ones among them, are a gauge.
"""

from typing import Final

import numpy as np
from numpy.typing import NDArray

MAX_CODES: Final = 16  # more distinct values are an amount, not a name
ROWS_PER_CODE: Final = 20  # fewer rows would leave codes unseen
LARGEST: Final = 1e100  # larger values count as it: their sums would overflow
HEAVY: Final = 20.0  # largest over typical size of what is not zero


def resolve(values: NDArray[np.float64], kind: str) -> str:
    """Name the kind of one column, (N,); only `number` is looked into, any other kind is kept.

    >>> resolve(np.array([6.0, 17.0] * 50), "number")
    'category'
    >>> resolve(np.geomspace(1, 1e6, 100), "number")
    'magnitude'
    >>> resolve(np.linspace(0, 1, 100), "number")
    'gauge'
    """
    if kind != "number":
        return kind
    present = values[np.isfinite(values)].clip(-LARGEST, LARGEST)
    distinct = np.unique(present)
    if is_code(distinct, len(present)):
        return "category"
    sizes = np.abs(present[present != 0])
    if sizes.size and float(sizes.max()) > HEAVY * float(np.median(sizes)):
        return "magnitude" if float(present.min()) >= 0 else "signed"
    return "gauge"


def is_code(distinct: NDArray[np.float64], n_rows: int) -> bool:
    """Whether the distinct values of a column, ascending, are names rather than amounts."""
    if not 2 <= len(distinct) <= MAX_CODES or n_rows < ROWS_PER_CODE * len(distinct):
        return False
    is_whole = bool(np.all(distinct == np.round(distinct)))
    has_gaps = bool(np.any(np.diff(distinct) > 1))
    return len(distinct) == 2 or (is_whole and has_gaps)  # two values are yes and no


def unit_of(values: NDArray[np.float64]) -> float:
    """What the logarithm of a heavy-tailed column counts in: 1, or less where its values are smaller than that."""
    sizes = np.abs(values[np.isfinite(values) & (values != 0)]).clip(0, LARGEST)
    return float(np.clip(np.quantile(sizes, 0.05), 1e-100, 1.0)) if sizes.size else 1.0
