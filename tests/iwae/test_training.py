import math
import zlib

import numpy as np
import pytest
import torch

from stream_iwae.errors import ArtefactError
from stream_iwae.iwae.artefact import pack, unpack
from stream_iwae.iwae.bounds import doubly_reparameterised_loss
from stream_iwae.iwae.likelihoods import gaussian_log_density, standard_normal_log_density
from stream_iwae.iwae.scoring import CHUNK_ROWS, Scorer
from stream_iwae.iwae.settings import ModelSettings
from stream_iwae.iwae.training import DivergedError, Features, train, tune, with_channels
from stream_iwae.iwae.transform import Transform

KINDS = ("magnitude", "ratio", "gauge", "category", "cyclic", "magnitude")
NAMES = ("bytes", "share", "level", "proto", "hour", "constant")
TCP, UDP = (float(zlib.crc32(text)) for text in (b"tcp", b"udp"))
FEATURES = Features(NAMES, KINDS, "digest", {int(TCP): "tcp", int(UDP): "udp"})
SHORT = ModelSettings(steps=200, hidden=(32, 32), latent=3)


def ordinary(n, seed=0):
    """Two modes: tcp with many bytes and a high share, udp with few and a low one."""
    rng = np.random.default_rng(seed)
    is_tcp = rng.random(n) < 0.6
    columns = [
        np.where(is_tcp, rng.lognormal(9, 0.4, n), rng.lognormal(4, 0.3, n)),
        np.clip(np.where(is_tcp, 0.8, 0.1) + rng.normal(0, 0.05, n), 0, 1),
        rng.normal(20, 2, n),
        np.where(is_tcp, TCP, UDP),
        rng.random(n),
        np.full(n, 7.0),
    ]
    rows = np.stack(columns, axis=1)
    rows[rng.random(n) < 0.05, 2] = np.nan
    return rows


def separation(strange, usual):
    """Area under the ROC curve: the chance that a strange row scores above a usual one."""
    return float((strange[:, None] > usual[None, :]).mean())


@pytest.fixture(scope="module")
def model():
    torch.set_num_threads(1)
    return train(ordinary(2000), FEATURES, SHORT, seed=1)


def test_a_linear_model_comes_within_a_hundredth_of_the_maximum_likelihood():
    """Probabilistic PCA: the best mean log p is known in closed form (Tipping and Bishop 1999, equation 3)."""
    n, n_features, latent, n_samples = 2000, 8, 3, 8
    generator = torch.Generator().manual_seed(4)
    loadings = torch.randn(n_features, latent, generator=generator, dtype=torch.float64)
    noise = torch.randn(n, n_features, generator=generator, dtype=torch.float64)
    data = torch.randn(n, latent, generator=generator, dtype=torch.float64) @ loadings.T + 0.5 * noise
    data -= data.mean(dim=0)
    eigenvalues = torch.linalg.eigvalsh(data.T @ data / n).flip(0)
    sigma2 = eigenvalues[latent:].mean()
    best = -0.5 * (
        n_features * math.log(2 * math.pi)
        + eigenvalues[:latent].log().sum()
        + (n_features - latent) * sigma2.log()
        + n_features
    )

    decoder = torch.zeros(n_features, latent, dtype=torch.float64)
    decoder += 0.3 * torch.randn(n_features, latent, generator=generator, dtype=torch.float64)
    encoder = (0.1 * torch.randn(latent, n_features, generator=generator, dtype=torch.float64)).requires_grad_()
    factor = torch.eye(latent, dtype=torch.float64).mul(0.5).requires_grad_()  # q has one full covariance for all
    log_sigma = torch.zeros((), dtype=torch.float64, requires_grad=True)
    decoder.requires_grad_()
    parameters = [decoder, encoder, factor, log_sigma]
    optimiser = torch.optim.Adam(parameters, lr=1e-2)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, 3000)
    for _ in range(3000):
        batch = data[torch.randint(n, (256,), generator=generator)]
        mean = batch @ encoder.T
        epsilon = torch.randn(n_samples, 256, latent, generator=generator, dtype=torch.float64)
        z = mean + epsilon @ factor.T
        # log q from detached parameters, as DReG wants it.
        white = torch.linalg.solve_triangular(factor.detach().tril(), (z - mean.detach()).mT, upper=False).mT
        log_q = standard_normal_log_density(white) - factor.detach().tril().diagonal().abs().log().sum()
        log_p = gaussian_log_density(batch, z @ decoder.T, log_sigma.exp()).sum(-1) + standard_normal_log_density(z)
        optimiser.zero_grad()
        doubly_reparameterised_loss(log_p - log_q, z).mean().backward()
        factor.grad.tril_()
        optimiser.step()
        schedule.step()
    covariance = decoder @ decoder.T + (2 * log_sigma).exp() * torch.eye(n_features, dtype=torch.float64)
    reached = torch.distributions.MultivariateNormal(torch.zeros(n_features).double(), covariance).log_prob(data).mean()

    assert 0 <= float((best - reached).detach()) < 0.01


