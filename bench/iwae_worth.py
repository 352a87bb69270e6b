"""What the importance-weighted model is worth: each claim and limit of the method, measured.

`python bench/iwae_worth.py --data DIR` writes docs/results/iwae.json and the plots beside it; `--only` runs a part.
"""

import argparse
import json
import math
import multiprocessing
import os
import resource
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import matplotlib as mpl
import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.metrics import average_precision_score, roc_auc_score

from stream_iwae.iwae.bounds import log_marginal_estimate
from stream_iwae.iwae.network import Network, log_weights
from stream_iwae.iwae.scoring import Scorer
from stream_iwae.iwae.settings import ModelSettings
from stream_iwae.iwae.training import Features, losses_of, train
from stream_iwae.iwae.transform import Encoded
from stream_iwae.lab.labelled_rows import LabelledRows, load

mpl.use("Agg")
import matplotlib.pyplot as plt

Values = NDArray[np.float64]
Rows = list[dict[str, Any]]
RESULTS = Path(__file__).parents[1] / "docs" / "results"
SAMPLES = (1, 5, 8, 50)
NOISE = 0.2  # of the known density
OBJECTIVES = ("autoencoder", "vae", "iwae")
TRUE_SAMPLES = 2_000  # importance samples that stand for log p(x) of a model


# --- expressiveness: a density that is known exactly ---------------------------------------------


def known_rows(n: int, rng: np.random.Generator) -> Values:
    """x = (z^2, |z|, cos 2z, z^2 - 1) + noise, z ~ N(0, 1): the posterior has two modes, which no Gaussian has."""
    return known_mean(rng.standard_normal(n)) + NOISE * rng.standard_normal((n, 4))


def known_mean(z: Values) -> Values:
    return np.stack([z**2, np.abs(z), np.cos(2 * z), z**2 - 1], axis=-1)


def known_log_density(rows: Values) -> Values:
    """log p(x) by the trapezium rule over z, (N,), in nats."""
    z = np.linspace(-8, 8, 8_001)
    mean = known_mean(z)
    log_prior = -0.5 * z**2 - 0.5 * math.log(2 * math.pi)
    found = []
    for x in rows:
        squares = ((x - mean) / NOISE) ** 2
        log_joint = log_prior - 0.5 * squares.sum(axis=1) - 4 * math.log(NOISE) - 2 * math.log(2 * math.pi)
        peak = log_joint.max()
        found.append(peak + math.log(np.trapezoid(np.exp(log_joint - peak), z)))
    return np.array(found)


def as_targets(rows: Values) -> Encoded:
    """Rows of four numbers as the network's targets themselves, past the transform: its density is then of x."""
    n = len(rows)
    none = torch.zeros((n, 0))
    return Encoded(torch.from_numpy(rows).float(), torch.ones(n, 2), none.long(), none)


def fit_known(rows: Values, n_samples: int, seed: int) -> Network:
    objective = "vae" if n_samples == 1 else "iwae"
    settings = ModelSettings(objective=objective, train_samples=n_samples, sigma_floor=0.01, latent=2, hidden=(32, 32))
    torch.manual_seed(seed)
    network = Network(2, [], settings)
    generator = torch.Generator().manual_seed(seed)
    steps = 4_000
    optimiser = torch.optim.Adam(network.parameters(), 2e-3)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, steps)
    targets = as_targets(rows)
    for _ in range(steps):
        batch = targets.rows(torch.randint(len(rows), (128,), generator=generator))
        noise = torch.randn(n_samples, 128, settings.latent, generator=generator)
        optimiser.zero_grad()
        losses_of(network, batch, batch, noise, settings).surrogates.mean().backward()
        optimiser.step()
        schedule.step()
    return network


@torch.no_grad()
def bound(network: Network, rows: Values, n_samples: int, generator: torch.Generator) -> float:
    """Mean L_K of rows under a network, in nats."""
    total = 0.0
    for start in range(0, len(rows), 250):
        targets = as_targets(rows[start : start + 250])
        posterior = network.encode(targets)
        z = posterior.sample(torch.randn(n_samples, len(targets.bounded), 2, generator=generator))
        total += float(log_marginal_estimate(log_weights(network, targets, z, posterior)).sum())
    return total / len(rows)


def expressiveness(_: Path) -> Rows:
    rng = np.random.default_rng(0)
    train_rows, held_out = known_rows(20_000, rng), known_rows(2_000, rng)
    exact = float(known_log_density(held_out).mean())
    found: Rows = []
    for seed in range(3):
        for n_samples in SAMPLES:
            network = fit_known(train_rows, n_samples, seed)
            generator = torch.Generator().manual_seed(9)
            bounds = {k: bound(network, held_out, k, generator) for k in (*SAMPLES, TRUE_SAMPLES)}
            found.append(
                {"train_k": n_samples, "seed": seed, "exact": exact, **{f"l_{k}": v for k, v in bounds.items()}}
            )
            print(found[-1], flush=True)
    return found


