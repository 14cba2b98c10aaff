"""From photographs to a dataset: the two jobs as users and workers run them, on the tiny base."""

from __future__ import annotations

import io
import json
import shutil
import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from model.data.placement import NormalImage
from model.diffusion.base import Base, load_base
from model.dualanodiff.adapter import DualAnoDiffAdapter, load_adapter
from model.dualanodiff.sampling.sampler import prepare_sampling, sample_pairs
from model.export.dataset import DatasetSummary
from model.generation.counts import Counts
from model.masks.networks import MaskNetworks, load_mask_networks
from model.masks.u2net import save_u2net
from model.methods import method_named, train_adapter
from model.types import Pair
from service.core.errors import UsageError
from service.core.options.common import MaskMethod
from service.core.options.dualanodiff import SamplingConfig, TrainingConfig
from service.core.options.methods import DEFAULT_METHOD
from service.core.uploads.decoding import ImageLimits
from service.core.uploads.pairs import read_normals, read_pairs
from tests.support.tiny_data import (
    PERMISSIVE,
    drawn_normal,
    drawn_pair,
    last,
    make_dataset,
    tiny_adapter,
    tiny_config,
    tiny_u2net,
    training_request,
)

NO_NETWORKS = MaskNetworks(None, None)
SAMPLING = SamplingConfig(steps=2, batch=2, mask_method=MaskMethod.THRESHOLD)


@pytest.fixture(scope="module")
def base(tiny_base: Path) -> Base:
    return load_base(str(tiny_base))


@pytest.fixture(scope="module")
def adapter(base: Base) -> DualAnoDiffAdapter:
    return tiny_adapter(base)


def trained(base: Base, folder: Path, config: TrainingConfig, pairs: list[Pair], networks: MaskNetworks) -> Path:
    target, workspace = folder / "adapter", folder / "workspace"
    last(train_adapter(training_request(base, pairs, config, networks), target, workspace))
    return target


@pytest.mark.parametrize("defect", ["crack", "blowhole"])
def test_real_photographs_become_a_dataset(magnetic_tile: Path, base: Base, tmp_path: Path, defect: str) -> None:
    splits = json.loads((magnetic_tile / "splits.json").read_text())
    stems = {defect: splits["defects"][defect]["train"][:3], "normal": splits["normal"]["train"][:3]}
    for kind, part in ((defect, "image"), (defect, "mask"), ("normal", "image")):
        (tmp_path / kind / part).mkdir(parents=True)
        for stem in stems[kind]:
            for file in (magnetic_tile / kind / part).glob(f"{stem}.*"):
                shutil.copy(file, tmp_path / kind / part)
    given = read_pairs(tmp_path / defect / "image", tmp_path / defect / "mask", ImageLimits()).pairs
    healthy = read_normals(tmp_path / "normal" / "image", ImageLimits()).images
    pairs = [Pair(pair.name, pair.image, pair.mask) for pair in given]
    normals = [NormalImage(normal.name, normal.image) for normal in healthy]
    networks = MaskNetworks(tiny_u2net(), tiny_u2net(1))
    config = tiny_config(steps=2, views=2, view="window", mask_steps=1)

    adapter = load_adapter(trained(base, tmp_path, config, pairs, networks), base)
    assert [entry["name"] for entry in adapter.card["data"]] == sorted(stems[defect])
    sampling = replace(SAMPLING, anchored=True)
    summary = last(
        make_dataset(
            adapter,
            sampling,
            2,
            tmp_path / "dataset.zip",
            object_net=networks.object,
            normals=normals,
            formats=["coco", "mvtec"],
            limits=PERMISSIVE,
        )
    )
    assert isinstance(summary, DatasetSummary)
    assert (summary.num_pairs, summary.num_normals) == (2, 3)
    sizes = {normal.name: normal.image.shape[:2] for normal in normals}
    with zipfile.ZipFile(tmp_path / "dataset.zip") as archive:
        assert archive.testzip() is None
        records = [json.loads(line) for line in archive.read("manifest.jsonl").decode().splitlines()]
        for record in records:
            image = np.asarray(Image.open(io.BytesIO(archive.read(record["image"]))))
            mask = np.asarray(Image.open(io.BytesIO(archive.read(record["mask"]))))
            assert image.shape[:2] == mask.shape == sizes[record["normal"]]
            assert set(np.unique(mask)) == {0, 255}
        description = json.loads(archive.read("dataset.json"))
    assert len(records) == description["counts"]["accepted"] == 2
    assert description["base_hash"] == base.digest
    assert description["base_license"] == base.card.get("license")
    assert description["adapter"] == adapter.card


