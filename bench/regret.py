"""Which score is near the best of its parts everywhere: mean and worst regret, one family of sets left out in turn.

python bench/regret.py [--data DIR] [--seed N]      ten minutes of CPU; prints the tables of docs/results/robustness.md

Every channel learns from the same rows and scores the same rows. A score's regret on a set is the best single channel's
AUROC (average precision) less its own. For each family, the combination that does best on the other families is
chosen and judged by the one left out.
"""

import argparse
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import msgspec
import numpy as np
import torch
from sklearn import datasets as bundled
from sklearn.metrics import average_precision_score, roc_auc_score

from stream_iwae.batches import FeatureSchema, Kind, RecordBatch
from stream_iwae.config import Config
from stream_iwae.events.decode import Decoder
from stream_iwae.features.config import aggregates, needed_fields, schema
from stream_iwae.features.extract import FeatureExtractor
from stream_iwae.iwae.scoring import Scorer
from stream_iwae.iwae.settings import ModelSettings
from stream_iwae.iwae.surprise_scale import Surprise
from stream_iwae.iwae.training import HELD_OUT_SHARE, MIN_PARTED, Features, train, with_channels
from stream_iwae.lab import datasets
from stream_iwae.lab.datasets import data_directory
from stream_iwae.lab.demo_config import demo_config
from stream_iwae.lab.labelled_rows import LabelledRows
from stream_iwae.lab.protocols import Trial, prepare
from stream_iwae.lab.rivals import RIVALS, Encoder
from stream_iwae.lab.simulate import HOUR_MS, Simulation
from stream_iwae.lab.truth import ScenarioTruth
from stream_iwae.learning.warmup import KEPT, has_memorised
from stream_iwae.windows.operator import WindowOperator

JUDGED = 6_000  # rows of a set, at most
WARMUP = 4_096
MINUTE_MS = 60_000
SINGLE = ("bound", "trimmed bound", "reconstruction", "isolation forest", "PCA", "nearest neighbour", "third neighbour")
CHOICES = {
    "bound": ("bound",),
    "reconstruction": ("reconstruction",),
    "isolation forest": ("isolation forest",),
    "PCA": ("PCA",),
    "distance": ("third neighbour",),
    "bound, distance": ("bound", "third neighbour"),
    "bound, forest": ("bound", "isolation forest"),
    "bound, distance, forest": ("bound", "third neighbour", "isolation forest"),
    "bound, distance, PCA": ("bound", "third neighbour", "PCA"),
    "bound, distance, forest, PCA": ("bound", "third neighbour", "isolation forest", "PCA"),
}
DEFAULT = "bound, distance, gate"

Values = np.ndarray


@dataclass(frozen=True)
class Case:
    name: str
    family: str
    warmup: Values
    judged: Values
    truth: Values
    kinds: tuple[Kind, ...]


def case_of(name: str, family: str, trial: Trial, seed: int) -> Case:
    rng = np.random.default_rng(seed)
    n = len(trial.judged)
    at = np.sort(rng.choice(n, min(n, JUDGED), replace=False))
    judged = trial.judged.take(at)
    return Case(name, family, trial.warmup.values[:WARMUP], judged.values, judged.is_anomaly, trial.warmup.schema.kinds)


