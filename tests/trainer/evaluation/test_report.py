"""The page: whole and by itself, every text from data escaped, what was not measured said; the pictures of cases."""

from __future__ import annotations

import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

from quake.data.spec import AZIMUTH_HEAD, MAGNITUDE_HEAD, Decibels, Image, ModelSpec
from quake.data.spec_file import read_spec
from quake.data.spectrogram import spectrogram
from trainer.data.record import Record
from trainer.evaluation.breakdown import AFTER_P_S, Bin, Breakdown
from trainer.evaluation.report import Answers, Findings, Number, write_report
from trainer.evaluation.scoring import Curve
from trainer.evaluation.worst import Case, picture
from trainer.fitting.history import Row

ZOO = Path(__file__).parents[3] / "models" / "zoo" / "detector.pt"
HOSTILE = "<script>alert('x')</script> & \"$title\""
VOID = {"meta", "img", "br", "!doctype"}


@pytest.fixture(scope="module")
def spec() -> ModelSpec:
    return read_spec(ZOO)


def made_case(**fields: object) -> Case:
    rng = np.random.default_rng(0)
    samples = rng.standard_normal((3, 12000)).astype(np.float32)
    record = Record("trace", "set", "quake", samples, "earthquake", p=9000, s=9400, snr_db=12.5, distance_km=30.0)
    curve = Curve(np.arange(53.0, 120.0), rng.standard_normal(67))
    return replace(Case("miss", record, curve, at=42, margin=1.5), **fields)  # type: ignore[arg-type]


def everything(spec: ModelSpec, name: str = "plain") -> Findings:
    """All parts, with ``name`` wherever a data set or a person gives a text."""
    case = made_case()
    rng = np.random.default_rng(1)
    targets = np.eye(2)[np.arange(40) % 2]
    targets[:3] = 0
    likely = 0.2 + 0.6 * np.eye(2)[np.arange(40) % 2] + 0.05 * rng.random((40, 2))
    answers = Answers(name, ("noise", name), (likely / likely.sum(axis=1, keepdims=True)).astype(np.float32), targets)
    bins = {"source": {name: (Bin(name, 1, 2), Bin("b", 0, 1))}, "distance, km": {name: (Bin("≥ 200", 1, 3),)}}
    found = Breakdown(10.0, 3, bins, ("magnitude",), {name: np.minimum(np.arange(len(AFTER_P_S)), 3)})
    noise = Record(name, name, "", case.record.samples, "noise")
    return Findings(
        spec.model_copy(update={"architecture": name}),
        "ab" * 32,
        name,
        name,
        {name: 1234},
        numbers={name: [Number(name, 0.5, 0.25, 0.75, name), Number("auc", float("nan"), note="one class alone")]},
        answers=[answers],
        breakdown=found,
        thresholds={name: 1.0},
        misses=[replace(case, record=replace(case.record, name=name, source=name))],
        false_alarms=[replace(case, kind="false alarm", record=noise)],
        history=[Row(step=s, epoch=s, rate=1e-4, loss=1 / s, windows_per_s=1, seconds=s) for s in (1, 2)],
        not_measured=[name],
    )


