from __future__ import annotations

import json
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from model.evaluation.report import METRICS, write_report
from model.evaluation.run import verdict

ROWS = {"real": "real pairs only", "dualanodiff": "DualAnoDiff", "real+dualanodiff": "real pairs + DualAnoDiff"}
LINKS = ("src", "href", "data", "srcset", "action", "poster", "xlink:href")


class Page(HTMLParser):
    """Collects the text, the addresses and the tags of a page."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.source = path.read_text(encoding="utf-8")
        self.words: list[str] = []
        self.links: list[str] = []
        self.tags: list[str] = []
        self.feed(self.source)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.links += [value or "" for name, value in attrs if name in LINKS]

    def handle_data(self, data: str) -> None:
        self.words.append(data)


def seed_of(seed: int, level: float, *, made: bool) -> dict[str, Any]:
    metrics: dict[str, float | None] = dict.fromkeys(METRICS, level + seed / 100)
    numbers: dict[str, Any] = {
        "seed": seed,
        "metrics": metrics,
        "by_type": {"crack": metrics, "hole": metrics | {"pro": None}},
        "curve": {"recall": [0.0, 0.5, 1.0], "precision": [1.0, level, 0.1]},
        "seconds": {"detector": 50.0},
    }
    if made:
        numbers["counts"] = {"crack": {"attempts": 80, "accepted": 64, "rejected": {"invisible": 16}}}
        numbers["seconds"] |= {"train": 300.0, "generate": 30.0}
        fidelity = {
            "nearest_real": 0.8,
            "diversity": 0.3,
            "kid": None,
            "kid_name": "KID on something",
            "sharpness": 0.614,
        }
        numbers["fidelity"] = {"crack": fidelity | {"psnr_outside": None, "identical_outside": 1.0}}
    return numbers


def result() -> dict[str, Any]:
    rows = []
    for number, (name, title) in enumerate(ROWS.items()):
        seeds = [seed_of(seed, 0.5 + number / 10, made=number > 0) for seed in range(3)]
        mean, sd = dict.fromkeys(METRICS, 0.51 + number / 10), dict.fromkeys(METRICS, 0.01)
        rows.append({"row": name, "title": title, "seeds": seeds, "mean": mean, "sd": sd})
    pictures = [
        {"row": "dualanodiff", "type": "crack", "image": "a.png", "mask": "outline-a.png", "nearest": "real.png"},
        {"row": "dualanodiff", "type": "crack", "image": "a.png", "mask": None, "reasons": ["invisible on this part"]},
        {"row": "dualanodiff", "type": "hole", "image": "missing.png", "score": 0.8, "reasons": []},
    ]
    return {
        "version": 1,
        "data": {
            "name": "plates",
            "types": {"crack": {"train": 5, "test": 17}, "hole": {"train": 4, "test": 9}},
            "normals": {"train": 30, "test": 13},
        },
        "profile": {"name": "cpu", "pairs": 64, "seeds": [0, 1, 2], "adapter_steps": None},
        "base": {"name": "mini", "hash": "abc"},
        "command": "pairforge evaluate plates --out 'a folder'",
        "rows": rows,
        "verdict": {"row": "real+dualanodiff", "against": "real", "helps": True, "sentence": "They changed it by +4."},
        "pictures": pictures,
    }


def written(given: dict[str, Any], folder: Path) -> Page:
    for name in ("a.png", "outline-a.png", "real.png"):
        Image.fromarray(np.full((16, 16, 3), 90, np.uint8)).save(folder / name)
    write_report(json.loads(json.dumps(given, allow_nan=False)), folder, folder / "report.html")
    return Page(folder / "report.html")


def test_the_report_begins_with_the_verdict_and_names_every_row_type_and_metric(tmp_path: Path) -> None:
    page = written(result(), tmp_path)
    words = [*ROWS.values(), *METRICS.values(), "crack", "hole", "invisible (48)", "192 of 240", "bit-identical"]
    words += ["61.0 ± 1.0", "+10.0 ± 0.0", "not measured: weights missing", "KID on something", "a folder", "5 min"]
    words += ["sharpness inside, against real", "0.61"]
    assert not [word for word in words if word not in page.text]
    assert page.text.index("They changed it by +4.") < page.text.index("real pairs only")


@pytest.mark.parametrize("values", [(0.40, 0.45, 0.41), (0.40, 0.52, 0.60)], ids=["within sd", "within chance"])
def test_the_report_explains_the_very_test_that_its_verdict_made(values: tuple[float, ...], tmp_path: Path) -> None:
    rows = [
        {"row": name, "seeds": [{"seed": seed, "metrics": {"pixel_ap": value}} for seed, value in enumerate(found)]}
        for name, found in (("real", (0.4, 0.4, 0.4)), ("real+dualanodiff", values))
    ]
    found = verdict(rows)
    assert found is not None
    assert found["helps"] is None
    text = written({**result(), "verdict": found}, tmp_path).text
    assert "larger than chance makes it in 95 of 100 evaluations without any effect (two-sided t-test" in text
    assert f"here chance reaches {100 * found['by_chance']:.1f} points" in text
    assert "within it" not in text


def test_published_measures_are_shown_where_weights_were_named(tmp_path: Path) -> None:
    given = result()
    for seed in given["rows"][1]["seeds"]:
        published = {"is": 1.5 + seed["seed"], "fid": 80.0, "ic_lpips": None, "note": "few"}
        seed["fidelity"]["crack"]["published"] = published
    given["weights"] = {"inception": {"file": "inception.pth", "sha256": "0123456789ab", "official": False}}
    page = written(given, tmp_path)
    assert "Inception Score FID IC-LPIPS note DualAnoDiff crack 2.50 80.0 – few" in page.text
    assert "inception.pth (sha256 01234567)" in page.text
    assert "not measured: weights missing" not in page.text


def test_nothing_is_loaded_from_anywhere(tmp_path: Path) -> None:
    page = written(result(), tmp_path)
    assert page.links
    assert all(link.startswith("data:image/webp;base64,") for link in page.links)
    assert "http://" not in page.source
    assert "https://" not in page.source
    assert "url(" not in page.source
    assert {"script", "link", "iframe"}.isdisjoint(page.tags)


def test_pictures_are_inside_and_those_that_are_missing_are_left_out(tmp_path: Path) -> None:
    page = written(result(), tmp_path)
    assert page.tags.count("img") == 3 + 1
    assert "Rejected: invisible on this part" in page.text


def test_names_are_shown_not_obeyed(tmp_path: Path) -> None:
    given, hostile = result(), "<script>alert(1)</script>\"'&"
    given["data"] |= {"name": hostile, "types": {hostile: {"train": 1, "test": 1}}}
    given["rows"][0]["title"] = hostile
    given["rows"][1]["seeds"][0]["by_type"][hostile] = {}
    given["pictures"][0] |= {"type": hostile, "row": hostile}
    given["pictures"][1]["reasons"] = [hostile]
    given["command"] = hostile
    page = written(given, tmp_path)
    assert "script" not in page.tags
    assert page.text.count(hostile) >= 7


def test_a_picture_outside_its_folder_is_not_read(tmp_path: Path) -> None:
    (tmp_path / "inside").mkdir()
    Image.new("RGB", (8, 8)).save(tmp_path / "secret.png")
    given = result() | {"pictures": [{"row": "dualanodiff", "type": "crack", "image": "../secret.png"}]}
    assert "img" not in written(given, tmp_path / "inside").tags


@pytest.mark.parametrize("missing", list(result()))
def test_a_result_without_one_entry_has_a_report_all_the_same(missing: str, tmp_path: Path) -> None:
    given = result()
    del given[missing]
    assert "Protocol" in written(given, tmp_path).text


@pytest.mark.parametrize("missing", ["title", "seeds", "mean", "sd", "row"])
def test_a_row_may_lack_an_entry(missing: str, tmp_path: Path) -> None:
    given = result()
    del given["rows"][1][missing]
    assert "DualAnoDiff" in written(given, tmp_path).text


@pytest.mark.parametrize("missing", list(seed_of(0, 0.5, made=True)))
def test_a_seed_may_lack_an_entry(missing: str, tmp_path: Path) -> None:
    given = result()
    del given["rows"][1]["seeds"][1][missing]
    assert "DualAnoDiff" in written(given, tmp_path).text


def test_an_empty_result_says_that_there_is_no_verdict(tmp_path: Path) -> None:
    assert "No verdict" in written({}, tmp_path).text


def test_without_a_verdict_the_page_says_which_rows_to_add(tmp_path: Path) -> None:
    given = result() | {"verdict": None}
    given["profile"]["rows"] = ["real", "copy-paste"]
    wanted = "it also needs real+copy-paste. The same command with --rows real,copy-paste,real+copy-paste goes on"
    assert wanted in written(given, tmp_path).text


def test_of_one_repetition_no_spread_is_explained(tmp_path: Path) -> None:
    given = result()
    given["verdict"] |= {"helps": None, "seeds": 1}
    given["profile"]["seeds"] = [0]
    text = written(given, tmp_path).text
    assert "only several repetitions tell. Run the same command with --seeds 3" in text
    assert "standard deviation" not in text


def test_the_protocol_holds_the_values_of_all_settings(tmp_path: Path) -> None:
    given = result()
    given["profile"] |= {"square": False, "classifier": {"steps": 300, "widths": [16, 32]}}
    text = written(given, tmp_path).text
    for shown in ("square no", "classifier steps 300, widths 16 32", "adapter steps by method and base"):
        assert shown in text


def test_a_row_that_was_skipped_says_why(tmp_path: Path) -> None:
    given = result()
    given["rows"].append({"row": "bcm", "title": "with BCM", "seeds": [], "skipped": "no normals"})
    assert "with BCM not measured: no normals" in written(given, tmp_path).text
