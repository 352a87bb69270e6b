"""What each entity of a partition is usually like, and how far a window lies beyond it.

A profile is an exponentially fading mean and variance of each of P features, on a logarithmic scale for
magnitudes. It learns from every closed window, never by verdict, and winsorised: a window moves it by no
more than the edge of the usual range would. With little history the entity borrows from its kind.
Waves of windows with the same end are taken in order, so where a poll cuts the log changes nothing.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from stream_iwae.batches import SOURCE_PREFIX, Kind
from stream_iwae.features.kinds import FOUNDING_DISTANCE, MAX_KINDS, Kinds, nearest
from stream_iwae.features.profile_table import SHARED_KEY, ProfileTable, Record
from stream_iwae.state import KeyedState

EDGE: Final = 3.0  # spreads from the mean to where the usual range ends
BORROWED: Final = 30.0  # windows that the kind counts for beside the entity's own
MATURE: Final = 30  # windows of its own before an entity shapes its kind
LOG_FLOOR: Final = 0.5  # least spread of a logarithm: usual is at least exp(-1.5) to exp(1.5) times the mean
FLOOR_SHARE: Final = 0.25  # least spread of other features, as a share of the population's
FURTHEST: Final = 100.0  # logarithms or spreads beyond the range that are told apart
LOGARITHMIC: Final = frozenset({Kind.MAGNITUDE, Kind.COUNT})
_LIMIT: Final = 1e15  # its square is still a float32

Values = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Usual:
    """What is usual for N entities, in the unit of the profile."""

    rows: NDArray[np.int64]  # (N,), of the table; -1 for one without a past
    kinds: NDArray[np.intp]  # (N,), which kind each belongs to; -1 while there is none
    mean: Values  # (N, P), NaN where nothing is known yet
    spread: Values  # (N, P), above zero

    def clipped(self, places: Values) -> Values:
        """(N, P) values drawn to the nearest edge of the range; as they are where nothing is usual yet."""
        edge = EDGE * self.spread
        return np.where(np.isfinite(self.mean), np.clip(places, self.mean - edge, self.mean + edge), places)


class Profiles:
    """The profiles of one partition.

    Args:
        kinds: What the P features are.
        n_windows: Over how many windows a past fades.
        max_entities: How many have a past of their own; others borrow all of it.
    """

    def __init__(self, kinds: Sequence[Kind], n_windows: int, max_entities: int) -> None:
        self._n_windows, self._max_entities = n_windows, max_entities
        self._is_log = np.array([kind in LOGARITHMIC for kind in kinds])
        self._table = ProfileTable(len(kinds))
        self._kinds = Kinds(len(kinds))
        self._wave = 0

    @property
    def state(self) -> KeyedState[Record]:
        """All that has to survive."""
        return self._table

    def restore(self, values: dict[str, Record]) -> None:
        """Go on from a snapshot of `state`."""
        self._table.restore(values)
        shared = self._table.get(SHARED_KEY)
        if shared is None:
            self._wave, self._kinds = 0, Kinds(len(self._is_log))
        else:
            self._wave = int(shared[0])
            self._kinds.from_state(shared[1:])

    # --- what is usual ---------------------------------------------------------------------------

    def places(self, values: Values) -> Values:
        """(N, P) raw values on the scale of the profile."""
        with np.errstate(invalid="ignore"):
            bounded = np.clip(values, -_LIMIT, _LIMIT)
        logged: Values = np.where(self._is_log, np.sign(bounded) * np.log1p(np.abs(bounded)), bounded)
        return logged

    def usual(self, entities: Sequence[str], places: Values) -> Usual:
        """What is usual for each of N entities, by what is known before this wave.

        An entity borrows from the established kind that is nearest to its own past, or for want of one to `places`.
        """
        rows = self._table.rows(entities)
        n = np.where(rows[:, None] >= 0, self._table.count[rows], 0).astype(np.float64)  # (N, P)
        own, variance = self._own(rows)
        distances = self._kinds.distances(np.where(n > 0, own, places))
        # A kind that nobody joined has nothing to lend, or a newcomer near it would go unseen.
        lenders = nearest(np.where(self._kinds.established(), distances, np.inf))
        moments = self._kinds.moments
        theirs, their_variance = moments.mean[lenders], moments.variance[lenders]  # of the last one for -1: not used
        share = n / (n + BORROWED)
        mean = share * own + (1 - share) * theirs
        # The variance of a mixture of the two pasts: that within each, and that between them.
        within = share * variance + (1 - share) * their_variance
        spread = np.sqrt(within + share * (1 - share) * (own - theirs) ** 2 + self._floor() ** 2)
        is_known = (lenders[:, None] >= 0) & (moments.weight[lenders] > 0) & ~_is_nobody(entities)[:, None]
        return Usual(rows, nearest(distances), np.where(is_known, mean, np.nan), spread)

    def beyond(self, usual: Usual, places: Values) -> Values:
        """How far (N, P) windows lie outside the usual range, NaN where nothing is usual yet.

        For magnitudes the factor from the nearer limit of the range, 1 inside: 3 is three times the upper one,
        a half is half the lower one. For others the distance from it in spreads, 0 inside, negative below.
        """
        away = places - usual.mean
        excess = np.sign(away) * np.maximum(np.abs(away) - EDGE * usual.spread, 0.0)
        bounded = np.clip(np.where(self._is_log, excess, excess / usual.spread), -FURTHEST, FURTHEST)
        return np.where(self._is_log, np.exp(bounded), bounded)

    def _own(self, rows: NDArray[np.int64]) -> tuple[Values, Values]:
        return self._table.mean[rows].astype(np.float64), self._table.variance[rows].astype(np.float64)

    def _floor(self) -> Values:
        """Least spread, (P,); twice the variance at first, as nobody has seen the other hours of the day yet."""
        unseen = max(0.0, 1.0 - self._wave / self._n_windows)
        floor: Values = np.where(self._is_log, LOG_FLOOR, FLOOR_SHARE * self._kinds.spread) * np.sqrt(1.0 + unseen)
        return floor

    # --- learning --------------------------------------------------------------------------------

    def learn(self, entities: Sequence[str], places: Values, usual: Usual) -> None:
        """Take in one wave: windows with the same end, one an entity, in an order that every replay repeats."""
        self._wave += 1
        places = np.where(_is_nobody(entities)[:, None], np.nan, usual.clipped(places))
        rows = self._admitted(entities, usual.rows, places)
        is_kept = rows >= 0
        n_before = np.zeros(len(rows), dtype=np.int64)
        n_before[is_kept] = self._table.count[rows[is_kept]].max(axis=1, initial=0)
        self._follow(rows[is_kept], places[is_kept])
        is_mature = n_before >= MATURE
        self._kinds.learn(places, np.where(is_mature, usual.kinds, -1))
        self._found(rows[is_mature])
        self._table.put(SHARED_KEY, [self._wave, *self._kinds.to_state()])

    def _admitted(self, entities: Sequence[str], rows: NDArray[np.int64], places: Values) -> NDArray[np.int64]:
        """Rows with newcomers given one while there is room, (N,)."""
        table, rows = self._table, rows.copy()
        new = np.flatnonzero((rows < 0) & np.isfinite(places).any(axis=1)).tolist()
        if len(new) > self._max_entities - table.n_entities:
            table.forget_before(self._wave)
            rows[rows >= 0] = table.rows([entities[at] for at in np.flatnonzero(rows >= 0).tolist()])
        for at in new[: max(0, self._max_entities - table.n_entities)]:
            rows[at] = table.add(entities[at])
        return rows

    def _follow(self, rows: NDArray[np.int64], places: Values) -> None:
        """Move each entity's moments towards its window."""
        table = self._table
        known = np.isfinite(places)
        mean, variance = self._own(rows)
        n = np.minimum(table.count[rows].astype(np.int64) + known, self._n_windows)
        share = np.where(known, 1.0 / np.maximum(n, 1), 0.0)
        step = np.where(known, places - mean, 0.0)
        table.mean[rows] = mean + share * step
        # West 1979, Updating mean and variance estimates, with a weight that stops falling.
        table.variance[rows] = (1 - share) * (variance + share * step**2)
        table.count[rows] = n
        table.last_wave[rows] = self._wave
        table.touch(rows)

    def _found(self, rows: NDArray[np.int64]) -> None:
        """Found a kind after the first entity of the wave, if any, that is far from all there are."""
        if self._kinds.n == MAX_KINDS or not len(rows):
            return
        own, variance = self._own(rows)
        n = self._table.count[rows].astype(np.float64)
        distances = self._kinds.distances(np.where(n > 0, own, np.nan))
        far = np.flatnonzero(distances.min(axis=1, initial=np.inf) > FOUNDING_DISTANCE)
        if len(far):
            self._kinds.found(own[far[0]], variance[far[0]], n[far[0]])


def _is_nobody(entities: Sequence[str]) -> NDArray[np.bool_]:
    """Whether each is a whole source or `other`, which are no one behaviour; (N,)."""
    return np.fromiter((entity.startswith(SOURCE_PREFIX) for entity in entities), np.bool_, len(entities))
