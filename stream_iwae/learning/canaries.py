"""Planted anomalies: a model's successor must still see what the model sees.

They compare one model with its successor and nothing else: which kind of score is best on real
attacks cannot be read off planted ones (measured; see docs/results).
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from stream_iwae.batches import Kind

_FACTOR = 30.0  # of a magnitude or a count, in either direction
_SPREADS = 8.0  # standard deviations of a gauge


def plant(values: NDArray[np.float64], kinds: Sequence[Kind], n: int, seed: int) -> NDArray[np.float64]:
    """Make n anomalies out of ordinary rows, (n, D): half shifted in up to three features, half swapped.

    A swapped row takes half of its features from another row, which breaks how they belong together.

    Args:
        values: Ordinary rows, raw, shape (N, D).
        kinds: What each of the D features is.
        n: How many; fewer than that where there are no rows.
        seed: The same seed and rows give the same anomalies.
    """
    if not len(values):
        return values
    rng = np.random.default_rng(seed)
    planted = values[rng.integers(len(values), size=n)].copy()  # (n, D)
    others = values[rng.integers(len(values), size=n)]
    n_features = len(kinds)
    with np.errstate(invalid="ignore"):
        spread = np.array(
            [np.std(column[np.isfinite(column)]) if np.isfinite(column).any() else 0 for column in values.T]
        )
    for i in range(n):
        if i % 2:
            chosen = rng.permutation(n_features)[: max(1, n_features // 2)]
            planted[i, chosen] = others[i, chosen]
        else:
            for j in rng.permutation(n_features)[:3]:
                planted[i, j] = _shifted(planted[i, j], kinds[j], spread[j], others[i, j], rng)
    return planted


def _shifted(value: float, kind: Kind, spread: float, other: float, rng: np.random.Generator) -> float:
    if not np.isfinite(value):
        return value
    sign = rng.choice([-1.0, 1.0])
    match kind:
        case Kind.MAGNITUDE | Kind.COUNT:
            return float((1 + value) * _FACTOR**sign if value > 1 else (1 + value) * _FACTOR)
        case Kind.GAUGE | Kind.NUMBER:
            return float(value + sign * _SPREADS * max(spread, 1e-6))
        case Kind.RATIO:
            return 1.0 - value
        case Kind.CYCLIC:
            return float((value + 0.5) % 1.0)
        case Kind.CATEGORY:
            return other
