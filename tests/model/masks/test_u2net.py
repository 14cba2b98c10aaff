from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from model.masks.u2net import (
    FULL,
    GRADED,
    OFFICIAL,
    PLAIN,
    SMALL,
    U2Net,
    Width,
    for_inference,
    load_u2net,
    normalise,
    saliency,
    save_u2net,
    uniform,
)
from model.runtime import switches
from model.runtime.switches import Switch
from service.core.errors import UsageError

TINY = uniform(2, 4)


def tiny(seed: int = 0) -> U2Net:
    torch.manual_seed(seed)
    return U2Net(TINY, PLAIN).eval()


@pytest.mark.parametrize(("widths", "count"), [(FULL, 44_009_869), (SMALL, 1_131_181), (GRADED, 1_038_637)])
def test_parameter_counts_are_those_published(widths: tuple[Width, ...], count: int) -> None:
    with torch.device("meta"):
        net = U2Net(widths)
    assert sum(parameter.numel() for parameter in net.parameters()) == count


@pytest.mark.parametrize(
    ("widths", "shapes"),
    [
        (
            FULL,
            {
                "stage1.rebnconvin.conv_s1.weight": (64, 3, 3, 3),
                "stage1.rebnconv1.bn_s1.running_mean": (32,),
                "stage1.rebnconv7.conv_s1.weight": (32, 32, 3, 3),
                "stage2.rebnconv6.conv_s1.bias": (32,),
                "stage4.rebnconv1d.conv_s1.weight": (512, 256, 3, 3),
                "stage5d.rebnconvin.conv_s1.weight": (512, 1024, 3, 3),
                "stage6.rebnconv4.bn_s1.running_var": (256,),
                "stage1d.rebnconv6d.conv_s1.weight": (16, 32, 3, 3),
                "side1.weight": (1, 64, 3, 3),
                "side6.weight": (1, 512, 3, 3),
                "outconv.weight": (1, 6, 1, 1),
            },
        ),
        (
            SMALL,
            {
                "stage3.rebnconv5.conv_s1.weight": (16, 16, 3, 3),
                "stage2d.rebnconvin.conv_s1.weight": (64, 128, 3, 3),
                "side4.bias": (1,),
                "outconv.bias": (1,),
            },
        ),
    ],
)
def test_tensors_are_named_and_shaped_as_in_the_published_files(
    widths: tuple[Width, ...], shapes: dict[str, tuple[int, ...]]
) -> None:
    with torch.device("meta"):
        state = U2Net(widths).state_dict()
    assert {name: tuple(state[name].shape) for name in shapes} == shapes


@pytest.mark.parametrize("size", [(32, 32), (70, 45)])
def test_all_seven_maps_have_the_size_of_the_input(size: tuple[int, int]) -> None:
    with torch.no_grad():
        outputs = tiny()(torch.zeros(2, 3, *size))
    assert [output.shape for output in outputs] == [(2, 1, *size)] * 7


def test_saliency_is_a_probability_at_the_resolution_of_the_pixels_whatever_the_network_sees() -> None:
    pixels = torch.rand(2, 3, 40, 56, generator=torch.Generator().manual_seed(0)) * 2 - 1
    for size in (None, 32):
        probability = saliency(tiny(), pixels, size=size)
        assert probability.shape == (2, 1, 40, 56)
        assert 0 <= probability.min() <= probability.max() <= 1


def test_saliency_at_its_own_size_is_the_sigmoid_of_the_fused_map() -> None:
    net = tiny()
    pixels = torch.rand(2, 3, 32, 32) * 2 - 1
    with torch.no_grad():
        assert torch.equal(saliency(net, pixels), torch.sigmoid(net(pixels)[0]))


def test_published_weights_see_imagenet_statistics_of_a_picture_divided_by_its_maximum() -> None:
    pixels = torch.full((1, 3, 4, 4), -0.5)
    expected = [(1 - mean) / std for mean, std in zip(OFFICIAL.mean, OFFICIAL.std, strict=True)]
    assert torch.allclose(normalise(pixels, OFFICIAL)[0, :, 0, 0], torch.tensor(expected))


def test_saving_and_loading_keeps_tensors_widths_and_preprocessing(tmp_path: Path) -> None:
    net = tiny()
    save_u2net(net, tmp_path / "net.safetensors")
    loaded = load_u2net(tmp_path / "net.safetensors")
    assert (loaded.widths, loaded.preprocessing, loaded.training) == (TINY, PLAIN, False)
    assert all(torch.equal(tensor, loaded.state_dict()[name]) for name, tensor in net.state_dict().items())


