"""``quake-streamer``: the command line. Exit codes: 0 done, 1 failed, 2 wrong usage or configuration."""

from __future__ import annotations

import argparse
import logging
import re
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from quake.alerts import Keys, Kind, Mode
from quake.times import NS
from quake.versions import Versions
from streamer import logs, outbox, results
from streamer.archive import END_NS
from streamer.config import CONFIGURATION_VERSION, Config, ConfigError, load, printable, redacted, redis_url
from streamer.dashboard import program as dashboard
from streamer.init import program as init
from streamer.process import end_with_input
from streamer.server import program as replay

if TYPE_CHECKING:
    Verbs = argparse._SubParsersAction[argparse.ArgumentParser]
    from streamer.composition import Watch

NO_SERVER = {"source": [{"servers": ["seedlink://none"], "select": ["*.*"]}]}
"""A scan without a configuration reads files alone."""


def _run(arguments: argparse.Namespace) -> int:
    from streamer import daemon
    from streamer.terminal import watching

    if arguments.kept:
        end_with_input()
    config = load(arguments.config)
    log_options = ["--log-level", arguments.log_level, *(["--log-json"] if arguments.log_json else [])]
    if arguments.engine == "ray":
        return _run_on_ray(arguments, config, log_options)
    if arguments.ray_address:
        raise ConfigError("--ray-address: wants --engine ray")
    with watching(config, is_wanted=not arguments.log_json) as hooks:
        return daemon.run(config, hooks, lambda: load(arguments.config), log_options, is_kept=arguments.kept)


def _run_on_ray(arguments: argparse.Namespace, config: Config, log_options: Sequence[str]) -> int:
    from streamer.scanning import require_ray

    require_ray()
    from streamer import run_ray

    return run_ray.run(arguments.config, config, log_options, arguments.ray_address)


def _associate(arguments: argparse.Namespace) -> int:
    from streamer.association import program

    return program.run(load(arguments.config))


def _check(arguments: argparse.Namespace) -> int:
    from streamer.composition import prepare
    from streamer.operation import Operation

    config = load(arguments.config)
    watch = prepare(config)
    scorer = watch.scorer
    spec = scorer.model.spec
    operation = Operation.of(config, spec)
    print(printable(operation.applied(config)))
    print(
        f"model {scorer.model.path}: {spec.name} {spec.version}, {spec.task}, {spec.sampling_rate_hz:g} Hz, sha256 {scorer.model.sha256}"
    )
    print(f"thresholds {scorer.thresholds}")
    print(operation)
    print(f"characteriser {watch.characteriser or 'switched off'}")
    return 0 if arguments.flow is None else _flow(config, watch, arguments)


def _flow(config: Config, watch: Watch, arguments: argparse.Namespace) -> int:
    from streamer import flow

    print(f"listening, {arguments.flow:g} s at most", flush=True)
    told = logging.getLogger("streamer.source")
    told.setLevel(logging.NOTSET if arguments.log_level == "debug" else logging.ERROR)  # the lines below say why
    lines = flow.check(config, watch.scorer.grid, arguments.flow)
    told.setLevel(logging.NOTSET)
    for is_right, text in lines:
        print(f"{'ok   ' if is_right else 'FAULT'} {text}")
    return 0 if all(is_right for is_right, _ in lines) else 1


def _watch(arguments: argparse.Namespace) -> int:
    from quake.alerts import AlertSubscriber, HeartbeatLostError
    from streamer.terminal import telling

    kinds = (Kind.EVENT, Kind.DETECTION) if arguments.detections else (Kind.EVENT,)
    keys = Keys.of(Mode(arguments.mode), arguments.prefix)
    heartbeat_s = arguments.heartbeat_s or None
    try:
        url = arguments.redis or redis_url() or "redis://127.0.0.1:6379/0"
        make = AlertSubscriber(url, keys=keys, kinds=kinds, last_id=arguments.since, heartbeat_s=heartbeat_s)
    except ValueError as error:
        raise ConfigError(f"--redis: {error}") from error
    with make as subscriber:
        try:
            with telling(url, keys, is_wanted=not arguments.json) as tell:
                for alert in subscriber:
                    tell(alert.model_dump_json() if arguments.json else alert.summary())
        except KeyboardInterrupt:
            return 0
        except HeartbeatLostError as error:
            print(f"quake-streamer: {error} (at {redacted(url)})", file=sys.stderr)
            return 1
    return 0


def _entry(text: str) -> str:
    if not re.fullmatch(r"\$|\d+(-\d+)?", text):
        raise argparse.ArgumentTypeError("$, 0 or an entry of the stream such as 1700000000000-0")
    return text


