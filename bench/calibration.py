"""Do p-values mean what they say? Ordinary windows of simulated networks, learnt and judged as the service does it.

    python bench/calibration.py [--seeds 10] [--days 3] [--hosts 120] [--json FILE]

Each seed is another network with its own model: a day of history trains and calibrates it with the defaults of the
configuration (fine-tuning aside), then come `days` of fresh windows, an hour at a time: judged first, then given to
the trainer, which calibrates anew when it is due. Flows, windows and features are the simulator's and the service's
own; nothing but harmless traffic happens. A window with p <= q should be as rare as q.

Windows that are alike have one score, and one p-value: the share of all that are at least as unusual, themselves
included. So the share at or below q falls short where many windows share the score at q. The second figure counts
high scores as if their p-value left out themselves: said and seen agree if 1 lies between the two. (Below, the most
common kinds of windows are the lowest of all, and there is nothing to compare.)
"""

import argparse
import json
import os
import time
from dataclasses import replace
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("POLARS_MAX_THREADS", "1")

import numpy as np
import torch

from stream_iwae.batches import FeatureBatch, TrainingBatch
from stream_iwae.detection.config import DetectionConfig
from stream_iwae.detection.judge import Judge
from stream_iwae.iwae.settings import ModelSettings
from stream_iwae.lab.ordinary import ordinary_windows
from stream_iwae.learning.config import LearningConfig
from stream_iwae.learning.learner import Learner
from stream_iwae.learning.tuner import make_learner
from stream_iwae.row_ids import hash_entities, hash_rows
from stream_iwae.wire import rows_of

SAID = (1e-1, 1e-2, 1e-3, 1e-4, 1e-5)
ROUNDING = 2e-3  # nats, and share of a score: more than a calibration takes for the same
HISTORY_HOURS = 24
DETECTION = DetectionConfig()


def training_rows(features: FeatureBatch, version: str, scores: np.ndarray, p_values: np.ndarray) -> TrainingBatch:
    n = len(features)
    entities = hash_entities(features.entities)
    row_ids = hash_rows(entities, features.window_end_ms, np.zeros(n, np.int64), 0)
    nothing = np.zeros(n, np.bool_)
    digest, values = features.schema.digest, features.values
    return TrainingBatch(
        digest, version, row_ids, entities, features.window_end_ms, values, scores, p_values, nothing, features.labels
    )


def work_off(learner: Learner) -> None:
    while learner.due() is not None:
        learner.step()


def one_network(seed: int, days: int, hosts: int) -> dict[str, object]:
    """Counts of fresh windows by what was said of them."""
    began = time.process_time()
    hours = map(usable, ordinary_windows(seed, (HISTORY_HOURS + 24 * days) * 60, hosts))
    learner: Learner | None = None
    at_or_below, below = (np.zeros(len(SAID)) for _ in range(2))
    n = warnings = low_warnings = 0
    budget = []  # the p-value of a warning, at each hour
    for hour, features in enumerate(hours):
        if learner is None:
            config = LearningConfig.model_validate({"interval": 0})
            learner = make_learner(config, ModelSettings(device="cpu"), DETECTION, features.schema, seed)
        if hour < HISTORY_HOURS:
            unknown = np.full(len(features), np.nan)
            batch = replace(training_rows(features, "", unknown, unknown), in_history=True)
            learner.add(batch)
            if hour == HISTORY_HOURS - 1:
                learner.add(replace(rows_of(batch, slice(0, 0)), history_ended=True))
                work_off(learner)
            continue
        assert learner.served is not None
        calibration, weights = learner.served.calibration, learner.served.weights
        scores = weights.score(features.values, lambda: None).scores
        p_values = calibration.p_values(scores, DETECTION.low_share)
        above = calibration.p_values(scores + ROUNDING * np.maximum(1, np.abs(scores)))
        apart = np.fmin(p_values, above / (1 - DETECTION.low_share))
        at_or_below += [np.count_nonzero(p_values <= said) for said in SAID]
        below += [np.count_nonzero(apart <= said) for said in SAID]
        n += int(np.isfinite(scores).sum())
        judge = Judge(calibration, DETECTION)
        is_warning = p_values <= judge.warning_p_value
        warnings += int(is_warning.sum())
        low_warnings += int((is_warning & calibration.is_low(scores, DETECTION.low_share)).sum())
        budget.append(judge.warning_p_value)
        learner.add(training_rows(features, learner.served.version, scores, p_values))
        work_off(learner)
    assert learner is not None
    assert learner.served is not None
    return {
        "seed": seed,
        "windows": n,
        "at_or_below": dict(zip(map(str, SAID), (at_or_below / n).round(8).tolist(), strict=True)),
        "below": dict(zip(map(str, SAID), (below / n).round(8).tolist(), strict=True)),
        "warning_p_value": float(np.mean(budget)),
        "warnings_per_day": warnings / days,
        "low_warnings_per_day": low_warnings / days,
        "calibrated_on": learner.served.calibration.n_rows,
        "extrapolated": Judge(learner.served.calibration, DETECTION).is_extrapolated,
        "cpu_s": round(time.process_time() - began, 1),
    }


def usable(features: FeatureBatch) -> FeatureBatch:
    """Without sources gone quiet as a whole: no model judges those."""
    keep = np.flatnonzero(np.isnan(features.silence_p_values))
    if len(keep) == len(features):
        return features
    columns = ("window_start_ms", "window_end_ms", "n_events", "first_offset", "last_offset", "silence_p_values")
    taken = {name: getattr(features, name)[keep] for name in columns}
    entities = [features.entities[at] for at in keep.tolist()]
    return replace(features, values=features.values[keep], entities=entities, **taken)


def show(found: list[dict[str, object]]) -> None:
    print(f"{'seed':>6} {'windows':>10} {'rows':>7} " + " ".join(f"{f'p<={said:g}':>13}" for said in SAID), end="")
    print(f" {'warnings/day':>13} {'of them low':>12}")
    total = sum(row["windows"] for row in found)
    for row in found:
        shares = [(row["at_or_below"][str(said)] / said, row["below"][str(said)] / said) for said in SAID]
        print(f"{row['seed']:>6} {row['windows']:>10,} {row['calibrated_on']:>7,} ", end="")
        print(" ".join(f"{f'{a:.2f}..{b:.2f}':>13}" for a, b in shares), end="")
        print(f" {row['warnings_per_day']:>13.1f} {row['low_warnings_per_day']:>12.1f}")
    pooled = [
        [sum(row[kind][str(said)] * row["windows"] for row in found) / total / said for said in SAID]
        for kind in ("at_or_below", "below")
    ]
    print(f"{'all':>6} {total:>10,} {'':>7} ", end="")
    print(" ".join(f"{f'{a:.2f}..{b:.2f}':>13}" for a, b in zip(*pooled, strict=True)), end="")
    print(f" {np.mean([row['warnings_per_day'] for row in found]):>13.1f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--days", type=int, default=3, help="of fresh windows, 345,000 a day with 120 hosts")
    parser.add_argument("--hosts", type=int, default=120)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(1)
    found = []
    for seed in range(101, 101 + options.seeds):
        found.append(one_network(seed, options.days, options.hosts))
        if options.json is not None:
            options.json.write_text(json.dumps(found, indent=2) + "\n")
        show(found[-1:])
    show(found)


if __name__ == "__main__":
    main()
