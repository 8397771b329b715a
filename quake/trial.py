"""A model file on trial: opened in a child process that may crash, hang or fill its memory in this one's place.

torch's reader and compiler are not made for malformed files: a bracket nested deep enough ends the process, and a
network that never answers holds it for ever. The child does what `CompiledModel.load` does, with an end to its time, its
memory, and the size of files it may write. It is no sandbox: a file made to do harm does it here, or later where it is
loaded for good. The content goes through a pipe, so that what was tried is what is loaded.
"""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from threading import Thread

from quake.data.spec import ModelError

TRIAL_S = 60.0
"""On the clock and of processor time; the shipped detector takes a tenth of it, of which importing torch is most."""
MEMORY_BYTES = 4 << 30
"""On top of what the process with its libraries has already, and of ten times the file."""
REFUSED = 3
"""Exit code of a file that `CompiledModel.load` refuses; its reason is what was written."""
MAX_REASON = 2_000
"""Bytes of a reason."""


class Trial:
    """Begins at once, beside whatever the caller has to do meanwhile; `check` waits for it. Ends with the context."""

    def __init__(self, path: Path, content: bytes) -> None:
        self._path, self._end_s = path, time.monotonic() + TRIAL_S
        self._told = tempfile.TemporaryFile()  # noqa: SIM115  closed with the context; a pipe could be filled
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-W", "ignore", "-m", "quake.trial", str(path)],
            stdin=subprocess.PIPE,
            stdout=self._told,
            stderr=subprocess.DEVNULL,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        )
        self._feeder = Thread(target=self._feed, args=(content,), name="trial", daemon=True)
        self._feeder.start()

    def __enter__(self) -> Trial:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.wait()
        self._feeder.join()
        self._told.close()

    def _feed(self, content: bytes) -> None:
        with suppress(OSError), self._process.stdin as pipe:  # type: ignore[union-attr]
            pipe.write(content)

    def check(self) -> None:
        """Raises `ModelError` where the file is not to be loaded."""
        try:
            code = self._process.wait(max(0.0, self._end_s - time.monotonic()))
        except subprocess.TimeoutExpired:
            raise ModelError(f"{self._path}: not opened within {TRIAL_S:g} s on trial") from None
        if code == REFUSED:
            self._told.seek(0)
            reason = self._told.read(MAX_REASON).decode(errors="replace")
            raise ModelError(f"{self._path}: {reason}")
        if code:
            how = signal.Signals(-code).name if code < 0 else f"exit code {code}"
            raise ModelError(f"{self._path}: ended the process that opened it on trial ({how})")


def limit(size: int) -> None:
    """Of this process, from here on; ``size``: of the file."""
    pages = int(Path("/proc/self/statm").read_text("ascii").split()[0]) if sys.platform == "linux" else 0
    memory = pages * resource.getpagesize() + MEMORY_BYTES + 10 * size
    resource.setrlimit(resource.RLIMIT_AS, (memory, memory))
    resource.setrlimit(resource.RLIMIT_CPU, (int(TRIAL_S), int(TRIAL_S)))
    resource.setrlimit(resource.RLIMIT_FSIZE, (MAX_REASON, MAX_REASON))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def main(path: str) -> int:
    """The child: a file's content on standard input, the reason for refusing it on standard output."""
    from quake.artifact import CompiledModel, importer

    content = sys.stdin.buffer.read()
    with tempfile.NamedTemporaryFile() as file:
        file.write(content)
        file.flush()
        importer(Path(path), content, None)  # what the runtime maps is not the file's doing
        limit(len(content))
        try:
            CompiledModel.load(file.name, "cpu", threads=1)
        except ModelError as error:
            reason = str(error).removeprefix(f"{file.name}: ")
            sys.stdout.buffer.write(reason.encode(errors="replace")[:MAX_REASON])
            return REFUSED
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
