"""ChatGLM-6B's text and ids: the official ids and decode, marks, control ids, half characters."""

import itertools
import random

import pytest

from glm.errors import CheckpointError
from glm.tokenizer import ICE_SPECIALS
from glm.tokenizers.ice import IceTokenizer
from tests.shared_files import ICE_TEXT, golden_rows
from tests.tiny_ice import tiny_ice, tiny_ice_file

IMAGES = 20_000
KINDS = ["trained", *(["real"] if ICE_TEXT.exists() else [])]
# What the official decode of transformers sets to the word before it, in this order.
CLEAN = (
    *((f" {mark}", mark) for mark in ".?!,"),
    (" ' ", "'"),
    *((f" {end}", end) for end in ("n't", "'m", "'s", "'ve", "'re")),
)
HARD = [
    "",
    " ",
    "  two  spaces",
    "\n",
    "\t",
    "你好👋🏽",
    "é",
    "a\0b",
    "\u2581",
    "x" + " " * 161 + "y",
]


@pytest.fixture(scope="module", params=KINDS)
def tokenizer(request):
    return tiny_ice() if request.param == "trained" else IceTokenizer(ICE_TEXT)


def official_decode(tokenizer, ids):
    """sentencepiece's decode of the whole, then the marks, then the clean-up."""
    text = tokenizer._sp.decode(ids).replace("<n>", "\n").replace("<|tab|>", "\t")
    for count in range(2, 81):
        text = text.replace(f"<|blank_{count}|>", " " * count)
    for loose, set_to_the_word in CLEAN:
        text = text.replace(loose, set_to_the_word)
    return text


def split_randomly(source, ids):
    cuts = sorted(source.sample(range(len(ids) + 1), k=min(3, len(ids))))
    return [ids[a:b] for a, b in itertools.pairwise([0, *cuts, len(ids)])]


def test_ids_and_decode_equal_the_official_code():
    rows = golden_rows("chatglm_6b_v1.jsonl")
    if not rows:
        return
    tokenizer = IceTokenizer(ICE_TEXT)
    end = [tokenizer.id("[gMASK]"), tokenizer.id("<sop>")]
    for row in rows:
        assert tokenizer.official(row["text"]) + end == row["ids"]
        assert tokenizer.decode(row["ids"]) == row["decoded"]
    # Ours differs only where the official tokenizer makes a control id of what the user has typed.
    ours = [row["text"] for row in rows if tokenizer.encode(row["text"]) + end != row["ids"]]
    assert ours == [row["text"] for row in rows if "<sop>" in row["text"]]


def test_decoding_equals_sentencepiece_and_the_cleanup(tokenizer):
    source = random.Random(0)
    known = tokenizer.encode("< n > | blank _ 2 3 tab <| |> ' ' s n't m . , ? ! 你好 👋  \t\n")
    for _ in range(2000):
        size = source.randint(1, 16)
        ids = [
            source.choice(known) if source.random() < 0.8 else source.randrange(tokenizer.size)
            for _ in range(size)
        ]
        assert tokenizer.decode(ids) == official_decode(tokenizer, ids), ids


def test_spaces_are_dropped_in_the_turns_of_the_official_cleanup(tokenizer):
    source = random.Random(1)
    one = {char: tokenizer._sp.piece_to_id(char) for char in "'.,nmsverx"}
    ids = [*one.values(), *[tokenizer._sp.piece_to_id("\u2581")] * 8, one["'"], one["'"]]
    ids = [i for i in ids if not tokenizer._sp.is_unknown(i)]
    for _ in range(3000):
        text = [source.choice(ids) for _ in range(source.randint(1, 12))]
        assert tokenizer.decode(text) == official_decode(tokenizer, text), text


def test_streaming_equals_decoding_at_once(tokenizer):
    source = random.Random(2)
    for text in ["你好👋🏽 , hello  world\n\n\tprint( ' x' )", "<|bla nk_3|> a <n", *HARD]:
        ids = tokenizer.encode(text)
        for parts in [[ids], *(split_randomly(source, ids) for _ in range(20))]:
            decoder = tokenizer.decoder()
            shown = "".join(decoder.push(i) for part in parts for i in part) + decoder.flush()
            assert shown == tokenizer.decode(ids)


def test_half_a_character_is_never_shown(tokenizer):
    decoder = tokenizer.decoder()
    shown = [decoder.push(i) for i in tokenizer.encode("👋")]
    assert "".join(shown) == "👋"
    assert all("\ufffd" not in part for part in shown)


def test_layout_survives(tokenizer):
    text = "def f(x):\n    if x:\n\t\treturn  [1]\n\n" + " " * 100 + "end"
    assert tokenizer.decode(tokenizer.encode(text)) == text


