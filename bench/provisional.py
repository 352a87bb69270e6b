"""What to look at before there is a model: ours beside river's HalfSpaceTrees, on labelled streams, and what it costs.

    STREAM_IWAE_DATA=DIR python bench/provisional.py [--rows 10000]

Each detector scores a row, or a batch of 250, by those before it, and then learns it. Labels judge alone.
"""

import argparse
import os
import time
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
from river.anomaly import HalfSpaceTrees
from sklearn.metrics import average_precision_score, roc_auc_score

from stream_iwae.batches import FeatureBatch
from stream_iwae.lab.labelled_rows import LabelledRows, load
from stream_iwae.lab.ordinary import ordinary_windows
from stream_iwae.lab.rivals import Encoder
from stream_iwae.learning.provisional import MIN_WINDOWS, Provisional

BATCH = 250


def ours(rows: LabelledRows) -> np.ndarray:
    provisional, scores = Provisional(), np.zeros(len(rows))
    for start in range(0, len(rows), BATCH):
        values = rows.values[start : start + BATCH]
        n = len(values)
        at = np.arange(n, dtype=np.int64)
        batch = FeatureBatch(rows.schema, values, ["e"] * n, at, at + 1, at, at, at, np.full(n, np.nan), rows.texts)
        if provisional.n_windows >= MIN_WINDOWS:
            scores[start : start + n] = provisional._scores(provisional._flattened(values))
        provisional.observe(batch)
    return scores


def half_space_trees(rows: LabelledRows) -> np.ndarray:
    """The same numbers as the rivals of `evaluate` get; scaled by the first 250 rows."""
    values = Encoder(rows.take(np.arange(BATCH))).encode(rows.values)
    low, high = values[:BATCH].min(axis=0), values[:BATCH].max(axis=0)
    trees, scores = HalfSpaceTrees(n_trees=25, height=8, window_size=BATCH, seed=0), np.zeros(len(values))
    bounded = np.clip((values - low) / np.maximum(high - low, 1e-9), 0, 1)
    for i, row in enumerate(bounded.tolist()):
        event = dict(enumerate(row))
        scores[i] = trees.score_one(event)
        trees.learn_one(event)
    return scores


def streams(data: Path, n: int) -> dict[str, LabelledRows]:
    found = {}
    for name in ("nsl-kdd", "kdd99"):
        rows, rng = load(name, data), np.random.default_rng(0)
        found[f"{name}, first {n:,} rows"] = rows.take(np.arange(n))
        ordinary, attacks = np.flatnonzero(~rows.is_anomaly), np.flatnonzero(rows.is_anomaly)
        thinned = np.concatenate([rng.choice(ordinary, n - n // 20, replace=False), rng.choice(attacks, n // 20)])
        found[f"{name}, thinned to 5 %"] = rows.take(np.sort(thinned))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=10_000)
    options = parser.parse_args()
    print(f"{'stream':<28} {'attacks':>8} {'detector':<18} {'AUROC':>6} {'AP':>6} {'us/row':>7}")
    for name, rows in streams(Path(os.environ["STREAM_IWAE_DATA"]), options.rows).items():
        truth = rows.is_anomaly[2 * BATCH :]
        for detector in (ours, half_space_trees):
            began = time.process_time()
            scores = detector(rows)[2 * BATCH :]
            cost = (time.process_time() - began) / len(rows) * 1e6
            auroc = roc_auc_score(truth, scores) if 0 < truth.mean() < 1 else np.nan
            precision = average_precision_score(truth, scores) if truth.any() else np.nan
            print(f"{name:<28} {truth.mean():8.1%} {detector.__name__:<18} {auroc:6.3f} {precision:6.3f} {cost:7.1f}")
    windows, provisional = list(ordinary_windows(1, 240)), Provisional()
    began = time.process_time()
    for hour in windows:
        provisional.observe(hour)
    cost = (time.process_time() - began) / sum(map(len, windows)) * 1e6
    print(f"windows of the simulated network, an hour at a time: {cost:.1f} us a window")


if __name__ == "__main__":
    main()
