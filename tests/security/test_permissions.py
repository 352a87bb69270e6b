"""The least that the brokers have to allow: it is enough, nothing of it may be missing, and what is missing is named."""

import time

import pytest
from kafka import KafkaProducer

from stream_iwae.adapters.clock import SystemClock
from stream_iwae.adapters.kafka_choice import open_sink, open_source
from stream_iwae.adapters.kafka_permissions import check_permissions, service_permissions, trainer_permissions
from stream_iwae.adapters.kafka_state import KafkaStateReader
from stream_iwae.adapters.kafka_topics import ensure_topics
from stream_iwae.adapters.model_store import KafkaModelStore
from stream_iwae.errors import ConfigurationError
from stream_iwae.ports import CommittedOffset, OutputRecord

pytestmark = pytest.mark.kafka

CLIENTS = pytest.mark.parametrize("client", ["kafka-python", "confluent"])
WAYS = pytest.mark.parametrize("way", ["scram", "mutual-tls"])
N_SERVICE, N_TRAINER = 10, 5  # entries of each list


@pytest.fixture
def prepared(secured, administrator):
    """Make the topics of a configuration as somebody who may; one event is there."""

    def run(config):
        open_to_all = config.model_copy(update={"bootstrap_servers": secured.plain, "security_protocol": "PLAINTEXT"})
        administrator.create_topics({config.topics.events: {"num_partitions": 1}}, wait_for_metadata=True)
        ensure_topics(open_to_all, 1)
        producer = KafkaProducer(bootstrap_servers=secured.plain)
        producer.send(config.topics.events, b"{}").get(timeout=10)
        producer.close()
        return config

    return run


def work_as_service(config):
    """All that a service asks of a broker, once."""
    check_permissions(config, service_permissions(config))
    source = open_source(config, config.topics.events, config.group)
    try:
        ensure_topics(config, source.n_partitions())
        topics = config.topics
        sink = open_sink(config, f"{config.group}-{config.instance}")
        try:
            polled = source.poll(0.1)
            for _ in range(100):
                if polled.assigned:
                    break
                polled = source.poll(0.1)
            assert polled.assigned == {0}
            assert source.committed(frozenset({0})) == {0: None}
            source.seek(0, source.beginning_offsets(frozenset({0}))[0])
            source.resume(frozenset({0}))
            records = ()
            for _ in range(100):
                records = records or source.poll(0.1).records
            assert records[0].values == [b"{}"] or tuple(records[0].values) == (b"{}",)
            written = [topics.alerts, topics.dead_letters, topics.state, topics.training, topics.scores]
            outputs = [OutputRecord(topic, b"k", b"v", 0) for topic in written]
            sink.commit(outputs, {0: CommittedOffset(1, "{}")}, source.topic, source.group_token())
        finally:
            sink.close()
        state, models = KafkaStateReader(config), KafkaModelStore(config, SystemClock())
        assert state.read(0) == [(b"k", b"v")]
        assert models.versions() == []
        state.close()
        models.close()
    finally:
        source.close()


def work_as_trainer(config):
    """All that a trainer asks of a broker, once."""
    check_permissions(config, trainer_permissions(config))
    source = open_source(config, config.topics.training, f"{config.group}-trainer")
    try:
        for _ in range(100):
            if source.poll(0.1).assigned:
                break
        store = KafkaModelStore(config, SystemClock(), open_sink(config, f"{config.group}-{config.instance}-trainer"))
        store.publish("1.0", b"blob", 0)
        deadline_s = time.monotonic() + 10
        while not store.versions() and time.monotonic() < deadline_s:  # the broker ends a transaction after its answer
            continue
        assert store.versions() == ["1.0"]
        store.close()
    finally:
        source.close()


@WAYS
@CLIENTS
def test_exactly_these_permissions_are_enough(secure_config, prepared, rights, client, way):
    config = prepared(secure_config(way, client=client))
    rights.set(service_permissions(config))
    work_as_service(config)

    rights.set(trainer_permissions(config))
    work_as_trainer(config)


@CLIENTS
@pytest.mark.parametrize("number", range(N_SERVICE))
def test_each_one_that_the_service_lacks_is_named(secure_config, prepared, rights, client, number):
    config = prepared(secure_config(client=client))
    wanted = list(service_permissions(config))
    assert len(wanted) == N_SERVICE
    missing = wanted.pop(number)
    rights.set(wanted)

    with pytest.raises(ConfigurationError) as told:
        work_as_service(config)

    assert told.value.key == missing.key
    assert f"{missing.operation} on {missing.resource} {missing.name} to User:svc" in told.value.remedy
    assert told.value.exit_code == 78


@CLIENTS
@pytest.mark.parametrize("number", range(N_TRAINER))
def test_each_one_that_the_trainer_lacks_is_named(secure_config, prepared, rights, client, number):
    config = prepared(secure_config(client=client))
    wanted = list(trainer_permissions(config))
    assert len(wanted) == N_TRAINER
    missing = wanted.pop(number)
    rights.set(wanted)

    with pytest.raises(ConfigurationError) as told:
        work_as_trainer(config)

    assert f"{missing.operation} on {missing.resource} {missing.name} to User:svc" in told.value.remedy


def test_several_that_are_missing_are_named_together(secure_config, prepared, rights):
    config = prepared(secure_config())
    rights.set([])

    with pytest.raises(ConfigurationError) as told:
        check_permissions(config, service_permissions(config))

    for permission in service_permissions(config)[:-1]:  # a transactional id cannot be asked about
        assert str(permission) in told.value.remedy


@CLIENTS
def test_a_topic_that_cannot_be_made_says_what_would_allow_it(secure_config, rights, administrator, client):
    config = secure_config(client=client)
    administrator.create_topics({config.topics.events: {"num_partitions": 1}}, wait_for_metadata=True)
    rights.set(service_permissions(config))

    with pytest.raises(ConfigurationError, match=f"CREATE on TOPIC {config.topics.alerts} to User:svc"):
        ensure_topics(config, 1)


@CLIENTS
def test_what_is_taken_away_from_a_running_service_is_named(secure_config, prepared, rights, client):
    config = prepared(secure_config(client=client))
    wanted = service_permissions(config)
    rights.set(wanted)
    sink = open_sink(config, f"{config.group}-{config.instance}")
    try:

        def commit(times):
            for _ in range(times):
                sink.commit([OutputRecord(config.topics.alerts, None, b"v", 0)], {}, "", None)

        commit(1)
        rights.set([one for one in wanted if one.name != config.topics.alerts])
        with pytest.raises(ConfigurationError, match=f"WRITE on TOPIC {config.topics.alerts}"):
            commit(20)  # the broker applies it a moment later
    finally:
        sink.close()