def test_half_precision_halves_the_kernels_and_hardly_changes_the_result(tmp_path: Path) -> None:
    net = tiny()
    save_u2net(net, tmp_path / "half.safetensors", half=True)
    stored = load_file(tmp_path / "half.safetensors")
    assert stored["side1.weight"].dtype == torch.float16
    assert stored["stage1.rebnconvin.bn_s1.running_var"].dtype == torch.float32
    pixels = torch.rand(1, 3, 32, 32) * 2 - 1
    loaded = load_u2net(tmp_path / "half.safetensors")
    assert torch.allclose(saliency(loaded, pixels), saliency(net, pixels), atol=1e-2)


@pytest.mark.parametrize("zipped", [True, False])
def test_a_state_dict_written_by_torch_loads_as_official_even_in_the_format_of_old(
    tmp_path: Path, *, zipped: bool
) -> None:
    torch.manual_seed(3)
    net = U2Net(SMALL).eval()
    state = {name: tensor for name, tensor in net.state_dict().items() if not name.endswith("num_batches_tracked")}
    torch.save(state, tmp_path / "u2netp.pth", _use_new_zipfile_serialization=zipped)
    loaded = load_u2net(tmp_path / "u2netp.pth")
    assert (loaded.widths, loaded.preprocessing) == (SMALL, OFFICIAL)
    assert torch.equal(
        loaded.state_dict()["stage3d.rebnconv2d.conv_s1.weight"], state["stage3d.rebnconv2d.conv_s1.weight"]
    )


def test_a_safetensors_copy_of_official_weights_needs_no_record(tmp_path: Path) -> None:
    save_file({name: tensor.contiguous() for name, tensor in tiny().state_dict().items()}, tmp_path / "a.safetensors")
    assert load_u2net(tmp_path / "a.safetensors").preprocessing == OFFICIAL


def test_what_differs_is_named(tmp_path: Path) -> None:
    state = tiny().state_dict()
    del state["side3.bias"]
    state["side7.weight"] = torch.zeros(1)
    state["stage2.rebnconv3.conv_s1.weight"] = torch.zeros(5, 2, 3, 3)
    torch.save(state, tmp_path / "wrong.pth")
    with pytest.raises(UsageError) as caught:
        load_u2net(tmp_path / "wrong.pth")
    assert caught.value.problems == [
        "wrong.pth lacks side3.bias",
        "wrong.pth has side7.weight, which U²-Net does not have",
        "stage2.rebnconv3.conv_s1.weight is (5, 2, 3, 3) in wrong.pth, (2, 2, 3, 3) in U²-Net",
    ]


def test_weights_of_another_network_are_refused(tmp_path: Path) -> None:
    torch.save(torch.nn.Linear(2, 2).state_dict(), tmp_path / "linear.pth")
    with pytest.raises(UsageError, match=r"linear\.pth lacks stage1\.rebnconv1\.conv_s1\.weight"):
        load_u2net(tmp_path / "linear.pth")


def test_a_pickled_module_is_refused_without_running_it(tmp_path: Path) -> None:
    torch.save(tiny(), tmp_path / "module.pth")
    with pytest.raises(UsageError, match="a dictionary of tensors and nothing else"):
        load_u2net(tmp_path / "module.pth")


@pytest.mark.parametrize("name", ["noise.pth", "noise.safetensors"])
def test_a_file_of_another_kind_is_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"not a network")
    with pytest.raises(UsageError, match=name):
        load_u2net(tmp_path / name)


def trained_norms(net: U2Net) -> U2Net:
    """With batch norms that do something, as training leaves them."""
    draw = torch.Generator().manual_seed(1)
    for name, tensor in net.state_dict().items():
        if "bn_s1" in name and tensor.is_floating_point():
            tensor.copy_(0.5 + torch.rand(tensor.shape, generator=draw))
    return net


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.bfloat16, 0.02)])
def test_folding_the_norms_changes_rounding_alone(dtype: torch.dtype, tolerance: float) -> None:
    net, pixels = trained_norms(tiny()), torch.rand(3, 3, 48, 40, generator=torch.Generator().manual_seed(2)) * 2 - 1
    expected = saliency(net, pixels)
    assert expected.std() > 0.001
    assert torch.allclose(saliency(for_inference(net, dtype), pixels), expected, atol=tolerance)
    with switches.plain(Switch.FOLDED_U2NET):
        plain = for_inference(net, dtype)
    assert plain.state_dict().keys() == net.state_dict().keys()
    assert torch.allclose(saliency(plain, pixels), expected, atol=tolerance)
    assert torch.equal(saliency(net, pixels), expected)


def test_a_picture_is_seen_alike_whatever_is_beside_it() -> None:
    net = for_inference(trained_norms(tiny()), torch.float32)
    pixels = torch.rand(5, 3, 32, 32, generator=torch.Generator().manual_seed(3)) * 2 - 1
    together = saliency(net, pixels)
    for count in (1, 2, 3):
        assert torch.equal(saliency(net, pixels[:count]), together[:count])