def test_the_same_request_gives_the_same_zip(adapter: DualAnoDiffAdapter, tmp_path: Path) -> None:
    for name in ("one", "two"):
        last(make_dataset(adapter, SAMPLING, 2, tmp_path / name, formats=["yolo"], limits=PERMISSIVE))
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()


def test_a_dataset_that_cannot_be_filled_says_why_and_leaves_nothing(
    adapter: DualAnoDiffAdapter, tmp_path: Path
) -> None:
    impossible, counts = replace(PERMISSIVE, min_visibility=1e9), Counts()
    with pytest.raises(
        UsageError, match=r"only 0 of 2 pairs passed .* in 3 attempts \(rejected: invisible 3"
    ) as caught:
        last(
            make_dataset(
                adapter,
                SAMPLING,
                2,
                tmp_path / "dataset.zip",
                limits=impossible,
                max_attempts=3,
                counts=counts,
            )
        )
    assert "allow more attempts" in str(caught.value)
    assert counts.attempts == 3
    assert list(tmp_path.iterdir()) == []


def test_an_unknown_format_is_refused_before_anything_is_made(adapter: DualAnoDiffAdapter, tmp_path: Path) -> None:
    job = make_dataset(adapter, SAMPLING, 2, tmp_path / "dataset.zip", formats=["voc"])
    with pytest.raises(UsageError, match="'voc' does not exist"):
        next(job)


def test_training_again_from_scratch_gives_the_same_adapter(base: Base, tmp_path: Path) -> None:
    pairs, net = [drawn_pair(0), drawn_pair(1)], tiny_u2net()
    before = {name: value.clone() for name, value in net.state_dict().items()}
    folders = [
        trained(base, tmp_path / name, tiny_config(mask_steps=1), pairs, MaskNetworks(net, None))
        for name in ("one", "two")
    ]
    files = sorted(path.relative_to(folders[0]) for path in folders[0].rglob("*") if path.is_file())
    assert Path("mask_net.safetensors") in files
    for file in files:
        if file.name != "run.json":
            assert (folders[0] / file).read_bytes() == (folders[1] / file).read_bytes(), file
    assert json.loads((folders[0] / "run.json").read_text()).keys() == {"finished", "seconds", "machine"}
    # The network that was given serves others too.
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())


class Sampler:
    """Watches a training by sampling from it at every checkpoint."""

    def __init__(self, wanted: int) -> None:
        self.wanted = wanted
        self.asked = 0
        self.saved_at: list[int] = []
        self.pictures: list[np.ndarray] = []

    def wants_checkpoint(self) -> bool:
        self.asked += 1
        return self.asked == self.wanted

    def on_saved(self, step: int, checkpoint: Path) -> None:
        assert (checkpoint / "state.json").is_file()
        self.saved_at.append(step)

    def on_checkpoint(self, step: int, adapter: DualAnoDiffAdapter) -> None:
        self.pictures += [candidate.image for candidate in sample_pairs(prepare_sampling(adapter, SAMPLING), 0, 1)]


