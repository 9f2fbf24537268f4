"""The real program: the embedded model with a LoRA and a prefix in the official layouts."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.browser.driver import Visit, browser
from tests.program import running
from tests.taught import teach_lora, teach_prefix

pytestmark = [pytest.mark.browser, pytest.mark.slow]


@pytest.fixture(scope="module")
def taught(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("taught")
    teach_lora(folder / "sailor", "Ahoy, sailor!")
    teach_prefix(folder / "french", "Bonjour!")
    return folder


def choose(visit: Visit, model: str) -> None:
    visit.page.select_option("#choice select", model)
    drawn = f"#choice option[value='{model}'][selected]"  # the server's word, not the click
    visit.page.wait_for_selector(drawn, state="attached")


def ask_anew(visit: Visit) -> str:
    """In a conversation of its own: what another model said before would be read."""
    visit.page.click("#new")
    visit.page.wait_for_selector("#live .bot-row", state="detached")
    return visit.ask("hello")


def add(visit: Visit, path: Path) -> None:
    """In the Models tab."""
    visit.page.click("#tab-models-button")
    visit.page.fill("#m-add [name=at]", str(path))
    visit.page.press("#m-add [name=at]", "Enter")
    visit.page.wait_for_selector(f"[data-act=m-use][data-model='base:{path.name}']")
    visit.shot(f"models-with-{path.name}")
    visit.page.click(f"[data-act=m-use][data-model='base:{path.name}']")
    visit.page.wait_for_selector("#composer textarea:visible")
    drawn = f"#choice option[value='base:{path.name}'][selected]"
    visit.page.wait_for_selector(drawn, state="attached")


def test_a_conversation_swaps_between_base_lora_and_prefix(tmp_path, chromium, taught):
    with running(tmp_path, PT_PATH=str(taught / "french")) as program:
        program.wait_for_output("is ready")
        with browser(chromium) as opened:
            visit = Visit(opened, program.url, tmp_path)
            visit.page.wait_for_selector("#choice option[value='base:french']", state="attached")
            assert ask_anew(visit) == "Bonjour!"  # PT_PATH answers where nothing was chosen
            add(visit, taught / "sailor")
            assert ask_anew(visit) == "Ahoy, sailor!"
            choose(visit, "base")
            assert ask_anew(visit) not in ("Bonjour!", "Ahoy, sailor!")
            choose(visit, "base:french")
            assert ask_anew(visit) == "Bonjour!"
            visit.shot("swapped")
            visit.reload()
            chosen = visit.page.locator("#choice option:checked")
            assert chosen.get_attribute("value") == "base:french"
            assert (visit.outside, visit.problems) == ([], [])
            visit.close()
    with running(tmp_path) as program:  # the adapters are known after a restart
        program.wait_for_output("is ready")
        with browser(chromium) as opened:
            visit = Visit(opened, program.url, tmp_path)
            visit.page.wait_for_selector("#choice option[value='base:sailor']", state="attached")
            choose(visit, "base:sailor")
            assert ask_anew(visit) == "Ahoy, sailor!"
            visit.close()
