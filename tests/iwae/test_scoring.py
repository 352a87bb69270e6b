import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from stream_iwae.iwae import scoring
from stream_iwae.iwae.likelihoods import CLASS_FLOOR
from stream_iwae.iwae.network import LOG_SIGMA_RANGE
from stream_iwae.iwae.noise import noise_table
from stream_iwae.iwae.scoring import CHUNK_ROWS, Scorer
from stream_iwae.iwae.settings import ModelSettings
from stream_iwae.iwae.training import Features, train

KINDS = ("magnitude", "category", "ratio", "gauge", "cyclic", "category", "count")
SETTINGS = ModelSettings(score="bound", hidden=(16,), latent=3, score_samples=6, device="cpu")


def scores_by_hand(model, rows):
    """A second implementation in float64 with torch.distributions, one row and one sample at a time."""
    weights = {name: tensor.double() for name, tensor in model.weights.items()}
    settings, transform = model.settings, model.transform
    encoded = transform.encode(rows)

    def layers(name, x):
        for i in (0, 2):
            x = weights[f"{name}.{i}.weight"] @ x + weights[f"{name}.{i}.bias"]
            x = x * torch.sigmoid(x) if i == 0 else x
        return x

    sigma = torch.nn.functional.softplus(weights["raw_scale"]) + settings.sigma_floor
    n_continuous, scores = len(transform.continuous), []
    for bounded, mask, classes, class_mask in zip(*encoded, strict=True):
        hot = torch.cat(
            [torch.eye(count)[c] * m for count, c, m in zip(transform.class_counts, classes, class_mask, strict=True)]
        )
        mean, log_sigma = layers("encoder", torch.cat([bounded, mask, hot]).double()).chunk(2)
        posterior = torch.distributions.Normal(mean, log_sigma.clamp(*LOG_SIGMA_RANGE).exp())
        log_weights = []
        for noise in noise_table(settings.score_samples, settings.latent, model.noise_seed):
            z = posterior.mean + posterior.stddev * noise
            location, *logits = layers("decoder", z).split([2 * n_continuous, *transform.class_counts])
            log_p = (torch.distributions.Normal(location, sigma).log_prob(bounded.double()) * mask.repeat(2)).sum()
            for logit, c, m in zip(logits, classes, class_mask, strict=True):
                log_p += m * torch.log((1 - CLASS_FLOOR) * torch.softmax(logit, 0)[c] + CLASS_FLOOR / len(logit))
            prior = torch.distributions.Normal(0.0, 1.0).log_prob(z).sum()
            log_weights.append(log_p + prior - posterior.log_prob(z).sum())
        scores.append(math.log(settings.score_samples) - float(torch.logsumexp(torch.stack(log_weights), 0)))
    return np.array(scores)


@pytest.fixture(scope="module")
def rows(make_rows):
    return make_rows(2 * CHUNK_ROWS + 30, KINDS, seed=2)


@pytest.fixture(scope="module")
def model(make_model, rows):
    return make_model(rows, KINDS, SETTINGS)


def test_a_score_is_minus_the_log_of_the_mean_weight(model, rows):
    assert Scorer(model).score(rows[:40]).scores == pytest.approx(scores_by_hand(model, rows[:40]), rel=1e-4, abs=1e-4)


def random_architecture(rng):
    kinds = tuple(rng.choice(["magnitude", "ratio", "gauge", "category", "cyclic"], int(rng.integers(1, 30))))
    widths = rng.choice([3, 5, 10, 13, 17, 30, 32, 64, 67], int(rng.integers(1, 3)))
    settings = ModelSettings(
        objective=str(rng.choice(["iwae", "vae", "autoencoder"])),
        score=str(rng.choice(["combined", "bound", "reconstruction"])),
        hidden=tuple(int(width) for width in widths),
        latent=int(rng.integers(1, 12)),
        score_samples=int(rng.choice([1, 3, 8, 16])),
        device="cpu",
    )
    return kinds, settings


@pytest.mark.parametrize("seed", range(30))
def test_no_bit_of_a_row_depends_on_its_company_whatever_the_network(make_rows, make_model, seed):
    rng = np.random.default_rng(seed)
    kinds, settings = random_architecture(rng)
    rows = make_rows(CHUNK_ROWS + 90, kinds, seed=seed)
    scorer = Scorer(make_model(rows, kinds, settings, seed=seed))
    order = rng.permutation(len(rows))
    whole, shuffled = scorer.score(rows), scorer.score(rows[order])

    for name in ("scores", "standard_errors", "effective_samples", "reconstructions", "bounds"):
        assert np.array_equal(getattr(whole, name)[order], getattr(shuffled, name), equal_nan=True)
    cut = [scorer.score(part).scores for part in np.split(rows, [1, 60, 61, 300])]
    assert np.array_equal(np.concatenate(cut), whole.scores, equal_nan=True)
    some, order = rows[:50], order[order < 50]
    explained, shuffled = scorer.explain(some), scorer.explain(some[order])
    for name in ("contributions", "expected", "expected_low", "expected_high"):
        assert np.array_equal(getattr(explained, name)[order], getattr(shuffled, name), equal_nan=True)