def test_samples_and_extra_checkpoints_change_nothing_of_a_training(base: Base, tmp_path: Path) -> None:
    callback, folders = Sampler(wanted=3), []
    for name, watched in (("alone", None), ("watched", callback)):
        (tmp_path / name).mkdir()
        request = training_request(base, [drawn_pair(0)], tiny_config(steps=5), NO_NETWORKS)
        job = train_adapter(request, tmp_path / name / "adapter", tmp_path / name / "workspace", callback=watched)
        last(job)
        folders.append(tmp_path / name / "adapter")
    assert callback.saved_at == [2, 3, 4]
    assert not np.array_equal(callback.pictures[0], callback.pictures[2])
    for file in sorted(path.relative_to(folders[0]) for path in folders[0].rglob("*") if path.is_file()):
        if file.name != "run.json":
            assert (folders[0] / file).read_bytes() == (folders[1] / file).read_bytes(), file


def test_composites_need_good_parts_and_are_left_out_with_a_note_without(base: Base, tmp_path: Path) -> None:
    notes, folders = [], [tmp_path / "wanted", tmp_path / "none", tmp_path / "made"]
    for folder, composites, normals in zip(folders, (4, 0, 4), ((), (), [drawn_normal(0)]), strict=True):
        folder.mkdir()
        config = tiny_config(steps=1, composites=composites)
        request = training_request(base, [drawn_pair(0)], config, NO_NETWORKS, normals)
        job = train_adapter(request, folder / "adapter", folder / "workspace")
        notes.append([item.note for item in job if item.note])
    assert notes == [["no normals were given: training uses the real pairs alone"], [], []]
    cards = [(folder / "adapter" / "card.json").read_bytes() for folder in folders]
    assert cards[0] == cards[1] != cards[2]
    assert [normal["name"] for normal in json.loads(cards[2])["normals"]] == ["good0"]


def test_mask_networks_come_from_the_base_unless_others_are_named(base: Base, tmp_path: Path) -> None:
    (tmp_path / "u2net").mkdir()
    save_u2net(tiny_u2net(1), tmp_path / "u2net" / "part.safetensors")
    save_u2net(tiny_u2net(2), tmp_path / "own.safetensors")
    brought = load_mask_networks(replace(base, folder=tmp_path))
    named = load_mask_networks(replace(base, folder=tmp_path), part=tmp_path / "own.safetensors")
    for found, seed in ((brought.part, 1), (named.part, 2)):
        assert found is not None
        assert not found.training
        expected = tiny_u2net(seed).state_dict()
        assert all(torch.equal(value, expected[name]) for name, value in found.state_dict().items())


def test_a_base_without_mask_networks_finds_objects_by_the_minis_and_masks_by_threshold(
    base: Base, tmp_path: Path
) -> None:
    found = load_mask_networks(base)
    assert found.object is not None
    assert found.part is None
    request = training_request(base, [drawn_pair(0)], tiny_config(), found)
    (note,) = method_named(DEFAULT_METHOD).check_training(request)
    assert "has no network that finds masks on generated parts: they are found by the distance from grey" in note
    adapter = load_adapter(trained(base, tmp_path, tiny_config(), [drawn_pair(0)], found), base)
    settings = method_named(DEFAULT_METHOD).resolve_sampling(base, {}, has_normals=False, adapter=adapter)
    assert settings.mask_method is MaskMethod.THRESHOLD


def test_a_network_that_the_user_names_finds_the_masks_by_default(base: Base, tmp_path: Path) -> None:
    save_u2net(tiny_u2net(), tmp_path / "own.safetensors")
    found = load_mask_networks(base, part=tmp_path / "own.safetensors")
    adapter = load_adapter(trained(base, tmp_path, tiny_config(mask_steps=1), [drawn_pair(0)], found), base)
    settings = method_named(DEFAULT_METHOD).resolve_sampling(base, {}, has_normals=False, adapter=adapter)
    assert settings.mask_method is MaskMethod.U2NET


def test_a_resumed_training_counts_the_seconds_of_all_its_runs(base: Base, tmp_path: Path) -> None:
    (tmp_path / "workspace").mkdir()
    (tmp_path / "workspace" / "elapsed.json").write_text('{"seconds": 1000.0}')
    adapter = trained(base, tmp_path, tiny_config(), [drawn_pair(0)], NO_NETWORKS)
    assert 1000 < json.loads((adapter / "run.json").read_text())["seconds"] < 2000
