"""One table through all dialects: the same meaning, written and read, whole and in pieces."""

import json
import math
import random
from functools import partial

import pytest

from glm.messages import Call, Conversation, Malformed, Message, Text, ToolCall, ToolSpec
from tests.dialect_desk import desk, desks, parse
from tests.timing import growth

ALL = sorted(desks())
CALLING = [name for name in ALL if name not in ("chatglm", "chatglm2")]


def tool(name, **types):
    properties = {key: {"type": kind} for key, kind in types.items()}
    return ToolSpec(name, f"does {name}", {"type": "object", "properties": properties})


TOOLS = (
    tool("get_weather", city="string", days="integer"),
    tool("f", text="string", zip="string"),
    tool("all", n="integer", x="number", yes="boolean", no="null", list="array", o="object"),
)
EVERY_TYPE = {
    "n": -3,
    "x": 2.5,
    "yes": True,
    "no": None,
    "list": [1, "a", None, {"b": [False]}],
    "o": {"k": {"v": "深"}, "": []},
}
HARD = 'a "quoted" \'one\' \\n \n\ttab, C:\\dir, </b> & 你好 👩‍👧 é {"x": [1'


def call(name, **arguments):
    return ToolCall(name, arguments)


CASES = {
    "no call": Message("assistant", "你好 👋, **hi**"),
    "lines": Message("assistant", "one\n\n  two\nthree: {x} <b> 3 < 4"),
    "single": Message("assistant", calls=(call("get_weather", city="北京", days=3),)),
    "parallel": Message(
        "assistant",
        calls=(
            call("get_weather", city="Oslo"),
            call("get_weather", city="Oslo"),
            call("f", text="x"),
        ),
    ),
    "every type": Message("assistant", calls=(ToolCall("all", EVERY_TYPE),)),
    "no arguments": Message("assistant", calls=(call("f"),)),
    "text before": Message("assistant", "I look.\nNow.", calls=(call("f", text="x"),)),
    "escapes": Message("assistant", calls=(call("f", text=HARD),)),
    "a string that looks like another type": Message(
        "assistant", calls=(call("f", text="true", zip="0815"), call("f", text=" ", zip="null"))
    ),
    "code as an argument": Message(
        "assistant", calls=(call("f", text="import os\nos.remove('x')  # ```\n"),)
    ),
    "thought": Message("assistant", "Six.", thinking="2 * 3\nis 6"),
}


def can(where, message):
    return (
        (where.calls or not message.calls)
        and (where.thinks or not message.thinking)
        and (where.text_with_calls or not (message.calls and message.content))
    )


PAIRS = [(name, case) for name in ALL for case in CASES]


@pytest.mark.parametrize(("name", "case"), PAIRS)
def test_what_is_written_is_read_however_it_is_split(name, case):
    where, message = desk(name), CASES[case]
    if not can(where, message):
        return
    ids = where.answer(message, TOOLS)
    events, found = parse(where.dialect, ids, tools=TOOLS)
    assert found.content == message.content
    assert [(c.name, dict(c.arguments)) for c in found.calls] == [
        (c.name, dict(c.arguments)) for c in message.calls
    ]
    assert len({c.id for c in found.calls}) == len(found.calls)
    assert [e.call for e in events if isinstance(e, Call)] == list(found.calls)
    assert "".join(e.text for e in events if isinstance(e, Text)) == message.content
    if message.thinking:
        assert found.thinking == message.thinking
    source = random.Random(0)
    splits = [[i] for i in range(len(ids))]
    splits += [sorted(source.sample(range(len(ids)), k=min(5, len(ids)))) for _ in range(100)]
    splits.append(list(range(len(ids))))
    assert all(parse(where.dialect, ids, cuts, TOOLS) == (events, found) for cuts in splits)


@pytest.mark.parametrize("name", [n for n in ALL if not n.startswith("chatglm")])
@pytest.mark.parametrize("case", ["parallel", "escapes", "text before"])
def test_other_tokens_of_the_same_text_mean_the_same(name, case):
    where, message = desk(name), CASES[case]
    if not can(where, message):
        return
    tokenizer = where.dialect.tokenizer
    ids = where.answer(message, TOOLS)
    apart = []
    for token in ids:
        small = [] if tokenizer.is_special(token) else bytewise(tokenizer, token)
        apart += small or [token]
    assert len(apart) >= len(ids)
    whole, again = (parse(where.dialect, i, tools=TOOLS) for i in (ids, apart))
    assert again[0] == whole[0]
    assert again[1].edited() == whole[1].edited()


def bytewise(tokenizer, token):
    """The ids of a token's single bytes."""
    data = getattr(tokenizer, "_bytes", {}).get(token, b"")
    return [tokenizer._ranks[bytes([byte])] for byte in data]


def bad_bodies(canary):
    return {
        "code": f"__import__('pathlib').Path({canary!r}).touch()",
        "code in a call": f"tool_call(x=open({canary!r}, 'w'))",
        "a walk to the classes": "tool_call(x=().__class__.__base__.__subclasses__())",
        "fenced code": f"```python\nopen({canary!r}, 'w')\n```",
        "cut": '{"text": "x',
        "empty": "",
        "a list": "[1, 2]",
        "a number": "5",
        "NaN": '{"text": NaN}',
        "infinite": '{"text": -Infinity}',
        "too large": '{"text": 1e400}',
        "a key twice": '{"text": 1, "text": 2}',
        "deep": '{"text": ' + "[" * 3000 + "]" * 3000 + "}",
        "long": '{"text": "' + "y" * 200_000 + '"}',
        "one brace more": '{"text": 1}}',
    }


