"""Adds characters to the tokenizer of a run that is under way, and rows for them to its network.

    python -m finetune.pretrain.extend /var/tmp/tiny

The characters are those of `words.hanzi()` that are no pieces yet. The ids of the role tokens
move up by their number, as they always follow the vocabulary. Everything else keeps its id and
its weights.
"""

from __future__ import annotations

import argparse
import struct
from pathlib import Path

import sentencepiece
import torch
from torch import Tensor

from finetune.pretrain.train import save
from finetune.pretrain.words import hanzi
from glm.tokenizer import SPECIALS

SCORE = -1e5  # of a piece that no merge makes
SCALE = 0.5  # of a new row, as at the start of training


def piece(text: str) -> bytes:
    """One more `pieces` entry of sentencepiece's ModelProto (sentencepiece_model.proto)."""
    word = text.encode()
    message = b"\x0a" + bytes([len(word)]) + word + b"\x15" + struct.pack("<f", SCORE)
    return b"\x0a" + bytes([len(message)]) + message


def grown(rows: Tensor, at: int, new: int, scale: float) -> Tensor:
    """`rows` with `new` rows put in at `at`, padded to a multiple of 64 again."""
    kept = rows[: at + len(SPECIALS)]
    fresh = torch.randn(new, rows.shape[1]) * scale
    out = torch.cat((kept[:at], fresh, kept[at:]))
    return torch.cat((out, torch.randn(-len(out) % 64, rows.shape[1]) * scale))


def extend(run: Path) -> int:
    """Extends the run in place and returns how many characters are new."""
    model = run / "tokenizer.model"
    pieces = sentencepiece.SentencePieceProcessor(model_file=str(model))
    size = pieces.vocab_size()
    known = {pieces.id_to_piece(index) for index in range(size)}
    new = [letter for letter in hanzi() if letter not in known]
    if not new:
        return 0
    state = torch.load(run / "last.pt", weights_only=True, map_location="cpu")
    torch.manual_seed(len(new))
    rows = grown(state["net"]["embedding.weight"], size, len(new), SCALE)
    old = state["shape"]["vocab"]
    state["average"]["embedding.weight"] = grown(
        state["average"]["embedding.weight"], size, len(new), 0.0
    )
    fresh = slice(size, size + len(new))
    state["average"]["embedding.weight"][fresh] = rows[fresh]
    state["net"]["embedding.weight"] = rows
    for moments in state["optimizers"][1]["state"].values():
        for name, value in moments.items():
            if isinstance(value, Tensor) and value.dim() == 2 and value.shape[0] == old:
                moments[name] = grown(value, size, len(new), 0.0)
    state["shape"]["vocab"] = len(rows)
    model.write_bytes(model.read_bytes() + b"".join(map(piece, new)))
    save(run / "last.pt", state)
    return len(new)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", type=Path, help="folder of a training run that is stopped")
    print(extend(parser.parse_args().run), "characters added")


if __name__ == "__main__":
    main()
