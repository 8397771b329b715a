"""Detections of several shards, one associator at a time: the events of one daemon, whoever dies and whoever wakes up late."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
import redis
from hypothesis import given, settings
from hypothesis import strategies as st
from made_alerts import MODEL
from test_coincidence import PLACES, RULES, T0, detection, networks, play, said, size
from test_publisher import publishing, until
from test_publisher import settings as publish_settings
from valkey_server import OwnValkey, Valkey

from quake.alerts import Alert, Keys, Mode
from streamer.association.association import Association, AssociationState
from streamer.association.associator import Associator, Settings
from streamer.association.desk import Checkpoint, Desk, EpochError, FencedError
from streamer.association.metrics import AssociatorMetrics
from streamer.association.notes import Note, Notes
from streamer.association.program import Life, settings_of
from streamer.coincidence import Coincidence
from streamer.config import ConfigError, resolve
from streamer.outbox import Outbox, Progress
from streamer.process import Asked
from streamer.stages import NS, Detection

END_NS = T0 + 400 * NS
Histories = dict[str, list[Detection]]
FOUR: Histories = {
    f"FDSN:XX_S{n}__H_H": [detection(n, 3 * n, 3 * n + 4), detection(n, 3 * n, 0, 40 + n)] for n in range(4)
}


@dataclass
class Shard:
    """Some of the stations, decided second by second; what it commits are notes."""

    histories: Histories
    decided: dict[str, int] = field(default_factory=dict)
    notes: Notes = field(default_factory=lambda: Notes(MODEL))
    given: int = 0

    def __post_init__(self) -> None:
        self.decided = dict.fromkeys(self.histories, T0)
        self._left = {subject: list(items) for subject, items in self.histories.items()}

    @property
    def slowest_ns(self) -> int:
        return min(self.decided.values())

    def decide(self, seconds: int) -> str | None:
        """Every station goes on by so much; then the note that is committed."""
        for subject in self.decided:
            self.decided[subject] = min(self.decided[subject] + seconds * NS, END_NS)
            while self._left[subject] and self._left[subject][0].decided_ns <= self.decided[subject]:
                self._detect(self._left[subject].pop(0))
        return self.notes.take(self.decided)

    def _detect(self, item: Detection) -> None:
        self.notes.add(item)
        if item.off_ns is None:
            self.notes.characterise(item.id, item.subject, item.decided_ns, size(0.25 + item.k / 1000))


def shards_of(histories: Histories, count: int) -> list[Shard]:
    subjects = sorted(histories)
    parts = [{name: histories[name] for name in subjects[n::count]} for n in range(count)]
    return [Shard(part) for part in parts if part]


def notes_of(histories: Histories, count: int, chance: random.Random) -> list[str]:
    """As the stream may have them: shards in any order, each as far ahead as the hold allows. All have told of themselves
    before: one that nobody has heard of is not waited for."""
    shards = shards_of(histories, count)
    found = [shard.decide(0) for shard in shards]
    while (slowest := min(shard.slowest_ns for shard in shards)) < END_NS:
        near = [s for s in shards if s.slowest_ns + 3 * NS - slowest <= RULES.hold_ns and s.slowest_ns < END_NS]
        found.append(chance.choice(near).decide(chance.randint(1, 3)))
    return [note for note in found if note is not None]


def of_one_daemon(histories: Histories) -> list[tuple[object, ...]]:
    one = Coincidence(RULES)
    for items in histories.values():
        for item in items:
            one.add(item)
            if item.off_ns is None:
                one.characterise(item.id, item.decided_ns, size(0.25 + item.k / 1000))
    return [said(event) for event in one.advance(END_NS)]


def taken(notes: Sequence[str], chance: random.Random | None = None) -> list[tuple[object, ...]]:
    """What they come to; with chance the associator dies now and then, and another goes on from its state."""
    one, found = Association(RULES), []
    for note in notes:
        found += [said(event) for event in one.apply(Note.model_validate_json(note))]
        if chance is not None and chance.random() < 0.1:
            one = Association(RULES, AssociationState.model_validate_json(one.state.model_dump_json()))
    return found


@settings(max_examples=25, deadline=None)
@given(networks(), st.integers(1, 4), st.integers(0, 2**32))
def test_shards_give_the_events_of_one_daemon(histories: Histories, count: int, seed: int) -> None:
    chance = random.Random(seed)
    assert taken(notes_of(histories, count, chance), chance) == of_one_daemon(histories)


@settings(max_examples=15, deadline=None)
@given(networks(), st.integers(0, 2**32))
def test_replicas_and_notes_that_come_again_change_nothing(histories: Histories, seed: int) -> None:
    """Two of each shard, notes of each in their order, some of them again, as after a crash before the mark."""
    chance = random.Random(seed)
    first = notes_of(histories, 2, random.Random(seed))
    second = list(first)
    mixed: list[str] = []
    while first or second:
        mixed.append((first if first and (not second or chance.random() < 0.6) else second).pop(0))
        if chance.random() < 0.2:
            mixed += mixed[-chance.randint(1, 4) :]
    assert taken(mixed) == of_one_daemon(histories)


def test_the_properties_above_see_events() -> None:
    found = taken(notes_of(FOUR, 3, random.Random(1)))
    assert [event[1] for event in found] == [0, 1, 2, 3]
    assert found == of_one_daemon(FOUR) == play_without_growth()


def play_without_growth() -> list[tuple[object, ...]]:
    """What test_coincidence.py plays, sizes aside."""
    played = play(FOUR, random.Random(0), lambda: False)
    mine = of_one_daemon(FOUR)
    assert [event[:5] for event in played] == [event[:5] for event in mine]
    return mine


def test_a_silent_shard_is_waited_for_as_long_as_a_station() -> None:
    """Stations 0 and 2 tell no more: events go on without them, the hold later."""
    silent, other = shards_of(FOUR, 2)
    one = Association(RULES)
    for shard in (silent, other):
        note = shard.decide(2)
        assert note
        one.apply(Note.model_validate_json(note))
    for second in range(3, 60):
        note = other.decide(1)
        assert note
        one.apply(Note.model_validate_json(note))
        assert one.reached_ns == max(T0 + 2 * NS, T0 + second * NS - RULES.hold_ns)


def test_a_note_tells_what_is_new() -> None:
    notes = Notes(MODEL)
    assert notes.take({"a": 0}) is None
    told = notes.take({"a": T0, "b": T0})
    assert told and Note.model_validate_json(told).decided_ns == {"a": T0, "b": T0}  # noqa: PT018
    told = notes.take({"a": T0, "b": T0 + 1})
    assert told and Note.model_validate_json(told).decided_ns == {"b": T0 + 1}  # noqa: PT018
    assert notes.take({"a": T0, "b": T0 + 1}) is None


# -- on Redis -----------------------------------------------------------------------------------------------------------------


LEASE_S = 1.0


@dataclass
class Office:
    """A Redis with notes on it, and associators in this process."""

    valkey: Valkey
    clients: list[redis.Redis] = field(default_factory=list)

    @property
    def keys(self) -> Keys:
        return Keys(self.valkey.prefix)

    def client(self) -> redis.Redis:
        self.clients.append(self.valkey.client())
        return self.clients[-1]

    def associator(self, metrics: AssociatorMetrics | None = None) -> Associator:
        desk = Desk(self.client(), self.keys, int(LEASE_S * 1000), 3600)
        with_settings = Settings(
            mode=Mode.REPLAY,
            rules=RULES,
            places=PLACES,
            lease_s=LEASE_S,
            retention_ns=86_400 * NS,
            again_ns=3_600 * NS,
            max_age_ns=300 * NS,
        )
        return Associator(with_settings, desk, metrics or AssociatorMetrics(), pause=lambda _: None)

    def tell(self, *notes: str) -> None:
        client = self.client()
        for note in notes:
            client.xadd(self.keys.notes, {"note": note})

    def expire(self) -> None:
        """The lease, as after so long."""
        self.client().delete(self.keys.lease)

    def published(self) -> list[tuple[object, ...]]:
        entries: Any = self.client().xrange(self.keys.events)
        alerts = [Alert.model_validate_json(fields["alert"]) for _, fields in entries]
        return [
            (a.id, a.revision, tuple(s.detection_id for s in a.stations), a.on_time, a.off_time, _size(a))
            for a in alerts
        ]


def _size(alert: Alert) -> str:
    return str(alert.characterisation and alert.characterisation.magnitude)


@pytest.fixture
def office(valkey: Valkey, monkeypatch: pytest.MonkeyPatch) -> Iterator[Office]:
    monkeypatch.setattr("streamer.association.associator.WAIT_MS", 1)
    made = Office(valkey)
    yield made
    for client in made.clients:
        client.close()


def steps(associator: Associator, rounds: int = 2) -> None:
    for _ in range(rounds):
        associator.step()


def test_one_associates_and_the_other_stands_by(office: Office) -> None:
    one, other = office.associator(), office.associator()
    steps(one)
    steps(other)
    assert (one.holds, other.holds) == (True, False)
    office.tell(*notes_of(FOUR, 3, random.Random(1)))
    steps(one)
    steps(other)
    assert office.published() == of_one_daemon(FOUR)
    one.stop()
    steps(other)
    assert other.holds, "a clean stop hands the lease on at once"
    assert office.published() == of_one_daemon(FOUR)


def test_whoever_is_killed_wherever_the_events_are_those_of_one_daemon(office: Office) -> None:
    """With every note: some die before they have taken it, some before its checkpoint, some after."""
    chance, histories = random.Random(5), {**FOUR, **later(FOUR, 100), **later(FOUR, 200)}
    holder = office.associator()
    for note in notes_of(histories, 3, chance):
        office.tell(note)
        if chance.random() < 0.7:
            steps(holder, 1)
        if chance.random() < 0.3:
            holder._save()
        if chance.random() < 0.3:
            office.expire()
            holder = office.associator()
            steps(holder, 1)
    steps(holder, 3)
    assert office.published() == of_one_daemon(histories)
    assert len({event[0] for event in of_one_daemon(histories)}) == 3


def later(histories: Histories, seconds: int) -> Histories:
    """The same stations under other names, for there is one detection of each in a history."""
    made: Histories = {}
    for n in range(len(histories)):
        onset = 3 * n + seconds
        subject = f"FDSN:XX_S{n}_{seconds}_H_H"
        items = [detection(n, onset, onset + 4), detection(n, onset, 0, onset + 40)]
        made[subject] = [replace_subject(item, subject) for item in items]
    return made


def replace_subject(item: Detection, subject: str) -> Detection:
    return replace(item, subject=subject)


class Paused(AssociatorMetrics):
    """Another one takes over while this one is about to publish."""

    def __init__(self, office: Office) -> None:
        super().__init__()
        self._office = office
        self.other: Associator | None = None

    def publishing(self, alert: Alert) -> None:
        if self.other is None:
            self._office.expire()
            self.other = self._office.associator()
            assert self.other._take_over()


def test_a_former_holder_that_wakes_up_writes_nothing(office: Office) -> None:
    """Neither an event that nobody has published yet, nor a checkpoint, nor a release."""
    paused = Paused(office)
    former = office.associator(paused)
    office.tell(*notes_of(FOUR, 3, random.Random(1)))
    steps(former, 1)
    assert paused.other
    assert not former.holds
    assert office.published() == [], "it published after another one had taken over"
    former._desk.token = "1 of another time"
    checkpoint = Checkpoint(entry="5-0", state=AssociationState())
    for write in (lambda: former._desk.save(checkpoint), former._desk.release, former._desk.keep, former._desk.leave):
        with pytest.raises(FencedError):
            write()
    steps(former)
    assert not former.holds
    steps(paused.other)
    assert office.published() == of_one_daemon(FOUR)


def test_notes_are_kept_as_long_as_a_take_over_needs_them(office: Office) -> None:
    notes = notes_of(FOUR, 3, random.Random(1))
    office.tell(*notes[:10])
    one = office.associator()
    steps(one)
    client = office.client()
    assert client.xlen(office.keys.notes) == 10, "nothing is trimmed before the checkpoint"
    one._save()
    assert client.xlen(office.keys.notes) == 1, "the entry that it goes up to"
    office.tell(*notes[10:])
    office.expire()
    steps(office.associator())
    assert office.published() == of_one_daemon(FOUR)


def test_what_waits_is_released_when_all_are_silent_and_again_after_a_take_over(
    office: Office, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Three stations of two shards; then one of the shards is gone, and after it the other."""
    first, second = shards_of({name: FOUR[name] for name in sorted(FOUR)[:3]}, 2)
    both = [shard.decide(2) for shard in (first, second)]
    ahead = [first.decide(10), second.decide(5)]
    office.tell(*[note for note in [*both, *ahead] if note])
    one = office.associator()
    steps(one)
    assert office.published() == [], "the third opening is beyond what the second shard has decided"
    monkeypatch.setattr("streamer.association.associator.IDLE_NS", -RULES.hold_ns)
    steps(one, 1)
    monkeypatch.undo()
    steps(one, 1)
    released = office.published()
    assert [event[1] for event in released][:1] == [0]
    office.client().delete(office.keys.events, *[office.keys.seen(str(event[0])) for event in released])
    office.expire()
    steps(office.associator())
    assert office.published() == released, "who takes over comes to the same"


