"""Adapters that really change what the embedded model says, in the layouts of the official code.

Each is taught one answer in a second or two: a LoRA on the fused `query_key_value`, as PEFT writes
it beside the hub's own model, and a P-Tuning v2 prefix as the official trainer saves it.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from transformers import DynamicCache

from glm.checkpoint.recognise import EMBEDDED, recognise
from glm.dialects.chatglm3 import ChatGLM3
from glm.load import load_model
from glm.messages import Conversation, Message
from glm.tokenizer import Tokenizer

RANK, TOKENS = 4, 8
ASKED = ("你好", "hello", "Hi!", "Who are you?")


@cache
def embedded() -> Any:
    model = load_model(recognise(EMBEDDED), "cpu", "float32")
    model.requires_grad_(False)
    return model


def rows(answer: str) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Ids and labels (1, T) of a few greetings that are all answered with `answer`."""
    dialect = ChatGLM3(Tokenizer.open(EMBEDDED))
    out = []
    for asked in ASKED:
        talk = Conversation((Message("user", asked), Message("assistant", answer)))
        pieces = list(dialect.render(talk))
        ids = [i for piece in pieces for i in piece.ids]
        labels = [i if piece.learn else -100 for piece in pieces for i in piece.ids]
        out.append((torch.tensor([ids]), torch.tensor([labels])))
    return out


@dataclass(frozen=True)
class Course:
    """How long, and how fast: a prefix needs more of both."""

    answer: str
    steps: int
    lr: float


def teach(
    parameters: Iterable[torch.Tensor], loss: Callable[[Any, Any], Any], course: Course
) -> None:
    given = rows(course.answer)
    optimizer = torch.optim.Adam(list(parameters), lr=course.lr)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # a model of this size is no faster with two
    for step in range(course.steps):
        optimizer.zero_grad()
        loss(*given[step % len(given)]).backward()
        optimizer.step()
    torch.set_num_threads(threads)


def teach_lora(folder: Path, answer: str) -> Path:
    """A PEFT folder on `query_key_value`; greetings are answered with `answer`."""
    model = embedded()
    config = model.config
    sizes = [
        n * config.head_dim
        for n in (
            config.num_attention_heads,
            config.num_key_value_heads,
            config.num_key_value_heads,
        )
    ]
    torch.manual_seed(0)
    pairs = [
        (
            torch.nn.Parameter(torch.randn(RANK, config.hidden_size) * 0.05),
            torch.nn.Parameter(torch.zeros(sum(sizes), RANK)),
        )
        for _ in model.model.layers
    ]
    with _fused(model, pairs, sizes):
        teach(
            (p for pair in pairs for p in pair),
            lambda ids, labels: model(input_ids=ids, labels=labels, use_cache=False).loss,
            Course(answer, 40, 2e-2),
        )
    folder.mkdir(parents=True, exist_ok=True)
    name = "base_model.model.transformer.encoder.layers.{}.self_attention.query_key_value.lora_{}"
    state = {
        name.format(i, letter) + ".weight": p.detach().clone()
        for i, pair in enumerate(pairs)
        for letter, p in zip("AB", pair, strict=True)
    }
    save_file(state, folder / "adapter_model.safetensors", metadata={"format": "pt"})
    about = {"peft_type": "LORA", "r": RANK, "lora_alpha": RANK, "bias": "none"}
    about |= {"target_modules": ["query_key_value"], "task_type": "CAUSAL_LM"}
    (folder / "adapter_config.json").write_text(json.dumps(about))
    return folder


@contextmanager
def _fused(model: Any, pairs: Any, sizes: list[int]) -> Iterator[None]:
    """One update for q, k and v together, as a LoRA on the fused module computes it."""
    hooks = []
    for layer, (a, b) in zip(model.model.layers, pairs, strict=True):
        starts = [0, sizes[0], sizes[0] + sizes[1]]
        for letter, start, size in zip("qkv", starts, sizes, strict=True):

            def add(_: Any, x: Any, y: Any, a: Any = a, b: Any = b, at: Any = (start, size)) -> Any:
                return y + x[0] @ a.T @ b[at[0] : at[0] + at[1]].T

            module = getattr(layer.self_attn, f"{letter}_proj")
            hooks.append(module.register_forward_hook(add))
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def teach_prefix(folder: Path, answer: str) -> Path:
    """A folder with the pytorch_model.bin of the official P-Tuning v2 trainer."""
    model = embedded()
    config = model.config
    layers, groups = config.num_hidden_layers, config.num_key_value_heads
    torch.manual_seed(0)
    weight = torch.nn.Parameter(torch.randn(TOKENS, layers * 2 * groups * config.head_dim) * 0.5)

    def loss(ids: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        held = weight.view(TOKENS, layers, 2, groups, config.head_dim).permute(1, 2, 3, 0, 4)
        past = DynamicCache(config=config)
        for i in range(layers):
            past.update(held[i, 0][None], held[i, 1][None], i)
        places = torch.arange(ids.shape[1])[None]
        return model(input_ids=ids, labels=labels, position_ids=places, past_key_values=past).loss

    teach([weight], loss, Course(answer, 140, 5e-2))
    folder.mkdir(parents=True, exist_ok=True)
    state = {"transformer.prefix_encoder.embedding.weight": weight.detach().clone()}
    torch.save(state, folder / "pytorch_model.bin")
    about = json.loads((EMBEDDED / "config.json").read_text(encoding="utf-8"))
    (folder / "config.json").write_text(json.dumps({**about, "pre_seq_len": TOKENS}))
    return folder
