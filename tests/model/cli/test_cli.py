from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
import zlib
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any
from zipfile import ZipFile

import numpy as np
import pytest
import torch
from PIL import Image
from typer.main import get_group
from typer.testing import CliRunner

from model.cli.app import app
from model.cli.checks import OWN_FILES
from model.cli.places import read_places
from model.cli.session import INTERRUPTED, TRANSIENT, USAGE
from model.data.placement import NormalImage
from model.masks.extraction import iou
from model.masks.u2net import SMALL, U2Net, save_u2net
from model.pretrain.procedural.samples import SAMPLES, write_samples
from model.pretrain.run import Stage
from model.training.checkpoint import list_checkpoints
from model.types import anomaly_part
from service.core.options.methods import METHOD_OPTIONS
from service.core.settings import Settings
from service.core.uploads.decoding import ImageLimits
from service.main import create_app

BRIEF = ("--steps", "6", "--batch", "1", "--views", "1", "--rank", "2", "--text-rank", "0", "--mask-steps", "0")
SAMPLED = ("--steps", "2", "--batch", "2", "--mask-method", "threshold")
ANYTHING = {
    **dict.fromkeys(("min_area_ratio", "min_width_ratio", "min_visibility_ratio", "min_visibility"), 0),
    **dict.fromkeys(("min_change_ratio", "min_change_inside"), 0),
    **dict.fromkeys(("max_area_ratio", "max_width_ratio", "border_ratio", "max_unlikeness", "max_ledge"), 1000),
    **dict.fromkeys(("min_border_share", "max_cut_share", "max_off_object", "full_area"), 1),
    **dict.fromkeys(("defect_copy", "scene_copy", "accepted_copy", "max_copy"), 1),
    "max_disagreement": 255,
}
"""Limits that random weights can keep."""


def call(*arguments: str | Path) -> tuple[int, str, str]:
    """Exit code, stdout and stderr of `pairforge ...`."""
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result.exit_code, result.stdout, result.stderr


def events(text: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.splitlines()]


