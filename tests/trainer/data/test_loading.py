"""Batches are the same bit for bit whoever makes them, and what goes wrong in a worker is one clear error."""

from __future__ import annotations

import multiprocessing
import os
import signal
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from multiprocessing.process import BaseProcess

import numpy as np
import pytest
import torch

from quake.data.image import imagenet_normalise
from quake.data.seisbench import DataError
from quake.data.spec import AZIMUTH_HEAD, MAGNITUDE_HEAD, Head
from quake.data.spectrogram import SpectrogramShape, spectrogram
from trainer.data.doubt import Doubt
from trainer.data.drawing import Drawer, Sampling, Windows
from trainer.data.loading import Batch, ItemMaker, ItemNumbers, View, training_batches, validation_batches
from trainer.data.record import Example, Material, Record
from trainer.section import RecipeError

EVENT_HEAD = Head(name="event", classes=("noise", "earthquake"))
LENGTH = 2080
LEAD = 6000
VIEW = View(LENGTH, SpectrogramShape(), (EVENT_HEAD,))
PICTURE = SpectrogramShape(
    normalisation="demean",
    representation="cross_decibel",
    image_size=(48, 40),
    image_normalisation="imagenet",
    floor_db=-60,
    ceiling_db=40,
)
Image = np.ndarray


def records() -> list[Record]:
    rng = np.random.default_rng(0)
    made = []
    for number in range(8):
        samples = rng.standard_normal((3, LEAD + 4000)).astype(np.float32)
        if number % 2:
            samples[:, LEAD + 1500 :] *= 20
            made.append(Record(f"quake{number}", "one", f"q{number}", samples, "earthquake", LEAD + 1500))
        else:
            made.append(Record(f"noise{number}", "one", "", samples, "noise"))
    return made


def drawer_of(some: Sequence[Record]) -> Drawer:
    return Drawer.of(some, Windows(silence_share=0.1), Sampling(), (EVENT_HEAD,))


@dataclass(frozen=True)
class Louder:
    """Adds noise of another window to a longer cut."""

    def length(self, n: int) -> int:
        return n + 37

    def apply(self, example: Example, rng: np.random.Generator, material: Material) -> Example:
        noise = material.noise(rng, example.samples.shape[1])
        return example.having(example.samples + noise * np.float32(rng.uniform(0.1, 1))).last(LENGTH)


@dataclass(frozen=True)
class Steps:
    """Before ImageNet's statistics are taken off: a random factor; after: a random offset, or torch's threads."""

    tell_threads: bool = False

    def apply(self, image: Image, rng: np.random.Generator) -> Image:
        return image * np.float32(rng.uniform(0.5, 1))

    def after(self, image: Image, rng: np.random.Generator) -> Image:
        if self.tell_threads:
            return np.full_like(image, torch.get_num_threads())
        return image + np.float32(rng.uniform(0, 1))


@dataclass(frozen=True)
class Wrong:
    """A fault in the program."""

    def length(self, n: int) -> int:
        return n

    def apply(self, example: Example, rng: np.random.Generator, material: Material) -> Example:
        raise RuntimeError("this is a bug")


@pytest.fixture(scope="module")
def maker() -> ItemMaker:
    return ItemMaker(drawer_of(records()), VIEW, seed=5, waveform=Louder(), image=Steps())


def assert_same(batches: Iterator[Batch] | Sequence[Batch], expected: Sequence[Batch]) -> None:
    for batch, other in zip(batches, expected, strict=True):
        assert torch.equal(batch.items, other.items)
        assert torch.equal(batch.images, other.images)
        assert all(map(torch.equal, batch.targets, other.targets))


def started_since(others: Sequence[BaseProcess]) -> list[BaseProcess]:
    return [process for process in multiprocessing.active_children() if process not in others]


def send(number: signal.Signals, processes: Sequence[BaseProcess]) -> None:
    for process in processes:
        assert process.pid is not None
        os.kill(process.pid, number)


@pytest.mark.parametrize("workers", [0, 1, 2])
def test_workers_change_nothing(maker: ItemMaker, workers: int) -> None:
    expected = [maker.batch(range(begin, begin + 6)) for begin in range(12, 42, 6)]
    assert_same(training_batches(maker, 12, 5, 6, workers=workers), expected)


def test_ranks_together_make_the_batch_of_one_process(maker: ItemMaker) -> None:
    whole = list(training_batches(maker, 100, 3, 10))
    parts = zip(*(training_batches(maker, 100, 3, 5, rank=rank, world=2) for rank in range(2)), strict=True)
    united = [
        Batch(
            torch.cat([part.images for part in pair]),
            (torch.cat([part.targets[0] for part in pair]),),
            torch.cat([part.items for part in pair]),
        )
        for pair in parts
    ]
    assert_same(united, whole)


def test_a_run_that_goes_on_in_the_middle_has_the_batches_of_one_that_did_not_stop(maker: ItemMaker) -> None:
    assert_same(training_batches(maker, 3 * 7, 2, 7, workers=1), list(training_batches(maker, 0, 5, 7))[3:])


