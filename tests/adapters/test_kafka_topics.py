"""Our topics are made as they must be, and one that would lose data is refused."""

import secrets
from concurrent.futures import ThreadPoolExecutor

import pytest

from stream_iwae.adapters.kafka_topics import check_keying, ensure_rekeyed_topic, ensure_topics
from stream_iwae.errors import ConfigurationError
from stream_iwae.rekey.config import RekeyConfig


@pytest.fixture
def names():
    run = secrets.token_hex(4)
    kinds = ("events", "alerts", "dead_letters", "state", "training", "models", "scores")
    return {kind: f"{kind}-{run}" for kind in kinds}


@pytest.fixture
def described(kafka_admin):
    """(number of partitions, settings that are not the broker's own) of a topic."""
    from kafka.admin import ConfigResource

    def run(name):
        (topic,) = kafka_admin.describe_topics([name])
        settings = kafka_admin.describe_configs([ConfigResource("TOPIC", name)], config_filter="all")["topic"][name]
        return len(topic["partitions"]), {key: setting["value"] for key, setting in settings.items()}

    return run


@pytest.mark.kafka
def test_missing_topics_are_made_and_the_input_is_not(make_config, names, described, kafka_admin):
    config = make_config(topics=names)

    ensure_topics(config, 3)
    ensure_topics(config, 3)  # a second replica finds them

    assert names["events"] not in kafka_admin.list_topics()
    partitions = {kind: described(name)[0] for kind, name in names.items() if kind != "events"}
    assert partitions == {"alerts": 3, "dead_letters": 1, "state": 3, "training": 1, "models": 1, "scores": 3}
    policies = {kind: described(name)[1]["cleanup.policy"] for kind, name in names.items() if kind != "events"}
    assert {kind for kind, policy in policies.items() if policy == "compact"} == {"state", "models"}
    assert described(names["alerts"])[1]["retention.ms"] == str(30 * 86_400_000)
    assert described(names["training"])[1]["retention.bytes"] == str(4 * 1024**3)


@pytest.mark.kafka
@pytest.mark.parametrize(
    ("kind", "partitions", "policy", "reason"),
    [
        ("state", 2, "compact", "has 2 partitions and needs 3"),
        ("training", 2, "delete", "has 2 partitions and needs 1"),
        ("models", 2, "compact", "has 2 partitions and needs 1"),
        ("state", 3, "delete", "cleanup.policy=delete, which would lose data"),
        ("models", 1, "delete", "cleanup.policy=delete, which would lose data"),
        ("alerts", 3, "compact", "cleanup.policy=compact, which would lose data"),
    ],
)
def test_a_topic_that_does_not_fit_is_refused_by_its_key(
    make_config, names, kafka_admin, kind, partitions, policy, reason
):
    wanted = {"num_partitions": partitions, "configs": {"cleanup.policy": policy}}
    kafka_admin.create_topics({names[kind]: wanted}, wait_for_metadata=True)

    with pytest.raises(ConfigurationError, match=reason) as caught:
        ensure_topics(make_config(topics=names), 3)

    assert (caught.value.key, caught.value.value) == (f"kafka.topics.{kind}", names[kind])


@pytest.mark.kafka
def test_alerts_may_have_any_number_of_partitions(make_config, names, kafka_admin):
    kafka_admin.create_topics({names["alerts"]: {"num_partitions": 5}}, wait_for_metadata=True)

    ensure_topics(make_config(topics=names), 3)


def test_several_partitions_need_to_be_keyed_by_entity():
    check_keying("flows", 1, is_keyed=False)
    check_keying("flows", 4, is_keyed=True)

    with pytest.raises(ConfigurationError, match=r"has 4 partitions.*set events\.rekey") as caught:
        check_keying("flows", 4, is_keyed=False)
    assert caught.value.key == "events.keyed_by_entity"


@pytest.mark.kafka
def test_replicas_that_start_at_once_make_the_topics_together(make_config, names, topic):
    config = make_config(topics={**names, "events": topic(partitions=3)})
    rekeyed = f"rekeyed-{secrets.token_hex(4)}"

    def start(_):
        n = ensure_rekeyed_topic(config, RekeyConfig(partitions=3), rekeyed)
        ensure_topics(config, n)
        return n

    with ThreadPoolExecutor(6) as replicas:
        assert list(replicas.map(start, range(6))) == [3] * 6


@pytest.mark.kafka
def test_the_rekeyed_topic_has_as_many_partitions_as_the_events_unless_told_otherwise(make_config, topic, described):
    config, run = make_config(topics={"events": topic(partitions=4)}), secrets.token_hex(4)

    assert ensure_rekeyed_topic(config, RekeyConfig(), f"four-{run}") == 4
    assert ensure_rekeyed_topic(config, RekeyConfig(partitions=6, retention="2h"), f"six-{run}") == 6
    assert ensure_rekeyed_topic(config, RekeyConfig(), f"six-{run}") == 6  # entities stay where they are

    assert described(f"four-{run}")[1]["retention.ms"] == str(86_400_000)
    assert described(f"six-{run}")[1]["retention.ms"] == str(7_200_000)
    assert described(f"six-{run}")[1]["cleanup.policy"] == "delete"


@pytest.mark.kafka
@pytest.mark.parametrize(
    ("partitions", "policy", "reason"), [(3, "delete", "has 3 partitions and needs 2"), (2, "compact", "lose data")]
)
def test_a_rekeyed_topic_that_does_not_fit_is_refused(make_config, topic, partitions, policy, reason):
    config = make_config(topics={"events": topic(partitions=2)})
    name = topic(partitions=partitions, config={"cleanup.policy": policy})
    with pytest.raises(ConfigurationError, match=reason) as refused:
        ensure_rekeyed_topic(config, RekeyConfig(partitions=2), name)
    assert refused.value.key == "kafka.topics.rekeyed"


@pytest.mark.kafka
def test_nothing_is_rekeyed_where_there_are_no_events_or_no_such_name(make_config):
    config = make_config(topics={"events": f"none-{secrets.token_hex(4)}"})
    with pytest.raises(ConfigurationError, match="there is no such topic"):
        ensure_rekeyed_topic(config, RekeyConfig(), "rekeyed")
    with pytest.raises(ConfigurationError, match="no name that a topic may have"):
        ensure_rekeyed_topic(config, RekeyConfig(), "my detector.rekeyed")