def test_one_with_a_fault_leaves_the_lease(office: Office) -> None:
    one, other = office.associator(), office.associator()
    office.tell(*notes_of(FOUR, 2, random.Random(1)))
    one._take = None  # type: ignore[assignment,method-assign]
    asked, metrics = Asked(), AssociatorMetrics()
    life = Life(one, office.client(), metrics)
    rounds = iter([False, True])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Asked, "stop", property(lambda _: next(rounds)))
        life.run(asked)
    assert metrics.registry.get_sample_value("quake_associator_failures_total", {"cause": "internal"}) == 1
    steps(other)
    assert other.holds
    assert office.published() == of_one_daemon(FOUR)


def test_a_note_that_cannot_be_read_is_passed_over(office: Office) -> None:
    notes = notes_of(FOUR, 2, random.Random(1))
    office.tell("{", *notes)
    steps(office.associator())
    assert office.published() == of_one_daemon(FOUR)


def test_a_checkpoint_of_a_newer_release_is_not_overwritten(office: Office, caplog: pytest.LogCaptureFixture) -> None:
    office.client().set(office.keys.checkpoint, '{"entry": "1-0", "state": {"news": 1}}')
    one = office.associator()
    steps(one)
    assert not one.holds
    assert "another release" in caplog.text
    assert "news" in str(office.client().get(office.keys.checkpoint))


