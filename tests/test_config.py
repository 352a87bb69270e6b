from pathlib import Path

import pytest
import yaml

from stream_iwae.config import Config, json_schema
from stream_iwae.errors import ConfigurationError

ROOT = Path(__file__).parents[1]
SMALLEST = """
kafka: {bootstrap_servers: "127.0.0.1:9092", topics: {events: flows}}
events: {preset: simulated}
features: {preset: flows-per-source}
"""


def parse(**sections):
    return Config.parse(yaml.safe_dump({**yaml.safe_load(SMALLEST), **sections}))


@pytest.mark.parametrize(
    "path", [ROOT / "config.yaml", *sorted((ROOT / "deploy/examples").glob("*.yaml"))], ids=lambda p: p.name
)
def test_every_shipped_configuration_is_good(path):
    assert Config.load(path).detector


@pytest.mark.parametrize("section", ["rekey", "windows", "model", "detection", "incidents", "learning", "http"])
def test_config_yaml_shows_every_key_with_its_default(section):
    shown = yaml.safe_load((ROOT / "config.yaml").read_text())[section]
    shipped, smallest = Config.load(ROOT / "config.yaml"), Config.parse(SMALLEST)

    assert getattr(shipped, section) == getattr(smallest, section)
    fields = (
        getattr(type(getattr(smallest, section)), "model_fields", None)
        or getattr(smallest, section).__dataclass_fields__
    )
    assert set(shown) == set(fields)


def test_the_rekeyed_topic_has_the_name_of_the_detector_unless_it_is_given_one():
    topics = {"events": "flows", "rekeyed": "flows.keyed"}
    assert parse(detector="edge").rekeyed_topic == "edge.rekeyed"
    assert parse(kafka={"bootstrap_servers": "x:1", "topics": topics}).rekeyed_topic == "flows.keyed"


@pytest.mark.parametrize(
    ("sections", "key", "remedy"),
    [
        ({"window": {}}, "window", "did you mean 'windows'?"),
        ({"windows": {"sise": "60s"}}, "windows.sise", "did you mean 'size'?"),
        ({"windows": {"size": "60 parsecs"}}, "windows.size", "need a duration such as 500ms, 60s, 5m, 6h or 1d"),
        ({"windows": {"size": 60}}, "windows.size", "need a duration"),
        ({"windows": {"kind": "hopping"}}, "windows", "advance belongs to hopping windows"),
        ({"model": {"latent": 0}}, "model", "model.latent must be at least 1"),
        ({"events": {"preset": "pmact"}}, "events", "no preset 'pmact'; there are"),
        ({"features": [{"name": "x", "aggregate": "sum", "field": "octets"}]}, "features", "no such event field"),
        ({"kafka": {"topics": {"events": "x"}}}, "kafka.bootstrap_servers", "is required"),
        ({"http": {"port": "${STREAM_IWAE_TEST_UNSET}"}}, "http.port", "STREAM_IWAE_TEST_UNSET is not set"),
    ],
)
def test_a_wrong_configuration_names_key_value_and_remedy(sections, key, remedy):
    with pytest.raises(ConfigurationError) as caught:
        parse(**sections)

    assert str(caught.value).startswith(key)
    assert remedy in str(caught.value)
    assert caught.value.exit_code == 78


def test_the_environment_wins_over_the_file(monkeypatch):
    monkeypatch.setenv("STREAM_IWAE__KAFKA__BOOTSTRAP_SERVERS", "kafka:9092")
    monkeypatch.setenv("STREAM_IWAE__WINDOWS__SIZE", "30s")

    config = parse()

    assert config.kafka.bootstrap_servers == "kafka:9092"
    assert config.windows.size == 30_000


def test_a_password_is_never_shown(monkeypatch):
    kafka = {"bootstrap_servers": "k:1", "topics": {"events": "x"}, "security_protocol": "SASL_SSL"}
    kafka |= {"sasl_mechanism": "PLAIN", "sasl_username": "me", "sasl_password": "hunter2"}
    config = parse(kafka=kafka)

    assert "hunter2" not in repr(config)
    assert "hunter2" not in config.model_dump_json()
    with pytest.raises(ConfigurationError) as caught:
        parse(kafka={**kafka, "sasl_password": ["hunter2"]})
    assert "hunter2" not in str(caught.value)


def test_there_is_a_json_schema_for_editors():
    assert set(json_schema()["properties"]) >= {"kafka", "events", "windows", "model"}
