from dataclasses import replace

import numpy as np

from stream_iwae.learning.gate import cap_entities, learnable
from stream_iwae.learning.rows import Salt, is_chosen


def test_a_row_is_learnt_when_its_p_value_is_above_the_gate(make_rows):
    rows = make_rows(4, judged=True, p_values=[0.5, 0.01, 0.0101, np.nan])

    assert learnable(rows, 0.01).tolist() == [True, False, True, False]


def test_every_row_is_learnt_before_a_model_has_judged_any(make_rows):
    assert learnable(make_rows(3), 0.01).tolist() == [True, True, True]


def test_rows_of_an_open_incident_and_rows_without_any_value_are_not_learnt(make_rows):
    rows = make_rows(3, judged=True, values=[[1, 2], [np.nan, np.nan], [np.nan, 1]])
    rows = replace(rows, in_incident=np.array([True, False, False]))

    assert learnable(rows, 0.01).tolist() == [False, False, True]


def test_no_entity_supplies_more_than_its_share(make_rows):
    entities = [0] * 700 + list(range(1, 301))

    capped = cap_entities(make_rows(1_000, entities=entities), 0.01)

    assert np.count_nonzero(capped.entity_ids == 0) == 10
    assert len(capped) == 310


def test_among_few_entities_each_may_supply_twice_its_fair_share(make_rows):
    capped = cap_entities(make_rows(100, entities=[0] * 90 + [1] * 5 + [2] * 3 + [3] * 2), 0.01)

    assert np.unique(capped.entity_ids, return_counts=True)[1].tolist() == [50, 5, 3, 2]


def test_capping_no_rows_gives_no_rows(make_rows):
    assert len(cap_entities(make_rows(0), 0.01)) == 0


def test_a_share_of_ids_is_chosen_the_same_each_time_and_shares_are_independent():
    ids = np.arange(100_000, dtype=np.uint64)
    calibrate, held_out = is_chosen(ids, Salt.CALIBRATE, 0.2), is_chosen(ids, Salt.HELD_OUT, 0.1)

    assert abs(calibrate.mean() - 0.2) < 0.01
    assert abs((calibrate & held_out).mean() - 0.02) < 0.003
    np.testing.assert_array_equal(calibrate[50:], is_chosen(ids[50:], Salt.CALIBRATE, 0.2))
