import numpy as np
import pytest

from stream_iwae.batches import FeatureSchema, Kind
from stream_iwae.lab.caught import caught
from stream_iwae.lab.labelled_rows import LabelledRows
from stream_iwae.lab.simulated_rows import SimulatedRows
from stream_iwae.lab.truth import ScenarioTruth

DAY_MS = 86_400_000


def rows_of(scenario, silence=None, n_history=0):
    n = len(scenario)
    silence = np.full(n, np.nan) if silence is None else np.asarray(silence, dtype=np.float64)
    truth = tuple(ScenarioTruth(name, name, name == "crowd", (name,), (), 0, 1, "") for name in ("scan", "crowd"))
    schema = FeatureSchema(("x",), (Kind.GAUGE,), ("",))
    table = LabelledRows(schema, np.zeros((n, 1)), np.asarray(scenario) >= 0, {})
    ends = np.linspace(0, DAY_MS, n).astype(np.int64)
    return SimulatedRows(table, ("e",) * n, ends, silence, truth, np.asarray(scenario), n_history)


@pytest.mark.parametrize(("allowed", "is_caught"), [(1, False), (2, True)])
def test_an_attack_is_caught_when_no_more_false_windows_score_as_high(allowed, is_caught):
    found = caught(rows_of([-1, -1, 0, 0, -1]), np.array([9.0, 8.0, 7.0, 1.0, 2.0]), allowed)

    assert (found.kinds, found.ranks, found.is_caught) == (("scan",), (2,), (is_caught,))


def test_of_equal_scores_the_false_one_comes_first():
    assert caught(rows_of([-1, 0]), np.array([5.0, 5.0]), 0).ranks == (1,)


def test_the_history_is_not_looked_at():
    assert caught(rows_of([-1, 0, -1], n_history=1), np.array([99.0, 5.0, 1.0]), 0).ranks == (0,)


def test_a_certain_silence_is_told_whatever_its_score():
    certain, likely = np.array([np.nan, 1e-9]), np.array([np.nan, 0.2])

    assert caught(rows_of([-1, 0], certain), np.array([5.0, 0.0]), 0).is_caught == (True,)
    assert caught(rows_of([-1, 0], likely), np.array([5.0, 9.0]), 0).is_caught == (False,)


def test_an_attack_without_a_score_is_missed():
    assert caught(rows_of([-1, -1, 0]), np.array([1.0, 2.0, np.nan]), 1).is_caught == (False,)
