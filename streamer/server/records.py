"""From any file ObsPy reads to 512-byte miniSEED 2 records, in the order in which a station could have sent them.

Integers become Steim2 (INT32 where a difference is too large for it), floats FLOAT32. A record can leave a station only
when its last sample was taken, so records are sorted by the time of their last sample. Nothing is corrected, filtered,
merged or resampled: overlaps and gaps of the files stay as they are.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from typing import TYPE_CHECKING, Any

import numpy as np
import pymseed
from numpy.typing import NDArray

if TYPE_CHECKING:
    from obspy import Trace

RECORD_BYTES = 512
"""SeedLink 3 knows no other length."""
MAX_SAMPLES = 735
"""Seven Steim2 frames of fifteen words of seven 4-bit differences: no 512-byte record holds more."""
MAX_DIFFERENCE = 2**29 - 1
"""The largest difference Steim2 can hold: 30 bits with a sign."""
MAX_DENOMINATOR = 1_000
"""Rates are fractions p/q with q up to this; it turns 0.3333333 back into 1/3."""
QUALITY_D = 2
"""libmseed's publication version 2 is data quality D, which SeedLink's INFO states as the type of a stream."""
NS = 1_000_000_000

Samples = NDArray[np.int32] | NDArray[np.float32]


class RecordError(ValueError):
    """A file cannot be served; the message names the file."""


@dataclass(frozen=True, slots=True)
class Record:
    """One miniSEED record and what a server must know of it."""

    network: str
    station: str
    location: str
    """Two characters, or empty."""
    channel: str
    """SEED's three characters, ``SHZ``."""
    start_ns: int
    """Time of the first sample."""
    end_ns: int
    """Time of the last sample."""
    rate: Fraction
    """Hertz."""
    samples: int
    data: bytes
    """512 bytes, unless a fault cut them."""

    @property
    def station_id(self) -> str:
        """SeedLink's station, ``BW_UH3``."""
        return f"{self.network}_{self.station}"

    @property
    def stream_id(self) -> str:
        """What selectors are held against: ``BW_UH3__S_H_Z``."""
        return f"{self.station_id}_{self.location}_{'_'.join(self.channel)}"


def read(files: Iterable[str | os.PathLike[str]], fill: float = 1.0) -> list[Record]:
    """The records of all files, sorted by the time of their last sample, then by name.

    ``fill`` is how full a record is: 0.25 puts a quarter of the samples of a full one into each 512 bytes.
    Raises ``FileNotFoundError`` and ``RecordError``.
    """
    records = [record for file in files for trace in _traces(file) for record in pack(trace, fill, os.fspath(file))]
    if not records:
        raise RecordError("no samples in the files given")
    return sorted(records, key=lambda record: (record.end_ns, record.stream_id, record.start_ns))


def _traces(file: str | os.PathLike[str]) -> Iterator[Trace]:
    import obspy

    name = os.fspath(file)
    if not os.path.isfile(name):  # noqa: PTH113  ObsPy takes patterns and addresses too; a server serves files
        raise FileNotFoundError(f"no such file: {name}")
    try:
        yield from obspy.read(name)
    except Exception as error:  # ObsPy's readers raise whatever they like on a file they do not know
        raise RecordError(f"cannot read {name}: {error}") from error


def pack(trace: Trace, fill: float = 1.0, name: str = "") -> Iterator[Record]:
    """The records of one trace, in order of time."""
    if not 0.0 < fill <= 1.0:
        raise ValueError(f"fill must be over 0 and at most 1, not {fill}")
    samples = _samples(trace.data, name)
    rate = Fraction(trace.stats.sampling_rate).limit_denominator(MAX_DENOMINATOR)
    if len(samples) == 0 or rate <= 0:
        return
    template = _template(trace, samples)
    start_ns, first, number = int(trace.stats.starttime.ns), 0, 0
    while first < len(samples):
        template.starttime = start_ns + round(first * NS / rate)
        count = _count(template, samples[first : first + MAX_SAMPLES], fill)
        number += 1
        yield _record(trace, template, samples[first : first + count], rate, number)
        first += count


def _samples(data: NDArray[Any], name: str) -> Samples:
    """The samples as a record can hold them: int32 for whole numbers, float32 otherwise."""
    if np.ma.isMaskedArray(data):
        raise RecordError(f"{name}: masked samples")
    if data.dtype.kind == "f":
        return np.ascontiguousarray(data, dtype=np.float32)
    if data.dtype.kind not in "iu":
        raise RecordError(f"{name}: samples of type {data.dtype} are no record")
    if len(data) and (data.min() < np.iinfo(np.int32).min or data.max() > np.iinfo(np.int32).max):
        raise RecordError(f"{name}: samples do not fit into 32 bits")
    return np.ascontiguousarray(data, dtype=np.int32)


def _template(trace: Trace, samples: Samples) -> pymseed.MS3Record:
    stats = trace.stats
    template = pymseed.MS3Record()
    template.sourceid = pymseed.nslc2sourceid(stats.network, stats.station, stats.location, stats.channel)
    template.formatversion, template.reclen, template.pubversion = 2, RECORD_BYTES, QUALITY_D
    template.samprate = float(stats.sampling_rate)
    template.encoding = _encoding(samples)
    return template


def _encoding(samples: Samples) -> pymseed.DataEncoding:
    if samples.dtype == np.float32:
        return pymseed.DataEncoding.FLOAT32
    wide = samples.astype(np.int64)
    # A record's first difference is taken from zero where there is no sample before it.
    largest = max(int(np.abs(np.diff(wide)).max(initial=0)), int(np.abs(wide).max(initial=0)))
    return pymseed.DataEncoding.STEIM2 if largest <= MAX_DIFFERENCE else pymseed.DataEncoding.INT32


def _type(samples: Samples) -> str:
    return "f" if samples.dtype == np.float32 else "i"


def _count(template: pymseed.MS3Record, samples: Samples, fill: float) -> int:
    """How many of these samples the next record takes: the share ``fill`` of what a full one would."""
    full = next(iter(template.generate(samples, _type(samples))))
    return max(1, round(fill * pymseed.MS3Record.parse(full).samplecnt))


def _record(trace: Trace, template: pymseed.MS3Record, samples: Samples, rate: Fraction, number: int) -> Record:
    (data,) = template.generate(samples, _type(samples))
    stats, start_ns = trace.stats, int(template.starttime)
    return Record(
        network=stats.network,
        station=stats.station,
        location=stats.location,
        channel=stats.channel,
        start_ns=start_ns,
        end_ns=start_ns + round((len(samples) - 1) * NS / rate),
        rate=rate,
        samples=len(samples),
        data=b"%06d" % (number % 1_000_000) + data[6:],
    )