def test_other_chunk_shapes_agree_to_a_ten_thousandth(model, rows):
    scorer = Scorer(model)
    usual = scorer.score(rows).scores
    for n_rows in (1, 64, 4096):
        scorer.chunk_rows = n_rows
        assert scorer.score(rows[:200]).scores == pytest.approx(usual[:200], rel=1e-4, abs=1e-4)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_gpu_agrees_to_a_ten_thousandth(model, rows):
    on_cpu, on_gpu = Scorer(model, "cpu"), Scorer(model, "cuda")
    order = np.random.default_rng(0).permutation(len(rows))

    assert on_gpu.score(rows).scores == pytest.approx(on_cpu.score(rows).scores, rel=1e-4, abs=1e-3)
    assert np.array_equal(on_gpu.score(rows[order]).scores, on_gpu.score(rows).scores[order])
    assert on_gpu.explain(rows[:9]).expected == pytest.approx(on_cpu.explain(rows[:9]).expected, rel=1e-2, nan_ok=True)


def test_a_row_of_which_nothing_is_observed_has_no_score(model, rows):
    some = rows[:3].copy()
    some[1] = [np.nan, np.inf, -np.inf, np.nan, np.nan, np.nan, np.nan]
    some[2, :-1] = np.nan
    some[2, -1] = 4.0

    assert np.isfinite(Scorer(model).score(some).scores).tolist() == [True, False, True]


def test_a_score_that_is_not_finite_is_no_score(model, rows):
    broken = replace(model, weights={name: 1e30 * tensor for name, tensor in model.weights.items()})

    assert np.isnan(Scorer(broken).score(rows[:5]).scores).all()


def test_a_missing_feature_s_column_may_hold_anything(model, rows):
    one = rows[:20].copy()
    one[:, 0] = np.nan
    other = one.copy()
    other[:, 0] = np.inf

    assert np.array_equal(Scorer(model).score(one).scores, Scorer(model).score(other).scores)


def test_each_objective_and_score_is_what_it_says(model, rows):
    def scored(**changes):
        return Scorer(replace(model, settings=replace(SETTINGS, **changes))).score(rows[:50])

    bound, elbo = scored(), scored(objective="vae")
    errors = scored(objective="autoencoder")

    assert (elbo.scores >= bound.scores - 1e-4).all()  # L_1 <= L_K on the same draws
    assert np.array_equal(scored(score="reconstruction").scores, bound.reconstructions)
    assert np.array_equal(errors.scores, errors.reconstructions)
    assert (bound.standard_errors >= 0).all()
    assert ((bound.effective_samples >= 1 - 1e-5) & (bound.effective_samples <= 6 + 1e-4)).all()


def test_a_combined_score_is_the_larger_surprise(make_model, rows):
    combined = make_model(rows, KINDS, replace(SETTINGS, score="combined"))
    alone = make_model(rows, KINDS, SETTINGS)
    scored, bounds = Scorer(combined).score(rows), Scorer(alone).score(rows).scores
    channels, transform = combined.channels, combined.transform
    distances = channels.neighbours.score(transform.points(transform.encode(rows))).numpy()
    surprises = [channels.of_network.nats_of(bounds), channels.of_distance.nats_of(distances)]

    assert np.array_equal(scored.bounds, bounds)
    assert scored.scores == pytest.approx(np.max(surprises, axis=0), rel=1e-4, abs=1e-4)
    assert 0.05 < np.mean(surprises[1] > surprises[0]) < 0.95


def test_the_standard_error_tells_how_far_scores_of_other_draws_lie(model, rows):
    settings = replace(SETTINGS, score_samples=64)
    tables = [Scorer(replace(model, settings=settings, noise_seed=seed)).score(rows[:100]) for seed in range(20)]
    spread = np.std([table.scores for table in tables], axis=0)
    said = np.mean([table.standard_errors for table in tables], axis=0)

    assert 0.1 < np.median(spread / said) < 1.3  # Sobol tables lie closer than the formula for independent draws


def test_the_caller_is_heard_after_each_chunk_and_its_rows_stay_as_they_are(model, rows):
    calls, before = [], rows.copy()
    Scorer(model).score(rows, on_chunk=lambda: calls.append(1))

    assert len(calls) == 3
    Scorer(model).explain(rows[:5])
    assert np.array_equal(rows, before, equal_nan=True)


def test_no_rows_have_no_scores_and_no_explanations(model, rows):
    assert Scorer(model).score(rows[:0]).scores.shape == (0,)
    assert Scorer(model).explain(rows[:0]).contributions.shape == (0, len(KINDS))


N_METERS = 12


