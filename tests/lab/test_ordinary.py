import msgspec
import numpy as np
import polars as pl
import pytest

from stream_iwae.batches import RecordBatch
from stream_iwae.detection.calibration import Calibration
from stream_iwae.events.config import EventsConfig
from stream_iwae.events.decode import Decoder
from stream_iwae.features.config import FeaturesConfig, needed_fields
from stream_iwae.iwae.scoring import Scorer
from stream_iwae.iwae.settings import ModelSettings
from stream_iwae.iwae.training import Features, train
from stream_iwae.lab import ordinary
from stream_iwae.lab.flows import to_events
from stream_iwae.lab.network import EXPORTERS
from stream_iwae.lab.simulate import HOUR_MS, Simulation

MINUTES = 600


@pytest.fixture(scope="module")
def windows():
    return list(ordinary.ordinary_windows(5, MINUTES, n_hosts=24))


def test_the_same_seed_gives_the_same_windows_and_another_one_others(windows):
    again, other = (ordinary.ordinary_windows(seed, MINUTES, n_hosts=24) for seed in (5, 6))

    assert np.array_equal(next(again).values, windows[0].values, equal_nan=True)
    assert not np.array_equal(next(other).values, windows[0].values, equal_nan=True)


def test_windows_follow_each_other_and_some_are_empty(windows):
    ends = np.concatenate([hour.window_end_ms for hour in windows])

    assert (np.diff(ends) >= 0).all()
    assert len(np.unique(ends)) == MINUTES - 1  # the last one is still open
    assert any((hour.n_events == 0).any() for hour in windows)
    assert "bytes" in windows[0].schema.names


def test_the_columns_are_those_that_the_decoder_makes_of_the_same_flows():
    simulation = Simulation(5, 24, history_ms=HOUR_MS, live_ms=0)
    flows = simulation.traffic.flows(0, 5, np.random.default_rng(1))
    flows = flows.take(np.argsort(flows.ts, kind="stable"))
    network = simulation.network
    exporters = np.array(EXPORTERS, object)[network.exporters_of(flows.src, flows.dst)]
    events = to_events(flows, network.addresses, exporters)
    fields = needed_fields(FeaturesConfig.model_validate({"preset": ordinary.PRESET}))
    decoder = Decoder(EventsConfig.model_validate({"preset": "simulated"}), fields)
    n = len(events)
    records = RecordBatch("t", 0, np.arange(n), flows.ts, [msgspec.json.encode(event) for event in events], n)

    decoded = decoder.decode(records).events.frame
    ours = ordinary._frame(flows, simulation, fields, 0)

    assert ours.equals(decoded.select(pl.col(name).cast(kind) for name, kind in ours.schema.items()))


def test_p_values_of_fresh_windows_mean_what_they_say(windows):
    """The cheap version of bench/calibration.py: one small network, every second window for either."""
    values = np.concatenate([hour.values for hour in windows])
    at = np.random.default_rng(0).permutation(len(values))
    schema = windows[0].schema
    features = Features(schema.names, tuple(map(str, schema.kinds)), schema.digest, {})
    model = train(values[at[:4_000]], features, ModelSettings(steps=200, device="cpu"), seed=0)
    scores = Scorer(model).score(values[at[4_000:]]).scores
    half = len(scores) // 2
    calibration = Calibration.fit(scores[:half], windows_per_day=100_000.0)

    p_values = calibration.p_values(scores[half:], low_share=0.1)
    alone = calibration.p_values(scores[half:] + 2e-3 * np.abs(scores[half:]), low_share=0.1)  # without its equals

    for said, factor in ((1e-1, 1.3), (1e-2, 1.5), (1e-3, 1.8)):
        assert np.mean(p_values <= said) < factor * said
        assert (
            np.mean(np.fmin(p_values, alone) <= said) > 0.85 * said / factor
        )  # a tenth is below, where many are alike
