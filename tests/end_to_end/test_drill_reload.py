"""Another configuration, a stage that fails, one that hangs: no sample is lost, and no silent stall remains."""

from __future__ import annotations

import hashlib
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
from daemon_harness import Life, Place, wait_for
from drill_report import judge
from model_files import with_spec
from test_same_alerts import ends

from quake.alerts import Alert, Kind, Status
from quake.artifact import Probe
from quake.data.spec_file import read_spec
from streamer.composition import model_path
from streamer.config import load
from streamer.server import Record, ReplayServer

FAULTY = (sys.executable, str(Path(__file__).with_name("faulty_daemon.py")))
SECTION = "reload"


def reloads(life: Life, outcome: str) -> float:
    return life.metric("quake_reloads_total").get(f'outcome="{outcome}"', 0.0)


def hang_up(life: Life, outcome: str) -> None:
    """Ask for the configuration anew, and wait for what comes of it."""
    before = reloads(life, outcome)
    life.process.send_signal(signal.SIGHUP)
    wait_for(f"the reload is {outcome}", lambda: reloads(life, outcome) > before, 60.0)


def scored(life: Life) -> float:
    return sum(life.metric("quake_windows_scored_total").values())


def through(place: Place, records: list[Record], config: Path, during: Callable[[Life], None]) -> list[Alert]:
    """Slow enough that ``during`` falls into the recording."""
    with ReplayServer(records, speed=8.0) as server:
        config.write_text(config.read_text().replace("seedlink://later:1", server.address))
        with place.start(config) as life:
            wait_for("windows are scored", lambda: scored(life) > 10, 90.0)
            during(life)
            assert not server.finished.is_set(), "the recording was over too early"
            life.wait_newest(ends(records), 120.0)
            assert life.stop() == 0
    return place.published()


FAULTS = {
    "unknown key": "[nothing]\n",
    "no TOML": "]",
    "no such model": '[model]\npath = "none.pt"\n',
    "another state": 'state = "elsewhere"\n',
}


def test_reloads_in_the_midst_of_data(place: Place, demo_records: list[Record], undisturbed: list[Alert]) -> None:
    """A good one, faulty ones, a good one again."""
    config = place.configure("seedlink://later:1")
    shipped = model_path(load(config)).read_bytes()
    other = with_spec(shipped, probe=Probe(answers=((0.5, 0.5),) * 4, tolerance=0.02))
    (place.folder / "other.pt").write_bytes(other)
    model = f'[model]\npath = "other.pt"\nsha256 = "{hashlib.sha256(other).hexdigest()}"\n'
    faults = {**FAULTS, "a model that answers its own test windows otherwise": model}

    def during(life: Life) -> None:
        good = config.read_text()
        hang_up(life, "done")
        for text in faults.values():
            config.write_text(good.replace('state = "state"\n', text) if "state" in text else good + text)
            hang_up(life, "refused")
        config.write_text(good)
        assert life.text().count("the configuration stays as it was") == len(faults)
        assert "on its own test windows a probability differs by 0.49" in life.text()
        assert life.get("/healthz")[0] == 200
        hang_up(life, "done")

    published = through(place, demo_records, config, during)
    judge(
        SECTION,
        "SIGHUP in the midst of data, twice, and five times with a faulty file or model",
        "no sample lost, nothing twice; what is faulty is refused in the log, and the old one stays",
        published,
        undisturbed,
        sabotage="daemon.py: Daemon._watch_on loads Saved({}, None, {})",
    )


def test_another_hop_closes_what_is_open(place: Place, demo_records: list[Record]) -> None:
    """Detections that would stay open beyond the recording, and their event; the other hop may open them again."""
    text = place.configure("seedlink://later:1").read_text() + "[trigger]\nrelease = 600\nlongest_s = 3000\n"
    config = place.folder / "quake.toml"
    with ReplayServer(demo_records, speed=8.0) as server:
        config.write_text(text.replace("seedlink://later:1", server.address))
        with place.start(config) as life:
            wait_for("an event is open", lambda: any(a.kind is Kind.EVENT for a in place.published()), 120.0)
            config.write_text(config.read_text().replace("[windows]", "[windows]\nhop_s = 0.5"))
            opened = [alert.id for alert in place.published() if alert.status is Status.OPEN]
            hang_up(life, "done")
            wait_for("all are closed", lambda: set(opened) <= set(closed(place)), 60.0)
            assert life.stop() == 0
    assert len(opened) >= 4
    assert max(Counter(closed(place)).values()) == 1


def closed(place: Place) -> list[str]:
    return [alert.id for alert in place.published() if alert.status is Status.CLOSED]


