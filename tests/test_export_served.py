"""`transformers serve` answers from exported folders as our engine does, calls included."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import requests

import glm
from glm.checkpoint.recognise import recognise
from glm.export import Wanted, export
from glm.export.source import Source
from glm.messages import Conversation, Finish, Message
from tests.made_adapters import lora, pretend
from tests.shared_files import TINY
from tools.builtin import SPECS

START = 120  # seconds


@contextmanager
def served(folder: Path, log: Path) -> Iterator[str]:
    """`transformers serve` on a folder; yields its address."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "transformers.cli.transformers", "serve", str(folder)]
    command += ["--host", "127.0.0.1", "--port", str(port), "--device", "cpu"]
    command += ["--dtype", "float32"]
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    with log.open("w") as out:
        process = subprocess.Popen(command, stdout=out, stderr=out, env=environment)
    address, until = f"http://127.0.0.1:{port}", time.monotonic() + START
    try:
        while not up(address):
            assert process.poll() is None and time.monotonic() < until, log.read_text()[-2000:]
            process_wait(process)
        yield address
    finally:
        process.terminate()
        process.wait(20)


def up(address: str) -> bool:
    try:
        return requests.get(f"{address}/health", timeout=5).ok
    except requests.ConnectionError:
        return False


def process_wait(process: subprocess.Popen) -> None:
    try:
        process.wait(0.3)
    except subprocess.TimeoutExpired:
        return


def asked(address: str, folder: Path, conversation: Conversation) -> dict:
    """The message that comes back for a conversation without calls in it."""
    body = {
        "model": str(folder),
        "messages": [{"role": m.role, "content": m.content} for m in conversation.messages],
        "max_tokens": 48,
    }
    if conversation.tools:
        tools = [{"type": "function", "function": tool.to_json()} for tool in conversation.tools]
        body["tools"] = tools
    reply = requests.post(f"{address}/v1/chat/completions", json=body, timeout=120)
    assert reply.ok, reply.text
    return reply.json()["choices"][0]["message"]


def answered(model: glm.model.Model, conversation: Conversation) -> Message:
    """Our engine's greedy answer."""
    for event in model.stream(conversation, temperature=0, max_tokens=48):
        if isinstance(event, Finish):
            return event.message
    raise AssertionError


def same(theirs: dict, ours: Message) -> bool:
    calls = theirs.get("tool_calls") or []
    found = [(c["function"]["name"], json.loads(c["function"]["arguments"])) for c in calls]
    return (theirs.get("content") or "") == ours.content and found == [
        (call.name, dict(call.arguments)) for call in ours.calls
    ]


def conversations() -> list[Conversation]:
    specs = SPECS[:4]
    said = (Message("user", "你好"), Message("assistant", "你好！"), Message("user", "再见"))
    return [
        Conversation((Message("user", "What can you do?"),)),
        Conversation(said),
        Conversation((Message("system", "Be brief."), Message("user", "Who are you?"))),
        Conversation((Message("user", "What is the weather in Paris?"),), specs),
        Conversation((Message("user", "北京天气怎么样？"),), specs),
    ]


@pytest.mark.slow
def test_the_exported_folder_is_served_with_our_answers(tmp_path):
    out = tmp_path / "tiny-native"
    export(Wanted(TINY, out, "native"))
    with glm.open(TINY, device="cpu") as model:
        ours = [answered(model, conversation) for conversation in conversations()]
    with served(out, tmp_path / "log") as address:
        theirs = [asked(address, out, conversation) for conversation in conversations()]
    assert any(message.calls for message in ours) and any(message.content for message in ours)
    for mine, other in zip(ours, theirs, strict=True):
        assert same(other, mine), (other, mine)


@pytest.mark.slow
def test_a_merged_adapter_is_served_with_our_answers(tmp_path, monkeypatch):
    source = Source(recognise(TINY))
    adapter = lora(source)
    pretend(monkeypatch, "opening", open_adapter=lambda *_: adapter)
    out, hub = tmp_path / "native", tmp_path / "hub"
    export(Wanted(TINY, out, "native", adapter="poet"))
    export(Wanted(TINY, hub, "hub", adapter="poet"))
    asking = conversations()[:3]
    with glm.open(TINY, device="cpu") as model:
        plain = [answered(model, conversation) for conversation in asking]
    with glm.open(hub, device="cpu") as model:
        ours = [answered(model, conversation) for conversation in asking]
    with served(out, tmp_path / "log") as address:
        theirs = [asked(address, out, conversation) for conversation in asking]
    assert [m.content for m in ours] != [m.content for m in plain]
    for mine, other in zip(ours, theirs, strict=True):
        assert same(other, mine), (other, mine)
