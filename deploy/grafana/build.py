"""Builds dashboards/stream-iwae.json: `python deploy/grafana/build.py`, and with --check fails on drift."""

import sys
from dataclasses import dataclass
from pathlib import Path

from grafana_foundation_sdk.builders import dashboard, prometheus, stat, timeseries
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models.dashboard import DataSourceRef

TARGET = Path(__file__).parent / "dashboards" / "stream-iwae.json"
SOURCE = DataSourceRef(type_val="prometheus", uid="prometheus")
METRIC = "stream_iwae_"


@dataclass(frozen=True)
class Panel:
    """One question, and the queries that answer it; `{}` stands for the metric prefix."""

    title: str
    description: str
    unit: str
    queries: tuple[tuple[str, str], ...]  # PromQL, legend
    is_number: bool = False


ROWS: dict[str, tuple[Panel, ...]] = {
    "Is it working?": (
        Panel("Ready", "1: a model is in use", "none", (("min({}ready)", "ready"),), is_number=True),
        Panel(
            "Open incidents",
            "By severity, now",
            "none",
            (("sum by (severity) ({}incidents_open)", "{{{{severity}}}}"),),
            is_number=True,
        ),
        Panel(
            "Behind the stream",
            "Records between the position and the end of the topic",
            "short",
            (("sum({}consumer_lag_records)", "records"),),
            is_number=True,
        ),
        Panel("Model", "The version in use", "none", (("{}model_info", "{{{{version}}}}"),), is_number=True),
    ),
    "Events": (
        Panel(
            "Fate of every event",
            "consumed = aggregated + late + rejected + skipped",
            "ops",
            (
                ("sum(rate({}events_consumed_total[1m]))", "consumed"),
                ("sum(rate({}events_aggregated_total[1m]))", "aggregated"),
                ("sum(rate({}events_late_total[1m]))", "late"),
            ),
        ),
        Panel(
            "Rejected and skipped",
            "By reason; rejected records are on the dead-letter topic",
            "ops",
            (
                ("sum by (reason) (rate({}events_rejected_total[1m]))", "rejected: {{{{reason}}}}"),
                ("sum by (reason) (rate({}events_skipped_total[1m]))", "skipped: {{{{reason}}}}"),
            ),
        ),
        Panel(
            "Lag by partition",
            "Position lag, in records",
            "short",
            (("sum by (topic, partition) ({}consumer_lag_records)", "{{{{topic}}}}/{{{{partition}}}}"),),
        ),
        Panel(
            "Delay of the watermark",
            "Now less the event time up to which windows are closed",
            "s",
            (("time() - {}watermark_timestamp_seconds", "delay"),),
        ),
        Panel(
            "Consumed bytes",
            "Payload as it came",
            "Bps",
            (("sum(rate({}bytes_consumed_total[1m]))", "bytes"),),
        ),
    ),
    "Detection": (
        Panel(
            "Windows",
            "Closed, scored, and closed before a model was ready",
            "ops",
            (
                ("sum(rate({}windows_closed_total[1m]))", "closed"),
                ("sum(rate({}scores_total[1m]))", "scored"),
                ("sum(rate({}windows_unscored_total[1m]))", "unscored"),
            ),
        ),
        Panel(
            "Anomalous windows and alerts",
            "Windows past the threshold, and alerts published about them",
            "short",
            (
                ("sum by (severity) (increase({}anomalies_total[5m]))", "windows: {{{{severity}}}}"),
                ("sum by (severity) (increase({}alerts_published_total[5m]))", "alerts: {{{{severity}}}}"),
            ),
        ),
        Panel(
            "From arrival to alert",
            "End to end: the record that closed the window, to the committed alert",
            "s",
            (
                ("histogram_quantile(0.5, sum by (le) (rate({}end_to_end_latency_seconds_bucket[5m])))", "p50"),
                ("histogram_quantile(0.99, sum by (le) (rate({}end_to_end_latency_seconds_bucket[5m])))", "p99"),
            ),
        ),
        Panel("Threshold", "Score of a warning", "none", (("max({}threshold_value)", "nats"),)),
        Panel(
            "State",
            "What is held in memory",
            "short",
            (("sum({}windows_open)", "open windows"), ("sum({}entities_tracked)", "entities")),
        ),
    ),
    "Learning": (
        Panel(
            "Training runs",
            "By outcome",
            "short",
            (("sum by (outcome) ({}finetune_runs_total)", "{{{{outcome}}}}"),),
        ),
        Panel("Drift", "Distance of recent scores from the reference", "none", (("max({}drift_score)", "drift"),)),
        Panel(
            "Buffers",
            "Windows the trainer holds",
            "short",
            (("sum({}replay_buffer_samples)", "windows"),),
        ),
        Panel(
            "Age of the model",
            "Since the model in use was loaded",
            "s",
            (("time() - max({}model_loaded_timestamp_seconds)", "age"),),
        ),
        Panel(
            "Commits",
            "By outcome; only `committed` is ordinary",
            "ops",
            (("sum by (outcome) (rate({}consumer_commits_total[1m]))", "{{{{outcome}}}}"),),
        ),
    ),
}


def queries() -> list[str]:
    """Every PromQL expression of the dashboard."""
    return [
        expression.format(METRIC) for panels in ROWS.values() for panel in panels for expression, _ in panel.queries
    ]


def build() -> str:
    """The dashboard as JSON."""
    board = (
        dashboard.Dashboard("stream_iwae")
        .uid("stream-iwae")
        .tags(["generated", "stream-iwae"])
        .refresh("10s")
        .time("now-1h", "now")
        .readonly()
    )
    for row, panels in ROWS.items():
        board = board.with_row(dashboard.Row(row))
        for panel in panels:
            board = board.with_panel(_panel(panel))
    return JSONEncoder(sort_keys=True, indent=2).encode(board.build()) + "\n"


def _panel(panel: Panel) -> stat.Panel | timeseries.Panel:
    built = stat.Panel() if panel.is_number else timeseries.Panel()
    built = (
        built.title(panel.title)
        .description(panel.description)
        .unit(panel.unit)
        .datasource(SOURCE)
        .height(5 if panel.is_number else 8)
        .span(6 if panel.is_number else 8)
    )
    for number, (expression, legend) in enumerate(panel.queries):
        query = prometheus.Dataquery().expr(expression.format(METRIC)).legend_format(legend.format())
        built = built.with_target(query.ref_id(chr(ord("A") + number)))
    return built


if __name__ == "__main__":
    content = build()
    if "--check" in sys.argv:
        if TARGET.read_text() != content:
            sys.exit(f"{TARGET} differs from what {__file__} builds: run it and commit the result")
    else:
        TARGET.write_text(content)
        print(f"wrote {TARGET}")
