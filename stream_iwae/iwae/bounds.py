"""ELBO, importance-weighted bound and their gradients, from log weights of shape (K, N).

K samples, N rows, log w_k = log p(x, z_k) - log q(z_k | x).
Sources: Burda, Grosse, Salakhutdinov 2016 (IWAE); Tucker, Lawson, Gu, Maddison 2018 (DReG).
"""

import math

import torch
from torch import Tensor


def log_marginal_estimate(log_weights: Tensor) -> Tensor:
    """Estimate log p(x) from K importance samples; in expectation a lower bound that tightens with K.

    Args:
        log_weights: Shape (K, N), in nats.

    Returns:
        Shape (N,), in nats.

    Raises:
        ValueError: There are no samples.

    Source: Burda, Grosse, Salakhutdinov 2016, equation 8.

    >>> log_marginal_estimate(torch.tensor([[0.0, -1.0], [0.0, -1.0]]))
    tensor([ 0., -1.])
    """
    n_samples = log_weights.shape[0]
    if n_samples == 0:
        raise ValueError(f"need K >= 1 samples, got shape {tuple(log_weights.shape)}")
    return torch.logsumexp(log_weights, dim=0) - math.log(n_samples)  # (K, N) -> (N,)


def elbo_estimate(log_weights: Tensor) -> Tensor:
    """The evidence lower bound L_1, averaged over K samples; shape (N,), in nats."""
    return log_weights.mean(dim=0)


def normalised_weights(log_weights: Tensor) -> Tensor:
    """Importance weights that sum to one over the samples; shape (K, N)."""
    return torch.softmax(log_weights, dim=0)


def effective_sample_size(weights: Tensor) -> Tensor:
    """1 / sum_k wn_k^2, in [1, K]; shape (N,)."""
    return 1.0 / weights.square().sum(dim=0)


def standard_error(weights: Tensor) -> Tensor:
    """Standard error of log_marginal_estimate by the delta method; shape (N,), in nats; NaN for K = 1.

    se^2 = (sum_k wn_k^2 - 1/K) K / (K - 1)
    """
    n_samples = weights.shape[0]
    if n_samples == 1:
        return torch.full_like(weights[0], math.nan)
    variance = (weights.square().sum(dim=0) - 1.0 / n_samples) * n_samples / (n_samples - 1)
    return variance.clamp_min(0.0).sqrt()


def elbo_standard_error(log_weights: Tensor) -> Tensor:
    """Standard error of elbo_estimate; shape (N,), in nats; NaN for K = 1."""
    n_samples = log_weights.shape[0]
    if n_samples == 1:
        return torch.full_like(log_weights[0], math.nan)
    return log_weights.std(dim=0) / math.sqrt(n_samples)


def doubly_reparameterised_loss(log_weights: Tensor, z: Tensor) -> Tensor:
    """Loss (N,) with DReG's gradients; its value means nothing, log `-log_marginal_estimate`.

    The decoder gets sum_k wn_k grad log w_k; whatever made `z` gets
    sum_k wn_k^2 (d log w_k / d z_k)(d z_k / d phi): one graph, the gradient at z weighted once more.

    Args:
        log_weights: (K, N), with log q computed from detached parameters.
        z: (K, N, L), the reparameterised samples.

    Source: Tucker, Lawson, Gu, Maddison 2018, equation 8.
    """
    weights = normalised_weights(log_weights.detach())
    if z.requires_grad:
        z.register_hook(lambda gradient: gradient * weights.unsqueeze(-1))
    return -(weights * log_weights).sum(dim=0)
