"""Scenarios are neither trivial nor impossible: cheap rivals see most attacks and spare what is harmless."""

import numpy as np
import polars as pl
import pytest

from stream_iwae.lab.flows import ICMP, TCP, UDP
from stream_iwae.lab.simulate import HOUR_MS, Simulation
from stream_iwae.lab.traffic import MINUTE_MS

BUDGET = 1e-4  # share of ordinary windows


def windows(simulation, part):
    """One row a source and minute, with the features that a per-source detector has."""
    slices = [
        pl.DataFrame(
            {
                "ts": f.ts,
                "src": f.src,
                "dst": f.dst,
                "port": f.dst_port,
                "proto": f.proto,
                "bytes": f.n_bytes,
                "packets": f.packets,
                "duration": f.duration_ms,
            }
        )
        for f in simulation._slices(part)
    ]
    ports, ends = (pl.col(name).value_counts().struct.field("count") for name in ("port", "dst"))
    return (
        pl.concat(slices)
        .group_by("src", minute=pl.col("ts") // MINUTE_MS)
        .agg(
            pl.len().log1p().alias("flows"),
            pl.col("bytes").sum().log1p().alias("bytes"),
            pl.col("packets").sum().log1p().alias("packets"),
            (pl.col("bytes").sum() / pl.col("packets").sum()).log1p().alias("bytes per packet"),
            pl.col("dst").n_unique().log1p().alias("distinct dst"),
            pl.col("port").n_unique().log1p().alias("distinct ports"),
            ports.entropy().alias("port entropy"),
            (ends.max() / pl.len()).alias("top share"),
            *((pl.col("proto") == proto).mean().alias(str(proto)) for proto in (ICMP, TCP, UDP)),
            (pl.col("packets") == 1).mean().alias("one packet"),
            (pl.col("port") == 53).mean().alias("dns"),
            pl.col("bytes").mean().log1p().alias("mean bytes"),
            pl.col("bytes").std(ddof=0).log1p().alias("spread of bytes"),
            pl.col("duration").mean().log1p().alias("mean duration"),
        )
        .sort("minute", "src")
    )


def rivals(ordinary):
    """Two detectors fitted on ordinary windows: principal components, and a mixture of Gaussians."""
    from sklearn.decomposition import PCA
    from sklearn.mixture import GaussianMixture

    sample = ordinary[np.random.default_rng(0).choice(len(ordinary), 15_000, replace=False)]
    components = PCA(8).fit(sample)
    mixture = GaussianMixture(12, reg_covar=0.01, random_state=0, init_params="k-means++").fit(sample)

    def residual(rows):
        return ((rows - components.inverse_transform(components.transform(rows))) ** 2).sum(1)

    return {"components": residual, "mixture": lambda rows: -mixture.score_samples(rows)}


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
def test_cheap_rivals_see_most_attacks_and_spare_what_is_harmless():
    pytest.importorskip("sklearn")
    simulation = Simulation(seed=1, n_hosts=80, history_ms=18 * HOUR_MS)
    history, live = windows(simulation, "history"), windows(simulation, "live")
    values = [frame.drop("src", "minute").to_numpy().astype(float) for frame in (history, live)]
    middle, spread = values[0].mean(0), values[0].std(0) + 0.05
    ordinary, seen = ((rows - middle) / spread for rows in values)
    entity = simulation.network.addresses[live["src"].to_numpy()]
    start_ms = live["minute"].to_numpy() * MINUTE_MS

    anomalous_share = {}
    for score in rivals(ordinary).values():
        is_anomalous = score(seen) > np.quantile(score(ordinary), 1 - BUDGET)
        for truth in simulation.truth():
            is_within = (start_ms < truth.end_ms) & (start_ms + MINUTE_MS > truth.start_ms)
            share = is_anomalous[is_within & np.isin(entity, truth.entities)].mean()
            anomalous_share[truth.kind] = max(anomalous_share.get(truth.kind, 0), share)

    harmless = {truth.kind for truth in simulation.truth() if truth.benign}
    # Silence has no window of its own here: rows are made of flows.
    visible = anomalous_share.keys() - harmless - {"silent_exporter"}
    caught = {kind for kind in visible if anomalous_share[kind] > 0.2}
    assert len(visible) == 7
    assert len(caught) >= 5, anomalous_share
    assert all(anomalous_share[kind] < 0.1 for kind in harmless), anomalous_share
