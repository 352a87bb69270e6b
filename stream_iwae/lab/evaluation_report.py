"""Results -> one HTML page with plots, which needs nothing else to be read."""

import base64
import io
from collections.abc import Iterable, Sequence
from html import escape
from itertools import groupby
from pathlib import Path
from typing import Final

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray
from sklearn.metrics import precision_recall_curve

from stream_iwae.lab.evaluate import Result

COLUMNS: Final = (
    ("model", "model"),
    ("auroc", "AUROC"),
    ("average_precision", "average precision"),
    ("auroc_after_warmup", "AUROC after warm-up"),
    ("average_precision_after_warmup", "av. precision after warm-up"),
    ("training_seconds", "training, CPU s"),
    ("us_per_row", "scoring, us a row"),
)
_SHOWN: Final = 4_000  # points of a curve or a plot
_STYLE: Final = (
    "body{font:15px/1.5 sans-serif;margin:2em auto;max-width:64em;padding:0 1em}table{border-collapse:collapse}"
    "td,th{padding:.3em .8em;border-bottom:1px solid #ccc;text-align:right}"
    "td:first-child,th:first-child{text-align:left}"
    "img{max-width:100%}"
)

Truth = NDArray[np.bool_]


def write_report(path: Path, results: Sequence[tuple[Result, Truth]]) -> None:
    """Write the page: a table and plots for each data set and protocol."""
    mpl.use("Agg")
    parts = [f"<!doctype html><meta charset=utf-8><title>stream_iwae: evaluation</title><style>{_STYLE}</style>"]
    parts.append("<h1>Detectors on labelled data</h1><p>Means over seeds. Labels judge; they train nothing.</p>")
    for (dataset, protocol), found in groupby(results, key=lambda pair: (pair[0].dataset, pair[0].protocol)):
        group = list(found)
        parts.append(f"<h2>{escape(dataset)}, {escape(protocol)}</h2>{_table(means(r for r, _ in group))}")
        first_seed = [(result, truth) for result, truth in group if result.seed == group[0][0].seed]
        parts += [_image(_precision_recall(first_seed)), _image(_over_time(*first_seed[0]))]
    path.write_text("\n".join(parts), encoding="utf-8")


def means(results: Iterable[Result]) -> list[dict[str, str]]:
    """One line a model, in order of appearance: the mean of each figure over the seeds, and the spread of the first."""
    by_model: dict[str, list[Result]] = {}
    for result in results:
        by_model.setdefault(result.model, []).append(result)
    lines = []
    for model, found in by_model.items():
        line = {"model": model}
        for name, _ in COLUMNS[1:]:
            values = np.array([getattr(result, name) for result in found])
            spread = f" ± {values.std():.4f}" if len(values) > 1 and name == "auroc" else ""
            line[name] = (
                f"{values.mean():.1f}" if name in {"training_seconds", "us_per_row"} else f"{values.mean():.4f}"
            )
            line[name] += spread
        lines.append(line)
    return lines


def _table(lines: list[dict[str, str]]) -> str:
    head = "".join(f"<th>{title}</th>" for _, title in COLUMNS)
    rows = "".join(
        "<tr>" + "".join(f"<td>{escape(line[name])}</td>" for name, _ in COLUMNS) + "</tr>" for line in lines
    )
    return f"<table><tr>{head}</tr>{rows}</table>"


def _precision_recall(results: Sequence[tuple[Result, Truth]]) -> Figure:
    figure, axes = _figure("Precision against recall")
    for result, truth in results:
        precision, recall, _ = precision_recall_curve(truth, np.nan_to_num(result.scores))
        step = max(1, len(recall) // _SHOWN)
        axes.plot(recall[::step], precision[::step], label=f"{result.model} ({result.average_precision:.3f})")
    axes.set(xlabel="recall: share of the anomalies found", ylabel="precision", ylim=(0, 1.02))
    axes.legend(fontsize="small")
    return figure


def _over_time(result: Result, truth: Truth) -> Figure:
    figure, axes = _figure(f"Scores of {result.model} in the order of the stream")
    step = max(1, len(truth) // _SHOWN)
    at, scores, is_anomaly = np.arange(len(truth))[::step], result.scores[::step], truth[::step]
    axes.plot(at[~is_anomaly], scores[~is_anomaly], ".", markersize=2, label="normal")
    axes.plot(at[is_anomaly], scores[is_anomaly], ".", markersize=2, label="anomaly")
    axes.set(xlabel="row", ylabel="score, nats")
    axes.legend(fontsize="small", markerscale=5)
    return figure


def _figure(title: str) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(9, 3.6), layout="constrained")
    axes = figure.subplots()
    axes.set_title(title)
    return figure, axes


def _image(figure: Figure) -> str:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=110)
    return f'<p><img src="data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode()}"></p>'
