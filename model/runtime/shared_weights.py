"""Copies of a network that share its weights, so that several models of one base take its memory once."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import TypeVar

from torch import Tensor, nn

_Module = TypeVar("_Module", bound=nn.Module)


def sharing_weights(module: _Module) -> _Module:
    """Copy a module's structure over the very same parameters and buffers."""
    return _copied(module, {id(tensor): tensor for tensor in (*module.parameters(), *module.buffers())})


def sharing_frozen_weights(module: _Module) -> _Module:
    """Copy a module's structure over the same memory, with parameters of its own that are not trained.

    A weight that is converted or replaced in the copy gets memory of its own; the original stays as it is.
    """
    parameters = {id(each): nn.Parameter(each.detach(), requires_grad=False) for each in module.parameters()}
    return _copied(module, {**parameters, **{id(each): each.detach() for each in module.buffers()}})


def _copied(module: _Module, kept: Mapping[int, Tensor]) -> _Module:
    return copy.deepcopy(module, dict(kept))
