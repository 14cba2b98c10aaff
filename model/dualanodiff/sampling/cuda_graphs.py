"""Runs a merged denoiser's passes on a CUDA device: captured and replayed, and compiled once the compiler is done.

Python takes longer to launch the kernels of a small pass than a GPU to run them, so a pass is captured once as a CUDA
graph and replayed from then on. In a long-running process Inductor first compiles it in another thread, which
takes minutes the first time, much less with its cache on disk. Until then, and if it fails, passes run uncompiled.
Passes that inject backgrounds (BCM) or return attention maps always do.

On CPUs passes run uncompiled: compiling needs a C compiler, takes longer than most jobs, and changes the last bits of
the results.
"""

from __future__ import annotations

import copy
import hashlib
import logging
import threading
import time
from collections.abc import Callable
from weakref import WeakKeyDictionary

import torch
from torch import Tensor

from model.dualanodiff.sampling.loop import Predict
from model.dualanodiff.sampling.merged_unet import MergedUNet
from model.dualanodiff.unet import ForwardOptions, TwoBranchUNet
from model.runtime import switches
from model.runtime.switches import Switch

log = logging.getLogger(__name__)

Pass = Callable[[Tensor, Tensor, Tensor], Tensor]
"""Latents, one timestep and prompt embeddings → prediction, as `MergedUNet`'s."""

REPLAY_TOLERANCE = 0.02
"""Largest relative difference of a replayed pass: above half-precision rounding, below the effect of stale inputs."""

KINDS = 64
"""Most passes that one process compiles, over input shapes, precisions and bases; Dynamo's default is 8."""


def predictor(denoiser: TwoBranchUNet, device: torch.device, compiler: Compiler | None) -> Predict:
    """Choose how a denoiser runs: replayed on a CUDA device if it is merged, otherwise eagerly.

    Args:
        compiler: None leaves passes uncompiled.
    """
    if device.type != "cuda" or not isinstance(denoiser, MergedUNet) or not switches.on(Switch.CUDA_GRAPHS):
        return denoiser
    return CudaGraphRunner(denoiser, compiler if switches.on(Switch.COMPILED) else None)


class Compiler:
    """Compiles passes once per process; one compiled pass serves all adapters of a base.

    Inductor caches compiled code for later processes in the folder that `TORCHINDUCTOR_CACHE_DIR` names.

    Args:
        backend: backend of `torch.compile`.
    """

    def __init__(self, backend: str | Callable[..., object] = "inductor") -> None:
        self._compiled = torch.compile(_run, backend=backend, dynamic=False, fullgraph=True)
        self._threads: dict[object, threading.Thread] = {}
        self._ready: set[object] = set()
        self._structures: WeakKeyDictionary[MergedUNet, str] = WeakKeyDictionary()

    @property
    def busy(self) -> bool:
        """Return whether something is being compiled."""
        return any(thread.is_alive() for thread in self._threads.values())

    def compiled(self, denoiser: MergedUNet, latents: Tensor, text: Tensor) -> Pass | None:
        """Return a denoiser's compiled pass for these input shapes, or start compiling it and return None."""
        if denoiser not in self._structures:
            self._structures[denoiser] = _structure(denoiser)
        key = self._structures[denoiser], latents.shape, text.shape
        if key in self._ready:
            return lambda *inputs: self._compiled(denoiser, *inputs)
        if key not in self._threads:
            # A copy that shares the weights, because this denoiser's router is in use meanwhile.
            weights = {id(tensor): tensor for tensor in (*denoiser.parameters(), *denoiser.buffers())}
            arguments = key, copy.deepcopy(denoiser, weights), _blank(latents, text)
            thread = threading.Thread(target=self._compile, args=arguments, name="compile", daemon=True)
            self._threads[key] = thread
            thread.start()
        return None

    def wait(self, seconds: float | None = None) -> None:
        """Wait until every compilation has ended or failed, or the time is over."""
        due = None if seconds is None else time.monotonic() + seconds
        for thread in list(self._threads.values()):
            thread.join(None if due is None else max(0.0, due - time.monotonic()))

    def _compile(self, key: object, denoiser: MergedUNet, inputs: tuple[Tensor, Tensor, Tensor]) -> None:
        dynamo = torch._dynamo  # noqa: SLF001  its limit and its error have no public names
        try:
            with torch.no_grad(), dynamo.config.patch(recompile_limit=KINDS):
                self._compiled(denoiser, *inputs)
        # Dynamo, Inductor and the C compiler each raise errors of many kinds.
        except (RuntimeError, OSError, dynamo.exc.FailOnRecompileLimitHit) as error:
            log.warning("the denoiser cannot be compiled: %s", _shortened(error))
        else:
            self._ready.add(key)


