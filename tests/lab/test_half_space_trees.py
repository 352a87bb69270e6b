"""Blocks of rows against river, row by row."""

import numpy as np
import pytest
from river.anomaly import HalfSpaceTrees

from stream_iwae.lab.half_space_trees import HEIGHT, TREES, BlockwiseTrees


@pytest.mark.parametrize("seed", [0, 3])
def test_blocks_score_what_river_scores_row_by_row(seed):
    rows = np.random.default_rng(seed).random((400, 3))
    rows[::50] = 0.99
    blocks = BlockwiseTrees(3, seed, window=60)
    river = HalfSpaceTrees(n_trees=TREES, height=HEIGHT, window_size=60, seed=seed)

    expected = []
    for row in rows:
        plain = dict(enumerate(row.tolist()))
        expected.append(river.score_one(plain) if river.trees else 0.0)
        river.learn_one(plain)
    found = np.concatenate([blocks.score_and_learn(part) for part in np.array_split(rows, 7)])

    assert found == pytest.approx(np.array(expected))
    assert found[60:].max() > 0