def test_an_emptied_redis_gets_its_events_again(own_valkey: OwnValkey) -> None:
    office = Office(Valkey(own_valkey.url, "{q}"))
    notes = notes_of(FOUR, 3, random.Random(1))
    one = office.associator()
    office.tell(*notes[:40])
    steps(one)
    before = office.published()
    assert before
    office.client().flushall()
    office.tell(*notes[40:])
    for _ in range(4):
        try:
            one.step()
        except EpochError:
            one.fail()
    assert office.published() == of_one_daemon(FOUR)
    for client in office.clients:
        client.close()


# -- the way there ------------------------------------------------------------------------------------------------------------


def test_notes_go_through_the_outbox_in_their_order(office: Office, tmp_path: Path) -> None:
    """By the real publisher, which is killed before it has marked anything; and no heartbeat without an associator."""
    path, notes = tmp_path / "outbox.sqlite", notes_of(FOUR, 1, random.Random(1))
    with Outbox(path) as outbox:
        for note in notes[:100]:
            outbox.commit(Progress(note=note))
    with_settings = publish_settings(office.valkey.url, office.valkey.prefix, has_associator=True)
    client = office.client()
    with publishing(path, with_settings, None):
        until(lambda: client.xlen(office.keys.notes) == len(notes[:100]))
        assert not client.hgetall(office.keys.heartbeat), "nobody decides events: it must not beat"
    with Outbox(path) as outbox:
        outbox._db.execute("UPDATE note SET sent = 0")
        for note in notes[100:]:
            outbox.commit(Progress(note=note))
    one = office.associator()
    steps(one, 1)
    with publishing(path, with_settings, None):
        until(lambda: client.hgetall(office.keys.heartbeat))
    with suppress(redis.RedisError):
        steps(one, 3)
    assert office.published() == of_one_daemon(FOUR)
    entries: Any = client.xrange(office.keys.notes)
    assert len(entries) == len(notes) + len(notes[:100])