def _speed(text: str) -> float:
    if not (0 < (speed := float(text)) < 1e6):
        raise argparse.ArgumentTypeError("more than 0")
    return speed


def _seconds(text: str) -> float:
    if not (0 < (seconds := float(text)) <= 86_400):
        raise argparse.ArgumentTypeError("more than 0, a day at most")
    return seconds


def _count(text: str) -> int:
    if (count := int(text)) < 1:
        raise argparse.ArgumentTypeError("1 or more")
    return count


def _time(text: str) -> int:
    try:
        time = datetime.fromisoformat(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"no time as 2010-05-27T16:24:33: {text}") from error
    return round((time if time.tzinfo else time.replace(tzinfo=UTC)).timestamp() * NS)


def _place(text: str) -> Path | str:
    return text if re.match(r"\w+://", text) else Path(text)


def _scan(arguments: argparse.Namespace) -> int:
    from streamer import scanning
    from streamer.config import resolve

    config = load(arguments.config) if arguments.config else resolve(NO_SERVER, Path("scan"))
    outputs = {name: path for name in results.WRITERS if (path := getattr(arguments, name))}
    configured = [pattern for source in config.source for pattern in source.select] if arguments.config else []
    if arguments.ray_address and arguments.engine != "ray":
        raise ConfigError("--ray-address: wants --engine ray")
    found = scanning.run(
        config.model_copy(update={"mode": Mode.SCAN}),
        arguments.paths,
        select=arguments.select or configured,
        begin_ns=arguments.begin,
        end_ns=arguments.end,
        state=arguments.state,
        outputs=outputs,
        processes=arguments.processes,
        engine=scanning.on_ray(arguments.ray_address, arguments.processes) if arguments.engine == "ray" else None,
        tell=lambda alert: print(alert.model_dump_json() if arguments.json else alert.summary(), flush=True),
    )
    for fault in scanning.shortened(found.faults):
        print(f"quake-streamer: {fault}", file=sys.stderr)
    if found.stopped:
        how = "the same command goes on from here" if arguments.state else "without --state nothing of it is kept"
        print(f"quake-streamer: stopped; {how}", file=sys.stderr)
    return 1 if found.faults or found.stopped else 0


def _notify(arguments: argparse.Namespace) -> int:
    from streamer.notify import program
    from streamer.notify.config import load

    config = load(arguments.config)
    if not arguments.test:
        return program.run(config)
    outcomes = program.test(config)
    for name, fault in outcomes.items():
        print(f"{name}: {f'not delivered: {fault}' if fault else 'delivered'}", flush=True)
    return 1 if any(outcomes.values()) else 0


def _demo(arguments: argparse.Namespace) -> int:
    from streamer import demo

    return demo.run(arguments.out, arguments.speed)


def _first_steps(verbs: Verbs, common: argparse.ArgumentParser) -> None:
    start = verbs.add_parser(
        "init", parents=[common], help="write a configuration for stations of your own, from what their server lists"
    )
    init.configure(start)
    start.set_defaults(function=init.run)

    check = verbs.add_parser(
        "check", parents=[common], help="print the configuration as resolved, and every fault in it"
    )
    check.add_argument("config", type=Path)
    check.add_argument(
        "--flow",
        type=_seconds,
        metavar="SECONDS",
        help="listen to the servers, at most so long, and say of each station and component whether packets come",
    )
    check.set_defaults(function=_check)


def _configure_scan(scan: argparse.ArgumentParser) -> None:
    scan.add_argument(
        "paths",
        type=_place,
        nargs="+",
        metavar="PATH",
        help="files that ObsPy reads, SDS archives, folders; s3://BUCKET/PREFIX; an FDSN service: https://HOST/",
    )
    scan.add_argument(
        "--select",
        action="append",
        metavar="NET.STA.LOC.CHA",
        help="of an FDSN service, with * and ?; may be given again; if not given those of the configuration's sources",
    )
    scan.add_argument("--begin", type=_time, default=0, metavar="TIME", help="ISO 8601, UTC where it says no other")
    scan.add_argument("--end", type=_time, default=END_NS, metavar="TIME", help="as --begin")
    scan.add_argument("--state", type=Path, metavar="FOLDER", help="goes on there where an earlier scan was stopped")
    for name in results.WRITERS:
        scan.add_argument(f"--{name}", type=Path, metavar="FILE", help="writes the newest revision of each alert there")
    scan.add_argument("--config", type=Path, help="thresholds, coincidence, inventory; sources and Redis are not used")
    scan.add_argument(
        "--processes", type=_count, metavar="N", help="that score side by side; one for each core if not given"
    )
    scan.add_argument(
        "--engine",
        default="processes",
        choices=("processes", "ray"),
        help="what scores: processes of this machine, or Ray's, on the nodes of a cluster (pip install 'quake[ray]')",
    )
    _ray_address(scan)
    scan.add_argument("--json", action="store_true")
    scan.set_defaults(function=_scan)