class Reader(HTMLParser):
    """Tags must close in order; keeps what they hold."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.texts.append(data)


def read(path: Path) -> Reader:
    reader = Reader()
    reader.feed(path.read_text(encoding="utf-8"))
    assert not reader.open
    return reader


def test_the_page_has_every_picture_with_words_for_it_and_needs_nothing_from_elsewhere(
    spec: ModelSpec, tmp_path: Path
) -> None:
    path = write_report(tmp_path / "report", everything(spec))
    page = read(path)
    pictures = [attributes for tag, attributes in page.tags if tag == "img"]
    assert {picture["src"] for picture in pictures} == {
        f"plots/{file.name}" for file in (tmp_path / "report" / "plots").iterdir()
    }
    assert len(pictures) == 12
    assert all(picture["alt"] for picture in pictures)
    assert not re.search(r"https?:|//|@import|<script|url\(", path.read_text())
    assert {tag for tag, _ in page.tags} <= {
        *("html", "head", "meta", "title", "style", "body", "h1", "h2", "h3", "section", "p", "ul", "li", "div"),
        *("table", "tr", "th", "td", "figure", "a", "img", "figcaption"),
    }
    text = "".join(page.texts)
    assert "ab" * 32 in text
    assert "detector" in text
    assert "0.25 to 0.75" in text
    assert "not defined" in text
    assert "1,234 plain" in text
    assert "37 windows, beside 3 of unknown class" in text
    assert [p["alt"] for p in pictures if p["src"] == "plots/recall-by-source.svg"] == [
        "at plain: plain: 1 of 2, b: 0 of 1"
    ]


def test_text_from_data_is_shown_and_never_obeyed(spec: ModelSpec, tmp_path: Path) -> None:
    path = write_report(tmp_path, everything(spec, HOSTILE))
    page = read(path)
    assert "script" not in {tag for tag, _ in page.tags}
    assert "".join(page.texts).count(HOSTILE) >= 12
    assert any(HOSTILE in str(attributes.get("alt")) for tag, attributes in page.tags if tag == "img")
    for file in (tmp_path / "plots").glob("*.svg"):
        assert "<script" not in file.read_text(encoding="utf-8")


def test_what_was_not_measured_is_said(spec: ModelSpec, tmp_path: Path) -> None:
    page = read(write_report(tmp_path, Findings(spec, "ab" * 32, "set", "dev", {}, not_measured=["The weather."])))
    text = "".join(page.texts)
    for said in ("Figures of skill", "Recall against SNR", "confusion matrices", "worst misses", "worst false alarms"):
        assert said in text
    assert "Loss curves: the run that fitted the model was not given." in text
    assert "The weather." in text
    assert [tag for tag, _ in page.tags].count("section") == 1
    assert not (tmp_path / "plots").exists()


def test_what_the_set_does_not_hold_is_said(spec: ModelSpec, tmp_path: Path) -> None:
    probabilities = np.full((6, 9), 1 / 9)
    targets = np.eye(9)[[0, 0, 1, 2, 3, 4]]
    unknown = Answers("magnitude", MAGNITUDE_HEAD.classes, np.full((6, 4), 0.25), np.zeros((6, 4)))
    answers = [unknown, Answers("azimuth", AZIMUTH_HEAD.classes, probabilities, targets)]
    findings = replace(everything(spec), answers=answers, misses=[], not_measured=[])
    text = "".join(read(write_report(tmp_path, findings)).texts)
    assert "Windows of the head magnitude: of none the class is known." in text
    assert "The class SW of the head azimuth: there is no window of it." in text
    assert "The class NE of" not in text
    assert "Recall against magnitude: known of no record." in text
    assert "None." in text
    assert (tmp_path / "plots" / "roc-2.svg").exists()
    assert not (tmp_path / "plots" / "scores-2.svg").exists()


def test_the_same_findings_give_the_same_bytes(spec: ModelSpec, tmp_path: Path) -> None:
    findings = replace(everything(spec), answers=None, breakdown=None)
    contents = []
    for name in ("a", "b"):
        write_report(tmp_path / name, findings)
        contents.append({p.relative_to(tmp_path / name): p.read_bytes() for p in (tmp_path / name).rglob("*.*")})
    assert contents[0] == contents[1]


def test_a_case_is_drawn_on_one_axis_of_time(spec: ModelSpec) -> None:
    figure = picture(made_case(), spec, {"on": 2.5})
    waveform, scores = figure.axes[0], figure.axes[4]
    assert scores.get_xlim() == (-45.0, 25.0)
    assert [line.get_xdata()[0] for line in waveform.get_lines()[1:]] == [0.0, 4.0]  # P, S
    np.testing.assert_allclose(scores.get_lines()[1].get_xdata(), 95.0 - 90.0)  # what it is about
    assert [text.get_text() for text in scores.texts] == ["on"]
    assert figure.get_suptitle() == "trace\nset, SNR 12.5 dB, distance 30 km"


@pytest.mark.parametrize("crop", [False, True])
def test_the_spectrogram_is_that_of_the_window_the_score_came_from(spec: ModelSpec, crop: bool) -> None:
    case = made_case()
    if crop:
        image = Image(height=224, width=224, resized=(256, 256), normalisation="imagenet")
        spec = spec.model_copy(update={"image": image})
    axes = picture(case, spec, {}).axes[3]
    (shown,) = axes.get_images()
    window = case.record.samples[:, 9501 - spec.window_samples : 9501]
    expected = spectrogram(
        window, replace(spec.spectrogram, image_size=None, resized_size=None, image_normalisation="none")
    )
    np.testing.assert_array_equal(shown.get_array(), expected[0])
    assert shown.get_extent() == pytest.approx([5.01 - 20.8, 5.01, 0, 50])


def test_waveforms_show_nothing_of_p_before_p(spec: ModelSpec) -> None:
    case = made_case()
    samples = np.zeros_like(case.record.samples)
    samples[0, 9000:] = 1.0
    figure = picture(replace(case, record=replace(case.record, samples=samples)), spec, {})
    drawn = figure.axes[0].get_lines()[0].get_ydata()
    assert not np.asarray(drawn)[:4500].any()
    assert np.asarray(drawn)[4500] > 0.5
    assert "not recorded" in str([child.txt.get_text() for child in figure.axes[1].artists if hasattr(child, "txt")])


def test_a_false_alarm_before_an_earthquake_is_shown_up_to_p(spec: ModelSpec) -> None:
    figure = picture(made_case(kind="false alarm", at=22), spec, {"on": 1.0})  # at 75 s, P at 90
    assert figure.axes[4].get_xlim() == (-60.0, 0.0)


def test_decibels_are_drawn_as_well(spec: ModelSpec) -> None:
    other = {"representation": "cross_decibel", "normalisation": "demean", "unit": "m/s"}
    spec = ModelSpec.model_validate(
        {**spec.model_dump(), **other, "decibels": Decibels(floor=-180, ceiling=-60).model_dump()}
    )
    assert picture(made_case(), spec, {}).axes[3].get_images()
