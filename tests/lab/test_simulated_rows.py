import numpy as np
import pytest

from stream_iwae.features.config import FeaturesConfig, schema
from stream_iwae.lab.simulate import HOUR_MS
from stream_iwae.lab.simulated_rows import SimulatedRows, load_simulated, without_profiles


@pytest.fixture(scope="module")
def rows() -> SimulatedRows:
    return load_simulated(1, n_hosts=40, history_ms=2 * HOUR_MS, live_ms=6 * HOUR_MS)


def test_every_attack_has_rows_that_tell_of_it_and_only_after_the_history(rows):
    attacks = [place for place, scenario in enumerate(rows.scenarios) if not scenario.benign]

    assert set(rows.scenario.tolist()) == {-1, *attacks}
    assert np.all(rows.scenario[: rows.n_history] == -1)
    assert np.all(rows.scenario[rows.rows.is_anomaly] >= 0)


def test_a_row_tells_of_an_attack_by_who_takes_part_and_when(rows):
    for place in range(len(rows.scenarios)):
        scenario = rows.scenarios[place]
        told = np.flatnonzero(rows.scenario == place)
        assert {rows.entities[row].lstrip("\x1e") for row in told.tolist()} <= scenario.concerned
        if len(told):
            assert rows.window_end_ms[told].min() > scenario.start_ms


def test_the_silence_of_an_exporter_is_a_row_of_its_own(rows):
    (place,) = [i for i, scenario in enumerate(rows.scenarios) if scenario.kind == "silent_exporter"]
    silent = np.flatnonzero(rows.silence_p_values < 1e-6)

    assert silent.size
    assert place in rows.scenario[silent]


def test_without_profiles_what_stood_for_itself_by_its_profile_alone_is_a_feature_itself():
    listed = [
        {"name": "a", "aggregate": "count", "profile": True, "output": False},
        {"name": "b", "aggregate": "count", "output": False},
        {"name": "c", "aggregate": "count", "profile": True},
    ]
    plain = without_profiles(FeaturesConfig.model_validate(listed))

    assert schema(plain, {}).names == ("a", "c")
