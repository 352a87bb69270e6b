"""Results of one data set and protocol -> plots that can be read at a glance."""

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any, Final

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray
from scipy.stats import rankdata
from sklearn.metrics import average_precision_score, precision_recall_curve

from stream_iwae.lab.evaluate import LEADING, MODELS, OURS, Result
from stream_iwae.lab.labelled_rows import LabelledRows
from stream_iwae.lab.volume_under_surface import ranges

_SHOWN: Final = 4_000  # points of a curve, or of a class of rows
_RANKED: Final = 50_000  # rows of which ranks are compared
_NORMAL, _ANOMALY, _OURS = "#8fa3b5", "#d1495b", "#00798c"
_OTHERS: Final = ("#edae49", "#66a182", "#8d6a9f", "#b07d62", "#5c80bc", "#c05299", "#7a7a7a", "#3d405b")
_DAY_MS: Final = 86_400_000


def over_time(rows: LabelledRows, result: Result) -> Figure:
    """Scores in the order of the stream, anomalies in red, and the line above which an alert is raised."""
    figure, axes = _figure(f"How anomalous {result.model} finds each row", height=3.4)
    scores = result.scores
    at: NDArray[Any] = np.arange(len(rows))
    if rows.has_time:
        at = np.array([datetime.fromtimestamp(ms / 1000, UTC) for ms in rows.end_ms.tolist()])
    truth = rows.is_anomaly
    if rows.is_series:
        for start, stop in ranges(truth):
            axes.axvspan(at[start], at[min(stop, len(at) - 1)], color=_ANOMALY, alpha=0.15, linewidth=0)
    for mask, colour, name in ((~truth, _NORMAL, "normal"), (truth, _ANOMALY, "anomaly")):
        chosen = _thinned(np.flatnonzero(mask & np.isfinite(scores)))
        axes.plot(at[chosen], scores[chosen], ".", color=colour, markersize=2.5, label=name, rasterized=True)
    threshold = _threshold(result)
    if threshold is not None:
        axes.axhline(threshold, color="black", linewidth=1, linestyle="--", label="alert above")
    low, high = np.nanquantile(scores, [0.0, 0.999])
    margin = 0.05 * max(high - low, 1e-9)
    axes.set(ylim=(low - margin, max(high, threshold or high) + margin), ylabel="score")
    axes.set_xlabel("time, UTC" if rows.has_time else "row")
    if rows.has_time:
        figure.autofmt_xdate(rotation=0, ha="center")
    _legend(axes, markerscale=4)
    return figure


