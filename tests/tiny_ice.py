"""A vocabulary of the kind of ChatGLM-6B's ice_text.model, trained on a few lines.

As in the first checkpoints control tokens, blanks and bytes are not in the file.
"""

from __future__ import annotations

import io
from functools import cache
from pathlib import Path
from tempfile import mkdtemp

import sentencepiece

from glm.tokenizers.ice import FILE, IceTokenizer
from tests.shared_files import ICE_TEXT

LINES = (
    "你好，世界！今天天气怎么样？",
    "[Round 0] 问：你好 答：好的；再见",
    "the quick brown fox jumps over the lazy dog",
    "def f(x): return {'a': [1, 2.5], \"b\": x}",
    "0 1 2 3 4 5 6 7 8 9 one two three four",
    "ABC <b> a|b & c; d_e - f/g * h = i ~ @ # $ % ^ ( ) \\ `",
)


@cache
def tiny_ice_file() -> Path:
    """The trained file."""
    out = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(LINES * 3),
        model_writer=out,
        model_type="unigram",
        vocab_size=160,
        hard_vocab_limit=False,
        character_coverage=1.0,
        normalization_rule_name="nmt_nfkc",
        user_defined_symbols=["<n>"],
        unk_id=0,
        bos_id=1,
        eos_id=2,
        pad_id=3,
        num_threads=1,
        minloglevel=2,
    )
    file = Path(mkdtemp()) / FILE
    file.write_bytes(out.getvalue())
    return file


@cache
def tiny_ice() -> IceTokenizer:
    return IceTokenizer(tiny_ice_file())


@cache
def ice() -> IceTokenizer:
    """The real vocabulary when it is here, else the trained one."""
    return IceTokenizer(ICE_TEXT) if ICE_TEXT.exists() else tiny_ice()
