"""What the command line says when the configuration is wrong: key, value and remedy, and never a traceback."""

import os
import subprocess
import sys

import pytest
import yaml


@pytest.fixture
def run(write_config, topic):
    """Run the service on a changed configuration; returns its exit code and what it wrote."""

    def start(change, events_topic=None):
        path = write_config(events_topic or topic(), "wrong")
        config = yaml.safe_load(path.read_text())
        change(config)
        path.write_text(yaml.safe_dump(config))
        command = [sys.executable, "-m", "stream_iwae", "run", "--no-trainer", "-c", str(path)]
        environment = {**os.environ, "NO_COLOR": "1"}
        done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=60, env=environment)
        told = done.stdout + done.stderr
        assert "Traceback" not in told, told
        return done.returncode, told.strip().splitlines()[-1]

    return start


def test_an_unknown_key_is_named_with_the_one_that_was_meant(run):
    code, told = run(lambda config: config["windows"].update(siez="60s"))
    assert code == 78
    assert told == "error: windows.siez = '60s': unknown key; did you mean 'size'?"


def test_a_wrong_unit_is_named_with_those_there_are(run):
    code, told = run(lambda config: config["windows"].update(size="60 parsecs"))
    assert code == 78
    assert told.startswith("error: windows.size = '60 parsecs': ")
    assert "60s, 5m, 6h or 1d" in told


@pytest.mark.kafka
def test_an_unreachable_broker_is_named_with_what_to_check(run):
    def change(config):
        config["kafka"].update(bootstrap_servers="127.0.0.1:9", connect_timeout="2s")

    code, told = run(change)
    assert code == 75
    assert told.startswith("error: no Kafka broker answers at 127.0.0.1:9; is it running")


@pytest.mark.kafka
def test_a_missing_topic_is_named_with_what_to_do(run):
    code, told = run(lambda _: None, events_topic="no-such-topic")
    assert code == 78
    assert told == "error: kafka.topics.events = 'no-such-topic': there is no such topic; make it, or correct the name"


@pytest.mark.kafka
def test_several_partitions_without_a_word_on_keys_are_refused(run, topic):
    name = topic(partitions=3)
    code, told = run(lambda _: None, events_topic=name)
    assert code == 78
    assert told.startswith(f"error: events.keyed_by_entity = False: topic {name!r} has 3 partitions")
    assert "set it to true" in told
