"""Hubs that answer: a file comes into the library's cache once. And hubs that are there and say nothing."""

from __future__ import annotations

import hashlib
import io
import socket
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
import safetensors.torch
import timm
import torch
import torchvision
from huggingface_hub import constants
from made_weights import COMMIT, Caches

import models.pretrained
from quake.models import ConvNeXtMultiTask, EfficientNet, WeightsError

WEIGHTS = torchvision.models.EfficientNet_B0_Weights.DEFAULT


class Hub(ThreadingHTTPServer):
    """Serves one file at every path, with the headers that the Hugging Face hub gives."""

    content = b""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.asked: list[str] = []
        self.address = f"http://127.0.0.1:{self.server_port}"


class _Handler(BaseHTTPRequestHandler):
    server: Hub

    def do_HEAD(self) -> None:
        self.server.asked.append(f"{self.command} {self.path}")
        self.send_response(200)
        self.send_header("Content-Length", str(len(self.server.content)))
        self.send_header("ETag", '"0123"')
        self.send_header("X-Repo-Commit", COMMIT)
        self.end_headers()

    def do_GET(self) -> None:
        self.do_HEAD()
        self.wfile.write(self.server.content)

    def log_message(self, *_: object) -> None:
        """Nothing on the test's output."""


def point_hugging_face_at(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """What HF_ENDPOINT does, which is read when the hub's client is imported."""
    monkeypatch.setattr(constants, "ENDPOINT", address)
    monkeypatch.setattr(
        constants, "HUGGINGFACE_CO_URL_TEMPLATE", f"{address}/{{repo_id}}/resolve/{{revision}}/{{filename}}"
    )


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    with Hub() as made:
        point_hugging_face_at(made.address, monkeypatch)
        thread = threading.Thread(target=made.serve_forever)
        thread.start()
        yield made
        made.shutdown()
        thread.join()


@pytest.fixture
def silent(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A server that takes connections and never answers."""
    monkeypatch.setattr(models.pretrained, "REACH_S", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as listening:
        yield f"http://127.0.0.1:{listening.getsockname()[1]}"


def publish_b0(hub: Hub, monkeypatch: pytest.MonkeyPatch, sha256: str | None = None) -> dict[str, torch.Tensor]:
    """torchvision's file names end with the first digits of the sha256 of what they hold."""
    state: dict[str, torch.Tensor] = torchvision.models.efficientnet_b0(weights=None).state_dict()
    buffer = io.BytesIO()
    torch.save(state, buffer)
    hub.content = buffer.getvalue()
    digits = sha256 or hashlib.sha256(hub.content).hexdigest()[:8]
    monkeypatch.setattr(WEIGHTS.value, "url", f"{hub.address}/models/efficientnet_b0_someone-{digits}.pth")
    return state


def test_timms_file_comes_into_the_cache_once(caches: Caches, hub: Hub) -> None:
    state = timm.create_model("convnext_atto", pretrained=False).state_dict()
    hub.content = safetensors.torch.save(state)
    for _ in range(2):
        made = ConvNeXtMultiTask("atto")
        torch.testing.assert_close(made.backbone.stem[0].weight.detach(), state["stem.0.weight"])
    assert hub.asked.count("GET /timm/convnext_atto.d2_in1k/resolve/main/model.safetensors") == 1
    assert len(list(caches.hugging_face.glob(f"*/snapshots/{COMMIT}/model.safetensors"))) == 1


def test_torchvisions_file_comes_into_the_cache_once(caches: Caches, hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    state = publish_b0(hub, monkeypatch)
    for _ in range(2):
        made = EfficientNet()
        torch.testing.assert_close(made.backbone.features[0][0].weight.detach(), state["features.0.0.weight"])
    assert [line.split()[0] for line in hub.asked] == ["HEAD", "GET"]
    assert len(list(caches.torch_home.glob("hub/checkpoints/*.pth"))) == 1


def test_a_download_that_is_not_what_its_name_says_is_not_kept(
    caches: Caches, hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish_b0(hub, monkeypatch, sha256="00000000")
    with pytest.raises(WeightsError, match="invalid hash value"):
        EfficientNet()
    assert not list(caches.torch_home.glob("hub/checkpoints/*"))


@pytest.mark.timeout(20)
def test_a_hub_that_says_nothing_is_not_waited_for(
    caches: Caches, silent: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(WEIGHTS.value, "url", f"{silent}/efficientnet_b0-0123abcd.pth")
    with pytest.raises(WeightsError, match="timed out"):
        EfficientNet()
    point_hugging_face_at(silent, monkeypatch)
    with pytest.raises(WeightsError, match="timed out"):
        ConvNeXtMultiTask("atto")
