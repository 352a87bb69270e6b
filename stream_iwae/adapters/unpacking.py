"""Compressed batch -> its bytes, up to a bound: some kilobytes may unpack to gigabytes."""

import zlib
from typing import Final

import lz4.frame
import snappy
import zstandard
from kafka.errors import CorruptRecordError

LZ4_RATIO: Final = 256  # a byte of a match's length stands for 255
SNAPPY_RATIO: Final = 64  # a copy of 64 bytes takes at least two
_GZIP_FORMAT: Final = 31  # zlib's number for it, with the largest window
_XERIAL_MAGIC: Final = b"\x82SNAPPY\x00"
_XERIAL_HEADER: Final = 16  # with two versions
_ERRORS: Final = (zlib.error, zstandard.ZstdError, snappy.UncompressError, RuntimeError, EOFError, IndexError)


class TooLargeError(Exception):
    """The batch unpacks to more than the bound."""


def unpacked(codec: int, packed: bytes, limit: int) -> bytes:
    """The bytes that were compressed.

    Args:
        codec: Its number in a batch.
        packed: All that follows a batch's header.
        limit: The most bytes they may be; hardly more are held at any moment.

    Raises:
        TooLargeError: They are more than `limit`.
        CorruptRecordError: They are not of the codec, or it is unknown.
    """
    try:
        match codec:
            case 0:
                return packed
            case 1:
                return _gzip(packed, limit)
            case 2:
                return _snappy(packed, limit)
            case 3:
                return _lz4(packed, limit)
            case 4:
                return _zstd(packed, limit)
    except _ERRORS as error:
        raise CorruptRecordError(f"a compressed batch cannot be unpacked: {error}") from error
    raise CorruptRecordError(f"a batch is compressed by the unknown codec {codec}")


def _gzip(packed: bytes, limit: int) -> bytes:
    parts, room = [], limit
    while packed:
        member = zlib.decompressobj(_GZIP_FORMAT)
        part = member.decompress(packed, room + 1)
        if len(part) > room:
            raise TooLargeError
        if not member.eof:
            raise EOFError("its last member is cut short")
        parts.append(part)
        room -= len(part)
        packed = member.unused_data
    return b"".join(parts)


def _snappy(packed: bytes, limit: int) -> bytes:
    """Plain, or in blocks as Java's library writes it; each begins with the length that it unpacks to."""
    if not packed.startswith(_XERIAL_MAGIC):
        return _snappy_block(packed, limit)
    parts, room, at = [], limit, _XERIAL_HEADER
    while at < len(packed):
        size = int.from_bytes(packed[at : at + 4], "big")
        parts.append(_snappy_block(packed[at + 4 : at + 4 + size], room))
        room -= len(parts[-1])
        at += 4 + size
    return b"".join(parts)


def _snappy_block(packed: bytes, limit: int) -> bytes:
    if len(packed) * SNAPPY_RATIO > limit:  # else no need to look
        size = 0
        for place in range(5):
            size |= (packed[place] & 0x7F) << 7 * place
            if packed[place] < 0x80:
                break
        if size > limit:
            raise TooLargeError
    whole: bytes = snappy.uncompress(packed)
    return whole


def _lz4(packed: bytes, limit: int) -> bytes:
    if len(packed) * LZ4_RATIO <= limit:  # in one go, which is twice as fast
        whole: bytes = lz4.frame.decompress(packed)
        return whole
    frame = lz4.frame.LZ4FrameDecompressor()
    found: bytes = frame.decompress(packed, max_length=limit + 1)
    if len(found) > limit:
        raise TooLargeError
    if not frame.eof:
        raise EOFError("its frame is cut short")
    return found


def _zstd(packed: bytes, limit: int) -> bytes:
    with zstandard.ZstdDecompressor().stream_reader(packed, read_across_frames=True) as reader:
        found = reader.read(limit + 1)
    if len(found) > limit:
        raise TooLargeError
    return found