def test_what_breaks_the_habit_scores_above_all_that_keeps_it(model):
    strange = ordinary(50, seed=9)
    strange[:, 0] = 3e9
    mixed = ordinary(50, seed=9)
    mixed[:, 3] = np.where(mixed[:, 3] == TCP, UDP, TCP)  # each value usual, together never seen
    scorer = Scorer(model)
    usual = scorer.score(ordinary(2000, seed=5)).scores

    assert separation(scorer.score(strange).scores, usual) > 0.95
    assert separation(scorer.score(mixed).scores, usual) > 0.95


@pytest.mark.parametrize("objective", ["iwae", "vae", "autoencoder"])
def test_every_objective_trains_and_scores(objective):
    settings = ModelSettings(objective=objective, steps=150, hidden=(32,), latent=3)
    scorer = Scorer(train(ordinary(800), FEATURES, settings, seed=0))
    far = ordinary(20, seed=2)
    far[:, 0] = 1e10

    assert separation(scorer.score(far).scores, scorer.score(ordinary(500, seed=3)).scores) > 0.8


def test_the_same_seed_gives_the_same_model_and_another_another():
    settings = ModelSettings(steps=20)
    first, again, other = (train(ordinary(300), FEATURES, settings, seed) for seed in (5, 5, 6))

    assert all(torch.equal(first.weights[name], again.weights[name]) for name in first.weights)
    assert any(not torch.equal(first.weights[name], other.weights[name]) for name in first.weights)


def test_a_row_has_the_same_score_to_the_last_bit_in_any_company(model):
    scorer, rows = Scorer(model), ordinary(3 * CHUNK_ROWS + 17, seed=7)
    whole = scorer.score(rows)
    order = np.random.default_rng(0).permutation(len(rows))
    shuffled = scorer.score(rows[order])
    cut = np.concatenate([scorer.score(part).scores for part in np.array_split(rows, 13)])

    assert np.array_equal(whole.scores[order], shuffled.scores)
    assert np.array_equal(whole.reconstructions[order], shuffled.reconstructions)
    assert np.array_equal(whole.scores, cut)
    assert len(scorer.score(rows[:0]).scores) == 0


def test_non_finite_values_are_missing_and_poison_nothing(model):
    rows = ordinary(40, seed=8)
    poisoned = rows.copy()
    poisoned[3] = [np.inf, 0.5, -np.inf, np.nan, np.inf, np.nan]
    scorer = Scorer(model)
    clean, found = scorer.score(rows).scores, scorer.score(poisoned).scores

    assert np.isfinite(found).all()
    assert np.array_equal(np.delete(clean, 3), np.delete(found, 3))


