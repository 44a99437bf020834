"""Weights from the hubs without a network: seconds, not minutes, and what is in the cache is used."""

import socket
import time
import urllib.error
import urllib.request
from http.server import BaseHTTPRequestHandler, HTTPServer
from threading import Thread

import pytest
import torch
from safetensors.torch import save_file

from invrep.errors import InvrepError
from invrep.representations.zoo.reach import unreachable
from invrep.representations.zoo.timm_models import timm_network

timm = pytest.importorskip("timm")
MODEL = "test_vit.r160_in1k"


@pytest.fixture(autouse=True)
def direct(monkeypatch):
    """No proxy stands between."""
    monkeypatch.setenv("no_proxy", "*")


def test_a_server_that_answers_whatever_it_says():
    class NotFound(BaseHTTPRequestHandler):
        def do_HEAD(self):
            self.send_error(404)

        def log_message(self, *_):
            pass

    with HTTPServer(("127.0.0.1", 0), NotFound) as server:
        Thread(target=server.handle_request, daemon=True).start()
        assert unreachable(f"http://127.0.0.1:{server.server_port}/a.pth", 60) is None


def test_a_server_that_never_answers_and_one_that_is_not_there():
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        assert str(port) in unreachable(f"http://127.0.0.1:{port}/", 0.3)
    assert "refused" in unreachable(f"http://127.0.0.1:{port}/")


@pytest.fixture
def no_network(tmp_path, monkeypatch):
    """An empty cache of Hugging Face's hub, no network, and nobody who tries again."""
    from huggingface_hub import constants

    def fail(*_args, **_kwargs):
        raise urllib.error.URLError("no route to host")

    monkeypatch.setattr(urllib.request, "urlopen", fail)
    monkeypatch.setattr(time, "sleep", lambda seconds: pytest.fail("it tries again"))
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    yield
    assert constants.HF_HUB_OFFLINE is False


def test_timms_weights_without_a_network_are_one_sentence(no_network):
    with pytest.raises(InvrepError, match=r"cannot be downloaded \(https://.*: no route to host\); use rep.weights"):
        timm_network(MODEL, layer="patch_embed")


def test_timms_cached_weights_need_no_network(tmp_path, no_network):
    state = timm.create_model(MODEL, pretrained=False).state_dict()
    place = tmp_path / f"models--timm--{MODEL}"
    (place / "refs").mkdir(parents=True)
    (place / "refs" / "main").write_text("0" * 40)
    (place / "snapshots" / ("0" * 40)).mkdir(parents=True)
    save_file(state, place / "snapshots" / ("0" * 40) / "model.safetensors")
    phi = timm_network(MODEL, layer="patch_embed")
    assert torch.equal(phi.module.patch_embed.proj.weight, state["patch_embed.proj.weight"])
