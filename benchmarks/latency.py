"""From packet to alert: how long the alert of a window takes after the packet that completed it was written by the server.

    python benchmarks/latency.py [--minutes 12]

One station with three components plays at real speed through the real server, daemon, Valkey and subscriber. One daemon has thresholds
so low that nearly every second window opens or closes a detection: some hundreds of alerts, all with the same way to go. A second one
beside it has the shipped thresholds and tells how long after an earthquake's onset its alert came. Prints a table; judges nothing.
"""

from __future__ import annotations

import argparse
import platform
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path

import numpy as np
import obspy

from quake.alerts import Alert, AlertSubscriber, Keys, Kind, Mode, Status
from quake.times import NS
from streamer.demo import Daemon, recordings, redis_server
from streamer.grid import sample_number
from streamer.resample import resampler
from streamer.server import Record, ReplayServer, Sent
from streamer.server.records import pack

MODEL_HZ = 100
RESAMPLER = resampler(Fraction(2))
"""The station has 50 Hz, the model 100."""
EAGER = "[trigger]\non = 1e-6\noff = 1e-6\nin_a_row = 1\nrelease = 1\ndead_s = 1.0\nlongest_s = 1.0\n"
CONFIGURATION = """\
mode = "replay"
state = "{name}"
daemon = "{name}"
[[source]]
servers = ["{seedlink}"]
select = ["BW.UH3"]
[redis]
url = "{redis}"
prefix = "{{quake}}:{name}"
[metrics]
port = 0
{extra}
"""


@dataclass
class Sending:
    """When each packet was written."""

    packets: list[Sent] = field(default_factory=list)

    def completed_ns(self, end_ns: int) -> int | None:
        """When the last of the samples had been written that a window which ends at ``end_ns`` needs of each component."""
        last = RESAMPLER.needs(end_ns * MODEL_HZ // NS - 1, 1)[1] - 1  # the resampling filter looks a little ahead
        times: dict[str, int] = {}
        for sent in self.packets:
            number, _ = sample_number(sent.record.start_ns, sent.record.rate)
            if number + sent.record.samples > last:
                times.setdefault(sent.record.channel, sent.sent_ns)
        return max(times.values()) if len(times) == 3 else None


@dataclass
class Heard:
    alerts: list[tuple[Alert, int]] = field(default_factory=list)


def recording(copies: int, fill: float) -> list[Record]:
    records: list[Record] = []
    for file in recordings():
        if ".UH3." not in f".{file.name.split('.')[1]}.":
            continue
        for copy in range(copies):
            trace = obspy.read(str(file))[0]
            trace.stats.starttime += copy * trace.stats.npts / trace.stats.sampling_rate  # one follows the other
            records += pack(trace, fill)
    return sorted(records, key=lambda r: (r.end_ns, r.stream_id, r.start_ns))


@contextmanager
def daemon(folder: Path, name: str, seedlink: str, redis: str, extra: str) -> Iterator[Heard]:
    config = folder / f"{name}.toml"
    config.write_text(CONFIGURATION.format(name=name, seedlink=seedlink, redis=redis, extra=extra))
    heard = Heard()
    keys = Keys.of(Mode.REPLAY, f"{{quake}}:{name}")
    with AlertSubscriber(redis, keys=keys, kinds=(Kind.DETECTION,), last_id="0", heartbeat_s=None) as subscriber:

        def listen() -> None:
            for alert in subscriber:
                heard.alerts.append((alert, time.time_ns()))

        thread = threading.Thread(target=listen)
        with Daemon(config, folder / f"{name}.log") as running:
            thread.start()
            yield heard
            running.stop()
        subscriber.stop()
        thread.join()


def row(name: str, seconds: Sequence[float], unit: str = "ms") -> str:
    if not seconds:
        return f"| {name} | none | | | |"
    scale = 1000 if unit == "ms" else 1
    low, middle, high, most = (scale * float(q) for q in np.quantile(seconds, [0.0, 0.5, 0.99, 1.0]))
    return f"| {name} ({len(seconds)}) | {low:.1f} | {middle:.1f} | {high:.1f} | {most:.1f} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=12.0)
    parser.add_argument("--fill", type=float, default=0.25, help="how full the 512-byte records are")
    arguments = parser.parse_args()
    sending = Sending()
    records = recording(max(1, round(arguments.minutes / 3.8)), arguments.fill)  # the recording lasts 3.8 minutes
    span_s = (records[-1].end_ns - records[0].start_ns) / NS
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        url = stack.enter_context(redis_server())
        server = stack.enter_context(ReplayServer(records, speed=1.0, wait_clients=2, on_sent=sending.packets.append))
        eager = stack.enter_context(daemon(folder, "eager", server.address, url, EAGER))
        shipped = stack.enter_context(daemon(folder, "shipped", server.address, url, ""))
        server.wait_sent(span_s + 120)
        time.sleep(2.0)  # what the last packets led to
    report(sending, eager, shipped, arguments.fill)


def report(sending: Sending, eager: Heard, shipped: Heard, fill: float) -> None:
    packet_to_alert = [
        (at_ns - done_ns) / NS
        for alert, at_ns in eager.alerts
        if (done_ns := sending.completed_ns(alert.off_time or alert.on_time)) is not None
    ]
    first = sending.packets[0]
    offset_ns = (
        first.sent_ns - first.record.end_ns
    )  # data time to this machine's clock: the pace is the recording's own
    onset_to_alert = [(at - offset_ns - a.onset) / NS for a, at in shipped.alerts if a.status is Status.OPEN]
    print(
        f"{platform.processor() or platform.machine()}, records {fill:g} full, one station, three components at 50 Hz, hop 1 s\n"
    )
    print("| | least | median | 99th percentile | most |\n|---|---|---|---|---|")
    print(row("deciding packet written to alert read, ms", packet_to_alert))
    print(row("onset to alert read, shipped thresholds, s", onset_to_alert, "s"))


if __name__ == "__main__":
    main()