def test_a_long_run_of_spaces_is_cut_as_in_the_official_code(tokenizer):
    marks = [tokenizer._sp.id_to_piece(i) for i in tokenizer.encode("x" + " " * 161 + "y")]
    assert [m for m in marks if "blank" in m] == ["<|blank_80|>", "<|blank_80|>"]


@pytest.mark.parametrize("text", HARD)
def test_text_never_becomes_a_control_id(tokenizer, text):
    for name in tokenizer.special:
        ids = tokenizer.encode(f"{text}{name} {name}")
        assert not [i for i in ids if tokenizer.is_special(i)]
        assert tokenizer.decode(ids).count(name) == 2


def test_a_lone_surrogate_becomes_a_replacement_which_is_read_as_a_space(tokenizer):
    assert tokenizer.decode(tokenizer.encode("a\ud800b")) == "a b"


def test_image_tokens_shift_every_id():
    file = ICE_TEXT if ICE_TEXT.exists() else tiny_ice_file()
    new, old = IceTokenizer(file), IceTokenizer(file, IMAGES)
    text = "你好，world\n  x"
    assert old.encode(text) == [i + IMAGES for i in new.encode(text)]
    assert old.decode(old.encode(text)) == new.decode(new.encode(text))
    assert old.special == {name: i + IMAGES for name, i in new.special.items()}
    assert (old.eos, old.pad, old.size) == (new.eos + IMAGES, new.pad + IMAGES, new.size + IMAGES)
    assert old.is_special(5) and old.name(5) == "<image_5>" and old.raw(5) is None
    assert old.decode([5, *old.encode("x")]) == "x"
    assert old.fingerprint != new.fingerprint


def test_the_real_ids_are_the_published_ones():
    if not ICE_TEXT.exists():
        return
    new, old = IceTokenizer(ICE_TEXT), IceTokenizer(ICE_TEXT, IMAGES)
    names = ("[MASK]", "[gMASK]", "<sop>", "<eop>", "<pad>", "</s>")
    assert [new.id(name) for name in names] == [130000, 130001, 130004, 130005, 3, 2]
    assert [old.id(name) for name in names] == [150000, 150001, 150004, 150005, 20003, 20002]


def test_a_file_of_the_first_checkpoints_is_completed():
    trained = tiny_ice()
    text_size = trained.special[ICE_SPECIALS[0]]
    assert [trained.id(name) for name in ICE_SPECIALS] == [text_size + i for i in range(8)]
    assert trained.name(text_size + 8) == "<|tab|>"
    assert trained.size == text_size + len(ICE_SPECIALS) + 80 + 256


def test_a_real_file_cut_to_that_of_the_first_checkpoints_gives_the_same_ids(tmp_path):
    if not ICE_TEXT.exists():
        return
    (tmp_path / "ice_text.model").write_bytes(first_checkpoints_file(ICE_TEXT.read_bytes()))
    first, real = IceTokenizer.open(tmp_path), IceTokenizer(ICE_TEXT)
    assert first.special == real.special and first.size == real.size
    for row in golden_rows("chatglm_6b_v1.jsonl"):
        assert first.encode(row["text"]) == real.encode(row["text"])


def first_checkpoints_file(data):
    """The file without what its pieces from [MASK] on and `byte_fallback` add."""
    out, at = [], 0
    while at < len(data):
        start, shift, size = at, 0, 0
        at += 1
        while True:
            size |= (data[at] & 127) << shift
            shift, at = shift + 7, at + 1
            if data[at - 1] < 128:
                break
        at += size
        out.append(data[start:at])
    pieces, rest = [f for f in out if f[0] == 0x0A], [f for f in out if f[0] != 0x0A]
    rest = [f.replace(b"\x98\x02\x01", b"\x98\x02\x00") for f in rest]
    return b"".join(pieces[:130000] + rest)


def test_a_token_is_shown_with_its_bytes(tokenizer):
    ids = [*tokenizer.encode("a\n  b👋"), tokenizer.eos]
    shown = tokenizer.pieces(ids)
    assert [p.special for p in shown] == [False] * (len(ids) - 1) + [True]
    assert shown[-1].text == "<eop>" and "\n" in [p.text for p in shown]
    assert b"".join(tokenizer.raw(i) or b"" for i in ids) == " a\n  b👋".encode()


def test_ids_outside_the_vocabulary_never_raise(tokenizer):
    source = random.Random(3)
    for _ in range(100):
        ids = [source.randrange(-3, tokenizer.size + 50) for _ in range(20)]
        tokenizer.decode(ids), tokenizer.pieces(ids), [tokenizer.raw(i) for i in ids]


def test_a_missing_or_foreign_file_is_named(tmp_path):
    with pytest.raises(CheckpointError, match=r"no tokenizer at .*ice_text\.model"):
        IceTokenizer.open(tmp_path)
    (tmp_path / "ice_text.model").write_bytes(b"not a model")
    with pytest.raises(CheckpointError, match="not a sentencepiece model"):
        IceTokenizer.open(tmp_path)
