"""`stream-iwae evaluate` from the command line, on files that the test writes."""

import json

import numpy as np
import polars as pl
import pytest
from typer.testing import CliRunner

from stream_iwae.cli import app
from stream_iwae.errors import ConfigurationError
from stream_iwae.lab.evaluate import OURS
from stream_iwae.lab.rivals import RIVALS


@pytest.fixture
def file(tmp_path):
    rng = np.random.default_rng(0)
    n = 900
    odd = (np.arange(n) % 30 == 7) & (np.arange(n) > 300)
    size = np.exp(rng.normal(6, 1, n))
    frame = pl.DataFrame(
        {
            "Bytes In": size * np.where(odd, 300, 1),
            "Bytes Out": size * rng.uniform(0.9, 1.1, n),
            "Service": np.where(odd, "telnet", rng.choice(["http", "dns"], n)),
            "Empty": [None] * n,
            "Class": np.where(odd, "Attack", "Normal"),
        }
    )
    frame.write_csv(tmp_path / "flows.csv")
    return tmp_path / "flows.csv"


def run(*arguments):
    outcome = CliRunner().invoke(app, ["evaluate", *map(str, arguments)])
    if outcome.exception is not None and not isinstance(outcome.exception, SystemExit):
        raise outcome.exception
    assert outcome.exit_code == 0, outcome.output
    return outcome.output


def test_a_file_with_a_label_is_evaluated_with_defaults_by_every_model(file, tmp_path):
    output = run(
        "--dataset",
        file,
        "--label",
        "class",
        "--seeds",
        1,
        "--json",
        tmp_path / "a.json",
        "--html",
        tmp_path / "a.html",
    )

    rows = json.loads((tmp_path / "a.json").read_text())["rows"]
    assert [row["model"] for row in rows] == [*OURS, *RIVALS]
    assert {(row["protocol"], row["seed"]) for row in rows} == {("clean-warmup", 0)}
    assert rows[0]["auroc"] > 0.95
    assert f"{rows[0]['auroc']:.4f}" in output
    assert "nearest-neighbour" in output
    assert "left out &#x27;Empty&#x27;: it is empty" in (tmp_path / "a.html").read_text()


@pytest.mark.parametrize("protocol", ["unlabelled", "attacks-5pct", "attacks-1pct"])
def test_protocols_apply_to_a_file(file, tmp_path, protocol):
    run(
        "--dataset",
        file,
        "--label",
        "Class",
        "--protocol",
        protocol,
        "--models",
        "pca,isolation-forest",
        "--seeds",
        2,
        "--json",
        tmp_path / "a.json",
    )

    rows = json.loads((tmp_path / "a.json").read_text())["rows"]
    assert [(row["seed"], row["model"]) for row in rows] == [
        *((0, "pca"), (0, "isolation-forest"), (1, "pca"), (1, "isolation-forest")),
    ]
    assert all(0 <= row["average_precision"] <= 1 for row in rows)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--label", "Klass"], "did you mean 'Class'"),
        ([], "name the column"),
        (["--label", "Class", "--models", "iwae,forest"], "none of iwae, iwae-bound"),
        (["--label", "Class", "--protocol", "clean"], "none of clean-warmup"),
        (["--label", "Class", "--budget", "many"], "write a rate such as 20/day"),
        (["--label", "Class", "--models", "midas"], "edges"),
        (["--label", "Class", "--protocol", "flipped"], "64 are needed"),  # of 20 anomalies half may be learnt
        (["--label", "Class", "--html", "/nowhere/a.html"], "make it first"),
    ],
)
def test_what_is_wrong_is_told_with_the_remedy(file, arguments, words):
    with pytest.raises(ConfigurationError, match=words):
        run("--dataset", file, "--models", "pca", "--seeds", 1, *arguments)


def test_an_unknown_data_set_is_answered_with_what_there_is(tmp_path):
    with pytest.raises(ConfigurationError, match=r"none of nsl-kdd, .*darpa98.*nor a file \(\.csv"):
        run("--dataset", "kdd2000", "--data", tmp_path)


def test_help_teaches_by_example():
    text = run("--help")

    assert "--dataset flows.csv --label Label" in text
    assert "--normal-label ok --protocol unlabelled" in " ".join(text.split())
