from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

import numpy as np
import pytest
from made_packets import score
from made_scan import CONFIG, EVERY, NOW_NS
from made_scorer import loud_scorer
from numpy.typing import NDArray

from streamer.hooks import Hooks
from streamer.inventory import Stations
from streamer.scan_piece import PieceScorer
from streamer.stages import Score, Unscored, Unused, Window
from streamer.worker import Batcher, Worker

MS = 1_000_000


class Fake:
    """Says of each window what its first sample says."""

    device = "cpu"

    def __init__(self) -> None:
        self.sizes: list[int] = []

    def transform(self, windows: NDArray[np.float32]) -> NDArray[np.float32]:
        self.sizes.append(len(windows))
        return windows

    def score(self, spectrograms: NDArray[np.float32]) -> NDArray[np.float32]:
        earthquake = spectrograms[:, 0, 0]
        return np.stack([1 - earthquake, earthquake], axis=1)

    def warm_up(self, batch_sizes: Iterable[int]) -> None:
        self.sizes += batch_sizes


def window(k: int, probability: float = 0.5) -> Window:
    one = score(k, probability).window
    one.samples[0, 0] = probability
    return one


def test_batches_are_padded_to_the_shapes_and_order_is_kept() -> None:
    fake = Fake()
    worker = Worker(fake, 8, Hooks())
    items = [window(0, 0.25), Unscored("S", 1, 3, Unused.GAP), window(4, 0.75), window(5, 0.5)]
    found = worker.score(items)
    assert worker.shapes == (1, 4, 8)
    assert fake.sizes == [4]
    assert [i.probability if isinstance(i, Score) else i for i in found] == [0.25, items[1], 0.75, 0.5]
    assert worker.score([items[1]]) == [items[1]]
    assert fake.sizes == [4]


@pytest.mark.parametrize(
    ("count", "sizes"),
    [
        (1, [1]),
        (2, [1, 1]),
        (3, [4]),
        (5, [4, 1]),
        (7, [4, 4]),
        (9, [4, 4, 1]),
        (11, [4, 4, 4]),
        (12, [16]),
        (16, [16]),
    ],
)
def test_a_batch_that_would_be_padding_for_the_most_part_is_parted(count: int, sizes: list[int]) -> None:
    fake = Fake()
    found = Worker(fake, 16, Hooks()).score([window(k, k / 32) for k in range(count)])
    assert fake.sizes == sizes
    assert [item.probability for item in found if isinstance(item, Score)] == [k / 32 for k in range(count)]


@pytest.mark.parametrize("broken", [np.nan, np.inf])
def test_what_is_no_number_is_no_probability(broken: float) -> None:
    (item,) = Worker(Fake(), 8, Hooks()).score([window(7, broken)])
    assert item == Unscored(item.subject, 7, 7, Unused.CORRUPT)  # type: ignore[union-attr]


def test_rounding_above_one_is_one() -> None:
    (item,) = Worker(Fake(), 8, Hooks()).score([window(7, 1.0000001)])
    assert isinstance(item, Score)
    assert item.probability == 1.0


def test_a_batch_goes_when_it_is_full_or_has_waited() -> None:
    batcher = Batcher(3, 10 * MS)
    batcher.add([window(0), window(1)], 0)
    assert batcher.take(9 * MS) == []
    assert batcher.wait_s(4 * MS, 1.0) == 0.006
    assert [i.k for i in batcher.take(10 * MS)] == [0, 1]
    batcher.add([window(k) for k in range(7)], 20 * MS)
    assert [len(batcher.take(20 * MS)) for _ in range(3)] == [3, 3, 0]
    assert batcher.windows == 1
    assert batcher.wait_s(20 * MS, 1.0) == 0.01


def test_dropping_for_overload_keeps_other_reasons() -> None:
    batcher = Batcher(3, 10 * MS)
    batcher.add([window(0), Unscored("S", 1, 1, Unused.GAP)], 0)
    assert [i.reason for i in batcher.drop()] == [Unused.OVERLOAD, Unused.GAP]
    assert (batcher.windows, batcher.wait_s(0, 0.3)) == (0, 0.3)


