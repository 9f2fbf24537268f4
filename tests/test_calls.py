"""Reading calls: literals only, in time linear in the text."""

from functools import partial

import pytest

from glm.dialects.calls import NotACall, arguments
from glm.dialects.chatglm3 import ChatGLM3
from glm.tokenizer import Tokenizer
from tests.shared_files import tokenizer_file
from tests.timing import growth


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("tool_call(a='x', b=-1, c=2.5, d=True, e=None)", dict(a="x", b=-1, c=2.5, d=True, e=None)),
        ('```python\ntool_call(q="it\'s")\n```', {"q": "it's"}),
        ('```json\n{"a": [1, {"b": null}]}\n```', {"a": [1, {"b": None}]}),
        ("tool_call(a=(1, 2), b={'k': 'v'})", {"a": [1, 2], "b": {"k": "v"}}),
        ("tool_call(x-y='a,b=c)', z='\\'')", {"x-y": "a,b=c)", "z": "'"}),
        ("tool_call(path='C:\\dir')", {"path": "C:\\dir"}),
    ],
)
def test_literals_are_read(text, expected):
    assert arguments(text) == expected


def test_no_code_of_the_model_runs(tmp_path):
    canary = tmp_path / "canary"
    for call in (
        f"tool_call(x=__import__('pathlib').Path({str(canary)!r}).touch())",
        f"tool_call(x-y=open({str(canary)!r}, 'w'))",
        "tool_call(x=[c for c in ().__class__.__base__.__subclasses__()])",
    ):
        with pytest.raises(NotACall):
            arguments(call)
    assert not canary.exists()


def test_time_is_linear_in_unclosed_text():
    dialect = ChatGLM3(Tokenizer(tokenizer_file()))
    head = dialect.tokenizer.encode("f\n") + dialect.tokenizer.encode("```python\ntool_call(")

    def read(ids):
        parser = dialect.parser()
        parser.feed(head + ids)
        parser.finish()

    sizes = {"tool_call(a='": 250_000, "```python\n": 50_000, "((((": 50_000, "x=1, ": 50_000}
    for unit, size in sizes.items():
        body = dialect.tokenizer.encode(unit * (size // len(unit)))
        assert growth(partial(read, body), partial(read, body + body)) < 2.5
