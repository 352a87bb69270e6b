"""The closed-form model: x = W z + mu + eps, everything about it known exactly. Float64."""

import math

import torch

from stream_iwae.iwae.likelihoods import gaussian_log_density, standard_normal_log_density
from stream_iwae.iwae.network import Posterior

W = torch.tensor([[1, 0], [0.8, -0.5], [0.3, 0.9], [-0.6, 0.4], [0, 1.2]], dtype=torch.float64)
MU = torch.tensor([0.5, -0.2, 0.1, 0, 1], dtype=torch.float64)
VARIANCES = torch.tensor([0.25, 0.4, 0.3, 0.5, 0.2], dtype=torch.float64)
SHIFT = torch.tensor([0.15, -0.10], dtype=torch.float64)
PROPOSAL_VARIANCES = torch.tensor([0.20, 0.16], dtype=torch.float64)
X0 = torch.tensor([0.6, 0.1, 0.3, -0.2, 1.4], dtype=torch.float64)
X1 = torch.tensor([2, 1.5, -0.8, -1.5, -0.5], dtype=torch.float64)
X2 = torch.tensor([6, -5, 4, 3, -3], dtype=torch.float64)


def posterior_covariance():
    return torch.linalg.inv(torch.eye(2, dtype=torch.float64) + W.T @ torch.diag(1 / VARIANCES) @ W)


def posterior_mean(x):
    return posterior_covariance() @ W.T @ ((x - MU) / VARIANCES)


def log_marginal(x, observed=slice(None)):
    covariance = (W @ W.T + torch.diag(VARIANCES))[observed][:, observed]
    return torch.distributions.MultivariateNormal(MU[observed], covariance).log_prob(x[observed])


def log_joint(x, z, mu=MU, log_scales=None, observed=slice(None)):
    """log p(x, z_k), (K, N); z is (K, N, 2)."""
    log_scales = 0.5 * VARIANCES.log() if log_scales is None else log_scales
    location = z @ W.T + mu
    terms = gaussian_log_density(x[observed], location[..., observed], log_scales.exp()[observed])
    return terms.sum(dim=-1) + standard_normal_log_density(z)


def proposal(x, shift=SHIFT, log_sigma=None):
    """The proposal of the figures: the posterior's mean shifted, its variances diagonal."""
    log_sigma = 0.5 * PROPOSAL_VARIANCES.log() if log_sigma is None else log_sigma
    return Posterior(posterior_mean(x) + shift, log_sigma)


def log_weights(x, n_samples, n_rows, generator, q=None, **joint):
    q = proposal(x) if q is None else q
    noise = torch.randn(n_samples, n_rows, 2, generator=generator, dtype=torch.float64)
    z = q.sample(noise)
    return log_joint(x, z, **joint) - q.log_density(z), z


def kl_to_posterior():
    covariance = posterior_covariance()
    precision = torch.linalg.inv(covariance)
    trace = (precision.diagonal() * PROPOSAL_VARIANCES).sum()
    quadratic = SHIFT @ precision @ SHIFT
    return 0.5 * (trace + quadratic - 2 + covariance.logdet() - PROPOSAL_VARIANCES.log().sum())


LOG_2PI = math.log(2 * math.pi)
