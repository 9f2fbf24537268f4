"""A real browser on `python launch.py`: a stranger chats, on a desktop and on a phone."""

from __future__ import annotations

import pytest

from tests.browser.driver import Visit, browser
from tests.program import running
from tests.tiny_checkpoint import write_checkpoint

pytestmark = pytest.mark.browser


def test_a_stranger_chats(tmp_path, chromium):
    """The model is a random one: it babbles long enough to be seen streaming and be stopped."""
    model = write_checkpoint(tmp_path / "model", seq_length=4096)
    shots = tmp_path / "shots"
    with running(tmp_path, "--model", str(model)) as program, browser(chromium) as opened:
        program.wait_for_output("is ready")
        desktop = Visit(opened, program.url, shots)
        streams_and_stops(desktop, "Who are you?")
        desktop.reload()
        assert desktop.question() == "Who are you?"
        assert desktop.conversations() == ["Who are you?"]
        desktop.shot("desktop-en")
        assert (desktop.outside, desktop.problems) == ([], [])
        desktop.close()

        phone = Visit(opened, program.url, shots, phone=True, locale="zh-CN")
        assert phone.conversations() == []  # another browser is another visitor
        assert phone.page.get_attribute("#composer textarea", "placeholder") == "输入消息…"
        assert phone.fits()
        streams_and_stops(phone, "你是谁？")
        assert phone.fits()
        phone.page.click("#top .i-menu")
        phone.page.wait_for_function(
            "document.querySelector('#side').getBoundingClientRect().x >= 0"
        )
        assert phone.conversations() == ["你是谁？"]
        phone.shot("phone-zh")
        assert (phone.outside, phone.problems) == ([], [])


def streams_and_stops(visit: Visit, example: str) -> None:
    """Click an example, see the answer grow, stop it."""
    visit.page.click(f".example:has-text('{example}')")
    visit.page.wait_for_selector("#live [data-testid=bot]", timeout=60_000)
    early = visit.answer()
    visit.page.wait_for_function(
        "early => document.querySelector('#live .bot-row').innerText.length > early + 20",
        arg=len(early),
        timeout=60_000,
    )
    visit.page.click("#composer .stop-button")
    visit.wait_for_answer(example)
    assert len(visit.answer()) > len(early)
    assert visit.page.locator("#live .bot-row .turn .note").count() == 1
    assert "?c=" in visit.page.url
