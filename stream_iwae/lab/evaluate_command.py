"""`stream-iwae evaluate`: tables on the terminal, rows as JSON, and a page with plots."""

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final

import numpy as np
import torch
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from stream_iwae.detection.config import DetectionConfig
from stream_iwae.errors import ConfigurationError
from stream_iwae.lab.datasets import data_directory
from stream_iwae.lab.evaluate import LEADING, MODELS, Result, evaluate, models_for
from stream_iwae.lab.evaluation_report import Section, write_report
from stream_iwae.lab.evaluation_table import DECISIONS, RANKING, Column, lines, used
from stream_iwae.lab.labelled_file import FileOptions
from stream_iwae.lab.protocols import DATASETS, DRAWN, PROTOCOLS, Source, Trial, part, read_source

_PLAIN_WIDTH: Final = 120


@dataclass(frozen=True, slots=True)
class Wanted:
    """What is to be evaluated; lists are comma-separated, and `all` is all there are."""

    datasets: str
    protocols: str
    models: str
    n_seeds: int
    warmup: int | None = None  # rows, in place of the protocol's
    learn: bool | None = None  # None: where rows have a time
    detection: DetectionConfig = field(default_factory=DetectionConfig)
    file: FileOptions = field(default_factory=FileOptions)


def run_evaluation(wanted: Wanted, data: Path | None, json_file: Path | None, html_file: Path | None) -> None:
    """Evaluate models on data sets under protocols.

    Raises:
        ConfigurationError: There is no such data set, protocol or model, or a file cannot be understood.
        DatasetError: A file of a data set is missing.
    """
    torch.set_num_threads(1)
    models = None if wanted.models == "all" else _listed(wanted.models, MODELS, "--models")
    protocols = _listed(wanted.protocols, PROTOCOLS, "--protocol")
    for file in (json_file, html_file):
        if file is not None and not file.resolve().parent.is_dir():
            raise ConfigurationError("--json, --html", str(file), "its directory is not there; make it first")
    names = list(DATASETS) if wanted.datasets == "all" else [name.strip() for name in wanted.datasets.split(",")]
    sections = []
    with _progress() as progress:
        for name in names:
            progress.say(f"reading {name}" + (" (about a minute)" if name == "darpa98" else ""))
            source = read_source(name, data_directory(data), wanted.file)
            for note in source.rows.notes:
                progress.print(f"{name}: {note}")
            for protocol in protocols:
                sections.append(_section(name, protocol, source, models, wanted, progress))
                _print(sections[-1])
    if json_file is not None:
        rows = [result.row() for section in sections for result in section.results]
        json_file.write_text(json.dumps({"rows": rows}, indent=2) + "\n", encoding="utf-8")
    if html_file is not None:
        write_report(html_file, sections, wanted.detection.budget)
        Console(stderr=True).print(f"plots are in {html_file}")


def _section(
    name: str, protocol: str, source: Source, models: Sequence[str] | None, wanted: Wanted, progress: "_Progress"
) -> Section:
    results: list[Result] = []
    first: Trial | None = None
    notes = source.rows.notes
    for seed in range(wanted.n_seeds):
        if seed and name in DRAWN:
            progress.say(f"drawing {name}, seed {seed}")
            source = read_source(name, Path(), wanted.file, seed)
        trial = part(source, protocol, seed, wanted.warmup)
        first = first or trial
        for model in models or models_for(trial):
            progress.say(
                f"{name}, {protocol}, seed {seed + 1} of {wanted.n_seeds}: {model} on {len(trial.judged):,} rows"
            )
            try:
                result = evaluate(
                    name,
                    protocol,
                    trial,
                    model,
                    seed,
                    learn=wanted.learn,
                    detection=wanted.detection,
                    tick=progress.tick,
                )
            except ValueError as error:
                raise ConfigurationError("--models", model, f"cannot learn from {name}, {protocol}: {error}") from error
            progress.print(f"  seed {seed} {model}: AUROC {result.auroc:.4f}, AP {result.average_precision:.4f}")
            results.append(result if seed == 0 else _without_rows(result))
    if first is None:
        raise ValueError("need at least one seed")
    return Section(name, protocol, _notes(first, notes, results), first.judged, first.in_warmup, results)


def _notes(trial: Trial, notes: tuple[str, ...], results: Sequence[Result]) -> tuple[str, ...]:
    """What people should know to read the figures."""
    n_odd = int(trial.warmup.is_anomaly.sum())
    kind = "known to be normal" if trial.is_trusted else f"not labelled; {n_odd / len(trial.warmup):.1%} are anomalies"
    learnt = f"warm-up: {len(trial.warmup):,} rows, {kind}; p-values from the {len(trial.calibration):,} rows after it"
    learning = sorted({result.model for result in results if result.is_learning}, key=MODELS.index)
    going_on = f"learn on after the warm-up: {', '.join(learning)}" if learning else "all models are frozen after it"
    days = "" if trial.judged.has_time else "rows have no time: taken as a second apart, which is what a day means here"
    return tuple(note for note in (*notes, learnt, going_on, days) if note)


def _without_rows(result: Result) -> Result:
    """Only the first seed is plotted; the others' rows are let go."""
    nothing = np.empty(0)
    return replace(result, scores=nothing, p_values=nothing, is_alert=nothing.astype(np.bool_), strongest=())


def _print(section: Section) -> None:
    console = Console()
    if not console.is_terminal:
        console = Console(width=_PLAIN_WIDTH)  # a file has room for whole tables
    console.print(f"\n[bold]{section.dataset}, {section.protocol}[/bold]")
    for note in section.notes[len(section.rows.notes) :]:
        console.print(f"  {note}", style="dim", highlight=False)
    for columns, title in ((RANKING, "who ranks anomalies first"), (DECISIONS, "what an operator would see")):
        console.print(_table(columns, section.results, title))


def _table(columns: Sequence[Column], results: Sequence[Result], title: str) -> Table:
    shown = used(columns, results)
    table = Table(title=title, title_justify="left", box=SIMPLE_HEAD, padding=(0, 1, 0, 0))
    table.add_column("model", no_wrap=True)
    for column in shown:
        table.add_column(column.title, justify="right", overflow="fold")
    for line in lines(shown, results):
        table.add_row(*line, style="bold" if line[0] == LEADING else None)
    return table


def _listed(text: str, known: Sequence[str] | dict[str, Callable[..., Trial]], option: str) -> list[str]:
    if text == "all":
        return list(known)
    names = [name.strip() for name in text.split(",") if name.strip()]
    for name in names:
        if name not in known:
            raise ConfigurationError(option, name, f"it is none of {', '.join(known)}")
    if not names:
        raise ConfigurationError(option, text, f"name one or more of {', '.join(known)}; or all")
    return names


class _Progress:
    """What is being done, and that it goes on: a line that moves on a terminal, plain lines elsewhere."""

    def __init__(self, bar: Progress) -> None:
        self._bar = bar
        self._task = bar.add_task("", total=None)
        self._n_ticks = 0

    def say(self, doing: str) -> None:
        self._bar.update(self._task, description=doing)
        if not self._bar.console.is_terminal:
            self.print(doing)

    def print(self, line: str) -> None:
        self._bar.console.print(line, highlight=False, markup=False)

    def tick(self) -> None:
        self._n_ticks += 1
        if self._n_ticks % 20 == 0:
            self._bar.advance(self._task)


@contextmanager
def _progress() -> Iterator[_Progress]:
    columns = (TextColumn("{task.description}"), BarColumn(bar_width=20), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        yield _Progress(bar)
