from pathlib import Path

from stream_iwae.adapters.prometheus import COUNTERS, GAUGES, HISTOGRAMS
from stream_iwae.events.rejections import RejectReason

ROOT = Path(__file__).parents[1]


def test_every_metric_and_every_reason_is_explained():
    text = (ROOT / "docs/operations.md").read_text()

    for name in (*COUNTERS, *GAUGES, *HISTOGRAMS, *RejectReason):
        assert f"| `{name}` |" in text


def test_the_readme_names_only_files_that_exist():
    text = (ROOT / "README.md").read_text()
    for path in ("config.yaml", "deploy/docker/Dockerfile", "deploy/compose/compose.yaml", "deploy/prometheus/rules",
                 "deploy/grafana/dashboards", "deploy/schemas/alert.schema.json", "deploy/examples", "docs/results",
                 "docs/adr", "docs/operations.md", "stream_iwae/pipeline.py"):  # fmt: skip
        assert path in text
        assert (ROOT / path).exists()
