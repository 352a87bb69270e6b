import pytest

from stream_iwae.errors import StateError
from stream_iwae.windows.progress import MAX_JUMPS, MAX_METADATA_BYTES, Progress, decode_metadata, encode_metadata

FINGERPRINT = "0123456789abcdef"


def test_metadata_is_read_as_it_was_written():
    progress = Progress(5, 1_000, None, 9, ((7, 900),))

    found = decode_metadata(encode_metadata(progress, 3, FINGERPRINT, 12), 5)

    assert (found.progress, found.seq, found.fingerprint, found.history_until) == (progress, 3, FINGERPRINT, 12)


def test_the_largest_metadata_fits_the_broker():
    largest = 2**63 - 1
    progress = Progress(0, largest, largest, largest, ((largest, largest),) * MAX_JUMPS)

    assert len(encode_metadata(progress, largest, FINGERPRINT, largest, "f" * 32)) <= MAX_METADATA_BYTES


def test_metadata_that_would_kill_the_producer_is_refused():
    progress = Progress(0, 0, 0, 10**6, tuple((n, n) for n in range(1000)))

    with pytest.raises(StateError, match="the broker takes 4095"):
        encode_metadata(progress, 1, FINGERPRINT, None)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "not ours"),
        ("consumed by hand", "not ours"),
        ('{"v":1}', "not ours"),
        ('{"v":1,"wm":"x","wm0":1,"pos":9,"seq":1,"fp":"0"}', "not ours"),
        ('{"v":2,"wm":1,"wm0":1,"pos":9,"seq":1,"fp":"0"}', "has version 2, this service reads 1"),
        ('{"v":1,"wm":1,"wm0":1,"pos":3,"seq":1,"fp":"0"}', "offset 5 lies beyond its own position 3"),
    ],
)
def test_foreign_or_damaged_metadata_is_told_apart(text, reason):
    with pytest.raises(StateError, match=reason):
        decode_metadata(text, 5)
