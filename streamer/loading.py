"""A model file for a program that watches: what is wrong with it is a fault of the configuration."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Literal

from quake.versions import ZOO
from streamer.config import ConfigError

if TYPE_CHECKING:
    from quake.artifact import CompiledModel


def shipped(name: str) -> Path:
    """The model installed beside the program; where an export of it lies there too, as in images without torch, that one."""
    exported = (ZOO / name).with_suffix(".onnx")
    return exported if exported.exists() else ZOO / name


def load_compiled(
    table: str,
    path: Path,
    device: Literal["auto", "cpu", "cuda"] = "cpu",
    *,
    sha256: str | None,
    threads: int,
    trial: bool,
) -> CompiledModel:
    """``table``: of the configuration, for messages. ``trial``: open it in a limited child first. Raises `ConfigError`."""
    from quake.artifact import CompiledModel, ModelError

    try:
        return CompiledModel.load(path, device, sha256=sha256, threads=threads, trial=trial)
    except ImportError as error:
        extra = "onnx" if error.name == "onnxruntime" else "torch"
        raise ConfigError(f"{table}: {error.name} is not installed: pip install 'quake[{extra}]'") from error
    except (ModelError, ValueError) as error:
        raise ConfigError(f"{table}: {error}") from error
