"""LPIPS and the diversity within clusters: formats, the distance's properties, and constructed clusters."""

from __future__ import annotations

from importlib.util import find_spec
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
import torch

from model.evaluation.lpips import ALEXNET, LARGEST_CLUSTER, VGG16, Lpips, Trunk, cluster_diversity, load_lpips
from model.evaluation.published import OFFICIAL
from model.evaluation.weights import file_hash, read_weights
from model.types import ImageArray
from service.core.errors import UsageError
from tests.support.published_weights import write_lpips

CONVOLUTIONS = {
    "AlexNet": {0: (64, 3, 11, 11), 3: (192, 64, 5, 5), 6: (384, 192, 3, 3), 8: (256, 384, 3, 3), 10: (256, 256, 3, 3)},
    "VGG-16": {0: (64, 3, 3, 3), 2: (64, 64, 3, 3), 5: (128, 64, 3, 3), 10: (256, 128, 3, 3), 28: (512, 512, 3, 3)},
}
"""Some of torchvision's layers."""


@pytest.fixture(scope="module")
def lpips(tmp_path_factory: pytest.TempPathFactory) -> Lpips:
    return load_lpips(*write_lpips(tmp_path_factory.mktemp("weights")))


def noise(seed: int, level: int = 128, spread: int = 60) -> ImageArray:
    drawn = np.random.default_rng(seed).integers(-spread, spread + 1, (64, 64, 3))
    return np.clip(level + drawn, 0, 255).astype(np.uint8)


def between(lpips: Lpips, a: ImageArray, b: ImageArray) -> float:
    x, y = lpips.describe([a, b])
    return float((x - y).square().sum())


def test_equal_pictures_have_no_distance_and_others_the_same_either_way(lpips: Lpips) -> None:
    assert between(lpips, noise(0), noise(0)) == 0
    assert between(lpips, noise(0), noise(1)) == pytest.approx(between(lpips, noise(1), noise(0)))
    assert between(lpips, noise(0), noise(1)) > 0


def test_the_distance_is_the_sum_of_the_layers_weighted_means(lpips: Lpips) -> None:
    x = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0)) * 2 - 1
    shift, scale = torch.tensor([[-0.030, -0.088, -0.188], [0.458, 0.448, 0.450]]).view(2, 3, 1, 1)
    seen = (x - shift) / scale
    expected = 0.0
    for number, tap in enumerate((1, 4, 7, 9, 11)):
        layer = torch.nn.functional.normalize(lpips.features[: tap + 1](seen), dim=1)
        squares = (layer[0] - layer[1]).square()
        expected += float((squares * lpips.get_buffer(f"lin{number}")[0]).sum(dim=0).mean())
    a, b = lpips(x)
    assert float((a - b).square().sum()) == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("trunk", [ALEXNET, VGG16], ids=lambda trunk: trunk.name)
def test_networks_are_told_apart_by_their_layers(trunk: Trunk, tmp_path: Path) -> None:
    weights, network = write_lpips(tmp_path, trunk)
    tensors = read_weights(network)
    for number, shape in CONVOLUTIONS[trunk.name].items():
        assert tuple(tensors[f"features.{number}.weight"].shape) == shape
    assert load_lpips(weights, network).trunk == trunk


def test_files_that_do_not_belong_together_are_refused(tmp_path: Path) -> None:
    alex, alexnet = write_lpips(tmp_path)
    vgg, vgg16 = write_lpips(tmp_path, VGG16)
    with pytest.raises(UsageError, match=r"vgg.pth is not of LPIPS on AlexNet: .*lin1.model.1.weight \(1, 128, 1, 1\)"):
        load_lpips(vgg, alexnet)
    with pytest.raises(UsageError, match=r"alex.pth is not of LPIPS on VGG-16"):
        load_lpips(alex, vgg16)
    with pytest.raises(UsageError, match=r"alex.pth is not of torchvision's AlexNet: it lacks features.0.weight"):
        load_lpips(alexnet, alex)


def test_negative_weights_are_refused(tmp_path: Path) -> None:
    alex, alexnet = write_lpips(tmp_path)
    torch.save({name: -each for name, each in read_weights(alex).items()}, alex)
    with pytest.raises(UsageError, match="negative"):
        load_lpips(alex, alexnet)


@pytest.mark.parametrize(("name", "trunk"), [("alex.pth", ALEXNET), ("vgg.pth", VGG16)])
def test_the_authors_weights_load(name: str, trunk: Trunk, tmp_path: Path) -> None:
    """torchmetrics installs them."""
    spec = find_spec("torchmetrics")
    if spec is None or spec.origin is None:
        pytest.skip("torchmetrics is not installed")
    weights = Path(spec.origin).parent / "functional" / "image" / "lpips_models" / name
    if not weights.is_file():
        pytest.skip("this torchmetrics has no weights of LPIPS")
    assert file_hash(weights).startswith(OFFICIAL["lpips"])
    assert load_lpips(weights, write_lpips(tmp_path, trunk)[1]).trunk == trunk


def test_copies_of_the_real_pictures_have_no_diversity(lpips: Lpips) -> None:
    reals = [noise(0, 60), noise(1, 190)]
    found = cluster_diversity(lpips, reals, [reals[0], reals[0], reals[1], reals[1]])
    assert (found.mean, found.clusters, found.network) == (0, 2, "AlexNet")


def test_copies_of_another_picture_have_next_to_none(lpips: Lpips) -> None:
    found = cluster_diversity(lpips, [noise(0)], [noise(5, 80)] * 6)
    assert found.mean == pytest.approx(0, abs=1e-5)


def test_it_is_the_mean_over_clusters_of_the_mean_over_pairs(lpips: Lpips) -> None:
    reals = [noise(0, 40, 5), noise(1, 210, 90)]
    dark = [noise(seed, 40, 5 + seed % 3) for seed in range(10, 13)]
    bright = [noise(seed, 210, 90) for seed in range(20, 24)]
    expected = np.mean([np.mean([between(lpips, a, b) for a, b in combinations(each, 2)]) for each in (dark, bright)])
    found = cluster_diversity(lpips, reals, [*dark[:1], *bright, *dark[1:]])
    assert found.mean == pytest.approx(float(expected), rel=1e-4)
    assert found.clusters == 2


def test_clusters_with_fewer_than_two_pictures_are_left_out(lpips: Lpips) -> None:
    reals = [noise(0, 40, 5), noise(1, 210, 90)]
    alone, two = noise(10, 40, 5), [noise(20, 210, 90), noise(21, 210, 90)]
    found = cluster_diversity(lpips, reals, [alone, *two])
    assert found.mean == pytest.approx(between(lpips, *two), rel=1e-4)
    assert found.clusters == 1
    assert cluster_diversity(lpips, reals, [alone, two[0]]).mean is None


def test_no_more_than_fifty_pictures_of_a_cluster_count(lpips: Lpips) -> None:
    real = noise(0)
    assert cluster_diversity(lpips, [real], [real] * LARGEST_CLUSTER + [noise(1)] * 5).mean == 0
