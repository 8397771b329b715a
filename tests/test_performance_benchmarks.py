"""What the benchmarks of speed rest on: the load that they make, how they count, and the table that they write."""

from __future__ import annotations

import itertools
import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from benchmarks import archive, gpu, performance, side_by_side
from benchmarks.load import CYCLE_S, LOUD_EACH, PREROLL_S, RATE, WINDOW, Load, Releases, Tally, completed_ns, is_loud
from benchmarks.performance import ROOT, Machine, Program, content, run
from benchmarks.results import Line, Part, at_least, at_most, inserted, told
from benchmarks.simulated import Costs, Pace, borne, openings, storm, watch
from benchmarks.stages import Spent, profile_note
from benchmarks.stations import Step, held, steps
from benchmarks.stopwatch import Stopwatch
from quake.artifact import CompiledModel
from quake.device import Processor
from streamer.grid import Grid
from streamer.scan_passes import Reach
from streamer.source.records import decode
from streamer.stages import NS, Packet, Window
from streamer.station import Policy, Station

BEGIN_NS = 1_700_000_000 * NS
BUSY = Machine("a processor", 2, 5.0, "torch 1", "1 May 2030")


# -- the load


def made(load: Load) -> list[tuple[int, Packet]]:
    found = [(release.at_ns, decode(release.record.data, None, release.at_ns)) for release in Releases(load, BEGIN_NS)]
    assert all(isinstance(packet, Packet) for _, packet in found)
    return found  # type: ignore[return-value]


def test_stations_join_when_their_step_begins_with_data_that_is_just_no_window() -> None:
    came = made(Load((2, 3), 15.0))
    joined = {name: min(at for at, p in came if p.subject == name) for name in {p.subject for _, p in came}}
    assert joined == {
        "FDSN:XX_A0000__H_H": BEGIN_NS,
        "FDSN:XX_A0001__H_H": BEGIN_NS,
        "FDSN:XX_A0002__H_H": BEGIN_NS + 15 * NS,
    }
    for name, at_ns in joined.items():
        first_ns = min(p.start_ns for _, p in came if p.subject == name)
        assert PREROLL_S * NS <= at_ns - first_ns < (PREROLL_S + 4) * NS
    assert [at for at, _ in came] == sorted(at for at, _ in came)


