from __future__ import annotations

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from obspy.signal.rotate import rotate2zne

from streamer.orientation import Epoch, Orientation, orientation

MOTION = np.random.default_rng(1).normal(0, 1, (3, 50))


def of(directions: dict[str, tuple[float, float]], rows: dict[int, str]) -> Orientation:
    return orientation(rows, {code: [Epoch(0, None, *d)] for code, d in directions.items()}, 5)


@settings(deadline=None)
@given(
    st.tuples(st.floats(0, 359), st.floats(-90, -60)),
    st.floats(0, 359),
    st.floats(50, 130),
    st.tuples(st.floats(-15, 15), st.floats(-15, 15)),
)
def test_turning_equals_obspys(z: tuple[float, float], azimuth: float, angle: float, dips: tuple[float, float]) -> None:
    tilts = (z[1] + 90, (azimuth + 180) % 360 - 180, angle - 90, *dips)
    assume(max(map(abs, tilts)) > 0.2)  # nearer than that to their axes they are not turned at all
    one, two = (azimuth, dips[0]), ((azimuth + angle) % 360, dips[1])
    turned, present = of({"Z": z, "1": one, "2": two}, {0: "Z", 1: "1", 2: "2"}).turn(MOTION, [True] * 3)
    expected = rotate2zne(MOTION[0], *z, MOTION[1], *one, MOTION[2], *two)
    assert present == [True] * 3
    np.testing.assert_allclose(turned, np.array(expected), atol=1e-9)


def test_aligned_components_come_through_bit_for_bit() -> None:
    turned, _ = of({"Z": (0, -90), "N": (0.01, 0), "E": (90, 0)}, {0: "Z", 1: "N", 2: "E"}).turn(MOTION, [True] * 3)
    assert (turned == MOTION).all()


@pytest.mark.parametrize("present", [[True] * 3, [True, False, False]])
def test_an_inverted_vertical_is_turned_over_with_and_without_the_others(present: list[bool]) -> None:
    turned, kept = of({"Z": (0, 90), "N": (0, 0), "E": (90, 0)}, {0: "Z", 1: "N", 2: "E"}).turn(MOTION, present)
    assert kept == present
    assert (turned[0] == -MOTION[0]).all()


def test_swapped_horizontals() -> None:
    turned, _ = of({"Z": (0, -90), "N": (90, 0), "E": (0, 0)}, {0: "Z", 1: "N", 2: "E"}).turn(MOTION, [True] * 3)
    np.testing.assert_allclose(turned, MOTION[[0, 2, 1]], atol=1e-12)


def test_a_turned_horizontal_alone_means_nothing_and_a_tilted_vertical_something() -> None:
    here = of({"Z": (0, -89), "1": (30, 0), "2": (120, 0)}, {0: "Z", 1: "1", 2: "2"})
    turned, kept = here.turn(MOTION * [[1], [1], [0]], [True, True, False])
    assert kept == [True, False, False]
    assert not turned[1:].any()


def test_components_in_a_plane_are_not_turned_and_not_claimed() -> None:
    """Metadata that point both horizontals north: what stands east is no data, though its row came."""
    here = of({"Z": (0, -90), "1": (0, 0), "2": (0, 0)}, {0: "Z", 1: "1", 2: "2"})
    turned, kept = here.turn(MOTION, [True] * 3)
    assert kept == [True, True, False]
    assert not turned[2].any()


def test_epochs() -> None:
    epochs = {"Z": [Epoch(0, 100, 0, -90), Epoch(100, None, 0, 90)]}
    signs = [
        orientation({0: "Z"}, epochs, t).turn(MOTION, [True, False, False])[0][0, 0] / MOTION[0, 0] for t in (99, 100)
    ]
    assert signs == [1, -1]
    assert orientation({0: "Z"}, epochs, -5).turn(MOTION, [True, False, False])[0][0, 0] == MOTION[0, 0]


def test_without_metadata_1_and_2_are_north_and_east() -> None:
    turned, kept = orientation({0: "Z", 1: "1", 2: "2"}, {}, 0).turn(MOTION, [True] * 3)
    assert kept == [True] * 3
    assert (turned == MOTION).all()