def test_constant_zero_and_huge_columns_break_neither_training_nor_scores():
    rng = np.random.default_rng(0)
    rows = np.stack([np.zeros(300), np.full(300, 5.0), rng.lognormal(0, 8, 300), np.full(300, np.nan)], axis=1)
    features = Features(("a", "b", "c", "d"), ("magnitude",) * 4, "x", {})
    scorer = Scorer(train(rows, features, ModelSettings(steps=60), seed=0))
    deviation = rows[:5].copy()
    deviation[:, 1] = 5_000.0

    assert np.isfinite(scorer.score(rows).scores).all()
    assert scorer.score(deviation).scores.min() > np.median(scorer.score(rows).scores)


def test_the_planted_fault_is_named_first_with_a_sensible_expectation(model):
    rows = ordinary(200, seed=11)
    rows = rows[(rows[:, 3] == TCP) & np.isfinite(rows[:, 2])]
    rows[:, 0] = 40.0
    explained = Scorer(model).explain(rows)

    assert np.mean(np.nanargmax(explained.contributions, axis=1) == 0) > 0.9
    assert 2_000 < np.median(explained.expected[:, 0]) < 30_000
    assert np.all(explained.expected_low[:, 0] < explained.expected_high[:, 0])


def test_tuning_keeps_the_transform_and_moves_little(model):
    tuned = tune(model, ordinary(600, seed=3), seed=0)

    assert tuned.transform == model.transform
    distance = max(float((tuned.weights[name] - model.weights[name]).abs().max()) for name in model.weights)
    assert 0 < distance < 0.3


def test_training_needs_rows_and_refuses_weights_that_are_not_finite():
    with pytest.raises(ValueError, match="need at least 64 rows"):
        train(ordinary(10), FEATURES, SHORT, seed=0)
    with pytest.raises(DivergedError):
        train(ordinary(100), FEATURES, ModelSettings(steps=30, learning_rate=1e30), seed=0)


def test_an_artefact_comes_back_as_it_was_and_damage_is_refused(model):
    blob = pack(model)
    again = unpack(blob)
    rows = ordinary(100, seed=1)

    assert np.array_equal(Scorer(again).score(rows).scores, Scorer(model).score(rows).scores)
    assert again.labels == model.labels
    for damaged in (blob[:-1], blob[:50], b"", b"x" + blob, blob[:900] + bytes([blob[900] ^ 1]) + blob[901:]):
        with pytest.raises(ArtefactError):
            unpack(damaged)


def test_the_transform_decodes_what_it_encodes():
    rows = ordinary(500)
    transform = Transform.fit(rows, KINDS)
    encoded = transform.encode(rows)
    decoded = transform.decode(encoded.bounded.double().numpy())

    for place, column in enumerate(transform.continuous):
        is_there = np.isfinite(rows[:, column])
        assert np.allclose(decoded[is_there, place], rows[is_there, column], rtol=2e-2, atol=2e-2)
    assert encoded.classes.max() == 2
    unseen = rows[:1].copy()
    unseen[0, 3] = 12345.0
    assert int(transform.encode(unseen).classes[0, 0]) == 0


@pytest.mark.parametrize(("name", "value"), [("latent", 0), ("hidden", ()), ("trim", 1.0), ("sigma_floor", 0.0)])
def test_a_setting_out_of_range_names_itself(name, value):
    with pytest.raises(ValueError, match=f"model.{name}"):
        ModelSettings(**{name: value})


@pytest.mark.parametrize("is_trusted", [False, True])
def test_what_the_network_finds_odd_is_no_reference_unless_the_rows_are_trusted(model, is_trusted):
    group = np.tile([1e9, 0.5, 60.0, UDP, 0.5, 7.0], (60, 1)) + np.random.default_rng(0).normal(0, 1e-3, (60, 6))
    group[:, 3] = UDP
    channels = with_channels(model, np.vstack([ordinary(1_000), group]), 1, is_trusted=is_trusted).channels
    points = model.transform.points(model.transform.encode(group))

    assert (float(channels.neighbours.score(points).median()) > 1.0) == (not is_trusted)
    assert len(channels.neighbours.references) >= 600
