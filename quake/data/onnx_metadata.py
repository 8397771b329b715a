"""An ONNX file's metadata, read and written without ONNX: the top level of its protocol buffer, and no deeper.

A serialised ``ModelProto`` is a row of fields; metadata are fields of number 14, each with a key and a value, and may
stand anywhere in the row (onnx.proto; protobuf.dev/programming-guides/encoding). So an entry can be appended to a file,
and found again and taken away, byte for byte. The graph is stepped over, never parsed.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

METADATA_FIELD = 14
"""``ModelProto.metadata_props``."""
KEY_FIELD, VALUE_FIELD = 1, 2
"""Of ``StringStringEntryProto``."""
VARINT, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5
"""Wire types; 3 and 4 (groups) have not been written for twenty years."""
LONGEST_VARINT = 10
"""Bytes of the largest 64-bit number."""


class NotOnnxError(ValueError):
    """Bytes that are not a row of protocol buffer fields."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One metadata entry: bytes ``start`` to ``end`` of the file."""

    value: bytes
    start: int
    end: int


@dataclass(frozen=True, slots=True)
class _Field:
    number: int
    content: bytes
    """Empty for numbers."""
    start: int
    end: int


def find_metadata(content: bytes, key: str) -> list[Entry]:
    """All entries of that key. NotOnnxError where the bytes are no protocol buffer, or are cut off."""
    fields = (field for field in _fields(content) if field.number == METADATA_FIELD)
    pairs = ((field, {inner.number: inner.content for inner in _fields(field.content)}) for field in fields)
    return [
        Entry(pair.get(VALUE_FIELD, b""), field.start, field.end)
        for field, pair in pairs
        if pair.get(KEY_FIELD) == key.encode()
    ]


def append_metadata(content: bytes, key: str, value: bytes) -> bytes:
    """The file with one more entry, at its end."""
    pair = _bytes_field(KEY_FIELD, key.encode()) + _bytes_field(VALUE_FIELD, value)
    return content + _bytes_field(METADATA_FIELD, pair)


def without(content: bytes, entry: Entry) -> bytes:
    """The file as it was before the entry was appended."""
    return content[: entry.start] + content[entry.end :]


def _fields(content: bytes) -> Iterator[_Field]:
    if not content:
        raise NotOnnxError("empty")
    at = 0
    while at < len(content):
        start = at
        tag, at = _varint(content, at)
        size, at = _size(content, at, tag & 7)
        if at + size > len(content):
            raise NotOnnxError(f"a field at byte {start} reaches {at + size - len(content)} bytes past the end")
        is_metadata = tag & 7 == BYTES and tag >> 3 in {METADATA_FIELD, KEY_FIELD, VALUE_FIELD}
        yield _Field(tag >> 3, content[at : at + size] if is_metadata else b"", start, at + size)
        at += size


def _size(content: bytes, at: int, wire_type: int) -> tuple[int, int]:
    """How many bytes of content follow, and from where."""
    if wire_type == VARINT:
        return 0, _varint(content, at)[1]
    if wire_type == BYTES:
        return _varint(content, at)
    if wire_type in {FIXED32, FIXED64}:
        return (4 if wire_type == FIXED32 else 8), at
    raise NotOnnxError(f"no protocol buffer has wire type {wire_type}, as byte {at} says")


def _varint(content: bytes, at: int) -> tuple[int, int]:
    """Seven bits a byte, lowest first; the last byte's highest bit is clear."""
    value = 0
    for place, byte in enumerate(content[at : at + LONGEST_VARINT]):
        value |= (byte & 127) << (7 * place)
        if byte < 128:
            return value, at + place + 1
    raise NotOnnxError(f"a number at byte {at} has no end")


def _bytes_field(number: int, content: bytes) -> bytes:
    return _encoded(number << 3 | BYTES) + _encoded(len(content)) + content


def _encoded(value: int) -> bytes:
    groups = bytearray()
    while value > 127:
        groups.append(value & 127 | 128)
        value >>= 7
    return bytes([*groups, value])