def test_numbers_by_hand() -> None:
    assert list(ItemNumbers(first=100, steps=2, batch_size=3, rank=1, world=2)) == [[103, 104, 105], [109, 110, 111]]


@pytest.mark.parametrize(
    "shape", [SpectrogramShape(), PICTURE, SpectrogramShape(nperseg=50, hop=37, padded=True, taper_fraction=0.1)]
)
@pytest.mark.parametrize("image", [None, Steps()])
def test_an_item_is_the_same_alone_and_in_any_batch(shape: SpectrogramShape, image: Steps | None) -> None:
    maker = ItemMaker(drawer_of(records()), View(LENGTH, shape, (EVENT_HEAD,)), 1, Louder(), image)
    batch = maker.batch(range(7))
    for item in (0, 3, 6):
        made = maker.make(item)
        np.testing.assert_array_equal(made.image, batch.images[item].numpy())
    assert not torch.equal(batch.images[1], batch.images[3])


def test_images_are_spectrograms_and_targets_classes() -> None:
    maker = ItemMaker(drawer_of(records()), VIEW, 1)
    batch = maker.batch([4, 5])
    assert (batch.images.shape, batch.images.dtype, len(batch)) == ((2, 3, 33, 64), torch.float32, 2)
    assert batch.targets[0].tolist() == [[1, 0], [0, 1]]
    assert batch.items.tolist() == [4, 5]
    assert batch.samples is None
    np.testing.assert_array_equal(batch.images[1].numpy(), spectrogram(maker.make(5).example.samples))


def test_images_are_augmented_before_and_after_imagenet_statistics_are_taken_off() -> None:
    view = View(LENGTH, PICTURE, (EVENT_HEAD,))
    made = ItemMaker(drawer_of(records()), view, 1, image=Steps()).make(3)
    rng = np.random.default_rng([1, 3])
    window = drawer_of(records()).draw(rng, 3, LENGTH).samples
    plain = spectrogram(window, replace(PICTURE, image_normalisation="none"))
    factor, offset = rng.uniform(0.5, 1), rng.uniform(0, 1)
    np.testing.assert_allclose(made.image, imagenet_normalise(plain * factor) + offset, atol=1e-5)


def test_kept_samples_end_with_the_window() -> None:
    maker = ItemMaker(drawer_of(records()), VIEW, 1, keep_samples=3001)
    batch = maker.batch(range(4))
    assert batch.samples is not None
    assert batch.samples.shape == (4, 3, 3001)
    np.testing.assert_array_equal(batch.images.numpy(), spectrogram(batch.samples[:, :, -LENGTH:].numpy()))
    short = replace(maker, keep_samples=500).batch(range(4))
    assert short.samples is not None
    window = replace(maker, keep_samples=0).make(2).example.samples
    np.testing.assert_array_equal(short.samples[2].numpy(), window[:, -500:])


def test_silence_stays_silence() -> None:
    drawer = Drawer.of(records(), Windows(silence_share=1), Sampling(), (EVENT_HEAD,))
    maker = ItemMaker(drawer, VIEW, 1, Louder())
    assert not maker.make(0).example.samples.any()
    assert maker.make(1).example.samples.any()
    assert maker.describe(0) == "item 0 (silence)"


def test_a_batch_is_told_by_the_records_drawn_for_it(maker: ItemMaker) -> None:
    plain, added = replace(maker, waveform=None), maker
    assert plain.describe(1) in {f"item 1 (quake{n})" for n in range(1, 8, 2)}
    own, other = added.describe(1).removeprefix("item 1 (").removesuffix(")").split(", ")
    assert own.startswith("quake")
    assert other in {record.name for record in records()}
    before = maker.make(1).image
    maker.describe(1)
    np.testing.assert_array_equal(maker.make(1).image, before)


@pytest.mark.parametrize("workers", [0, 1])
def test_what_is_not_finite_names_item_and_record(workers: int) -> None:
    bad = [replace(record, samples=record.samples.copy()) for record in records()]
    bad[1].samples[0, LEAD + 1500 :] = np.nan
    maker = ItemMaker(drawer_of(bad), VIEW, 1)
    says = r"^NaN or infinity in a window or its image: (item \d*[13579] \(quake1\)(; )?)+$"
    others = multiprocessing.active_children()
    with pytest.raises(DataError, match=says):
        list(training_batches(maker, 0, 20, 8, workers=workers))
    assert not started_since(others)


def test_an_image_that_is_not_finite_is_refused(maker: ItemMaker) -> None:
    class Infinite(Steps):
        def after(self, image: Image, rng: np.random.Generator) -> Image:
            return image / np.float32(0)

    with pytest.raises(DataError, match=r"item 1 \(quake\d, .*\)"), np.errstate(divide="ignore"):
        replace(maker, image=Infinite()).batch([1])


