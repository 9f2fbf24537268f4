"""ModelScope ids against a fake server on loopback, and what is already in the caches."""

import hashlib
import http.server
import json
import threading
import urllib.parse

import pytest

from glm.checkpoint import hub, modelscope
from glm.checkpoint.hub import cached_models, fetch, find_folders, is_hub_id
from glm.errors import CheckpointError
from tests.test_hub import run

FILES = {
    "config.json": b"{}",
    "modeling_chatglm.py": b"raise SystemExit(3)",
    "model.safetensors": b"x" * 3_000_000,
    "pytorch_model.bin": b"y",
    "ice_text.model": b"t",
    "README.md": b"hello",
    "inner/model.safetensors": b"z",
}
BROUGHT = {"config.json", "model.safetensors", "ice_text.model"}


class FakeModelScope(http.server.BaseHTTPRequestHandler):
    """The list of files and the files of ZhipuAI/GLM-4.5."""

    def do_GET(self):
        server, url = self.server, urllib.parse.urlsplit(self.path)
        query = dict(urllib.parse.parse_qsl(url.query))
        server.asked.append((url.path, query.get("FilePath"), self.headers.get("Range")))
        if not url.path.startswith("/api/v1/models/ZhipuAI/GLM-4.5/"):
            return self.reply(404, b"{}")
        if url.path.endswith("/repo/files"):
            listed = [
                {"Path": n, "Type": "blob", "Size": len(d), "Sha256": digest(d)}
                for n, d in FILES.items()
            ]
            listed.append({"Path": "inner", "Type": "tree", "Size": 0})
            data = json.dumps({"Code": 200, "Data": {"Files": listed}}).encode()
            return self.reply(200, data)
        return self.reply(200, server.changed.get(query["FilePath"], FILES[query["FilePath"]]))

    def reply(self, status, data):
        asked = self.headers.get("Range")
        start = int(asked.split("=")[1].rstrip("-")) if asked else 0
        self.send_response(206 if start else status)
        self.send_header("Content-Length", str(len(data) - start))
        self.end_headers()
        body = data[start:]
        if self.server.cuts and len(body) > 1_000_000:
            self.server.cuts -= 1
            body, self.close_connection = body[: len(body) // 2], True
        self.wfile.write(body)

    def log_message(self, *args):
        pass


def digest(data):
    return hashlib.sha256(data).hexdigest()


@pytest.fixture
def server(tmp_path, monkeypatch):
    made = http.server.ThreadingHTTPServer(("127.0.0.1", 0), FakeModelScope)
    made.asked, made.changed, made.cuts = [], {}, 0
    threading.Thread(target=made.serve_forever, daemon=True).start()
    monkeypatch.setenv("MODELSCOPE_ENDPOINT", f"http://127.0.0.1:{made.server_port}")
    monkeypatch.setenv("MODELSCOPE_CACHE", str(tmp_path))
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    yield made
    made.shutdown()
    made.server_close()


def test_only_the_files_needed_come_into_modelscope_s_own_layout(server, tmp_path):
    seen = []
    folder = fetch("modelscope:ZhipuAI/GLM-4.5", lambda *step: seen.append(step))
    assert folder == tmp_path / "models" / "ZhipuAI" / "GLM-4___5"
    assert {path.name for path in folder.iterdir()} == BROUGHT
    assert server.asked[-1][1] == "model.safetensors"  # last: what has its weights is complete
    assert seen[-1] == ("ZhipuAI/GLM-4.5: 3 of 3 MB", 1.0)
    server.asked.clear()
    assert fetch("modelscope:ZhipuAI/GLM-4.5") == folder
    assert server.asked == []


def test_the_environment_makes_every_id_modelscope_s(server, monkeypatch):
    for variable in ("VLLM_USE_MODELSCOPE", "GLM_USE_MODELSCOPE"):
        monkeypatch.setenv(variable, "True")
        assert fetch("zai-org/GLM-4.5").name == "GLM-4___5"  # known there as ZhipuAI's
        monkeypatch.delenv(variable)
        assert not modelscope.asked_for()


def test_a_broken_transfer_goes_on_where_it_stopped(server):
    server.cuts = 1
    folder = fetch("modelscope:ZhipuAI/GLM-4.5")
    assert (folder / "model.safetensors").read_bytes() == FILES["model.safetensors"]
    assert any(asked and asked.startswith("bytes=") for _, _, asked in server.asked)


def test_a_download_that_was_stopped_goes_on_at_the_next_start(server, tmp_path):
    folder = tmp_path / "models" / "ZhipuAI" / "GLM-4___5"
    folder.mkdir(parents=True)
    (folder / "model.safetensors.part").write_bytes(FILES["model.safetensors"][:2_000_000])
    assert fetch("modelscope:ZhipuAI/GLM-4.5") == folder
    assert "bytes=2000000-" in [asked for _, _, asked in server.asked]
    assert not list(folder.glob("*.part"))


def test_a_file_that_arrives_changed_is_refused_by_name(server):
    server.changed["model.safetensors"] = b"q" * 3_000_000
    with pytest.raises(CheckpointError, match=r"model\.safetensors arrived damaged; try again"):
        fetch("modelscope:ZhipuAI/GLM-4.5")
    server.changed["model.safetensors"] = b"short"
    with pytest.raises(CheckpointError, match=r"model\.safetensors did not arrive whole"):
        fetch("modelscope:ZhipuAI/GLM-4.5")


def test_what_cannot_be_had_is_one_sentence(server, monkeypatch):
    with pytest.raises(CheckpointError, match="ModelScope has no such model"):
        fetch("modelscope:ZhipuAI/other")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(CheckpointError, match="not in ModelScope's cache, and HF_HUB_OFFLINE"):
        fetch("modelscope:ZhipuAI/GLM-4.5")
    monkeypatch.delenv("HF_HUB_OFFLINE")
    monkeypatch.setenv("MODELSCOPE_ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(CheckpointError, match="ModelScope cannot be reached"):
        fetch("modelscope:ZhipuAI/GLM-4.5")


def checkpoint(folder):
    folder.mkdir(parents=True)
    (folder / "config.json").write_text("{}")
    (folder / "model.safetensors").write_text("x")
    return folder


@pytest.mark.parametrize("layout", ["models", ".", "hub/models", "hub"])
@pytest.mark.parametrize("name", ["ZhipuAI/glm-4.5", "ZhipuAI/glm-4___5"])
def test_every_layout_of_the_cache_is_found(tmp_path, monkeypatch, layout, name):
    monkeypatch.setenv("MODELSCOPE_CACHE", str(tmp_path))
    folder = checkpoint(tmp_path / layout / name)
    assert modelscope.cached("zai-org/glm-4.5") == folder
    assert list(modelscope.cached_models()) == [("modelscope:ZhipuAI/glm-4.5", folder)]
    (folder / "model.safetensors").unlink()
    assert modelscope.cached("zai-org/glm-4.5") is None


def test_where_the_hub_is_not_reached_the_other_cache_serves(tmp_path):
    checkpoint(tmp_path / "scope" / "models" / "me" / "chat")
    out = run(tmp_path / "hub", "http://127.0.0.1:9", MODELSCOPE_CACHE=str(tmp_path / "scope"))
    assert out == "['config.json', 'model.safetensors'] False"


def test_ids_of_modelscope_are_ids(tmp_path):
    assert is_hub_id("modelscope:ZhipuAI/chatglm3-6b")
    for text in (
        "modelscope:",
        "modelscope:name",
        "modelscope:/etc",
        "modelscope:../x",
        "other:a/b",
    ):
        assert not is_hub_id(text)


def test_the_models_that_are_here_are_listed_without_the_network(tmp_path, monkeypatch):
    from huggingface_hub import constants

    monkeypatch.setenv("MODELSCOPE_CACHE", str(tmp_path / "scope"))
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    assert cached_models() == []
    one = checkpoint(tmp_path / "hub" / "models--THUDM--chatglm3-6b" / "snapshots" / "abc")
    broken = tmp_path / "hub" / "models--me--half" / "snapshots" / "abc"
    (checkpoint(broken) / "model.safetensors").unlink()
    two = checkpoint(tmp_path / "scope" / "models" / "Qwen" / "Qwen3-0___6B")
    assert cached_models() == [("THUDM/chatglm3-6b", one), ("modelscope:Qwen/Qwen3-0.6B", two)]


def test_checkpoints_below_a_folder_are_found(tmp_path):
    near, deep = checkpoint(tmp_path / "b"), checkpoint(tmp_path / "a" / "c" / "d")
    checkpoint(near / "inside")
    checkpoint(tmp_path / ".hidden" / "x")
    checkpoint(tmp_path / "1" / "2" / "3" / "4" / "too-deep")
    (tmp_path / "loop").symlink_to(tmp_path)
    (tmp_path / "config.json").write_text("{}")  # no weights beside it
    adapters = [tmp_path / "run" / "adapter", tmp_path / "run" / "old"]
    for folder, name in zip(adapters, ("adapter_config.json", "chatglm-lora.pt"), strict=True):
        folder.mkdir(parents=True)
        (folder / name).touch()
    assert find_folders(tmp_path) == [deep, near, *adapters]
    assert find_folders(near) == [near]
    assert find_folders(tmp_path / "nothing") == []
    assert len(find_folders(tmp_path, most=1)) == 1


def test_every_file_a_family_needs_is_brought():
    needed = ("ice_text.model", "tokenizer.model", "tokenizer.json", "vocab.json", "merges.txt")
    assert {*needed, "chat_template.jinja", "generation_config.json"} <= {*hub._ALWAYS}
