"""`python launch.py --model ...` as a process, with real (random, small) weights."""

from __future__ import annotations

import http.server
import threading
from pathlib import Path

import pytest

from tests import test_hub
from tests.program import running
from tests.tiny_checkpoint import write_checkpoint


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory) -> Path:
    return write_checkpoint(tmp_path_factory.mktemp("models") / "chatglm3-6b")


class HubUnderItsName(test_hub.FakeHub):
    """The fake hub answers for the name that the README uses."""

    def do_GET(self, body: bool = True):
        self.path = self.path.replace("THUDM/chatglm3-6b", "me/chat")
        return super().do_GET(body)


@pytest.fixture
def hub(checkpoint, monkeypatch):
    names = ("config.json", "model.safetensors", "tokenizer.model")
    files = {name: (checkpoint / name).read_bytes() for name in names}
    monkeypatch.setattr(test_hub, "FILES", files)
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), HubUnderItsName)
    serving = threading.Thread(target=server.serve_forever)
    serving.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    serving.join()
    server.server_close()


def test_a_folder_in_the_hub_layout_answers(checkpoint, tmp_path):
    with running(tmp_path, "--model", str(checkpoint), OMP_NUM_THREADS="1") as program:
        program.wait_for_output("chatglm3-6b is ready", 120)
        assert b'"model":"ready"' in program.get("/health")[1]


def test_a_hub_id_is_downloaded_and_answers(hub, tmp_path):
    environ = {
        "HF_ENDPOINT": hub,
        "HF_HOME": str(tmp_path / "home"),
        "HF_HUB_DISABLE_XET": "1",
        "HF_HUB_OFFLINE": "0",
        "OMP_NUM_THREADS": "1",
    }
    with running(tmp_path, "--model", "THUDM/chatglm3-6b", **environ) as program:
        program.wait_for_output("THUDM/chatglm3-6b is ready", 120)


def test_a_model_that_does_not_open_leaves_the_page(tmp_path):
    with running(tmp_path, "--model", str(tmp_path / "nothing")) as program:
        program.wait_for_output("The model did not open: no folder at")
        assert b'"model":"failed"' in program.get("/health")[1]
        assert program.get("/", {"accept": "text/html"})[0] == 200
