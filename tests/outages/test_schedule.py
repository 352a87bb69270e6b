from collections import Counter

import pytest

from tests.outages.faults import KINDS
from tests.outages.logs import N_PARTITIONS, last_messages, partition_of, window_of_messages
from tests.outages.schedule import CLIENTS, REPLICAS, THEMES, make_schedule

SEEDS = range(1, 51)


def test_a_seed_is_the_same_schedule_and_the_same_log_every_time():
    for seed in (0, 3, 17):
        assert make_schedule(seed) == make_schedule(seed)
        assert window_of_messages(seed, 9) == window_of_messages(seed, 9)
    assert make_schedule(3) != make_schedule(15)
    assert window_of_messages(3, 9) != window_of_messages(15, 9)


def test_seed_0_is_undisturbed():
    assert make_schedule(0).faults == ()


def test_fifty_seeds_have_every_kind_of_fault_with_either_client():
    struck = Counter((f.kind, schedule.client) for schedule in map(make_schedule, SEEDS) for f in schedule.faults)

    assert {(kind, client) for kind in KINDS for client in CLIENTS} == set(struck)


def test_every_theme_comes_with_either_client():
    found = {(schedule.theme, schedule.client) for schedule in map(make_schedule, SEEDS)}

    assert found == {(theme, client) for theme in THEMES for client in CLIENTS}


@pytest.mark.parametrize("seed", SEEDS)
def test_faults_strike_replicas_that_there_are(seed):
    schedule = make_schedule(seed)
    assert all(fault.target < REPLICAS and fault.kind in KINDS for fault in schedule.faults)
    assert schedule.n_replicas == (1 if schedule.theme == "scale" else REPLICAS)


def test_an_entity_is_in_one_partition_and_every_partition_has_a_last_record():
    assert partition_of("10.0.0.1") == partition_of("10.0.0.1")
    assert [message.partition for message in last_messages(40)] == list(range(N_PARTITIONS))