def _ray_address(verb: argparse.ArgumentParser) -> None:
    verb.add_argument(
        "--ray-address",
        metavar="HOST:PORT",
        help="of a Ray cluster that this machine is a node of; one of this machine alone is started if not given",
    )


def parser() -> argparse.ArgumentParser:
    top = argparse.ArgumentParser(
        prog="quake-streamer", description="Watches seismic stations and publishes earthquake alerts."
    )
    top.add_argument(
        "--version", action=Versions, more={"configuration": CONFIGURATION_VERSION, "state": outbox.SCHEMA}
    )
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument("--log-level", default="info", choices=("debug", "info", "warning", "error"))
    common.add_argument("--log-json", action="store_true", help="one JSON object a line; no table")
    verbs = top.add_subparsers(dest="verb", required=True, metavar="VERB")

    _first_steps(verbs, common)

    run = verbs.add_parser(
        "run", parents=[common], help="watch the stations of a configuration; at a terminal with a table of them"
    )
    run.add_argument("config", type=Path)
    run.add_argument(
        "--engine",
        default="process",
        choices=("process", "ray"),
        help="this process, or all shards as processes of Ray's, on the nodes of a cluster (pip install 'quake[ray]')",
    )
    _ray_address(run)
    run.add_argument(
        "--kept",
        action="store_true",
        help="how --engine ray starts it: it ends when its standard input does, and asks Redis how far its stations are",
    )
    run.set_defaults(function=_run)

    associate = verbs.add_parser(
        "associate",
        parents=[common],
        help="decide the events of all shards; of several that run one does, the others stand by",
    )
    associate.add_argument("config", type=Path)
    associate.set_defaults(function=_associate)

    watch = verbs.add_parser(
        "watch", parents=[common], help="print alerts as they arrive; at a terminal with a table of the stations"
    )
    watch.add_argument(
        "--redis", help="URL; if not given that of QUAKE_REDIS_URL, or of the file QUAKE_REDIS_URL_FILE names"
    )
    watch.add_argument("--detections", action="store_true", help="single-station detections too")
    watch.add_argument("--since", default="$", type=_entry, help="stream entry to begin after; 0 for all that is there")
    watch.add_argument("--mode", default="live", choices=[str(mode) for mode in Mode])
    watch.add_argument("--prefix", default="{quake}", help="of the keys on Redis")
    watch.add_argument(
        "--heartbeat-s", type=float, default=20.0, help="exit 1 once no daemon has beaten for this long; 0: never"
    )
    watch.add_argument("--json", action="store_true", help="one JSON object a line; no table")
    watch.set_defaults(function=_watch)

    scan = verbs.add_parser("scan", parents=[common], help="the alerts of recordings and archives")
    _configure_scan(scan)

    notify = verbs.add_parser(
        "notify",
        parents=[common],
        help="carry alerts to people and programs: webhook, e-mail, MQTT, CAP, QuakeML, Apprise",
    )
    notify.add_argument("config", type=Path)
    notify.add_argument("--test", action="store_true", help="one message, marked as an exercise, to each; then end")
    notify.set_defaults(function=_notify)

    demo = verbs.add_parser("demo", parents=[common], help="a real recording through the real daemon")
    demo.add_argument("--out", type=Path, default=Path("demo-output"), help="folder for picture and summary")
    demo.add_argument("--speed", type=_speed, default=12.0, help="times real time")
    demo.set_defaults(function=_demo)

    page = verbs.add_parser("dashboard", parents=[common], help="the web page, a process of its own")
    dashboard.configure(page)
    page.set_defaults(function=dashboard.run)

    labels = verbs.add_parser(
        "marks", parents=[common], help="what operators said of alerts, as labels for the trainer"
    )
    dashboard.redis_options(labels)
    labels.add_argument("--out", type=Path, metavar="FILE", help="standard output if not given")
    labels.set_defaults(function=dashboard.write_marks)

    serve = verbs.add_parser("replay", parents=[common], help="a SeedLink server that plays recordings")
    replay.configure(serve)
    serve.set_defaults(function=replay.run)
    return top


def main(argv: Sequence[str] | None = None) -> int:
    arguments = parser().parse_args(argv)
    logs.set_up(arguments.log_level.upper(), arguments.log_json)
    try:
        return int(arguments.function(arguments))
    except ConfigError as error:
        print(f"quake-streamer: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 1
    except Exception:
        logging.critical("a fault of this program", exc_info=True)
        return 1


if __name__ == "__main__":
    sys.exit(main())
