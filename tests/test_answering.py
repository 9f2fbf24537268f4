"""What is scored, a run or a model, and how it is asked: greedily, in the layout it has learnt."""

import importlib.util

import pytest

from finetune.scoring.answering import Manner, Opened
from finetune.scoring.subject import subject
from glm.checkpoint.recognise import EMBEDDED
from glm.engines.fake import FakeEngine
from glm.errors import BadRequest
from glm.messages import Conversation, Message
from tests.scripted_tools import dialect, say


def user(text):
    return Message("user", text)


def said(text, **more):
    return Message("assistant", text, **more)


# ---- subjects


def test_a_run_is_its_base_with_its_adapter_in_its_layout(tmp_path):
    (tmp_path / "config.yaml").write_text("model: /base\nlayout: eos-per-turn\nadapter: /old\n")
    with pytest.raises(BadRequest, match="nothing has been saved"):
        subject(str(tmp_path))
    for step, complete in ((100, True), (200, True), (1000, False)):
        folder = tmp_path / "checkpoints" / f"checkpoint-{step}"
        folder.mkdir(parents=True)
        if complete:
            (folder / "complete.json").write_text("{}")
    assert subject(str(tmp_path)).adapter.name == "checkpoint-200"
    (tmp_path / "adapter").mkdir()
    found = subject(str(tmp_path))
    assert (found.model, found.adapter, found.layout) == (
        "/base",
        tmp_path / "adapter",
        "eos-per-turn",
    )
    assert found.run == tmp_path and not found.base


def test_a_run_that_changed_all_weights_is_a_model_with_the_tokenizer_of_its_base(tmp_path):
    (tmp_path / "config.yaml").write_text("model: ''\nmethod: full\n")
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "config.json").write_text("{}")
    found = subject(str(tmp_path))
    assert (found.model, found.tokenizer) == (str(tmp_path / "model"), str(EMBEDDED))
    assert found.adapter is None and found.of_base().model == str(EMBEDDED)


def test_a_prefix_lies_beside_a_config_and_is_no_model(tmp_path):
    (tmp_path / "config.yaml").write_text("model: /base\nmethod: ptuning\n")
    (tmp_path / "adapter").mkdir()
    (tmp_path / "adapter" / "config.json").write_text('{"pre_seq_len": 8}')
    found = subject(str(tmp_path))
    assert (found.model, found.adapter) == ("/base", tmp_path / "adapter") and not found.base


def test_an_adapter_alone_is_not_scored(tmp_path):
    (tmp_path / "adapter_config.json").write_text("{}")
    with pytest.raises(BadRequest, match="name its base, and --adapter"):
        subject(str(tmp_path))


def test_a_broken_configuration_is_a_sentence(tmp_path):
    for text in ("{", "- 1", ""):
        (tmp_path / "config.yaml").write_text(text)
        with pytest.raises(BadRequest, match=r"config\.yaml"):
            subject(str(tmp_path))


def test_a_model_is_asked_greedily_within_its_context_and_with_its_adapter():
    engine = FakeEngine(lambda request: say("yes"), context=100)
    engine.add_adapter("mine#0", object())
    ask = Opened(engine, dialect()).asker(Manner("mine#0", max_tokens=512))
    list(ask(Conversation((user("hi"),))))
    (request,) = engine.seen
    assert request.sampling.temperature == 0 and request.sampling.max_tokens == 100
    assert request.adapter == "mine#0"


def test_a_model_is_asked_in_the_layout_it_has_learnt():
    if importlib.util.find_spec("finetune.layouts") is None:
        return
    engine = FakeEngine(lambda request: [*d.tokenizer.encode("yes\nno"), d.stop[0]])
    d = dialect()
    model = Opened(engine, d)
    for layout in ("eos-per-turn", "alpaca-sft", "prompt-response"):
        events = list(model.asker(Manner(layout=layout))(Conversation((user("hi"),))))
        if layout == "prompt-response":
            assert events[-1].message == said("yes\nno", vocabulary=events[-1].message.vocabulary)
    usual, alpaca, raw = (request.prompt for request in engine.seen)
    assert usual == d.prompt(Conversation((user("hi"),)))
    role = d.tokenizer.id
    text = tuple(d.tokenizer.encode("\nhi\n"))
    assert alpaca[2:] == (role("<|user|>"), *text, role("<|assistant|>"))
    assert raw == (*usual[:2], *d.tokenizer.encode("hi"))
    model.layouts["pair#0"] = "prompt-response"
    engine.add_adapter("pair#0", object())
    list(model.asker(Manner("pair#0"))(Conversation((user("hi"),))))
    assert engine.seen[-1].prompt == raw
    two = Conversation((user("hi"), said("yo"), user("again")))
    with pytest.raises(BadRequest, match="does not fit the layout prompt-response"):
        model.asker(Manner("pair#0"))(two)
    list(model.asker(Manner(layout="eos-per-turn"))(two))
    turn = (role("<|assistant|>"), *d.tokenizer.encode("\n"), *d.tokenizer.encode("yo"))
    assert (*turn, d.end, role("<|user|>")) == engine.seen[-1].prompt[len(usual) - 1 :][
        : len(turn) + 2
    ]
