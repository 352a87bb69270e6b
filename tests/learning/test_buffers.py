import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from stream_iwae.learning.buffers import StratifiedBuffer, smallest
from stream_iwae.learning.rows import Rows, Salt, mix

HOUR = 3_600_000


def rows_at(ids):
    """Rows whose end and values follow from their id, as the same window's would."""
    ids = np.asarray(ids, np.uint64)
    n = len(ids)
    return Rows(
        row_ids=ids,
        entity_ids=ids % np.uint64(5),
        window_end_ms=(ids % np.uint64(97)).astype(np.int64) * (HOUR // 4),
        values=ids.astype(np.float64)[:, None],
        scores=np.zeros(n),
        p_values=np.ones(n),
        in_incident=np.zeros(n, np.bool_),
        was_judged=np.zeros(n, np.bool_),
    )


def content(buffer):
    rows = buffer.rows()
    return rows.row_ids.tolist(), rows.values.tolist()


@given(st.data(), st.lists(st.integers(0, 2_000), max_size=200), st.integers(4, 60), st.integers(1, 30))
def test_order_batches_and_repetition_change_no_content(data, ids, capacity, span_hours):
    def filled(order):
        buffer = StratifiedBuffer(capacity, HOUR, span_hours * HOUR, 1)
        at = 0
        while at < len(order):
            size = data.draw(st.integers(1, 50))
            buffer.add(rows_at(order[at : at + size]))
            if data.draw(st.booleans()):
                buffer.rows()  # looking changes nothing either
            at += size
        return buffer

    once = filled(ids)
    again = filled(data.draw(st.permutations(ids)) + ids)

    assert content(once) == content(again)
    assert len(once) <= capacity


def test_a_buffer_is_that_of_a_plain_loop():
    ids = np.random.default_rng(1).permutation(5_000).astype(np.uint64)
    buffer = StratifiedBuffer(240, HOUR, 6 * HOUR, 1)
    for part in np.array_split(ids, 37):
        buffer.add(rows_at(part))

    hours = {}
    for row_id in ids.tolist():
        hours.setdefault((row_id % 97) // 4, []).append(row_id)
    newest = max(hours)
    expected = []
    for hour in range(newest - 5, newest + 1):
        by_hash = sorted(hours[hour], key=lambda i: int(mix(np.array([i], np.uint64), Salt.PRIORITY)[0]))
        expected += by_hash[: 240 // 6]

    assert buffer.rows().row_ids.tolist() == expected


def test_each_hour_keeps_an_equal_share_even_after_a_flood(make_rows):
    buffer = StratifiedBuffer(100, HOUR, 24 * HOUR, 2)
    buffer.add(make_rows(60, end_ms=np.full(60, HOUR)))
    buffer.add(make_rows(10_000, end_ms=np.full(10_000, 2 * HOUR), first_id=100))

    hours, counts = np.unique(buffer.rows().window_end_ms // HOUR, return_counts=True)

    assert dict(zip(hours.tolist(), counts.tolist(), strict=True)) == {1: 50, 2: 50}


def test_rows_before_the_span_are_forgotten(make_rows):
    buffer = StratifiedBuffer(100, HOUR, 2 * HOUR, 2)
    buffer.add(make_rows(3, end_ms=[0, 9 * HOUR, 10 * HOUR]))
    buffer.add(make_rows(1, end_ms=[HOUR], first_id=50))

    assert buffer.rows().row_ids.tolist() == [1, 2]


def test_the_smallest_rows_of_a_sample_do_not_depend_on_its_order(make_rows):
    rows = make_rows(50)

    forward, backward = smallest(rows, 7), smallest(rows.take(np.arange(50)[::-1]), 7)

    assert forward.row_ids.tolist() == backward.row_ids.tolist()
    assert len(forward) == 7


def test_a_draw_from_a_buffer_takes_as_much_from_a_quiet_hour_as_from_a_busy_one(make_rows):
    buffer = StratifiedBuffer(1_000, HOUR, 24 * HOUR, 2)
    buffer.add(make_rows(500, end_ms=np.full(500, HOUR)))
    buffer.add(make_rows(50_000, end_ms=np.full(50_000, 2 * HOUR), first_id=1_000))

    drawn = smallest(buffer.rows(), 200)

    assert 70 <= np.count_nonzero(drawn.window_end_ms == HOUR) <= 130
