"""The adapters of a base: named, opened when asked for, put away, remembered, never torn."""

from __future__ import annotations

import json
import threading
from pathlib import Path

import pytest

from glm.adapters.catalog import Catalog
from glm.adapters.shelf import Shelf, name_of
from glm.adapters.values import Adapter, AdapterInfo
from glm.errors import AdapterGone, BadRequest, CheckpointError, StoreError


class Ten(Adapter):
    bytes = 10


class Engine:
    """Has seats for adapters and nothing else."""

    def __init__(self) -> None:
        self.adapters: dict[str, Adapter] = {}

    def add_adapter(self, key: str, adapter: Adapter) -> None:
        self.adapters[key] = adapter

    def remove_adapter(self, key: str) -> None:
        del self.adapters[key]


class Reader:
    """Opens paths that exist; each adapter takes 10 bytes."""

    def __init__(self) -> None:
        self.read: list[tuple[str, float | None]] = []
        self.gate = threading.Event()
        self.gate.set()

    def __call__(self, path: Path, alpha: float | None) -> Adapter:
        assert self.gate.wait(10)
        if not path.exists():
            raise CheckpointError(f"no adapter at {path}")
        self.read.append((path.name, alpha))
        return Ten(AdapterInfo(path.name, path, "LoRA"))


@pytest.fixture
def folders(tmp_path):
    for name in "abcd":
        (tmp_path / name).mkdir()
    return tmp_path


@pytest.fixture
def reader():
    return Reader()


def make(reader, limit=1000, catalog=None) -> tuple[Shelf, Engine]:
    engine = Engine()
    return Shelf(engine, "/base", reader, catalog or Catalog(), limit), engine


def test_an_adapter_is_addressed_by_its_name(folders, reader):
    shelf, engine = make(reader)
    assert shelf.key("base") is None
    shelf.add(folders / "a")
    shelf.add(folders / "b", name="weather", alpha=16)
    assert shelf.addresses() == ["base", "base:a", "base:weather"]
    key = shelf.key("base:weather")
    assert engine.adapters[key].info.path == folders / "b"
    assert shelf.key("base:a+weather") == f"{shelf.key('base:a')}+{key}"
    assert reader.read == [("a", None), ("b", 16)]


@pytest.mark.parametrize("model", ["base:c", "other", "", "base:", "base:a+c", "/etc", "../a"])
def test_an_address_that_names_nothing_is_refused_with_what_there_is(folders, reader, model):
    shelf, _ = make(reader)
    shelf.add(folders / "a")
    with pytest.raises(BadRequest, match="available: base, base:a"):
        shelf.key(model)


def test_a_second_adapter_of_a_name_gets_a_number_and_the_same_path_is_read_anew(folders, reader):
    shelf, engine = make(reader)
    (folders / "a" / "b").mkdir()
    shelf.add(folders / "b")
    shelf.add(folders / "a" / "b")
    assert shelf.addresses() == ["base", "base:b", "base:b-2"]
    before = shelf.key("base:b")
    shelf.add(folders / "b")
    after = shelf.key("base:b")
    assert before != after and before not in engine.adapters and after in engine.adapters
    assert shelf.addresses() == ["base", "base:b", "base:b-2"]


@pytest.mark.parametrize("name", ["a:b", "a+b", "a/b", "x" * 81, "<b>"])
def test_a_name_that_would_break_an_address_is_refused(folders, reader, name):
    shelf, _ = make(reader)
    with pytest.raises(BadRequest, match="no name for an adapter"):
        shelf.add(folders / "a", name)


def test_the_least_used_is_put_away_and_read_again_when_it_is_chosen(folders, reader):
    shelf, engine = make(reader, limit=25)
    for name in "ab":
        shelf.add(folders / name)
    shelf.key("base:a")  # b is now the least recently used
    shelf.add(folders / "c")
    assert [item.name for item in shelf.all() if item.loaded] == ["a", "c"]
    assert len(engine.adapters) == 2
    assert shelf.key("base:b") in engine.adapters
    assert [item.name for item in shelf.all() if item.loaded] == ["b", "c"]
    assert [name for name, _ in reader.read] == ["a", "b", "c", "b"]


def test_two_who_choose_one_that_was_put_away_read_it_once(folders, reader):
    shelf, _ = make(reader, limit=15)
    shelf.add(folders / "a")
    shelf.add(folders / "b")
    reader.gate.clear()
    keys: list[str | None] = []
    threads = [threading.Thread(target=lambda: keys.append(shelf.key("base:a"))) for _ in range(4)]
    for thread in threads:
        thread.start()
    assert shelf.key("base:b")  # choosing another waits for nobody
    reader.gate.set()
    for thread in threads:
        thread.join(10)
    assert len(keys) == 4 and len(set(keys)) == 1
    assert [name for name, _ in reader.read].count("a") == 2


def test_one_that_cannot_be_opened_says_why_and_changes_nothing(folders, reader):
    shelf, engine = make(reader)
    shelf.add(folders / "a")
    with pytest.raises(CheckpointError, match="no adapter at"):
        shelf.add(folders / "gone")
    assert shelf.addresses() == ["base", "base:a"]
    assert len(engine.adapters) == 1


