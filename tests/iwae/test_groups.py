"""Which odd rows stand together, apart from the ordinary ones."""

import numpy as np
import pytest
import torch

from stream_iwae.iwae.groups import LEAST_SHARE, in_group

N = 2_000


def points_and_bounds(odd):
    """Ordinary points in a cloud, and odd ones, each the odder the farther off."""
    rng = np.random.default_rng(0)
    points = np.vstack([rng.normal(size=(N - len(odd), 4)), odd])
    return torch.tensor(points, dtype=torch.float32), np.linalg.norm(points, axis=1)


def found(odd, bounds=None):
    points, known = points_and_bounds(odd)
    return in_group(points, known if bounds is None else bounds, np.random.default_rng(1))[N - len(odd) :]


def alike(n, at=9.0):
    return at + np.random.default_rng(2).normal(scale=0.1, size=(n, 4))


def test_a_group_apart_is_found_as_a_whole():
    assert found(alike(80)).all()


def test_a_small_group_is_a_rare_kind_of_ordinary():
    n = int(LEAST_SHARE * N)
    assert not found(alike(n)).any()  # not counting itself, a row has one companion fewer
    assert found(alike(n + 1)).all()


def test_odd_rows_each_of_its_own_kind_are_no_group():
    directions = np.random.default_rng(3).normal(size=(100, 4))
    assert not found(9 * directions / np.linalg.norm(directions, axis=1, keepdims=True)).any()


def test_the_edge_of_the_ordinary_is_no_group():
    points, bounds = points_and_bounds(alike(0))
    assert not in_group(points, bounds, np.random.default_rng(1)).any()


def test_a_group_that_the_network_finds_ordinary_is_left_alone():
    points, bounds = points_and_bounds(alike(80))
    assert not in_group(points, -bounds, np.random.default_rng(1)).any()


@pytest.mark.parametrize("bounds", [np.full(N, np.nan), np.zeros(N)])
def test_rows_that_nothing_tells_apart_hold_no_group(bounds):
    assert not found(alike(80), bounds).any()


def test_it_is_what_a_plain_loop_finds():
    points, bounds = points_and_bounds(np.vstack([alike(50), alike(50, at=-5.0), alike(20, at=7.0)]))
    by_hand = np.zeros(N, np.bool_)
    odd = np.flatnonzero(bounds > np.quantile(bounds, 0.9))
    usual = np.setdiff1d(np.arange(N), odd)
    usual = np.random.default_rng(1).permutation(usual)[:1024]
    rows = points.double().numpy()
    for i in odd:
        own = np.sort(np.linalg.norm(rows[odd] - rows[i], axis=1))[int(LEAST_SHARE * N)]
        by_hand[i] = own < 0.5 * np.sort(np.linalg.norm(rows[usual] - rows[i], axis=1))[2]

    assert by_hand.any()
    assert np.array_equal(in_group(points, bounds, np.random.default_rng(1)), by_hand)