def parted(name: str, family: str, x: Values, y: Values, share: float, seed: int) -> Case:
    """Half of the ordinary rows to learn from, with a share of anomalies among them."""
    rng = np.random.default_rng(seed)
    normal, odd = rng.permutation(np.flatnonzero(~y)), rng.permutation(np.flatnonzero(y))
    half = len(normal) // 2
    n_odd = min(round(half * share / (1 - share)), len(odd) // 2)
    warmup = rng.permutation(np.concatenate([normal[:half], odd[:n_odd]]))
    judged = np.concatenate([normal[half:], odd[n_odd:]])
    label = f"{name}, {share:.0%} odd" if share else name
    return Case(label, family, x[warmup], x[judged], y[judged], (Kind.NUMBER,) * x.shape[1])


def public(data: Path, seed: int) -> Iterator[Case]:
    for dataset, protocols in {
        "nsl-kdd": ("clean-warmup", "attacks-5pct", "attacks-1pct"),
        "nsl-kdd-test": ("clean-warmup",),
        "kdd99": ("clean-warmup", "attacks-5pct", "attacks-1pct"),
        "smd-1-6": ("unlabelled",),
        "smd-2-1": ("unlabelled",),
    }.items():
        family = "SMD" if dataset.startswith("smd") else "KDD"
        for protocol in protocols:
            yield case_of(f"{dataset}, {protocol}", family, prepare(dataset, protocol, data, seed), seed)


def network(data: Path, seed: int) -> Iterator[Case]:
    """Windows of simulated networks and of DARPA-98, first those to learn from."""
    flows = Config.model_validate(demo_config("nowhere:9092", "bench"))
    for number in (11, 12):
        simulation = Simulation(seed=number, n_hosts=40, history_ms=4 * HOUR_MS)
        attacks = [scenario for scenario in simulation.truth() if not scenario.benign]

        def is_odd(entity: str, start_ms: int, attacks: list[ScenarioTruth] = attacks) -> bool:
            return any(entity in a.concerned and a.start_ms - MINUTE_MS < start_ms < a.end_ms for a in attacks)

        parts = [[message.value for message in simulation.messages(part)] for part in ("history", "live")]
        rows, entities, starts = windows_of(flows, [value for part in parts for value in part])
        truth = np.array([is_odd(*window) for window in zip(entities, starts.tolist(), strict=True)])
        is_history = starts < simulation.live_start_ms
        rng = np.random.default_rng(seed)
        warmup, live = (
            rng.permutation(np.flatnonzero(is_history))[:WARMUP],
            rng.permutation(np.flatnonzero(~is_history)),
        )
        live = live[: 3 * JUDGED]  # attacks are few
        yield Case(f"simulated network {number}", "network", rows[warmup], rows[live], truth[live], kinds_of(flows))
    config = Config.load(Path(__file__).parents[1] / "deploy/examples/darpa98.yaml")
    events = list(datasets.events("darpa98", data))
    rows, entities, starts = windows_of(config, [msgspec.json.encode(event) for event in events])
    attacked = {
        (event["dst"], event["ts"] // MINUTE_MS * MINUTE_MS)
        for event, label in zip(events, datasets.labels("darpa98", data), strict=True)
        if label is not None
    }
    truth = np.array([window in attacked for window in zip(entities, starts.tolist(), strict=True)])
    at = WARMUP + np.sort(np.random.default_rng(seed).choice(len(rows) - WARMUP, JUDGED, replace=False))
    yield Case("DARPA-98", "network", rows[:WARMUP], rows[at], truth[at], kinds_of(config))


def windows_of(config: Config, messages: list[bytes]) -> tuple[Values, list[str], Values]:
    """Features, entity and start of every window that closes."""
    extractor = FeatureExtractor(config.features, config.events.field_types())
    decoder = Decoder(config.events, needed_fields(config.features))
    windows = WindowOperator(config.windows, aggregates(config.features), 0)
    batches = []
    for start in range(0, len(messages), 20_000):
        values = messages[start : start + 20_000]
        offsets = np.arange(start, start + len(values))
        times = np.full(len(values), 2**52)  # no event is from the future
        events = decoder.decode(RecordBatch("bench", 0, offsets, times, values, start + len(values))).events
        batches.append(extractor.extract(windows.add(events, start + len(values)).windows))
    entities = [entity for batch in batches for entity in batch.entities]
    return np.concatenate([b.values for b in batches]), entities, np.concatenate([b.window_start_ms for b in batches])


def kinds_of(config: Config) -> tuple[Kind, ...]:
    return schema(config.features, config.events.field_types()).kinds


def tabular(seed: int) -> Iterator[Case]:
    breast, wine, digits = bundled.load_breast_cancer(), bundled.load_wine(), bundled.load_digits()
    sets = {
        "breast cancer": (breast.data, breast.target == 0),
        "wine": (wine.data, wine.target == 2),
        **{f"digits, {digit} is odd": (digits.data, digits.target == digit) for digit in (3, 8)},
        **{f"digits, all but {digit} are odd": (digits.data, digits.target != digit) for digit in (0, 4)},
    }
    for name, (x, y) in sets.items():
        for share in (0.0, 0.05):
            yield parted(name, "tabular", x, y, share, seed)


def synthetic(seed: int) -> Iterator[Case]:
    n, n_odd = 6_000, 400
    y = np.arange(n + n_odd) >= n
    for name, make in {
        "clusters": clusters,
        "local": local,
        "dependence": dependence,
        "heavy": heavy,
        "group": group,
    }.items():
        x = make(np.random.default_rng(seed + sum(map(ord, name))), n, n_odd)
        for share in (0.0, 0.05):
            yield parted(name, "synthetic", x, y, share, seed)


def clusters(rng: np.random.Generator, n: int, n_odd: int) -> Values:
    centres = rng.normal(0, 5, (6, 12))
    usual = centres[rng.integers(0, 6, n)] + rng.normal(0, 0.5, (n, 12))
    return np.vstack([usual, rng.uniform(-12, 12, (n_odd, 12))])


def local(rng: np.random.Generator, n: int, n_odd: int) -> Values:
    centres = rng.normal(0, 3, (5, 15))
    usual = centres[rng.integers(0, 5, n)] + rng.normal(0, 0.4, (n, 15))
    return np.vstack([usual, centres[rng.integers(0, 5, n_odd)] + rng.normal(0, 1.0, (n_odd, 15))])


def dependence(rng: np.random.Generator, n: int, n_odd: int) -> Values:
    x = np.tanh(rng.normal(size=(n + n_odd, 4)) @ rng.normal(size=(4, 20))) + 0.1 * rng.normal(size=(n + n_odd, 20))
    x[n:] = rng.permuted(x[n:], axis=0)
    return x


def heavy(rng: np.random.Generator, n: int, n_odd: int) -> Values:
    m = n + n_odd
    x = np.exp(5 + rng.normal(0, 1, (m, 1)) + rng.normal(0, 0.5, (m, 10)))
    x[np.arange(n, m), rng.integers(0, 10, n_odd)] *= np.exp(3 + rng.normal(0, 1, n_odd))
    protocol = np.where(np.arange(m) < n, rng.choice([6, 17, 1], m, p=[0.7, 0.28, 0.02]), rng.choice([6, 17, 1], m))
    return np.column_stack([x, protocol, rng.integers(0, 2, m)])


def group(rng: np.random.Generator, n: int, n_odd: int) -> Values:
    usual = rng.normal(size=(n, 3)) @ rng.normal(size=(3, 16)) + 0.3 * rng.normal(size=(n, 16))
    return np.vstack([usual, 2 * rng.normal(size=(1, 16)) + 0.2 * rng.normal(size=(n_odd, 16))])


def scores_of(case: Case, seed: int) -> dict[str, Values]:
    """Every single channel, and every combination with and without the gate, on the judged rows."""
    settings = ModelSettings(device="cpu", score="bound")
    names = tuple(f"f{i}" for i in range(case.warmup.shape[1]))
    features = Features(names, tuple(str(kind) for kind in case.kinds), "bench", {})
    full = train(case.warmup, features, settings, seed)
    trimmed = train(case.warmup, features, replace(settings, trim=0.1), seed)
    on_warmup = [Scorer(model).score(case.warmup).bounds for model in (full, trimmed)]
    is_open = has_memorised(*on_warmup)
    kept = case.warmup[on_warmup[1] <= np.quantile(on_warmup[1], KEPT)]
    plain = channels(full, case.warmup, case, seed)
    gated = channels(trimmed, kept, case, seed, is_trusted=True) if is_open else plain
    found = {name: plain[name][1] for name in SINGLE if name != "trimmed bound"}
    found["trimmed bound"] = Scorer(trimmed).score(case.judged).bounds
    for choice, parts in CHOICES.items():
        for suffix, known in (("", plain), (", gate", gated)):
            surprises = [Surprise.fit(known[part][0]).nats_of(known[part][1]) for part in parts]
            found[f"[{choice}{suffix}]"] = np.max(surprises, axis=0)
    found["gate"] = np.array([is_open])
    return found


def channels(
    model: object, warmup: Values, case: Case, seed: int, *, is_trusted: bool = False
) -> dict[str, tuple[Values, Values]]:
    """Each channel of rows held out and of the judged rows; the network has learnt the former, the others have not."""
    is_held_out = np.random.default_rng(seed).random(len(warmup)) < HELD_OUT_SHARE
    if len(warmup) < MIN_PARTED:
        is_held_out[:] = True
    with_references = with_channels(model, warmup, seed, is_trusted=is_trusted)
    scorer = Scorer(with_references)
    held_out = warmup[is_held_out]
    ours = [scorer.score(rows) for rows in (held_out, case.judged)]
    transform, neighbours = with_references.transform, with_references.channels.neighbours
    distance = [neighbours.score(transform.points(transform.encode(rows))).numpy() for rows in (held_out, case.judged)]
    schema = FeatureSchema(tuple(f"f{i}" for i in range(len(case.kinds))), case.kinds, ("",) * len(case.kinds))
    learnt = warmup if is_held_out.all() else warmup[~is_held_out]
    encoder = Encoder(LabelledRows(schema, learnt, np.zeros(len(learnt), bool), {}))
    found = {
        "bound": (ours[0].bounds, ours[1].bounds),
        "reconstruction": (ours[0].reconstructions, ours[1].reconstructions),
        "third neighbour": (distance[0], distance[1]),
    }
    for name, rival in {
        "isolation forest": "isolation-forest",
        "PCA": "pca",
        "nearest neighbour": "nearest-neighbour",
    }.items():
        score: Callable[[Values], Values] = RIVALS[rival](encoder.encode(learnt), seed)
        found[name] = (score(encoder.encode(held_out)), score(encoder.encode(case.judged)))
    return found


def judged(truth: Values, scores: Values) -> tuple[float, float]:
    return float(roc_auc_score(truth, scores)), float(average_precision_score(truth, scores))


def pair(values: Values) -> str:
    return f"{values[0]:.3f} / {values[1]:.3f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, help="directory of the data sets")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    torch.set_num_threads(1)
    families, regrets = [], {}
    print("| set | best channel | bound | default | gate |\n|---|---|---|---|---|")
    data, seed = data_directory(options.data), options.seed
    for cases in (tabular(seed), synthetic(seed), public(data, seed), network(data, seed)):
        for case in cases:
            found = scores_of(case, options.seed)
            is_open = bool(found.pop("gate")[0])
            figures = {name: np.array(judged(case.truth, scores)) for name, scores in found.items()}
            best = np.max([figures[name] for name in SINGLE], axis=0)
            families.append(case.family)
            for name, figure in figures.items():
                regrets.setdefault(name, []).append(best - figure)
            default = figures[f"[{DEFAULT}]"]
            gate = "open" if is_open else "shut"
            print(f"| {case.name} | {pair(best)} | {pair(figures['bound'])} | {pair(default)} | {gate} |", flush=True)
    show(np.array(families), {name: np.array(rows) for name, rows in regrets.items()})


def show(families: Values, regrets: dict[str, Values]) -> None:
    known = sorted(set(families))
    print(f"\n| score | mean regret | worst | {' | '.join(known)} |\n|---|---|---|{'---|' * len(known)}")
    for name, rows in regrets.items():
        parts = [pair(rows[families == family].mean(axis=0)) for family in known]
        print(f"| {name} | {pair(rows.mean(axis=0))} | {pair(rows.max(axis=0))} | {' | '.join(parts)} |")
    print(
        "\n| left out | chosen on the others | its regret there | the default's | the bound's |\n|---|---|---|---|---|"
    )
    combined = {name: rows for name, rows in regrets.items() if name.startswith("[")}
    for family in known:
        others = [other for other in known if other != family]

        def cost(name: str, others: list[str] = others) -> float:
            return float(np.mean([combined[name][families == other].mean() for other in others]))

        chosen = min(combined, key=cost)
        cells = [pair(regrets[name][families == family].mean(axis=0)) for name in (chosen, f"[{DEFAULT}]", "bound")]
        print(f"| {family} | {chosen} | {' | '.join(cells)} |")


if __name__ == "__main__":
    main()
