"""When rows were, and of whom: made up where a file says neither."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Self

import numpy as np
from numpy.typing import NDArray

from stream_iwae.batches import FeatureBatch

SECOND_MS: Final = 1_000

Values = NDArray[np.float64]
Ints = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Timeline:
    """When each of N windows was, and of whom."""

    entities: Sequence[str]  # N
    start_ms: Ints  # (N,)
    end_ms: Ints  # (N,)
    n_events: Ints  # (N,), 0 for an empty window
    first_offset: Ints  # (N,), -1 for an empty window
    silence_p_values: Values  # (N,), NaN but for a source gone quiet as a whole
    is_real: bool = True  # False: the rows have no time of their own and are a second apart

    @classmethod
    def of(cls, features: FeatureBatch, *, is_real: bool) -> Self:
        """That of windows."""
        return cls(
            features.entities,
            features.window_start_ms,
            features.window_end_ms,
            features.n_events,
            features.first_offset,
            features.silence_p_values,
            is_real,
        )

    @classmethod
    def made_up(cls, n: int) -> Self:
        """Of n rows of one entity, a second apart."""
        at = np.arange(n)
        ones, nothing = np.ones(n, dtype=np.int64), np.full(n, np.nan)
        return cls([""] * n, at * SECOND_MS, at * SECOND_MS + 1, ones, at, nothing, is_real=False)

    def take(self, at: Ints) -> Self:
        """The windows at some positions."""
        return type(self)(
            [self.entities[i] for i in at.tolist()],
            self.start_ms[at],
            self.end_ms[at],
            self.n_events[at],
            self.first_offset[at],
            self.silence_p_values[at],
            self.is_real,
        )
