"""The workshop: what there is for whom, tools of one's own, files, what is forgotten."""

from __future__ import annotations

import inspect
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from glm.app import App
from glm.cancel import Cancel
from glm.errors import BadRequest, NotAllowed, NotFound, ToolError
from glm.identity import User
from glm.messages import ToolCall
from glm.store import Store
from tests.fake_workshop import FakeWorkshop
from tools.folders import folder_name, plain_name
from tools.pastes import Paste, Pastes
from tools.workshop import Workshop

ANN = User("ann", "Ann", operator=True)
BOB = User("bob", "Bob")
EVE = User("eve", "Eve")
DOUBLE = 'def double(n: int) -> int:\n    """Twice a number."""\n    return 2 * n\n'
BOOK = "name: find_book\ndescription: Find a book\nparameters:\n  type: object\n  properties: {}\n"
Make = Callable[..., Workshop]


@pytest.fixture
def make(tmp_path: Path) -> Iterator[Make]:
    """Makes workshops over one data folder."""
    made: list[Workshop] = []
    (tmp_path / "my").mkdir()

    def workshop(**about) -> Workshop:
        made.append(Workshop(tmp_path / "data", my=tmp_path / "my", **about))
        return made[-1]

    yield workshop
    for one in made:
        one.close()


@pytest.fixture
def isolated(make) -> Workshop:
    shop = make()
    if shop.isolation() == "off":
        pytest.skip("no isolation works on this machine")
    return shop


def card(shop: Workshop, user: User, name: str):
    return next((one for one in shop.cards(user) if one.name == name), None)


def call(shop: Workshop, user: User, name: str, chat: str = "c", /, **arguments):
    return shop.run(user, chat, ToolCall(name, arguments), Cancel())


# ---- what there is ----


def test_a_visitor_finds_the_built_in_tools_and_runs_one(make):
    shop = make()
    assert card(shop, BOB, "calculator").available
    assert call(shop, BOB, "calculator", expression="6*7").text == "42"


def test_a_tool_that_is_not_enabled_is_denied_and_never_run(make):
    box = make().toolbox(BOB, "c", ["calculator", "no_such"], {"get_time": "allow"})
    assert [spec.name for spec in box.specs()] == ["calculator"]
    assert (box.policy("calculator"), box.policy("get_time")) == ("allow", "deny")
    assert box.call(ToolCall("get_time", {"place": "Paris"}), Cancel()).error


def test_policies_of_a_conversation_that_are_none_change_nothing(make):
    box = make().toolbox(BOB, "c", ["get_weather"], {"get_weather": "whatever"})
    assert box.policy("get_weather") == "ask"


def test_the_operators_own_tools_are_everybodys_and_their_mistakes_are_the_operators(
    make, tmp_path
):
    shop = make()
    head = "from tools.registry import tool\n\n\n@tool\n"
    (tmp_path / "my" / "double.py").write_text(head + DOUBLE)
    (tmp_path / "my" / "broken.py").write_text("def half(:\n")
    assert card(shop, BOB, "double").origin == "my"
    assert call(shop, BOB, "double", n=21).text == "42"
    assert card(shop, BOB, "broken.py") is None
    assert "broken.py" in card(shop, ANN, "broken.py").reason
    assert not card(shop, ANN, "broken.py").available


# ---- pasted ----


def test_a_pasted_function_is_its_visitors_alone_and_stays(isolated, make):
    shop = isolated
    assert shop.paste_function(BOB, DOUBLE).mine
    assert call(shop, BOB, "double", n=21).text == "42"
    assert card(shop, EVE, "double") is None and card(shop, ANN, "double") is None
    assert "no tool 'double'" in call(shop, EVE, "double", n=1).text
    again = make()
    assert call(again, BOB, "double", n=4).text == "8"
    with pytest.raises(NotFound, match="pasted no tool"):
        again.remove(EVE, "double")
    again.remove(BOB, "double")
    assert card(again, BOB, "double") is None