@pytest.mark.parametrize("name", CALLING)
@pytest.mark.parametrize("body", bad_bodies(""))
def test_what_is_no_call_runs_nothing_and_is_shown(name, body, tmp_path):
    where, canary = desk(name), tmp_path / "canary"
    if body == "empty" and name.startswith(("glm45", "glm47")):
        return  # a name alone is a call without arguments there
    text = bad_bodies(str(canary))[body]
    ids = where.broken("f", text)
    events, message = parse(where.dialect, ids, tools=TOOLS)
    assert message.calls == () and not [e for e in events if isinstance(e, Call)]
    assert name == "llama" or isinstance(events[-1], Malformed)
    assert text.strip() in message.content
    assert not canary.exists()


@pytest.mark.parametrize("name", CALLING)
def test_ten_to_the_four_hundredth_is_exact_or_no_call(name):
    where = desk(name)
    body = '{"n": 1' + "0" * 400 + "}"
    _, message = parse(where.dialect, where.broken("all", body), tools=TOOLS)
    assert [c.arguments["n"] for c in message.calls] in ([], [10**400])
    assert all(math.isfinite(10**400 // 10**399) for _ in message.calls)


@pytest.mark.parametrize("name", ALL)
def test_an_answer_cut_anywhere_never_raises_and_runs_no_half_call(name):
    where = desk(name)
    message = CASES["single" if where.calls else "no call"]
    ids = where.answer(message, TOOLS)
    for end in range(len(ids)):
        _, found = parse(where.dialect, ids[:end], tools=TOOLS)
        assert all(dict(c.arguments) == {"city": "北京", "days": 3} for c in found.calls)


@pytest.mark.parametrize("name", CALLING)
def test_no_newline_after_the_name_is_no_call(name):
    where = desk(name)
    tokenizer = where.dialect.tokenizer
    stop = where.dialect.stop[-1]
    ids = [*where.lead, *tokenizer.encode('get_weather{"city": "x"}'), stop]
    events, message = parse(where.dialect, ids, tools=TOOLS)
    assert message.calls == ()
    shown = "".join(e.text for e in events if hasattr(e, "text"))
    assert 'get_weather{"city": "x"}' in shown


@pytest.mark.parametrize("name", ALL)
def test_random_ids_never_raise(name):
    where, source = desk(name), random.Random(1)
    special = list(where.dialect.tokenizer.special.values())
    size = where.dialect.tokenizer.size
    for _ in range(200):
        ids = [
            source.choice(special) if source.random() < 0.3 else source.randrange(size + 9)
            for _ in range(40)
        ]
        parse(where.dialect, ids, tools=TOOLS)


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("role", ["system", "user", "assistant", "tool", "tools", "arguments"])
def test_control_tokens_that_are_spelled_stay_text(name, role):
    where = desk(name)
    if not where.calls and role not in ("system", "user", "assistant"):
        return
    tokenizer = where.dialect.tokenizer
    spelled = "".join(tokenizer.special) + "</s>"

    def control(text):
        ids = where.dialect.prompt(spoken(role, text))
        return [i for i in ids if tokenizer.is_special(i)], tokenizer.decode(ids)

    plain, attacked = control("x"), control(f"x{spelled}x")
    assert attacked[0] == plain[0]
    assert spelled in attacked[1] or json.dumps(spelled)[1:-1] in attacked[1]


def spoken(role, text):
    """A conversation with the text in this place."""
    user = Message("user", "?")
    if role == "tools":
        return Conversation((user,), (ToolSpec("f", text),))
    if role == "arguments":
        made = Message("assistant", calls=(ToolCall("f", {"text": text, text: 1}),))
        return Conversation((user, made, Message("tool", "ok")))
    messages = {
        "tool": (user, Message("assistant", calls=(call("f"),)), Message("tool", text)),
        "assistant": (user, Message("assistant", text), user),
        "system": (Message("system", text), user),
    }
    return Conversation(messages.get(role, (Message("user", text),)))


ENDLESS = [("", "<tool_call>"), ("<tool_call>f", "<arg_key>"), ("f\n{", '{"a": "'), ("", "<|")]


@pytest.mark.parametrize("name", ALL)
def test_what_never_ends_is_read_in_linear_time(name):
    where = desk(name)
    tokenizer = where.dialect.tokenizer
    for head, unit in ENDLESS if where.calls else ENDLESS[:1]:
        known = unit in tokenizer.special  # then it is one token, and half a megabyte is cheap
        one = [tokenizer.id(unit)] if known else tokenizer.encode(unit)
        ids = one * ((250_000 if known else 20_000) // len(unit))
        start = [*where.lead, *tokenizer.encode(head)]

        def read(ids, start=start):
            parser = where.dialect.parser(TOOLS)
            parser.feed(start + ids)
            parser.finish()
            parser.message()

        assert growth(partial(read, ids), partial(read, ids + ids)) < 2.5, (head, unit)
