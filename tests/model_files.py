"""Model files with another spec."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path
from typing import Any

from quake.data import spec_file
from quake.data.onnx_metadata import find_metadata, without
from quake.data.spec_file import SPEC_MEMBER, is_torchscript, parse_spec


def with_spec(content: bytes, **update: Any) -> bytes:
    """The same network; what is put into its spec need not be sound."""
    spec = parse_spec(Path("model"), content).model_copy(update=update)
    if is_torchscript(content):
        return with_spec_text(content, spec.model_dump_json())
    return spec_file.with_spec(without(content, find_metadata(content, SPEC_MEMBER)[0]), spec)


def with_spec_text(content: bytes, text: str | None) -> bytes:
    """A TorchScript file with another spec, or with none."""
    result = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(content)) as source, zipfile.ZipFile(result, "w") as target:
        for name in source.namelist():
            if not name.endswith(SPEC_MEMBER):
                target.writestr(name, source.read(name))
            elif text is not None:
                target.writestr(name, text)
    return result.getvalue()