# --- robustness: training against held-out ------------------------------------------------------


def a_model(values: Values, rows: LabelledRows, seed: int, **settings: Any) -> Scorer:
    kinds = tuple(str(kind) for kind in rows.schema.kinds)
    features = Features(rows.schema.names, kinds, rows.schema.digest, rows.texts)
    return Scorer(train(values, features, ModelSettings(score="bound", **settings), seed))


def quality(scorer: Scorer, judged: LabelledRows) -> dict[str, float]:
    began = time.process_time()
    scores = scorer.score(judged.values).scores
    seconds = time.process_time() - began
    truth = judged.is_anomaly
    return {
        "auroc": float(roc_auc_score(truth, scores)),
        "average_precision": float(average_precision_score(truth, scores)),
        "us_per_row": seconds / len(scores) * 1e6,
    }


def parts(data: Path) -> tuple[LabelledRows, LabelledRows, LabelledRows, LabelledRows]:
    """NSL-KDD: normal rows to train on and to hold out, attacks to mix in, and rows to judge by."""
    rows = load("nsl-kdd", data)
    order = np.random.default_rng(1).permutation(len(rows))
    normal, attacks = (order[rows.is_anomaly[order] == is_attack] for is_attack in (False, True))
    judged = np.concatenate([normal[20_000:25_000], attacks[5_000:10_000]])
    return rows.take(normal[:10_000]), rows.take(normal[10_000:14_000]), rows.take(attacks[:2_000]), rows.take(judged)


def robustness(data: Path) -> Rows:
    normal, held_out, attacks, judged = parts(data)
    found: Rows = []
    for seed in range(2):
        rng = np.random.default_rng(seed)
        for n in (250, 1_000, 4_000):
            clean = normal.values[rng.choice(len(normal), n, replace=False)]
            for spoilt in ("nothing", "noise", "outliers"):
                values = clean.copy()
                if spoilt == "noise":  # a twentieth of all entries come from other rows
                    swapped = rng.random(values.shape) < 0.05
                    values[swapped] = rng.permuted(values, axis=0)[swapped]
                if spoilt == "outliers":  # a twentieth of the rows are attacks
                    values[: n // 20] = attacks.values[rng.choice(len(attacks), n // 20, replace=False)]
                for objective in OBJECTIVES:
                    scorer = a_model(values, normal, seed, objective=objective)
                    seen, unseen = (float(np.mean(scorer.score(v).scores)) for v in (clean, held_out.values))
                    found.append(
                        {"n": n, "spoilt": spoilt, "objective": objective, "seed": seed, "train": seen}
                        | {"held_out": unseen, "gap": unseen - seen, **quality(scorer, judged)}
                    )
                    print(found[-1], flush=True)
    return found


# --- scalability and the cost of K ---------------------------------------------------------------


def train_once(case: dict[str, int]) -> dict[str, float]:
    """CPU time and peak memory of one training, in a process of its own."""
    torch.set_num_threads(1)
    values = np.random.default_rng(0).lognormal(size=(case["rows"], case["features"]))
    names = tuple(f"f{i}" for i in range(case["features"]))
    features = Features(names, ("magnitude",) * len(names), "x", {})
    settings = ModelSettings(score="bound", batch=case["batch"], train_samples=case["train_samples"], steps=300)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    began = time.process_time()
    train(values, features, settings, 0)
    seconds = time.process_time() - began
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    return {"ms_per_step": seconds / settings.steps * 1e3, "added_mb": grown / 1024}


def scalability(_: Path) -> Rows:
    found: Rows = []
    base = {"rows": 10_000, "features": 20, "batch": 128, "train_samples": 8}
    changes = [{"rows": n} for n in (1_000, 10_000, 100_000)]
    changes += [{"features": n} for n in (10, 50, 200)]
    changes += [{"batch": n} for n in (32, 128, 512)]
    changes += [{"train_samples": n} for n in SAMPLES]
    spawned = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=spawned, max_tasks_per_child=1) as process:
        for change in changes:
            case = base | change
            (varied,) = change
            found.append({"varied": varied, **case, **process.submit(train_once, case).result()})
            print(found[-1], flush=True)
    return found


def cost_of_samples(data: Path) -> Rows:
    normal, _, __, judged = parts(data)
    found: Rows = []
    for seed in range(3):
        values = normal.values[np.random.default_rng(seed).choice(len(normal), 2_048, replace=False)]
        for train_k in SAMPLES:
            for score_k in (1, 8, 16, 32, 128) if train_k == 8 else (16,):
                began = time.process_time()
                scorer = a_model(values, normal, seed, train_samples=train_k, score_samples=score_k)
                seconds = time.process_time() - began
                errors = scorer.score(judged.values).standard_errors
                error = float(np.median(errors)) if score_k > 1 else None  # one sample has no spread
                found.append(
                    {"train_k": train_k, "score_k": score_k, "seed": seed, "training_seconds": seconds}
                    | {"standard_error": error, **quality(scorer, judged)}
                )
                print(found[-1], flush=True)
    return found


