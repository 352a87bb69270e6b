"""Models on labelled rows: what is learnt, what is scored, and that labels only judge."""

import json
from dataclasses import replace

import numpy as np
import pytest

from stream_iwae.batches import FeatureSchema, Kind
from stream_iwae.errors import ConfigurationError
from stream_iwae.lab.evaluate import MODELS, evaluate
from stream_iwae.lab.evaluation_report import means, write_report
from stream_iwae.lab.labelled_rows import LabelledRows
from stream_iwae.lab.protocols import Trial


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
    return Trial(rows.take(np.arange(600)), rows, 600, is_trusted=True)


@pytest.mark.parametrize("model", MODELS)
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
    after = replace(trial, judged=trial.judged.take(np.arange(600, 1_500)), n_warmup_judged=0)

    assert result.auroc_after_warmup == pytest.approx(evaluate("made-up", "unlabelled", after, "pca", 0).auroc)


def test_an_unknown_model_is_refused_with_those_there_are(trial):
    with pytest.raises(ConfigurationError, match="isolation-forest"):
        evaluate("made-up", "clean-warmup", trial, "forest", 0)


def test_the_report_holds_every_figure_and_needs_nothing_else(trial, tmp_path):
    results = [
        evaluate("made-up", "<b>", trial, model, seed) for model in ("pca", "isolation-forest") for seed in (0, 1)
    ]
    write_report(tmp_path / "report.html", [(result, trial.judged.is_anomaly) for result in results])
    page = (tmp_path / "report.html").read_text()

    assert page.count("data:image/png;base64,") == 2
    assert "&lt;b&gt;" in page
    assert "http" not in page
    for line in means(results):
        assert all(figure in page for figure in line.values())
    json.dumps([result.row() for result in results])
