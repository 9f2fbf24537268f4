"""The one owner of the loaded model: loading, replacing, failing, closing."""

import gc
import threading

import pytest

import glm
from glm.dialects.chatglm3 import ChatGLM3
from glm.engines.fake import FakeEngine
from glm.errors import BadRequest, CheckpointError, NotReady
from glm.manager import Manager
from glm.messages import Conversation, Finish, Message, Sampling, Text
from glm.tokenizer import Tokenizer
from tests.shared_files import tokenizer_file
from tests.test_chatglm3_dialect import answer
from tests.tiny_checkpoint import write_checkpoint

ASK = Conversation((Message("user", "hi"),))


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    root = tmp_path_factory.mktemp("models")
    return [write_checkpoint(root / name, vocabulary=66000) for name in ("one", "two")]


class Opener:
    """Opens scripted engines: each says the name of its folder."""

    def __init__(self):
        self.engines = {}
        self.count = 0
        self.gate = threading.Event()
        self.gate.set()

    def __call__(self, info, how):
        self.gate.wait(10)
        self.count += 1
        dialect = ChatGLM3(Tokenizer(tokenizer_file()))
        ids = answer(dialect, ("", f"I am {info.name}"))
        self.engines[info.name] = FakeEngine(lambda request: ids)
        return self.engines[info.name]


@pytest.fixture
def opener():
    return Opener()


def say(stream):
    return "".join(e.text for e in stream if isinstance(e, Text))


def test_a_model_loads_in_a_thread_and_answers(folders, opener):
    manager = Manager(folders[0], opener=opener)
    opener.gate.clear()
    manager.start()
    assert manager.state().status == "loading"
    with pytest.raises(NotReady, match="still loading"):
        manager.chat(ASK)
    opener.gate.set()
    assert manager.wait(10).status == "ready"
    assert say(manager.chat(ASK)) == "I am one"


def test_a_model_that_cannot_be_opened_is_a_state_with_a_sentence(tmp_path, opener):
    manager = Manager(tmp_path / "gone", opener=opener)
    manager.start()
    state = manager.wait(10)
    assert state.status == "failed"
    assert "no folder at" in state.message
    with pytest.raises(NotReady, match="no folder at"):
        manager.chat(ASK)


def test_the_model_before_still_serves_when_the_next_fails(folders, tmp_path, opener):
    manager = Manager(folders[0], opener=opener)
    manager.open(folders[0])
    with pytest.raises(CheckpointError):
        manager.open(tmp_path / "gone")
    assert manager.state().status == "ready"
    assert say(manager.chat(ASK)) == "I am one"


def test_running_out_of_memory_is_a_sentence_and_the_model_before_serves(folders, opener):
    manager = Manager(folders[0], opener=opener)
    manager.open(folders[0])

    def no_memory(info, how):
        raise RuntimeError("CUDA out of memory")

    manager._opener = no_memory
    with pytest.raises(CheckpointError, match="out of memory"):
        manager.open(folders[1])
    assert say(manager.chat(ASK)) == "I am one"


def test_an_answer_in_flight_ends_on_the_model_it_began_with(folders, opener):
    manager = Manager(folders[0], opener=opener)
    manager.open(folders[0])
    stream = manager.chat(ASK)
    stream.next()
    manager.open(folders[1])
    assert not opener.engines["one"].closed
    assert any(isinstance(e, Finish) and e.reason == "stop" for e in stream)
    assert say(manager.chat(ASK)) == "I am two"
    del stream
    gc.collect()
    assert opener.engines["one"].closed


def test_two_people_opening_the_same_model_give_one_load(folders, opener):
    manager = Manager(folders[0], opener=opener)
    opener.gate.clear()
    threads = [threading.Thread(target=manager.open, args=(folders[0],)) for _ in range(4)]
    for thread in threads:
        thread.start()
    opener.gate.set()
    for thread in threads:
        thread.join(10)
    assert opener.count == 1


def test_an_unknown_model_name_is_refused(folders, opener):
    manager = Manager(folders[0], opener=opener)
    manager.open(folders[0])
    for name in ("/etc", "../x", "base:missing"):
        with pytest.raises(BadRequest, match="available: base"):
            manager.chat(ASK, model=name)


def test_generation_config_gives_the_defaults(tmp_path, opener):
    folder = write_checkpoint(tmp_path / "greedy", vocabulary=66000)
    (folder / "generation_config.json").write_text('{"do_sample": false, "top_p": 0.5}')
    manager = Manager(folder, opener=opener)
    assert manager.defaults() == Sampling()
    manager.open(folder)
    assert (manager.defaults().temperature, manager.defaults().top_p) == (0.0, 0.5)


def test_one_python_call_chats(folders, opener):
    with glm.open(str(folders[0]), opener=opener) as model:
        text, history = model.chat("hello")
        again, longer = model.chat("more", history=history, temperature=0)
    assert text == again == "I am one"
    assert [m["role"] for m in longer] == ["user", "assistant"] * 2
    assert longer[:2] == history


@pytest.mark.parametrize("leave", ["replace", "aside"])
def test_a_question_on_its_way_keeps_the_model_it_was_asked(folders, opener, leave):
    manager = Manager(folders[0], opener=opener)
    manager.open(folders[0])
    dialect = manager._loaded.dialect
    prompt = dialect.prompt

    def slowly(conversation):  # and meanwhile somebody changes the model
        dialect.prompt = prompt
        manager.open(folders[1]) if leave == "replace" else manager.step_aside("training")
        assert not opener.engines["one"].closed
        return prompt(conversation)

    dialect.prompt = slowly
    stream = manager.chat(ASK)
    assert say(stream) == "I am one"
    del stream
    gc.collect()
    assert opener.engines["one"].closed


def test_a_question_that_is_refused_leaves_the_model_before_it_free(folders, opener):
    manager = Manager(folders[0], opener=opener)
    manager.open(folders[0])

    def refuse(conversation):
        manager.step_aside("training")
        raise BadRequest("no")

    manager._loaded.dialect.prompt = refuse
    with pytest.raises(BadRequest):
        manager.chat(ASK)
    assert opener.engines["one"].closed


def test_an_answer_that_has_ended_holds_no_model_though_somebody_keeps_it(folders, opener):
    manager = Manager(folders[0], opener=opener)
    manager.open(folders[0])
    stream = manager.chat(ASK)
    say(stream)
    manager.step_aside("training")
    assert opener.engines["one"].closed


def test_a_model_that_arrives_after_the_end_is_closed(folders, opener):
    manager = Manager(folders[0], opener=opener)
    opener.gate.clear()
    loader = threading.Thread(target=manager.open, args=(folders[0],))
    loader.start()
    manager.close()
    opener.gate.set()
    loader.join(10)
    assert opener.engines["one"].closed
    assert manager.state().status == "failed"
