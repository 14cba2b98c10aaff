from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from model.export.names import folder_name, label


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("metal nut / M8", "metal_nut_M8"),
        ("../../etc/passwd", "etc_passwd"),
        ("划痕", "划痕"),
        ("Kratzer (groß)", "Kratzer_groß"),
        ("CON", "CON_"),
        ("con.png", "con_png"),
        ("...", "object"),
        ("", "object"),
        ("\U0001f529", "object"),
        ("x" * 500, "x" * 80),
    ],
)
def test_folder_names(text: str, name: str) -> None:
    assert folder_name(text, "object") == name


@given(st.text())
def test_any_text_gives_one_short_folder(text: str) -> None:
    name = folder_name(text, "object")
    assert name
    assert len(name.encode()) <= 81
    assert not set(name) & set('/\\:*?"<>|. \0\n')
    assert folder_name(name, "object") == name


@given(st.text())
def test_any_text_gives_one_printable_line(text: str) -> None:
    assert label(text, "defect")
    assert label(text, "defect").isprintable()
