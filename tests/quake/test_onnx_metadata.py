"""Metadata of ONNX files against the onnx package, and bytes that are no ONNX file."""

from __future__ import annotations

import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, helper

from quake.data.onnx_metadata import NotOnnxError, append_metadata, find_metadata, without

VALUES = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["b", 3])
ADD = helper.make_node("Add", ["x", "x"], ["y"])
GRAPH = helper.make_graph([ADD], "g", [VALUES], [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["b", 3])])


def model(**metadata: str) -> bytes:
    made = helper.make_model(GRAPH, producer_name="quake.json", doc_string="\x72\x02")
    helper.set_model_props(made, metadata)
    content: bytes = made.SerializeToString()
    return content


@given(value=st.binary(max_size=40_000), others=st.dictionaries(st.text(min_size=1), st.text(), max_size=3))
def test_what_is_appended_is_found_by_onnx_and_by_us_and_can_be_taken_away(
    value: bytes, others: dict[str, str]
) -> None:
    others.pop("quake.json", None)
    bare = model(**others)
    content = append_metadata(bare, "quake.json", value)
    (entry,) = find_metadata(content, "quake.json")
    assert entry.value == value
    assert without(content, entry) == bare
    (entry,) = find_metadata(append_metadata(content, "more", b"of it"), "quake.json")
    assert without(append_metadata(content, "more", b"of it"), entry) == append_metadata(bare, "more", b"of it")
    for key, text in others.items():
        assert [found.value for found in find_metadata(content, key)] == [text.encode()]


def test_onnx_reads_what_we_append_and_we_read_what_onnx_writes() -> None:
    read = onnx.load_from_string(append_metadata(model(author="a"), "quake.json", b"\xc3\xa9" * 500))
    assert {pair.key: pair.value for pair in read.metadata_props} == {"author": "a", "quake.json": "é" * 500}
    onnx.checker.check_model(read)
    (entry,) = find_metadata(model(author="a", **{"quake.json": "{}"}), "quake.json")
    assert entry.value == b"{}"
    assert find_metadata(model(), "quake.json") == []


def test_every_cut_is_noticed_or_ends_between_two_fields() -> None:
    content = append_metadata(model(), "quake.json", b"{}")
    found = 0
    for end in range(len(content)):
        try:
            found += len(find_metadata(content[:end], "quake.json"))
        except NotOnnxError:
            continue
    assert found == 0


@given(st.binary(max_size=200))
def test_any_bytes_are_read_or_refused(content: bytes) -> None:
    try:
        entries = find_metadata(content, "quake.json")
    except NotOnnxError:
        return
    assert all(content[entry.start : entry.end].endswith(entry.value) for entry in entries)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "empty"),
        (b"\x08", "a number at byte 1 has no end"),
        (b"\x08" + b"\xff" * 12, "a number at byte 1 has no end"),
        (b"\x3a\x05abc", "a field at byte 0 reaches 2 bytes past the end"),
        (b"\x0b", "wire type 3"),
        (b"\x09abc", "a field at byte 0 reaches 5 bytes past the end"),
    ],
)
def test_what_is_no_protocol_buffer_is_said(content: bytes, message: str) -> None:
    with pytest.raises(NotOnnxError, match=message):
        find_metadata(content, "quake.json")