class CudaGraphRunner:
    """Runs the passes of one denoiser, and replays those that can be captured.

    Args:
        compiler: compiles passes; None leaves them uncompiled.
    """

    def __init__(self, denoiser: MergedUNet, compiler: Compiler | None) -> None:
        self._denoiser = denoiser
        self._compiler = compiler
        self._kind: tuple[bool, torch.Size, torch.Size] | None = None
        self._pass: Pass = denoiser

    @property
    def compiled(self) -> bool:
        """Return whether passes like the last one are compiled."""
        return self._kind is not None and self._kind[0]

    @property
    def captured(self) -> bool:
        """Return whether passes like the last one are replayed."""
        return isinstance(self._pass, _CapturedGraph)

    def __call__(self, latents: Tensor, timestep: Tensor, text: Tensor, run: ForwardOptions) -> Tensor:
        """Compute the same as `MergedUNet.forward`."""
        if run != ForwardOptions():
            return _run(self._denoiser, latents, timestep, text, run)
        compiled = self._compiler.compiled(self._denoiser, latents, text) if self._compiler is not None else None
        kind = compiled is not None, latents.shape, text.shape
        if kind != self._kind:
            # Compiling measures kernels and waits for the whole device, which no thread may do during a capture.
            if self._compiler is not None and self._compiler.busy:
                return (compiled or self._denoiser)(latents, timestep, text)
            self._kind, self._pass = kind, self._denoiser  # frees the graph captured before
            self._pass = capture(compiled or self._denoiser, latents, timestep, text)
        return self._pass(latents, timestep, text)


def capture(compute: Pass, *inputs: Tensor) -> Pass:
    """Capture `compute` and check it with these inputs; returns `compute` itself if it cannot be captured."""
    expected = compute(*inputs)
    try:
        # Captured with other inputs, so that the check detects inputs that are not updated.
        replay = _CapturedGraph(compute, *_blank(inputs[0], inputs[2]))
    except RuntimeError as error:  # no memory for a second set of activations, or an operation that cannot be captured
        log.warning("a pass cannot be captured as a CUDA graph: %s", _shortened(error))
        return compute
    difference = (replay(*inputs) - expected).norm() / expected.norm()
    if not difference <= REPLAY_TOLERANCE:
        log.warning("a captured pass differs by %.2g of its norm, so it is not used", float(difference))
        return compute
    return replay


class _CapturedGraph:
    """A CUDA graph of a pass, with its own memory for inputs, activations and output."""

    def __init__(self, compute: Pass, *inputs: Tensor) -> None:
        self._inputs = inputs
        self._graph = torch.cuda.CUDAGraph()
        stream = torch.cuda.current_stream()
        try:
            # Other threads may use the device meanwhile.
            with torch.cuda.graph(self._graph, capture_error_mode="thread_local"):
                self._output = compute(*self._inputs)
        except RuntimeError:
            torch.cuda.set_stream(stream)  # a failed capture does not restore it
            torch.cuda.synchronize()
            raise

    def __call__(self, *inputs: Tensor) -> Tensor:
        for kept, given in zip(self._inputs, inputs, strict=True):
            kept.copy_(given)
        self._graph.replay()
        return self._output.clone()


def _blank(latents: Tensor, text: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Make zero inputs of these shapes."""
    timestep = torch.zeros((), dtype=torch.long, device=latents.device)
    return torch.zeros_like(latents), timestep, torch.zeros_like(text)


def _run(
    denoiser: MergedUNet, latents: Tensor, timestep: Tensor, text: Tensor, run: ForwardOptions | None = None
) -> Tensor:
    output: Tensor = denoiser(latents, timestep, text, run)
    return output


def _shortened(error: Exception) -> str:
    """Shorten a message by the hints on how to debug it."""
    return " ".join(str(error).split("\n")[:2])


def _structure(denoiser: MergedUNet) -> str:
    """Return a key: the same for all denoisers that one compiled pass serves."""
    parameters = [(name, tensor.shape, tensor.dtype) for name, tensor in denoiser.named_parameters()]
    return hashlib.sha256(repr(parameters).encode()).hexdigest()
