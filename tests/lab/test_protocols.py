"""Which rows are learnt from and judged, for each protocol."""

from functools import partial

import numpy as np
import pytest

from stream_iwae.batches import FeatureSchema, Kind
from stream_iwae.errors import ConfigurationError
from stream_iwae.lab import protocols
from stream_iwae.lab.labelled_rows import LabelledRows, load
from stream_iwae.lab.protocols import Source, prepare, read_source
from stream_iwae.lab.protocols import part as part_source
from stream_iwae.lab.simulate import HOUR_MS
from stream_iwae.lab.simulated_rows import load_simulated


@pytest.fixture
def make_rows():
    def make(n, attack_share, seed=0):
        rng = np.random.default_rng(seed)
        schema = FeatureSchema(("x",), (Kind.MAGNITUDE,), ("",))
        return LabelledRows(schema, np.arange(n, dtype=float)[:, None], rng.random(n) < attack_share, {})

    return make


def part(protocol, rows, training=None, seed=0, warmup=None):
    return part_source(Source(rows, training), protocol, seed, warmup)


def positions(rows):
    """Where rows of `make_rows` came from."""
    return rows.values[:, 0].astype(int).tolist()


def test_a_clean_warm_up_is_the_first_normal_rows_and_all_rows_are_judged(make_rows):
    rows = make_rows(10_000, 0.4)
    trial = part("clean-warmup", rows)
    normal = np.flatnonzero(~rows.is_anomaly)

    assert positions(trial.warmup) == normal[:2048].tolist()
    assert positions(trial.calibration) == normal[2048 : 2048 + 512].tolist()
    assert len(trial.judged) == 10_000
    assert np.flatnonzero(trial.in_warmup).tolist() == normal[: 2048 + 512].tolist()
    assert trial.is_trusted


def test_an_unlabelled_warm_up_is_the_first_rows_whatever_they_are(make_rows):
    trial = part("unlabelled", make_rows(20_000, 0.4))

    assert positions(trial.warmup) == list(range(4096))
    assert positions(trial.calibration) == list(range(4096, 4096 + 1024))
    assert 0.3 < trial.warmup.is_anomaly.mean() < 0.5
    assert np.flatnonzero(trial.in_warmup).tolist() == list(range(4096 + 1024))
    assert not trial.is_trusted


@pytest.mark.parametrize(("protocol", "n_eligible"), [("unlabelled", 1_000), ("clean-warmup", 800)])
def test_half_of_a_small_file_at_most_is_warm_up(make_rows, protocol, n_eligible):
    rows = make_rows(1_000, 0.0)
    rows.is_anomaly[::5] = True
    trial = part(protocol, rows)

    assert (len(trial.warmup), len(trial.calibration)) == (n_eligible * 2 // 5, n_eligible // 10)


def test_the_warm_up_can_be_given_in_rows(make_rows):
    assert len(part("clean-warmup", make_rows(10_000, 0.4), warmup=300).warmup) == 300


def test_a_training_file_takes_the_place_of_the_warm_up(make_rows):
    rows, training = make_rows(1_000, 0.5), make_rows(30_000, 0.2, seed=1)
    clean, unlabelled = part("clean-warmup", rows, training), part("unlabelled", rows, training)

    assert positions(clean.warmup) == np.flatnonzero(~training.is_anomaly)[:16_384].tolist()
    assert not clean.warmup.is_anomaly.any()
    assert positions(unlabelled.warmup) == list(range(16_384))
    assert positions(unlabelled.calibration) == list(range(16_384, 16_384 + 4_096))
    assert not unlabelled.in_warmup.any()
    assert unlabelled.judged is rows


def test_a_small_training_file_gives_a_fifth_to_p_values(make_rows):
    trial = part("unlabelled", make_rows(1_000, 0.5), make_rows(500, 0.1))

    assert (len(trial.warmup), len(trial.calibration)) == (400, 100)


def test_rows_sorted_by_label_are_refused_with_the_remedy(make_rows):
    rows = make_rows(1_000, 0.0)
    rows.is_anomaly[:500] = True

    with pytest.raises(ConfigurationError, match="add --shuffle"):
        part("unlabelled", rows)


def test_too_few_rows_are_refused(make_rows):
    with pytest.raises(ConfigurationError, match="64 are needed"):
        part("unlabelled", make_rows(120, 0.5))


def test_flipped_takes_the_attacks_as_the_ordinary(make_rows):
    rows = make_rows(5_000, 0.8)
    trial = part("flipped", rows)

    assert (trial.judged.is_anomaly == ~rows.is_anomaly).all()
    assert len(trial.warmup) == 256
    assert not trial.warmup.is_anomaly.any()


@pytest.mark.parametrize(("protocol", "share"), [("attacks-5pct", 0.05), ("attacks-1pct", 0.01)])
def test_thinning_keeps_every_normal_row_in_order_and_a_share_of_attacks(make_rows, protocol, share):
    rows = make_rows(40_000, 0.5)
    one, same, other = (part(protocol, rows, seed=seed).judged for seed in (1, 1, 2))

    assert one.is_anomaly.mean() == pytest.approx(share, rel=0.01)
    assert (~one.is_anomaly).sum() == (~rows.is_anomaly).sum()
    assert (np.diff(one.values[:, 0]) > 0).all()
    assert np.array_equal(one.values, same.values)
    assert not np.array_equal(one.values, other.values)


@pytest.mark.parametrize(
    ("dataset", "protocol", "key"), [("nsl", "clean-warmup", "--dataset"), ("nsl-kdd", "clean", "--protocol")]
)
def test_an_unknown_name_is_refused_with_those_there_are(tmp_path, dataset, protocol, key):
    with pytest.raises(ConfigurationError, match="it is none of") as caught:
        prepare(dataset, protocol, tmp_path, 0)
    assert caught.value.key == key


@pytest.mark.data
def test_the_service_s_own_code_makes_the_rows_of_nsl_kdd(data_dir):
    rows = load("nsl-kdd-test", data_dir)

    assert rows.values.shape == (22_544, 41)
    assert rows.is_anomaly.sum() == 12_833
    assert sum(kind is Kind.CATEGORY for kind in rows.schema.kinds) == 3
    assert "http" in rows.texts.values()
    assert np.isfinite(rows.values).all()


def test_a_simulated_network_is_learnt_from_its_history_and_judged_by_its_scenarios(tmp_path, monkeypatch):
    small = partial(load_simulated, n_hosts=30, history_ms=HOUR_MS, live_ms=5 * HOUR_MS)
    monkeypatch.setattr(protocols, "load_simulated", small)
    source = read_source("simulated", tmp_path, seed=1)
    trial = part_source(source, "unlabelled", 0)

    assert source.training.end_ms.max() <= source.rows.end_ms.min()
    assert len(trial.warmup) + len(trial.calibration) == len(source.training)
    assert not trial.in_warmup.any()
    assert source.rows.has_time
    assert set(np.unique(source.rows.told)) > {-1}
    assert (source.rows.told[source.rows.is_anomaly] >= 0).all()
    assert "network 101" in source.rows.notes[0]