def test_pasted_again_it_is_replaced(isolated):
    isolated.paste_function(BOB, DOUBLE)
    isolated.paste_function(BOB, DOUBLE.replace("2 *", "3 *"))
    assert call(isolated, BOB, "double", n=2).text == "6"
    assert [one.name for one in isolated.cards(BOB)].count("double") == 1


@pytest.mark.parametrize("name", ["calculator", "interpreter"])
def test_nobody_takes_the_name_of_another_tool(isolated, name):
    with pytest.raises(BadRequest, match="exists already"):
        isolated.paste_function(BOB, DOUBLE.replace("double", name))
    with pytest.raises(BadRequest, match="exists already"):
        isolated.paste_schema(BOB, f'{{"name": "{name}"}}')


def test_a_name_that_the_operator_takes_later_is_the_operators(make, tmp_path):
    shop = make()
    shop.paste_schema(BOB, '{"name": "double"}')
    (tmp_path / "my" / "double.py").write_text(
        f"from tools.registry import tool\n\n\n@tool\n{DOUBLE}"
    )
    found = [one for one in shop.cards(BOB) if one.name == "double"]
    assert [(one.origin, one.available) for one in found] == [("my", True), ("schema", False)]
    assert call(shop, BOB, "double", n=1).text == "2"


def test_a_pasted_schema_asks_its_visitor(make):
    shop = make()
    made = shop.paste_schema(BOB, BOOK)
    assert (made.name, made.origin, made.policy) == ("find_book", "schema", "ask")
    box = shop.toolbox(BOB, "c", ["find_book"], {"find_book": "allow"})
    assert box.policy("find_book") == "ask"
    assert shop.paste_schema(BOB, "getWeather: the weather of a city").spec.parameters is None
    assert make().cards(BOB)[-1].spec.raw == "getWeather: the weather of a city"


def test_there_is_an_end_to_what_one_visitor_pastes(make):
    shop = make()
    with pytest.raises(BadRequest, match="more than 50 tools"):
        for number in range(60):
            shop.paste_schema(BOB, f'{{"name": "tool_{number}"}}')
    assert len([one for one in shop.cards(BOB) if one.mine]) == 50
    assert shop.paste_schema(EVE, BOOK).mine


def test_a_damaged_file_of_pasted_tools_holds_nothing(tmp_path):
    pastes = Pastes(tmp_path)
    pastes.put("bob", Paste("a", "schema", "{}"))
    next(tmp_path.glob("*.json")).write_text('[{"name": "a"')
    assert Pastes(tmp_path).of("bob") == ()


# ---- isolation ----


def test_without_isolation_nothing_pasted_runs_and_code_is_off(isolated, make):
    isolated.paste_function(BOB, DOUBLE)
    bare = make(isolation="off")
    assert bare.isolation() == "off"
    for user in (ANN, BOB):
        with pytest.raises(NotAllowed, match="needs a sandbox"):
            bare.paste_function(user, DOUBLE)
        assert not card(bare, user, "interpreter").available
    kept = card(bare, BOB, "double")
    assert not kept.available and "sandbox" in kept.reason
    assert call(bare, BOB, "double", n=1).error
    assert call(bare, ANN, "interpreter", code="1").error


def test_code_without_isolation_is_the_operators_alone_and_always_asks(make, tmp_path):
    shop = make(isolation="off")
    with pytest.raises(NotAllowed, match="only the operator"):
        shop.allow_unisolated(BOB)
    shop.allow_unisolated(ANN)
    assert shop.isolation() == "none"
    assert card(shop, ANN, "interpreter").available
    box = shop.toolbox(ANN, "c", ["interpreter"], {"interpreter": "allow"})
    assert box.policy("interpreter") == "ask"
    assert not card(shop, BOB, "interpreter").available
    canary = tmp_path / "canary"
    code = f"open({str(canary)!r}, 'w')"
    assert call(shop, BOB, "interpreter", code=code).error
    box = shop.toolbox(BOB, "c", ["interpreter"], {"interpreter": "allow"})
    assert (box.specs(), box.policy("interpreter")) == ((), "deny")
    assert not canary.exists()
    with pytest.raises(NotAllowed, match="needs a sandbox"):
        shop.paste_function(ANN, DOUBLE)
    assert make(isolation="off").isolation() == "off"  # it is not remembered