@pytest.mark.drill
def test_stations_are_added_while_it_runs(place: Place, demo_records: list[Record], undisturbed: list[Alert]) -> None:
    """One station first, the others from the reload on: those are then asked for from what the server still has."""
    config = place.configure("seedlink://later:1")
    all_of_them = config.read_text()
    config.write_text(all_of_them.replace('"*.*"', '"BW.UH1", "BW.UH2"'))

    def during(life: Life) -> None:
        address = config.read_text().split('servers = ["')[1].split('"')[0]
        assert set(life.metric("quake_packets_total")) == {'station="BW_UH1__S_H"', 'station="BW_UH2__S_H"'}
        config.write_text(all_of_them.replace("seedlink://later:1", address))
        hang_up(life, "done")

    published = through(place, demo_records, config, during)
    subjects = {station.source_id for alert in published for station in alert.stations}
    assert any("UH3" in subject or "UH4" in subject for subject in subjects)
    first = [a for a in published if all("UH1" in s.source_id or "UH2" in s.source_id for s in a.stations)]
    alike = [a for a in undisturbed if all("UH1" in s.source_id or "UH2" in s.source_id for s in a.stations)]
    judge(
        SECTION,
        "SIGHUP that adds two stations",
        "theirs come, the others' alerts are as undisturbed",
        first,
        alike,
        sabotage="reload.py: Reload.take returns None",
    )


@pytest.mark.drill
def test_a_model_on_trial_tells_how_it_differs_and_decides_nothing(
    place: Place, demo_records: list[Record], undisturbed: list[Alert]
) -> None:
    """The shipped detector with a looser point beside itself: the same probabilities, more openings."""
    shipped = model_path(load(place.configure("seedlink://later:1")))
    loose = {"on": 0.3, "off": 0.15, "in_a_row": 1}
    points = read_spec(shipped).operating_points
    points = tuple(p.model_copy(update=loose) if p.name == "sensitive" else p for p in points)
    (place.folder / "trial.pt").write_bytes(with_spec(shipped.read_bytes(), operating_points=points))
    trial = '[shadow]\npath = "trial.pt"\noperating_point = "sensitive"\n'
    with ReplayServer(demo_records, speed=0.0) as server:
        config = place.configure(server.address)
        config.write_text(config.read_text() + trial)
        with place.start(config) as life:
            life.wait_newest(ends(demo_records), 180.0)
            wait_for("the trial scores", lambda: life.metric("quake_shadow_up") == {"": 1.0}, 30.0)
            openings = life.metric("quake_shadow_detections_total")
            apart = life.metric("quake_shadow_difference_bucket")
            count = sum(life.metric("quake_shadow_difference_count").values())
            assert life.stop() == 0
    own = {a.id for a in undisturbed if a.kind is Kind.DETECTION}
    shared, alone = openings['by="both"'], openings['by="shadow"']
    assert openings['by="model"'] == 0
    assert 0 < shared <= len(own)
    assert alone > 0
    assert apart['le="0.001"'] == count > 100
    judge(
        SECTION,
        "a model on trial beside the other",
        "its differences are metrics, the alerts are as without it",
        place.published(),
        undisturbed,
        measured=f"{shared:.0f} openings of both, {alone:.0f} of the trial alone",
        sabotage="shadow.py: Shadow.detected settles an opening as the shadow's",
    )


# -- faults of the stages ---------------------------------------------------------------------------------------------


def test_a_stage_that_fails_begins_again_from_the_outbox(
    place: Place, demo_records: list[Record], undisturbed: list[Alert]
) -> None:
    with ReplayServer(demo_records, speed=0.0) as server:
        config = place.configure(server.address)
        with place.start(config, FAULTY, ("raise", "20", "3")) as life:
            life.wait_newest(ends(demo_records), 120.0)
            assert life.stop() == 0
            assert life.text().count("beginning again from the outbox") == 3
    judge(
        SECTION,
        "a stage raises three times",
        "begins again from the outbox",
        place.published(),
        undisturbed,
        sabotage="daemon.py: Daemon.run without its except",
    )


@pytest.mark.drill
@pytest.mark.parametrize(("how", "told"), [("raise", "given up"), ("hang", "has not come round for 10 s")])
def test_what_goes_on_failing_ends_the_process(
    place: Place, demo_records: list[Record], undisturbed: list[Alert], how: str, told: str
) -> None:
    """The exit is the sign that systemd or Kubernetes acts on; what follows it loses nothing."""
    with ReplayServer(demo_records, speed=0.0) as server:
        config = place.configure(server.address)
        with place.start(config, FAULTY, (how, "20", "1000")) as life:
            try:
                status = life.process.wait(120.0)
            except subprocess.TimeoutExpired:
                pytest.fail(f"it goes on in silence:\n{life.text()[-3000:]}")
            assert status == 1
            assert told in life.text()
        with place.start(config) as life:
            life.wait_newest(ends(demo_records), 120.0)
            assert life.stop() == 0
    judge(
        SECTION,
        f"a stage goes on to {how}; the process is started anew",
        "exits with 1 and says why; the next process loses nothing",
        place.published(),
        undisturbed,
        sabotage={"raise": "reload.py: Budget.spend returns True", "hang": "watchdog.py: self._end() left out"}[how],
    )
