import itertools
import math

import linear_gaussian as lg
import pytest
import torch

from stream_iwae.iwae.bounds import (
    doubly_reparameterised_loss,
    effective_sample_size,
    elbo_estimate,
    log_marginal_estimate,
    normalised_weights,
    standard_error,
)
from stream_iwae.iwae.network import Posterior


@pytest.mark.parametrize(
    ("x", "expected"), [(lg.X0, -4.161846462782), (lg.X1, -5.722939672676), (lg.X2, -156.641693182643)]
)
def test_the_model_of_these_tests_has_the_known_marginal(x, expected):
    assert float(lg.log_marginal(x)) == pytest.approx(expected, abs=1e-11)


def test_the_model_of_these_tests_has_the_known_posterior_and_gap():
    expected = torch.tensor([[0.13172454057661, 0.00644999860991], [0.00644999860991, 0.08473963690956]]).double()
    assert torch.allclose(lg.posterior_covariance(), expected, atol=1e-8)
    assert lg.posterior_mean(lg.X1).tolist() == pytest.approx([1.259851538825, -1.206778058884], abs=1e-11)
    assert float(lg.kl_to_posterior()) == pytest.approx(0.334785593966, abs=1e-11)


@pytest.mark.parametrize("n_samples", [1, 3, 64])
def test_the_exact_posterior_gives_the_exact_marginal_for_any_k(generator, n_samples):
    # A diagonal Gaussian cannot be the posterior, so rotate: sample it and take its own density.
    exact = torch.distributions.MultivariateNormal(lg.posterior_mean(lg.X1), lg.posterior_covariance())
    factor = torch.linalg.cholesky(lg.posterior_covariance())
    noise = torch.randn(n_samples, 5, 2, generator=generator, dtype=torch.float64)
    z = exact.mean + noise @ factor.T
    log_weights = lg.log_joint(lg.X1, z) - exact.log_prob(z)

    assert torch.allclose(log_marginal_estimate(log_weights), lg.log_marginal(lg.X1), atol=1e-10)
    assert torch.allclose(
        standard_error(normalised_weights(log_weights)).nan_to_num(0.0), torch.zeros(5).double(), atol=1e-6
    )


@pytest.mark.parametrize(
    ("n_samples", "gap", "deviation"),
    [(1, -0.33479, 1.045), (2, -0.1255, 0.566), (4, -0.0539, 0.344), (8, -0.0241, 0.227), (32, -0.00655, 0.108)],
)
def test_the_bound_has_the_known_gap_and_noise(generator, n_samples, gap, deviation):
    n_rows = 60_000
    log_weights, _ = lg.log_weights(lg.X1, n_samples, n_rows, generator)
    found = log_marginal_estimate(log_weights) - lg.log_marginal(lg.X1)

    assert float(found.std()) == pytest.approx(deviation, rel=0.03)
    assert float(found.mean()) == pytest.approx(gap, abs=5 * deviation / math.sqrt(n_rows) + 0.0008)


def test_the_gap_falls_as_the_expansion_says(generator):
    for n_samples in (8, 32):
        log_weights, _ = lg.log_weights(lg.X1, n_samples, 100_000, generator)
        gap = float((log_marginal_estimate(log_weights) - lg.log_marginal(lg.X1)).mean())
        expected = -0.183471409 / n_samples - 0.093832688 / n_samples**2
        assert gap == pytest.approx(expected, abs=0.003)


def test_one_sample_is_the_elbo(generator):
    log_weights, _ = lg.log_weights(lg.X1, 1, 200_000, generator)

    assert torch.equal(elbo_estimate(log_weights), log_marginal_estimate(log_weights))
    expected = float(lg.log_marginal(lg.X1) - lg.kl_to_posterior())
    assert float(elbo_estimate(log_weights).mean()) == pytest.approx(expected, abs=5 * 1.045 / math.sqrt(200_000))


def test_the_estimate_of_the_marginal_itself_is_unbiased(generator):
    log_weights, _ = lg.log_weights(lg.X1, 16, 50_000, generator)

    ratio = float((log_marginal_estimate(log_weights) - lg.log_marginal(lg.X1)).exp().mean())

    assert ratio == pytest.approx(1.0, abs=0.005)


def test_more_samples_never_loosen_the_bound_on_the_same_draws(generator):
    """Averaging over all ways to leave one sample out is L_{K-1} on the same draws: exact, no tolerance."""
    log_weights, _ = lg.log_weights(lg.X1, 6, 500, generator)
    whole = log_marginal_estimate(log_weights)
    subsets = [log_marginal_estimate(log_weights[list(kept)]) for kept in itertools.combinations(range(6), 5)]

    assert bool((torch.stack(subsets).mean(dim=0) <= whole + 1e-12).all())


def test_extreme_weights_neither_overflow_nor_vanish():
    log_weights = torch.tensor([[1e4, -1e4, -math.inf], [1e4, -1e4, 0.0]], dtype=torch.float64)

    assert log_marginal_estimate(log_weights).tolist() == pytest.approx([1e4, -1e4, -math.log(2)])
    with pytest.raises(ValueError, match="need K >= 1 samples"):
        log_marginal_estimate(torch.empty(0, 3))


