"""atheris on one target of `targets.py`:  python tests/fuzz/fuzz.py TARGET [SECONDS] [libFuzzer's options]

Without a target, on all of them one after the other. Ends with a traceback, and the input in build/fuzz, at the first
finding: a wrong error, 10 s for one input, or 2 GB of memory. What it found worth keeping stays in build/fuzz/TARGET.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

SECONDS = 60
FOUND = Path(__file__).resolve().parents[2] / "build" / "fuzz"


def one(name: str, seconds: int, options: list[str]) -> None:
    import atheris

    with atheris.instrument_imports(include=["quake", "streamer", "seedlink_client", "obspy.clients.seedlink"]):
        from targets import TARGETS
    target, corpus = TARGETS[name], FOUND / name
    corpus.mkdir(parents=True, exist_ok=True)
    for number, seed in enumerate(target.seeds()):
        (corpus / f"seed{number}").write_bytes(seed)
    limits = [f"-max_total_time={seconds}", "-timeout=10", "-rss_limit_mb=2048", "-max_len=65536", "-len_control=0"]
    arguments = [
        sys.argv[0],
        *limits,
        f"-artifact_prefix={FOUND}/{name}-",
        "-print_final_stats=1",
        *options,
        str(corpus),
    ]
    atheris.Setup(arguments, target.run)
    atheris.Fuzz()


def every(seconds: int) -> int:
    """Each in a process of its own, for libFuzzer ends its process."""
    from targets import TARGETS

    done = {name: subprocess.run([sys.executable, __file__, name, str(seconds)], check=False) for name in TARGETS}
    failed = [name for name, process in done.items() if process.returncode]
    sys.stdout.write(f"{len(done)} targets, {seconds} s each; findings: {', '.join(failed) or 'none'}\n")
    return 1 if failed else 0


if __name__ == "__main__":
    name, *rest = [*sys.argv[1:], ""]
    if name.isdecimal() or not name:
        sys.exit(every(int(name or SECONDS)))
    one(name, int(rest[0] or SECONDS), [option for option in rest[1:] if option])
