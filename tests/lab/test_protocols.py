"""Which rows are learnt from and judged, for each protocol."""

import numpy as np
import pytest

from stream_iwae.batches import FeatureSchema, Kind
from stream_iwae.errors import ConfigurationError
from stream_iwae.lab.labelled_rows import LabelledRows, load
from stream_iwae.lab.protocols import PROTOCOLS, prepare


@pytest.fixture
def make_rows():
    def make(n, attack_share, seed=0):
        rng = np.random.default_rng(seed)
        schema = FeatureSchema(("x",), (Kind.MAGNITUDE,), ("",))
        return LabelledRows(schema, np.arange(n, dtype=float)[:, None], rng.random(n) < attack_share, {})

    return make


def part(protocol, rows, training=None, seed=0):
    return PROTOCOLS[protocol](rows, training, np.random.default_rng(seed))


def test_a_clean_warm_up_is_the_first_normal_rows_and_all_rows_are_judged(make_rows):
    rows = make_rows(10_000, 0.4)
    trial = part("clean-warmup", rows)

    assert not trial.warmup.is_anomaly.any()
    assert trial.warmup.values[:, 0].tolist() == np.flatnonzero(~rows.is_anomaly)[:2048].tolist()
    assert len(trial.judged) == 10_000
    assert trial.is_trusted


def test_an_unlabelled_warm_up_is_the_first_rows_whatever_they_are(make_rows):
    trial = part("unlabelled", make_rows(10_000, 0.4))

    assert trial.warmup.values[:, 0].tolist() == list(range(4096))
    assert 0.3 < trial.warmup.is_anomaly.mean() < 0.5
    assert (trial.n_warmup_judged, trial.is_trusted) == (4096, False)


def test_a_training_file_takes_the_place_of_the_warm_up(make_rows):
    rows, training = make_rows(1_000, 0.5), make_rows(20_000, 0.2, seed=1)
    clean, unlabelled = part("clean-warmup", rows, training), part("unlabelled", rows, training)

    assert len(clean.warmup) == (~training.is_anomaly).sum() < 16_384
    assert not clean.warmup.is_anomaly.any()
    assert len(unlabelled.warmup) == 16_384
    assert unlabelled.n_warmup_judged == 0
    assert unlabelled.judged is rows


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
    assert sum(kind is Kind.CATEGORY for kind in rows.schema.kinds) == 9
    assert "http" in rows.texts.values()
    assert np.isfinite(rows.values).all()