def test_isolation_that_works_is_not_given_up(isolated):
    before = isolated.isolation()
    isolated.allow_unisolated(ANN)
    assert isolated.isolation() == before


# ---- files ----


def test_uploads_and_what_code_wrote_are_the_conversations_files(isolated, tmp_path):
    source = tmp_path / "data" / "uploads" / "a.csv"
    source.parent.mkdir(parents=True)
    source.write_text("n\n1\n")
    assert isolated.add_file(BOB, "c", source, "../a.csv") == "a.csv"
    code = "import os; os.mkdir('out'); open('out/b.txt', 'w').write(open('a.csv').read() * 2)"
    assert not call(isolated, BOB, "interpreter", code=code).error
    found = isolated.files(BOB, "c")
    assert found["a.csv"].read_text() == "n\n1\n" and found["out/b.txt"].read_text() == "n\n1\n" * 2
    assert '"rows": [[1]]' in call(isolated, BOB, "query_table", sql="SELECT n FROM a").text
    assert isolated.files(BOB, "other") == {} and isolated.files(EVE, "c") == {}
    call(
        isolated,
        BOB,
        "interpreter",
        code="open('a.csv', 'a').write('2\\n'); os.unlink('out/b.txt')",
    )
    found = isolated.files(BOB, "c")
    assert found["a.csv"].read_text() == "n\n1\n2\n" and list(found) == ["a.csv"]


def test_a_link_that_code_lays_leads_nowhere(isolated, tmp_path):
    secret = tmp_path / "secret"
    secret.write_text("canary")
    code = f"open('a.txt', 'w').write('mine'); import os; os.symlink({str(secret)!r}, 'b.txt')"
    assert not call(isolated, BOB, "interpreter", code=code).error
    found = isolated.files(BOB, "c")
    assert list(found) == ["a.txt"]
    swap = f"os.unlink('a.txt'); os.symlink({str(secret)!r}, 'a.txt')"
    assert not call(isolated, BOB, "interpreter", code=swap).error
    assert found["a.txt"].read_text() == "mine"  # what was handed out is a copy
    assert isolated.files(BOB, "c") == {}


def test_a_visitor_opens_no_path_and_the_operator_does(make, tmp_path):
    shop, secret = make(), tmp_path / "secret"
    secret.write_text("canary")
    uploads = tmp_path / "data" / "uploads"
    uploads.mkdir(parents=True)
    (uploads / "link.txt").symlink_to(secret)
    paths = [secret, uploads / "../../secret", uploads / "link.txt", Path("/etc/passwd")]
    for path in paths:
        with pytest.raises(NotAllowed, match="only the operator may open"):
            shop.add_file(BOB, "c", path, "a.txt")
    assert shop.files(BOB, "c") == {}
    assert shop.add_file(ANN, "c", secret, "a.txt") == "a.txt"


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        ("../../etc/passwd", "passwd"),
        ("C:\\Users\\a b.csv", "a b.csv"),
        ("..", "file"),
        (".hidden", "hidden"),
        ("a\nb\x00<c>.txt", "a_b__c_.txt"),
        ("数据 表.csv", "数据 表.csv"),
        ("x" * 300 + ".csv", "x" * 96 + ".csv"),
    ],
)
def test_a_files_name_is_plain(given, kept):
    assert plain_name(given) == kept


