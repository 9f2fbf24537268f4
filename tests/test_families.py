"""One table through all families: recognised, opened, and answering as generate() does."""

import importlib.util
from pathlib import Path

import pytest
import torch

from glm.checkpoint.families import FAMILIES as ROWS
from glm.checkpoint.families import Clues, tell
from glm.checkpoint.recognise import recognise
from glm.dialects import DIALECTS
from glm.engines.base import Request
from glm.engines.local import LocalEngine
from glm.load import load_model
from glm.manager import Manager
from glm.messages import Conversation, Finish, Message, Sampling, ToolSpec
from glm.opening import Opening
from glm.tokenizers.opening import open_tokenizer
from tests.tiny_families import FAMILIES, ICE, write
from tests.tiny_glm import read

ALL = {tiny.folder: tiny for tiny in FAMILIES}
ASK = Conversation((Message("user", "hello, 北京?"),))
TOOL = ToolSpec("get_weather", "weather of a city", {"type": "object", "properties": {}})
GREEDY = Sampling(temperature=0, max_tokens=16)
# name -> type, base and factor of the rotation of positions
ROPE = {
    "chatglm3-6b": ("default", 10000.0, None),
    "chatglm3-6b-32k": ("default", 500000.0, None),
    "chatglm3-6b-128k": ("default", 5000000.0, None),
    "chatglm2-6b": ("default", 10000.0, None),
    "chatglm2-6b-32k": ("linear", 10000.0, 4.0),
    "renamed-by-its-owner": ("linear", 10000.0, 4.0),
    "glm-4-9b-chat": ("default", 5000000.0, None),
    "glm-4-9b-chat-hf": ("default", 5000000.0, None),
    "GLM-4-9B-0414": ("default", 10000.0, None),
    "GLM-4.5-Air": ("default", 1000000, None),
}


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Folders by name, written when a test asks."""
    root, made = tmp_path_factory.mktemp("families"), {}

    def folder(name):
        if name not in made:
            made[name] = write(ALL[name], root)
        return made[name]

    return folder


def opens(name):
    """ChatGLM-6B needs its tokenizer, which does not lie in the repository."""
    parts = ("glm.models.chatglm1", "glm.tokenizers.ice")
    return name != "chatglm-6b" or (
        ICE.exists() and "chatglm" in DIALECTS and all(map(importlib.util.find_spec, parts))
    )


def test_every_row_of_the_table_is_tested():
    assert {tiny.family for tiny in FAMILIES} == {row.name for row in ROWS}


@pytest.mark.parametrize("name", ALL)
def test_a_family_is_recognised_and_says_why(name, folders):
    tiny = ALL[name]
    if name == "chatglm-6b" and not ICE.exists():
        return
    info = recognise(folders(name))
    assert (info.family, info.dialect, info.context) == (tiny.family, tiny.dialect, tiny.context)
    assert tiny.reason in info.reason
    assert info.chat is tiny.chat


@pytest.mark.parametrize("name", ALL)
def test_a_family_answers_as_generate_does(name, folders):
    if not opens(name):
        return
    manager = Manager(folders(name), Opening(device="cpu", dtype="float32"))
    info = manager.open(folders(name))
    loaded = manager._ready()
    prompt, stop = loaded.dialect.prompt(ASK), loaded.dialect.stop
    try:
        *_, last = manager.chat(ASK, GREEDY)
        answer = read(loaded.engine.submit(Request(prompt, GREEDY, stop=stop)))
    finally:
        manager.close()
    model = load_model(info, "cpu", "float32")
    assert isinstance(last, Finish)
    assert not last.error
    assert answer.ids == generated(model, prompt, stop)
    counted = sum(p.numel() for p in model.parameters())
    assert info.parameters == pytest.approx(counted, rel=1e-3)  # GLM-4.5 has numbers in buffers


@pytest.mark.parametrize("name", [t.folder for t in FAMILIES if t.dialect != "chatglm"][7:])
def test_long_and_short_prompts_share_steps_in_every_architecture(name, folders):
    model = load_model(recognise(folders(name)), "cpu", "float32")
    engine = LocalEngine(model, context=256, prefill_chunk=5)
    prompts = [tuple(range(3, 3 + length)) for length in (17, 2, 9)]
    try:
        streams = [engine.submit(Request(prompt, GREEDY)) for prompt in prompts]
        answers = [read(stream).ids for stream in streams]
    finally:
        engine.close()
    assert answers == [generated(model, prompt, ()) for prompt in prompts]


def generated(model, prompt, stop):
    ids = torch.tensor([prompt])
    return model.generate(
        ids,
        attention_mask=torch.ones_like(ids),
        max_new_tokens=GREEDY.max_tokens,
        do_sample=False,
        eos_token_id=list(stop) or None,
        pad_token_id=0,
    )[0, len(prompt) :].tolist()


@pytest.mark.parametrize("name", ROPE)
def test_positions_turn_as_the_family_was_trained(name, folders):
    rope = load_model(recognise(folders(name)), "cpu", "float32").config.rope_parameters
    assert (rope["rope_type"], rope["rope_theta"], rope.get("factor")) == ROPE[name]
    if name.lower().startswith(("chatglm", "glm", "renamed")):
        assert rope["partial_rotary_factor"] == 0.5


SCALES, DIVIDES = "base = base * self.rope_ratio", "seq_idx / self.rope_ratio; build_prompt"
# name, code, rope_interpolation in the config -> family, and whether positions are divided
TOLD = (
    ("chatglm3-6b-32k", "", False, "ChatGLM3", False),
    ("chatglm2-6b-32k", "", False, "ChatGLM2-32k", True),
    ("chatglm2-6b-32k", SCALES, False, "ChatGLM2", False),  # code counts more than a name
    ("mine", DIVIDES, False, "ChatGLM2-32k", True),
    ("mine", SCALES, False, "ChatGLM3", False),
    ("mine", "", True, "ChatGLM3", True),
)


@pytest.mark.parametrize(("name", "code", "option", "family", "divided"), TOLD)
def test_names_code_and_an_option_tell_how_positions_turn(name, code, option, family, divided):
    config = ALL["chatglm3-6b-32k"].config | {"rope_ratio": 4, "rope_interpolation": option}
    row = tell(Clues(config, name=name, code=code), Path("model"))
    assert (row.name, row.rope == "divided") == (family, divided)


def test_a_folder_of_the_hub_s_cache_has_the_model_s_name(tmp_path):
    snapshot = tmp_path / "models--THUDM--chatglm2-6b-32k" / "snapshots" / ("a" * 40)
    snapshot.parent.mkdir(parents=True)
    write(ALL["renamed-by-its-owner"], tmp_path).rename(snapshot)
    (snapshot / "modeling_chatglm.py").unlink()
    info = recognise(snapshot)
    assert (info.name, info.family) == ("chatglm2-6b-32k", "ChatGLM2-32k")


def test_a_base_model_is_told_by_its_name_or_by_having_no_template():
    for name, template, chat in (
        ("glm-4-9b", "", False),
        ("glm-4-9b-chat-1m", "", True),
        ("database-model", "x", True),
    ):
        kind = "llama" if template else "chatglm"
        clues = Clues({"model_type": kind, "padded_vocab_size": 151552}, name, "", template)
        assert tell(clues, Path(name)).base(clues) is not chat
    clues = Clues({"model_type": "glm4"}, name="glm-4-9b-0414")
    assert tell(clues, Path("x")).base(clues)


@pytest.mark.parametrize("name", ["Qwen2.5-0.5B-Instruct", "Llama-3.2-1B-Instruct", "GLM-4.7"])
def test_tools_are_offered_by_the_model_s_own_template(name, folders):
    tokenizer = open_tokenizer(recognise(folders(name)))
    prompt = DIALECTS[ALL[name].dialect](tokenizer).prompt(Conversation(ASK.messages, (TOOL,)))
    assert "weather of a city" in tokenizer.decode(prompt)
