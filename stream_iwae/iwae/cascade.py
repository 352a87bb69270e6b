"""Scores from few samples for all rows, and from many for the rows on which a decision may hang."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, replace
from typing import Final, Protocol

import numpy as np
from numpy.typing import NDArray

from stream_iwae.iwae.artefact import Model
from stream_iwae.iwae.scoring import Explained, Scorer, Scores

CLOSE_ERRORS: Final = 3.0  # standard errors from the threshold within which a score may fall on either side
FEW_SAMPLES: Final = 2.0  # effective ones, below which the standard error itself says little
THRESHOLD_KEY: Final = "cascade_threshold"  # in the artefact's `extra`
_CHUNK_SAMPLES: Final = 4096  # samples times rows in one fixed shape: more fall out of the cache

Values = NDArray[np.float64]


class RowScorer(Protocol):
    """What scores and explains raw rows."""

    @property
    def labels(self) -> Mapping[int, str]:
        """Texts of the categories that the model knows."""

    def score(self, values: Values, on_chunk: Callable[[], None]) -> Scores:
        """Score (N, D) raw values; `on_chunk` is called after each chunk."""

    def explain(self, values: Values) -> Explained:
        """Explain (R, D) raw values."""


def make_scorer(model: Model, device: str, chunk_rows: int | None = None) -> RowScorer:
    """The scorer that a model asks for: with a cascade where it is switched on and its threshold is known."""
    threshold = model.extra.get(THRESHOLD_KEY)
    first = Scorer(model, device, chunk_rows)
    if not model.settings.cascade_samples or threshold is None:
        return first
    settings = replace(model.settings, score_samples=model.settings.cascade_samples, cascade_samples=0)
    second = Scorer(
        replace(model, settings=settings), device, chunk_rows=max(1, _CHUNK_SAMPLES // settings.score_samples)
    )
    return Cascade(first, second, float(threshold))


@dataclass(frozen=True, slots=True)
class Cascade:
    """Which rows are scored again depends on each row alone, and both scorers work in fixed shapes: company is nothing.

    Scores of different K lie on different scales, the more so the fewer samples matter. So p-values are fitted to what
    the cascade gives, never to one of its parts.
    """

    first: Scorer
    second: Scorer
    threshold: float  # nats, of the first scorer's scores

    @property
    def labels(self) -> Mapping[int, str]:
        """Texts of the categories that the model knows."""
        return self.first.labels

    def score(self, values: Values, on_chunk: Callable[[], None] = lambda: None) -> Scores:
        """Score (N, D) raw values; `on_chunk` is called after each chunk."""
        scores = self.first.score(values, on_chunk)
        rows = np.flatnonzero(self.is_undecided(scores))
        if not len(rows):
            return scores
        again = self.second.score(values[rows], on_chunk)
        merged = []
        for field in fields(Scores):
            column = getattr(scores, field.name).copy()
            column[rows] = getattr(again, field.name)
            merged.append(column)
        return Scores(*merged)

    def is_undecided(self, scores: Scores) -> NDArray[np.bool_]:
        """Rows whose score is within three standard errors of the threshold, or rests on one sample, (N,)."""
        with np.errstate(invalid="ignore"):  # unscorable rows are decided
            is_close = np.abs(scores.scores - self.threshold) <= CLOSE_ERRORS * scores.standard_errors
            return is_close | (np.isfinite(scores.scores) & (scores.effective_samples < FEW_SAMPLES))

    def explain(self, values: Values) -> Explained:
        """Explain (R, D) raw values."""
        return self.first.explain(values)
