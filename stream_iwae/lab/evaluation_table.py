"""Results -> the lines of a table, for the terminal and the page."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from stream_iwae.lab.evaluate import Result


@dataclass(frozen=True, slots=True)
class Column:
    """One figure: its title, what it is, and how it is written."""

    title: str
    meaning: str
    value: Callable[[Result], float | None]
    digits: int = 4
    has_spread: bool = False
    is_ranked: bool = False  # larger is better, and the best is marked


RANKING: Final = (
    Column("AUROC", "chance that an anomaly scores above a normal row", lambda r: r.ranking.auroc, 4, True, True),
    Column(
        "AP",
        "average precision: area under precision against recall",
        lambda r: r.ranking.average_precision,
        is_ranked=True,
    ),
    Column(
        "AUROC after",
        "the same over the rows after the warm-up",
        lambda r: r.ranking.auroc_after_warmup,
        is_ranked=True,
    ),
    Column(
        "AP after",
        "the same over the rows after the warm-up",
        lambda r: r.ranking.average_precision_after_warmup,
        is_ranked=True,
    ),
    Column(
        "VUS-PR",
        "area under precision and recall that forgive a detection a little early or late",
        lambda r: r.ranking.vus_pr,
        is_ranked=True,
    ),
    Column("train s", "CPU seconds of all training", lambda r: r.training_seconds, digits=1),
    Column("us/row", "CPU microseconds to score a row", lambda r: r.us_per_row, digits=1),
)
DECISIONS: Final = (
    Column("alerts/day", "rows alerted on at the budget, a day", lambda r: r.decisions.alerts_per_day, digits=1),
    Column(
        "false/day",
        "of them that tell of no anomaly: to compare with the budget",
        lambda r: r.decisions.false_alerts_per_day,
        1,
    ),
    Column("caught", "share of the stretches of anomalies with an alert", lambda r: r.decisions.segments_caught, 3),
    Column("delay s", "median time to it", lambda r: r.decisions.detection_delay_seconds, digits=0),
    Column("found", "share of the anomalies with a p-value of at most .01", lambda r: r.decisions.found_at[1], 3),
    Column("p .1", "share of normal rows said to be 1 in 10", lambda r: r.decisions.seen_at[0]),
    Column("p .01", "said to be 1 in 100", lambda r: r.decisions.seen_at[1]),
    Column("p .001", "said to be 1 in 1,000", lambda r: r.decisions.seen_at[2], digits=5),
)


def used(columns: Sequence[Column], results: Iterable[Result]) -> list[Column]:
    """Those columns that have a value for some result."""
    listed = list(results)
    return [column for column in columns if any(column.value(result) is not None for result in listed)]


def by_model(results: Iterable[Result]) -> dict[str, list[Result]]:
    """The seeds of each model, in order of appearance."""
    found: dict[str, list[Result]] = {}
    for result in results:
        found.setdefault(result.model, []).append(result)
    return found


def lines(columns: Sequence[Column], results: Iterable[Result]) -> list[list[str]]:
    """For each model its name, then each figure's mean over the seeds; the first with its spread."""
    table = []
    for model, found in by_model(results).items():
        table.append([model, *(_cell(column, found) for column in columns)])
    return table


def best_lines(column: Column, results: Iterable[Result]) -> str:
    """The model with the largest mean of a figure."""
    means = {model: _mean(column, found) for model, found in by_model(results).items()}
    return max(means, key=lambda model: means[model] if means[model] is not None else -np.inf)  # type: ignore[arg-type,return-value]


def _cell(column: Column, found: Sequence[Result]) -> str:
    mean = _mean(column, found)
    if mean is None or not np.isfinite(mean):
        return "-"
    values = [value for result in found if (value := column.value(result)) is not None]
    spread = f" ± {np.std(values):.{column.digits}f}" if column.has_spread and len(values) > 1 else ""
    return f"{mean:,.{column.digits}f}{spread}"


def _mean(column: Column, found: Sequence[Result]) -> float | None:
    values = [value for result in found if (value := column.value(result)) is not None]
    return float(np.mean(values)) if values else None
