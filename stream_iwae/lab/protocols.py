"""Which rows of a stream a detector may learn from, and which it is judged by.

Labels choose rows here, as the published protocols do; none reaches a model.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from stream_iwae.errors import ConfigurationError
from stream_iwae.lab.darpa98_rows import load_darpa98
from stream_iwae.lab.labelled_file import FileOptions, load_file
from stream_iwae.lab.labelled_rows import LabelledRows, load
from stream_iwae.lab.simulated_rows import load_simulated
from stream_iwae.lab.table_file import TABLE_SUFFIXES, is_table_file
from stream_iwae.lab.timeline import Timeline
from stream_iwae.windows.config import WindowsConfig

_WARMUP_TRUSTED: Final = 2_048
_WARMUP_UNLABELLED: Final = 4_096
_TRAIN_ROWS: Final = 16_384  # of the training part, where there is one
_FLIPPED: Final = 256
_CALIBRATING: Final = 4  # one row for p-values to so many that are learnt, as in the service
_MOST_OF_A_FILE: Final = 2  # half of a small file at most is warm-up
_LEAST: Final = 64  # rows that training needs
_TRAINING_FILE: Final = {
    "nsl-kdd-test": "nsl-kdd", "smd-1-6": "smd-1-6-train", "smd-2-1": "smd-2-1-train",
}  # fmt: skip
_FILE: Final = {"smd-1-6": "smd-1-6-test", "smd-2-1": "smd-2-1-test"}
DATASETS: Final = ("nsl-kdd", "nsl-kdd-test", "kdd99", "darpa98", "smd-1-6", "smd-2-1", "simulated", "simulated-plain")
DRAWN: Final = frozenset({"simulated", "simulated-plain"})  # another seed is another stream
_FIRST_NETWORK: Final = 100  # the simulation's seed of the evaluation's seed 0

Positions = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Source:
    """A labelled stream, and what may be learnt from beforehand where there is a part for that."""

    rows: LabelledRows
    training: LabelledRows | None = None
    training_rows: int = _TRAIN_ROWS  # of the training part, at most


@dataclass(frozen=True, slots=True)
class Trial:
    """Rows to learn from, rows for p-values, and rows to be judged by."""

    warmup: LabelledRows
    calibration: LabelledRows  # what follows the warm-up: never learnt, for the first p-values
    judged: LabelledRows
    in_warmup: NDArray[np.bool_]  # of the judged rows: those of the warm-up and the calibration
    is_trusted: bool  # the warm-up is known to hold no attack


def read_source(dataset: str, data_dir: Path, options: FileOptions | None = None, seed: int = 0) -> Source:
    """Read a data set by its name, or a file by its path; `seed` is another simulated network.

    Raises:
        ConfigurationError: There is no such data set, or the file cannot be understood.
        DatasetError: A file of a data set is missing.
    """
    if is_table_file(dataset) or Path(dataset).is_file():
        return Source(load_file(Path(dataset), options or FileOptions()))
    if dataset not in DATASETS:
        remedy = f"it is none of {', '.join(DATASETS)}, nor a file ({', '.join(TABLE_SUFFIXES)})"
        raise ConfigurationError("--dataset", dataset, remedy)
    if dataset in DRAWN:
        return _simulated(seed, profiles=dataset == "simulated")
    if dataset == "darpa98":
        return Source(load_darpa98(data_dir))
    rows = load(_FILE.get(dataset, dataset), data_dir)
    return Source(rows, load(_TRAINING_FILE[dataset], data_dir) if dataset in _TRAINING_FILE else None)


def part(source: Source, protocol: str, seed: int, warmup: int | None = None) -> Trial:
    """Part a stream as a protocol wants.

    Args:
        source: The stream.
        protocol: One of PROTOCOLS.
        seed: Picks the attacks that thinning keeps.
        warmup: How many rows are learnt, in place of the protocol's own number.

    Raises:
        ConfigurationError: There is no such protocol, or too few rows for it.
    """
    if protocol not in PROTOCOLS:
        raise ConfigurationError("--protocol", protocol, f"it is none of {', '.join(PROTOCOLS)}")
    trial = PROTOCOLS[protocol](source, np.random.default_rng(seed), warmup)
    if len(trial.warmup) < _LEAST:
        remedy = f"leaves {len(trial.warmup)} rows to learn from, and {_LEAST} are needed: take another or more rows"
        raise ConfigurationError("--protocol", protocol, remedy)
    after = trial.judged.is_anomaly[~trial.in_warmup]
    if after.all() or not after.any():
        remedy = (
            "leaves no anomaly and no normal row to tell apart after the warm-up; "
            "if the file is sorted by label add --shuffle, or take a smaller --warmup"
        )
        raise ConfigurationError("--protocol", protocol, remedy)
    return trial


def prepare(dataset: str, protocol: str, data_dir: Path, seed: int) -> Trial:
    """Read a data set and part it at once.

    Raises:
        ConfigurationError: There is no such data set or protocol, or they do not go together.
        DatasetError: A file is missing.
    """
    if protocol not in PROTOCOLS:
        raise ConfigurationError("--protocol", protocol, f"it is none of {', '.join(PROTOCOLS)}")
    return part(read_source(dataset, data_dir, seed=seed), protocol, seed)


def _simulated(seed: int, *, profiles: bool) -> Source:
    """A day of ordinary traffic to learn from, and eight hours with scenarios; with hosts' own pasts, or without."""
    drawn = load_simulated(_FIRST_NETWORK + seed, profiles=profiles)
    at = np.arange(len(drawn))
    timeline = Timeline(
        entities=drawn.entities,
        start_ms=drawn.window_end_ms - WindowsConfig().size,
        end_ms=drawn.window_end_ms,
        n_events=np.ones(len(at), dtype=np.int64),
        first_offset=at,
        silence_p_values=drawn.silence_p_values,
    )
    note = f"simulated network {_FIRST_NETWORK + seed}: {sum(not one.benign for one in drawn.scenarios)} attacks"
    rows = replace(drawn.rows, timeline=timeline, told=drawn.scenario, notes=(note,))
    history, live = rows.take(at[: drawn.n_history]), rows.take(at[drawn.n_history :])
    return Source(live, history, training_rows=len(history))


