"""Rows with one planted fault: the faulty feature is named first, and what it would have been is said.

A fault is one value that the other features contradict, and that a person would call plainly wrong:

- magnitude: twenty times too high or too low, towards the other side of the median
- count: ten times too high (and ten more) or too low
- ratio: 1 - x, where x is not near a half
- gauge: five standard deviations off
- category: another of the known classes, each of which decides about all the rest
- cyclic: half a period off
"""

import numpy as np
import pytest

from stream_iwae.iwae.scoring import Scorer
from stream_iwae.iwae.settings import ModelSettings
from stream_iwae.iwae.training import Features, train

KINDS = ("magnitude",) * 3 + ("count",) * 2 + ("ratio",) * 2 + ("gauge",) * 2 + ("category",) * 2 + ("cyclic",)
WORLD = 4  # the method was chosen on worlds 0 to 3
N_FAULTS = 60  # of each feature


def a_world(n, seed):
    """N rows that one of three modes, a load and the time of day drive: each feature follows from the others."""
    world, rng = np.random.default_rng(100 + WORLD), np.random.default_rng(seed)
    mode, load, phase = rng.integers(0, 3, n), rng.normal(size=n), rng.random(n)
    causes = np.column_stack(
        [load, np.sin(2 * np.pi * phase), np.cos(2 * np.pi * phase), *(mode == m for m in range(3))]
    )
    columns = []
    for kind in KINDS:
        if kind == "category":
            columns.append(100.0 + world.permutation(3)[mode])
            continue
        if kind == "cyclic":
            columns.append((phase + 0.02 * rng.normal(size=n)) % 1)
            continue
        signal, noise = causes @ world.normal(size=6), rng.normal(size=n)
        columns.append(
            {
                "magnitude": np.exp(7 + signal + 0.15 * noise),
                "count": np.rint(np.exp(3 + 0.6 * signal + 0.15 * noise)),
                "ratio": 1 / (1 + np.exp(-1.5 * signal - 0.2 * noise)),
                "gauge": 40 + 10 * signal + 1.5 * noise,
            }[kind]
        )
    return np.column_stack(columns)


def with_fault(rows, j, seed):
    """The rows with feature j faulty, and the same rows before; those in which a fault means something."""
    x, is_high = rows[:, j], rows[:, j] > np.median(rows[:, j])
    faulty = rows.copy()
    faulty[:, j] = {
        "magnitude": lambda: np.where(is_high, x / 20, x * 20),
        "count": lambda: np.where(is_high, np.rint(x / 10), x * 10 + 10),
        "ratio": lambda: 1 - x,
        "gauge": lambda: x + np.where(is_high, -5, 5) * x.std(),
        "category": lambda: 100 + (x - 100 + np.random.default_rng(seed).integers(1, 3, len(x))) % 3,
        "cyclic": lambda: (x + 0.5) % 1,
    }[KINDS[j]]()
    meant = np.abs(x - 0.5) > 0.25 if KINDS[j] == "ratio" else np.ones(len(x), bool)
    return faulty[meant], rows[meant]


@pytest.fixture(scope="module")
def scorer():
    features = Features(tuple(f"f{j}" for j in range(len(KINDS))), KINDS, "x", {})
    return Scorer(train(a_world(4_000, 1), features, ModelSettings(device="cpu"), seed=0))


@pytest.fixture(scope="module")
def planted(scorer):
    """For each feature: what it was, and the explanation of the rows in which it is faulty."""
    found = []
    for j in range(len(KINDS)):
        faulty, usual = with_fault(a_world(N_FAULTS, 50 + j), j, seed=j)
        found.append((usual[:, j], scorer.explain(faulty)))
    return found


def test_the_faulty_feature_is_named_first_in_95_of_100_cases(planted):
    first = [np.nanargmax(explained.contributions, axis=1) == j for j, (_, explained) in enumerate(planted)]

    assert np.mean(np.concatenate(first)) >= 0.95
    for kind in set(KINDS):
        of_kind = np.concatenate([named for named, k in zip(first, KINDS, strict=True) if k == kind])
        assert np.mean(of_kind) >= 0.9, kind


def test_what_is_expected_is_what_it_was(planted):
    for j, (usual, explained) in enumerate(planted):
        expected, low, high = (getattr(explained, name)[:, j] for name in ("expected", "expected_low", "expected_high"))
        match KINDS[j]:
            case "category":
                assert np.mean(expected == usual) > 0.85
            case "cyclic":
                assert np.median(np.abs((expected - usual + 0.5) % 1 - 0.5)) < 0.2
            case "magnitude" | "count":
                assert np.median(np.abs(np.log1p(expected) - np.log1p(usual))) < 0.7  # a factor of two; planted: 10, 20
                assert np.mean((low <= usual) & (usual <= high)) > 0.9
            case _:
                assert np.median(np.abs(expected - usual)) < 0.6 * np.std(usual)
                assert np.mean((low <= usual) & (usual <= high)) > 0.9


def test_a_feature_is_as_surprising_as_the_exact_conditional_says(scorer):
    """Of ordinary rows: a value far from what the others say is more surprising than one near it."""
    rows = a_world(300, 9)
    terms = scorer.feature_terms(rows)
    moved = rows.copy()
    moved[:, 7] += 2 * rows[:, 7].std()

    assert np.mean(scorer.feature_terms(moved)[:, 7] > terms[:, 7]) > 0.95
    assert np.median(terms) < 1.0


def test_a_missing_feature_changes_no_other_s_company(scorer):
    rows = a_world(5, 10)
    rows[:, 3] = np.nan

    terms = scorer.feature_terms(rows)

    assert np.isnan(terms[:, 3]).all()
    assert np.isfinite(np.delete(terms, 3, axis=1)).all()