def meters(n, seed):
    """Twelve magnitudes that one load and two modes drive, and the mode's name."""
    world, rng = np.random.default_rng(0), np.random.default_rng(seed)
    base, slope = world.normal(0, 1, (2, N_METERS)), world.uniform(0.5, 1.0, (2, N_METERS))
    mode, load = rng.integers(0, 2, n), rng.normal(size=(n, 1))
    logs = 6 + base[mode] + slope[mode] * load + 0.15 * rng.normal(size=(n, N_METERS))
    return np.column_stack([np.exp(logs), 100.0 + mode])


@pytest.fixture(scope="module")
def trained():
    torch.set_num_threads(1)
    kinds = ("magnitude",) * N_METERS + ("category",)
    features = Features(tuple(f"m{i}" for i in range(N_METERS + 1)), kinds, "x", {})
    return train(meters(1_500, 1), features, ModelSettings(steps=500, device="cpu"), seed=0)


@pytest.fixture(scope="module")
def planted(trained):
    """Rows with one meter of each 20 times too high or too low, and what it would have been."""
    usual = meters(400, 5)
    column = np.random.default_rng(2).integers(0, N_METERS, len(usual))
    at = (np.arange(len(usual)), column)
    broken = usual.copy()
    broken[at] *= np.where(usual[at] > np.exp(6), 1 / 20, 20)
    return at, usual, broken, Scorer(trained).explain(broken)


def test_the_planted_fault_is_named_first_nearly_always(planted):
    (_, column), _, _, explained = planted

    assert np.mean(np.nanargmax(explained.contributions, axis=1) == column) > 0.95


def test_a_row_in_a_gap_is_explained_by_the_feature_that_lies_in_it():
    """A gauge of two values, and a network that has learnt nothing of it: the distance alone sees what is between."""
    rng = np.random.default_rng(0)
    rows = rng.normal(0, 1, (600, 5))
    rows[:, 2] = rng.choice([-4.0, 4.0], 600) + rng.normal(0, 0.1, 600)
    features = Features(tuple("abcde"), ("gauge",) * 5, "x", {})
    model = train(rows, features, ModelSettings(hidden=(8,), latent=1, steps=2, device="cpu"), seed=0)
    between = rows[:60].copy()
    between[:, 2] = 0.0
    scorer = Scorer(model)
    scored, explained = scorer.score(between), scorer.explain(between)
    by_distance = scored.scores > model.channels.of_network.nats_of(scored.bounds) + 1e-6

    assert np.mean(by_distance) > 0.5
    assert np.mean(np.nanargmax(explained.contributions[by_distance], axis=1) == 2) > 0.75


def test_what_was_expected_is_close_to_what_the_fault_hides(planted):
    at, usual, broken, explained = planted
    expected = explained.expected[at]

    assert np.median(np.abs(np.log(expected / usual[at]))) < 0.35
    assert np.mean((explained.expected_low[at] <= usual[at]) & (usual[at] <= explained.expected_high[at])) > 0.95
    assert np.mean((broken[at] < explained.expected_low[at]) | (broken[at] > explained.expected_high[at])) > 0.8
    assert (explained.expected_low[at] <= expected).all()
    assert (expected <= explained.expected_high[at]).all()


def test_usual_rows_have_usual_contributions(trained):
    contributions = Scorer(trained).explain(meters(400, 8)).contributions

    assert np.median(contributions) == pytest.approx(0.0, abs=0.3)
    assert np.mean(contributions > 5) < 0.05


def test_a_category_is_explained_by_the_code_that_was_expected(trained):
    rows = meters(200, 9)
    swapped = rows.copy()
    swapped[:, -1] = 201.0 - rows[:, -1]
    explained = Scorer(trained).explain(swapped)

    assert np.mean(explained.expected[:, -1] == rows[:, -1]) > 0.9
    assert np.mean(np.nanargmax(explained.contributions, axis=1) == N_METERS) > 0.95
    assert np.isnan(explained.expected_low[:, -1]).all()


def test_a_missing_feature_has_an_expectation_but_no_contribution(trained):
    rows = meters(5, 10)
    holes = rows.copy()
    holes[:, 3] = np.nan
    explained = Scorer(trained).explain(holes)

    assert np.isnan(explained.contributions[:, 3]).all()
    assert explained.expected[:, 3] == pytest.approx(rows[:, 3], rel=1.0)


def test_a_time_of_day_has_no_interval(make_rows, make_model):
    rows = make_rows(70, ("cyclic", "gauge"))
    explained = Scorer(make_model(rows, ("cyclic", "gauge"))).explain(rows)

    assert np.isnan(explained.expected_low[:, 0]).all()
    assert np.isfinite(explained.expected_low[:, 1]).all()


def test_auto_is_a_gpu_only_where_there_is_one():
    assert scoring.pick_device("auto").type == ("cuda" if torch.cuda.is_available() else "cpu")
    assert scoring.pick_device("cpu").type == "cpu"
