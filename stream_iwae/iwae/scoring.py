"""Scores and explanations of raw rows; deterministic, and the same in any company.

Rows are scored in chunks padded to one fixed shape: measured on a CPU, a row's result in one shape
is the same in any position and company, while other shapes give other last bits.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from stream_iwae.iwae.artefact import Model
from stream_iwae.iwae.bounds import (
    effective_sample_size,
    elbo_estimate,
    elbo_standard_error,
    log_marginal_estimate,
    normalised_weights,
    standard_error,
)
from stream_iwae.iwae.channels import Channels
from stream_iwae.iwae.cuda_graphs import GraphedChunk
from stream_iwae.iwae.neighbours import sum_by_owner
from stream_iwae.iwae.network import log_weights_of
from stream_iwae.iwae.noise import noise_table
from stream_iwae.iwae.surprise import surprises
from stream_iwae.iwae.transform import Encoded

CHUNK_ROWS: Final = 256  # on a CPU: K times rows stays in the cache, 4096 at K = 16
CUDA_CHUNK_ROWS: Final = 8192  # a GPU is bound by launches: fewer and larger chunks
EXPLAIN_ROWS: Final = 32  # alerts are few, and each pays for a whole chunk
EXPLAIN_SAMPLES: Final = 16  # of each encoding; measured: 4 name a fault less often, 64 no more often
_HIDDEN_Z: Final = 3.0  # features beyond it are left out when the expectation is formed
_QUANTILE_90: Final = 1.6448536269514722  # the central 90 % of a normal distribution
_MAX_HIDDEN: Final = 0.5  # at most this share of the features is left out

Values = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Scores:
    """N scores; NaN where a row cannot be scored."""

    scores: Values  # (N,), nats; higher is more anomalous
    standard_errors: Values  # (N,), nats, of the samples' part in the score
    effective_samples: Values  # (N,), in [1, K]
    reconstructions: Values  # (N,), nats: -sum_k wn_k log p(x | z_k)
    bounds: Values  # (N,), nats: what the objective is, whatever the score; models are compared by it


@dataclass(frozen=True, slots=True)
class Explained:
    """What each of D features adds for R rows, and what was expected."""

    contributions: Values  # (R, D), robust z-scores of `feature_terms`; NaN where masked
    expected: Values  # (R, D), raw unit; CRC-32 for a category
    expected_low: Values  # (R, D), 5 % quantile of the posterior predictive
    expected_high: Values  # (R, D), 95 % quantile


def pick_device(name: str) -> torch.device:
    """`auto` is a GPU where there is one."""
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    return torch.device(name)


class Scorer:
    """A model on a device, with its noise."""

    def __init__(self, model: Model, device: str = "cpu", chunk_rows: int | None = None) -> None:
        """`chunk_rows` are scored at once; None for what is fastest on the device."""
        self.model = model
        self.device = pick_device(device)
        self.chunk_rows = chunk_rows or (CUDA_CHUNK_ROWS if self.device.type == "cuda" else CHUNK_ROWS)
        if self.device.type == "cuda":
            torch.backends.cuda.matmul.allow_tf32 = False  # measured: reduced precision moves scores by up to .7 nat
        settings = model.settings
        self._network = model.network().to(self.device)
        n_samples = 1 if settings.objective == "autoencoder" else settings.score_samples
        table = noise_table(n_samples, settings.latent, model.noise_seed).to(self.device, torch.float32)
        if settings.objective == "autoencoder":
            table = torch.zeros_like(table)
        self._noise = table.unsqueeze(1)  # (K, 1, L)
        self._neighbours = model.channels.neighbours.to(self.device) if model.channels is not None else None
        is_gpu = self.device.type == "cuda"
        self._scored: Callable[[Encoded], Tensor] = GraphedChunk(self._score_chunk) if is_gpu else self._score_chunk
        table = noise_table(EXPLAIN_SAMPLES, settings.latent, model.noise_seed).to(self.device, torch.float32)
        self._explaining_noise = table.unsqueeze(1)

    @property
    def labels(self) -> Mapping[int, str]:
        """Texts of the categories that the model knows."""
        return self.model.labels

    def score(self, values: Values, on_chunk: Callable[[], None] = lambda: None) -> Scores:
        """Score (N, D) raw values; `on_chunk` is called after each chunk.

        A row of which nothing is observed has no score, nor one whose score is not finite.
        """
        parts = []
        for rows in self._chunks(values, self.chunk_rows):
            parts.append(self._scored(rows).cpu())
            on_chunk()
        out = torch.cat(parts, dim=1)[:, : len(values)].numpy() if parts else np.empty((5, 0))
        bounds, errors, effective, reconstructions, distances = out
        channels = self.model.channels
        scores = reconstructions if self.model.settings.score == "reconstruction" else bounds
        if channels is not None:
            scores, errors = channels.combine(bounds, distances), errors / channels.of_network.scale
        is_scored = np.isfinite(values).any(axis=1) & np.isfinite(bounds)
        scores, bounds = (np.where(is_scored, found, np.nan) for found in (scores, bounds))
        return Scores(scores, errors, effective, reconstructions, bounds)

    def explain(self, values: Values) -> Explained:
        """Explain (R, D) raw values: features that look wrong are left out when the expectation is formed."""
        terms = self.feature_terms(values)
        medians = np.asarray(self.model.contribution_medians)
        scales = np.asarray(self.model.contribution_scales)
        contributions = (terms - medians) / scales
        ranked = np.nan_to_num(contributions, nan=-np.inf)
        most = max(1, int(_MAX_HIDDEN * values.shape[1]))
        cut = -np.sort(-ranked, axis=1)[:, most - 1 : most]
        hidden = (ranked > _HIDDEN_Z) & (ranked >= cut)
        expected, low, high = self._expect(np.where(hidden, np.nan, values))
        if self.model.channels is not None and len(values):
            contributions = self._with_gaps(values, contributions, self.model.channels)
        return Explained(contributions, expected, low, high)

    def _with_gaps(self, values: Values, contributions: Values, channels: Channels) -> Values:
        """Each feature's share, in nats, where the distance surprises and no feature looks wrong by itself."""
        chunks = list(self._chunks(values, EXPLAIN_ROWS))
        found = torch.cat([self._score_chunk(rows).cpu() for rows in chunks], dim=1)[:, : len(values)].numpy()
        parts = [channels.neighbours.differences(self.model.transform.points(rows).cpu()) for rows in chunks]
        squares = torch.cat(parts)[: len(values)].double().numpy()
        shares = sum_by_owner(squares, self.model.transform.point_owners, values.shape[1])
        shares /= np.maximum(shares.sum(axis=1, keepdims=True), 1e-12)
        nats = channels.of_distance.nats_of(found[4])[:, None]
        is_at_a_loss = np.nan_to_num(contributions, nan=-np.inf).max(axis=1) < _HIDDEN_Z
        is_gap = (is_at_a_loss & channels.is_gap(found[0], found[4]))[:, None]
        return np.where(is_gap & np.isfinite(values), shares * nats, contributions)

    def feature_terms(self, values: Values) -> Values:
        """-log p(x_j | x_-j) of each feature, (N, D), in nats; NaN where masked.

        An autoencoder has no density: there it is the reconstruction error of the feature.
        """
        order = [*self.model.transform.continuous, *self.model.transform.categories]
        out = np.empty_like(values)
        if self.model.settings.objective == "autoencoder":
            parts = [self._terms_chunk(rows).cpu() for rows in self._chunks(values, EXPLAIN_ROWS)]
            out[:, order] = torch.cat(parts)[: len(values)].double().numpy() if parts else np.empty(values.shape)
        else:
            out[:, order] = surprises(self._network, self._encode, values, self._explaining_noise)
        return np.where(np.isfinite(values), out, np.nan)

    def _encode(self, values: Values) -> Encoded:
        return Encoded(*(part.to(self.device) for part in self.model.transform.encode(values)))

    def _chunks(self, values: Values, size: int) -> Iterator[Encoded]:
        for start in range(0, len(values), size):
            chunk = values[start : start + size]
            if len(chunk) < size:
                chunk = np.concatenate([chunk, np.full((size - len(chunk), values.shape[1]), np.nan)])
            yield Encoded(*(part.to(self.device) for part in self.model.transform.encode(chunk)))

    @torch.no_grad()
    def _score_chunk(self, rows: Encoded) -> Tensor:
        _, terms, weights, log_w = self._sample(rows)
        reconstruction = -(weights * terms.sum(dim=-1)).sum(dim=0)
        objective = self.model.settings.objective
        if objective == "autoencoder":
            score = reconstruction
        elif objective == "vae":
            score = -elbo_estimate(log_w)
        else:
            score = -log_marginal_estimate(log_w)
        error = elbo_standard_error(log_w) if objective == "vae" else standard_error(weights)
        found = torch.stack([score, error, effective_sample_size(weights), reconstruction]).double()
        return torch.cat([found, self._distances(rows).unsqueeze(0)])

    def _distances(self, rows: Encoded) -> Tensor:
        """From the references, (N,) float64; NaN where the model has none."""
        if self._neighbours is None:
            return torch.full((len(rows.mask),), torch.nan, dtype=torch.float64, device=self.device)
        return self._neighbours.score(self.model.transform.points(rows))

    @torch.no_grad()
    def _terms_chunk(self, rows: Encoded) -> Tensor:
        _, terms, weights, _ = self._sample(rows)
        return -(weights.unsqueeze(-1) * terms).sum(dim=0)  # (N, C + G)

    def _sample(self, rows: Encoded) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """z_k (K, N, L), log p(x_j | z_k) (K, N, C + G), normalised and log weights (K, N)."""
        posterior = self._network.encode(rows)
        z = posterior.sample(self._noise)  # (K, N, L)
        terms = self._network.terms(rows, z)
        log_w = log_weights_of(terms, z, posterior)
        is_plain = self.model.settings.objective != "iwae"
        weights = torch.full_like(log_w, 1.0 / len(log_w)) if is_plain else normalised_weights(log_w)
        return z, terms, weights, log_w

    @torch.no_grad()
    def _expect(self, values: Values) -> tuple[Values, Values, Values]:
        transform = self.model.transform
        n_rows = len(values)
        means, spreads, chances = [], [], []
        for rows in self._chunks(values, EXPLAIN_ROWS):
            z, _, weights, _ = self._sample(rows)
            location, logits = self._network.decode(z)
            share = weights.unsqueeze(-1)  # (K, N, 1)
            mean = (share * location).sum(dim=0)
            variance = (share * (location - mean).square()).sum(dim=0) + self._network.scale.square()
            means.append(mean)
            spreads.append(variance.sqrt())
            classes = [torch.softmax(part, dim=-1) for part in logits.split(self._network.class_counts, dim=-1)]
            chances.append((share * torch.cat([*classes, logits[..., :0]], dim=-1)).sum(dim=0))  # (N, M)
        expected, low, high = (np.full(values.shape, np.nan) for _ in range(3))
        if not n_rows:
            return expected, low, high
        mean_np, spread_np, chance_np = (
            torch.cat(parts)[:n_rows].double().cpu().numpy() for parts in (means, spreads, chances)
        )
        columns = transform.continuous
        for target, shift in ((expected, 0.0), (low, -_QUANTILE_90), (high, _QUANTILE_90)):
            target[:, columns] = transform.decode(mean_np + shift * spread_np)
        # The two bounded scales may disagree: the interval holds the expected value all the same.
        low, high = np.minimum(low, expected), np.maximum(high, expected)
        cyclic = [i for i, kind in enumerate(transform.kinds) if kind == "cyclic"]
        low[:, cyclic] = high[:, cyclic] = np.nan  # on a circle there is no below
        ends = np.cumsum(transform.class_counts)
        for column, codes, end in zip(transform.categories, transform.classes, ends, strict=True):
            best = chance_np[:, end - len(codes) - 1 : end].argmax(axis=1)
            expected[:, column] = np.array([np.nan, *codes])[best]  # the unseen has no text to expect
        return expected, low, high
