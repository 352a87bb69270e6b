"""Models on labelled rows: what is learnt, what is scored, and that labels only judge."""

import json
from dataclasses import replace

import numpy as np
import pytest

from stream_iwae.batches import FeatureSchema, Kind
from stream_iwae.errors import ConfigurationError
from stream_iwae.lab.evaluate import OURS, evaluate, models_for
from stream_iwae.lab.labelled_rows import LabelledRows
from stream_iwae.lab.protocols import Trial
from stream_iwae.lab.rivals import RIVALS


@pytest.fixture(scope="module")
def trial():
    """Two loads that move together and a service; anomalies break the relation or name a service never seen."""
    rng = np.random.default_rng(0)
    load = rng.normal(5, 1, 1_500)
    values = np.column_stack([np.exp(load), np.exp(load + rng.normal(0, 0.1, 1_500)), rng.integers(0, 3, 1_500)])
    truth = np.zeros(1_500, dtype=bool)
    truth[1_000:1_100] = True
    values[1_000:1_050, 1] /= 500
    values[1_050:1_100, 2] = 99
    schema = FeatureSchema(("in", "out", "service"), (Kind.MAGNITUDE, Kind.MAGNITUDE, Kind.CATEGORY), ("", "", ""))
    rows = LabelledRows(schema, values, truth, {})
    rows = replace(rows, known_scores={"midas": np.arange(1_500.0)})
    at = np.arange(1_500)
    return Trial(rows.take(at[:600]), rows.take(at[600:750]), rows, at < 750, is_trusted=True)


@pytest.mark.parametrize("model", [*OURS, *RIVALS])
def test_every_model_tells_plain_anomalies_from_the_rest(trial, model):
    result = evaluate("made-up", "clean-warmup", trial, model, 0)

    assert result.scores.shape == (1_500,)
    assert result.auroc > 0.7
    assert result.us_per_row > 0


@pytest.mark.parametrize("model", ["iwae", "isolation-forest", "half-space-trees"])
def test_labels_change_the_figures_and_never_a_score(trial, model):
    turned = replace(trial, judged=replace(trial.judged, is_anomaly=~trial.judged.is_anomaly))
    one, other = (evaluate("made-up", "clean-warmup", each, model, 0) for each in (trial, turned))

    assert np.array_equal(one.scores, other.scores)
    assert one.auroc == pytest.approx(1 - other.auroc)


def test_the_rows_after_the_warm_up_are_judged_apart(trial):
    result = evaluate("made-up", "unlabelled", trial, "pca", 0)
    n_after = 1_500 - 750
    after = replace(trial, judged=trial.judged.take(np.arange(750, 1_500)), in_warmup=np.zeros(n_after, dtype=bool))

    assert result.ranking.auroc_after_warmup == pytest.approx(evaluate("made-up", "unlabelled", after, "pca", 0).auroc)


@pytest.mark.parametrize("model", ["iwae", "isolation-forest"])
def test_p_values_of_normal_rows_are_as_rare_as_they_say(trial, model):
    found = evaluate("made-up", "clean-warmup", trial, model, 0).decisions

    assert found.seen_at[0] == pytest.approx(0.1, abs=0.06)
    assert found.seen_at[1] < 0.05
    if model == "iwae":
        assert found.found_at[1] > 0.4


def test_the_strongest_alerts_name_the_feature_at_fault(trial):
    strongest = evaluate("made-up", "clean-warmup", trial, "iwae", 0).strongest

    assert len(strongest) == 10
    assert all(strong.is_anomaly for strong in strongest)
    assert {strong.findings[0].name for strong in strongest} <= {"out", "service", "in"}
    assert strongest[0].score == max(strong.score for strong in strongest)


def test_rivals_of_edges_are_scored_with_the_stream_and_only_where_it_has_edges(trial):
    assert "midas" in models_for(trial)
    assert evaluate("made-up", "unlabelled", trial, "midas", 0).scores.tolist() == list(range(1_500))
    with pytest.raises(ConfigurationError, match="edges"):
        evaluate("made-up", "unlabelled", trial, "midas-r", 0)


def test_an_unknown_model_is_refused_with_those_there_are(trial):
    with pytest.raises(ConfigurationError, match="isolation-forest"):
        evaluate("made-up", "clean-warmup", trial, "forest", 0)


def test_a_row_of_json_has_every_figure_and_no_nan(trial):
    row = evaluate("made-up", "unlabelled", trial, "pca", 3).row()

    assert {"dataset", "protocol", "model", "seed", "auroc", "average_precision", "us_per_row"} <= row.keys()
    assert {"auroc_after_warmup", "average_precision_after_warmup", "seen_at_p_0.01"} <= row.keys()
    assert "NaN" not in json.dumps(row)