def test_the_list_outlives_the_program_and_belongs_to_its_base(folders, reader, tmp_path):
    file = tmp_path / "data" / "adapters.json"
    shelf, _ = make(reader, catalog=Catalog(file))
    shelf.add(folders / "a", alpha=32)
    shelf.add(folders / "b")
    shelf.remove("b")
    again, engine = make(reader, catalog=Catalog(file))
    assert again.addresses() == ["base", "base:a"]
    assert not engine.adapters  # nothing is read before it is chosen
    again.key("base:a")
    assert reader.read[-1] == ("a", 32)
    other = Shelf(Engine(), "/other", reader, Catalog(file))
    assert other.addresses() == ["base"]


def test_one_whose_files_went_away_says_so_when_it_is_chosen(folders, reader, tmp_path):
    file = tmp_path / "adapters.json"
    make(reader, catalog=Catalog(file))[0].add(folders / "a")
    (folders / "a").rmdir()
    again, _ = make(reader, catalog=Catalog(file))
    with pytest.raises(CheckpointError, match="no adapter at"):
        again.key("base:a")
    assert again.all()[0].problem.startswith("no adapter at")


@pytest.mark.parametrize("text", ["", "[]", '{"x": 3}', '{"/base": {"a": {}}}', "\0"])
def test_a_damaged_list_is_an_empty_one(reader, tmp_path, text):
    file = tmp_path / "adapters.json"
    file.write_text(text)
    assert make(reader, catalog=Catalog(file))[0].addresses() == ["base"]


def test_a_list_that_cannot_be_written_is_one_sentence(folders, reader, tmp_path):
    (tmp_path / "file").write_text("")
    shelf, _ = make(reader, catalog=Catalog(tmp_path / "file" / "adapters.json"))
    with pytest.raises(StoreError, match="cannot be written"):
        shelf.add(folders / "a")


def test_a_model_elsewhere_takes_no_adapters(folders, reader):
    with pytest.raises(BadRequest, match="takes no adapters"):
        Shelf(object(), "/base", reader, Catalog()).add(folders / "a")


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("/runs/weather/checkpoint-500", "weather-500"),
        ("/runs/weather/adapter", "weather"),
        ("/out/prefix/pytorch_model.bin", "prefix"),
        ("/out/chatglm-lora.pt", "chatglm-lora"),
        ("/out/my run+1", "my run-1"),
        ("/", "adapter"),
    ],
)
def test_an_adapter_is_called_by_the_run_it_came_from(path, name):
    assert name_of(Path(path)) == name


def test_the_engines_word_for_one_that_is_gone_is_a_bad_request():
    assert issubclass(AdapterGone, BadRequest)


def test_what_is_removed_while_somebody_reads_it_stays_removed(folders, reader):
    catalog = Catalog()
    shelf, engine = make(reader, limit=15, catalog=catalog)
    shelf.add(folders / "a")
    shelf.add(folders / "b")  # puts a away
    reader.gate.clear()
    asked: list[str | None] = []

    def ask() -> None:
        try:
            asked.append(shelf.key("base:a"))
        except BadRequest:
            asked.append(None)

    threads = [threading.Thread(target=ask) for _ in range(3)]
    threads.append(threading.Thread(target=shelf.remove, args=("a",)))
    for thread in threads:
        thread.start()
    threads[-1].join(0.2)  # it may have to wait for the one who reads
    reader.gate.set()
    for thread in threads:
        thread.join(10)
    assert shelf.addresses() == ["base", "base:b"]
    assert not [key for key in engine.adapters if key.startswith("a#")]
    assert set(catalog.of("/base")) == {"b"}


def test_an_alpha_that_was_said_once_holds_when_the_path_comes_again(folders, reader):
    """As --adapter does with each start."""
    catalog = Catalog()
    make(reader, catalog=catalog)[0].add(folders / "a", alpha=32)
    shelf, _ = make(reader, catalog=catalog)
    shelf.add(folders / "a")
    assert reader.read == [("a", 32), ("a", 32)]
    assert catalog.of("/base")["a"]["alpha"] == 32
    shelf.add(folders / "a", alpha=16)
    assert reader.read[-1] == ("a", 16)


def test_a_catalog_that_cannot_be_read_is_kept_beside_the_new_one(folders, tmp_path):
    file = tmp_path / "adapters.json"
    file.write_text('{"/base": {"a": {"path": "/a"},}}')  # a comma too many
    catalog = Catalog(file)
    assert catalog.of("/base") == {}
    catalog.put("/base", "b", {"path": "/b"})
    assert set(Catalog(file).of("/base")) == {"b"}
    assert "/a" in (tmp_path / "adapters.json.damaged").read_text()


@pytest.mark.parametrize("alpha", ["16", True, [], float("nan"), -1])
def test_an_alpha_in_the_catalog_that_is_no_number_is_left_out(tmp_path, alpha):
    file = tmp_path / "adapters.json"
    file.write_text(json.dumps({"/base": {"a": {"path": "/a", "alpha": alpha}}}))
    assert Catalog(file).of("/base") == {"a": {"path": "/a"}}