def test_equal_weights_are_worth_all_samples_and_one_weight_is_worth_one():
    weights = torch.tensor([[0.25, 1.0], [0.25, 0.0], [0.25, 0.0], [0.25, 0.0]])

    assert effective_sample_size(weights).tolist() == pytest.approx([4.0, 1.0])
    assert standard_error(weights).tolist() == pytest.approx([0.0, 1.0])


def gradients(n_samples, n_rows, generator, loss):
    """Gradient of (shift, log sigma, mu) summed over rows, one row of draws at a time."""
    shift = lg.SHIFT.clone().expand(n_rows, 2).clone().requires_grad_()
    log_sigma = (0.5 * lg.PROPOSAL_VARIANCES.log()).expand(n_rows, 2).clone().requires_grad_()
    mu = lg.MU.expand(n_rows, 5).clone().requires_grad_()
    q = Posterior(lg.posterior_mean(lg.X1) + shift, log_sigma)
    z = q.sample(torch.randn(n_samples, n_rows, 2, generator=generator, dtype=torch.float64))
    loss(q, z, mu).sum().backward()
    # The known figures are by log s = 2 log sigma, the logarithm of the variance.
    return torch.cat([shift.grad, 0.5 * log_sigma.grad], dim=1), mu.grad


def dreg(q, z, mu):
    return doubly_reparameterised_loss(lg.log_joint(lg.X1, z, mu) - q.detach().log_density(z), z)


def plain(q, z, mu):
    return -log_marginal_estimate(lg.log_joint(lg.X1, z, mu) - q.log_density(z))


EXPECTED = {
    1: [-1.203, 1.270, -0.2623, -0.4473],
    4: [-0.2251, 0.1772, -0.0308, -0.0574],
    16: [-0.0489, 0.0369, -0.0061, -0.0120],
}


@pytest.mark.parametrize("n_samples", EXPECTED)
def test_the_doubly_reparameterised_gradient_has_the_known_mean(generator, n_samples):
    n_rows = 200_000 if n_samples < 16 else 60_000
    encoder, _ = gradients(n_samples, n_rows, generator, dreg)

    error = (encoder.std(dim=0) / math.sqrt(n_rows)).tolist()
    for found, expected, one_error in zip((-encoder.mean(dim=0)).tolist(), EXPECTED[n_samples], error, strict=True):
        assert found == pytest.approx(expected, abs=5 * one_error + 6e-4)


def test_the_plain_gradient_has_the_same_mean_and_far_more_noise(generator):
    encoder, _ = gradients(16, 60_000, generator, dreg)
    other, _ = gradients(16, 60_000, generator, plain)

    error = (other.std(dim=0) / math.sqrt(60_000)).tolist()
    for found, expected, one_error in zip(encoder.mean(dim=0).tolist(), other.mean(dim=0).tolist(), error, strict=True):
        assert found == pytest.approx(expected, abs=5 * one_error)
    assert bool((other.std(dim=0) > 3 * encoder.std(dim=0)).all())


def test_the_decoder_gets_the_exact_gradient_in_the_limit(generator):
    _, decoder = gradients(256, 4_000, generator, dreg)
    exact = [0.960593845, 0.221824349, -0.639517362, -0.522755706, -0.259331647]

    assert (-decoder.mean(dim=0)).tolist() == pytest.approx(exact, abs=0.02)


def test_signal_to_noise_rises_with_k_where_the_plain_gradient_s_falls(generator):
    def slope(loss):
        ratios = []
        for n_samples in (4, 64):
            encoder, _ = gradients(n_samples, 30_000, generator, loss)
            ratios.append(float((encoder.mean(dim=0) / encoder.std(dim=0)).abs().mean()))
        return math.log(ratios[1] / ratios[0]) / math.log(16)

    assert slope(dreg) == pytest.approx(0.5, abs=0.15)
    assert slope(plain) == pytest.approx(-0.5, abs=0.25)


def test_the_encoder_s_gradient_is_zero_when_the_proposal_is_the_posterior(generator):
    """One latent dimension: z ~ N(0, 1), x | z ~ N(z, 1); the posterior is N(x / 2, 1 / 2)."""
    x = torch.tensor(1.3, dtype=torch.float64)
    mean = (x / 2).clone().reshape(1).requires_grad_()
    log_sigma = torch.tensor([0.5 * math.log(0.5)], dtype=torch.float64, requires_grad=True)
    q = Posterior(mean, log_sigma)
    z = q.sample(torch.randn(8, 50, 1, generator=generator, dtype=torch.float64))
    log_joint = torch.distributions.Normal(z.squeeze(-1), 1.0).log_prob(x) + torch.distributions.Normal(
        0.0, 1.0
    ).log_prob(z.squeeze(-1))
    doubly_reparameterised_loss(log_joint - q.detach().log_density(z), z).sum().backward()

    assert float(mean.grad.abs()) < 1e-12
    assert float(log_sigma.grad.abs()) < 1e-12


def test_masked_features_leave_the_marginal_of_the_others(generator):
    observed = torch.tensor([0, 2, 3])
    log_weights, _ = lg.log_weights(lg.X1, 4096, 50, generator, observed=observed)

    found = float(log_marginal_estimate(log_weights).mean())

    assert found == pytest.approx(float(lg.log_marginal(lg.X1, observed)), abs=0.02)