def side_by_side(rows: LabelledRows, results: Sequence[Result]) -> Figure:
    """How far the scores of normal rows and of anomalies lie apart, a model a panel."""
    n_columns = min(4, len(results))
    n_rows = -(-len(results) // n_columns)
    figure = Figure(figsize=(9.6, 2.1 * n_rows + 0.4), layout="constrained")
    panels = np.atleast_1d(figure.subplots(n_rows, n_columns, squeeze=False)).ravel()
    for axes in panels[len(results) :]:
        axes.set_visible(False)
    for axes, result in zip(panels, results, strict=False):
        known = np.isfinite(result.scores)
        ranks = np.full(len(rows), np.nan)
        ranks[known] = rankdata(result.scores[known]) / known.sum()
        bins = np.linspace(0, 1, 41)
        for mask, colour in ((~rows.is_anomaly, _NORMAL), (rows.is_anomaly, _ANOMALY)):
            chosen = ranks[mask & known]
            axes.hist(
                chosen, bins=bins, weights=np.full(len(chosen), 1 / max(len(chosen), 1)), color=colour, alpha=0.75
            )
        axes.set_title(result.model, fontsize=9, color=_OURS if result.model in OURS else "black")
        axes.set(yticks=[], xticks=[0, 1], xticklabels=["most ordinary", "oddest"])
        axes.tick_params(labelsize=7)
    figure.suptitle(
        "Where each model ranks normal rows (grey) and anomalies (red): further apart is better", fontsize=10
    )
    return figure


def precision_recall(rows: LabelledRows, results: Sequence[Result]) -> Figure:
    """Of what is flagged, how much is right, as more and more is found."""
    figure, axes = _figure("Of the rows flagged, how many are anomalies?")
    for result in results:
        scores = np.nan_to_num(result.scores, nan=np.nanmin(result.scores))
        precision, recall, _ = precision_recall_curve(rows.is_anomaly, scores)
        step = max(1, len(recall) // _SHOWN)
        axes.plot(
            recall[::step], precision[::step], label=f"{result.model}, {result.average_precision:.3f}", **_line(result)
        )
    axes.axhline(rows.is_anomaly.mean(), color="black", linewidth=0.8, linestyle=":", label="by chance")
    axes.set(xlabel="recall: share of the anomalies found", ylabel="precision", xlim=(0, 1), ylim=(0, 1.02))
    _legend(axes, title="model, average precision")
    return figure


def calibration(rows: LabelledRows, in_warmup: NDArray[np.bool_], results: Sequence[Result]) -> Figure:
    """How often normal rows are as rare as their p-value says."""
    figure, axes = _figure("Is one in a hundred really one in a hundred?", width=6.4, height=5.0)
    normal = ~rows.is_anomaly & ~in_warmup
    n = max(int(normal.sum()), 1)
    said = np.logspace(0, -4, 60)
    lowest = max(1e-5, 0.5 / n)
    axes.fill_between([1e-4, 1], [1e-4, 1], [2, 2], color=_ANOMALY, alpha=0.06, linewidth=0)
    axes.plot([1e-4, 1], [1e-4, 1], color="black", linewidth=1, linestyle="--")
    for result in results:
        p_values = np.sort(result.p_values[normal & np.isfinite(result.p_values)])
        seen = np.searchsorted(p_values, said, side="right") / max(len(p_values), 1)
        axes.plot(said, np.maximum(seen, lowest), label=result.model, **_line(result))
    axes.set(xscale="log", yscale="log", xlim=(1, 1e-4), ylim=(lowest, 1.2))
    axes.set(xlabel="said: p-value at most", ylabel="seen: share of normal rows")
    axes.text(0.97, 0.97, "more false alerts than promised", transform=axes.transAxes, ha="right", va="top", fontsize=8)
    axes.text(0.03, 0.03, "fewer than promised", transform=axes.transAxes, fontsize=8)
    _legend(axes, loc="lower center" if len(results) > 4 else "best")
    return figure


def what_each_adds(rows: LabelledRows, results: Sequence[Result]) -> Figure:
    """Who agrees with whom, and what is lost when one is left out of the mean of all."""
    at = _spread(len(rows), _RANKED)
    truth = rows.is_anomaly[at]
    ranks = np.stack([rankdata(np.nan_to_num(result.scores[at], nan=np.nanmin(result.scores))) for result in results])
    names = [result.model for result in results]
    figure = Figure(figsize=(9.6, 3.9), layout="constrained")
    left, right = figure.subplots(1, 2, width_ratios=(1, 1))
    agreement = np.corrcoef(ranks)
    left.imshow(agreement, cmap="YlGnBu", vmin=0, vmax=1)
    for (i, j), value in np.ndenumerate(agreement):
        left.text(j, i, f"{value:.2f}", ha="center", va="center", fontsize=7, color="white" if value > 0.6 else "black")
    left.set(xticks=range(len(names)), yticks=range(len(names)))
    left.set_xticklabels(names, rotation=40, ha="right", fontsize=8)
    left.set_yticklabels(names, fontsize=8)
    left.set_title("Do they agree? (rank correlation of scores)", fontsize=10)
    everyone = average_precision_score(truth, ranks.mean(axis=0))
    gains = [
        everyone - average_precision_score(truth, np.delete(ranks, i, axis=0).mean(axis=0)) for i in range(len(names))
    ]
    right.barh(names, gains, color=[_OURS if gain >= 0 else _ANOMALY for gain in gains])
    right.axvline(0, color="black", linewidth=0.8)
    right.invert_yaxis()
    right.tick_params(labelsize=8)
    right.set_xlabel("average precision that the mean rank of all loses without it", fontsize=8)
    right.set_title(f"What does each add to all together ({everyone:.3f})?", fontsize=10)
    return figure


def _threshold(result: Result) -> float | None:
    """The lowest score above the median that was alerted on; None where none was, or the line moved."""
    if result.is_learning or not np.isfinite(result.scores).any():
        return None
    alerted = result.scores[result.is_alert & (result.scores > np.nanmedian(result.scores))]
    return float(alerted.min()) if len(alerted) else None


def _line(result: Result) -> dict[str, Any]:
    if result.model == LEADING:
        return {"color": _OURS, "linewidth": 2.4, "zorder": 3}
    return {"color": _OTHERS[(MODELS.index(result.model) - 1) % len(_OTHERS)], "linewidth": 1.3}


def _thinned(at: NDArray[np.int64]) -> NDArray[np.int64]:
    return at if len(at) <= _SHOWN else at[_spread(len(at), _SHOWN)]


def _spread(n: int, most: int) -> NDArray[np.int64]:
    """At most so many positions of n, evenly spread."""
    return np.unique(np.linspace(0, n - 1, min(n, most)).astype(np.int64))


def _figure(title: str, width: float = 9.6, height: float = 3.8) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(width, height), layout="constrained")
    axes = figure.subplots()
    axes.set_title(title, fontsize=11)
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(visible=True, alpha=0.2)
    return figure, axes


def _legend(axes: Axes, **options: Any) -> None:
    axes.legend(fontsize=8, title_fontsize=8, frameon=True, framealpha=0.85, **options)
