"""What is drawn, how often, and which part of it; a sample's value is its index, so that a cut tells where it is from."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from math import sqrt

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from quake.data.seisbench import DataError
from quake.data.spec import AZIMUTH_HEAD, MAGNITUDE_HEAD, Head
from trainer.data.drawing import GUARD, Age, Drawer, Sampling, Windows
from trainer.data.labels import class_of
from trainer.data.record import BY_PICKERS, UNKNOWN, Example, Kind, Record
from trainer.section import RecipeError

EVENT_HEAD = Head(name="event", classes=("noise", "earthquake"))
HEADS = (EVENT_HEAD,)
LENGTH = 2080
LEAD = 6000
DRAWS = 2000
PLAIN = Windows(before_p_share=0, silence_share=0)


def record(
    name: str,
    kind: Kind = "noise",
    p: int = -1,
    s: int = -1,
    *,
    source: str = "one",
    length: int = 5000,
    lead: int = LEAD,
    crowded: bool = False,
    weight: float = 1.0,
    magnitude: float = UNKNOWN,
) -> Record:
    """``p`` and ``s`` count from the first real sample, which is 0; those of the lead are negative."""
    samples = np.arange(-lead, length, dtype=np.float32)[None].repeat(3, axis=0)
    return Record(
        name=name,
        source=source,
        source_id=name,
        samples=samples,
        kind=kind,
        p=p + lead if p >= 0 else -1,
        s=s + lead if s >= 0 else -1,
        lead=lead,
        is_crowded=crowded,
        weight=weight,
        magnitude=magnitude,
    )


def earthquake(name: str = "quake", p: int = 2500, s: int = -1, **more: object) -> Record:
    return record(name, "earthquake", p, s, **more)  # type: ignore[arg-type]


def drawn(drawer: Drawer, count: int = DRAWS) -> list[Example]:
    return [drawer.draw(np.random.default_rng([1, item]), item, LENGTH) for item in range(count)]


def last_index(example: Example) -> int:
    return int(example.samples[0, -1])


def is_share(hits: int, of: int, share: float) -> bool:
    """Within four standard deviations of a binomial."""
    return abs(hits - of * share) <= 4 * sqrt(of * share * (1 - share))


def names_drawn(records: Sequence[Record], sampling: Sampling, heads: Sequence[Head] = HEADS) -> Counter[str]:
    names: list[str] = []
    drawn(Drawer.of(records, PLAIN, sampling, heads).telling(names.append))
    return Counter(names)


def test_classes_come_in_turn() -> None:
    drawer = Drawer.of([record("noise"), earthquake()], Windows(), Sampling(), HEADS)
    assert [class_of(example, EVENT_HEAD) for example in drawn(drawer, 200)] == [0, 1] * 100


def test_turns_pass_over_absent_classes_and_normal_is_noise_or_small() -> None:
    records = [
        earthquake("moderate", magnitude=4.5),
        earthquake("small", magnitude=1.0),
        earthquake("unknown"),
        record("noise", source="two"),
    ]
    sampling = Sampling(head="magnitude")
    drawer = Drawer.of(records, PLAIN, sampling, (MAGNITUDE_HEAD,), {"magnitude": ("Large", "Medium")})
    examples = drawn(drawer)
    assert [class_of(example, MAGNITUDE_HEAD) for example in examples] == [2, 3] * (DRAWS // 2)
    assert is_share(sum(e.kind == "noise" for e in examples), DRAWS // 2, 0.5)  # of Normal; two sources alike
    assert examples[0].magnitude == 4.5


def test_labels_go_with_the_window() -> None:
    labelled = replace(earthquake(magnitude=4.5), back_azimuth_deg=200.0)
    event = Drawer.in_turn([labelled], PLAIN, 0).draw(np.random.default_rng(0), 0, LENGTH)
    assert (event.magnitude, event.back_azimuth_deg) == (4.5, 200.0)
    before = Drawer.in_turn([labelled], PLAIN, 0).noise(np.random.default_rng(0), LENGTH)
    assert before[0, -1] <= 2500 - 100


def phase_shares(s: int, windows: Windows = PLAIN) -> tuple[float, float, float]:
    """Of windows that end within 4 s of P, later, and after S by its draw; S lies 30 s after P."""
    examples = drawn(Drawer.in_turn([earthquake(s=s, length=9000)], windows, 0))
    ages = np.array([LENGTH - example.onset for example in examples])
    assert ages.min() > 0
    return np.mean(ages <= 400), np.mean((ages > 400) & (ages <= 2000)), np.mean(ages > 2000)


def test_ages_are_drawn_by_their_shares() -> None:
    fresh, old, after_s = phase_shares(s=5500)
    assert is_share(round(fresh * DRAWS), DRAWS, 0.45)
    assert is_share(round(old * DRAWS), DRAWS, 0.4)
    assert is_share(round(after_s * DRAWS), DRAWS, 0.15)


def test_where_s_is_not_known_the_next_entry_of_p_is_taken() -> None:
    fresh, old, after_s = phase_shares(s=-1)
    assert is_share(round(fresh * DRAWS), DRAWS, 0.6)
    assert is_share(round(old * DRAWS), DRAWS, 0.4)
    assert after_s == 0
    last = Windows(ages=(Age(phase="P", from_s=1, to_s=2, share=0.5), Age(phase="S", from_s=1, to_s=2, share=0.5)))
    assert phase_shares(s=-1, windows=last)[0] == 1


def test_ages_are_uniform_between_their_bounds() -> None:
    examples = drawn(Drawer.in_turn([earthquake()], PLAIN, 0))
    fresh = np.array([LENGTH - e.onset for e in examples if LENGTH - e.onset <= 400])
    assert fresh.min() == pytest.approx(50, abs=3)
    assert np.quantile(fresh, [0.25, 0.5, 0.75]) == pytest.approx([137.5, 225, 312.5], abs=15)


def test_the_onset_may_lie_in_the_last_second() -> None:
    last_second = Windows(ages=(Age(phase="P", from_s=0.001, to_s=1, share=1),))
    onsets = {e.onset for e in drawn(Drawer.in_turn([earthquake()], last_second, 0))}
    assert onsets == set(range(LENGTH - 100, LENGTH))


def test_windows_end_with_their_record_and_hold_what_lies_there() -> None:
    drawer = Drawer.in_turn([earthquake(length=2700)], PLAIN, 0)
    for example in drawn(drawer, 300):
        assert last_index(example) <= 2699
        assert example.samples[0, example.onset] == 2500
        np.testing.assert_array_equal(np.diff(example.samples[0]), 1)
    assert max(last_index(example) for example in drawn(drawer, 300)) == 2699


def test_noise_is_cut_anywhere_after_the_lead_or_before_p() -> None:
    records = [record("noise", length=4000), earthquake(p=2500)]
    names: list[str] = []
    drawer = Drawer.of(records, Windows(silence_share=0), Sampling(), HEADS).telling(names.append)
    noise = [e for e in drawn(drawer) if e.kind == "noise"]
    ends = np.array([last_index(e) + 1 for e in noise])
    from_events = np.array(names[::2]) == "quake"
    assert is_share(int(from_events.sum()), DRAWS // 2, 0.3)
    assert (ends[from_events].min(), ends[from_events].max()) == pytest.approx((0, 2400), abs=20)
    assert ends[from_events].max() <= 2400
    assert (ends[~from_events].min(), ends[~from_events].max()) == pytest.approx((0, 4000), abs=20)
    assert all(e.onset == LENGTH for e in noise)


@pytest.mark.parametrize("unfit", [earthquake(crowded=True), earthquake(p=200)])
def test_crowded_and_early_records_are_not_cut_before_p(unfit: Record) -> None:
    drawer = Drawer.of([record("noise"), unfit], Windows(before_p_share=1), Sampling(), HEADS)
    assert drawer.quiet.records == ()
    assert drawer.draw(np.random.default_rng(0), 0, LENGTH).kind == "noise"


def test_a_coda_is_noise_from_11_s_after_s_on() -> None:
    quake = earthquake(p=2500, s=2800, length=9000)
    names: list[str] = []
    windows = Windows(before_p_share=0, coda_share=0.4, silence_share=0)
    drawer = Drawer.of([record("noise", length=2400), quake], windows, Sampling(), HEADS).telling(names.append)
    noise = [e for e in drawn(drawer) if e.kind == "noise"]
    in_coda = np.array(names[::2]) == "quake"
    ends = np.array([last_index(e) + 1 for e in noise])[in_coda]
    assert is_share(len(ends), DRAWS // 2, 0.4)
    assert (ends.min(), ends.max()) == pytest.approx((2800 + 1100, 2800 + 1100 + 2000), abs=20)
    assert ends.min() >= 2800 + 1100
    assert all(e.onset == LENGTH for e in noise)


def test_where_s_is_not_known_the_coda_begins_later_and_ends_with_the_record() -> None:
    windows = Windows(before_p_share=0, coda_share=1, silence_share=0)
    drawer = Drawer.of([record("noise"), earthquake(p=2500, length=5000)], windows, Sampling(), HEADS)
    ends = {last_index(e) + 1 for e in drawn(drawer) if e.kind == "noise"}
    assert min(ends) in range(2500 + 1800, 2500 + 1810)
    assert max(ends) in range(4990, 5001)


@pytest.mark.parametrize(
    "unfit",
    [
        earthquake(crowded=True, length=9000),
        earthquake(p=2500, length=2500 + 1799),
        replace(earthquake(length=9000), origin=BY_PICKERS),
        record("noise2", length=9000),
    ],
)
def test_no_coda_is_taken_where_another_earthquake_may_be_or_nothing_is_left(unfit: Record) -> None:
    drawer = Drawer.of([record("noise"), earthquake("fit", length=2600), unfit], Windows(), Sampling(), HEADS)
    assert drawer.codas.records == ()


def test_codas_are_material_but_not_validated_on() -> None:
    records = [record("noise"), earthquake(p=2500, length=9000)]
    windows = Windows(coda_share=1, silence_share=0)
    material = Drawer.of(records, windows, Sampling(), HEADS)
    assert material.noise(np.random.default_rng(0), LENGTH)[0, -1] >= 2500 + 1799
    examples = drawn(Drawer.in_turn(records, windows, 0), 50)
    assert all(last_index(e) < 5000 for e in examples if e.kind == "noise")


def test_silence_has_its_share_of_noise() -> None:
    examples = drawn(Drawer.of([record("noise"), earthquake()], Windows(silence_share=0.1), Sampling(), HEADS))
    silent = [e for e in examples if not e.samples.any()]
    assert is_share(len(silent), DRAWS // 2, 0.1)
    assert {(e.kind, e.onset) for e in silent} == {("noise", LENGTH)}


@pytest.mark.parametrize(("power", "share"), [(0.0, 1 / 2), (0.5, 2 / 3), (1.0, 4 / 5)])
def test_a_sources_share_goes_with_a_power_of_its_size(power: float, share: float) -> None:
    records = [record("noise"), *(earthquake(f"large{n}", source="large") for n in range(4)), earthquake("small")]
    counts = names_drawn(records, Sampling(source_power=power))
    assert is_share(DRAWS // 2 - counts["small"], DRAWS // 2, share)
    assert min(counts[f"large{n}"] for n in range(4)) > 0.8 * share * DRAWS / 8


def test_a_sources_weight_multiplies_its_share() -> None:
    records = [record("noise"), earthquake("heavy", source="two", weight=3.0), earthquake("light")]
    assert is_share(names_drawn(records, Sampling())["heavy"], DRAWS // 2, 0.75)
    assert is_share(names_drawn(records, Sampling(how="natural"))["heavy"], DRAWS, 3 / 5)


def test_natural_takes_every_record_alike() -> None:
    records = [record("noise"), *(earthquake(f"large{n}", source="large") for n in range(3))]
    counts = names_drawn(records, Sampling(how="natural"))
    assert all(is_share(counts[r.name], DRAWS, 0.25) for r in records)


def test_weighted_takes_classes_by_their_weights() -> None:
    records = [record("noise"), record("noise2"), earthquake()]
    sampling = Sampling(how="weighted", class_weights={"earthquake": 4.0}, source_power=1)
    assert is_share(names_drawn(records, sampling)["quake"], DRAWS, 4 / 6)
    unknown = [earthquake("unknown"), earthquake("moderate", magnitude=4.5), record("noise")]
    head = MAGNITUDE_HEAD.model_copy(update={"classes": ("Moderate", "Normal"), "lower_bounds": (4.0,)})
    sampling = Sampling(how="weighted", class_weights={"Moderate": 2.0, "Normal": 0}, source_power=1)
    counts = names_drawn(unknown, sampling, (head,))
    assert counts["noise"] == 0
    assert is_share(counts["unknown"], DRAWS, 1 / 3)


def test_unlabelled_records_have_their_share_and_no_label() -> None:
    records = [record("noise"), earthquake(), record("day", "unlabelled", lead=0, length=LENGTH + 5)]
    examples = drawn(Drawer.of(records, PLAIN, Sampling(unlabelled_share=0.25), HEADS))
    unlabelled = [e for e in examples if e.kind == "unlabelled"]
    assert is_share(len(unlabelled), DRAWS, 0.25)
    assert {last_index(e) - LENGTH + 1 for e in unlabelled} == set(range(6))
    alone = Drawer.of(records[2:], PLAIN, Sampling(unlabelled_share=1), HEADS)
    assert {e.kind for e in drawn(alone, 50)} == {"unlabelled"}
    assert not any(e.kind == "unlabelled" for e in drawn(Drawer.of(records, PLAIN, Sampling(), HEADS), 500))


@given(st.integers(0, 10**12), st.integers(0, 10**12))
def test_an_item_depends_on_no_other(first: int, second: int) -> None:
    drawer = Drawer.of([record("noise"), earthquake(s=2800)], Windows(), Sampling(), HEADS)

    def draw(item: int) -> np.ndarray:
        return drawer.draw(np.random.default_rng([7, item]), item, LENGTH).samples

    alone = draw(first)
    draw(second)
    np.testing.assert_array_equal(draw(first), alone)


def test_each_record_comes_once_before_any_comes_again() -> None:
    records = [record(f"noise{n}") for n in range(7)]
    names: list[str] = []
    drawn(Drawer.in_turn(records, Windows(silence_share=1), 3).telling(names.append), 14)
    assert sorted(names[:7]) == [r.name for r in records]
    assert names[7:] == names[:7]
    assert names[:7] != [r.name for r in records]


def test_cuts_are_copies() -> None:
    event = earthquake()
    drawer = Drawer.of([record("noise"), event], PLAIN, Sampling(), HEADS)
    for example in drawn(drawer, 50):
        example.samples[:] = 0
    assert np.count_nonzero(event.samples) == event.samples.size - 3  # the one sample that is 0


def test_a_lead_that_is_too_short_is_mirrored() -> None:
    drawer = Drawer.in_turn([earthquake(p=300, lead=2000)], PLAIN, 0)
    example = drawer.draw(np.random.default_rng(0), 0, 4000)
    missing = 4000 - (int(example.samples[0, -1]) + 1 + 2000)
    assert missing > 0
    np.testing.assert_array_equal(example.samples[0, :missing], np.arange(missing)[::-1] - 2000)
    np.testing.assert_array_equal(np.diff(example.samples[0, missing:]), 1)


def test_material_is_noise_or_an_earthquake() -> None:
    drawer = Drawer.of([record("noise", length=100), earthquake()], Windows(before_p_share=0.5), Sampling(), HEADS)
    rng = np.random.default_rng(0)
    for _ in range(100):
        assert drawer.noise(rng, LENGTH)[0, -1] < 2400
        assert drawer.earthquake(rng, LENGTH).onset < LENGTH
    only_events = Drawer.in_turn([earthquake()], PLAIN, 0)
    assert only_events.noise(rng, LENGTH)[0, -1] < 2400  # before P, where there is no other
    with pytest.raises(DataError, match="no record of noise"):
        Drawer.in_turn([earthquake(crowded=True)], PLAIN, 0).noise(rng, LENGTH)
    with pytest.raises(DataError, match="no record of an earthquake"):
        Drawer.in_turn([record("noise")], PLAIN, 0).earthquake(rng, LENGTH)


@pytest.mark.parametrize(
    ("records", "sampling", "error", "says"),
    [
        ([earthquake()], Sampling(), DataError, r"head event: no record of noise \(there are: noise 0, earthquake 1\)"),
        ([record("noise")], Sampling(how="natural"), DataError, "no record of earthquake"),
        ([record("noise"), earthquake()], Sampling(head="magnitude"), RecipeError, "no head 'magnitude'.*event"),
        (
            [record("noise"), earthquake()],
            Sampling(how="weighted", class_weights={"quake": 2}),
            RecipeError,
            "no class quake",
        ),
        ([record("noise"), earthquake()], Sampling(unlabelled_share=0.5), DataError, "no record without a label"),
    ],
)
def test_what_cannot_be_drawn_is_named(
    records: list[Record], sampling: Sampling, error: type[Exception], says: str
) -> None:
    with pytest.raises(error, match=says):
        Drawer.of(records, Windows(), sampling, HEADS)


def test_records_that_are_too_short_are_named_beforehand() -> None:
    with pytest.raises(DataError, match=r"stub: 1 s are too short for a window of 20\.8 s"):
        Drawer.in_turn([record("stub", length=100, lead=0)], PLAIN, 0).require(LENGTH)
    with pytest.raises(DataError, match="late: P lies outside of the record, at sample 5000"):
        Drawer.in_turn([earthquake("late", p=5000)], PLAIN, 0).require(LENGTH)
    shortest = earthquake(p=GUARD, lead=LENGTH // 2)
    Drawer.in_turn([shortest], PLAIN, 0).require(LENGTH)
    with pytest.raises(DataError, match="quake: 50 s are too short"):
        Drawer.in_turn([shortest], PLAIN, 0).require(LENGTH + 1)


@given(st.integers(100, 3000), st.integers(0, 400), st.integers(300, 900))
def test_what_is_long_enough_can_be_cut(length: int, lead: int, wanted: int) -> None:
    drawer = Drawer.in_turn([earthquake(p=length // 2, length=length, lead=lead), record("n", length=length)], PLAIN, 0)
    try:
        drawer.require(wanted)
    except DataError:
        return
    for item in range(20):
        example = drawer.draw(np.random.default_rng(item), item, wanted)
        assert example.samples.shape == drawer.noise(np.random.default_rng(item), wanted).shape == (3, wanted)


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: Age(phase="P", from_s=2, to_s=2, share=1), "to_s 2 is not above from_s 2"),
        (lambda: Age(phase="P", from_s=0, to_s=2, share=1), "from_s"),
        (lambda: Windows(ages=(Age(phase="P", from_s=1, to_s=2, share=0.5),)), "the shares of ages make 0.5, not 1"),
        (lambda: Windows(ages=(Age(phase="S", from_s=1, to_s=2, share=1),)), "no entry of P"),
        (lambda: Windows(before_share=0.3), "before_share"),
        (lambda: Sampling(class_weights={"noise": 2}), "go together"),
        (lambda: Sampling(how="weighted"), "go together"),
    ],
)
def test_settings_that_make_no_sense_are_refused(make: Callable[[], object], says: str) -> None:
    with pytest.raises(ValidationError, match=says):
        make()


def test_ages_must_fit_the_window() -> None:
    Windows().require(2000)
    with pytest.raises(RecipeError, match=r"to_s 20 of P is too much: the window holds 19\.99 s"):
        Windows().require(1999)


def test_directions_are_drawn_in_turn_too() -> None:
    events = [replace(earthquake(f"q{n}"), back_azimuth_deg=45.0 * n) for n in range(8)]
    drawer = Drawer.of([record("noise"), *events], PLAIN, Sampling(), (AZIMUTH_HEAD,))
    assert [class_of(e, AZIMUTH_HEAD) for e in drawn(drawer, 18)] == [*range(9)] * 2
