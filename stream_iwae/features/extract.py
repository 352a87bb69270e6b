"""WindowBatch -> FeatureBatch: raw values, what they are beside the entity's own past, and NaN for what is missing."""

import zlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Final

import numpy as np
import polars as pl
from numpy.typing import NDArray

from stream_iwae.batches import FeatureBatch, FeatureSchema, Kind, WindowBatch
from stream_iwae.features.config import (
    FeatureConfig,
    FeaturesConfig,
    profile_kinds,
    profiled_features,
    recent_features,
    schema,
)
from stream_iwae.features.profiles import Profiles
from stream_iwae.features.recent import Recent

_PERIOD_MS: Final = {"hour_of_day": 86_400_000, "day_of_week": 604_800_000}
_MONDAY_MS: Final = 4 * 86_400_000  # 1970-01-05 was the first Monday


class FeatureExtractor:
    """Derives the features that reach the model: those of the configuration in its order, then what the past adds."""

    def __init__(self, config: FeaturesConfig, field_types: Mapping[str, str]) -> None:
        self.schema: FeatureSchema = schema(config, field_types)
        self._features = [feature for feature in config.features if feature.output]
        self._profiled = profiled_features(config)
        self.profiles = Profiles(profile_kinds(config), config.profile_windows, config.profile_entities)
        self._with_recent = recent_features(config)
        self.recent = Recent(len(self._with_recent), config.profile_entities)

    def extract(self, windows: WindowBatch) -> FeatureBatch:
        """One row of D values a window; pasts learn from the windows, each once, in the order of their waves."""
        frame = windows.frame
        if not len(windows):
            return FeatureBatch.empty(self.schema)
        labels: dict[int, str] = {}
        columns = [
            self._column(feature, kind, frame, labels)
            for feature, kind in zip(self._features, self.schema.kinds, strict=False)  # those of the past come last
        ]
        entities = frame["entity"].to_list()
        values = np.stack([*columns, *self._beyond(frame, entities).T, *self._steps(frame, entities).T], axis=1)
        return FeatureBatch(
            schema=self.schema,
            values=np.where(np.isfinite(values), values, np.nan),
            entities=entities,
            window_start_ms=frame["window_start_ms"].to_numpy(),
            window_end_ms=frame["window_end_ms"].to_numpy(),
            n_events=frame["n_events"].to_numpy(),
            first_offset=frame["first_offset"].fill_null(-1).to_numpy(),
            last_offset=frame["last_offset"].fill_null(-1).to_numpy(),
            silence_p_values=frame["silence_p_value"].fill_null(np.nan).to_numpy(),
            labels=labels,
        )

    def _beyond(self, frame: pl.DataFrame, entities: Sequence[str]) -> NDArray[np.float64]:
        """How far each window lies beyond what is usual for its entity, (N, P): by the past, which then learns it."""
        if not self._profiled:
            return np.empty((frame.height, 0))
        profiles = self.profiles
        raw = [self._column(feature, Kind.GAUGE, frame, {}) for feature in self._profiled]
        places = profiles.places(np.stack(raw, axis=1))
        beyond = np.empty_like(places)
        for wave in _waves(frame):
            usual = profiles.usual(entities[wave], places[wave])
            beyond[wave] = profiles.beyond(usual, places[wave])
            profiles.learn(entities[wave], places[wave], usual)
        return beyond

    def _steps(self, frame: pl.DataFrame, entities: Sequence[str]) -> NDArray[np.float64]:
        """How far each window is from its entity's last ones, (N, R): by those before, which it then joins."""
        if not self._with_recent:
            return np.empty((frame.height, 0))
        raw = np.stack([self._column(feature, Kind.GAUGE, frame, {}) for feature in self._with_recent], axis=1)
        raw = np.where(np.isfinite(raw), raw, np.nan)
        steps = np.empty_like(raw)
        for wave in _waves(frame):
            steps[wave] = self.recent.differences(entities[wave], raw[wave])
            self.recent.learn(entities[wave], raw[wave])
        return steps

    def _column(
        self, feature: FeatureConfig, kind: Kind, frame: pl.DataFrame, labels: dict[int, str]
    ) -> NDArray[np.float64]:
        if feature.time is not None:
            since = frame["window_start_ms"].to_numpy() - (_MONDAY_MS if feature.time == "day_of_week" else 0)
            period = _PERIOD_MS[feature.time]
            phase: NDArray[np.float64] = (since % period) / period
            return phase
        if feature.ratio is not None:
            above, below = (frame[name].to_numpy().astype(np.float64) for name in feature.ratio)
            with np.errstate(divide="ignore", invalid="ignore"):  # x/0 and 0/0 are missing, not infinite
                quotient: NDArray[np.float64] = above / below
            return quotient
        column = frame[feature.name]
        if kind is Kind.CATEGORY:
            return _codes(column, labels)
        return column.cast(pl.Float64).fill_null(np.nan).to_numpy()


def _waves(frame: pl.DataFrame) -> Iterator[slice]:
    """Rows of equal window end, in which each entity has one; of single events each row is a wave of its own."""
    ends, starts = frame["window_end_ms"].to_numpy(), frame["window_start_ms"].to_numpy()
    is_record = frame.height > 0 and ends[0] - starts[0] == 1
    cuts = np.arange(1, frame.height) if is_record else np.flatnonzero(np.diff(ends)) + 1
    bounds = [0, *cuts.tolist(), frame.height]
    yield from map(slice, bounds[:-1], bounds[1:])


def _codes(column: pl.Series, labels: dict[int, str]) -> NDArray[np.float64]:
    """CRC-32 of each text, NaN where it is missing; the texts are added to `labels`. Numbers are written first."""
    distinct = column.unique().drop_nulls()
    texts = [value if isinstance(value, str) else f"{value:.15g}" for value in distinct.to_list()]
    codes = [zlib.crc32(text.encode()) for text in texts]
    labels.update(zip(codes, texts, strict=True))
    if not texts:
        return np.full(len(column), np.nan)
    coded = column.replace_strict(distinct, pl.Series(codes, dtype=pl.Float64), default=None, return_dtype=pl.Float64)
    return coded.fill_null(np.nan).to_numpy()
