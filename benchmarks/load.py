"""Memory and time of opening checkpoints: a random fp16 folder of 1 B parameters, the embedded one.

    python -m benchmarks.load                # writes 2.1 GB to the temporary folder for a while
    python -m benchmarks.load --layers 4     # smaller

Each opening runs in a process of its own. Memory is that of /proc/self/smaps_rollup, so Linux
only: anonymous pages are the process's own, file pages are the checkpoint's and can be dropped.
`anonymous` is what opening added over the imports, at its peak and at its end, as a part of the
weights in the file's own number type; the bar is 1.1. Opening the embedded model has to take
under a second, imports apart. Printed and appended to benchmarks/results/load.jsonl.
"""

from __future__ import annotations

import argparse
import json
import platform
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "benchmarks" / "results" / "load.jsonl"
MOST_ANONYMOUS, MOST_SECONDS = 1.1, 1.0
HIDDEN, FFN, HEADS, GROUPS, HEAD_DIM, ROWS = 2048, 5632, 16, 2, 128, 65024
CONFIG = {
    "model_type": "chatglm",
    "architectures": ["ChatGLMModel"],
    "add_bias_linear": False,
    "add_qkv_bias": True,
    "ffn_hidden_size": FFN,
    "hidden_size": HIDDEN,
    "kv_channels": HEAD_DIM,
    "layernorm_epsilon": 1e-5,
    "multi_query_attention": True,
    "multi_query_group_num": GROUPS,
    "num_attention_heads": HEADS,
    "original_rope": True,
    "padded_vocab_size": ROWS,
    "post_layer_norm": True,
    "rmsnorm": True,
    "seq_length": 8192,
    "tie_word_embeddings": False,
    "torch_dtype": "float16",
    "eos_token_id": 2,
    "pad_token_id": 0,
}


def write(folder: Path, layers: int) -> int:
    """A random checkpoint in the original layout, one shard in memory at a time; its bytes."""
    import torch
    from safetensors.torch import save_file

    qkv = (HEADS + 2 * GROUPS) * HEAD_DIM
    head = {
        "transformer.embedding.word_embeddings.weight": (ROWS, HIDDEN),
        "transformer.encoder.final_layernorm.weight": (HIDDEN,),
        "transformer.output_layer.weight": (ROWS, HIDDEN),
    }
    shards = [head]
    for layer in range(layers):
        at = f"transformer.encoder.layers.{layer}"
        shards.append(
            {
                f"{at}.input_layernorm.weight": (HIDDEN,),
                f"{at}.post_attention_layernorm.weight": (HIDDEN,),
                f"{at}.self_attention.query_key_value.weight": (qkv, HIDDEN),
                f"{at}.self_attention.query_key_value.bias": (qkv,),
                f"{at}.self_attention.dense.weight": (HIDDEN, HEADS * HEAD_DIM),
                f"{at}.mlp.dense_h_to_4h.weight": (2 * FFN, HIDDEN),
                f"{at}.mlp.dense_4h_to_h.weight": (HIDDEN, FFN),
            }
        )
    names, size = {}, 0
    for number, shapes in enumerate(shards, 1):
        file = f"model-{number:05}-of-{len(shards):05}.safetensors"
        tensors = {
            name: torch.ones(shape, dtype=torch.float16)
            if "layernorm" in name
            else (torch.randn(shape) * 0.02).to(torch.float16)
            for name, shape in shapes.items()
        }
        save_file(tensors, folder / file, metadata={"format": "pt"})
        names |= dict.fromkeys(shapes, file)
        size += sum(tensor.nbytes for tensor in tensors.values())
    index = {"metadata": {"total_size": size}, "weight_map": names}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    (folder / "config.json").write_text(json.dumps({**CONFIG, "num_layers": layers}))
    (folder / "tokenizer.model").write_bytes((ROOT / "assets/tiny/tokenizer.model").read_bytes())
    return size


