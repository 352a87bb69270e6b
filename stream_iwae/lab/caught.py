"""Scores of simulated windows -> which attacks are caught when so many false windows a day are let through."""

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from stream_iwae.lab.simulated_rows import SimulatedRows

CERTAIN_SILENCE: Final = 1e-6  # p-value of a whole source's silence at or below which every detector is told of it


@dataclass(frozen=True, slots=True)
class Caught:
    """What one detector makes of one network."""

    kinds: tuple[str, ...]  # of the attacks, in order of time
    ranks: tuple[int, ...]  # false windows that score higher than the attack's highest window
    n_false: int  # false windows that were let through

    @property
    def is_caught(self) -> tuple[bool, ...]:
        """Whether each attack has a window above the threshold."""
        return tuple(rank <= self.n_false for rank in self.ranks)


def caught(rows: SimulatedRows, scores: NDArray[np.float64], false_per_day: float) -> Caught:
    """Let the highest false windows through, as many as a day may have, and see which attacks lie above the next.

    A false window is one of the live part of which no attack tells, what must not alarm included. The silence of
    a whole source is told by its entities' presence, for every detector alike, and not by its score.

    Args:
        rows: Of one network.
        scores: Of all of them, (N,), higher is more anomalous; those of the history are not looked at.
        false_per_day: How many false windows a day are let through.
    """
    is_silence = np.isfinite(rows.silence_p_values)
    told = np.where(is_silence, np.where(rows.silence_p_values <= CERTAIN_SILENCE, np.inf, -np.inf), scores)
    told = np.where(np.isnan(told), -np.inf, told)
    is_live = np.arange(len(told)) >= rows.n_history
    false = np.sort(told[is_live & (rows.scenario < 0)])
    kinds, ranks = [], []
    for place, scenario in enumerate(rows.scenarios):
        if not scenario.benign:
            best = told[rows.scenario == place].max(initial=-np.inf)
            kinds.append(scenario.kind)
            # Of equal scores the false ones come first, but for certain silence.
            ranks.append(int(len(false) - np.searchsorted(false, best, side="right" if best == np.inf else "left")))
    return Caught(tuple(kinds), tuple(ranks), int(false_per_day * rows.live_days))
