"""Rows of a better and a worse answer."""

import pytest

from finetune.formats import FORMATS, CannotHold, read_row
from finetune.formats import chosen_rejected as pairs
from glm.messages import Conversation, Message, ToolCall
from tests.format_rows import ONE, WITH_TOOLS, said, turn


@pytest.mark.parametrize(
    "row",
    [
        {"prompt": "1+1?", "chosen": "2", "rejected": "3"},
        {"instruction": "1+1?", "input": "", "chosen": "2", "rejected": "3"},
        {"prompt": [turn("user", "1+1?")], "chosen": [turn("assistant", "2")],
         "rejected": [turn("assistant", "3")]},
        {"prompt": "1+1?", "chosen": [turn("user", "1+1?"), turn("assistant", "2")],
         "rejected": [turn("user", "1+1?"), turn("assistant", "3")]},
        {"conversations": [said("human", "1+1?")], "chosen": said("gpt", "2"),
         "rejected": said("gpt", "3")},
        {"messages": [turn("user", "1+1?"), turn("assistant", "2")], "rejected_response": "3"},
    ],
)  # fmt: skip
def test_both_answers_of_a_pair_are_read(row):
    chosen, rejected = pairs.both(row)
    assert chosen == read_row(row) == ONE
    assert rejected == Conversation((ONE.messages[0], Message("assistant", "3")))
    assert pairs.both(pairs.write_both(chosen, rejected)) == (chosen, rejected)


def test_a_corrected_call_is_a_pair():
    wrong = ToolCall("get_weather", {"city": "南京"}, id="call_1")
    ends = WITH_TOOLS.messages[:2]
    chosen = Conversation(ends, WITH_TOOLS.tools)
    rejected = Conversation(
        (ends[0], Message("assistant", "I look.", calls=(wrong,))), chosen.tools
    )
    assert pairs.both(pairs.write_both(chosen, rejected)) == (chosen, rejected)
    with pytest.raises(CannotHold, match="rejected"):
        FORMATS["chosen-rejected"].write(chosen)
