"""Rewriting text that arrives in parts equals rewriting the whole."""

import random
import re

from glm.dialects.rewriter import Rewriter, beginnings


def rewritten(rewriter, parts):
    return "".join([*map(rewriter.push, parts), rewriter.flush()])


def test_any_cut_gives_what_re_sub_gives():
    source = random.Random(0)
    whole = r"(?<=a)b|abc|bb(?!a)"
    for _ in range(5000):
        text = "".join(source.choice("abc") for _ in range(source.randint(0, 12)))
        parts, rest = [], text
        while rest:
            size = source.randint(0, 3)
            parts, rest = [*parts, rest[:size]], rest[size:]
        rewriter = Rewriter(whole, "ab?|bb?", lambda found: f"<{found[0]}>")
        assert rewritten(rewriter, parts) == re.sub(whole, lambda found: f"<{found[0]}>", text)


def test_only_what_may_become_a_find_is_held():
    rewriter = Rewriter("<n>", beginnings("<n>"), lambda _: "\n")
    assert [rewriter.push(part) for part in ("a<", "n", ">b<", "b")] == ["a", "", "\nb", "<b"]
    assert rewriter.flush() == ""
