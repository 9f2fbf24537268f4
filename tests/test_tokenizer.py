"""Text and ids: the official decode, control ids, half characters."""

import random

import pytest

from glm.errors import CheckpointError
from glm.tokenizer import SPECIALS, Tokenizer
from tests.shared_files import CHATGLM3_TOKENIZER, golden_rows, tokenizer_file

HARD = [
    "",
    " ",
    "  two",
    "\n",
    "\t",
    "你好👋🏽",
    "é",
    "<|user|> [gMASK] sop </s>",
    "a\0b",
    "\u2581",
]


@pytest.fixture(scope="module")
def tokenizer():
    return Tokenizer(tokenizer_file())


def test_decode_equals_the_official_code():
    rows = golden_rows("chatglm3_decode.jsonl")
    if not rows:
        return
    tokenizer = Tokenizer(CHATGLM3_TOKENIZER)
    wrong = [r for r in rows if tokenizer.decode(r["ids"]) != r["official_decode"]]
    assert not wrong, wrong[:3]


def test_streaming_equals_decoding_at_once(tokenizer):
    for text in ["你好👋🏽, hello  world\n\n```python\nprint(1)\n```", *HARD]:
        ids = tokenizer.encode(text)
        decoder = tokenizer.decoder()
        streamed = "".join([*(decoder.push(i) for i in ids), decoder.flush()])
        assert streamed == tokenizer.decode(ids)


def test_half_a_character_is_never_shown(tokenizer):
    ids = tokenizer.encode("👋")
    decoder = tokenizer.decoder()
    shown = [decoder.push(i) for i in ids]
    assert "".join(shown) == "👋"
    assert all("\ufffd" not in part for part in shown)


def test_random_ids_never_raise(tokenizer):
    source = random.Random(0)
    for _ in range(200):
        tokenizer.decode([source.randrange(tokenizer.size + 50) for _ in range(20)])


@pytest.mark.parametrize("text", HARD)
def test_text_never_becomes_a_control_id(tokenizer, text):
    for special in SPECIALS:
        assert max(tokenizer.encode(text + special), default=0) < tokenizer.text_size


def test_a_lone_surrogate_becomes_a_replacement(tokenizer):
    assert tokenizer.decode(tokenizer.encode("a\ud800b")) in ("a\ufffdb", "a?b")


def test_control_ids_follow_the_vocabulary(tokenizer):
    assert [tokenizer.id(s) for s in SPECIALS] == [tokenizer.text_size + i for i in range(9)]


def test_a_missing_or_foreign_file_is_named(tmp_path):
    with pytest.raises(CheckpointError, match=r"no tokenizer at .*tokenizer\.model"):
        Tokenizer.open(tmp_path)
    (tmp_path / "tokenizer.model").write_bytes(b"not a model")
    with pytest.raises(CheckpointError, match="not a sentencepiece model"):
        Tokenizer.open(tmp_path)
