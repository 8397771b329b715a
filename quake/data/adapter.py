"""Labelled events -> training and test data sets for torch.

An event is three components of one station: a pandas DataFrame with a column for each, an ObsPy Stream, or an array.
`WaveformDataAdapter` prepares them once, in this order, each step only if its `TransformOP` is given:

1. DROP_NAN drops the samples at which any component is NaN, and what remains is joined;
2. TRIMMING cuts all events to the shortest;
3. PCA turns the components, less their means, onto the principal axes of their covariance (polarisation): the largest
   first, each axis signed so that its largest coefficient is positive;
4. ZSCORE brings each component to mean 0 and standard deviation 1; one that does not vary becomes zeros;
5. FFT takes ``|rfft(x, n=fft_size)|``, or SPECTROGRAM the magnitude of the short-time Fourier transform, not padded,
   scaled as `scipy.signal.stft` does it.

PCA comes before ZSCORE: once all components have the same variance, their covariance no longer tells how the ground
moved. Items are (channels, N), torch's convention and that of this product, where documents that users come from have
(N, channels). Random changes to items are not made here but by the transforms given to `get_datasets`.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from enum import IntFlag
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor
from torch.utils.data import Dataset

from quake.data.spectrogram import SpectrogramShape, spectrogram, standardise
from quake.data.split import encode, split_events

if TYPE_CHECKING:
    from typing import TypeAlias

    from obspy import Stream

    Event: TypeAlias = pd.DataFrame | Stream | NDArray[Any]

Samples = NDArray[np.float64]
Transform = Callable[[Tensor], Tensor]

LARGEST = 1e30
"""Of a sample, in any unit: what is larger is a fault, and its spectrum would be no float32."""
NO_MOTION = 1e-12
"""Share of the largest axis's variance below which an axis holds float64's rounding alone: 1e-16 of it, or 1e-14 beside
an offset a billion times larger than the motion. ZSCORE would make a signal of it."""


class TransformOP(IntFlag):
    """Steps of preparation; FFT and SPECTROGRAM exclude each other."""

    NONE = 0
    DROP_NAN = 1
    TRIMMING = 2
    ZSCORE = 4
    PCA = 8
    FFT = 16
    SPECTROGRAM = 32


class WaveformDataset(Dataset[tuple[Tensor, int]]):
    """Prepared events of one side; an item is (float32 tensor, index of its label in ``classes``)."""

    def __init__(
        self,
        prepared: Tensor,
        codes: Tensor,
        classes: tuple[Hashable, ...],
        events: Tensor,
        transform: Transform | None,
    ) -> None:
        self._prepared = prepared  # (all events, channels, ...), shared by both sides
        self.events = events
        """(n,) place of each item's event in the list that the adapter was given."""
        self.labels = codes[events]
        """(n,) indices in ``classes``."""
        self.classes = classes
        """The labels as they were given, sorted."""
        self.transform = transform

    def __len__(self) -> int:
        return len(self.events)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        item = self._prepared[self.events[index]].clone()  # a transform may write in place
        return item if self.transform is None else self.transform(item), int(self.labels[index])


