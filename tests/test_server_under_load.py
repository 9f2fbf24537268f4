"""The server while a model computes: it answers others, and it ends when it is told to."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.client import HTTPConnection

import uvicorn
from transformers import GlmConfig, GlmForCausalLM

from api.access import Access, Guard
from api.server import create
from glm.app import App
from glm.engines.base import Request
from glm.engines.fake import FakeEngine
from glm.engines.local import LocalEngine
from glm.manager import Manager
from glm.store import Store
from launcher.serve import bind, uvicorn_config
from tests.program import free_port
from tests.tiny_glm import VOCABULARY, greedy, prompt

SLOWEST = 1.0  # seconds /health may take


@contextmanager
def served(folder) -> Iterator[int]:
    """The server in a thread of this process; the port."""
    app = App(Manager(opener=lambda *_: FakeEngine([])), Store(folder / "workbench.db"), folder)
    guard = Guard(create(app), Access(secret=b"s" * 32))
    port = free_port()
    listener, server = bind("127.0.0.1", port), uvicorn.Server(uvicorn_config(guard))
    thread = threading.Thread(target=server.run, args=([listener],))
    thread.start()
    try:
        yield port
    finally:
        server.should_exit = True
        thread.join()
        listener.close()
        app.store.close()


def wide_glm() -> GlmForCausalLM:
    """Random, and wide enough that a prompt of 4000 tokens takes seconds."""
    config = GlmConfig(
        vocab_size=VOCABULARY,
        hidden_size=512,
        intermediate_size=1536,
        num_hidden_layers=8,
        num_attention_heads=8,
        num_key_value_heads=2,
        head_dim=64,
        max_position_embeddings=4096,
        pad_token_id=0,
        eos_token_id=None,
        bos_token_id=None,
    )
    return GlmForCausalLM(config).eval()


def seconds_of_health(port: int) -> float:
    began = time.monotonic()
    connection = HTTPConnection("127.0.0.1", port, timeout=30)
    connection.request("GET", "/health")
    assert connection.getresponse().status == 200
    connection.close()
    return time.monotonic() - began


def test_health_answers_within_a_second_during_a_long_prefill(tmp_path):
    engine = LocalEngine(wide_glm(), context=4096)
    with served(tmp_path) as port:
        stream = engine.submit(Request(prompt(4000), greedy(1)))
        waits = []
        while not stream.next(timeout=0) and len(waits) < 500:
            waits.append(seconds_of_health(port))
        assert len(waits) > 3, "the prefill was too short to see anything"
        assert max(waits) < SLOWEST
        stream.close()
    engine.close()
