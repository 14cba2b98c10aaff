"""A merged denoiser's passes on a CUDA device: recorded and replayed, and compiled as soon as that is done.

Python takes longer to launch the kernels of a small pass than a GPU to run them, so each pass is recorded once as a
CUDA graph and replayed from then on. Meanwhile Inductor compiles it in a thread of its own: minutes the first time,
much less from its cache on disk. Until that is done, and where it fails, passes run as they are written.

On CPUs passes stay as they are written: a compiler would be needed, takes longer than most jobs, and changes the last
bits of what it compiles.
"""

from __future__ import annotations

import copy
import logging
import threading
from collections.abc import Callable

import torch
from torch import Tensor

from model.denoiser import BranchPass
from model.merging import MergedDenoiser

log = logging.getLogger(__name__)

Pass = Callable[[Tensor, Tensor, Tensor], Tensor]
"""Latents, one timestep and prompt embeddings → prediction, as `MergedDenoiser`'s."""

REPLAY_TOLERANCE = 0.02
"""Of a replayed pass's norm: more than rounding in half precision, less than anything that was recorded wrongly."""


class Compiler:
    """Compiles passes for the rest of the process; one compiled pass serves all adapters of a base.

    What Inductor has compiled it keeps in the folder that `TORCHINDUCTOR_CACHE_DIR` names, for processes to come.

    Args:
        backend: of `torch.compile`.
    """

    def __init__(self, backend: str | Callable[..., object] = "inductor") -> None:
        self._compiled = torch.compile(_run, backend=backend, dynamic=False, fullgraph=True)
        self._threads: dict[object, threading.Thread] = {}
        self._ready: set[object] = set()

    def compiled(self, denoiser: MergedDenoiser, latents: Tensor, text: Tensor) -> Pass | None:
        """The compiled pass of a denoiser for inputs of these shapes; None until there is one, which this begins."""
        key = _structure(denoiser), latents.shape, text.shape
        if key in self._ready:
            return lambda *inputs: self._compiled(denoiser, *inputs)
        if key not in self._threads:
            timestep = torch.zeros((), dtype=torch.long, device=text.device)
            like = torch.zeros_like(latents), timestep, torch.zeros_like(text)
            # Another structure over the same weights: the router of this one is in use meanwhile.
            weights = {id(tensor): tensor for tensor in (*denoiser.parameters(), *denoiser.buffers())}
            twin = copy.deepcopy(denoiser, weights)
            thread = threading.Thread(target=self._compile, args=(key, twin, like), name="compile", daemon=True)
            self._threads[key] = thread
            thread.start()
        return None

    def wait(self) -> None:
        """Until all that was begun is compiled, or has failed."""
        for thread in list(self._threads.values()):
            thread.join()

    def _compile(self, key: object, denoiser: MergedDenoiser, inputs: tuple[Tensor, Tensor, Tensor]) -> None:
        try:
            with torch.no_grad():
                self._compiled(denoiser, *inputs)
        except (RuntimeError, OSError) as error:  # what Dynamo, Inductor and the compilers it calls raise
            log.warning("the denoiser cannot be compiled: %s", _shortened(error))
        else:
            self._ready.add(key)


class Passes:
    """The passes of one denoiser, which replays what can be replayed.

    Args:
        compiler: None leaves passes as they are written.
    """

    def __init__(self, denoiser: MergedDenoiser, compiler: Compiler | None) -> None:
        self._denoiser = denoiser
        self._compiler = compiler
        self._kind: object = None
        self._pass: Pass = denoiser

    def __call__(self, latents: Tensor, timestep: Tensor, text: Tensor, run: BranchPass) -> Tensor:
        """As `MergedDenoiser`'s forward."""
        if run != BranchPass():
            return _run(self._denoiser, latents, timestep, text, run)
        compiled = self._compiler.compiled(self._denoiser, latents, text) if self._compiler is not None else None
        kind = compiled is not None, latents.shape, text.shape
        if kind != self._kind:
            self._kind, self._pass = kind, self._denoiser  # gives back what was recorded before
            self._pass = _recorded(compiled or self._denoiser, latents, timestep, text)
        return self._pass(latents, timestep, text)


def _recorded(compute: Pass, *inputs: Tensor) -> Pass:
    """A replay of `compute`, or where that cannot be recorded, itself."""
    expected = compute(*inputs)
    try:
        replay = _Recording(compute, *inputs)
    except RuntimeError as error:  # memory for a second set of activations, or what must not be recorded
        log.warning("a pass cannot be recorded: %s", _shortened(error))
        return compute
    difference = (replay(*inputs) - expected).norm() / expected.norm()
    if not difference <= REPLAY_TOLERANCE:
        log.warning("a recorded pass differs by %.2g of its norm", float(difference))
        return compute
    return replay


class _Recording:
    """A CUDA graph of a pass, with memory of its own for inputs, activations and output."""

    def __init__(self, compute: Pass, *inputs: Tensor) -> None:
        self._inputs = [each.clone() for each in inputs]
        self._graph = torch.cuda.CUDAGraph()
        # Other threads, such as one that compiles, may go on using the device.
        with torch.cuda.graph(self._graph, capture_error_mode="thread_local"):
            self._output = compute(*self._inputs)

    def __call__(self, *inputs: Tensor) -> Tensor:
        for kept, given in zip(self._inputs, inputs, strict=True):
            kept.copy_(given)
        self._graph.replay()
        return self._output.clone()


def _run(
    denoiser: MergedDenoiser, latents: Tensor, timestep: Tensor, text: Tensor, run: BranchPass | None = None
) -> Tensor:
    output: Tensor = denoiser(latents, timestep, text, run)
    return output


def _shortened(error: Exception) -> str:
    """Without the pages on how to find out more."""
    return " ".join(str(error).split("\n")[:2])


def _structure(denoiser: MergedDenoiser) -> object:
    return tuple((name, tensor.shape, tensor.dtype) for name, tensor in denoiser.named_parameters())
