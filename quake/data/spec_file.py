"""The spec in a model file: read, checked, and put into one.

In a TorchScript file it is the zip member ``extra/quake.json``, in an ONNX file the metadata of the same name. Reading
one needs neither torch nor ONNX Runtime.
"""

from __future__ import annotations

import io
import json
import lzma
import math
import struct
import zipfile
import zlib
from pathlib import Path

from pydantic import ValidationError

from quake.data.onnx_metadata import NotOnnxError, append_metadata, find_metadata
from quake.data.spec import MAX_SAMPLES, ModelError, ModelSpec

SPEC_VERSION = 1
SPEC_MEMBER = "quake.json"
ZIP_SIGNATURE = b"PK\x03\x04"
MAX_SPEC_BYTES = 1 << 20
"""A spec is some kilobytes: what claims more is not one."""
MAX_MEMBERS = 100_000
"""Files in a zip: a network has one for each weight and module."""
MAX_GROWTH, MAX_UNPACKED_CODE = 2, 1 << 26
"""Weights are stored as they are and only code is packed: what unpacks to more than so many times the file and 64 MiB is
no network, but meant to fill memory."""
MAX_TOLD = 10
"""Faults of a spec that an error names: a file of nonsense has thousands."""


ZIP_ERRORS = (
    *(zipfile.BadZipFile, zlib.error, lzma.LZMAError, struct.error),
    *(EOFError, OSError, ValueError, IndexError, RuntimeError),  # NotImplementedError is a RuntimeError
)
"""What Python's reader raises on bytes that are no zip."""


def read_spec(path: str | Path) -> ModelSpec:
    """The spec of a model file, read as a zip member: no torch. ModelError where there is none that is understood."""
    return parse_spec(Path(path), read_content(Path(path)))


def read_content(path: Path) -> bytes:
    """ModelError where the file cannot be read."""
    try:
        return path.read_bytes()
    except OSError as error:
        raise ModelError(f"{path}: cannot be read: {error.strerror}") from error


def parse_spec(path: Path, content: bytes) -> ModelSpec:
    """The spec in a model file's content; ``path`` is what errors name. ModelError where it is none that is known."""
    try:
        raw = json.loads(_spec_bytes(path, content))
    except (ValueError, RecursionError) as error:
        raise ModelError(f"{path}: its spec is not JSON: {error}") from error
    version = raw.get("spec_version") if isinstance(raw, dict) else None
    if version != SPEC_VERSION:
        raise ModelError(f"{path}: spec version {version!r} is not known (this program reads {SPEC_VERSION})")
    try:
        spec = ModelSpec.model_validate_json(json.dumps(raw))
        pixels = math.prod(spec.input_shape)  # ValueError: a window shorter than a frame, a taper that nobody knows
    except ValidationError as error:
        told = error.errors()[:MAX_TOLD]
        reasons = "; ".join(f"{'.'.join(map(str, e['loc'])) or 'spec'}: {e['msg']}" for e in told)
        raise ModelError(f"{path}: its spec is wrong: {reasons}") from error
    except (ValueError, TypeError, RecursionError) as error:  # TypeError: a taper that needs an argument
        raise ModelError(f"{path}: its spec is wrong: {error}") from error
    if pixels > MAX_SAMPLES:
        raise ModelError(f"{path}: its spec is wrong: a window makes {pixels} pixels; {MAX_SAMPLES} are the most")
    return spec


def with_spec(bare: bytes, spec: ModelSpec) -> bytes:
    """An ONNX file that states no spec yet, with one."""
    return append_metadata(bare, SPEC_MEMBER, spec.model_dump_json(indent=2).encode())


def is_torchscript(content: bytes) -> bool:
    """By its first bytes: a TorchScript file is a zip, an ONNX file is not."""
    return content.startswith(ZIP_SIGNATURE)


def _spec_bytes(path: Path, content: bytes) -> bytes:
    return _zipped_spec(path, content) if is_torchscript(content) else _onnx_spec(path, content)


def _zipped_spec(path: Path, content: bytes) -> bytes:
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            _refuse_bomb(path, archive, len(content))
            broken = archive.testzip()
            members = [item for item in archive.infolist() if item.filename.endswith(f"/extra/{SPEC_MEMBER}")]
            if broken is None and len(members) == 1 and members[0].file_size <= MAX_SPEC_BYTES:
                return archive.read(members[0])
    except ZIP_ERRORS as error:
        raise ModelError(f"{path}: not a TorchScript file, or truncated ({len(content)} bytes): {error}") from error
    if broken is not None:
        raise ModelError(f"{path}: damaged: {broken} does not match its checksum")
    raise ModelError(f"{path}: has no spec (one member extra/{SPEC_MEMBER} was expected, {len(members)} usable found)")


def _refuse_bomb(path: Path, archive: zipfile.ZipFile, size: int) -> None:
    """Before anything is unpacked, from what the directory claims; more than it claims is never unpacked."""
    members = archive.infolist()
    unpacked = sum(member.file_size for member in members)
    if len(members) > MAX_MEMBERS or unpacked > MAX_GROWTH * size + MAX_UNPACKED_CODE:
        raise ModelError(f"{path}: not a TorchScript file: {len(members)} members of {unpacked} bytes in {size}")


def _onnx_spec(path: Path, content: bytes) -> bytes:
    try:
        found = find_metadata(content, SPEC_MEMBER)
    except NotOnnxError as error:
        message = f"{path}: neither a TorchScript nor an ONNX file, or truncated ({len(content)} bytes): {error}"
        raise ModelError(message) from error
    if len(found) != 1 or len(found[0].value) > MAX_SPEC_BYTES:
        raise ModelError(f"{path}: has no spec (one metadata entry {SPEC_MEMBER} was expected, {len(found)} found)")
    return found[0].value