class Refuses(Fake):
    """As `CompiledModel` does for what it has no finite answer to."""

    def score(self, spectrograms: NDArray[np.float32]) -> NDArray[np.float32]:
        if (spectrograms[:, 0, 0] > 0.9).any():
            raise ValueError("the network's answer is not finite")
        return super().score(spectrograms)


def test_one_window_without_an_answer_does_not_cost_the_others() -> None:
    found = Worker(Refuses(), 8, Hooks()).score([window(1, 0.25), window(2, 0.95), window(3, 0.5)])
    assert [item.probability if isinstance(item, Score) else str(item.reason) for item in found] == [
        0.25,
        "corrupt",
        0.5,
    ]


class OnGpu(Fake):
    """Is asked for both stages at once."""

    device = "cuda"

    def transform(self, windows: NDArray[np.float32]) -> NDArray[np.float32]:
        raise AssertionError("a batch would have to come back from the GPU")

    def predict(self, windows: NDArray[np.float32]) -> NDArray[np.float32]:
        self.sizes.append(len(windows))
        return super().score(windows)


class Stages(Hooks):
    def __init__(self) -> None:
        self.named: list[str] = []

    def stage(self, name: str, seconds: float) -> None:
        assert seconds >= 0
        self.named.append(name)


def test_a_gpu_is_asked_once_a_batch() -> None:
    gpu, cpu, there, here = OnGpu(), Fake(), Stages(), Stages()
    items = [window(0, 0.25), window(1, 0.75), window(2, 0.5)]
    assert Worker(gpu, 8, there).score(items) == Worker(cpu, 8, here).score(items)
    assert gpu.sizes == cpu.sizes == [4]
    assert (there.named, here.named) == (["network"], ["transform", "network"])
    assert Worker(gpu, 8, there).score([]) == []
    Worker(gpu, 16, there).score([window(k) for k in range(7)])
    assert gpu.sizes == [4, 16], "padding costs it less than a second batch"


@pytest.mark.parametrize(("model", "warm"), [(OnGpu(), [1, 4, 16]), (Fake(), [])])
def test_a_gpu_is_warm_before_a_scan(model: Fake, warm: list[int]) -> None:
    """There are graphs of the shapes that were warmed up, and of no others; on the CPU it would only take time."""
    scorer = replace(loud_scorer(0.0, 1.0, EVERY), model=model)  # type: ignore[arg-type]
    PieceScorer(CONFIG, scorer, Stations({}, {}), NOW_NS)
    assert model.sizes == warm


class Lost(OnGpu):
    """As a GPU that has fallen off the bus, or has no memory left: torch raises kinds of RuntimeError."""

    def predict(self, windows: NDArray[np.float32]) -> NDArray[np.float32]:
        raise RuntimeError("CUDA out of memory")


def test_a_lost_device_is_left_for_the_cpu_and_told(caplog: pytest.LogCaptureFixture) -> None:
    cpu = Fake()
    worker = Worker(Lost(), 8, Hooks(), on_cpu=lambda: cpu)
    items = [window(1, 0.25), window(2, 0.75), window(3, 0.5)]
    for _ in range(2):
        assert [item.probability for item in worker.score(items) if isinstance(item, Score)] == [0.25, 0.75, 0.5]
    assert [record.levelname for record in caplog.records] == ["ERROR"]
    assert "going on on the CPU: CUDA out of memory" in caplog.text
    assert cpu.sizes == [4, 4], "the batch that was lost is asked again as a whole"


def test_without_a_way_back_the_fault_goes_on() -> None:
    with pytest.raises(RuntimeError, match="out of memory"):
        Worker(Lost(), 8, Hooks()).score([window(1)])


def test_what_the_cpu_raises_goes_on_too() -> None:
    worker = Worker(Lost(), 8, Hooks(), on_cpu=Lost)
    with pytest.raises(RuntimeError, match="out of memory"):
        worker.score([window(1)])
