"""Rows scored a second at several sizes, beside what the device can do at most: needs torch, numpy and safetensors.

    python bench/scoring.py [--device cpu|cuda] [--seconds 2] [--json FILE]

The ceiling is the arithmetic rate of a product of two square matrices in the same run, in float32 with TF32 off, as
scoring is. The ratio is the arithmetic of the network's matrix products a second over it; what else a score takes (the
transform, exponentials, reading memory) counts as loss. Rows go in as raw float64 values, as the service gives them;
`device` measures the same without the transform on the CPU and the copies, which on a GPU take most of the time.
"""

import argparse
import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")
sys.path.insert(0, str(Path(__file__).parents[1]))

import numpy as np
import torch

from stream_iwae.iwae.artefact import Model, empty_network
from stream_iwae.iwae.scoring import Scorer, pick_device
from stream_iwae.iwae.settings import ModelSettings
from stream_iwae.iwae.transform import Transform

SIZES = ((32, 64, 8), (64, 128, 12), (200, 256, 16))  # features, width of two hidden layers, latent
SAMPLES = (1, 8, 32)


def a_model(n_features: int, width: int, latent: int, n_samples: int) -> tuple[Model, np.ndarray]:
    """Fresh weights, as the time does not hang on them, and ordinary rows: magnitudes, one in eight a category."""
    rng = np.random.default_rng(0)
    kinds = tuple("category" if i % 8 == 7 else "magnitude" for i in range(n_features))
    rows = rng.lognormal(5, 2, (16_384, n_features))
    for i, kind in enumerate(kinds):
        if kind == "category":
            rows[:, i] = rng.integers(0, 8, len(rows))
    settings = ModelSettings(hidden=(width, width), latent=latent, score_samples=n_samples)
    transform = Transform.fit(rows, kinds)
    torch.manual_seed(0)
    weights = dict(empty_network(transform, settings).state_dict())
    names = tuple(f"f{i}" for i in range(n_features))
    zeros, ones = (0.0,) * n_features, (1.0,) * n_features
    return Model("0.0", "", names, settings, transform, weights, zeros, ones, noise_seed=0), rows


def flop_per_row(model: Model) -> float:
    """Of the matrix products: the encoder once, the decoder for each sample (docs of the method, cost)."""
    products = {"encoder": 0, "decoder": 0}
    for name, weight in model.weights.items():
        part = name.split(".")[0]
        if part in products and weight.ndim == 2:
            products[part] += 2 * weight.numel()
    return products["encoder"] + model.settings.score_samples * products["decoder"]


def rate(work: Callable[[], object], amount: float, seconds: float, device: torch.device) -> float:
    """Amount a second: the best of repeated runs for about so long, after one to warm up."""

    def settle() -> None:
        if device.type == "cuda":
            torch.cuda.synchronize()

    work()
    settle()
    best, end = float("inf"), time.perf_counter() + seconds
    while time.perf_counter() < end:
        # The clock of the process leaves out what other processes take; a GPU works outside of it.
        clock = time.perf_counter if device.type == "cuda" else time.process_time
        began = clock()
        work()
        settle()
        best = min(best, clock() - began)
    return amount / best


def ceiling(device: torch.device, seconds: float) -> float:
    """FLOP a second of a product of two square matrices."""
    n = 8_192 if device.type == "cuda" else 1_024
    a, b = (torch.randn(n, n, device=device) for _ in range(2))
    return rate(lambda: a @ b, 2.0 * n**3, seconds, device)


def measure(device: torch.device, seconds: float) -> list[dict[str, object]]:
    top = ceiling(device, seconds)
    print(f"{device}, {torch.get_num_threads()} thread(s): matrix product {top / 1e9:,.1f} GFLOP/s")
    print(f"{'D':>4} {'H':>4} {'Z':>3} {'K':>3} {'rows/s':>12} {'on device':>12} {'GFLOP/s':>9} {'of ceiling':>10}")
    found: list[dict[str, object]] = []
    for n_features, width, latent in SIZES:
        for n_samples in SAMPLES:
            model, rows = a_model(n_features, width, latent, n_samples)
            scorer = Scorer(model, device.type)
            rows = rows[: max(scorer.chunk_rows, 2_048)]
            chunk = next(scorer._chunks(rows, scorer.chunk_rows))
            whole = rate(lambda: scorer.score(rows), len(rows), seconds, device)  # noqa: B023  # called at once
            inner = rate(lambda: scorer._scored(chunk), scorer.chunk_rows, seconds, device)  # noqa: B023
            done = inner * flop_per_row(model)
            print(
                f"{n_features:4} {width:4} {latent:3} {n_samples:3} {whole:12,.0f} {inner:12,.0f} "
                f"{done / 1e9:9.2f} {done / top:10.1%}"
            )
            row = {"d": n_features, "h": width, "z": latent, "k": n_samples, "rows_per_s": round(whole)}
            row |= {"device_rows_per_s": round(inner), "flop_per_s": done, "ceiling_flop_per_s": top}
            found.append(row | {"ratio": round(done / top, 4), "device": device.type})
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="auto", choices=("auto", "cpu", "cuda"))
    parser.add_argument("--seconds", type=float, default=2.0, help="of each of the figures")
    parser.add_argument("--json", type=Path, help="write the figures to this file too")
    options = parser.parse_args()
    torch.set_num_threads(1)
    torch.backends.cuda.matmul.allow_tf32 = False
    found = measure(pick_device(options.device), options.seconds)
    if options.json is not None:
        options.json.write_text(json.dumps(found, indent=2) + "\n")


if __name__ == "__main__":
    main()
