"""Encoder, decoder and the joint density they define.

K samples, N rows, L latent dimensions, D features = C continuous (two bounded columns each) + G categories.
"""

import itertools
from collections.abc import Sequence
from typing import Final, NamedTuple

import torch
from torch import Tensor, nn

from stream_iwae.iwae.likelihoods import (
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


class Network(nn.Module):
    """q(z | x) and p(x | z) of an autoencoder for mixed, partly missing features."""

    def __init__(self, n_continuous: int, class_counts: Sequence[int], settings: ModelSettings) -> None:
        super().__init__()
        self.n_continuous = n_continuous
        self.class_counts = list(class_counts)
        self.sigma_floor = settings.sigma_floor
        n_classes = sum(class_counts)
        self.encoder = _layers([3 * n_continuous + n_classes, *settings.hidden, 2 * settings.latent])
        self.decoder = _layers([settings.latent, *reversed(settings.hidden), 2 * n_continuous + n_classes])
        self.raw_scale = nn.Parameter(torch.full((2 * n_continuous,), SCALE_START))

    @property
    def scale(self) -> Tensor:
        """Scale of each bounded column, (2C,), never below the floor."""
        return nn.functional.softplus(self.raw_scale) + self.sigma_floor

    def encode(self, rows: Encoded) -> Posterior:
        """q(z | x) of N rows."""
        inputs = [rows.bounded, rows.mask]
        for i, n_classes in enumerate(self.class_counts):
            one_hot = nn.functional.one_hot(rows.classes[:, i], n_classes)
            inputs.append(one_hot * rows.class_mask[:, i : i + 1])
        mean, log_sigma = self.encoder(torch.cat(inputs, dim=-1)).chunk(2, dim=-1)
        return Posterior(mean, log_sigma.clamp(*LOG_SIGMA_RANGE))

    def decode(self, z: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Locations (K, N, 2C) and logits, G of (K, N, classes)."""
        out = self.decoder(z)
        location = out[..., : 2 * self.n_continuous]
        return location, list(out[..., 2 * self.n_continuous :].split(self.class_counts, dim=-1))

    def terms(self, rows: Encoded, z: Tensor) -> Tensor:
        """Log p(x_j | z_k) of each feature: (K, N, C + G), continuous ones first, in nats."""
        location, logits = self.decode(z)
        parts = [continuous_terms(rows.bounded, rows.mask, location, self.scale)]
        if self.class_counts:
            parts.append(category_terms(rows.classes, rows.class_mask, logits))
        return torch.cat(parts, dim=-1)


def log_weights(network: Network, rows: Encoded, z: Tensor, posterior: Posterior) -> Tensor:
    """Log p(x, z_k) - log q(z_k | x), shape (K, N), in nats."""
    log_joint = network.terms(rows, z).sum(dim=-1) + standard_normal_log_density(z)
    return log_joint - posterior.log_density(z)


def _layers(widths: Sequence[int]) -> nn.Sequential:
    layers: list[nn.Module] = []
    for n_in, n_out in itertools.pairwise(widths):
        layers += [nn.Linear(n_in, n_out), nn.SiLU()]
    return nn.Sequential(*layers[:-1])