# --- plots ---------------------------------------------------------------------------------------


def mean_of(rows: Rows, name: str, /, **wanted: object) -> float:
    return float(np.mean([row[name] for row in rows if all(row[key] == value for key, value in wanted.items())]))


def plot_expressiveness(rows: Rows) -> None:
    figure, axes = plt.subplots(figsize=(6, 3.6))
    for k in SAMPLES:
        points = [rows[0]["exact"] - mean_of(rows, f"l_{j}", train_k=k) for j in (*SAMPLES, TRUE_SAMPLES)]
        axes.plot([*SAMPLES, TRUE_SAMPLES], points, marker="o", label=f"trained with K = {k}")
    axes.set(xscale="log", yscale="log", xlabel="K of the bound that is evaluated")
    axes.set_ylabel("exact log p(x) less the bound, nats a held-out row")
    axes.legend(fontsize=8)
    save(figure, "iwae-expressiveness.png")


def plot_robustness(rows: Rows) -> None:
    figure, panels = plt.subplots(1, 3, figsize=(9, 3.2), sharey=True)
    for panel, spoilt in zip(panels, ("nothing", "noise", "outliers"), strict=True):
        for objective in OBJECTIVES:
            sizes = sorted({row["n"] for row in rows})
            points = [mean_of(rows, "average_precision", n=n, spoilt=spoilt, objective=objective) for n in sizes]
            panel.plot(sizes, points, marker="o", label=objective)
        panel.set(xscale="log", xlabel="training rows", title=f"{spoilt} added")
    panels[0].set_ylabel("average precision, held out")
    panels[0].legend(fontsize=8)
    save(figure, "iwae-robustness.png")


def plot_scalability(rows: Rows) -> None:
    figure, panels = plt.subplots(1, 4, figsize=(10, 2.8), sharey=True)
    for panel, varied in zip(panels, ("rows", "features", "batch", "train_samples"), strict=True):
        chosen = [row for row in rows if row["varied"] == varied]
        panel.plot([row[varied] for row in chosen], [row["ms_per_step"] for row in chosen], marker="o")
        panel.set(xscale="log", yscale="log", xlabel={"train_samples": "K"}.get(varied, varied))
    panels[0].set_ylabel("CPU ms a step")
    save(figure, "iwae-scalability.png")


def plot_cost_of_samples(rows: Rows) -> None:
    figure, panels = plt.subplots(1, 2, figsize=(8, 3.2))
    scored = sorted({row["score_k"] for row in rows if row["train_k"] == 8})
    cost = [mean_of(rows, "us_per_row", train_k=8, score_k=k) for k in scored]
    panels[0].plot(cost, [mean_of(rows, "average_precision", train_k=8, score_k=k) for k in scored], marker="o")
    for k, x in zip(scored, cost, strict=True):
        panels[0].annotate(f"K = {k}", (x, mean_of(rows, "average_precision", train_k=8, score_k=k)))
    panels[0].set(xscale="log", xlabel="CPU µs a row, scoring", ylabel="average precision")
    points = [mean_of(rows, "average_precision", train_k=k, score_k=16) for k in SAMPLES]
    panels[1].plot(SAMPLES, points, marker="o")
    panels[1].set(xscale="log", xlabel="K in training (scored with 16)", ylabel="average precision")
    save(figure, "iwae-samples.png")


def save(figure: Any, name: str) -> None:
    figure.tight_layout()
    figure.savefig(RESULTS / name, dpi=90)
    plt.close(figure)


PARTS: dict[str, tuple[Callable[[Path], Rows], Callable[[Rows], None]]] = {
    "expressiveness": (expressiveness, plot_expressiveness),
    "robustness": (robustness, plot_robustness),
    "scalability": (scalability, plot_scalability),
    "samples": (cost_of_samples, plot_cost_of_samples),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=Path(__file__).parents[2] / "shared" / "data")
    parser.add_argument("--only", choices=list(PARTS), help="one of them")
    options = parser.parse_args()
    torch.set_num_threads(1)
    file = RESULTS / "iwae.json"
    results = json.loads(file.read_text()) if file.exists() else {}
    for name in [options.only] if options.only else PARTS:
        measure, plot = PARTS[name]
        results[name] = measure(options.data)
        plot(results[name])
        file.write_text(json.dumps(results, indent=1, allow_nan=False) + "\n")


if __name__ == "__main__":
    main()
