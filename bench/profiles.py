"""Attacks on simulated networks caught at 20 false windows a day: with and without profiles, beside a rival.

python bench/profiles.py --seeds 101,102,103,104,105 [--steps 1200] [--json FILE]      about two minutes a seed
"""

import argparse
import json
import os
import time
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("POLARS_MAX_THREADS", "1")

import numpy as np
from rich.console import Console
from rich.table import Table
from sklearn.ensemble import IsolationForest

from stream_iwae.batches import FeatureSchema
from stream_iwae.bootstrap import settle_process
from stream_iwae.events.config import EventsConfig
from stream_iwae.features.config import FeaturesConfig, schema
from stream_iwae.features.profiles import LOGARITHMIC
from stream_iwae.iwae.scoring import Scorer
from stream_iwae.iwae.settings import ModelSettings
from stream_iwae.iwae.training import Features, train
from stream_iwae.lab.caught import Caught, caught
from stream_iwae.lab.simulated_rows import PRESET, SimulatedRows, load_simulated, without_profiles

FALSE_PER_DAY = 20
TRAINING_ROWS = 50_000
MODELS = ("iwae", "isolation-forest")


def all_columns() -> FeaturesConfig:
    """The preset, and beside it every feature that stands in it by its profile alone."""
    features = FeaturesConfig(preset=PRESET).features
    return FeaturesConfig(list=tuple(feature.model_copy(update={"output": True}) for feature in features))


def columns(rows: SimulatedRows, with_profiles: bool) -> tuple[np.ndarray, FeatureSchema]:
    """Those of the preset, or those of the preset without its profiles."""
    asked = FeaturesConfig(preset=PRESET)
    types = EventsConfig.model_validate({"preset": "simulated"}).field_types()
    wanted = schema(asked if with_profiles else without_profiles(asked), types)
    return rows.rows.values[:, [rows.rows.schema.names.index(name) for name in wanted.names]], wanted


def iwae(training: np.ndarray, live: np.ndarray, of: FeatureSchema, steps: int) -> np.ndarray:
    features = Features(of.names, tuple(map(str, of.kinds)), of.digest, {})
    model = train(training, features, ModelSettings(steps=steps), 0)
    return Scorer(model).score(live).scores


def isolation_forest(training: np.ndarray, live: np.ndarray, of: FeatureSchema, _: int) -> np.ndarray:
    is_log = np.array([kind in LOGARITHMIC for kind in of.kinds])

    def prepared(values: np.ndarray) -> np.ndarray:
        known = np.nan_to_num(values)
        return np.where(is_log, np.log1p(np.abs(known)), known)

    return -IsolationForest(random_state=0).fit(prepared(training)).score_samples(prepared(live))


def judged(rows: SimulatedRows, model: str, with_profiles: bool, steps: int) -> Caught:
    """Learn from a draw of the history, without labels; score the live part."""
    values, of = columns(rows, with_profiles)
    ordinary = np.flatnonzero(np.isnan(rows.silence_p_values[: rows.n_history]))
    training = np.sort(np.random.default_rng(0).permutation(ordinary)[:TRAINING_ROWS])
    score = iwae if model == "iwae" else isolation_forest
    scores = np.full(len(rows), -np.inf)
    scores[rows.n_history :] = score(values[training], values[rows.n_history :], of, steps)
    return caught(rows, scores, FALSE_PER_DAY)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", default="101,102,103,104,105", help="networks; 1 to 5 were developed with")
    parser.add_argument("--steps", type=int, default=1200, help="of training")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    settle_process()
    found = []
    for seed in map(int, options.seeds.split(",")):
        rows = load_simulated(seed, features=all_columns())
        for model in MODELS:
            for with_profiles in (False, True):
                began = time.process_time()
                one = judged(rows, model, with_profiles, options.steps)
                found.append(
                    {
                        "seed": seed,
                        "model": model,
                        "profiles": with_profiles,
                        "caught": sum(one.is_caught),
                        "attacks": len(one.kinds),
                        "ranks": dict(zip(one.kinds, one.ranks, strict=True)),
                        "cpu_seconds": round(time.process_time() - began, 1),
                    }
                )
                print(json.dumps(found[-1]), flush=True)
    if options.json is not None:
        options.json.write_text(json.dumps(found, indent=2) + "\n")
    table = Table("model", "profiles", "caught", *sorted(found[0]["ranks"]))
    for model in MODELS:
        for with_profiles in (False, True):
            mine = [one for one in found if (one["model"], one["profiles"]) == (model, with_profiles)]
            n_caught, n_attacks = (sum(one[key] for one in mine) for key in ("caught", "attacks"))
            ranks = [" ".join(str(one["ranks"].get(kind, "-")) for one in mine) for kind in sorted(found[0]["ranks"])]
            table.add_row(model, "yes" if with_profiles else "no", f"{n_caught} of {n_attacks}", *ranks)
    Console(width=200).print(table)


if __name__ == "__main__":
    main()
