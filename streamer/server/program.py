"""``quake-streamer replay FILES...``: options to a server, the address to standard output, exit codes.

Exit code 0: ended by itself or by a signal; 1: could not listen; 2: wrong usage, or a file that cannot be read. The
parser and ``quake-streamer`` itself belong to streamer/cli.py.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import signal
import sys
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

from .client import Sent
from .faults import Faults
from .records import Record, read
from .ring import SEQUENCES, Numbering
from .server import CAPACITY, MAX_CLIENTS, Options, Server

STANDARD_PORT = 18000


def configure(parser: argparse.ArgumentParser) -> None:
    """Add this program's arguments."""
    parser.add_argument("files", nargs="+", metavar="FILE", help="anything ObsPy reads")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (%(default)s)")
    parser.add_argument("--port", type=int, default=STANDARD_PORT, help="0: one that is free (%(default)s)")
    parser.add_argument("--fill", type=float, default=1.0, help="how full records are, over 0 to 1 (%(default)s)")
    _configure_pace(parser.add_argument_group("pace"))
    _configure_ring(parser.add_argument_group("ring"))
    _configure_faults(parser.add_argument_group("faults"))


def _configure_pace(group: argparse._ArgumentGroup) -> None:
    group.add_argument("--speed", type=float, default=1.0, help="seconds of data a second; 0: as fast as clients read")
    group.add_argument("--wait-clients", type=int, default=1, help="begin when so many asked for data; 0: at once")
    group.add_argument("--linger", type=float, metavar="S", help="end so long after the last packet (default: never)")
    group.add_argument("--exit-at-end", action="store_true", help="the same as --linger 0")
    group.add_argument("--log-sent", type=Path, metavar="FILE", help="append a JSON line for each packet written")


def _configure_ring(group: argparse._ArgumentGroup) -> None:
    group.add_argument("--capacity", type=int, default=CAPACITY, help="packets held (%(default)s)")
    group.add_argument("--begin", type=_hexadecimal, default=1, metavar="HEX", help="first sequence number (1)")
    group.add_argument(
        "--numbering",
        type=Numbering,
        choices=list(Numbering),
        default=Numbering.STATION,
        help="numbers of each station (as SeisComP) or of the whole server (as ringserver)",
    )
    group.add_argument("--max-clients", type=int, default=MAX_CLIENTS, help="connections at a time (%(default)s)")


def _configure_faults(group: argparse._ArgumentGroup) -> None:
    group.add_argument("--seed", type=int, default=1, help="of all chance below (%(default)s)")
    for name, what in (("drop", "never come"), ("duplicate", "come twice"), ("corrupt", "have damaged samples")):
        group.add_argument(f"--{name}", type=float, default=0.0, metavar="SHARE", help=f"share of records that {what}")
    group.add_argument("--shuffle-s", type=float, default=0.0, metavar="S", help="records come up to so much later")
    group.add_argument("--delay-s", type=float, default=0.0, metavar="S", help="records come so much later")
    group.add_argument(
        "--delay-station", action="append", metavar="NET_STA", help="only those of this station (repeat)"
    )
    for name, what in (("stall", "goes silent"), ("close", "is closed"), ("truncate", "is cut within a packet")):
        group.add_argument(f"--{name}-after", type=int, metavar="N", help=f"a connection {what} after N packets")
    group.add_argument("--times", type=int, default=1, help="on how many connections; 0: all (%(default)s)")
    group.add_argument("--refuse-s", type=float, default=0.0, metavar="S", help="then let nobody in for so long")


def run(arguments: argparse.Namespace) -> int:
    """Serve until the end; the exit code."""
    try:
        options = options_of(arguments)
        records = read(arguments.files, arguments.fill)
        with ExitStack() as stack:
            return asyncio.run(_serve(records, options, _log(arguments.log_sent, stack)))
    except (ValueError, FileNotFoundError) as error:  # RecordError is a ValueError
        return _complain(str(error), 2)
    except OSError as error:
        return _complain(f"cannot serve on {arguments.host}:{arguments.port}: {error}", 1)


def options_of(arguments: argparse.Namespace) -> Options:
    """Raises ValueError on what makes no sense."""
    if arguments.wait_clients < 0 or arguments.capacity < 1 or arguments.max_clients < 1:
        raise ValueError("--wait-clients must not be negative, --capacity and --max-clients be at least 1")
    if arguments.speed < 0 or not 0.0 < arguments.fill <= 1.0:
        raise ValueError("--speed must not be negative, --fill be over 0 and at most 1")
    return Options(
        host=arguments.host,
        port=arguments.port,
        speed=arguments.speed,
        faults=_faults(arguments),
        wait_clients=arguments.wait_clients,
        capacity=arguments.capacity,
        begin=arguments.begin,
        numbering=arguments.numbering,
        linger_s=0.0 if arguments.exit_at_end else arguments.linger,
        max_clients=arguments.max_clients,
    )


def _faults(arguments: argparse.Namespace) -> Faults:
    return Faults(
        seed=arguments.seed,
        drop=arguments.drop,
        duplicate=arguments.duplicate,
        corrupt=arguments.corrupt,
        shuffle_s=arguments.shuffle_s,
        delay_s=arguments.delay_s,
        delay_stations=tuple(arguments.delay_station or ("*",)),
        stall_after=arguments.stall_after,
        close_after=arguments.close_after,
        truncate_after=arguments.truncate_after,
        times=arguments.times,
        refuse_s=arguments.refuse_s,
    )


async def _serve(records: list[Record], options: Options, on_sent: Callable[[Sent], None]) -> int:
    server = Server(records, options, on_sent)
    await server.start()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, server.stop)
    sys.stdout.write(f"{server.address}\n")
    sys.stdout.flush()
    await server.run()
    return 0


def _log(path: Path | None, stack: ExitStack) -> Callable[[Sent], None]:
    """What writes a line for each packet; each line is in the file as soon as the packet is out."""
    if path is None:
        return lambda sent: None
    file = stack.enter_context(path.open("a", buffering=1, encoding="utf-8"))

    def write(sent: Sent) -> None:
        file.write(json.dumps(line_of(sent)) + "\n")

    return write


def line_of(sent: Sent) -> dict[str, str | int]:
    """What the log says of a packet."""
    record = sent.record
    return {
        "station": record.station_id,
        "channel": f"FDSN:{record.stream_id}",
        "sequence": sent.sequence,
        "start_ns": record.start_ns,
        "end_ns": record.end_ns,
        "sent_ns": sent.sent_ns,
    }


def _complain(message: str, code: int) -> int:
    sys.stderr.write(f"quake-streamer replay: {message}\n")
    return code


def _hexadecimal(text: str) -> int:
    number = int(text, 16)
    if not 0 <= number < SEQUENCES:
        raise argparse.ArgumentTypeError(f"{text} is not a number of up to six hexadecimal digits")
    return number
