import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from stream_iwae.rekey.placement import partition_of, partitions_of


def test_an_entity_goes_where_it_always_went():
    """Another hash would put the entities of a running detector elsewhere."""
    found = [partition_of(entity, 12) for entity in ("192.0.2.1", "2001:db8::1", "a\x1fb", "", "ü")]
    assert found == [11, 6, 7, 0, 1]


@given(st.lists(st.text()), st.integers(1, 64))
def test_many_at_once_go_where_each_goes(entities, n):
    assert partitions_of(entities, n).tolist() == [partition_of(entity, n) for entity in entities]


def test_addresses_spread_evenly():
    counts = np.bincount(partitions_of([f"10.{i >> 8}.{i & 255}.1" for i in range(20_000)], 16))
    assert counts.min() > 0.85 * counts.mean()
    assert counts.max() < 1.15 * counts.mean()
