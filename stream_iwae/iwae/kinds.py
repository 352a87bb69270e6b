"""A column of numbers whose kind nobody gave -> what it is, from its values alone; no label is asked.

The questions are put in this order: two values, or a few codes with gaps between them (6, 17; 200, 404) that come
back often, are a category; values at or above zero, or on both sides of it, that span more than a power of ten beyond
their typical size are heavy-tailed, and so are amounts that are nearly always zero; all others, constants and bounded
ones among them, are a gauge.
"""

from typing import Final

import numpy as np
from numpy.typing import NDArray

MAX_CODES: Final = 16  # more distinct values are an amount, not a name
ROWS_PER_CODE: Final = 20  # fewer rows would leave codes unseen
LARGEST: Final = 1e100  # larger values count as it: their sums would overflow
HEAVY: Final = 20.0  # largest over typical size, which is the median of what is not zero, or the mean if less
SHARE_DIGITS: Final = 2  # decimals of a share of one whole, such as 0.25


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
    if is_code(*np.unique(present, return_counts=True)):
        return "category"
    sizes = np.abs(present[present != 0])
    if sizes.size and float(sizes.max()) > HEAVY * min(float(np.median(sizes)), float(np.abs(present).mean())):
        return "magnitude" if float(present.min()) >= 0 else "signed"
    return "gauge"


def is_code(distinct: NDArray[np.float64], counts: NDArray[np.int64]) -> bool:
    """Whether the distinct values of a column, ascending, are names rather than amounts, by how often each comes.

    Half of the names must come back: rare amounts, such as 3, 4 and 30 in a column of zeros, leave gaps as well.
    """
    if not 2 <= len(distinct) <= MAX_CODES or int(counts.sum()) < ROWS_PER_CODE * len(distinct):
        return False
    if len(distinct) == 2:
        return True  # yes and no, even where one of them is rare
    is_whole = bool(np.all(distinct == np.round(distinct)))
    has_gaps = bool(np.any(np.diff(distinct) > 1))
    return is_whole and has_gaps and float(np.median(counts)) >= ROWS_PER_CODE


def unit_of(values: NDArray[np.float64]) -> float:
    """What the logarithm of a heavy-tailed column counts in: 1, or less where its values are smaller than that.

    Whole hundredths up to 1 are shares, and count in wholes: in hundredths, one connection in a hundred would be as
    far from none as one in ten is from it.
    """
    sizes = np.abs(values[np.isfinite(values) & (values != 0)]).clip(0, LARGEST)
    if not sizes.size or is_share(sizes):
        return 1.0
    return float(np.clip(np.quantile(sizes, 0.05), 1e-100, 1.0))


def is_share(sizes: NDArray[np.float64]) -> bool:
    """Whether the sizes of a column are shares of a whole: a hundred steps leave no tail to look into."""
    return float(sizes.max()) <= 1.0 and bool((np.abs(sizes - np.round(sizes, SHARE_DIGITS)) < 1e-9).all())
