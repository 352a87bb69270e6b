"""Telemetry on prometheus-client: every family that the service has, in one table.

Labels take few values, and never an entity, an address or free text.
"""

import platform
from collections.abc import Mapping
from contextlib import suppress
from importlib.metadata import version
from typing import Final, NamedTuple

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, Info, disable_created_metrics

from stream_iwae import __version__

PREFIX: Final = "stream_iwae_"
_LATENCY_S: Final = (0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300)
_DURATION_S: Final = (1, 2.5, 5, 10, 30, 60, 120, 300, 600)


class Family(NamedTuple):
    """One metric family."""

    labels: tuple[str, ...]
    help: str
    buckets: tuple[float, ...] = ()


COUNTERS: Final = {
    "events_consumed": Family(("topic",), "Events read; aggregated + late + rejected + skipped is the same number."),
    "bytes_consumed": Family(("topic",), "Payload bytes read."),
    "events_aggregated": Family(("topic",), "Events that went into a window."),
    "events_forwarded": Family(("topic",), "Events that the re-keyer sent on, in place of aggregated + late."),
    "events_late": Family(("topic",), "Events whose pane had ended at or before the watermark."),
    "events_rejected": Family(("topic", "reason"), "Events that could not be used; they are dead letters."),
    "events_skipped": Family(
        ("topic", "reason"), "Events in order but not for us: markers, first samples, excess series."
    ),
    "events_folded": Family((), "Aggregated events of entities past max_entities, folded into one."),
    "consumer_gap_records": Family(("topic",), "Records that retention deleted before they were read."),
    "consumer_oversized_records": Family(("topic",), "Records of batches beyond kafka.max_unpacked, passed over."),
    "consumer_rebalances": Family((), "Changes of the assignment."),
    "consumer_stalls": Family(("topic",), "Partitions that stood still although there was more to read."),
    "consumer_commits": Family(("outcome",), "Transactions by outcome; only `committed` is ordinary."),
    "windows_closed": Family((), "Windows that ended."),
    "windows_unscored": Family((), "Windows that ended before a model was ready, or could not be scored."),
    "scores": Family((), "Windows scored."),
    "anomalies": Family(("severity",), "Windows past the threshold."),
    "alerts_published": Family(("severity",), "Alerts published."),
    "alerts_publish_failures": Family((), "Transactions that could not be delivered."),
    "model_refused": Family((), "Announced models that were damaged or did not fit."),
    "scorer_out_of_memory": Family(("device",), "Steps down since a GPU's memory was full, by where scoring went on."),
    "finetune_runs": Family(("outcome",), "Training runs by outcome."),
    "training_records_skipped": Family(("reason",), "Training records that could not be used."),
}
GAUGES: Final = {
    "consumer_lag_records": Family(("topic", "partition"), "End of the partition less the position."),
    "consumer_lag_seconds": Family(("topic",), "Now less the event time up to which windows are closed."),
    "consumer_assigned_partitions": Family(("topic",), "Partitions of this replica."),
    "consumer_last_poll_timestamp_seconds": Family((), "When the loop last polled."),
    "watermark_timestamp_seconds": Family((), "Event time up to which windows are closed; the slowest partition's."),
    "windows_open": Family((), "Windows that wait for their end."),
    "entities_tracked": Family((), "Entities whose presence is tracked."),
    "incidents_open": Family(("severity",), "Open incidents."),
    "ready": Family((), "1 when a model is in use; of the re-keyer, when it reads."),
    "model_loaded_timestamp_seconds": Family((), "When the model in use was loaded."),
    "threshold_value": Family((), "Score of a warning, in nats."),
    "threshold_extrapolated": Family((), "1 when too few ordinary scores were seen beyond the threshold."),
    "provisional_windows": Family((), "Windows looked at before there was a model."),
    "provisional_score": Family(("quantile",), "How unusual windows were before there was a model, 0 to 2.1."),
    "model_elbo": Family((), "Mean bound of the held-out windows, in nats."),
    "drift_score": Family((), "Distance of recent scores from the reference, 0 to 1."),
    "replay_buffer_samples": Family((), "Windows the trainer holds."),
    "gated_ratio": Family((), "Share of recent windows that may not be learnt from."),
    "finetune_last_success_timestamp_seconds": Family((), "When a training run last gave a model."),
}
HISTOGRAMS: Final = {
    "end_to_end_latency_seconds": Family(
        (), "From the record that closed a window to its committed alert.", _LATENCY_S
    ),
    "finetune_duration_seconds": Family((), "Duration of a training run.", _DURATION_S),
}


class PrometheusTelemetry:
    """Metrics in a registry of our own, and the sections of /status."""

    def __init__(self) -> None:
        disable_created_metrics()  # type: ignore[no-untyped-call]  # else each counter brings a second series
        self.registry = CollectorRegistry()
        self._counters = {n: Counter(PREFIX + n, f.help, f.labels, registry=self.registry) for n, f in COUNTERS.items()}
        self._gauges = {n: Gauge(PREFIX + n, f.help, f.labels, registry=self.registry) for n, f in GAUGES.items()}
        self._histograms = {
            n: Histogram(PREFIX + n, f.help, f.labels, buckets=f.buckets, registry=self.registry)
            for n, f in HISTOGRAMS.items()
        }
        self._infos = {"model": Info(PREFIX + "model", "The model in use.", registry=self.registry)}
        build = Info(PREFIX + "build", "What is running.", registry=self.registry)
        build.info(
            {"version": __version__, "pythonversion": platform.python_version(), "torchversion": version("torch")}
        )
        self.sections: dict[str, Mapping[str, object]] = {}
        self.progressed_s: dict[str, float] = {}

    def count(self, name: str, amount: float = 1, **labels: str) -> None:
        """Add to a counter; an amount of 0 makes its series appear."""
        counter = self._counters[name]
        (counter.labels(**labels) if labels else counter).inc(amount)

    def gauge(self, name: str, value: float, **labels: str) -> None:
        """Set a gauge."""
        gauge = self._gauges[name]
        (gauge.labels(**labels) if labels else gauge).set(value)

    def forget(self, name: str, **labels: str) -> None:
        """Take a gauge's series away; nothing where there is none."""
        with suppress(KeyError):
            self._gauges[name].remove(*(labels[label] for label in GAUGES[name].labels))

    def observe(self, name: str, value: float, **labels: str) -> None:
        """Add an observation to a histogram."""
        histogram = self._histograms[name]
        (histogram.labels(**labels) if labels else histogram).observe(value)

    def info(self, name: str, **labels: str) -> None:
        """Set an info metric."""
        self._infos[name].info(labels)

    def status(self, section: str, values: Mapping[str, object]) -> None:
        """Replace one section of /status."""
        self.sections = {**self.sections, section: values}

    def progress(self, component: str, now_s: float) -> None:
        """Remember when a component last made progress."""
        self.progressed_s[component] = now_s

    def is_ready(self) -> bool:
        """Whether a model is in use."""
        ready: float = self._gauges["ready"]._value.get()  # noqa: SLF001  # the client has no reader
        return ready == 1
