"""Which rows of a data set a detector may learn from, and which it is judged by.

Labels choose rows here, as the published protocols do; none reaches a model.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from stream_iwae.errors import ConfigurationError
from stream_iwae.lab.labelled_rows import LabelledRows, load

_WARMUP_TRUSTED: Final = 2_048
_WARMUP_UNLABELLED: Final = 4_096
_TRAIN_ROWS: Final = 16_384  # of the training file, where there is a file for testing
_FLIPPED: Final = 256
_TRAINING_FILE: Final = {
    "nsl-kdd-test": "nsl-kdd", "smd-1-6": "smd-1-6-train", "smd-2-1": "smd-2-1-train",
}  # fmt: skip
_FILE: Final = {"smd-1-6": "smd-1-6-test", "smd-2-1": "smd-2-1-test"}
DATASETS: Final = ("nsl-kdd", "nsl-kdd-test", "kdd99", "smd-1-6", "smd-2-1")


@dataclass(frozen=True, slots=True)
class Trial:
    """Rows to learn from, and rows to be judged by."""

    warmup: LabelledRows
    judged: LabelledRows
    n_warmup_judged: int  # the first rows of `judged` that were in the warm-up
    is_trusted: bool  # the warm-up is known to hold no attack


def prepare(dataset: str, protocol: str, data_dir: Path, seed: int) -> Trial:
    """Read a data set and part it as a protocol wants; `seed` picks the attacks that thinning keeps.

    Raises:
        ConfigurationError: There is no such data set or protocol, or they do not go together.
        DatasetError: A file is missing.
    """
    if dataset not in DATASETS:
        raise ConfigurationError("--dataset", dataset, f"it is none of {', '.join(DATASETS)}")
    if protocol not in PROTOCOLS:
        raise ConfigurationError("--protocol", protocol, f"it is none of {', '.join(PROTOCOLS)}")
    rows = load(_FILE.get(dataset, dataset), data_dir)
    training = load(_TRAINING_FILE[dataset], data_dir) if dataset in _TRAINING_FILE else None
    return PROTOCOLS[protocol](rows, training, np.random.default_rng(seed))


Part = Callable[[LabelledRows, LabelledRows | None, np.random.Generator], Trial]


def _clean(rows: LabelledRows, training: LabelledRows | None, _: np.random.Generator) -> Trial:
    source, n = (rows, _WARMUP_TRUSTED) if training is None else (training, _TRAIN_ROWS)
    warmup = source.take(np.flatnonzero(~source.is_anomaly)[:n])
    return Trial(warmup, rows, 0, is_trusted=True)


def _unlabelled(rows: LabelledRows, training: LabelledRows | None, _: np.random.Generator) -> Trial:
    if training is None:
        return Trial(rows.take(np.arange(_WARMUP_UNLABELLED)), rows, _WARMUP_UNLABELLED, is_trusted=False)
    return Trial(training.take(np.arange(min(len(training), _TRAIN_ROWS))), rows, 0, is_trusted=False)


def _flipped(rows: LabelledRows, _: LabelledRows | None, __: np.random.Generator) -> Trial:
    """Attacks as the ordinary, as some papers do with KDD-99: 250 of its first 256 are one attack."""
    turned = LabelledRows(rows.schema, rows.values, ~rows.is_anomaly, rows.texts)
    return Trial(turned.take(np.flatnonzero(~turned.is_anomaly)[:_FLIPPED]), turned, 0, is_trusted=True)


def _thinned(share: float) -> Part:
    def part(rows: LabelledRows, _: LabelledRows | None, rng: np.random.Generator) -> Trial:
        normal, attacks = np.flatnonzero(~rows.is_anomaly), np.flatnonzero(rows.is_anomaly)
        n_kept = min(len(attacks), round(len(normal) * share / (1 - share)))
        kept: NDArray[np.int64] = np.sort(np.concatenate([normal, rng.choice(attacks, n_kept, replace=False)]))
        thin = rows.take(kept)
        return Trial(thin.take(np.arange(_WARMUP_UNLABELLED)), thin, _WARMUP_UNLABELLED, is_trusted=False)

    return part


PROTOCOLS: Final[dict[str, Part]] = {
    "clean-warmup": _clean,
    "unlabelled": _unlabelled,
    "flipped": _flipped,
    "attacks-5pct": _thinned(0.05),
    "attacks-1pct": _thinned(0.01),
}
