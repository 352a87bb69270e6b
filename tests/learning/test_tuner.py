from dataclasses import replace

import numpy as np
import pytest
import torch

from stream_iwae.batches import FeatureSchema, Kind, TrainingBatch
from stream_iwae.detection.calibration import Calibration
from stream_iwae.detection.config import DetectionConfig
from stream_iwae.errors import ArtefactError
from stream_iwae.iwae.artefact import unpack
from stream_iwae.iwae.cascade import Cascade
from stream_iwae.iwae.scoring import Scorer
from stream_iwae.iwae.settings import ModelSettings
from stream_iwae.iwae.training import HELD_OUT_SHARE
from stream_iwae.learning import tuner
from stream_iwae.learning.config import LearningConfig
from stream_iwae.learning.rows import Rows
from stream_iwae.learning.schedule import Job
from stream_iwae.learning.tuner import IwaeMethod, make_learner

HOUR = 3_600_000
SCHEMA = FeatureSchema(
    ("bytes", "packets", "share", "protocol"),
    (Kind.MAGNITUDE, Kind.COUNT, Kind.RATIO, Kind.CATEGORY),
    ("B", "", "", ""),
)
SETTINGS = ModelSettings(hidden=(16,), latent=2, steps=150, batch=64, score_samples=4, train_samples=2, device="cpu")


def traffic(n, seed, level=6.0):
    rng = np.random.default_rng(seed)
    packets = rng.poisson(20, n) + 1.0
    return np.column_stack(
        [packets * rng.lognormal(level, 0.2, n), packets, rng.beta(2, 5, n), rng.choice([3e9, 4e9], n, p=[0.9, 0.1])]
    )


