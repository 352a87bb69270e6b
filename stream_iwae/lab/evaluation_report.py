"""Results -> one HTML page with plots, which needs nothing else to be read."""

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from html import escape
from pathlib import Path
from typing import Final

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from stream_iwae.batches import Finding
from stream_iwae.lab import evaluation_plots as plots
from stream_iwae.lab.evaluate import OURS, Result, Strong
from stream_iwae.lab.evaluation_table import DECISIONS, RANKING, Column, best_lines, lines, used
from stream_iwae.lab.labelled_rows import LabelledRows

_HEAD: Final = (
    "<!doctype html><html lang=en><meta charset=utf-8><meta name=viewport content='width=device-width'>"
    "<title>stream_iwae: evaluation</title>"
)
_INTRODUCTION: Final = (
    "Each model learns from the warm-up and scores every row; labels judge, they train nothing. Ours are in colour."
)
_STYLE: Final = """
body{font:15px/1.5 system-ui,sans-serif;color:#1c2b36;margin:2em auto;max-width:66em;padding:0 1em}
h1{margin-bottom:.2em}h2{margin-top:2.2em;border-bottom:2px solid #00798c}h3{margin:1.6em 0 .3em}
table{border-collapse:collapse;margin:.6em 0;font-size:.92em}
td,th{padding:.28em .7em;border-bottom:1px solid #d8dee3;text-align:right;vertical-align:top}
th{background:#f2f5f7;font-weight:600}td:first-child,th:first-child{text-align:left}
tr.ours td:first-child{color:#00798c;font-weight:600}td.best{font-weight:700}
table.alerts td,table.alerts th{text-align:left}
img{max-width:100%}.say{color:#51626f;margin:.2em 0}.yes{color:#d1495b;font-weight:600}.no{color:#6b7c8a}
li{margin:.1em 0}
"""


@dataclass(frozen=True, slots=True)
class Section:
    """Everything about one data set and protocol."""

    dataset: str
    protocol: str
    notes: tuple[str, ...]
    rows: LabelledRows  # judged, of the first seed
    in_warmup: NDArray[np.bool_]
    results: Sequence[Result]  # all models and seeds; plots are of the first seed


def write_report(path: Path, sections: Sequence[Section], budget_per_day: float) -> None:
    """Write the page: tables, plots and explanations for each data set and protocol."""
    mpl.use("Agg")
    parts = [
        f"{_HEAD}<style>{_STYLE}</style>",
        "<h1>Detectors on labelled data</h1>",
        f"<p class=say>{_INTRODUCTION} Alerts are those of a budget of {budget_per_day:g} a day.</p>",
    ]
    for section in sections:
        parts += _section(section)
    path.write_text("\n".join(parts) + "</html>\n", encoding="utf-8")


def _section(section: Section) -> list[str]:
    rows, results = section.rows, section.results
    seeds = sorted({result.seed for result in results})
    first = [result for result in results if result.seed == seeds[0]]
    leading = next((result for result in first if result.model in OURS), first[0])
    notes = "".join(f"<li>{escape(note)}</li>" for note in section.notes)
    parts = [
        f"<h2>{escape(section.dataset)}, {escape(section.protocol)}</h2>",
        f"<p>{_summary(section)}</p>" + (f"<ul class=say>{notes}</ul>" if notes else ""),
        "<h3>Who ranks anomalies first?</h3>",
        _table(RANKING, results),
        "<h3>What would an operator see?</h3>",
        _table(DECISIONS, results),
        "<h3>Scores over time</h3>",
        _image(plots.over_time(rows, leading)),
        _image(plots.side_by_side(rows, first)),
        "<h3>Precision and recall</h3>",
        _image(plots.precision_recall(rows, first)),
        "<h3>Calibration</h3><p class=say>A model whose line follows the dashed one keeps its budget.</p>",
        _image(plots.calibration(rows, section.in_warmup, first)),
    ]
    if len(first) > 1:
        parts += ["<h3>What each model adds</h3>", _image(plots.what_each_adds(rows, first))]
    if leading.strongest:
        parts += [f"<h3>The strongest alerts of {escape(leading.model)}</h3>", _alerts(rows, leading)]
    return parts


def _summary(section: Section) -> str:
    n, n_odd = len(section.rows), int(section.rows.is_anomaly.sum())
    n_seeds = len({result.seed for result in section.results})
    mean_of = f"means of {n_seeds} seeds" if n_seeds > 1 else "one seed"
    best = best_lines(RANKING[1], section.results)
    return (
        f"{n:,} rows, {n_odd:,} of them anomalies ({n_odd / n:.2%}); {mean_of}. "
        f"The best average precision is that of <b>{escape(best)}</b>."
    )


def _table(columns: Sequence[Column], results: Sequence[Result]) -> str:
    shown = used(columns, results)
    listed = lines(shown, results)
    head = "".join(f"<th title='{escape(column.meaning)}'>{escape(column.title)}</th>" for column in shown)
    best = {i: best_lines(column, results) for i, column in enumerate(shown) if column.is_ranked}
    body = ""
    for model, *cells in listed:
        css = " class=ours" if model in OURS else ""
        marked = "".join(
            f"<td{' class=best' if best.get(i) == model else ''}>{escape(cell)}</td>" for i, cell in enumerate(cells)
        )
        body += f"<tr{css}><td>{escape(model)}</td>{marked}</tr>"
    meanings = "; ".join(f"<b>{escape(column.title)}</b>: {escape(column.meaning)}" for column in shown)
    return f"<table><tr><th>model</th>{head}</tr>{body}</table><p class=say>{meanings}.</p>"


def _alerts(rows: LabelledRows, result: Result) -> str:
    body = "".join(
        f"<tr><td>{_where(rows, strong)}</td><td class={'yes' if strong.is_anomaly else 'no'}>"
        f"{'anomaly' if strong.is_anomaly else 'normal'}</td><td>{strong.score:,.1f}</td>"
        f"<td>{strong.p_value:.1e}</td><td>{'<br>'.join(map(_finding, strong.findings))}</td></tr>"
        for strong in result.strongest
    )
    head = "<th>where</th><th>truly</th><th>score</th><th>p-value</th><th>why: seen, and what was expected instead</th>"
    return f"<table class=alerts><tr>{head}</tr>{body}</table>"


def _where(rows: LabelledRows, strong: Strong) -> str:
    entity = rows.windows.entities[strong.row]
    named = f"{escape(entity)}<br>" if rows.has_time and not rows.is_series else ""
    if rows.has_time:
        return named + datetime.fromtimestamp(rows.end_ms[strong.row] / 1000, UTC).strftime("%Y-%m-%d %H:%M:%S")
    return f"row {strong.row:,}"


def _finding(finding: Finding) -> str:
    seen = "missing" if finding.value is None else _written(finding.value)
    unit = f" {escape(finding.unit)}" if finding.unit else ""
    expected = ""
    if finding.expected_low is not None and finding.expected_high is not None:
        expected = f", expected {_written(finding.expected_low)} to {_written(finding.expected_high)}"
    elif finding.expected is not None:
        expected = f", expected {_written(finding.expected)}"
    return f"<b>{escape(finding.name)}</b> {seen}{unit}{expected}"


def _written(value: float | str) -> str:
    if isinstance(value, str):
        return escape(value)
    return f"{value:,.0f}" if abs(value) >= 1_000 else f"{value:.3g}"


def _image(figure: Figure) -> str:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=110)
    return f'<p><img alt="" src="data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode()}"></p>'
