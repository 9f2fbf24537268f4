"""Hub ids against a fake hub on loopback: only the files needed, no code, clear failures."""

import hashlib
import http.server
import json
import os
import subprocess
import sys
import threading

import pytest

from glm.checkpoint.hub import is_hub_id
from tests.shared_files import ROOT

FILES = {
    "config.json": b"{}",
    "modeling_chatglm.py": b"raise SystemExit(3)",
    "model.safetensors": b"x" * 200_000,
    "pytorch_model.bin": b"y" * 10,
    "tokenizer.model": b"t",
    "README.md": b"hello",
}


class FakeHub(http.server.BaseHTTPRequestHandler):
    """Just enough of the hub's HTTP API: model info, tree, resolve."""

    asked: list = []  # noqa: RUF012 - shared on purpose, cleared by the fixture
    cut: list = []  # noqa: RUF012 - names of files whose next transfer breaks half way

    def do_HEAD(self):
        self.do_GET(body=False)

    def do_GET(self, body=True):
        path = self.path.partition("?")[0]
        FakeHub.asked.append(path)
        if self.headers.get("Range"):
            FakeHub.asked.append(self.headers["Range"])
        if path.startswith("/api/models/"):
            found = "/me/chat" in path
            siblings = [{"rfilename": name} for name in FILES]
            data = json.dumps({"id": "me/chat", "sha": "a" * 40, "siblings": siblings}).encode()
            if "/tree/" in path:
                tree = [
                    {"type": "file", "path": n, "size": len(d), "oid": "0" * 40}
                    for n, d in FILES.items()
                ]
                data = json.dumps(tree).encode()
            return self.reply(200, data, body) if found else self.reply(404, b"{}", body)
        name = path.rpartition("/")[2]
        if name not in FILES:
            return self.reply(404, b"", body)
        return self.reply(200, FILES[name], body)

    def reply(self, status, data, body):
        start = 0
        asked = self.headers.get("Range")
        if asked and status == 200:
            start, status = int(asked.split("=")[1].split("-")[0]), 206
        self.send_response(status)
        self.send_header("Content-Length", str(len(data) - start))
        self.send_header("ETag", f'"{hashlib.sha1(data).hexdigest()}"')
        self.send_header("X-Repo-Commit", "a" * 40)
        if status == 206:
            self.send_header("Content-Range", f"bytes {start}-{len(data) - 1}/{len(data)}")
        if status == 404:
            self.send_header("X-Error-Code", "RepoNotFound")
        self.end_headers()
        name = self.path.rpartition("/")[2]
        if body and name in FakeHub.cut:
            FakeHub.cut.remove(name)
            data = data[: len(data) // 2]
            self.close_connection = True
        if body:
            self.wfile.write(data[start:])

    def log_message(self, *args):
        pass


@pytest.fixture
def hub():
    FakeHub.asked.clear()
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), FakeHub)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


SCRIPT = """
import sys
from glm.errors import CheckpointError
from glm.checkpoint.hub import fetch
seen = []
try:
    folder = fetch(sys.argv[1], lambda text, fraction: seen.append((text, fraction)))
except CheckpointError as error:
    print("refused:", error)
else:
    print(sorted(p.name for p in folder.iterdir()), bool(seen))
"""


def run(home, endpoint, model="me/chat", **env):
    """fetch() in a process of its own: the hub library reads its settings once."""
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, model],
        cwd=ROOT,
        env={
            **os.environ,
            "HF_HOME": str(home),
            "HF_ENDPOINT": endpoint,
            "HF_HUB_DISABLE_XET": "1",
            "HF_HUB_OFFLINE": "0",
            **env,
        },
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_only_the_files_needed_come_and_then_offline_works(hub, tmp_path):
    brought = "['config.json', 'model.safetensors', 'tokenizer.model']"
    assert run(tmp_path, hub) == f"{brought} True"
    assert not [path for path in FakeHub.asked if path.endswith((".py", ".bin", ".md"))]
    FakeHub.asked.clear()
    assert run(tmp_path, hub, HF_HUB_OFFLINE="1") == f"{brought} False"
    assert FakeHub.asked == []


def test_a_broken_transfer_goes_on_where_it_stopped(hub, tmp_path, monkeypatch):
    monkeypatch.setitem(FILES, "model.safetensors", bytes(25_000_000))
    FakeHub.cut.append("model.safetensors")
    assert "model.safetensors" in run(tmp_path, hub)
    assert any(asked.startswith("bytes=") for asked in FakeHub.asked)
    file = next(tmp_path.rglob("model.safetensors"))
    assert file.read_bytes() == FILES["model.safetensors"]


def test_an_unknown_model_is_one_sentence(hub, tmp_path):
    assert run(tmp_path, hub, "me/other").startswith("refused: me/other cannot be downloaded")


def test_no_network_is_one_sentence(tmp_path):
    for offline in ("0", "1"):
        out = run(tmp_path, "http://127.0.0.1:9", HF_HUB_OFFLINE=offline)
        assert out.startswith("refused: me/chat is not on this machine")


def test_pickles_come_only_without_safetensors(hub, tmp_path, monkeypatch):
    monkeypatch.delitem(FILES, "model.safetensors")
    assert "pytorch_model.bin" in run(tmp_path, hub)


def test_paths_are_no_hub_ids(tmp_path):
    assert is_hub_id("THUDM/chatglm3-6b")
    for text in ("/etc", "../x", "a/../b", "name", "a/b/c", "", "a b/c", str(tmp_path)):
        assert not is_hub_id(text)
