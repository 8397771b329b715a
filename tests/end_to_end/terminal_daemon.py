"""``quake-streamer run`` with a detector that needs no network: terminal_daemon.py ARGUMENTS"""

from __future__ import annotations

import sys
from pathlib import Path

from made_daemon import SPEC, Loud

from quake.artifact import CompiledModel
from streamer.cli import main

if __name__ == "__main__":
    model = CompiledModel(Path("loud"), SPEC, "0" * 64, Loud())
    CompiledModel.load = lambda *_, **__: model  # type: ignore[method-assign]
    sys.exit(main(["run", *sys.argv[1:]]))
