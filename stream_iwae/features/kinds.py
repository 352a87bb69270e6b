"""Groups of entities that behave alike: whom a newcomer borrows its past from.

G kinds of P features. A kind is founded by an entity with a past that is far from all others
(leader clustering, Hartigan 1975, Clustering Algorithms, chapter 3), and then follows its members.
"""

from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

MAX_KINDS: Final = 8
FOUNDING_DISTANCE: Final = 1.5  # mean squared distance from all kinds, in spreads of the whole population
KNOWN: Final = 100.0  # windows of its members before a kind says what is usual
WINDOWS: Final = 20_000.0  # of all members together, over which a kind's past fades
_FURTHEST: Final = 9.0  # squared distance in one feature: none rules alone
_TINY: Final = 1e-12  # of a variance: a feature that never varies

Values = NDArray[np.float64]


class Moments:
    """Means and variances of R rows of P features that fade with the number of windows seen."""

    def __init__(self, n_rows: int, n_features: int) -> None:
        self.mean, self.variance, self.weight = (np.zeros((n_rows, n_features)) for _ in range(3))

    def learn(self, row: int, values: Values) -> None:
        """Take in (M, P) values of one wave, NaN where missing."""
        known = np.isfinite(values)
        n = known.sum(axis=0)
        mean, weight = self.mean[row], np.minimum(self.weight[row] + n, WINDOWS)
        share = np.minimum(n / np.maximum(weight, 1.0), 1.0)  # of the past that the wave replaces
        average = np.where(known, values, 0.0).sum(axis=0) / np.maximum(n, 1)
        # Of the first wave there is no former mean to vary about.
        centre = np.where(self.weight[row] > 0, mean, average)
        square = (np.where(known, values - centre, 0.0) ** 2).sum(axis=0) / np.maximum(n, 1)
        self.mean[row] = mean + share * np.where(n > 0, average - mean, 0.0)
        self.variance[row] += share * np.where(n > 0, square - self.variance[row], 0.0)
        self.weight[row] = weight

    def to_bytes(self) -> list[bytes]:
        """Every bit, as `from_bytes` takes it."""
        return [part.astype("<f8").tobytes() for part in (self.mean, self.variance, self.weight)]

    def from_bytes(self, parts: list[bytes]) -> None:
        """Replace everything."""
        for own, part in zip((self.mean, self.variance, self.weight), parts, strict=True):
            own[:] = np.frombuffer(part, "<f8").reshape(own.shape)


class Kinds:
    """The kinds there are so far, and the population as a whole."""

    def __init__(self, n_features: int) -> None:
        self.n = 0
        self.moments = Moments(MAX_KINDS, n_features)
        self.population = Moments(1, n_features)

    @property
    def spread(self) -> Values:
        """Standard deviation of each feature over all windows, (P,)."""
        deviation: Values = np.sqrt(self.population.variance[0] + _TINY)
        return deviation

    def distances(self, places: Values) -> Values:
        """Mean squared distance of N entities from each kind, (N, G) with the G there are so far, each at most 9.

        Args:
            places: What each entity is like, (N, P); NaN where nobody knows.
        """
        known = np.isfinite(places)[:, None, :]
        away = np.where(known, (places[:, None, :] - self.moments.mean[None, : self.n]) / self.spread, 0.0)
        squares = np.minimum(away**2, _FURTHEST).sum(axis=2)  # (N, P) -> (N, G)
        mean: Values = squares / np.maximum(known.sum(axis=2), 1)
        return mean

    def established(self) -> NDArray[np.bool_]:
        """Which kinds have seen enough windows of their members to say what is usual, (G,)."""
        is_established: NDArray[np.bool_] = self.moments.weight[: self.n].max(axis=1, initial=0.0) >= KNOWN
        return is_established

    def learn(self, values: Values, kinds: NDArray[np.intp]) -> None:
        """Let each kind follow its members in one wave, and the population all of them.

        Args:
            values: (N, P), NaN where missing, winsorised.
            kinds: (N,); -1 for an entity whose past is too short to shape a kind.
        """
        self.population.learn(0, values)
        for kind in np.unique(kinds[kinds >= 0]).tolist():
            self.moments.learn(kind, values[kinds == kind])

    def found(self, mean: Values, variance: Values, weight: Values) -> None:
        """Found one more kind in the image of an entity, (P,) each; weights are windows, 0 where unknown."""
        is_known = weight > 0
        self.moments.mean[self.n] = np.where(is_known, mean, self.population.mean[0])
        self.moments.variance[self.n] = np.where(is_known, variance, self.population.variance[0])
        self.moments.weight[self.n] = weight
        self.n += 1

    def to_state(self) -> list[Any]:
        """Every bit, as plain values."""
        return [self.n, *self.moments.to_bytes(), *self.population.to_bytes()]

    def from_state(self, state: list[Any]) -> None:
        """Replace everything."""
        self.n = int(state[0])
        self.moments.from_bytes(state[1:4])
        self.population.from_bytes(state[4:7])


def nearest(distances: Values) -> NDArray[np.intp]:
    """The nearest kind of each of N entities, (N,); -1 where none is at a finite distance."""
    if not distances.shape[1]:
        return np.full(len(distances), -1, dtype=np.intp)
    closest: NDArray[np.intp] = distances.argmin(axis=1)
    return np.where(np.isfinite(distances.min(axis=1)), closest, -1)
