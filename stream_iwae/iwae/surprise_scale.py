"""A channel's values -> nats of surprise, so that channels of any unit can be compared.

Below the 90 % quantile t of held-out rows: minus the logarithm of the share of rows at least as high, at most
log 10. Above it: log 10 + (value - t) / b, an exponential tail's own -log p, with b read off the 80 % quantile:
not the mean excess over t, which attacks among the rows would widen until they no longer surprise.
"""

import math
from dataclasses import dataclass
from typing import Any, Final, Self

import numpy as np
from numpy.typing import NDArray

BODY: Final = 0.9  # share of rows whose surprise is read off; above it a tail is assumed
SHOULDER: Final = 0.8  # from here to the end of the body an exponential tail falls to a half
MAX_KNOTS: Final = 65
_LEAST_SCALE: Final = 1e-2  # of the body's interquartile range: equal rows still have a tail

Values = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Surprise:
    """The body as knots, the tail as a scale."""

    knots: tuple[float, ...]  # values of the channel, ascending; the tail begins at the last one
    nats: tuple[float, ...]  # surprise at each, ascending to log 10
    scale: float  # b

    def __post_init__(self) -> None:
        knots, nats = np.asarray(self.knots), np.asarray(self.nats)
        if not 1 <= len(knots) == len(nats) <= MAX_KNOTS:
            raise ValueError(f"need 1 to {MAX_KNOTS} knots, got {len(knots)} values and {len(nats)} surprises")
        if not np.isfinite([*knots, *nats]).all() or np.any(np.diff(knots) <= 0) or np.any(np.diff(nats) < 0):
            raise ValueError("the knots of a surprise must be finite and ascend")
        if not 0 < self.scale < math.inf:
            raise ValueError(f"the scale of a surprise must be a number above 0, got {self.scale}")

    @classmethod
    def fit(cls, values: Values) -> Self:
        """Fit to (N,) values of rows that the channel has not learnt.

        Raises:
            ValueError: No value is finite.
        """
        ordered = np.sort(values[np.isfinite(values)])
        n = len(ordered)
        if not n:
            raise ValueError(f"need finite values of a channel, got {len(values)} of which none is")
        start = float(np.quantile(ordered, BODY))
        body = ordered[ordered < start]
        ranks = np.linspace(0, max(len(body) - 1, 0), MAX_KNOTS - 1).round().astype(np.int64)
        knots = np.unique(body[ranks]) if len(body) else body
        below = (np.searchsorted(ordered, knots, "left") + np.searchsorted(ordered, knots, "right")) / 2
        most = -math.log(1 - BODY)
        nats = np.minimum(-np.log((n - below + 0.5) / (n + 1)), most)
        width = float(np.subtract(*np.quantile(ordered, [0.75, 0.25])))
        least = max(_LEAST_SCALE * width, 1e-9 * max(1.0, abs(start)))
        scale = max((start - float(np.quantile(ordered, SHOULDER))) / math.log((1 - SHOULDER) / (1 - BODY)), least)
        return cls((*knots.tolist(), start), (*nats.tolist(), most), scale)

    def nats_of(self, values: Values) -> Values:
        """The surprise of (N,) values; rises with them, also below the lowest knot; NaN for NaN."""
        first, start = self.knots[0], self.knots[-1]
        below = np.minimum(values - first, 0.0) / self.scale  # what is too quiet stays in order
        above = np.maximum(values - start, 0.0) / self.scale
        return np.interp(values, self.knots, self.nats) + below + above

    def to_json(self) -> dict[str, Any]:
        """Plain values; `from_json` reads them."""
        return {"knots": list(self.knots), "nats": list(self.nats), "scale": self.scale}

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Self:
        """Read what `to_json` wrote; raises KeyError, TypeError or ValueError for anything else."""
        return cls(
            tuple(float(value) for value in data["knots"]),
            tuple(float(value) for value in data["nats"]),
            float(data["scale"]),
        )
