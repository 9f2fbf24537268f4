"""Half a megabyte that never closes what it opens: read in other threads, in small pieces."""

from __future__ import annotations

import asyncio
import gc
import threading

import pytest

from benchmarks.event_loop import Page, Scripted, answers
from glm.app import App
from glm.dialects.tagged import TaggedParser
from glm.store import Store
from launcher.serve import settle
from tests.dialect_desk import TAGS, ranks
from tests.fake_workshop import FakeWorkshop

SIZE = 500_000
MOST_IDS = 64  # that the parser reads without letting others run
MOST_SENT = 200_000  # characters of one step of the page


class Watched:
    """Which threads read ids, and how many at once."""

    def __init__(self, monkeypatch) -> None:
        self.threads, self.sizes = set(), []
        feed, finish = TaggedParser.feed, TaggedParser.finish

        def watched(parser, ids):
            self.threads.add(threading.get_ident())
            self.sizes.append(len(ids))
            return feed(parser, ids)

        def ended(parser):
            self.threads.add(threading.get_ident())
            return finish(parser)

        monkeypatch.setattr(TaggedParser, "feed", watched)
        monkeypatch.setattr(TaggedParser, "finish", ended)


async def asked(page, tab):
    """Ask; which thread the event loop has, and how often another task ran meanwhile."""
    turns = 0

    async def other():
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0.001)

    beside = asyncio.create_task(other())
    await page.ask(tab)
    beside.cancel()
    return threading.get_ident(), turns


@pytest.mark.parametrize("tab", ["chat", "tools"])
def test_a_huge_malformed_answer_is_read_off_the_event_loop(tab, tmp_path, monkeypatch):
    watched, manager = Watched(monkeypatch), Scripted(ranks(TAGS))
    with Store(tmp_path / "chats.db") as store:
        shop = FakeWorkshop(tmp_path / "files")
        page = Page(App(manager, store, tmp_path, tools=shop))
        manager.ids = dict(answers(ranks(TAGS), SIZE))["keys without an end"]
        loop_thread, turns = asyncio.run(asked(page, tab))
        page.close()
        [conversation] = store.list("local")
        kept = store.path("local", conversation.id)[1].message.content
    assert len(kept) > SIZE * 0.9  # nothing of it is lost
    assert sum(watched.sizes) > SIZE // 10
    assert loop_thread not in watched.threads
    assert max(watched.sizes) <= MOST_IDS
    assert turns > len(page.sent) > 0
    assert tab == "chat" or max(page.sent) < MOST_SENT


def test_what_the_program_is_made_of_is_not_collected_again():
    kept = [object(), {}]
    settle()
    try:
        assert gc.get_freeze_count() > 10_000
        assert not any(one is kept for one in gc.get_objects())
    finally:
        gc.unfreeze()
    assert any(one is kept for one in gc.get_objects())
    settle()  # the libraries need not be looked at in the tests that follow, either
