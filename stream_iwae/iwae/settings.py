"""Settings of the model: plain values, so that the package runs wherever torch does."""

import math
from dataclasses import dataclass
from typing import Literal, get_args

Objective = Literal["iwae", "vae", "autoencoder"]
ScoreName = Literal["combined", "bound", "reconstruction"]
Device = Literal["auto", "cpu", "cuda"]


@dataclass(frozen=True, slots=True)
class ModelSettings:
    """Objective, sizes and training of one model. The defaults are docs/results' best configuration."""

    objective: Objective = "iwae"
    score: ScoreName = "combined"  # reconstruction: -sum_k wn_k log p(x | z_k)
    hidden: tuple[int, ...] = (64, 64)  # widths of encoder and, mirrored, decoder
    latent: int = 8
    train_samples: int = 8  # K in training
    score_samples: int = 16  # K in scoring
    cascade_samples: int = 0  # K of a second scoring of rows near the threshold; 0: none
    steps: int = 1200
    batch: int = 128
    learning_rate: float = 2e-3
    weight_decay: float = 1e-4
    gradient_clip: float = 5.0
    sigma_floor: float = 0.3  # of the bounded targets; the largest single gain measured
    trim: float = 0.0  # share of each batch with the highest losses that is left out
    category_dropout: float = 0.02  # so that the class for unseen values is known to the encoder
    device: Device = "auto"

    def __post_init__(self) -> None:
        for name, known in (("objective", Objective), ("score", ScoreName), ("device", Device)):
            if getattr(self, name) not in get_args(known):
                raise ValueError(f"model.{name} must be one of {get_args(known)}, got {getattr(self, name)!r}")
        for name in ("latent", "train_samples", "score_samples", "steps", "batch"):
            if getattr(self, name) < 1:
                raise ValueError(f"model.{name} must be at least 1, got {getattr(self, name)}")
        if self.cascade_samples and self.cascade_samples <= self.score_samples:
            raise ValueError(
                f"model.cascade_samples must be 0 or more than model.score_samples, which is {self.score_samples}, "
                f"got {self.cascade_samples}"
            )
        if not self.hidden or min(self.hidden) < 1:
            raise ValueError(f"model.hidden needs widths of at least 1, such as [64, 64], got {self.hidden}")
        for name in ("learning_rate", "gradient_clip", "sigma_floor"):
            if not 0 < getattr(self, name) < math.inf:
                raise ValueError(f"model.{name} must be a number above 0, got {getattr(self, name)}")
        if not 0 <= self.weight_decay < math.inf:
            raise ValueError(f"model.weight_decay must be a number of at least 0, got {self.weight_decay}")
        for name in ("trim", "category_dropout"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(f"model.{name} must be in [0, 1), got {getattr(self, name)}")
