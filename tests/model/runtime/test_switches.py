"""Which shortcuts are off, by the variable and inside a block; and that each is documented and compared."""

from __future__ import annotations

from pathlib import Path

import pytest
import typer

from model.cli.session import USAGE, Session
from model.runtime import switches
from model.runtime.switches import ALL, Switch, parse
from service.core.errors import UsageError

ROOT = Path(__file__).parents[3]


@pytest.mark.parametrize(
    ("value", "off"),
    [
        ("", set()),
        ("all", ALL),
        ("fused_lora,all", ALL),
        ("merged_unet", {Switch.MERGED_UNET}),
        (" fused_lora, fused_saim,", {Switch.FUSED_LORA, Switch.FUSED_SAIM}),
    ],
)
def test_the_variable_names_what_is_off(value: str, off: set[Switch]) -> None:
    assert parse(value) == off


def test_unknown_names_are_refused_with_the_known_ones() -> None:
    with pytest.raises(UsageError) as caught:
        parse("fused_lora,warp,all")
    problem = " ".join(caught.value.problems)
    assert "PAIRFORGE_PLAIN names warp; known are all, fused_lora" in problem
    assert all(switch in problem for switch in Switch)


def test_the_variable_is_read_at_the_first_shortcut(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(switches, "_off", None)
    monkeypatch.setenv("PAIRFORGE_PLAIN", "fused_lora")
    assert [switches.on(Switch.FUSED_LORA), switches.on(Switch.FUSED_SAIM)] == [False, True]


def test_a_block_turns_off_what_it_names_and_all_without_names() -> None:
    before = {switch: switches.on(switch) for switch in Switch}
    with switches.plain(Switch.FUSED_SAIM):
        assert [switch for switch in Switch if not switches.on(switch)] == [Switch.FUSED_SAIM]
        with switches.plain():
            assert not any(map(switches.on, Switch))
    assert {switch: switches.on(switch) for switch in Switch} == before


@pytest.mark.parametrize("switch", Switch)
def test_every_switch_is_asked_documented_and_compared(switch: Switch) -> None:
    def asked(folder: str) -> bool:
        files = set((ROOT / folder).rglob("*.py")) - {Path(__file__), Path(switches.__file__)}
        return any(f"Switch.{switch.name}" in file.read_text(encoding="utf-8") for file in files)

    assert asked("model")
    assert asked("tests/model")
    assert f"| `{switch}` |" in (ROOT / "docs/benchmarks.md").read_text(encoding="utf-8")


def test_a_command_that_finds_an_unknown_name_ends_with_a_usage_error(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(switches, "_off", None)
    monkeypatch.setenv("PAIRFORGE_PLAIN", "warp")
    with pytest.raises(typer.Exit) as ended, Session(json=False):
        pass
    assert ended.value.exit_code == USAGE
    assert "PAIRFORGE_PLAIN names warp" in capsys.readouterr().err