class WaveformDataAdapter:
    """Prepares events and divides them into a training and a test side.

    ``events``: DataFrames with the columns ``channels``; ObsPy Streams with one trace for each, found by the last
    letter of the channel code; or (N, channels) arrays. Any unit. ``labels``: one for each event, all of one type.
    ``fft_size``: samples that FFT reads from the beginning; zeros follow where an event is shorter. ``groups``: one
    for each event; events of one group (an earthquake) are never on both sides. Without it the split is stratified by
    label. ``test_ratio``: share of the test side, met as nearly as groups allow. ``seed``: of the split.

    Items are float32: (channels, N) samples, (channels, fft_size // 2 + 1) or (channels, frequencies, frames).
    ValueError where an event cannot be read, has NaN (unless DROP_NAN) or infinity, differs in length (unless
    TRIMMING), or where a class cannot be on both sides; it names the event by its place in the list, or the class.
    """

    def __init__(
        self,
        events: Sequence[Event],
        labels: ArrayLike,
        channels: Sequence[str] = ("Z", "N", "E"),
        fft_size: int = 32,
        stft_nperseg: int = 64,
        stft_hop: int = 32,
        transforms: TransformOP = TransformOP.NONE,
        test_ratio: float = 0.3,
        seed: int = 0,
        groups: ArrayLike | None = None,
    ) -> None:
        transforms = TransformOP(transforms)
        if TransformOP.FFT in transforms and TransformOP.SPECTROGRAM in transforms:
            raise ValueError("FFT and SPECTROGRAM exclude each other")
        if fft_size < 1:
            raise ValueError(f"fft_size must be at least 1, not {fft_size}")
        self.channels = tuple(channels)
        self.transforms = transforms
        self.fft_size = fft_size
        self.shape = SpectrogramShape(stft_nperseg, stft_hop, normalisation="none", representation="magnitude")
        self._codes, self.classes = encode("labels", labels)
        if not len(events) or len(self._codes) != len(events):
            raise ValueError(f"{len(self._codes)} labels for {len(events)} events")
        self._in_test = split_events(labels, groups, test_ratio, seed)
        self._prepared = self._prepare([self._read(index, event) for index, event in enumerate(events)])

    def get_datasets(
        self, transform_train: Transform | None = None, transform_test: Transform | None = None
    ) -> tuple[WaveformDataset, WaveformDataset]:
        """(training, test); a transform is applied to an item each time that it is read."""
        shared = self._prepared, torch.from_numpy(self._codes), self.classes
        train, test = (torch.from_numpy(np.flatnonzero(side)) for side in (~self._in_test, self._in_test))
        return WaveformDataset(*shared, train, transform_train), WaveformDataset(*shared, test, transform_test)

    def _read(self, index: int, event: Event) -> Samples:
        """(channels, N) finite samples."""
        try:
            samples = _samples(event, self.channels)
        except (TypeError, ValueError) as error:
            raise ValueError(f"event {index}: {error}") from error
        if TransformOP.DROP_NAN in self.transforms:
            samples = samples[:, ~np.isnan(samples).any(axis=0)]
        if not samples.shape[1]:
            raise ValueError(f"event {index}: no samples")
        if not (np.abs(samples) < LARGEST).all():
            what = "NaN (DROP_NAN would drop it)" if np.isnan(samples).any() else f"infinity, or more than {LARGEST:g}"
            raise ValueError(f"event {index}: holds {what}")
        return samples

    def _prepare(self, events: list[Samples]) -> Tensor:
        """(n, channels, ...) float32."""
        lengths = [samples.shape[1] for samples in events]
        shortest = int(np.argmin(lengths))
        if TransformOP.TRIMMING not in self.transforms and max(lengths) > lengths[shortest]:
            longest = int(np.argmax(lengths))
            pair = f"event {shortest} has {lengths[shortest]}, event {longest} {lengths[longest]}"
            raise ValueError(
                f"events differ in their number of samples: {pair} (TRIMMING would cut all to the shortest)"
            )
        if TransformOP.SPECTROGRAM in self.transforms and lengths[shortest] < self.shape.nperseg:
            raise ValueError(
                f"event {shortest}: {lengths[shortest]} samples are fewer than one frame of {self.shape.nperseg}"
            )
        return torch.from_numpy(np.stack([self._transformed(samples[:, : lengths[shortest]]) for samples in events]))

    def _transformed(self, samples: Samples) -> NDArray[np.float32]:
        """(channels, N) -> (channels, ...)"""
        if TransformOP.PCA in self.transforms:
            samples = principal_components(samples)
        if TransformOP.ZSCORE in self.transforms:
            samples = standardise(samples)
        if TransformOP.FFT in self.transforms:
            samples = np.abs(np.fft.rfft(samples, n=self.fft_size))  # (channels, fft_size // 2 + 1)
        if TransformOP.SPECTROGRAM in self.transforms:
            return spectrogram(samples, self.shape)  # (channels, frequencies, frames)
        return samples.astype(np.float32)


def principal_components(samples: Samples) -> Samples:
    """(C, N) -> (C, N) the components along the principal axes of their covariance, largest first, mean 0.

    An axis's largest coefficient is positive, the first where several are equally large. Axes along which nothing
    moves give zeros.
    """
    centred = samples - samples.mean(axis=1, keepdims=True)
    variances, axes = np.linalg.eigh(centred @ centred.T)  # ascending; an axis is a column
    variances, axes = variances[::-1], axes[:, ::-1]
    largest = np.abs(axes).argmax(axis=0)  # (C,) row of each axis's largest coefficient
    axes = axes * np.sign(axes[largest, np.arange(len(axes))])
    moving = variances > NO_MOTION * variances[0]
    return np.where(moving[:, None], axes.T @ centred, 0.0)  # (C, C) @ (C, N)


def _samples(event: Event, channels: tuple[str, ...]) -> Samples:
    """(channels, N) as they stand in the event."""
    if isinstance(event, pd.DataFrame):
        return _columns(event, channels)
    if hasattr(event, "traces"):  # an ObsPy Stream, without importing ObsPy
        return _traces(event, channels)
    array = np.ma.filled(np.ma.asarray(event, dtype=np.float64), np.nan)
    if array.ndim != 2 or array.shape[1] != len(channels):
        raise ValueError(f"an array must have the shape (N, {len(channels)}), not {array.shape}")
    return array.T


def _columns(frame: pd.DataFrame, channels: tuple[str, ...]) -> Samples:
    names = list(frame.columns)
    for channel in channels:
        if names.count(channel) != 1:
            raise ValueError(f"{names.count(channel)} columns {channel!r}, one expected (columns: {names})")
    return frame[list(channels)].to_numpy(dtype=np.float64, na_value=np.nan).T


def _traces(stream: Stream, channels: tuple[str, ...]) -> Samples:
    """Masked samples become NaN."""
    codes = [trace.stats.channel for trace in stream]
    chosen = []
    for channel in channels:
        found = [trace for trace in stream if trace.stats.channel[-1:] == channel]
        if len(found) != 1:
            raise ValueError(f"{len(found)} traces of component {channel!r}, one expected (channels: {codes})")
        chosen += found
    first = chosen[0].stats
    for stats in (trace.stats for trace in chosen[1:]):
        offset = abs(stats.starttime - first.starttime) * first.sampling_rate  # samples
        if offset > 0.5 or (stats.npts, stats.sampling_rate) != (first.npts, first.sampling_rate):
            raise ValueError("its traces differ in start, length or rate: resample and trim them to one span")
    return np.stack([np.ma.filled(trace.data.astype(np.float64), np.nan) for trace in chosen])
