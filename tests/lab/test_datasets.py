import gzip
import itertools
import lzma

import pytest

from stream_iwae.errors import ConfigurationError
from stream_iwae.lab import datasets
from stream_iwae.lab.datasets import KDD_CATEGORIES, KDD_COLUMNS, SMD_COLUMNS, DatasetError

JUNE_1_1998_MS = 896_659_200_000
A_KDD_ROW = ["0", "tcp", "http", "SF", "181", "5450", *["0"] * 16, "8", "8", *["0.25"] * 17]


def written(path, rows):
    pack = lzma.compress if path.suffix == ".xz" else gzip.compress
    path.write_bytes(pack("".join(f"{row}\n" for row in rows).encode()))


def first(iterator, n):
    return list(itertools.islice(iterator, n))


class TestParsing:
    def test_a_kdd_row_becomes_a_named_event_without_its_label(self, tmp_path):
        written(tmp_path / "nsl_kdd_train.csv.gz", [",".join([*A_KDD_ROW, "neptune", "21"])])

        [event] = datasets.events("nsl-kdd", tmp_path)

        assert set(event) == {"ts", "sensor", *KDD_COLUMNS}
        assert (event["protocol_type"], event["dst_bytes"], event["serror_rate"]) == ("tcp", 5450, 0.25)
        assert "neptune" not in event.values()
        assert 21 not in event.values()

    def test_rows_without_a_time_are_a_second_apart(self, tmp_path):
        written(tmp_path / "kddcup.data_10_percent.gz", [",".join([*A_KDD_ROW, "normal."])] * 3)

        times = [event["ts"] for event in datasets.events("kdd99", tmp_path)]

        assert [time - times[0] for time in times] == [0, 1000, 2000]

    def test_the_full_stop_of_a_kdd_label_is_dropped(self, tmp_path):
        rows = [",".join([*A_KDD_ROW, label]) for label in ("normal.", "smurf.")]
        written(tmp_path / "kddcup.data_10_percent.gz", rows)

        assert list(datasets.labels("kdd99", tmp_path)) == [None, "smurf"]

    def test_a_darpa_row_keeps_hosts_and_minute(self, tmp_path):
        rows = ["172.016.112.020,192.168.001.010,06/01/1998-07:55,-"]
        written(tmp_path / "darpa98_connections.csv.xz", rows)

        expected = {"ts": JUNE_1_1998_MS + (7 * 60 + 55) * 60_000, "src": "172.16.112.20", "dst": "192.168.1.10"}
        assert list(datasets.events("darpa98", tmp_path)) == [expected]

    def test_the_32nd_of_july_is_the_first_of_august_and_takes_its_place_there(self, tmp_path):
        days = ("07/31/1998-23:59", "07/32/1998-05:31", "08/01/1998-00:00", "08/01/1998-05:31", "08/01/1998-06:00")
        written(tmp_path / "darpa98_connections.csv.xz", [f"1.1.1.1,1.1.1.2,{day},{day[:5]}" for day in days])

        minutes = [
            (event["ts"] - JUNE_1_1998_MS) // 60_000 - 61 * 24 * 60 for event in datasets.events("darpa98", tmp_path)
        ]

        assert minutes == [-1, 0, 5 * 60 + 31, 5 * 60 + 31, 6 * 60]
        assert list(datasets.labels("darpa98", tmp_path)) == ["07/31", "08/01", "07/32", "08/01", "08/01"]

    def test_rows_that_end_a_file_out_of_order_are_not_lost(self, tmp_path):
        rows = ["1.1.1.1,1.1.1.2,07/32/1998-05:31,neptune"]
        written(tmp_path / "darpa98_connections.csv.xz", rows)

        assert len(list(datasets.events("darpa98", tmp_path))) == 1

    def test_a_server_machine_row_is_a_minute_of_a_host(self, tmp_path):
        written(tmp_path / "smd_machine-1-6_test.csv.gz", [",".join(["0.5"] * 38)] * 2)
        written(tmp_path / "smd_machine-1-6_test_label.csv.gz", ["0", "1"])

        events = list(datasets.events("smd-1-6-test", tmp_path))

        assert set(events[0]) == {"ts", "host", *SMD_COLUMNS}
        assert events[0]["host"] == "machine-1-6"
        assert events[1]["ts"] - events[0]["ts"] == 60_000
        assert list(datasets.labels("smd-1-6-test", tmp_path)) == [None, "anomaly"]


class TestRefusals:
    def test_an_unknown_name_is_answered_with_the_known_ones(self, tmp_path):
        with pytest.raises(ConfigurationError, match="nsl-kdd, nsl-kdd-test, kdd99, darpa98"):
            next(datasets.events("kdd2000", tmp_path))

    def test_a_missing_file_is_named_with_its_data_set_and_the_remedy(self, tmp_path):
        with pytest.raises(DatasetError, match=r"darpa98: .*darpa98_connections\.csv\.xz .*STREAM_IWAE_DATA"):
            next(datasets.events("darpa98", tmp_path))

    def test_the_training_part_of_smd_has_no_labels(self, tmp_path):
        with pytest.raises(ConfigurationError, match="test part"):
            next(datasets.labels("smd-2-1-train", tmp_path))


@pytest.mark.data
class TestTheRealFiles:
    @pytest.mark.parametrize(
        ("name", "n_rows", "n_attacks"),
        [
            ("nsl-kdd", 125_973, 58_630),
            ("nsl-kdd-test", 22_544, 12_833),
            ("kdd99", 494_021, 396_743),
            ("smd-1-6-test", 23_689, 3_708),
            ("smd-2-1-test", 23_694, 1_170),
        ],
    )
    def test_each_row_has_a_label_and_no_event_holds_it(self, data_dir, name, n_rows, n_attacks):
        labels = list(datasets.labels(name, data_dir))
        sample = first(datasets.events(name, data_dir), 1000)

        assert (len(labels), len(labels) - labels.count(None)) == (n_rows, n_attacks)
        attacks = set(labels) - {None}
        assert not any(attacks & {str(value) for value in event.values()} for event in sample)
        assert datasets.entity_field(name) in sample[0]

    def test_the_whole_of_darpa_is_in_order_of_time(self, data_dir):
        n_rows, last_ms, first_ms = 0, 0, None
        for event in datasets.events("darpa98", data_dir):
            assert event["ts"] >= last_ms
            first_ms = first_ms or event["ts"]
            last_ms = event["ts"]
            n_rows += 1
        assert n_rows == 4_554_344
        assert first_ms == JUNE_1_1998_MS + (7 * 60 + 55) * 60_000
        assert (last_ms - first_ms) // 86_400_000 == 60  # until the first of August

    def test_the_share_of_attacks_in_darpa_is_the_known_one(self, data_dir):
        n_attacks = sum(label is not None for label in datasets.labels("darpa98", data_dir))

        assert n_attacks == 2_737_209
        assert round(n_attacks / 4_554_344, 3) == 0.601

    def test_categories_are_columns(self, data_dir):
        [event] = first(datasets.events("nsl-kdd-test", data_dir), 1)

        assert set(KDD_CATEGORIES) <= set(event)
