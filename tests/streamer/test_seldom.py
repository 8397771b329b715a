from __future__ import annotations

import logging

import pytest

from streamer.seldom import Seldom


def test_the_first_of_a_kind_and_then_one_an_hour(caplog: pytest.LogCaptureFixture) -> None:
    seldom = Seldom(logging.getLogger("seldom"), every_s=3600.0)
    written = [seldom.warning("a", now_s, "bad") for now_s in (0.0, 1.0, 2.0, 3600.0, 3601.0)]
    assert written == [True, False, False, True, False]
    assert seldom.warning("b", 1.0, "other")
    assert [record.message for record in caplog.records] == ["bad", "bad (and 2 more like it)", "other"]
