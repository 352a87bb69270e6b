import contextlib
import gzip
import tracemalloc

import pytest
from hypothesis import given
from hypothesis import strategies as st
from kafka import codec
from kafka.errors import CorruptRecordError

from stream_iwae.adapters.unpacking import TooLargeError, unpacked

PACK = {
    "gzip": (1, codec.gzip_encode),
    "snappy": (2, codec.snappy_encode),
    "plain snappy": (2, lambda data: codec.snappy_encode(data, xerial_compatible=False)),
    "lz4": (3, codec.lz4_encode),
    "zstd": (4, codec.zstd_encode),
}
CODECS = pytest.mark.parametrize("name", PACK)
MIB = 2**20


@CODECS
@given(data=st.binary(max_size=3_000).map(lambda part: part * 40), short=st.integers(1, 2_000))
def test_what_was_packed_comes_back_unless_it_is_larger_than_the_bound(name, data, short):
    number, pack = PACK[name]

    assert unpacked(number, pack(data), len(data)) == data
    if len(data) >= short:
        with pytest.raises(TooLargeError):
            unpacked(number, pack(data), len(data) - short)


@CODECS
def test_a_bomb_is_given_up_before_it_takes_memory(name):
    number, pack = PACK[name]
    bomb = pack(bytes(256 * MIB))
    tracemalloc.start()

    with pytest.raises(TooLargeError):
        unpacked(number, bomb, 8 * MIB)

    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 32 * MIB + len(bomb)


def test_several_members_of_gzip_are_bounded_together():
    packed = gzip.compress(b"a" * 700) + gzip.compress(b"b" * 700)

    assert unpacked(1, packed, 1_400) == b"a" * 700 + b"b" * 700
    with pytest.raises(TooLargeError):
        unpacked(1, packed, 1_399)


@pytest.mark.parametrize("number", [1, 2, 3, 4, 5])
@given(st.binary(min_size=1, max_size=60))
def test_other_bytes_are_corrupt_or_small_and_nothing_else(number, data):
    with contextlib.suppress(CorruptRecordError, TooLargeError):
        assert len(unpacked(number, data, MIB)) <= MIB


@pytest.mark.parametrize("number", [1, 3])
def test_a_batch_that_is_cut_short_is_corrupt(number):
    packed = dict(PACK.values())[number](bytes(range(256)) * 20)

    with pytest.raises(CorruptRecordError):
        unpacked(number, packed[:-20], MIB)
