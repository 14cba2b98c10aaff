"""Files in the formats of published weights, with random numbers in them."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn

from model.evaluation.inception import Inception
from model.evaluation.lpips import ALEXNET, VGG16, Lpips, Trunk

CLASSIFIER = {"AlexNet": (1, 4, 6), "VGG-16": (0, 3, 6)}
"""Numbers of torchvision's layers behind the features; LPIPS does not look at them."""


def write_inception(path: Path) -> Path:
    """Write a state dict in the published names, without counters of training; its predictions are not certain."""
    torch.manual_seed(0)
    network = Inception()
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
    tensors = {name: each for name, each in network.state_dict().items() if not name.endswith("num_batches_tracked")}
    torch.save(tensors | {"fc.weight": tensors["fc.weight"] / 100}, path)
    return path


def write_lpips(folder: Path, trunk: Trunk = ALEXNET) -> tuple[Path, Path]:
    """Write weights of LPIPS in the authors' names, and the network in torchvision's."""
    torch.manual_seed(0)
    lpips = Lpips(trunk)
    network: dict[str, Tensor] = {}
    for name, tensor in lpips.features.state_dict().items():
        network[f"features.{name}"] = nn.init.kaiming_normal_(tensor) if tensor.dim() > 1 else tensor
    for number in CLASSIFIER[trunk.name]:
        network |= {f"classifier.{number}.weight": torch.zeros(1, 1), f"classifier.{number}.bias": torch.zeros(1)}
    fitted = {f"lin{n}.model.1.weight": torch.rand_like(lpips.get_buffer(f"lin{n}")) for n in range(len(trunk.taps))}
    files = folder / ("vgg.pth" if trunk == VGG16 else "alex.pth"), folder / f"{trunk.name}.pth"
    torch.save(fitted, files[0])
    torch.save(network, files[1])
    return files
