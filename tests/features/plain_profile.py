"""The plain twin of profiles: one entity and one number at a time."""

import math

from stream_iwae.features import kinds as k
from stream_iwae.features import profiles as p


class Past:
    """Mean, variance and number of windows of one feature."""

    def __init__(self, mean=0.0, variance=0.0, n=0.0):
        self.mean, self.variance, self.n = mean, variance, n

    def take(self, values):
        """As a group of entities learns a wave."""
        if not values:
            return
        centre = self.mean if self.n else sum(values) / len(values)
        square = sum((value - centre) ** 2 for value in values) / len(values)
        self.n = min(self.n + len(values), k.WINDOWS)
        share = min(len(values) / self.n, 1.0)
        self.mean += share * (sum(values) / len(values) - self.mean)
        self.variance += share * (square - self.variance)


class PlainProfiles:
    def __init__(self, is_log, n_windows, max_entities=10**9):
        self.is_log, self.n_windows, self.max_entities = is_log, n_windows, max_entities
        self.own, self.last, self.kinds, self.wave = {}, {}, [], 0
        self.wave_before = 0
        self.population = [Past() for _ in is_log]

    def take(self, wave):
        """(entity, values with None where missing) of one wave, in order -> how far each lies beyond; None: unknown."""
        self.wave_before, self.wave = self.wave, self.wave + 1
        placed = [(entity, [self._place(j, x) for j, x in enumerate(values)]) for entity, values in wave]
        usual = [self._usual(entity, places) for entity, places in placed]
        out = [
            [self._beyond(j, y, one) for j, (y, one) in enumerate(zip(places, ranges, strict=True))]
            for (_, places), (_, ranges) in zip(placed, usual, strict=True)
        ]
        self._learn(placed, usual)
        return out

    def _place(self, j, x):
        if x is None or not self.is_log[j]:
            return x
        return math.copysign(math.log1p(abs(x)), x)

    def _spread(self, j):
        return math.sqrt(self.population[j].variance + 1e-12)

    def _nearest(self, places, least=0.0):
        """(distance, number) of the nearest kind that has seen so many windows."""
        known = [(j, y) for j, y in enumerate(places) if y is not None]
        found = []
        for number, kind in enumerate(self.kinds):
            if max(past.n for past in kind) < least:
                continue
            squares = [min(((y - kind[j].mean) / self._spread(j)) ** 2, 9.0) for j, y in known]
            found.append((sum(squares) / max(len(known), 1), number))
        return min(found, default=(math.inf, -1))

    def _usual(self, entity, places):
        own = self.own.get(entity, [Past() for _ in self.is_log])
        like = [past.mean if past.n else y for past, y in zip(own, places, strict=True)]
        _, number = self._nearest(like)
        _, lender = self._nearest(like, k.KNOWN)
        if lender < 0 or entity.startswith("\x1e"):
            return number, [None] * len(own)
        ranges = []
        for j, (mine, theirs) in enumerate(zip(own, self.kinds[lender], strict=True)):
            share = mine.n / (mine.n + p.BORROWED)
            mean = share * mine.mean + (1 - share) * theirs.mean
            within = share * mine.variance + (1 - share) * theirs.variance
            between = share * (1 - share) * (mine.mean - theirs.mean) ** 2
            floor = p.LOG_FLOOR if self.is_log[j] else p.FLOOR_SHARE * self._spread(j)
            floor *= math.sqrt(1 + max(0.0, 1 - self.wave_before / self.n_windows))
            ranges.append((mean, math.sqrt(within + between + floor**2)) if theirs.n else None)
        return number, ranges

    def _beyond(self, j, y, one):
        if y is None or one is None:
            return None
        mean, spread = one
        excess = math.copysign(max(abs(y - mean) - p.EDGE * spread, 0.0), y - mean)
        bounded = max(-p.FURTHEST, min(p.FURTHEST, excess if self.is_log[j] else excess / spread))
        return math.exp(bounded) if self.is_log[j] else bounded

    def _learn(self, placed, usual):
        learnt = []
        for (entity, places), (_, ranges) in zip(placed, usual, strict=True):
            clipped = [
                y if y is None or one is None else max(one[0] - p.EDGE * one[1], min(one[0] + p.EDGE * one[1], y))
                for y, one in zip(places, ranges, strict=True)
            ]
            learnt.append([None] * len(places) if entity.startswith("\x1e") else clipped)
        new = [
            e for (e, _), y in zip(placed, learnt, strict=True) if e not in self.own and any(v is not None for v in y)
        ]
        if len(new) > self.max_entities - len(self.own):
            for entity in [e for e, own in self.own.items() if self.last[e] + max(x.n for x in own) < self.wave]:
                del self.own[entity], self.last[entity]
        for entity in new[: max(0, self.max_entities - len(self.own))]:
            self.own[entity] = [Past() for _ in self.is_log]
        before = {e: max(past.n for past in self.own[e]) if e in self.own else 0 for e, _ in placed}
        for (entity, _), places in zip(placed, learnt, strict=True):
            if entity in self.own:
                self.last[entity] = self.wave
                for past, y in zip(self.own[entity], places, strict=True):
                    self._follow(past, y)
        for j, past in enumerate(self.population):
            past.take([y[j] for y in learnt if y[j] is not None])
        for number, kind in enumerate(self.kinds):
            members = [
                y
                for (e, _), y, (mine, _) in zip(placed, learnt, usual, strict=True)
                if mine == number and before[e] >= p.MATURE
            ]
            for j, past in enumerate(kind):
                past.take([y[j] for y in members if y[j] is not None])
        if len(self.kinds) < k.MAX_KINDS:
            self._found([self.own[e] for e, _ in placed if before[e] >= p.MATURE])

    def _follow(self, past, y):
        if y is None:
            return
        past.n = min(past.n + 1, self.n_windows)
        share, step = 1 / past.n, y - past.mean
        past.mean += share * step
        past.variance = (1 - share) * (past.variance + share * step**2)

    def _found(self, mature):
        for own in mature:
            distance, _ = self._nearest([past.mean if past.n else None for past in own])
            if distance > k.FOUNDING_DISTANCE:
                both = zip(own, self.population, strict=True)
                self.kinds.append(
                    [Past(*((a.mean, a.variance, a.n) if a.n else (b.mean, b.variance, 0))) for a, b in both]
                )
                return
