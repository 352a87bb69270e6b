"""What one client has committed is where the other goes on: `kafka.client` may change under a running group."""

import pytest

from stream_iwae.ports import CommittedOffset

pytestmark = pytest.mark.kafka
N = 48


@pytest.mark.parametrize(("former", "present"), [("kafka", "confluent"), ("confluent", "kafka")])
def test_a_group_goes_on_with_the_other_client(former, present, worlds, assigned):
    events = worlds["kafka"].topic(N)
    source = worlds[former].source(events)
    assigned(source, n=N)
    # Of many lengths: what lies behind an end that is not marked is by chance nothing at times.
    commits = {p: CommittedOffset(0, '{"pos": 0, "fp": "' + "f" * p + '"}') for p in range(N)}

    worlds[former].sink().commit([], commits, events, source.group_token())
    worlds[former].leave(source)

    assert worlds[present].source(events).committed(frozenset(range(N))) == commits
