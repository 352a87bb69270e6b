"""A member that others have been put in place of, and that learns of it in one way or the other."""

import time

import pytest
from kafka import KafkaAdminClient
from kafka.admin import MemberToRemove

from stream_iwae.adapters.kafka_source import KafkaEventSource

pytestmark = pytest.mark.kafka


@pytest.mark.parametrize("learns", ["from a heartbeat", "from its own request to join"])
def test_what_a_removed_member_gets_back_was_lost_in_between(kafka, make_config, opened, topic, learns):
    config = make_config()
    member = opened(KafkaEventSource(config, topic(), config.group))
    while not member.poll(0.1).assigned:
        pass
    token = member.group_token()
    admin = opened(KafkaAdminClient(bootstrap_servers=kafka.bootstrap_servers))
    admin.remove_group_members(config.group, [MemberToRemove(group_instance_id=config.instance)])
    if learns == "from its own request to join":
        member._consumer._coordinator.request_rejoin()  # as when another member comes or goes just then

    lost, assigned = frozenset(), frozenset()
    deadline_s = time.monotonic() + 30
    while not assigned and time.monotonic() < deadline_s:
        polled = member.poll(0.2)
        lost, assigned = lost | polled.lost, polled.assigned

    assert lost == assigned == {0}
    assert member.group_token() != token
