"""Encoder, decoder and the joint density they define.

K samples, N rows, L latent dimensions, D features = C continuous (two bounded columns each) + G categories
with M classes in all.
"""

import itertools
from collections.abc import Sequence
from typing import Final, NamedTuple

import torch
from torch import Tensor, nn

from stream_iwae.iwae.likelihoods import (
    MIN_OUTPUTS,
    Classes,
    category_terms,
    continuous_terms,
    gaussian_log_density,
    standard_normal_log_density,
)
from stream_iwae.iwae.settings import ModelSettings
from stream_iwae.iwae.transform import Encoded

LOG_SIGMA_RANGE: Final = (-5.0, 1.0)  # of the encoder
SCALE_START: Final = -1.0  # of the likelihood, before softplus and floor


class Posterior(NamedTuple):
    """q(z | x) = N(mean, sigma^2), both (N, L)."""

    mean: Tensor
    log_sigma: Tensor

    def sample(self, noise: Tensor) -> Tensor:
        """Reparameterised samples (K, N, L) from standard normals (K, N, L) or (K, 1, L)."""
        return self.mean + self.log_sigma.exp() * noise

    def log_density(self, z: Tensor) -> Tensor:
        """Log q(z | x) of (K, N, L), shape (K, N), in nats."""
        return gaussian_log_density(z, self.mean, self.log_sigma.exp()).sum(dim=-1)

    def detach(self) -> "Posterior":
        """The same density, its parameters held constant."""
        return Posterior(self.mean.detach(), self.log_sigma.detach())


class SteadyLinear(nn.Linear):
    """A linear layer that gives a row the same bits wherever it stands among the others.

    Measured with MKL 2024.2: a product with 2 to 11 outputs rounds the last rows of a batch in another
    order than the first ones; from 12 outputs on it does not. So narrow layers compute 16 outputs.
    """

    def forward(self, x: Tensor) -> Tensor:
        """(..., in) -> (..., out)."""
        missing = MIN_OUTPUTS - self.out_features
        if missing <= 0:
            return super().forward(x)
        weight = nn.functional.pad(self.weight, (0, 0, 0, missing))
        return nn.functional.linear(x, weight, nn.functional.pad(self.bias, (0, missing)))[..., : self.out_features]


class Network(nn.Module):
    """q(z | x) and p(x | z) of an autoencoder for mixed, partly missing features."""

    class_starts: Tensor
    class_sizes: Tensor
    class_blocks: Tensor

    def __init__(self, n_continuous: int, class_counts: Sequence[int], settings: ModelSettings) -> None:
        super().__init__()
        self.n_continuous = n_continuous
        self.class_counts = list(class_counts)
        self.sigma_floor = settings.sigma_floor
        n_classes = sum(class_counts)
        self.encoder = _layers([3 * n_continuous + n_classes, *settings.hidden, 2 * settings.latent])
        self.decoder = _layers([settings.latent, *reversed(settings.hidden), 2 * n_continuous + n_classes])
        self.raw_scale = nn.Parameter(torch.full((2 * n_continuous,), SCALE_START))
        for name, part in Classes.of(class_counts)._asdict().items():  # they follow the device, and are no weights
            self.register_buffer(f"class_{name}", part, persistent=False)

    @property
    def classes(self) -> Classes:
        """Which of the M classes belong to which category."""
        return Classes(self.class_starts, self.class_sizes, self.class_blocks)

    @property
    def scale(self) -> Tensor:
        """Scale of each bounded column, (2C,), never below the floor."""
        return nn.functional.softplus(self.raw_scale) + self.sigma_floor

    def encode(self, rows: Encoded) -> Posterior:
        """q(z | x) of N rows."""
        one_hot = torch.zeros(len(rows.bounded), len(self.class_blocks), device=rows.bounded.device)  # (N, M)
        one_hot = one_hot.scatter(1, rows.classes + self.class_starts, rows.class_mask)
        inputs = [rows.bounded, rows.mask, one_hot]
        mean, log_sigma = self.encoder(torch.cat(inputs, dim=-1)).chunk(2, dim=-1)
        return Posterior(mean, log_sigma.clamp(*LOG_SIGMA_RANGE))

    def decode(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """Locations (K, N, 2C) and logits (K, N, M)."""
        location, logits = self.decoder(z).split([2 * self.n_continuous, len(self.class_blocks)], dim=-1)
        return location, logits

    def terms(self, rows: Encoded, z: Tensor) -> Tensor:
        """Log p(x_j | z_k) of each feature: (K, N, C + G), continuous ones first, in nats."""
        location, logits = self.decode(z)
        parts = [continuous_terms(rows.bounded, rows.mask, location, self.scale)]
        if self.class_counts:
            parts.append(category_terms(rows.classes, rows.class_mask, logits, self.classes))
        return torch.cat(parts, dim=-1)


def log_weights(network: Network, rows: Encoded, z: Tensor, posterior: Posterior) -> Tensor:
    """Log p(x, z_k) - log q(z_k | x), shape (K, N), in nats."""
    return log_weights_of(network.terms(rows, z), z, posterior)


def log_weights_of(terms: Tensor, z: Tensor, posterior: Posterior) -> Tensor:
    """Log p(x, z_k) - log q(z_k | x), shape (K, N), in nats, from the terms (K, N, C + G) of log p(x | z_k)."""
    return terms.sum(dim=-1) + standard_normal_log_density(z) - posterior.log_density(z)


def _layers(widths: Sequence[int]) -> nn.Sequential:
    layers: list[nn.Module] = []
    for n_in, n_out in itertools.pairwise(widths):
        layers += [SteadyLinear(n_in, n_out), nn.SiLU()]
    return nn.Sequential(*layers[:-1])
