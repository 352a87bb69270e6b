"""Where a poll cuts the stream, and where the service restarts, changes no alert."""

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st

KINDS = "..--uwwmc"


@st.composite
def windows(draw):
    """Minute -> kinds by entity, with gaps long enough to grow stale."""
    minutes = draw(st.lists(st.integers(0, 40), min_size=1, max_size=25, unique=True).map(sorted))
    return [
        (minute * 3, draw(st.dictionaries(st.sampled_from("abc"), st.sampled_from(KINDS), min_size=1)))
        for minute in minutes
    ]


configs = st.fixed_dictionaries(
    {
        "min_windows": st.just(1),
        "quiet_windows": st.integers(1, 3),
        "stale_after": st.sampled_from(["1m", "10m", "1h"]),
        "update_interval": st.sampled_from(["1m", "10m"]),
    }
) | st.just({"min_windows": 2, "of_windows": 3, "stale_after": "20m"})


@settings(max_examples=150)
@given(waves=windows(), config=configs, data=st.data())
def test_cutting_windows_into_batches_and_restarting_changes_nothing(make_driver, row, waves, config, data):
    rows = [[row(kind, minute, entity) for entity, kind in wave.items()] for minute, wave in waves]
    whole = make_driver(**config)
    whole.track(*(one for wave in rows for one in wave))
    whole.expire(300)

    cut = make_driver(**config)
    at = 0
    while at < len(rows):
        upto = data.draw(st.integers(at + 1, len(rows)))
        cut.track(*(one for wave in rows[at:upto] for one in wave))
        reached = waves[upto - 1][0] + 1
        following = waves[upto][0] if upto < len(rows) else 300
        cut.expire(data.draw(st.integers(reached, max(reached, following))))
        if data.draw(st.booleans()):
            stored = msgspec.msgpack.encode(dict(sorted(cut.tracker.state.snapshot().items())))
            restarted = make_driver(**config)
            restarted.tracker.state.restore(msgspec.msgpack.decode(stored))
            restarted.alerts = cut.alerts
            cut = restarted
        at = upto
    cut.expire(300)

    assert cut.alerts == whole.alerts
    assert cut.tracker.state.snapshot() == whole.tracker.state.snapshot()
    assert len({alert.alert_id for alert in whole.alerts}) == len(whole.alerts)


@settings(max_examples=150)
@given(
    events=st.lists(
        st.tuples(st.sampled_from("abc"), st.sampled_from(KINDS), st.integers(0, 5_000_000)), min_size=1, max_size=40
    ),
    data=st.data(),
)
def test_cutting_single_events_that_are_out_of_order_changes_nothing(make_driver, row, events, data):
    rows = [row(kind, 0, entity, offset, time_ms) for offset, (entity, kind, time_ms) in enumerate(events)]
    config = {"quiet_windows": 2, "stale_after": "20m"}
    whole = make_driver(**config)
    whole.track(*rows)

    cut = make_driver(**config)
    at = 0
    while at < len(rows):
        upto = data.draw(st.integers(at + 1, len(rows)))
        cut.track(*rows[at:upto])
        cut.expire(0)
        at = upto

    assert cut.alerts == whole.alerts
    assert cut.tracker.state.snapshot() == whole.tracker.state.snapshot()
    assert len({alert.alert_id for alert in whole.alerts}) == len(whole.alerts)
