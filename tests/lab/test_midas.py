"""MIDAS against the authors' loop over edges, with plain dictionaries for counts."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score

from stream_iwae.lab import datasets
from stream_iwae.lab.midas import DECAY, midas, midas_r

edges = st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3), st.integers(0, 2)), min_size=1, max_size=60)


def score(current, total, tick):
    return 0.0 if tick == 1 else (current - total / tick) ** 2 * tick**2 / (total * (tick - 1))


def plain_loop(stream, decay, keys_of):
    """Exact counts instead of sketches, one edge after another: current, total, then the score."""
    current, total, last, scores = {}, {}, None, []
    for source, destination, tick in stream:
        if tick != last:
            current = {key: count * decay for key, count in current.items()}
            last = tick
        found = []
        for key in keys_of(source, destination):
            current[key] = current.get(key, 0) + 1
            total[key] = total.get(key, 0) + 1
            found.append(score(current[key], total[key], tick))
        scores.append(max(found))
    return scores


def columns(listed):
    """Steps become ticks from 1 that never fall."""
    ticks = np.cumsum([step > 1 for _, _, step in listed]) + 1
    sources, destinations = (np.array([edge[i] for edge in listed], dtype=np.uint64) for i in (0, 1))
    stream = list(zip(sources.tolist(), destinations.tolist(), ticks.tolist(), strict=True))
    return sources, destinations, ticks, stream


@given(edges)
@settings(max_examples=60)
def test_midas_is_the_loop_of_the_paper_as_long_as_no_two_edges_share_a_bucket(listed):
    sources, destinations, ticks, stream = columns(listed)

    expected = plain_loop(stream, 0.0, lambda s, d: [("edge", s, d)])
    assert midas(sources, destinations, ticks, 0).tolist() == pytest.approx(expected)


@given(edges)
@settings(max_examples=60)
def test_midas_r_adds_what_fades_and_both_ends(listed):
    sources, destinations, ticks, stream = columns(listed)

    expected = plain_loop(stream, DECAY, lambda s, d: [("edge", s, d), ("source", s), ("destination", d)])
    assert midas_r(sources, destinations, ticks, 0).tolist() == pytest.approx(expected)


def test_a_burst_of_one_edge_stands_out():
    rng = np.random.default_rng(0)
    ticks = np.repeat(np.arange(1, 101), 20)
    sources, destinations = (rng.integers(0, 50, 2_000).astype(np.uint64) for _ in range(2))
    is_burst = (ticks == 70) & (np.arange(2_000) % 20 < 15)
    sources[is_burst], destinations[is_burst] = 7, 8

    for scored in (midas, midas_r):
        scores = scored(sources, destinations, ticks, 0)
        assert np.median(scores[is_burst]) > np.quantile(scores[~is_burst], 0.99)


@pytest.mark.data
@pytest.mark.timeout(600)
def test_midas_r_reaches_on_darpa_what_its_paper_reports(data_dir):
    """AUROC .95 for MIDAS-R in table 4 of the paper, on the connections themselves; 46,567 ticks."""
    events = [(event["src"], event["dst"], event["ts"]) for event in datasets.events("darpa98", data_dir)]
    truth = np.array([label is not None for label in datasets.labels("darpa98", data_dir)])
    sources, destinations, times = (np.unique(column, return_inverse=True)[1] for column in zip(*events, strict=True))

    scores = midas_r(sources.astype(np.uint64), destinations.astype(np.uint64), times + 1, 0)

    assert times.max() + 1 == 46_567
    assert roc_auc_score(truth, scores) == pytest.approx(0.95, abs=0.01)
