"""Rows of the training topic, and the hashes that decide what each is for."""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from enum import IntEnum
from typing import Self

import numpy as np
from numpy.typing import NDArray

from stream_iwae.batches import TrainingBatch


@dataclass(frozen=True, slots=True)
class Rows:
    """N closed windows, as columns of equal length."""

    row_ids: NDArray[np.uint64]  # (N,)
    entity_ids: NDArray[np.uint64]  # (N,)
    window_end_ms: NDArray[np.int64]  # (N,)
    values: NDArray[np.float64]  # (N, D), raw
    scores: NDArray[np.float64]  # (N,), nats under the model that served; NaN where there is none
    p_values: NDArray[np.float64]  # (N,)
    in_incident: NDArray[np.bool_]  # (N,)
    was_judged: NDArray[np.bool_]  # (N,), a model was there; its score may still be NaN

    def __post_init__(self) -> None:
        lengths = {field.name: len(getattr(self, field.name)) for field in fields(self)}
        if len(set(lengths.values())) != 1:
            raise ValueError(f"need columns of equal length, got {lengths}")

    def __len__(self) -> int:
        return len(self.row_ids)

    @classmethod
    def of(cls, batch: TrainingBatch) -> Self:
        """The rows of a batch."""
        return cls(
            row_ids=batch.row_ids,
            entity_ids=batch.entity_ids,
            window_end_ms=batch.window_end_ms,
            values=batch.values,
            scores=batch.scores,
            p_values=batch.p_values,
            in_incident=batch.in_incident,
            was_judged=np.full(len(batch), batch.model_version != ""),
        )

    @classmethod
    def empty(cls, n_features: int) -> Self:
        """No rows of D features."""
        return cls(
            row_ids=np.empty(0, np.uint64),
            entity_ids=np.empty(0, np.uint64),
            window_end_ms=np.empty(0, np.int64),
            values=np.empty((0, n_features)),
            scores=np.empty(0),
            p_values=np.empty(0),
            in_incident=np.empty(0, np.bool_),
            was_judged=np.empty(0, np.bool_),
        )

    @classmethod
    def concatenate(cls, parts: "Sequence[Rows]") -> Self:
        """All rows of at least one part, in order."""
        return cls(*(np.concatenate([getattr(part, field.name) for part in parts]) for field in fields(cls)))

    def take(self, at: NDArray[np.int64] | NDArray[np.bool_] | slice) -> Self:
        """The rows at some positions, or where a mask holds."""
        return type(self)(*(getattr(self, field.name)[at] for field in fields(self)))


class Salt(IntEnum):
    """Keeps the decisions that hang on one row's hash independent of each other."""

    PRIORITY = 0x5EED_0001  # which rows a full buffer keeps
    CALIBRATE = 0x5EED_0002
    HELD_OUT = 0x5EED_0003
    DRAW = 0x5EED_0004  # which rows of a buffer are drawn; by priority they would favour busy strata


def mix(ids: NDArray[np.uint64], salt: int) -> NDArray[np.uint64]:
    """64 well-mixed bits of each id.

    Source: Steele, Lea, Flood 2014, Fast splittable pseudorandom number generators, figure 17.
    """
    mixed = (ids ^ np.uint64(salt)) + np.uint64(0x9E3779B97F4A7C15)
    mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return mixed ^ (mixed >> np.uint64(31))


def is_chosen(ids: NDArray[np.uint64], salt: int, share: float) -> NDArray[np.bool_]:
    """Whether each id falls into a share of all ids, (N,); the same in every process."""
    return mix(ids, salt) < np.uint64(min(int(share * 2.0**64), 2**64 - 1))
