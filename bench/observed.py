"""A process of ours while it works: memory, files and threads from /proc, the rest from its own /metrics."""

import threading
import time
import urllib.error
import urllib.request
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import NamedTuple, Self

import numpy as np
from prometheus_client.parser import text_string_to_metric_families

from stream_iwae.lab.service_process import ServiceProcess

RESULTS = Path(__file__).parents[1] / "docs" / "results"
FATES = ("aggregated", "late", "rejected", "skipped")


class Sample(NamedTuple):
    """At one moment."""

    at_s: float
    rss_mb: float
    anonymous_mb: float  # of it: the heap, and not files that are mapped
    peak_mb: float  # the highest so far, as the kernel remembers it
    n_files: int
    n_threads: int
    lag_records: float
    lag_s: float
    rebalances: float
    fates: dict[str, float]  # consumed, aggregated, late, rejected, skipped


def sample(service: ServiceProcess, began_s: float) -> Sample | None:
    """How it is now; None where it does not answer."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{service.port}/metrics", timeout=10) as answer:
            families = list(text_string_to_metric_families(answer.read().decode()))
    except (urllib.error.URLError, TimeoutError, ConnectionError):
        return None
    totals: dict[str, float] = {}
    for one in (one for family in families for one in family.samples):
        totals[one.name] = totals.get(one.name, 0.0) + one.value
    process = Path("/proc", str(service.pid))
    status = dict(line.split(":", 1) for line in (process / "status").read_text().splitlines())
    return Sample(
        time.monotonic() - began_s,
        int(status["VmRSS"].split()[0]) / 1024,
        int(status["RssAnon"].split()[0]) / 1024,
        int(status["VmHWM"].split()[0]) / 1024,
        len(list((process / "fd").iterdir())),
        int(status["Threads"]),
        totals.get("stream_iwae_consumer_lag_records", np.nan),
        totals.get("stream_iwae_consumer_lag_seconds", np.nan),
        totals["stream_iwae_consumer_rebalances_total"],
        {fate: totals[f"stream_iwae_events_{fate}_total"] for fate in ("consumed", *FATES)},
    )


class Observer:
    """Takes samples beside whatever else is done, while its `with` block lasts."""

    def __init__(self, service: ServiceProcess, every_s: float) -> None:
        self._service, self._every_s = service, every_s
        self._began_s = time.monotonic()
        self._is_over = threading.Event()
        self._thread = threading.Thread(target=self._observe, daemon=True)
        self.samples: list[Sample] = []

    def _observe(self) -> None:
        while not self._is_over.wait(self._every_s):
            if (found := sample(self._service, self._began_s)) is not None:
                self.samples.append(found)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._is_over.set()
        self._thread.join(20)


def plot(samples: Sequence[Sample], name: str, title: str) -> None:
    """Memory above and lag below, as docs/results/NAME.png."""
    from matplotlib.figure import Figure  # noqa: PLC0415  # most benchmarks draw nothing

    figure = Figure(figsize=(8, 4), layout="constrained")
    memory, lag = figure.subplots(2, 1, sharex=True)
    at = [one.at_s / 60 for one in samples]
    memory.plot(at, [one.rss_mb for one in samples], label="resident")
    memory.plot(at, [one.anonymous_mb for one in samples], label="of it anonymous")
    memory.set(ylim=(0, None), ylabel="MB", title=title)
    memory.legend()
    lag.plot(at, [one.lag_records / 1e6 for one in samples], color="C2")
    lag.set(ylim=(0, None), ylabel="lag, million records", xlabel="minutes")
    figure.savefig(RESULTS / f"{name}.png", dpi=90)
