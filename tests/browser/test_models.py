"""The Models tab in a real browser: look, open, add an adapter, chat with it, and lose it."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

import glm.manager
from glm.store import Store
from tests.browser.driver import Visit, browser
from tests.browser.scripted_server import serving
from tests.fake_adapters import read_nothing
from tests.tiny_checkpoint import write_shell

pytestmark = pytest.mark.browser
ATTACK = "<img src=x onerror=window.pwned=1>"
WEATHER = "option[value='base:weather']"


class Operator(Visit):
    """Begins in the Models tab, where there is no message field."""

    def ready(self) -> None:
        self.page.wait_for_selector("body.ready #m-finds .m-row", timeout=60_000)


def test_an_operator_looks_opens_and_adds_what_a_chat_then_chooses(tmp_path, chromium, monkeypatch):
    monkeypatch.setattr(glm.manager, "read_adapter", read_nothing)
    shelf, shots = tmp_path / "shelf", tmp_path / "shots"
    write_shell(shelf / "chatglm2-other", seed=1)
    write_shell(shelf / ATTACK, seed=2)
    with serving(tmp_path, lambda asked: "Fine.") as (url, _), browser(chromium) as opened:
        visit = Operator(opened, f"{url}?tab=models", shots)
        other = Visit(opened, url, shots, phone=True, locale="zh-CN")
        assert "ChatGLM3" in visit.page.inner_text("#m-now")
        looks_and_opens(visit, str(shelf))
        adds(visit, str(tmp_path / "runs" / "weather"))
        visit.page.click("[data-act=m-use][data-model='base:weather']")
        visit.page.wait_for_selector(f"#choice {WEATHER}:checked", state="attached")
        assert visit.ask("hello") == "Fine."
        assert visit.page.inner_text("#live .bot-row .turn .by") == "weather"
        visit.shot("chat-desktop-en")
        other.page.focus("#composer textarea")  # the page of somebody else learns of it
        other.page.wait_for_selector(f"#choice {WEATHER}", state="attached")
        assert other.fits()
        other.shot("chat-phone-zh")
        goes_and_comes_back(visit)
        for one in (visit, other):
            assert (one.outside, one.problems) == ([], [])
            assert one.page.evaluate("window.pwned") is None
            one.close()
    assert recorded(tmp_path / "chats.db") == ["base:weather", "base"]


def recorded(file: Path) -> list[str]:
    """Which model gave each answer of the only conversation."""
    with closing(sqlite3.connect(file)) as db:
        [(owner, chat)] = db.execute("SELECT owner, id FROM conversations").fetchall()
    with Store(file) as store:
        return [node.turn.model for node in store.path(owner, chat) if node.turn]


def looks_and_opens(visit: Visit, shelf: str) -> None:
    """A folder is searched, a model in it looked at and opened."""
    page = visit.page
    page.fill("#m-finds [data-form=folder] input", shelf)
    page.press("#m-finds [data-form=folder] input", "Enter")
    page.wait_for_selector(".m-row:has-text('onerror')")
    page.click(".m-row:has-text('chatglm2-other') [data-act=m-look]")
    page.wait_for_selector(".m-find .m-fit.fits")
    assert "coded as ChatGLM2" in page.inner_text(".m-find")
    visit.shot("models-desktop-en")
    page.click(".m-find [type=submit]")
    page.wait_for_selector("#m-now:has-text('chatglm2-other')")
    page.wait_for_selector(".m-row:has-text('chatglm2-other') .live")
    page.click(".m-row:has-text('onerror') [data-act=m-open]")
    page.wait_for_selector("#m-now:has-text('onerror')")


def adds(visit: Visit, path: str) -> None:
    page = visit.page
    page.fill("#m-add [name=at]", path)
    page.press("#m-add [name=at]", "Enter")
    page.wait_for_selector(".m-adapter:has-text('weather'):has-text('LoRA r=8')")
    assert page.input_value("#m-add [name=at]") == ""


def goes_and_comes_back(visit: Visit) -> None:
    """The adapter of the open conversation is removed: said at once, and one click leads back."""
    page = visit.page
    page.click("#tab-models-button")
    page.click("[data-act=m-forget]")
    page.wait_for_selector("#m-adapters .m-empty")
    page.click("#tab-chat-button")
    page.wait_for_selector("#gone .notice")
    visit.send("still there?")
    page.wait_for_selector("#meter .notice")
    assert page.input_value("#composer textarea") == "still there?"
    page.click("#gone [data-choose]")
    page.wait_for_selector("#gone .notice", state="detached")
    assert visit.ask("still there?") == "Fine."
