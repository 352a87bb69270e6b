import numpy as np
import pytest

from stream_iwae.batches import FeatureBatch, FeatureSchema, Kind
from stream_iwae.learning.provisional import MIN_WINDOWS, TOLD_MS, TOP, Provisional

SCHEMA = FeatureSchema(
    ("bytes", "share", "load", "protocol", "hour"),
    (Kind.MAGNITUDE, Kind.RATIO, Kind.GAUGE, Kind.CATEGORY, Kind.CYCLIC),
    ("B", "", "", "", ""),
)
MINUTE = 60_000


def windows(values, end_ms=MINUTE, entities=None, silence=None):
    values = np.asarray(values, np.float64)
    n = len(values)
    ends = np.full(n, end_ms, np.int64)
    return FeatureBatch(
        schema=SCHEMA,
        values=values,
        entities=[f"h{i}" for i in range(n)] if entities is None else entities,
        window_start_ms=ends - MINUTE,
        window_end_ms=ends,
        n_events=np.ones(n, np.int64),
        first_offset=np.arange(n),
        last_offset=np.arange(n),
        silence_p_values=np.full(n, np.nan) if silence is None else np.asarray(silence, np.float64),
    )


def ordinary(n, seed=0):
    rng = np.random.default_rng(seed)
    return np.column_stack(
        [rng.lognormal(8, 1, n), rng.beta(2, 5, n), rng.normal(40, 3, n), rng.choice([1.0, 2.0], n), rng.random(n)]
    )


@pytest.fixture
def seasoned():
    provisional = Provisional()
    for minute in range(10):
        provisional.observe(windows(ordinary(200, minute), minute * MINUTE))
    return provisional


@pytest.mark.parametrize(("column", "value"), [(0, 1e9), (1, 1.0), (2, 90.0), (3, 77.0)])
def test_an_unusual_feature_of_any_kind_makes_a_window_more_unusual(seasoned, column, value):
    usual = ordinary(1, 99)
    odd = usual.copy()
    odd[0, column] = value

    usual_score, odd_score = (seasoned._scores(seasoned._flattened(rows))[0] for rows in (usual, odd))

    assert odd_score > usual_score + 0.05


def test_what_is_wrong_in_every_feature_is_first_and_rare(seasoned):
    rows = ordinary(100, 99)
    rows[17] = [1e12, 1.0, 900.0, 55.0, 0.5]

    seasoned.observe(windows(rows, 11 * MINUTE, [f"new{i}" for i in range(100)]))

    first = seasoned.suspects[0]
    assert (first.entity, first.window_end_ms) == ("new17", 11 * MINUTE)
    assert first.rarity < 2e-3
    assert first.score == pytest.approx(1.0, abs=0.35)


def test_the_first_windows_have_nothing_to_be_compared_with():
    provisional = Provisional()
    provisional.observe(windows(ordinary(MIN_WINDOWS - 1)))

    assert provisional.suspects == []
    assert provisional.quantiles() == {}
    provisional.observe(windows(ordinary(1)))
    provisional.observe(windows(ordinary(1)))
    assert len(provisional.suspects) == 1


def test_few_entities_are_told_each_once_and_not_for_long(seasoned):
    assert len(seasoned.suspects) == TOP
    assert len({suspect.entity for suspect in seasoned.suspects}) == TOP
    scores = [suspect.score for suspect in seasoned.suspects]
    assert scores == sorted(scores, reverse=True)

    seasoned.observe(windows(ordinary(3, 5), 10 * MINUTE + TOLD_MS, ["x", "y", "z"]))

    assert {suspect.entity for suspect in seasoned.suspects} == {"x", "y", "z"}


def test_means_and_spreads_are_those_of_all_windows_however_they_came(seasoned):
    every = np.concatenate([ordinary(200, minute) for minute in range(10)])
    logs = np.log1p(every[:, 0])

    assert seasoned.n_windows == 2_000
    assert seasoned._mean[0] == pytest.approx(logs.mean())
    assert np.sqrt(seasoned._squares[0] / seasoned._n[0]) == pytest.approx(logs.std())


def test_missing_values_and_quiet_sources_are_left_out(seasoned):
    rows = ordinary(3)
    rows[0] = np.nan
    rows[1, :3] = np.nan
    before = seasoned.n_windows

    seasoned.observe(windows(rows, 11 * MINUTE, silence=[np.nan, np.nan, 1e-9]))

    assert seasoned.n_windows == before + 2
    assert all(np.isfinite(suspect.score) for suspect in seasoned.suspects)
    assert np.isfinite(seasoned._mean).all()


def test_quantiles_are_those_of_the_scores(seasoned):
    found = seasoned.quantiles()

    assert list(found) == ["0.5", "0.99", "1"]
    assert 0.2 < found["0.5"] < found["0.99"] <= found["1"] < 1.2


def test_no_windows_are_no_error():
    provisional = Provisional()
    provisional.observe(FeatureBatch.empty(SCHEMA))

    assert provisional.n_windows == 0
