"""LoRA, QLoRA and P-Tuning v2 on a random 6B at 2048 tokens on one card: for training.py --gpu.

Tokens per second, the share of the card's matmul peak as measured in the same run, and the most
memory. A token costs 4 N products and sums (forward, and back to the inputs: the base does not
learn), attention not counted; N are the weights without the embeddings. Computing activations
twice adds 2 N, which are not counted as useful. The model is drawn on the card and written to a
temporary folder: 12.5 GB of disk. Not tried on a card yet: the mechanics were run on a CPU with a
small model.
"""

from __future__ import annotations

import json
import statistics
import tempfile
import time
from collections.abc import Callable
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from benchmarks.data import write

WARM, STEPS, LINES, LENGTH = 2, 6, 8, 2048
SIX = {
    "hidden_size": 4096, "ffn_hidden_size": 13696, "num_attention_heads": 32, "kv_channels": 128,
    "num_layers": 28, "padded_vocab_size": 65024, "vocab_size": 65024, "seq_length": 8192,
    "torch_dtype": "float16",
}  # fmt: skip
RUNS: dict[str, list[str]] = {
    "lora": ["--method", "lora", "--no-gradient-checkpointing"],
    "lora, activations twice": ["--method", "lora", "--gradient-checkpointing"],
    "qlora": ["--method", "qlora", "--gradient-checkpointing"],
    "ptuning": ["--method", "ptuning", "--gradient-checkpointing"],
}
# facts to stand beside: ChatGLM3's finetune_demo, 768 tokens, 4 rows a batch, MiB
PUBLISHED = {"lora": 14082, "ptuning": 18426}


def measure(start: Callable[[Path], Any], device: str = "cuda", shape: Any = None) -> Any:
    """All runs; `start` opens benchmarks.training_ways `ours` with a job, as training.Way does."""
    import torch

    if device == "cuda" and not torch.cuda.is_available():
        print("gpu: left out, there is no CUDA card here")
        return None
    with tempfile.TemporaryDirectory() as place, get_context("spawn").Pool(1) as pool:
        folder = Path(place)
        count = pool.apply(draw, (folder / "model", shape or SIX, device))
        peak = pool.apply(matmul_peak, (device,))
        write(folder / "rows.jsonl", 2000)
        pool.terminate()  # its memory on the card would count
        figures = {name: one(start, folder, name, device) for name in RUNS}
    for found in figures.values():
        share = 4 * count * found["tokens_per_s"] / (peak * 1e12)
        found["share of peak"] = round(share, 4)
    card = torch.cuda.get_device_name() if device == "cuda" else device
    return {"card": card, "matmul TFLOP/s": round(peak, 1), "runs": figures, "MiB": PUBLISHED}


def one(start: Callable[[Path], Any], folder: Path, name: str, device: str) -> Any:
    """A few steps of one method in a process of its own."""
    file = folder / "job.json"
    argv = [
        *("--model", str(folder / "model"), "--train-file", str(folder / "rows.jsonl")),
        *("--device", device, "--precision", "bf16", "--packing", "--max-seq-length", str(LENGTH)),
        *("--batch-size", "1", "--accumulation", str(LINES), "--log-interval", "1"),
        *("--max-steps", "1000", "--save-interval", "0", *RUNS[name]),
        *("--output-dir", str(folder / name)),
    ]
    file.write_text(json.dumps({"argv": argv, "rows": []}), encoding="utf-8")
    way = start(file)
    try:
        steps = [way.step() for _ in range(WARM + STEPS)][WARM:]
    finally:
        way.close()
    rate = statistics.median(step["tokens"] / step["wall"] for step in steps)
    return {"tokens_per_s": round(rate, 1), "peak_mib": steps[-1].get("peak_mib")}


def draw(folder: Path, shape: dict[str, Any], device: str) -> int:
    """Write a random checkpoint; the weights without the embeddings, and with the head."""
    import torch
    from safetensors.torch import save_file
    from torch._subclasses import FakeTensorMode

    from tests.tiny_checkpoint import CONFIG, weights, write_checkpoint

    write_checkpoint(folder, vocabulary=64)  # the tokenizer
    config = {**CONFIG, **shape}
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    with FakeTensorMode():
        sizes = {name: tensor.shape for name, tensor in weights(config).items()}
    torch.manual_seed(0)
    state = {
        name: torch.ones(size, dtype=torch.float16)
        if "norm" in name
        else (torch.randn(size, device=device) * 0.02).half().cpu()
        for name, size in sizes.items()
    }
    save_file(state, folder / "model.safetensors", metadata={"format": "pt"})
    return sum(size.numel() for name, size in sizes.items() if "word_embeddings" not in name)


def matmul_peak(device: str, size: int = 8192) -> float:
    """TFLOP/s of large bf16 products, the best of some."""
    import torch

    size = size if device == "cuda" else 1024
    a = torch.randn(size, size, device=device, dtype=torch.bfloat16)
    best = 0.0
    for _ in range(5):
        began = time.perf_counter()
        for _ in range(10):
            b = a @ a
        float(b[0, 0])  # waits for the card
        best = max(best, 10 * 2 * size**3 / (time.perf_counter() - began) / 1e12)
    return best
