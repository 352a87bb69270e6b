"""Figures on rows that can be checked by hand."""

from dataclasses import replace

import numpy as np
import pytest

from stream_iwae.batches import FeatureSchema, Kind
from stream_iwae.lab.evaluation_figures import decisions, ranking
from stream_iwae.lab.labelled_rows import LabelledRows
from stream_iwae.lab.timeline import Timeline

MINUTE_MS = 60_000


def rows_of(truth, entities=None):
    """A row a minute, of one entity or as given."""
    at = np.arange(len(truth))
    timeline = replace(
        Timeline.made_up(len(truth)),
        start_ms=at * MINUTE_MS,
        end_ms=(at + 1) * MINUTE_MS,
        entities=list(entities or [""] * len(truth)),
        is_real=True,
    )
    schema = FeatureSchema(("x",), (Kind.GAUGE,), ("",))
    return LabelledRows(schema, np.zeros((len(truth), 1)), np.array(truth, dtype=bool), {}, timeline)


def nothing(n):
    return np.zeros(n, dtype=bool)


def test_ranking_over_all_rows_and_after_the_warm_up():
    truth = [1, 0, 0, 1, 0, 1]
    scores = np.array([0.0, 1, 2, 9, 3, 8])
    in_warmup = np.array([1, 1, 0, 0, 0, 0], dtype=bool)

    found = ranking(rows_of(truth), in_warmup, scores)

    assert found.auroc == pytest.approx(6 / 9)
    assert (found.auroc_after_warmup, found.average_precision_after_warmup) == (1.0, 1.0)
    assert found.vus_pr is not None
    assert ranking(replace(rows_of(truth), timeline=None), in_warmup, scores).vus_pr is None


def test_a_row_without_a_score_counts_as_the_most_ordinary():
    found = ranking(rows_of([0, 1, 1]), nothing(3), np.array([1.0, np.nan, 2.0]))

    assert found.auroc == pytest.approx((0.5 + 1) / 2)


def test_alerts_are_counted_by_the_day_of_event_time():
    n = 2 * 24 * 60
    truth, is_alert = nothing(n), nothing(n)
    truth[100], is_alert[100], is_alert[2_000:2_005] = True, True, True

    found = decisions(rows_of(truth), nothing(n), np.ones(n), is_alert)

    assert found.alerts_per_day == pytest.approx(3)
    assert found.false_alerts_per_day == pytest.approx(2.5)


def test_seen_is_the_share_of_normal_rows_and_found_that_of_anomalies_after_the_warm_up():
    truth = np.array([0] * 10 + [0] * 10 + [1] * 10, dtype=bool)
    p_values = np.concatenate([np.full(10, 1e-9), np.full(5, 0.05), np.full(5, 0.5), np.full(9, 0.005), [0.5]])
    in_warmup = np.arange(30) < 10

    found = decisions(rows_of(truth), in_warmup, p_values, nothing(30))

    assert found.seen_at == pytest.approx((0.5, 0.0, 0.0))
    assert found.found_at == pytest.approx((0.9, 0.9, 0.0))


def test_a_stretch_of_anomalies_is_caught_at_its_first_alert():
    truth = nothing(20)
    truth[3:8], truth[12:14] = True, True
    is_alert = nothing(20)
    is_alert[[5, 6]] = True

    found = decisions(rows_of(truth), nothing(20), np.ones(20), is_alert)

    assert (found.n_segments, found.segments_caught) == (2, 0.5)
    assert found.detection_delay_seconds == 3 * 60  # its third minute has ended


def test_stretches_are_those_of_one_entity():
    truth = np.array([1, 0, 1, 0, 1, 0], dtype=bool)  # a, b, a, b, a, b: a is anomalous throughout
    found = decisions(rows_of(truth, "ababab"), nothing(6), np.ones(6), truth)

    assert (found.n_segments, found.segments_caught) == (1, 1.0)


def test_rows_without_a_time_have_no_stretches():
    found = decisions(replace(rows_of([1, 0]), timeline=None), nothing(2), np.ones(2), nothing(2))

    assert (found.n_segments, found.segments_caught, found.detection_delay_seconds) == (None, None, None)


def test_what_an_alert_tells_of_may_be_said_by_the_stream_itself():
    told = np.array([-1, 0, 0, -1, 1, 1])
    rows = replace(rows_of([0, 1, 0, 0, 1, 1]), told=told)  # the third row is of an incident, and ordinary
    is_alert = np.array([0, 0, 1, 1, 0, 0], dtype=bool)

    found = decisions(rows, nothing(6), np.ones(6), is_alert)

    assert (found.n_segments, found.segments_caught, found.detection_delay_seconds) == (2, 0.5, 120)
    assert found.false_alerts_per_day == pytest.approx(found.alerts_per_day / 2)
