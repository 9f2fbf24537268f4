"""What each token stands for: joined, the bytes are those of the text; where unsure, nothing."""

from __future__ import annotations

import json

import pytest
from tokenizers import Tokenizer as Backend

from glm.tokenizers.hub_bytes import token_bytes
from tests.dialect_desk import CHATML, TAGS, byte_characters, hub, ranks

TEXTS = ["Hello  world\n\t{}", "北京 👩‍👧 é", "<tool_call> ", "\x00\x7f"]
SPACES = {"type": "Replace", "pattern": {"String": "▁"}, "content": " "}
BYTES, FUSE = {"type": "ByteFallback"}, {"type": "Fuse"}
STRIP = {"type": "Strip", "content": " ", "start": 1, "stop": 0}
METASPACE = {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "first", "split": False}


def sequence(*steps):
    return {"type": "Sequence", "decoders": [*steps]}


def pieces(decoder, **model):
    """A tokenizer.json in sentencepiece's manner."""
    words = ["▁", "▁he", "llo", "o▁w", "好", *(f"<0x{byte:02X}>" for byte in range(256))]
    vocabulary = {piece: i for i, piece in enumerate(words)}
    added = [{"id": len(words), "content": "\n\n"}, {"id": len(words) + 1, "content": "<end>"}]
    flags = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized", "special"), False)
    model = {"type": "BPE", "vocab": vocabulary, "merges": [], **model}
    added = [{**token, **flags} for token in added]
    return {"version": "1.0", "added_tokens": added, "model": model, "decoder": decoder}


@pytest.mark.parametrize("text", TEXTS)
@pytest.mark.parametrize("tokenizer", [ranks(TAGS), hub(CHATML)], ids=["ranks", "hub"])
def test_the_bytes_of_the_tokens_of_a_text_are_its_bytes(tokenizer, text):
    assert b"".join(map(tokenizer.raw, tokenizer.encode(text))) == text.encode()


@pytest.mark.parametrize("tokenizer", [ranks(TAGS), hub(CHATML)], ids=["ranks", "hub"])
def test_control_tokens_and_what_is_no_token_have_no_bytes(tokenizer):
    assert {tokenizer.raw(i) for i in tokenizer.special.values()} == {None}
    assert tokenizer.raw(tokenizer.size) is None and tokenizer.raw(-1) is None


@pytest.mark.parametrize(
    "decoder",
    [sequence(SPACES, BYTES, FUSE, STRIP), sequence(SPACES, BYTES, FUSE), sequence(SPACES, FUSE)],
)
def test_pieces_in_the_manner_of_sentencepiece_are_known(decoder):
    config = pieces(decoder)
    known, backend = token_bytes(config), Backend.from_str(json.dumps(config))
    ids = [4, *range(4), *(5 + byte for byte in "é👋".encode()), 261, 4]
    if BYTES not in decoder["decoders"]:
        ids = [i for i in ids if not 5 <= i < 261]
    assert b"".join(known[i] for i in ids).decode() == backend.decode(ids)
    assert known[261] == b"\n\n" and 262 not in known


def test_unigrams_with_spaces_in_their_words_are_known():
    words = [[word, -1.0] for word in ("<unk>", "▁he", "llo▁", "好")]
    config = pieces(METASPACE, type="Unigram", vocab=words, unk_id=0)
    known, backend = token_bytes(config), Backend.from_str(json.dumps(config))
    assert b"".join(known[i] for i in (3, 1, 2, 3)).decode() == backend.decode([3, 1, 2, 3])


@pytest.mark.parametrize(
    "config",
    [
        {},
        pieces(None),
        pieces({"type": "WordPiece", "prefix": "##", "cleanup": True}),
        pieces({"type": "BPEDecoder", "suffix": "</w>"}),
        pieces(sequence(SPACES, STRIP, FUSE)),
        pieces(sequence(SPACES, FUSE, {"type": "CTC"})),
        pieces(sequence({**SPACES, "content": "_"}, FUSE)),
        pieces({"type": "ByteLevel"}),
        pieces(sequence(SPACES, FUSE), end_of_word_suffix="</w>"),
        pieces(sequence(SPACES, FUSE), type="WordPiece"),
    ],
)
def test_of_any_other_decoder_nothing_is_said(config):
    assert token_bytes(config) is None


def test_each_byte_has_its_own_character():
    config = pieces({"type": "ByteLevel"}, vocab={c: i for i, c in enumerate(byte_characters())})
    config["added_tokens"] = []
    assert token_bytes(config) == {byte: bytes([byte]) for byte in range(256)}