def test_where_nobody_associates_notes_wait_in_the_outbox(
    office: Office, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("streamer.teller.MOST_UNREAD", 10)
    path, notes = tmp_path / "outbox.sqlite", notes_of(FOUR, 1, random.Random(1))
    with Outbox(path) as outbox:
        for note in notes:
            outbox.commit(Progress(note=note))
        assert outbox.notes_waiting() == len(notes)
        client, one = office.client(), office.associator()
        with publishing(path, publish_settings(office.valkey.url, office.valkey.prefix, has_associator=True), None):
            until(lambda: client.xlen(office.keys.notes) == 10)
            until(lambda: outbox.notes_waiting() == len(notes) - 10)
            until(lambda: steps(one, 1) or len(office.published()) >= len(of_one_daemon(FOUR)))
        assert outbox.notes_waiting() == 0
    assert office.published() == of_one_daemon(FOUR)


def test_an_associator_needs_shards_that_tell_it(tmp_path: Path) -> None:
    content: dict[str, Any] = {"source": [{"servers": ["seedlink://x"], "select": ["*.*"]}]}
    with pytest.raises(ConfigError, match=r"associator\.enabled is not set"):
        settings_of(resolve(content, tmp_path / "quake.toml"))
    content["associator"] = {"enabled": True}
    assert settings_of(resolve(content, tmp_path / "quake.toml")).lease_s == 6.0
    with pytest.raises(ConfigError, match="there would be nothing to decide"):
        resolve({**content, "coincidence": False}, tmp_path / "quake.toml")