def test_too_many_and_too_large_files_are_refused(make, tmp_path, monkeypatch):
    shop = make()
    source = tmp_path / "a"
    source.write_text("12345")
    monkeypatch.setattr("tools.folders.MAX_FILES", 2)
    for number in range(2):
        shop.add_file(ANN, "c", source, f"{number}.txt")
    with pytest.raises(BadRequest, match="at most 2 files"):
        shop.add_file(ANN, "c", source, "3.txt")
    shop.add_file(ANN, "c", source, "1.txt")
    monkeypatch.setattr("tools.folders.MAX_FILE", 4)
    with pytest.raises(BadRequest, match="larger than"):
        shop.add_file(ANN, "d", source, "1.txt")
    with pytest.raises(NotFound, match="no file"):
        shop.add_file(ANN, "d", tmp_path, "1.txt")


def test_folders_of_different_owners_never_meet():
    names = ["Ann", "ann", "", "..", "a/b", "a-b", "con", "安", "x" * 300]
    made = {folder_name(name).casefold() for name in names}
    assert len(made) == len(names)
    assert all("~" in name and "/" not in name and len(name) < 60 for name in made)


# ---- the end ----


def test_a_conversation_is_forgotten_with_its_interpreter_and_files(isolated, tmp_path):
    source = tmp_path / "a.txt"
    source.write_text("a")
    for user in (ANN, BOB):
        isolated.run(user, "c", ToolCall("interpreter", {"code": "x = 1"}), Cancel())
    isolated.add_file(ANN, "c", source, "a.txt")
    hostile = "import os; os.makedirs('d/e'); open('d/e/f', 'w'); os.chmod('d', 0)"
    call(isolated, ANN, "interpreter", code=hostile)
    isolated.forget(ANN, "c")
    assert isolated.files(ANN, "c") == {}
    assert not list((tmp_path / "data/conversations" / folder_name("ann")).iterdir())
    assert "NameError" in call(isolated, ANN, "interpreter", code="x").text
    assert not call(isolated, BOB, "interpreter", code="x").error
    isolated.forget(EVE, "never was")


def test_after_the_end_nothing_starts_again(make):
    shop = make()
    shop.cards(BOB)
    shop.close()
    shop.close()
    with pytest.raises(ToolError, match="ending"):
        shop.cards(BOB)


def test_the_app_forgets_what_it_deletes(make, tmp_path):
    shop, source = make(), tmp_path / "a.txt"
    source.write_text("a")
    with Store(tmp_path / "chats.db") as store:
        app = App(None, store, tmp_path, tools=shop)  # type: ignore[arg-type]
        for user in (ANN, BOB):
            store.create(user.id, id="c")
        shop.add_file(ANN, "c", source, "a.txt")
        app.delete(BOB, "c")
        assert list(shop.files(ANN, "c")) == ["a.txt"]
        with pytest.raises(NotFound):
            app.delete(BOB, "c")
        app.delete(ANN, "c")
        assert shop.files(ANN, "c") == {}


def test_making_a_workshop_imports_and_starts_nothing(tmp_path):
    code = (
        "import sys; from pathlib import Path; from tools.workshop import Workshop;"
        f"Workshop(Path({str(tmp_path)!r}));"
        "heavy = {'torch', 'mcp', 'zmq', 'requests', 'jupyter_client', 'jsonschema', 'pydantic'};"
        "sys.exit(', '.join(heavy & set(sys.modules)) or 0)"
    )
    root = Path(__file__).resolve().parent.parent
    done = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert not list(tmp_path.iterdir())


def test_the_fake_workshop_of_the_pages_tests_has_the_same_face():
    def face(kind: type) -> dict[str, list[str]]:
        methods = inspect.getmembers(kind, inspect.isfunction)
        shown = {name: inspect.signature(it) for name, it in methods if name[0] != "_"}
        return {name: list(signature.parameters) for name, signature in shown.items()}

    assert face(FakeWorkshop) == face(Workshop)
