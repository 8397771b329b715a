"""quake.models: every name it shows is there, and nothing heavy is imported before it is used."""

from __future__ import annotations

import subprocess
import sys

import pytest

import quake.models


@pytest.mark.parametrize("name", quake.models.__all__)
def test_every_name_is_there(name: str) -> None:
    assert getattr(quake.models, name).__name__ == name


def test_a_name_that_is_not_there_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match=r"module 'quake\.models' has no attribute 'VGG16'"):
        _ = quake.models.VGG16


def test_the_face_alone_imports_no_training_stack() -> None:
    program = "import quake.models, sys; print(*{'models', 'timm', 'torch', 'torchvision'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""
