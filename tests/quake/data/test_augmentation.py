"""Random changes of waveforms: what each keeps, how far each goes, and that the same seed draws the same."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from quake.data.augmentation import (
    AddGaussianNoise,
    AddNoise,
    AmplitudeScale,
    ChannelDropout,
    Compose,
    RandomApply,
    TimeShift,
    TimeStretch,
)

N = 1000
ALL = (TimeShift(), AddNoise(), AmplitudeScale(), TimeStretch(), ChannelDropout(), RandomApply(TimeShift(), p=0.5))


def record(*shape: int) -> Tensor:
    """(..., 3, N)"""
    return torch.randn(*shape, 3, N, generator=torch.Generator().manual_seed(0)) * 50 + 7


def drawn(module: nn.Module, samples: Tensor, count: int = 200) -> list[Tensor]:
    torch.manual_seed(0)
    return [module(samples) for _ in range(count)]


@pytest.mark.parametrize("module", ALL, ids=lambda module: type(module).__name__)
@pytest.mark.parametrize("shape", [(), (4,), (2, 2)])
def test_shape_and_input_remain_and_the_seed_decides(module: nn.Module, shape: tuple[int, ...]) -> None:
    samples = record(*shape)
    before = samples.clone()
    first, second = drawn(module, samples, 20), drawn(module, samples, 20)
    assert all(changed.shape == samples.shape and changed.dtype == samples.dtype for changed in first)
    assert all(torch.equal(*pair) for pair in zip(first, second, strict=True))
    assert any(not torch.equal(first[0], changed) for changed in first[1:])
    assert torch.equal(samples, before)


def test_time_shift_turns_all_components_together_and_not_too_far() -> None:
    ramp = torch.arange(N).expand(3, N)
    shifts = []
    for shifted in drawn(TimeShift(0.1), ramp, 600):
        shifts.append(int(shifted[0, 0]))
        assert torch.equal(shifted, ramp.roll(-shifts[-1], dims=-1))
    signed = [(shift + N // 2) % N - N // 2 for shift in shifts]
    assert (min(signed) < -90, max(signed) > 90, max(map(abs, signed)) <= 100) == (True, True, True)


def test_noise_lies_as_far_below_the_signal_as_was_drawn() -> None:
    samples = record()
    samples[2] = 7.0
    for noisy in drawn(AddNoise(snr_min=15, snr_max=40), samples):
        ratio = samples[:2].std(dim=-1) / (noisy - samples)[:2].std(dim=-1)
        decibels = 20 * ratio.log10()
        assert 14 < decibels.min() <= decibels.max() < 41
        assert decibels.max() - decibels.min() < 2
        assert torch.equal(noisy[2], samples[2])
    (exact,) = drawn(AddNoise(20, 20), samples, 1)
    assert float((exact - samples)[0].std() / samples[0].std()) == pytest.approx(0.1, rel=0.1)
    assert AddGaussianNoise is AddNoise


def test_amplitudes_are_scaled_by_one_factor() -> None:
    samples = record()
    factors = [float((scaled / samples).mean()) for scaled in drawn(AmplitudeScale(0.5, 2.0), samples)]
    assert 0.5 <= min(factors) < 0.6
    assert 1.9 < max(factors) <= 2.0
    (scaled,) = drawn(AmplitudeScale(3.0, 3.0), samples, 1)
    torch.testing.assert_close(scaled, 3 * samples)


@pytest.mark.parametrize("rate", [0.8, 1.0, 1.25])
def test_time_is_stretched(rate: float) -> None:
    times = torch.arange(N, dtype=torch.float64)
    wave = torch.stack([torch.sin(times / 40), torch.cos(times / 40), times])
    played = drawn(TimeStretch(rate, rate), wave, 1)[0].numpy()
    end = min(int(N / rate), N) - 2
    expected = (np.arange(1, end) + 0.5) * rate - 0.5  # where the middle of a sample came from
    np.testing.assert_allclose(played[2, 1:end], expected, atol=1e-9)
    np.testing.assert_allclose(played[0, 1:end], np.sin(expected / 40), atol=1e-3)
    assert not played[:, int(N / rate) + 1 :].any()


def test_components_fail_at_the_rate_asked_for_but_never_all() -> None:
    dead = [int((~dropped.any(dim=-1)).sum()) for dropped in drawn(ChannelDropout(0.3, max_channels=2), record(), 1000)]
    assert set(dead) == {0, 1, 2}
    assert np.mean(np.array(dead) > 0) == pytest.approx(0.3, abs=0.05)
    which = [int((~dropped.any(dim=-1)).int().argmax()) for dropped in drawn(ChannelDropout(1.0), record())]
    assert set(which) == {0, 1, 2}


def test_compose_and_random_apply() -> None:
    samples = record()
    twice = Compose([AmplitudeScale(2, 2), AmplitudeScale(3, 3)])
    torch.testing.assert_close(twice(samples), 6 * samples)
    sometimes = drawn(RandomApply(AmplitudeScale(2, 2), p=0.25), samples, 1000)
    assert np.mean([not torch.equal(changed, samples) for changed in sometimes]) == pytest.approx(0.25, abs=0.05)
    assert all(torch.equal(changed, samples) for changed in drawn(RandomApply(AmplitudeScale(2, 2), p=0.0), samples))
    assert not any(torch.equal(changed, samples) for changed in drawn(RandomApply(AmplitudeScale(2, 2), p=1), samples))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: RandomApply(TimeShift(), p=1.5), "p must lie between 0 and 1, not 1.5"),
        (lambda: TimeShift(-0.1), "max_shift must lie between 0 and 1, not -0.1"),
        (lambda: AddNoise(40, 15), "snr_min 40 is above snr_max 15"),
        (lambda: AmplitudeScale(1.1, 0.9), "scale_min 1.1 is above scale_max 0.9"),
        (lambda: TimeStretch(0.0, 1.0), "rate_min must be above 0, not 0.0"),
        (lambda: ChannelDropout(p_drop=2), "p_drop must lie between 0 and 1, not 2"),
        (lambda: ChannelDropout(max_channels=0), "max_channels must be at least 1, not 0"),
        (lambda: ChannelDropout(max_channels=3)(record()), "max_channels 3 would leave none of 3 components"),
    ],
)
def test_what_makes_no_sense_is_refused(make: Callable[[], object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()