def hours(start, n_hours, level=6.0, per_hour=600):
    n = n_hours * per_hour
    return TrainingBatch(
        schema_digest=SCHEMA.digest,
        model_version="",
        row_ids=np.arange(start * per_hour, start * per_hour + n, dtype=np.uint64),
        entity_ids=np.arange(n, dtype=np.uint64) % np.uint64(30),
        window_end_ms=start * HOUR + np.arange(1, n + 1) * (HOUR // per_hour),
        values=traffic(n, start, level),
        scores=np.full(n, np.nan),
        p_values=np.full(n, np.nan),
        in_incident=np.zeros(n, np.bool_),
        labels={3_000_000_000: "tcp", 4_000_000_000: "udp"},
    )


def a_learner(settings=SETTINGS, detection=DetectionConfig(), **overrides):  # noqa: B008  # it is frozen
    config = LearningConfig(**({"min_windows": 1_200, "max_source_share": 1.0} | overrides))
    return make_learner(config, settings, detection, SCHEMA, seed=3)


def learn(learner, *batches):
    outcomes = []
    for batch in batches:
        learner.add(batch)
        while learner.due() is not None:
            outcomes.append(learner.step())
    return outcomes


@pytest.fixture(scope="module")
def first():
    learner = a_learner()
    (outcome,) = learn(learner, hours(0, 2))
    return learner, outcome


def test_a_first_model_sees_what_is_unlike_its_stream(first):
    learner, _ = first
    served = learner.served
    ordinary = traffic(500, 99)
    odd = ordinary.copy()
    odd[:, 0] *= 1_000

    p_ordinary = served.calibration.p_values(served.weights.score(ordinary, lambda: None).scores)
    p_odd = served.calibration.p_values(served.weights.score(odd, lambda: None).scores)

    assert np.median(p_ordinary) == pytest.approx(0.5, abs=0.12)
    assert np.mean(p_odd <= 0.01) > 0.95


def test_the_artefact_holds_weights_calibration_and_texts(first):
    learner, outcome = first
    model = unpack(outcome.blob)

    assert model.version == outcome.version == "1.0"
    assert model.schema_digest == SCHEMA.digest
    assert model.labels[3_000_000_000] == "tcp"
    restored = a_learner()
    restored.restore(outcome.blob)
    assert restored.served.calibration == learner.served.calibration
    assert restored.served.memory == learner.served.memory


def test_p_values_are_fitted_to_the_scores_of_the_cascade_and_the_artefact_knows_its_threshold(first):
    often = DetectionConfig(budget="100000/day", max_p_value=0.1)  # a threshold with scores around it
    learner = a_learner(replace(SETTINGS, cascade_samples=64), often)
    (outcome,) = learn(learner, hours(0, 2))
    values = learner._samples.calibrate().values
    cascade, plain = learner.served.weights, first[0].served.weights
    scores = cascade.score(values, lambda: None).scores

    assert isinstance(cascade.scorer, Cascade)
    assert 0 < np.mean(scores != plain.score(values, lambda: None).scores) < 1
    weights = learner._samples.calibrate_weights()
    expected = Calibration.fit(scores, learner.served.calibration.windows_per_day, weights=weights)
    assert learner.served.calibration == expected
    restored = a_learner()
    restored.restore(outcome.blob)
    assert restored.served.weights.scorer.threshold == cascade.scorer.threshold
    assert np.array_equal(restored.served.weights.score(values, lambda: None).scores, scores)
    assert unpack(restored.served.pack()).extra == unpack(outcome.blob).extra


def test_the_same_rows_give_the_same_artefact_bit_by_bit(first):
    assert learn(a_learner(), hours(0, 2))[0].blob == first[1].blob


def test_a_moderate_shift_is_tuned_in(first):
    learner = a_learner(calibration_interval="30d")
    learner.restore(first[1].blob)
    learner.add(hours(0, 2))
    learner.absorb()

    outcomes = learn(learner, hours(2, 3, level=6.25))

    assert "2.0" in [outcome.version for outcome in outcomes if outcome.job is Job.TUNE]


def test_an_artefact_of_other_features_is_refused(first):
    other = replace(SCHEMA, units=("kB", "", "", ""))

    with pytest.raises(ArtefactError, match="was made for features"):
        IwaeMethod(SETTINGS, other, is_warmup_trusted=True).unpack(first[1].blob)


def test_a_heavily_contaminated_warm_up_is_cleaned_unless_it_is_trusted():
    schema = FeatureSchema(tuple("abcdef"), (Kind.GAUGE,) * 6, ("",) * 6)
    rng = np.random.default_rng(0)
    attack = rng.normal(30, 0.3, (400, 6))
    values = np.vstack([rng.normal(0, 0.3, (600, 6)), attack])
    rows = rows_of(values)
    medians = {}
    for is_trusted in (False, True):
        weights = IwaeMethod(SETTINGS, schema, is_warmup_trusted=is_trusted).first(rows, {}, 1, lambda: None)
        medians[is_trusted] = [
            float(np.median(weights.score(part, lambda: None).scores)) for part in (values[:600], attack)
        ]

    assert medians[False][1] > medians[False][0] + 5
    assert medians[True][1] < medians[True][0] + 5


@pytest.mark.parametrize("is_memorised", [False, True])
def test_a_model_that_has_memorised_attacks_gives_way_to_one_that_could_leave_them_out(monkeypatch, is_memorised):
    rng = np.random.default_rng(0)
    usual, odd = rng.normal(size=(1_500, 16)), rng.choice([-8, 8], 16) + rng.normal(size=(80, 16))
    schema = FeatureSchema(tuple(f"g{i}" for i in range(16)), (Kind.GAUGE,) * 16, ("",) * 16)
    monkeypatch.setattr(tuner, "has_memorised", lambda *_: is_memorised)
    weights = IwaeMethod(SETTINGS, schema, is_warmup_trusted=False).first(
        rows_of(np.vstack([usual, odd])), {}, 1, lambda: None
    )
    references = weights.model.channels.neighbours.references
    attacks = weights.model.transform.points(weights.model.transform.encode(odd))
    nearest = torch.cdist(attacks, references).min(dim=1).values

    assert weights.model.settings.trim == (0.1 if is_memorised else 0.0)
    assert weights.model.settings.score == "combined"
    assert float(nearest.median()) > 0.5  # no attack is a reference to either


def test_a_trusted_warm_up_is_not_doubted(monkeypatch):
    monkeypatch.setattr(tuner, "has_memorised", lambda *_: pytest.fail("nobody should ask"))

    weights = IwaeMethod(SETTINGS, SCHEMA, is_warmup_trusted=True).first(rows_of(traffic(300, 0)), {}, 1, lambda: None)

    is_held_out = np.random.default_rng(1).random(300) < HELD_OUT_SHARE
    assert len(weights.model.channels.neighbours.references) == 300 - is_held_out.sum()  # every other row


def test_what_is_wrong_in_every_feature_astonishes_and_what_is_ordinary_does_not(first):
    learner, _ = first
    odd = traffic(60, 5, level=12.0)
    odd[:, 3] = 5e9  # a protocol of its own

    def astonished(values):
        return learner.served.weights.astonished(values, lambda: None)

    assert astonished(odd).all()
    assert astonished(traffic(1_000, 6)).mean() < 0.01


def test_without_a_common_scale_nothing_astonishes():
    learner = a_learner(replace(SETTINGS, score="bound"))
    learn(learner, hours(0, 2))

    assert not learner.served.weights.astonished(traffic(60, 5, level=12.0), lambda: None).any()


def test_models_are_compared_by_the_bound_whatever_they_score_by(first):
    weights = first[0].served.weights
    bare = replace(weights.model, channels=None, settings=replace(weights.model.settings, score="bound"))
    rows = traffic(50, 8)
    scored = weights.score(rows, lambda: None)

    assert np.array_equal(scored.bounds, Scorer(bare).score(rows).scores)
    assert not np.array_equal(scored.bounds, scored.scores)


def rows_of(values):
    n = len(values)
    empty = Rows.empty(values.shape[1])
    return replace(
        empty,
        row_ids=np.arange(n, dtype=np.uint64),
        entity_ids=np.arange(n, dtype=np.uint64),
        window_end_ms=np.arange(n),
        values=values,
        scores=np.full(n, np.nan),
        p_values=np.full(n, np.nan),
        in_incident=np.zeros(n, np.bool_),
        was_judged=np.zeros(n, np.bool_),
    )


def test_too_few_rows_are_a_failed_training():
    rows = rows_of(traffic(10, 0))

    with pytest.raises(ValueError, match="64 rows"):
        IwaeMethod(SETTINGS, SCHEMA, is_warmup_trusted=True).first(rows, {}, 1, lambda: None)
