from pathlib import Path

from stream_iwae.adapters.kafka_config import KafkaConfig
from stream_iwae.adapters.kafka_permissions import rekeyer_permissions, service_permissions, trainer_permissions
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


def test_the_rights_that_are_documented_are_those_that_are_checked():
    """tests/security shows that these are enough, and that each is needed."""
    names = ("events", "alerts", "dead_letters", "state", "training", "models", "scores")
    settings = {"bootstrap_servers": "x:1", "group": "GROUP", "instance": "INSTANCE", "topics": {n: n for n in names}}
    config = KafkaConfig.model_validate(settings)
    processes = {
        "the service": service_permissions(config),
        "the trainer": trainer_permissions(config),
        "the re-keyer": rekeyer_permissions(config, "rekeyed"),
    }
    expected = [
        f"| {p.operation} | {p.resource} | `{p.name}` | {who} |" for who, wanted in processes.items() for p in wanted
    ]

    lines = (ROOT / "docs/operations.md").read_text().splitlines()
    begin = lines.index("| operation | resource | name | for |") + 2
    assert lines[begin : begin + len(expected) + 1] == [*expected, ""]
