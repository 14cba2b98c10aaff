"""Inception-v3 as published for FID: names, shapes, resizing, and files that are refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from model.evaluation.inception import Inception, load_inception, resize
from model.evaluation.weights import read_weights
from service.core.errors import UsageError
from tests.support.published_weights import write_inception

SHAPES = {
    "Conv2d_1a_3x3.conv.weight": (32, 3, 3, 3),
    "Conv2d_4a_3x3.bn.running_var": (192,),
    "Mixed_5b.branch5x5_2.conv.weight": (64, 48, 5, 5),
    "Mixed_5d.branch_pool.conv.weight": (64, 288, 1, 1),
    "Mixed_6a.branch3x3.conv.weight": (384, 288, 3, 3),
    "Mixed_6b.branch7x7_2.conv.weight": (128, 128, 1, 7),
    "Mixed_6e.branch7x7dbl_4.conv.weight": (192, 192, 7, 1),
    "Mixed_7a.branch7x7x3_4.conv.weight": (192, 192, 3, 3),
    "Mixed_7b.branch3x3_2a.conv.weight": (384, 384, 1, 3),
    "Mixed_7c.branch3x3dbl_3b.conv.weight": (384, 384, 3, 1),
    "Mixed_7c.branch1x1.conv.weight": (320, 2048, 1, 1),
    "fc.weight": (1008, 2048),
}
"""Some of the published file's tensors."""


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_inception(tmp_path_factory.mktemp("weights") / "inception.pth")


@pytest.fixture(scope="module")
def network(file: Path) -> Inception:
    return load_inception(file)


def noise(seed: int, height: int = 40, width: int = 60) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)


def test_the_network_has_the_published_tensors(file: Path) -> None:
    tensors = read_weights(file)
    assert len(tensors) == 94 * 5 + 2
    assert {name: tuple(tensors[name].shape) for name in SHAPES} == SHAPES
    # torchvision documents 27 161 264 parameters for 1000 classes, of which 3 326 696 are the auxiliary classifier's.
    assert sum(each.numel() for each in Inception().parameters()) == 27_161_264 - 3_326_696 + 8 * 2049


def test_pictures_of_any_size_have_2048_features_and_1008_probabilities(network: Inception) -> None:
    features, predictions = network.describe([noise(0), noise(1, 320, 310)])
    assert features.shape == (2, 2048)
    assert (features >= 0).all()
    np.testing.assert_allclose(predictions.sum(axis=1), 1)
    assert predictions.shape == (2, 1008)


def test_predictions_are_without_the_bias(network: Inception) -> None:
    features, predictions = network.describe([noise(0)])
    logits = torch.from_numpy(features) @ network.fc.weight.double().T
    np.testing.assert_allclose(predictions, torch.softmax(logits, 1).numpy(), rtol=1e-3)


def test_averages_at_an_edge_are_over_pixels_that_exist(network: Inception) -> None:
    constant = torch.ones(1, 192, 35, 35)
    pooled = network.Mixed_5b(constant)[:, -32:]
    np.testing.assert_allclose(pooled[..., 0, 0], pooled[..., 17, 17], rtol=1e-5)


def test_only_the_last_block_takes_a_maximum() -> None:
    network = Inception()
    blocks = {name: block.average for name, block in network.named_children() if hasattr(block, "average")}
    assert [name for name, average in blocks.items() if not average] == ["Mixed_7c"]
    assert len(blocks) == 9


def test_resizing_takes_pixels_from_the_upper_left() -> None:
    ramp = np.repeat(np.arange(100, dtype=np.uint8)[None, :, None], 3, axis=2).repeat(7, axis=0)
    expected = np.minimum(np.arange(299) * 100 / 299, 99)
    np.testing.assert_allclose(resize(ramp), np.broadcast_to(expected, (3, 299, 299)), atol=1e-4)
    same = noise(0, 299, 299)
    np.testing.assert_array_equal(resize(same).permute(1, 2, 0), same)


def test_the_same_tensors_in_another_format_are_the_same_network(
    file: Path, network: Inception, tmp_path: Path
) -> None:
    save_file(read_weights(file), tmp_path / "inception.safetensors")
    again = load_inception(tmp_path / "inception.safetensors")
    np.testing.assert_array_equal(again.describe([noise(0)])[0], network.describe([noise(0)])[0])


def test_other_weights_are_refused_with_what_differs(file: Path, tmp_path: Path) -> None:
    tensors = read_weights(file)
    del tensors["Mixed_5b.branch1x1.conv.weight"]
    # As torchvision's own: a thousand classes, and an auxiliary classifier.
    tensors |= {"fc.weight": torch.zeros(1000, 2048), "AuxLogits.fc.bias": torch.zeros(1000)}
    torch.save(tensors, tmp_path / "other.pth")
    with pytest.raises(UsageError) as caught:
        load_inception(tmp_path / "other.pth")
    said = str(caught.value)
    assert "lacks Mixed_5b.branch1x1.conv.weight" in said
    assert "has AuxLogits.fc.bias" in said
    assert "fc.weight (1000, 2048) instead of (1008, 2048)" in said


@pytest.mark.parametrize("content", [b"", b"no weights", b"PK\x03\x04 broken", b"\x80\x02.", b"\x80\x02h\x05"])
def test_what_is_no_file_of_weights_is_refused(content: bytes, tmp_path: Path) -> None:
    for name in ("weights.pth", "weights.safetensors"):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(UsageError, match=name):
            load_inception(tmp_path / name)
    with pytest.raises(UsageError, match="is not a file"):
        load_inception(tmp_path)