def test_a_killed_worker_is_an_error_and_no_hang(maker: ItemMaker) -> None:
    others = multiprocessing.active_children()
    batches = training_batches(maker, 0, 10_000, 4, workers=2)
    next(batches)
    began = time.monotonic()
    send(signal.SIGKILL, started_since(others)[:1])
    with pytest.raises(DataError, match=r"a worker process of the loader died .*fewer workers.*: .+"):
        list(batches)
    assert time.monotonic() - began < 30
    assert not started_since(others)


def test_a_bug_in_a_worker_is_told_as_it_is(maker: ItemMaker) -> None:
    wrong = replace(maker, waveform=Wrong())
    with pytest.raises(RuntimeError, match=r"(?s)Caught RuntimeError.*this is a bug"):
        list(training_batches(wrong, 0, 1, 2, workers=1))
    with pytest.raises(RuntimeError, match=r"^this is a bug$"):
        list(training_batches(wrong, 0, 1, 2))


def test_workers_leave_ctrl_c_to_the_parent_and_end_with_the_iterator(maker: ItemMaker) -> None:
    others = multiprocessing.active_children()
    batches = training_batches(maker, 0, 40, 4, workers=2)
    next(batches)
    assert len(started_since(others)) == 2
    send(signal.SIGINT, started_since(others))
    assert len(list(batches)) == 39
    again = training_batches(maker, 0, 1000, 4, workers=1)
    next(again)
    del again
    assert not started_since(others)


def test_workers_have_one_thread(maker: ItemMaker) -> None:
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        (batch,) = training_batches(replace(maker, image=Steps(tell_threads=True)), 0, 1, 2, workers=1)
    finally:
        torch.set_num_threads(threads)
    assert batch.images.unique().tolist() == [1]


def test_the_process_that_trains_is_left_as_it_was(maker: ItemMaker, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.utils.data._utils.signal_handling, "_SIGCHLD_handler_set", False)  # torch sets it once
    handler, state = signal.getsignal(signal.SIGCHLD), torch.get_rng_state()
    list(training_batches(maker, 0, 2, 2, workers=1))
    assert signal.getsignal(signal.SIGCHLD) == handler
    assert torch.equal(torch.get_rng_state(), state)


def test_a_batch_moves_as_a_whole() -> None:
    maker = ItemMaker(drawer_of(records()), VIEW, 1, keep_samples=10)
    moved = maker.batch([0, 1]).to(torch.device("meta"))
    assert moved.samples is not None
    tensors = (moved.images, *moved.targets, moved.items, moved.samples)
    assert {tensor.device.type for tensor in tensors} == {"meta"}


def test_validation_is_the_same_at_each_call_and_holds_every_record() -> None:
    some = records()
    first, again = (list(validation_batches(some, Windows(), VIEW, 10, 4, seed=3)) for _ in range(2))
    assert [len(batch) for batch in first] == [4, 4, 2]
    assert_same(again, first)
    names = [ItemMaker(Drawer.in_turn(some, Windows(), 3), VIEW, 3).describe(item) for item in range(8)]
    assert {name.split("(")[1].rstrip(")") for name in names} == {record.name for record in some}
    orders = {
        tuple(next(validation_batches(some, Windows(), VIEW, 8, 8, n)).targets[0][:, 0].tolist()) for n in range(5)
    }
    assert len(orders) > 1


def test_several_heads_have_targets_in_their_order() -> None:
    labelled = [replace(r, magnitude=4.5, back_azimuth_deg=90.0) if r.is_event else r for r in records()]
    view = View(LENGTH, PICTURE, (MAGNITUDE_HEAD, AZIMUTH_HEAD))
    (batch,) = validation_batches(labelled, Windows(), view, 8, 8, seed=0)
    magnitude, azimuth = (target.argmax(1).tolist() for target in batch.targets)
    assert sorted(zip(magnitude, azimuth, strict=True)) == [(2, 0)] * 4 + [(3, 4)] * 4


def test_what_does_not_fit_is_refused_before_anything_is_drawn() -> None:
    with pytest.raises(RecipeError, match="the window holds 19 s"):
        ItemMaker(drawer_of(records()), replace(VIEW, window_samples=1900), 1)
    with pytest.raises(DataError, match="quake1: 40 s are too short for a window of 140 s"):
        ItemMaker(drawer_of(records()), VIEW, 1, keep_samples=14_000)


def test_doubt_is_of_the_window_and_of_training_alone() -> None:
    """The same items, but for what labels leave to the other class; validations stay comparable."""
    doubt = Doubt()
    items = range(20)
    plain = ItemMaker(drawer_of(records()), VIEW, seed=5).batch(items)
    made = ItemMaker(drawer_of(records()), VIEW, seed=5, doubt=doubt)
    doubted = made.batch(items)
    assert torch.equal(doubted.images, plain.images)
    left = [doubt.left(made.make(item).example.last(VIEW.window_samples)) for item in items]
    (sure,), (unsure,) = plain.targets, doubted.targets
    assert (sure - unsure).abs().amax(dim=1).tolist() == pytest.approx(left, abs=1e-6)
    (validated,) = validation_batches(records(), Windows(), VIEW, 8, 8, seed=0)
    assert set(validated.targets[0].ravel().tolist()) == {0.0, 1.0}
