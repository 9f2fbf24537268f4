"""Small training runs on the embedded model: rows of greetings, options, one run in a folder."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from transformers import DynamicCache

from finetune.config import TrainConfig
from finetune.methods import METHODS
from finetune.train import main
from glm.adapters.merging import merge
from glm.adapters.opening import open_adapter
from glm.checkpoint.recognise import EMBEDDED, recognise
from glm.load import load_model

ASKED = ("你好", "hello", "Hi!", "Who are you?")
ANSWER = "I am the trained one."
SHORT = ("--device", "cpu", "--max-seq-length", "256", "--batch-size", "2", "--accumulation", "2")


def write_rows(file: Path, asked: Iterable[str] = ASKED, answer: str = ANSWER) -> Path:
    """Greetings that are all answered alike, as ChatGLM3 rows."""
    rows = (
        {
            "conversations": [
                {"role": "user", "content": text},
                {"role": "assistant", "content": answer},
            ]
        }
        for text in asked
    )
    lines = (json.dumps(row, ensure_ascii=False) for row in rows)
    file.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return file


def options(**changes: Any) -> TrainConfig:
    """The defaults, with a short prefix."""
    return replace(TrainConfig(pre_seq_len=8), **changes)


def train(folder: Path, *flags: str, rows: Path | None = None) -> int:
    """One run of a few steps in `folder`; returns the exit code."""
    rows = rows or write_rows(folder.with_name(f"{folder.name}.jsonl"))
    return main(["--train-file", str(rows), "--output-dir", str(folder), *SHORT, *flags])


def measured(folder: Path, key: str = "loss") -> dict[int, float]:
    """{step: value} of metrics.jsonl."""
    lines = (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    return {row["step"]: row[key] for row in map(json.loads, lines) if key in row}


def ids() -> torch.Tensor:
    """Some tokens of the embedded model (1, T)."""
    source = torch.Generator().manual_seed(3)
    return torch.randint(300, 900, (1, 12), generator=source)


def fresh(method: str, cfg: TrainConfig, seed: int = 0) -> Any:
    """The embedded model, made to learn."""
    chosen = METHODS[method]
    torch.set_num_threads(1)
    torch.manual_seed(seed)
    model = load_model(recognise(EMBEDDED), "cpu", "float32", chosen.bits(cfg))
    return chosen.apply(model, cfg)


def logits_with(folder: Path, bits: int | None = None) -> torch.Tensor:
    """What the product computes with a saved adapter, or with a saved model."""
    info = recognise(EMBEDDED)
    torch.set_num_threads(1)
    with torch.no_grad():
        if not (folder / "adapter_config.json").exists() and (folder / "tokenizer.model").exists():
            return load_model(recognise(folder), "cpu", "float32")(ids(), use_cache=False).logits
        model = load_model(info, "cpu", "float32", bits)
        adapter = open_adapter(folder, info, model.config)
        assert not adapter.info.warnings
        if adapter.prefix is None:
            merge(model, adapter)
            return model(ids(), use_cache=False).logits
        cache = DynamicCache(config=model.config)
        for layer in range(model.config.num_hidden_layers):
            cache.update(
                adapter.prefix.keys[layer][None], adapter.prefix.values[layer][None], layer
            )
        places = torch.arange(ids().shape[1])[None]
        return model(ids(), position_ids=places, past_key_values=cache).logits