def tree(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*"))


def contents(folder: Path) -> dict[str, bytes]:
    """All files of an adapter but the record of when and how long it was trained."""
    files = (path for path in folder.rglob("*") if path.is_file() and path.name != "run.json")
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


@pytest.fixture(scope="module")
def adapter(tiny_base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    target = tmp_path_factory.mktemp("adapters") / "hole"
    code, told, _ = call(
        "train", SAMPLES / "images", SAMPLES / "masks", "--out", target, "--base", tiny_base, *BRIEF, "--defect", "hole"
    )
    assert code == 0
    assert str(target) in told
    return target


@pytest.fixture(scope="module")
def limits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("limits") / "anything.json"
    path.write_text(json.dumps(ANYTHING))
    return path


@pytest.fixture(scope="module")
def dataset(adapter: Path, limits: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("datasets") / "new" / "dataset.zip"
    code, told, _ = call(
        "generate", adapter, "--out", path, "-n", "3", *SAMPLED, "--limits", limits, "--formats", "mvtec,coco"
    )
    assert code == 0
    assert str(path) in told
    return path


@pytest.fixture
def parts(tmp_path: Path) -> Path:
    """The samples' anomaly parts."""
    folder = tmp_path / "parts"
    folder.mkdir()
    for path in sorted((SAMPLES / "images").iterdir()):
        image, mask = np.asarray(Image.open(path)), np.asarray(Image.open(SAMPLES / "masks" / path.name)) > 0
        Image.fromarray(anomaly_part(image, mask)).save(folder / path.name)
    return folder


def test_help_lists_every_command_and_loads_no_network() -> None:
    code = "import sys; import model.cli.app; assert not {'torch', 'numpy', 'diffusers'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
    _, told, _ = call("--help")
    for command in ("train", "generate", "masks", "inspect", "bases", "demo", "pretrain"):
        assert command in told


def test_the_samples_are_what_their_module_renders(tmp_path: Path) -> None:
    write_samples(tmp_path)
    names = [name for name in tree(tmp_path) if name.endswith(".png")]
    assert names == [name for name in tree(SAMPLES) if name.endswith(".png")]
    for name in names:
        shipped, rendered = (np.asarray(Image.open(folder / name), dtype=int) for folder in (SAMPLES, tmp_path))
        assert np.abs(shipped - rendered).max() <= 1  # rounding may differ between processors


def test_a_trained_adapter_is_inspected_and_leaves_no_workspace(adapter: Path) -> None:
    assert [path.name for path in adapter.parent.iterdir()] == ["hole"]
    code, told, _ = call("inspect", adapter)
    assert code == 0
    assert "hole" in told
    code, told, _ = call("inspect", adapter, "--json")
    (event,) = events(told)
    assert event["kind"] == "adapter"
    assert event["card"]["config"]["steps"] == 6


def deep(source: Path, target: Path, factor: int) -> Path:
    """Copies of a folder's pictures in grey with 16 bits, of which `factor` says how many are used."""
    target.mkdir()
    for path in sorted(source.iterdir()):
        Image.fromarray(np.asarray(Image.open(path).convert("L")).astype(np.uint16) * factor).save(target / path.name)
    return target


@pytest.fixture(scope="module")
def of_12_bits(tiny_base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Adapters of all methods, by their names, trained on pictures with values of 12 bits."""
    folder = tmp_path_factory.mktemp("12 bits")
    images = deep(SAMPLES / "images", folder / "images", 10)
    for method in METHOD_OPTIONS:
        untrained = [] if method in {"copy-paste", "perlin"} else ["--steps", "0"]
        arguments = ["--out", folder / method, "--base", tiny_base, "--method", method, *untrained]
        code, _, told = call("train", images, SAMPLES / "masks", *arguments)
        assert code == 0, told
    return folder


def brightness_of(adapter: Path) -> Any:
    return json.loads((adapter / "card.json").read_text())["brightness"]


@pytest.mark.parametrize("method", METHOD_OPTIONS)
def test_an_adapter_remembers_the_brightness_of_its_pictures(method: str, of_12_bits: Path) -> None:
    assert brightness_of(of_12_bits / method) == [0, 4095]


def test_an_adapter_of_8_bits_remembers_no_range(adapter: Path) -> None:
    assert brightness_of(adapter) is None


def made_on(adapter: Path, normals: Path, limits: Path, *options: str) -> tuple[int, str]:
    """The brightness of a pair made on good parts, median over the picture, and the notes on making it."""
    target = adapter.parent / "made.zip"
    arguments = ["--normals", normals, "--limits", limits, "--out", target, "-n", "1", "--force", *options]
    code, _, told = call("generate", adapter, *arguments)
    assert code == 0, told
    with ZipFile(target) as archive, archive.open("images/000000.png") as file:
        return int(np.median(np.asarray(Image.open(file)))), told


def test_good_parts_given_later_are_as_bright_as_in_training(of_12_bits: Path, limits: Path, tmp_path: Path) -> None:
    adapter = of_12_bits / "copy-paste"
    normals = deep(SAMPLES / "normals", tmp_path / "normals", 3)
    learned, told = made_on(adapter, normals, limits)
    assert "normal images are read at the brightness of the training, 0..4095" in told
    own, told = made_on(adapter, normals, limits, "--brightness", "0:1023")
    assert "read at 0..1023, but the adapter was trained on pictures read at 0..4095" in told
    assert 0 < 3 * learned < own
    _, told = made_on(adapter, SAMPLES / "normals", limits)
    assert "read at 0..4095, but normal images have 8" in told


def test_an_adapter_that_remembers_nothing_reads_good_parts_by_themselves(
    of_12_bits: Path, limits: Path, tmp_path: Path
) -> None:
    normals = deep(SAMPLES / "normals", tmp_path / "normals", 3)
    older = tmp_path / "older"
    shutil.copytree(of_12_bits / "copy-paste", older)
    card = json.loads((older / "card.json").read_text())
    (older / "card.json").write_text(json.dumps(card | {"brightness": None}))
    _, told = made_on(older, normals, limits)
    assert "trained on pictures of 8 bits, but normal images have more and are read at 0..1023" in told
    del card["brightness"]
    (older / "card.json").write_text(json.dumps(card))
    assert made_on(older, normals, limits)[0] == made_on(older, normals, limits, "--brightness", "0:1023")[0]


def test_inspect_names_every_file_that_an_adapter_lacks(adapter: Path, tmp_path: Path) -> None:
    damaged = tmp_path / "damaged"
    shutil.copytree(adapter, damaged)
    (damaged / "interaction.safetensors").write_bytes(b"damaged")
    (damaged / "reference" / "001_mask.png").unlink()
    code, _, told = call("inspect", damaged)
    assert code == USAGE
    assert "interaction.safetensors cannot be read" in told
    assert "reference/001_mask.png is missing" in told


def test_a_generated_dataset_is_intact_and_inspected(dataset: Path) -> None:
    assert [path.name for path in dataset.parent.iterdir()] == ["dataset.zip"]
    code, told, _ = call("inspect", dataset, "--json")
    assert code == 0
    (event,) = events(told)
    assert (event["kind"], event["num_pairs"], event["formats"]) == ("dataset", 3, ["mvtec", "coco"])
    assert "every hash matches" in call("inspect", dataset)[1]


def test_a_damaged_dataset_is_told(dataset: Path, tmp_path: Path) -> None:
    damaged = tmp_path / "damaged.zip"
    with ZipFile(dataset) as old, ZipFile(damaged, "w") as new:
        for name in old.namelist():
            if name != "masks/000001.png":
                new.writestr(name, b"other" if name == "images/000000.png" else old.read(name))
    code, _, told = call("inspect", damaged)
    assert code == USAGE
    assert "masks/000001.png is missing" in told
    assert "images/000000.png was changed" in told


def test_the_same_request_on_normals_gives_the_same_bytes(adapter: Path, limits: Path, tmp_path: Path) -> None:
    paths = [tmp_path / "first.zip", tmp_path / "second.zip"]
    for path in paths:
        code, told, _ = call(
            *("generate", adapter, "--out", path, "-n", "2", *SAMPLED, "--limits", limits, "--json"),
            *("--normals", SAMPLES / "normals"),
        )
        assert code == 0
        assert events(told)[-1]["event"] == "result"
    assert paths[0].read_bytes() == paths[1].read_bytes()


def test_json_output_is_one_object_per_line_that_ends_with_the_result(tiny_base: Path, tmp_path: Path) -> None:
    command = (SAMPLES / "images", SAMPLES / "masks", "--out", tmp_path / "adapter", "--base", tiny_base, *BRIEF)
    code, told, errors = call("train", *command, "--json")
    assert (code, errors) == (0, "")
    told_events = events(told)
    assert told_events[-1]["event"] == "result"
    assert told_events[-1]["adapter"] == str(tmp_path / "adapter")
    last = [event for event in told_events if event["event"] == "progress"][-1]
    assert (last["stage"], last["completed"], last["total"]) == ("train", 6, 6)
    code, told, errors = call("train", *command, "--json")
    assert (code, errors) == (USAGE, "")
    failure = events(told)[-1]
    assert (failure["event"], failure["kind"], failure["exit_code"]) == ("error", "usage", USAGE)
    assert "--force" in failure["problems"][0]


def test_good_parts_are_learned_from_where_composites_are_asked_for(tiny_base: Path, tmp_path: Path) -> None:
    """Each kind is named in the card exactly when it was learned from; what was left out is told."""
    told = {}
    for name, extra in (
        ("both", ("--normals", SAMPLES / "normals", "--composites", "4")),
        ("normals", ("--normals", SAMPLES / "normals")),
        ("composites", ("--composites", "4")),
    ):
        target = tmp_path / name
        out = call("train", SAMPLES / "images", SAMPLES / "masks", "--out", target, "--base", tiny_base, *BRIEF, *extra)
        assert out[0] == 0
        card = json.loads((target / "card.json").read_text())
        told[name] = (card["config"]["composites"], len(card["normals"]), out[1] + out[2])
    number = len(list((SAMPLES / "normals").iterdir()))
    assert [facts[:2] for facts in told.values()] == [(4, number), (0, 0), (0, 0)]
    assert "the normals are not used in training" in told["normals"][2]
    assert "no normals were given" in told["composites"][2]
    assert f"--normals {SAMPLES / 'normals'}" in told["both"][2]


def test_the_method_that_suits_the_base_is_named_where_none_is_chosen(tiny_base: Path, tmp_path: Path) -> None:
    suited = tmp_path / "base"
    shutil.copytree(tiny_base, suited)
    (suited / "fill").mkdir()
    told = {}
    for name, base, extra in (
        ("suited", suited, ("--normals", SAMPLES / "normals")),
        ("without normals", suited, ()),
        ("chosen", suited, ("--normals", SAMPLES / "normals", "--method", "dualanodiff")),
        ("another base", tiny_base, ("--normals", SAMPLES / "normals")),
    ):
        target = tmp_path / "adapter"
        where = ("train", SAMPLES / "images", SAMPLES / "masks", "--out", target, "--base", base, "--force")
        code, _, told[name] = call(*where, "--steps", "0", *extra)
        assert code == 0
        assert json.loads((target / "card.json").read_text())["method"] == "dualanodiff"
    note = f"this trains dualanodiff, the default; with normals, --method anomalydiffusion suits base {suited} better"
    assert {name: text.count(note) for name, text in told.items()} == {
        **dict.fromkeys(told, 0),
        "suited": 1,
    }
    for base, method in ((suited, "anomalydiffusion"), (tiny_base, "dualanodiff")):
        code, said, _ = call("bases", "verify", base)
        assert code == 0
        assert f"where there are good parts, --method {method} suits it best" in said
    assert "where there are good parts, --method anomalydiffusion suits it best" in call("bases")[1]
    (listed,) = events(call("bases", "--json")[1])
    assert [(base["name"], base["method"]) for base in listed["bases"]] == [("mini", "anomalydiffusion")]


def test_too_few_accepted_pairs_are_explained_and_nothing_is_written(adapter: Path, tmp_path: Path) -> None:
    strict = tmp_path / "strict.json"
    strict.write_text(json.dumps({**ANYTHING, "min_visibility": 255}))
    target = tmp_path / "dataset.zip"
    code, _, told = call(
        "generate", adapter, "--out", target, "-n", "1", *SAMPLED, "--limits", strict, "--max-attempts", "2"
    )
    assert code == USAGE
    assert "0 of 1 pairs" in told
    assert "invisible 2" in told
    assert tree(tmp_path) == ["strict.json"]


def test_masks_are_found_by_threshold(parts: Path, tmp_path: Path) -> None:
    code, told, _ = call("masks", parts, "--out", tmp_path / "masks", "--method", "threshold")
    assert code == 0
    assert "6 files" in told
    for path in sorted((tmp_path / "masks").iterdir()):
        found, drawn = (np.asarray(Image.open(folder / path.name)) for folder in (path.parent, SAMPLES / "masks"))
        assert set(np.unique(found)) == {0, 255}
        assert iou(found > 0, drawn > 0) > 0.8


def test_masks_are_found_by_a_network(parts: Path, tmp_path: Path) -> None:
    for path in sorted(parts.iterdir())[1:]:
        path.unlink()
    torch.manual_seed(0)
    save_u2net(U2Net(SMALL).eval(), tmp_path / "net.safetensors")
    code, told, _ = call("masks", parts, "--out", tmp_path / "masks", "--net", tmp_path / "net.safetensors", "--json")
    assert code == 0
    assert events(told)[-1]["count"] == 1
    assert tree(tmp_path / "masks") == ["plate_00.png"]


def test_what_cannot_be_masked_is_told_at_once(parts: Path, tiny_base: Path, tmp_path: Path) -> None:
    (parts / "plate_00.png").write_bytes((parts / "plate_00.png").read_bytes()[:300])
    shutil.copy(parts / "plate_01.png", parts / "plate_01.jpg")
    before = tree(tmp_path)
    code, _, told = call("masks", parts, "--out", tmp_path / "masks", "--base", tiny_base)
    assert code == USAGE
    assert "plate_01.jpg and plate_01.png would both be written to plate_01.png" in told
    assert "has no mask network" in told
    (parts / "plate_01.jpg").unlink()
    code, _, told = call("masks", parts, "--out", tmp_path / "parts", "--method", "attention")
    assert code == USAGE
    assert "plate_00.png is truncated" in told
    assert "is not empty" in told
    assert "choose from u2net, threshold" in told
    assert tree(tmp_path) == [name for name in before if name != "parts/plate_01.jpg"]


def bomb(path: Path) -> None:
    """A PNG of a few bytes that claims to be 60 000 pixels wide and high."""
    Image.new("L", (1, 1)).save(path)
    data = bytearray(path.read_bytes())
    data[16:24] = (60_000).to_bytes(4, "big") * 2
    data[29:33] = zlib.crc32(data[12:29]).to_bytes(4, "big")
    path.write_bytes(data)


def spoil(folder: Path) -> None:
    """Every kind of bad pair beside two good ones."""
    images, masks = folder / "images", folder / "masks"
    shutil.copytree(SAMPLES / "images", images)
    shutil.copytree(SAMPLES / "masks", masks)
    (images / "plate_00.png").write_bytes((images / "plate_00.png").read_bytes()[:400])
    (images / "plate_01.png").write_text("no picture")
    Image.new("RGB", (100, 90), "grey").save(images / "plate_02.png")
    Image.new("L", (160, 160), 0).save(masks / "plate_03.png")
    Image.new("L", (160, 160), 255).save(masks / "plate_04.png")
    shutil.copy(images / "plate_05.png", images / "lonely.png")
    colours = np.random.default_rng(0).integers(0, 255, (160, 160, 3), dtype=np.uint8)
    Image.fromarray(colours).save(masks / "plate_05.png")
    shutil.copy(SAMPLES / "normals" / "good_00.png", images / "bomb.png")
    bomb(masks / "bomb.png")


def test_all_that_is_wrong_with_a_training_is_told_at_once(tiny_base: Path, tmp_path: Path) -> None:
    spoil(tmp_path)
    base = tmp_path / "base"
    shutil.copytree(tiny_base, base)
    shutil.rmtree(base / "vae")
    (base / "unet" / "config.json").unlink()
    (tmp_path / "file").touch()
    before = tree(tmp_path)
    code, said, told = call(
        *("train", tmp_path / "images", tmp_path / "masks", "--out", tmp_path / "file" / "adapter", "--base", base),
        *("--device", "tpu"),
    )
    assert code == USAGE
    assert told.startswith("error: the adapter cannot be trained:\n  - ")
    assert "Traceback" not in told + said
    for problem in (
        "image plate_00.png is truncated or broken",
        "image plate_01.png is not a PNG, JPEG, BMP, TIFF or WebP image",
        "image plate_02.png is 100×90 pixels, but mask plate_02.png is 160×160",
        "mask plate_03.png is empty",
        "mask plate_04.png is full",
        "mask plate_05.png has",
        "mask bomb.png is too large to decode: at most 32768 pixels per side",
        "1 image without a mask: lonely.png",
        "vae/ is missing",
        "unet/config.json is missing",
        "file is a file, not a folder",
        "device is 'tpu'",
    ):
        assert problem in told
    assert tree(tmp_path) == before


@pytest.mark.parametrize("count", [0, 1])
def test_fewer_than_two_pairs_are_refused(count: int, tiny_base: Path, tmp_path: Path) -> None:
    for kind in ("images", "masks"):
        (tmp_path / kind).mkdir()
        for path in sorted((SAMPLES / kind).iterdir())[:count]:
            shutil.copy(path, tmp_path / kind)
    before = tree(tmp_path)
    code, _, told = call(
        "train",
        tmp_path / "images",
        tmp_path / "masks",
        "--out",
        tmp_path / "adapter",
        "--base",
        tiny_base,
        "--rank",
        "0",
    )
    assert code == USAGE
    assert "at least 2 are needed" in told
    assert "rank is 0; it must be at least 1" in told
    assert tree(tmp_path) == before


def test_only_an_adapter_is_ever_replaced(tiny_base: Path, tmp_path: Path) -> None:
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "thesis.txt").write_text("years of work")
    code, _, told = call("train", SAMPLES / "images", SAMPLES / "masks", "--out", mine, "--base", tiny_base, "--force")
    assert code == USAGE
    assert "files that are not an adapter" in told
    assert tree(tmp_path) == ["mine", "mine/thesis.txt"]


def test_all_that_is_wrong_with_a_generation_is_told_at_once(adapter: Path, tiny_v_base: Path, tmp_path: Path) -> None:
    (tmp_path / "limits.json").write_text('{"min_areas": 1, "ring": 2.5, "full_area": NaN, "max_copy": "near"}')
    (tmp_path / "dataset.zip").touch()
    before = tree(tmp_path)
    code, _, told = call(
        *("generate", adapter, "--out", tmp_path / "dataset.zip", "-n", "0", "--base", tiny_v_base, "--steps", "0"),
        *("--limits", tmp_path / "limits.json", "--formats", "voc,coco", "--mask-method", "magic"),
        *("--normals", tmp_path / "normals", "--scheduler", "euler", "--seed", str(2**63)),
    )
    assert code == USAGE
    for problem in (
        "was trained on the base",
        "unknown limits min_areas; known are accepted_copy",
        "ring is 2.5; it must be a whole number",
        "full_area is nan; it must be a finite number",
        "max_copy is 'near'; it must be a number",
        f"seed is {2**63}; it must be at most {2**63 - 1}",
        "format 'voc' does not exist",
        "'magic'",
        "normals cannot be read",
        "'euler'",
        "steps is 0",
        "num-pairs is 0",
        "dataset.zip already exists",
    ):
        assert problem in told
    assert tree(tmp_path) == before


def test_without_a_mask_network_masks_come_by_threshold_unless_one_is_demanded(
    adapter: Path, limits: Path, tmp_path: Path
) -> None:
    bare = tmp_path / "bare"
    shutil.copytree(adapter, bare)
    (bare / "mask_net.safetensors").unlink(missing_ok=True)
    command = ("generate", bare, "-n", "1", "--steps", "2", "--batch", "1", "--limits", limits)
    code, _, told = call(*command, "--out", tmp_path / "demanding.zip", "--mask-method", "u2net")
    assert code == USAGE
    assert "use threshold or attention" in told
    assert call(*command, "--out", tmp_path / "dataset.zip")[0] == 0
    with ZipFile(tmp_path / "dataset.zip") as file:
        assert json.loads(file.read("dataset.json"))["request"]["mask_method"] == "threshold"


def test_more_pairs_than_the_disk_holds_are_refused_before_the_work(adapter: Path, tmp_path: Path) -> None:
    target = tmp_path / "dataset.zip"
    code, _, told = call("generate", adapter, "--out", target, "-n", "100000000000", "--mask-method", "threshold")
    assert code == TRANSIENT
    assert "bytes free" in told
    assert tree(tmp_path) == []


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a device that is always full")
def test_a_disk_that_fills_up_is_told_and_costs_no_pair(adapter: Path, limits: Path, tmp_path: Path) -> None:
    (tmp_path / ".dataset.zip.part").symlink_to("/dev/full")
    command = ("generate", adapter, "--out", tmp_path / "dataset.zip", "-n", "1", *SAMPLED, "--limits", limits)
    code, _, told = call(*command)
    assert code == TRANSIENT
    assert [path.name for path in tmp_path.iterdir()] == ["dataset.zip.pairs"]
    assert "bytes free" in told
    code, told, _ = call(*command)
    assert code == 0
    assert "resuming after" in told
    assert tree(tmp_path) == ["dataset.zip"]


def start(arguments: Sequence[str | Path]) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", "from model.cli import main; main()", *map(str, arguments)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=dict(os.environ))


@pytest.fixture(scope="module")
def interrupted(tiny_base: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[list[str | Path], Path]:
    """A training that Ctrl-C ended after its first checkpoint: its arguments without the target, and the folder."""
    folder = tmp_path_factory.mktemp("interrupted")
    options = (*BRIEF[2:], "--steps", "30", "--checkpoint-every", "3", "--seed", "3")
    arguments: list[str | Path] = ["train", SAMPLES / "images", SAMPLES / "masks", "--base", tiny_base, *options]
    with start([*arguments, "--out", folder / "adapter", "--json"]) as process:
        while not list_checkpoints(folder / "adapter.training"):
            assert process.poll() is None
            time.sleep(0.02)
        process.send_signal(signal.SIGINT)
        rest, errors = process.communicate(timeout=60)
    assert process.returncode == INTERRUPTED
    assert errors == ""
    last = events(rest)[-1]
    assert (last["event"], last["kind"]) == ("error", "interrupted")
    assert "same command" in last["problems"][0]
    return arguments, folder


def test_an_interrupted_training_resumes_to_the_same_bytes(
    interrupted: tuple[list[str | Path], Path], tmp_path: Path
) -> None:
    arguments, folder = interrupted
    assert tree(folder)[0] == "adapter.training"
    shutil.copytree(folder, tmp_path / "resumed")
    code, _, told = call(*arguments, "--out", tmp_path / "resumed" / "adapter")
    assert code == 0
    assert "resuming after step" in told
    assert [path.name for path in (tmp_path / "resumed").iterdir()] == ["adapter"]
    code, _, told = call(*arguments, "--out", tmp_path / "adapter")
    assert code == 0
    assert "resuming" not in told
    assert contents(tmp_path / "resumed" / "adapter") == contents(tmp_path / "adapter")


def test_an_interrupted_training_resumes_with_its_own_settings_only(
    interrupted: tuple[list[str | Path], Path], tmp_path: Path
) -> None:
    arguments, folder = interrupted
    shutil.copytree(folder, tmp_path, dirs_exist_ok=True)
    before = tree(tmp_path)
    changes = ("--lr", "0.5", "--object", "tile", "--normals", SAMPLES / "normals")
    code, _, told = call(*arguments, "--out", tmp_path / "adapter", *changes)
    assert code == USAGE
    assert "the normals changed since it was started" in told
    assert "lr was 2e-05 and is now 0.5" in told
    assert "object was 'product' and is now 'tile'" in told
    assert tree(tmp_path) == before


def test_the_demo_checks_all_it_is_given_before_it_trains(tiny_base: Path, tmp_path: Path) -> None:
    code, _, told = call(
        *("demo", "--out", tmp_path / "demo", "--base", tiny_base, "--images", SAMPLES / "images"),
        *("--normals", tmp_path / "nothing", "-n", "0"),
    )
    assert code == USAGE
    assert "--images and --masks must be used together" in told
    assert "folder of normals" in told
    assert "num-pairs is 0" in told
    assert tree(tmp_path) == []


def test_a_base_is_verified_or_its_missing_parts_are_told(tiny_base: Path, tmp_path: Path) -> None:
    assert call("bases")[0] == 0
    code, told, _ = call("bases", "verify", tiny_base, "--json")
    assert code == 0
    (event,) = events(told)
    assert (event["complete"], event["resolution"]) == (True, 32)
    incomplete = tmp_path / "base"
    shutil.copytree(tiny_base, incomplete)
    shutil.rmtree(incomplete / "tokenizer")
    (incomplete / "unet" / "diffusion_pytorch_model.safetensors").unlink()
    code, _, told = call("bases", "verify", incomplete)
    assert code == USAGE
    assert "tokenizer/ is missing" in told
    assert "unet/ contains no weights" in told


def test_a_base_is_listed_with_what_was_measured_on_it(tiny_base: Path, tmp_path: Path) -> None:
    base = tmp_path / "base"
    shutil.copytree(tiny_base, base)
    card = {
        "images_seen_by_unet": 123_456,
        "seconds": {"render": {"some CPU": 60}, "pairs": {"a GPU": 600, "some CPU": 30}},
        "measured": {
            "reconstruction_procedural": {"images": 8, "psnr": 31.25, "ssim": 0.93, "error_inside_masks": 4.5},
            "mask_iou_procedural": {"threshold": 0.81, "u2net": 0.92},
            "denoising_procedural": {"image_300": 27.5, "part_300": 26.25},
            "alignment": {"pairs": 8, "inside": 9.5, "inside_shuffled": 47.25, "mask_area": 0.08},
            "acceptance_from_noise": {"candidates": 64, "accepted": 0.25, "rejected": {"invisible": 48}},
        },
    }
    (base / "card.json").write_text(json.dumps(card))
    code, told, _ = call("bases", "verify", base)
    assert code == 0
    for line in (
        "123,456 images seen",
        "made on a GPU (10:00), some CPU (1:30)",
        "reconstruction of 8 procedural images: PSNR 31.25 dB, SSIM 0.93",
        "IoU of the masks found on procedural images: threshold 0.81, u2net 0.92",
        "inside the masks of 8 samples: 9.5 grey levels, 47.25 with the images shuffled",
        "restored in one step from noise, procedural pairs: image at 300 27.5 dB, part at 300 26.25 dB",
        "25 % of 64 samples from noise pass the quality checks",
    ):
        assert line in told


def test_every_setting_is_an_option() -> None:
    commands = get_group(app).commands
    for method in METHOD_OPTIONS.values():
        for name, settings in (("train", method.training), ("generate", method.sampling)):
            options = {parameter.name for parameter in commands[name].params}
            assert {field.name for field in fields(settings)} <= options


def test_an_option_of_another_method_is_refused_naming_the_method(tmp_path: Path) -> None:
    where = ("train", SAMPLES / "images", SAMPLES / "masks", "--out", tmp_path / "adapter")
    code, _, told = call(*where, "--method", "copy-paste", "--lr", "0.1", "--rank", "4")
    assert code == USAGE
    assert "unknown copy-paste training options lr, rank; known are flip_horizontal, flip_vertical" in told
    assert tree(tmp_path) == []


def test_a_baseline_makes_a_dataset_that_says_how_it_was_made(tiny_base: Path, tmp_path: Path) -> None:
    adapter, target = tmp_path / "adapter", tmp_path / "dataset.zip"
    where = ("train", SAMPLES / "images", SAMPLES / "masks", "--out", adapter, "--base", tiny_base)
    assert call(*where, "--method", "copy-paste", "--no-flip-vertical")[0] == 0
    assert "copy-paste" in call("inspect", adapter)[1]
    generate, normals = ("generate", adapter, "--out", target, "-n", "2"), ("--normals", SAMPLES / "normals")
    code, _, told = call(*generate)
    assert (code, told.count("lays defects on normal images, but none were given")) == (USAGE, 1)
    code, _, told = call(*generate, *normals, "--steps", "5")
    assert code == USAGE
    assert "unknown copy-paste sampling options steps; known are blending, deform, seed" in told
    assert call(*generate, *normals, "--blending", "none")[0] == 0
    with ZipFile(target) as file:
        assert "a real defect was copied to a healthy photograph" in file.read("README.md").decode()


@pytest.fixture(scope="module")
def filler(tiny_base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An adapter of AnomalyDiffusion."""
    target = tmp_path_factory.mktemp("adapters") / "filler"
    where = ("train", SAMPLES / "images", SAMPLES / "masks", "--out", target, "--base", tiny_base)
    brief = ("--steps", "2", "--batch", "1", "--views", "1", "--fill-rank", "2", "--defect", "hole")
    code, _, told = call(*where, "--method", "anomalydiffusion", *brief)
    assert code == 0
    assert told.count("no normals were given, so training cannot choose how far defects are pushed away") == 1
    assert "fill_rank" in call("inspect", target)[1]
    return target


def test_defects_are_drawn_into_masks_of_the_users_own(filler: Path, limits: Path, tmp_path: Path) -> None:
    normals = sorted((SAMPLES / "normals").iterdir())
    with Image.open(normals[2]) as image:
        width, height = image.size
    wanted = np.zeros((height, width), np.uint8)
    wanted[height // 2 :, : width // 2] = 255
    (tmp_path / "places").mkdir()
    Image.fromarray(wanted).save(tmp_path / "places" / normals[2].name)
    target = tmp_path / "dataset.zip"
    generate = ("generate", filler, "--out", target, "-n", "1", "--limits", limits, "--steps", "1")
    code, _, told = call(*generate)
    assert (code, told.count("draws defects on normal images, but none were given")) == (USAGE, 1)
    generate = (*generate, "--normals", SAMPLES / "normals", "--place", tmp_path / "places")
    assert call(*generate)[0] == 0
    with ZipFile(target) as file:
        assert "drew a defect into a mask" in file.read("README.md").decode()
        record = json.loads(file.read("manifest.jsonl").splitlines()[0])
        assert record["normal"] == normals[2].stem
        assert record["mask_area"] == (wanted > 0).sum()
        assert json.loads(file.read("dataset.json"))["request"]["places"]["masks"][0][0] == normals[2].stem


def test_masks_named_like_those_of_normals_are_for_these_and_others_are_told(tmp_path: Path) -> None:
    mask = np.zeros((40, 40), np.uint8)
    mask[8:20, 8:20] = 255
    normals = [NormalImage(name, np.zeros((40, 40, 3), np.uint8)) for name in ("normal-05", "007")]
    for folder, names in (("place", ["normal-05_mask", "007_GT", "free"]), ("allowed", ["normal-05_mask"])):
        (tmp_path / folder).mkdir()
        for name in names:
            Image.fromarray(mask).save(tmp_path / folder / f"{name}.png")
    places, notes = read_places(tmp_path / "place", tmp_path / "allowed", None, normals)
    assert {each.name: each.normal for each in places.masks} == {
        "007_GT": "007",
        "free": None,
        "normal-05_mask": "normal-05",
    }
    assert places.used(normals) == normals[:1]
    assert notes == ["mask free: named like no normal image, so it goes to any of the same size"]


def test_several_defect_types_are_learned_in_one_adapter(tiny_base: Path, tmp_path: Path) -> None:
    target = tmp_path / "adapter"
    where = ("train", SAMPLES / "images", SAMPLES / "masks", "--out", target, "--base", tiny_base, "--defect", "hole")
    also = ("--also", f"pit={SAMPLES / 'images'},{SAMPLES / 'masks'}")
    code, _, told = call(*where, *also, "--also", "magic")
    assert code == USAGE
    assert "dualanodiff learns one defect type per adapter" in told
    assert "--also is 'magic'; it must be NAME=IMAGES,MASKS" in told
    code, said, _ = call(*where, *also, "--method", "anomalydiffusion", "--steps", "0")
    assert code == 0
    assert "(0 steps on 12 pairs" in said
    assert "hole, pit" in call("inspect", target)[1]


def test_a_region_is_an_option_and_places_that_fit_nothing_are_refused(filler: Path, tmp_path: Path) -> None:
    (tmp_path / "places").mkdir()
    Image.fromarray(np.eye(9, dtype=np.uint8) * 255).save(tmp_path / "places" / "small.png")
    generate = ("generate", filler, "--out", tmp_path / "dataset.zip", "-n", "1", "--normals", SAMPLES / "normals")
    code, _, told = call(*generate, "--place", tmp_path / "places", "--region", "0.5", "0", "0.2", "1")
    assert code == USAGE
    assert "small is 9 × 9 pixels, but the normals are" in told
    assert "region is (0.5, 0.0, 0.2, 1.0); it must be left, top, right and bottom" in told


def test_regions_are_masks_for_all_normals_or_one_each(filler: Path, limits: Path, tmp_path: Path) -> None:
    normals = sorted((SAMPLES / "normals").iterdir())[:2]
    with Image.open(normals[0]) as image:
        upper = np.zeros(image.size[::-1], np.uint8)
    upper[: len(upper) // 2] = 255
    for folder, name in (("allowed", normals[1].name), ("forbidden", "bad.png")):
        (tmp_path / folder).mkdir()
        Image.fromarray(upper).save(tmp_path / folder / name)
    Image.fromarray(255 - upper[::8, ::8]).save(tmp_path / "lower.png")
    target = tmp_path / "dataset.zip"
    generate = ("generate", filler, "--out", target, "-n", "2", "--limits", limits, "--steps", "1")
    generate = (*generate, "--normals", SAMPLES / "normals", "--no-on-object")
    code, _, told = call(*generate, "--allowed", tmp_path / "allowed", "--forbidden", tmp_path / "forbidden")
    assert code == USAGE
    assert "the forbidden region bad is of no normal" in told
    assert call(*generate, "--allowed", tmp_path / "allowed", "--forbidden", tmp_path / "lower.png")[0] == 0
    with ZipFile(target) as file:
        records = [json.loads(line) for line in file.read("manifest.jsonl").splitlines()]
    assert {record["normal"] for record in records} == {normals[1].stem}
    assert all(record["bbox"][1] + record["bbox"][3] <= len(upper) // 2 for record in records)


def test_pairs_are_counted_by_type(tiny_base: Path, limits: Path, tmp_path: Path) -> None:
    adapter, pairs = tmp_path / "adapter", f"{SAMPLES / 'images'},{SAMPLES / 'masks'}"
    where = ("train", SAMPLES / "images", SAMPLES / "masks", "--out", adapter, "--base", tiny_base, "--defect", "hole")
    assert call(*where, "--also", f"pit={pairs}", "--method", "anomalydiffusion", "--steps", "0")[0] == 0
    generate = ("generate", adapter, "--out", tmp_path / "x.zip", "--limits", limits, "--steps", "1")
    generate = (*generate, "--normals", SAMPLES / "normals")
    for wrong, reason in (
        ((), "say how many pairs: --num-pairs 16, or of each type, --defects crack=8,break=4"),
        (("-n", "3", "--defects", "hole=2"), "num-pairs is 3, but --defects asks for 2: leave --num-pairs out"),
        (("--defects", "hole=two"), "--defects: 'hole=two' is not NAME=N"),
        (("--defects", "dent=2"), "the adapter did not learn dent; it knows hole, pit"),
    ):
        code, _, told = call(*generate, *wrong)
        assert code == USAGE
        assert reason in told
    assert call(*generate, "--defects", "pit=2,hole=1")[0] == 0
    with ZipFile(tmp_path / "x.zip") as file:
        records = [json.loads(line) for line in file.read("manifest.jsonl").splitlines()]
    assert sorted(record["defect"] for record in records) == ["hole", "pit", "pit"]


def test_a_method_that_chooses_places_refuses_masks_to_fill(adapter: Path, tmp_path: Path) -> None:
    (tmp_path / "places").mkdir()
    Image.fromarray(np.eye(9, dtype=np.uint8) * 255).save(tmp_path / "places" / "small.png")
    code, _, told = call("generate", adapter, "--out", tmp_path / "x.zip", "-n", "1", "--place", tmp_path / "places")
    assert code == USAGE
    assert "dualanodiff finds masks on what it made: masks to fill are for anomalydiffusion" in told


def test_every_stage_of_a_pretraining_can_be_chosen(tmp_path: Path) -> None:
    where = ("pretrain", "--work", tmp_path / "work", "--out", tmp_path / "base")
    # The preset that does not exist is the only problem.
    for stages in ((), [argument for stage in Stage for argument in ("--stage", stage)]):
        code, _, told = call(*where, "--preset", "moon", *stages)
        assert (code, told.count("\n")) == (USAGE, 1)
        assert "preset 'moon'" in told
    for stage in Stage:
        code, _, told = call(*where, "--preset", "moon", "--stage", stage, "--photo-masks", tmp_path)
        assert code == USAGE
        assert "--photo-images and --photo-masks must be used together" in told
        assert (f"stage {stage} needs" in told) == (stage is not Stage.RENDER)


def test_a_pretraining_that_cannot_begin_says_why(tmp_path: Path) -> None:
    code, _, told = call(
        *("pretrain", "--preset", "moon", "--work", tmp_path / "work", "--out", tmp_path / "base"),
        *("--stage", "pairs", "--stage", "assemble", "--minutes", "0", "--start", tmp_path / "nowhere"),
    )
    assert code == USAGE
    assert "preset 'moon' does not exist: choose from cpu, gpu" in told
    assert "stage pairs needs" in told
    assert "--minutes is 0; it must be greater than 0" in told
    assert f"{tmp_path / 'nowhere'} cannot be continued from, it lacks interaction/interaction.safetensors" in told
    assert tree(tmp_path) == []


def test_the_limits_of_pictures_are_said_alike_everywhere() -> None:
    """Readme, help and the API's description name what the code checks."""
    own, uploaded = OWN_FILES, ImageLimits()
    assert own.max_side == uploaded.max_side == 32_768
    most, most_uploaded = f"{own.max_pixels / 1e6:.0f} megapixels", f"{uploaded.max_pixels / 1e6:.1f}"
    readme = (Path(__file__).parents[3] / "README.md").read_text(encoding="utf-8")
    assert f"sides up to 32 768 pixels, {most} each (the API: {most_uploaded})" in readme
    told = " ".join(call("train", "--help")[1].replace("│", " ").split())
    assert f"at most 32768 pixels a side and {most} each" in told
    form = create_adapter_form()["images[]"]["description"]
    assert f"at most 32768 pixels a side and {most_uploaded} megapixels each" in form


def create_adapter_form() -> dict[str, Any]:
    body = create_app(Settings()).openapi()["paths"]["/v1/adapters"]["post"]["requestBody"]
    form: dict[str, Any] = body["content"]["multipart/form-data"]["schema"]["properties"]
    return form
