"""Excesses over a high threshold -> a generalised Pareto tail, by maximum likelihood."""

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize
from scipy.stats import genpareto

MAX_ABS_SHAPE: Final = 0.5  # beyond, the fit follows single points and thresholds run away
MIN_SCALE: Final = 1e-6  # nats; scores of single precision are no finer


@dataclass(frozen=True, slots=True)
class Tail:
    """P(excess > y) = (1 + shape y / scale)^(-1/shape), and exp(-y / scale) for shape 0."""

    shape: float  # gamma: above 0 heavy, below 0 with an end point
    scale: float  # sigma, nats

    def __post_init__(self) -> None:
        if not abs(self.shape) <= MAX_ABS_SHAPE or not MIN_SCALE <= self.scale < np.inf:
            raise ValueError(f"need |shape| <= {MAX_ABS_SHAPE} and a scale from {MIN_SCALE}, got {self}")

    def survival(self, excesses: NDArray[np.float64]) -> NDArray[np.float64]:
        """The probability of a larger excess; 0 beyond the end point of a negative shape."""
        with np.errstate(over="ignore"):  # an excess of more scales than a float holds has survival 0
            return np.asarray(genpareto.sf(excesses, self.shape, scale=self.scale), dtype=np.float64)

    def excess_at(self, survival: float) -> float:
        """The excess that is exceeded with probability `survival`.

        >>> round(Tail(shape=0.0, scale=2.0).excess_at(0.1353352832366127), 6)
        4.0
        """
        return float(genpareto.isf(survival, self.shape, scale=self.scale))


def fit_tail(excesses: NDArray[np.float64], n_censored: int = 0, censored_at: float = np.inf) -> Tail:
    """The most likely tail with a shape in [-.5, .5].

    Args:
        excesses: Shape (n,), above 0, at least one.
        n_censored: How many further excesses are known only to lie above `censored_at`.
        censored_at: In the unit of the excesses.

    Returns:
        The same shape for excesses in any unit: they are divided by their mean first. (The
        published SPOT code takes the exponential case with the wrong sign, so that its threshold
        depends on the unit of the score.)

    Source: Siffer et al. 2017, section 3; Grimshaw 1993.
    """
    unit = float(np.mean(excesses))
    observed = excesses / unit
    limit = censored_at / unit if n_censored else 1.0

    def negative_log_likelihood(parameters: NDArray[np.float64]) -> float:
        shape, scale = float(parameters[0]), float(np.exp(parameters[1]))
        total = np.sum(genpareto.logpdf(observed, shape, scale=scale))
        if n_censored:
            total += n_censored * genpareto.logsf(limit, shape, scale=scale)
        return -float(total) / (len(observed) + n_censored)

    found: Any = minimize(
        negative_log_likelihood,
        x0=np.array([0.05, 0.0]),
        method="Nelder-Mead",  # the likelihood is -inf where an excess lies beyond the end point
        bounds=[(-MAX_ABS_SHAPE, MAX_ABS_SHAPE), (-10.0, 10.0)],
        options={"xatol": 1e-7, "fatol": 1e-10, "maxiter": 1000},
    )
    return Tail(shape=float(found.x[0]), scale=max(float(np.exp(found.x[1])) * unit, MIN_SCALE))