def memory() -> tuple[int, int]:
    """Bytes of anonymous and of file pages of this process."""
    fields = {}
    for line in Path("/proc/self/smaps_rollup").read_text(encoding="ascii").splitlines()[1:]:
        name, _, value = line.partition(":")
        fields[name] = int(value.split()[0]) * 1024
    return fields["Anonymous"], fields["Rss"] - fields["Anonymous"]


def opened(folder: str, dtype: str) -> dict[str, Any]:
    """Open a folder in this process and say what that took."""
    started = time.perf_counter()
    import torch

    from glm.checkpoint.recognise import recognise
    from glm.load import load_model
    from glm.models import chatglm  # noqa: F401 - its imports are no part of opening

    imports = time.perf_counter() - started
    torch.set_num_threads(1)
    before, peak, done = memory(), [0], threading.Event()

    def watch() -> None:
        while not done.wait(0.005):
            peak[0] = max(peak[0], memory()[0])

    watcher = threading.Thread(target=watch)
    watcher.start()
    started, cpu = time.perf_counter(), time.process_time()
    model = load_model(recognise(folder), "cpu", dtype)
    seconds, cpu = time.perf_counter() - started, time.process_time() - cpu
    done.set()
    watcher.join()
    after = memory()
    return {
        "dtype": str(model.dtype),
        "imports_s": round(imports, 2),
        "open_s": round(seconds, 3),
        "open_cpu_s": round(cpu, 3),
        "anonymous_before": before[0],
        "anonymous_peak": max(peak[0], after[0]) - before[0],
        "anonymous_after": after[0] - before[0],
        "file_after": after[1] - before[1],
    }


def in_a_process(folder: Path, dtype: str) -> dict[str, Any]:
    command = [sys.executable, "-m", "benchmarks.load", "--open", str(folder), "--dtype", dtype]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(done.stderr)
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def measure(layers: int) -> dict[str, Any]:
    figures: dict[str, Any] = {}
    with tempfile.TemporaryDirectory(prefix="glm-load-") as name:
        size = write(Path(name), layers)
        figures["weights_bytes"] = size
        for dtype in ("file", "auto"):
            found = in_a_process(Path(name), dtype)
            for key in ("anonymous_peak", "anonymous_after", "file_after"):
                found[f"{key}_of_weights"] = round(found[key] / size, 3)
            found["held"] = found["anonymous_peak"] <= MOST_ANONYMOUS * size
            figures[f"large, {dtype}"] = found
    runs = [in_a_process(ROOT / "assets" / "tiny", "auto") for _ in range(3)]
    best = min(runs, key=lambda run: run["open_s"])
    figures["embedded"] = {**best, "held": best["open_s"] < MOST_SECONDS}
    return figures


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--layers", type=int, default=18, help="18 are 1.06 B parameters")
    parser.add_argument("--open", help="open this folder and print what it took")
    parser.add_argument("--dtype", default="auto")
    options = parser.parse_args()
    if options.open:
        print(json.dumps(opened(options.open, options.dtype)))
        return 0
    figures = measure(options.layers)
    load = Path("/proc/loadavg").read_text(encoding="ascii").split()[0]
    commit = subprocess.run(
        ["git", "describe", "--always", "--dirty=+"], cwd=ROOT, capture_output=True, text=True
    )
    row = {
        "time": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        "command": " ".join(["python -m benchmarks.load", *sys.argv[1:]]),
        "commit": commit.stdout.strip(),
        "machine": platform.machine(),
        "load": load,
        "figures": figures,
    }
    print(json.dumps(row, indent=1))
    with RESULTS.open("a", encoding="utf-8") as file:
        file.write(json.dumps(row) + "\n")
    held = all(part["held"] for part in figures.values() if isinstance(part, dict))
    return 0 if held else 1


if __name__ == "__main__":
    raise SystemExit(main())
