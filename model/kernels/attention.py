"""Scaled dot-product attention for training in half precision on a CPU.

PyTorch's own kernel has a slow backward pass there: it takes several times as long as the two products and the softmax,
one after the other. In single precision its kernel is several times as fast as these.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor


def fused_attention(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """Attend over `(B, heads, N, c)` in the faster of the two ways."""
    halved = query.dtype is not torch.float32 or torch.is_autocast_enabled("cpu")
    if query.device.type == "cpu" and halved and query.requires_grad and torch.is_grad_enabled():
        scores = (query * (1 / math.sqrt(query.shape[-1]))) @ key.transpose(-1, -2)
        return scores.softmax(-1) @ value
    return F.scaled_dot_product_attention(query, key, value)
