"""The page: every figure, plots of every kind, and nothing from elsewhere."""

import numpy as np
import pytest

from stream_iwae.batches import FeatureSchema, Finding, Kind
from stream_iwae.lab.evaluate import Result, Strong
from stream_iwae.lab.evaluation_figures import decisions, ranking
from stream_iwae.lab.evaluation_report import Section, write_report
from stream_iwae.lab.evaluation_table import DECISIONS, RANKING, lines, used
from stream_iwae.lab.labelled_rows import LabelledRows

N = 300


@pytest.fixture(scope="module")
def section():
    rng = np.random.default_rng(0)
    truth = rng.random(N) < 0.1
    rows = LabelledRows(FeatureSchema(("x",), (Kind.GAUGE,), ("",)), np.zeros((N, 1)), truth, {})
    in_warmup = np.arange(N) < 50

    def result(model, seed):
        scores = rng.normal(truth * 2.0, 1)
        p_values = np.clip(1 - scores / 4, 1e-6, 1)
        finding = Finding("x<y", 9_999.5, 3.0, 1.0, 5.0, 4.0, "above", "bytes", imputed=False)
        strong = Strong(int(scores.argmax()), True, 9.0, 1e-4, (finding,))
        return Result(
            dataset="made-up", protocol="<b>", model=model, seed=seed, ranking=ranking(rows, in_warmup, scores),
            decisions=decisions(rows, in_warmup, p_values, p_values < 0.01), training_seconds=1.5, us_per_row=20.0,
            is_learning=False, scores=scores, p_values=p_values, is_alert=p_values < 0.01,
            strongest=(strong,) if model == "iwae" else (),
        )  # fmt: skip

    results = [result(model, seed) for seed in (0, 1) for model in ("iwae", "pca", "isolation-forest")]
    return Section("made-up", "<b>", ("a note & more",), rows, in_warmup, results)


@pytest.fixture(scope="module")
def page(section, tmp_path_factory):
    path = tmp_path_factory.mktemp("report") / "report.html"
    write_report(path, [section], 20.0)
    return path.read_text()


def test_the_page_has_every_figure_of_the_tables(section, page):
    for columns in (RANKING, DECISIONS):
        for line in lines(used(columns, section.results), section.results):
            assert all(f">{cell}</td>" in page for cell in line)


def test_the_page_has_the_five_kinds_of_plot_and_needs_nothing_else(page):
    assert page.count('src="data:image/png;base64,') == 5
    assert "http" not in page
    assert "<script" not in page


def test_what_comes_from_a_file_is_escaped(page):
    assert "&lt;b&gt;" in page
    assert "<b>, " not in page
    assert "a note &amp; more" in page
    assert "<b>x&lt;y</b> 10,000 bytes, expected 1 to 5" in page


def test_a_mean_is_told_with_its_spread(section):
    [[model, auroc, *_], *_] = lines(RANKING, section.results)
    values = [result.auroc for result in section.results if result.model == "iwae"]

    assert model == "iwae"
    assert auroc == f"{np.mean(values):.4f} ± {np.std(values):.4f}"


def test_one_model_of_one_seed_makes_a_page_too(section, tmp_path):
    alone = Section("made-up", "x", (), section.rows, section.in_warmup, section.results[1:2])
    write_report(tmp_path / "one.html", [alone], 20.0)

    assert (tmp_path / "one.html").read_text().count("data:image") == 4
