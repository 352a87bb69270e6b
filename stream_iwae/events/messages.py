"""Message bytes -> typed elements: one object, an array, lines of objects, or any of them in an envelope."""

from collections.abc import Collection, Sequence
from typing import Any, Final

import msgspec

from stream_iwae.events.rejections import RejectReason

_SPACE: Final = b" \t\r\n"


class MessageError(ValueError):
    """A message, or one element of it, that is no event."""

    def __init__(self, reason: RejectReason, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason
        self.detail = detail


class MessageReader:
    """Reads only the wanted keys of each object, as attributes `f0`, `f1`, ... of a struct."""

    def __init__(self, keys: Sequence[str], envelope: str | None, numbers: Collection[str] = ()) -> None:
        """Read `keys`; `numbers` are those of which an ordinary message holds nothing but numbers."""
        attributes = [(f"f{i}", Any, None) for i in range(len(keys))]
        names = {f"f{i}": key for i, key in enumerate(keys)}
        # gc=False: the structs live for one batch and hold no cycles.
        event = msgspec.defstruct("Event", attributes, rename=names, gc=False)
        self._object = msgspec.json.Decoder(event)
        typed = [(f"f{i}", float | None if key in numbers else Any, None) for i, key in enumerate(keys)]
        # Of a message that is a single ordinary object, its numbers as floats; raises for any other.
        self.read_ordinary = msgspec.json.Decoder(
            msgspec.defstruct("OrdinaryEvent", typed, rename=names, gc=False)
        ).decode
        self._array = msgspec.json.Decoder(list[event])  # type: ignore[valid-type]  # made at run time
        self._elements = msgspec.json.Decoder(list[msgspec.Raw])
        self._envelope = msgspec.json.Decoder(dict[str, msgspec.Raw]) if envelope else None
        self._envelope_key = envelope

    def read(self, value: bytes) -> tuple[list[Any], list[MessageError]]:
        """All elements of one message, and what is wrong with the others."""
        try:
            return self._whole(value), []
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
            return self._piecewise(value, error)

    def _whole(self, value: bytes) -> list[Any]:
        if self._envelope is not None:
            inner = self._envelope.decode(value).get(self._envelope_key or "")
            if inner is not None:
                value = bytes(inner)
        first = value.lstrip(_SPACE)[:1]
        return self._array.decode(value) if first == b"[" else [self._object.decode(value)]

    def _piecewise(self, value: bytes, error: Exception) -> tuple[list[Any], list[MessageError]]:
        """One bad element does not lose the others."""
        pieces = self._pieces(value)
        if pieces is None or len(pieces) < 1:
            return [], [_explained(value, error)]
        found: list[Any] = []
        problems: list[MessageError] = []
        for piece in pieces:
            try:
                found += [self._object.decode(piece)] if len(pieces) == 1 else self._whole(piece)
            except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as cause:
                problems.append(_explained(piece, cause))
        return found, problems

    def _pieces(self, value: bytes) -> list[bytes] | None:
        if value.lstrip(_SPACE)[:1] == b"[":
            try:
                return [bytes(raw) for raw in self._elements.decode(value)]
            except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
                return None
        return [line for line in value.split(b"\n") if line.strip(_SPACE)]


def _explained(value: bytes, error: Exception) -> MessageError:
    text = str(error)[:200]
    if isinstance(error, RecursionError):
        return MessageError(RejectReason.TOO_DEEP, "nested too deeply")
    if isinstance(error, msgspec.ValidationError):
        return MessageError(RejectReason.NOT_AN_OBJECT, text)
    return MessageError(RejectReason.INVALID_JSON, f"{text}; {len(value)} bytes")