Part = Callable[[Source, np.random.Generator, int | None], Trial]


def _clean(source: Source, _: np.random.Generator, warmup: int | None) -> Trial:
    if source.training is not None:
        normal = np.flatnonzero(~source.training.is_anomaly)
        return _from_training(source, normal, warmup, is_trusted=True)
    return _within(source.rows, np.flatnonzero(~source.rows.is_anomaly), warmup or _WARMUP_TRUSTED, is_trusted=True)


def _unlabelled(source: Source, _: np.random.Generator, warmup: int | None) -> Trial:
    if source.training is not None:
        return _from_training(source, np.arange(len(source.training)), warmup, is_trusted=False)
    return _within(source.rows, np.arange(len(source.rows)), warmup or _WARMUP_UNLABELLED, is_trusted=False)


def _flipped(source: Source, _: np.random.Generator, warmup: int | None) -> Trial:
    """Attacks as the ordinary, as some papers do with KDD-99: 250 of its first 256 are one attack."""
    rows = source.rows
    turned = replace(rows, is_anomaly=~rows.is_anomaly, told=None)
    return _within(turned, np.flatnonzero(~turned.is_anomaly), warmup or _FLIPPED, is_trusted=True)


def _thinned(share: float) -> Part:
    def thin_out(source: Source, rng: np.random.Generator, warmup: int | None) -> Trial:
        rows = source.rows
        normal, attacks = np.flatnonzero(~rows.is_anomaly), np.flatnonzero(rows.is_anomaly)
        n_kept = max(1, min(len(attacks), round(len(normal) * share / (1 - share))))
        kept: Positions = np.sort(np.concatenate([normal, rng.choice(attacks, n_kept, replace=False)]))
        thin = rows.take(kept)
        return _within(thin, np.arange(len(thin)), warmup or _WARMUP_UNLABELLED, is_trusted=False)

    return thin_out


def _within(rows: LabelledRows, eligible: Positions, n_wanted: int, *, is_trusted: bool) -> Trial:
    """The first eligible rows: n to learn, and a quarter as many after them for p-values; half of all at most."""
    n_most = len(eligible) // _MOST_OF_A_FILE
    n_learnt = min(n_wanted, n_most * _CALIBRATING // (_CALIBRATING + 1))
    n_used = n_learnt + -(-n_learnt // _CALIBRATING)
    in_warmup = np.zeros(len(rows), dtype=np.bool_)
    in_warmup[eligible[:n_used]] = True
    warmup, calibration = rows.take(eligible[:n_learnt]), rows.take(eligible[n_learnt:n_used])
    return Trial(warmup, calibration, rows, in_warmup, is_trusted)


def _from_training(source: Source, eligible: Positions, warmup: int | None, *, is_trusted: bool) -> Trial:
    """The first eligible rows of the training part; a fifth of them for p-values where there are no more."""
    training = source.training
    if training is None:
        raise ValueError("the stream has no training part")
    n_learnt = min(warmup or source.training_rows, len(eligible) * _CALIBRATING // (_CALIBRATING + 1))
    n_used = min(n_learnt + -(-n_learnt // _CALIBRATING), len(eligible))
    in_warmup = np.zeros(len(source.rows), dtype=np.bool_)
    learnt, calibrating = training.take(eligible[:n_learnt]), training.take(eligible[n_learnt:n_used])
    return Trial(learnt, calibrating, source.rows, in_warmup, is_trusted)


PROTOCOLS: Final[dict[str, Part]] = {
    "clean-warmup": _clean,
    "unlabelled": _unlabelled,
    "flipped": _flipped,
    "attacks-5pct": _thinned(0.05),
    "attacks-1pct": _thinned(0.01),
}
