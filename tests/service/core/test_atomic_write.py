"""What is written atomically is there whole, or as it was before."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

from service.core.atomic_write import atomic_file, atomic_folder, write_text


def test_a_file_appears_when_it_is_complete(tmp_path: Path) -> None:
    path = tmp_path / "card.json"
    with atomic_file(path) as aside:
        aside.write_text("{", encoding="utf-8")
        assert not path.exists()
    assert path.read_text(encoding="utf-8") == "{"
    assert list(tmp_path.iterdir()) == [path]


def test_a_file_that_fails_leaves_what_was_there(tmp_path: Path) -> None:
    path = tmp_path / "card.json"
    write_text(path, "before")
    with suppress(OSError), atomic_file(path) as aside:
        aside.write_text("half", encoding="utf-8")
        raise OSError("full")
    assert path.read_text(encoding="utf-8") == "before"
    assert list(tmp_path.iterdir()) == [path]


def test_a_folder_takes_the_place_of_another_once_it_is_complete(tmp_path: Path) -> None:
    path = tmp_path / "adapter"
    for content in ("one", "two"):
        with atomic_folder(path) as aside:
            (aside / content).touch()
            assert not (path / content).exists()
    assert [each.name for each in path.iterdir()] == ["two"]
    assert list(tmp_path.iterdir()) == [path]


def test_a_folder_that_fails_leaves_what_was_there_and_what_a_kill_left_is_cleared(tmp_path: Path) -> None:
    path = tmp_path / "adapter"
    for left in (".adapter.part", ".adapter.old"):
        (tmp_path / left).mkdir()
        (tmp_path / left / "stale").touch()
    with atomic_folder(path) as aside:
        assert list(aside.iterdir()) == []
        (aside / "one").touch()
    with suppress(OSError), atomic_folder(path) as aside:
        (aside / "two").touch()
        raise OSError("full")
    assert [each.name for each in path.iterdir()] == ["one"]
    assert list(tmp_path.iterdir()) == [path]