def test_each_channel_goes_on_without_a_gap_from_one_minute_to_the_next() -> None:
    came = made(Load((1,), 2.5 * CYCLE_S))
    for code in "ZNE":
        mine = [packet for _, packet in came if packet.component == code]
        ends = [packet.start_ns + len(packet.samples) * NS // RATE for packet in mine]
        assert [packet.start_ns for packet in mine[1:]] == ends[:-1]
        assert sum(len(packet.samples) for packet in mine) > 2.4 * CYCLE_S * RATE


@pytest.mark.parametrize("hop", [RATE, 5 * RATE])
def test_the_windows_counted_are_those_that_the_daemon_cuts(hop: int) -> None:
    """Of stations that are out of step and join at two times."""
    tally, cut = Tally(hop), 0
    stations: dict[str, Station] = {}
    for release in Releases(Load((3, 5), 40.0), BEGIN_NS):
        tally.sent(release.record, release.at_ns)
        packet = decode(release.record.data, None, release.at_ns)
        assert isinstance(packet, Packet)
        station = stations.setdefault(
            packet.subject, Station(packet.subject, Grid(RATE, WINDOW, hop), Policy(), expected=frozenset("ZNE"))
        )
        station.insert(packet, lambda reason, count: None)
        cut += sum(isinstance(item, Window) for item in station.cut())
    assert tally.windows == cut > 3 * 70 * RATE // hop


def test_a_window_is_complete_with_the_last_packet_that_it_needs() -> None:
    written = [(0, 100, 5), (1, 110, 6), (0, 200, 7), (2, 90, 8), (2, 190, 9), (1, 210, 10)]
    assert completed_ns(written, 100) == 9
    assert completed_ns(written, 190) == 10
    assert completed_ns(written, 195) is None


def test_loud_stations_are_known_to_the_server_alone_of_all() -> None:
    tally = Tally(RATE)
    for release in Releases(Load((LOUD_EACH,), 10.0), BEGIN_NS):
        tally.sent(release.record, release.at_ns)
    assert set(tally.loud) == {f"A{number:04d}" for number in range(LOUD_EACH) if is_loud(number)} != set()


def test_connections_share_the_stations() -> None:
    load = Load((6,), 1.0, connections=4)
    assert load.select == ["XX.A*", "XX.B*", "XX.C*", "XX.D*"]
    assert [load.station(number) for number in range(6)] == ["A0000", "B0001", "C0002", "D0003", "A0004", "B0005"]


# -- counting


def test_a_station_counts_until_the_first_step_that_ends_a_second_behind() -> None:
    late = [Step(100, 0.4, 100), Step(104, 0.9, 104), Step(108, 1.0, 104), Step(112, 0.2, 112)]
    assert held(late) == 104
    assert held([Step(100, 7.0, 50)]) == 0
    assert steps(100.0)[:3] == (50, 52, 54)
    assert steps(100.0)[-1] >= 130 > steps(100.0)[-2]


def test_own_time_is_without_that_of_stages_called() -> None:
    now_ns = 0

    def takes(ns: int) -> None:
        nonlocal now_ns
        now_ns += ns

    watch = Stopwatch(lambda: now_ns)
    inner = watch.timed("inner", lambda: takes(5))
    outer = watch.timed("outer", lambda: (takes(2), inner(), inner(), takes(1)))
    outer()
    assert not watch.own_ns, "nothing counts yet"
    watch.counts = True
    outer()
    assert watch.own_ns == {"inner": 10, "outer": 3}
    assert watch.calls == {"inner": 2, "outer": 1}


def test_what_no_stage_has_is_of_the_loop_and_of_receiving() -> None:
    wrote = {
        "seconds": 2.0,
        "process_ns": 2e9,
        "threads_ns": {"MainThread": 1.5e9, "receive": 2e8, "publisher": 1e8, "live": 5e7},
        "own_ns": {"decode": 5e7, "hand over": 1e7, "network": 1e9, "cut": 2e8},
        "calls": {"decode": 100, "trigger": 200},
    }
    spent = Spent.of(wrote)
    assert spent.beside_network == pytest.approx(0.5)
    assert (spent.packets, spent.windows) == (50, 100)
    assert spent.us("network") == pytest.approx(5000)
    assert spent.stages["loop"] == pytest.approx(0.15)
    assert spent.stages["receive"] == pytest.approx(0.07)
    assert spent.stages["publish"] == pytest.approx(0.05)


def test_a_profile_leaves_the_network_out() -> None:
    note = profile_note("x", [("modules/module.py _call_impl", 10, 9.0), ("cut", 5, 0.75), ("ring", 7, 0.25)])
    assert "_call_impl" not in note
    assert "| `cut` | 5 | 75.0 % |" in note


# -- the table


def test_a_line_says_goal_and_figure() -> None:
    part = Part(
        "One", (at_least("stations", 260, 250), at_most("median", 310.4, 300, "ms"), Line("plain", "7")), ("a note",)
    )
    assert part.markdown().splitlines()[4:] == [
        "| stations | at least 250 | 260 | reached |",
        "| median | at most 300 ms | 310 ms | **missed** |",
        "| plain |  | 7 |  |",
        "",
        "a note",
    ]
    assert told([part]) == ["One: median"]


def test_what_is_kept_is_what_was_found(tmp_path: Path) -> None:
    part = Part("One", (at_least("stations", 260, 250),), ("a note",), {"x": 3.0})
    part.write(tmp_path / "new" / "one.json")
    assert Part.read(tmp_path / "new" / "one.json") == part


def test_the_table_alone_is_made_anew() -> None:
    page = "before\n<!-- bench -->\nold\n<!-- /bench -->\nafter\n"
    new = inserted(page, "bench", "new")
    assert new == "before\n<!-- bench -->\n\nnew\n\n<!-- /bench -->\nafter\n"
    assert inserted(new, "bench", "new") == new
    with pytest.raises(ValueError, match="no <!-- bench -->"):
        inserted("nothing", "bench", "new")


def test_the_page_has_a_place_for_it_and_a_busy_machine_is_told() -> None:
    text = content(BUSY, [Part("One", (at_least("stations", 260, 250), at_most("x", 2, 1)))])
    assert "1 of 2 goals reached" in text
    assert "**The machine was busy** (load average 5.0" in text
    assert text in inserted(performance.PAGE.read_text(), performance.PLACE, text)


def test_one_that_fails_is_told_and_ends_with_what_it_started(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(performance, "ROOT", tmp_path)
    (tmp_path / "benchmarks").mkdir()
    beats = tmp_path / "beats"
    child = f"import time, pathlib\nwhile True: pathlib.Path({str(beats)!r}).open('a').write('x'); time.sleep(0.01)"
    (tmp_path / "benchmarks" / "hangs.py").write_text(
        f"import subprocess, sys, time\nsubprocess.Popen([sys.executable, '-c', {child!r}])\ntime.sleep(60)"
    )
    (tmp_path / "benchmarks" / "breaks.py").write_text("raise SystemExit('no such luck')")
    assert run(Program("breaks", "Breaks", 20), tmp_path, quick=False).notes == ("**Failed:** no such luck",)
    assert run(Program("hangs", "Hangs", 1.0), tmp_path, quick=False).notes == ("**Failed:** it took longer than 1 s",)
    size = beats.stat().st_size
    assert size
    with pytest.raises(subprocess.TimeoutExpired):
        subprocess.run([sys.executable, "-c", "import time; time.sleep(9)"], timeout=0.2, check=True)
    assert beats.stat().st_size == size


# -- the simulation


PACE = Pace(hop_s=1.0, record_s=4.0, batch_size=16, longest_wait_s=0.01)


def test_a_simulated_daemon_bears_what_its_processor_has_time_for() -> None:
    """Packets and windows at full batches, less what time takes: 0.75 packets and a window a station and second."""
    costs = Costs(packet=0.002, window=0.0015, station=0.001, batches={1: 0.02, 4: 0.045, 16: 0.12}, idle=0.1)
    needed = 0.75 * costs.packet + costs.window + costs.batches[16] / 16
    expected = next(n for n in range(1000, 0, -1) if n * needed <= 1 - costs.idle - n * costs.station)
    assert borne(costs, PACE, 120.0) == pytest.approx(expected, rel=0.03)
    light = watch(costs, PACE, 1, 100.0)
    each = costs.station + 0.75 * costs.packet + costs.window + costs.batches[4] / 4  # four windows a record
    assert light.cores == pytest.approx(costs.idle + each, abs=1e-4)
    assert light.behind_s == 0.0
    share = 1 - costs.idle - costs.station
    assert light.median_s == pytest.approx(0.01 + (4 * costs.window + costs.batches[4]) / share, abs=0.0015)


def test_a_simulated_earthquake_waits_where_one_server_is_not_enough() -> None:
    quick, slow = storm(400, 1e-9, 0.0), storm(400, 0.0, 1e-3)
    assert quick.arrivals_s == pytest.approx(np.sqrt(2) * 10 * 20 / 6, rel=0.06)
    assert quick.event_s == pytest.approx(0.0, abs=1e-6)
    came, left = openings(400), np.cumsum(np.arange(400)[::-1])[::-1] * 1e-3  # what an opening and all after it take
    assert slow.event_s == pytest.approx(max(came + left) - came[-1], rel=1e-6)


# -- the programs


def test_a_worker_is_measured(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert gpu.main(["--quick", "--device", "cpu", "--out", str(tmp_path / "gpu.json")]) == 0
    part = Part.read(tmp_path / "gpu.json")
    assert [line.what for line in part.lines[:4]] == [
        f"batches of {size}, {way}" for size in (1, 4) for way in ("the device's steps", "transform in NumPy")
    ]
    for line in part.lines[:4]:
        assert re.fullmatch(
            r"[\d,.]+ windows/s; a batch [\d.]+ ms, 99th percentile [\d.]+ ms; GPU busy .+", line.figure
        )
    for size, line in zip((1, 4), part.lines[4:], strict=True):
        assert re.fullmatch(rf"batches of {size}, shares of [\d.]+ ms", line.what)
        told = dict(re.findall(r"([a-z ]+?) (\d+) %", line.figure))
        assert list(told) == ["copy there", " transform", " network", " copy back"]
        assert 98 <= sum(map(int, told.values())) <= 102
    assert part.notes == (gpu.ON_PROCESSOR,)
    assert "windows/s" in capsys.readouterr().out


class AsCuda(Processor):
    """Its graph is to launch everything again."""

    def __init__(self, *, graphs: bool = True) -> None:
        self._graphs = graphs

    def record(self, launch: Callable[[], None]) -> Callable[[], None] | None:
        return launch if self._graphs else None


class CannotRecord(AsCuda):
    def record(self, launch: Callable[[], None]) -> Callable[[], None] | None:
        if self._graphs:
            raise RuntimeError("not while capturing")
        return None


@pytest.mark.parametrize(
    ("stream", "graphs"), [(AsCuda, "one CUDA graph"), (CannotRecord, "one CUDA graph (not recorded: [4])")]
)
def test_on_a_gpu_each_way_is_measured(stream: type[AsCuda], graphs: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def load(path: Path, device: str, threads: int) -> CompiledModel:
        assert device == "cuda"
        return loaded(path, "cpu", threads=threads)

    def made(*, graphs: bool = True) -> AsCuda:
        wanted.append(graphs)
        return stream(graphs=graphs)

    wanted: list[bool] = []
    loaded = CompiledModel.load
    monkeypatch.setattr(gpu.CompiledModel, "load", load)
    monkeypatch.setattr(gpu.CompiledModel, "device", "cuda")
    monkeypatch.setattr(gpu, "CudaStream", made)
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.cuda.get_device_name", lambda number: f"card {number}")
    part = gpu.measured(gpu.ZOO / "detector.pt", "cuda", (4,), 0.0)
    assert part.title == "A worker on a GPU: detector, card 0"
    assert [line.what for line in part.lines[:3]] == [
        f"batches of 4, {way}" for way in (graphs, "step by step", "transform in NumPy")
    ]
    assert part.lines[3].what.startswith("batches of 4, shares of ")
    assert wanted == [True, False, False], "the last one for the shares: a graph's steps have no times of their own"
    assert part.notes == ()


def test_steps_are_timed_by_the_gpus_own_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    clock_ms = itertools.accumulate([0.0, 1.0, 5.0, 2.0])

    class Event:
        def __init__(self, enable_timing: bool) -> None:
            assert enable_timing

        def record(self) -> None:
            self.ms = next(clock_ms)

        def elapsed_time(self, later: Event) -> float:
            return later.ms - self.ms

    monkeypatch.setattr("torch.cuda.Event", Event)
    marks = gpu.Marks(SimpleNamespace(device=torch.device("cuda")))  # type: ignore[arg-type]
    for step in ("filled", "copy there", "transform", "network"):
        marks(step)
    assert marks.steps_s() == {"copy there": 0.001, "transform": 0.005, "network": 0.002}


def test_a_missing_gpu_is_said(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    assert gpu.measured(Path("no-such-file.pt"), "cuda", (1,), 0.0).notes == (gpu.NO_GPU,)
    assert gpu.main(["no-such-file.pt", "--quick"]) == 0
    assert gpu.NO_GPU in capsys.readouterr().out


def test_utilisation_is_asked_for_until_nobody_knows_it() -> None:
    answers = iter([40.0, 60.0, None])
    with gpu.Utilisation(lambda: next(answers), pause_s=0.001) as used:
        assert used._thread is not None
        used._thread.join(10.0)
    assert str(used) == "50 %"
    with gpu.Utilisation(lambda: None, pause_s=0.001) as used:
        pass
    assert str(used) == "not known"


def test_obspys_ways_cut_the_same_windows() -> None:
    lines = side_by_side.cutting(40.0, 1)
    assert [line.what.split("against ")[1] for line in lines] == ["obspy.Stream", "obspy.realtime.RtTrace"]


def test_the_transforms_compared_are_the_same_one() -> None:
    """Otherwise the ratio would say nothing."""
    ours, *others = (way() for way in side_by_side.transform_ways(2).values())
    assert ours.std() > 0.1
    for other in others:
        np.testing.assert_allclose(other, ours, atol=1e-4)


def test_the_daemon_leaves_large_packages_alone() -> None:
    """Each is tens of megabytes and half a second of every start."""
    program = """
import sys
import streamer.cli, streamer.daemon
from quake.data.spectrogram import SpectrogramShape
SpectrogramShape().taper()
print(sorted({"matplotlib", "obspy.signal", "pandas", "scipy", "torch"} & set(sys.modules)))
"""
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout.strip()) == (0, "[]"), done.stderr


def test_an_archives_hour_is_noise_but_for_an_earthquake() -> None:
    made = archive.hour().reshape(3, 60, CYCLE_S * RATE)
    peaks = np.abs(made - made.mean(axis=2, keepdims=True)).max(axis=2)
    assert (peaks.argmax(axis=1) == archive.LOUD_MINUTE).all()
    assert (peaks[:, archive.LOUD_MINUTE] > 10 * np.median(peaks, axis=1)).all()
    assert (made.std(axis=2) > 0).all()


def test_an_archive_is_scored_in_one_pass_only_meanwhile() -> None:
    reach = Reach(in_a_row=8, release=2, off=0.5, samples=0)
    with archive.one_pass():
        assert all(reach.is_first(k) for k in range(8))
    assert [k for k in range(16) if reach.is_first(k)] == [7, 15]


@pytest.mark.drill
@pytest.mark.timeout(900)
def test_all_of_it_runs(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("<!-- bench -->\n<!-- /bench -->\n")
    command = [sys.executable, "-W", "ignore", "-m", "benchmarks.performance", "--quick", "--page", str(page)]
    assert subprocess.run(command, cwd=ROOT, check=False).returncode == 0
    text = page.read_text()
    assert "Failed" not in text
    for title in (
        "Stations on one core",
        "Stages",
        "Side by side",
        "Growth",
        "Simulated",
        "An archive on one core",
        "A worker on a GPU",
    ):
        assert f"### {title}" in text
    stages = json.loads((performance.RESULTS / "quick" / "stages.json").read_text())["lines"]
    assert len({line["what"].split(": ")[1] for line in stages}) > 15
