"""A merged denoiser's passes on a CUDA device: recorded and replayed, and compiled as soon as that is done.

Python takes longer to launch the kernels of a small pass than a GPU to run them, so a pass is recorded once as a CUDA
graph and replayed from then on. In a process that lives long Inductor compiles it first, in a thread of its own:
minutes the first time, much less from its cache on disk. Until that is done, and where it fails, passes run as they are
written; so do those that inject backgrounds (BCM) or give their attention maps, always.

On CPUs passes stay as they are written: a compiler would be needed, takes longer than most jobs, and changes the last
bits of what it compiles.
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
"""Of a replayed pass's norm: more than rounding in half precision, less than inputs that are not followed."""

KINDS = 64
"""Of passes that one process compiles: shapes of inputs, precisions, bases. Dynamo's own limit is 8."""


def predictor(denoiser: TwoBranchUNet, device: torch.device, compiler: Compiler | None) -> Predict:
    """Choose how a denoiser runs: replayed on a CUDA device if it is merged, as it is written otherwise.

    Args:
        compiler: None leaves passes uncompiled.
    """
    if device.type != "cuda" or not isinstance(denoiser, MergedUNet) or not switches.on(Switch.CUDA_GRAPHS):
        return denoiser
    return CudaGraphRunner(denoiser, compiler if switches.on(Switch.COMPILED) else None)


class Compiler:
    """Compiles passes for the rest of the process; one compiled pass serves all adapters of a base.

    Inductor keeps what it compiled in the folder that `TORCHINDUCTOR_CACHE_DIR` names, for later processes.

    Args:
        backend: of `torch.compile`.
    """

    def __init__(self, backend: str | Callable[..., object] = "inductor") -> None:
        self._compiled = torch.compile(_run, backend=backend, dynamic=False, fullgraph=True)
        self._threads: dict[object, threading.Thread] = {}
        self._ready: set[object] = set()
        self._structures: WeakKeyDictionary[MergedUNet, str] = WeakKeyDictionary()

    @property
    def busy(self) -> bool:
        """Whether something is being compiled now."""
        return any(thread.is_alive() for thread in self._threads.values())

    def compiled(self, denoiser: MergedUNet, latents: Tensor, text: Tensor) -> Pass | None:
        """The compiled pass of a denoiser for inputs of these shapes; None until there is one, which this begins."""
        if denoiser not in self._structures:
            self._structures[denoiser] = _structure(denoiser)
        key = self._structures[denoiser], latents.shape, text.shape
        if key in self._ready:
            return lambda *inputs: self._compiled(denoiser, *inputs)
        if key not in self._threads:
            # Another structure over the same weights: the router of this one is in use meanwhile.
            weights = {id(tensor): tensor for tensor in (*denoiser.parameters(), *denoiser.buffers())}
            arguments = key, copy.deepcopy(denoiser, weights), _blank(latents, text)
            thread = threading.Thread(target=self._compile, args=arguments, name="compile", daemon=True)
            self._threads[key] = thread
            thread.start()
        return None

    def wait(self, seconds: float | None = None) -> None:
        """Until all that was begun is compiled, or has failed, or the time is over."""
        due = None if seconds is None else time.monotonic() + seconds
        for thread in list(self._threads.values()):
            thread.join(None if due is None else max(0.0, due - time.monotonic()))

    def _compile(self, key: object, denoiser: MergedUNet, inputs: tuple[Tensor, Tensor, Tensor]) -> None:
        dynamo = torch._dynamo  # noqa: SLF001  its limit and its error have no public names
        try:
            with torch.no_grad(), dynamo.config.patch(recompile_limit=KINDS):
                self._compiled(denoiser, *inputs)
        # What Dynamo, Inductor and the compilers that it calls raise.
        except (RuntimeError, OSError, dynamo.exc.FailOnRecompileLimitHit) as error:
            log.warning("the denoiser cannot be compiled: %s", _shortened(error))
        else:
            self._ready.add(key)


class CudaGraphRunner:
    """Runs the passes of one denoiser, and replays those that can be recorded.

    Args:
        compiler: None leaves passes as they are written.
    """

    def __init__(self, denoiser: MergedUNet, compiler: Compiler | None) -> None:
        self._denoiser = denoiser
        self._compiler = compiler
        self._kind: tuple[bool, torch.Size, torch.Size] | None = None
        self._pass: Pass = denoiser

    @property
    def compiled(self) -> bool:
        """Whether passes like the last one are compiled."""
        return self._kind is not None and self._kind[0]

    @property
    def captured(self) -> bool:
        """Whether they are replayed."""
        return isinstance(self._pass, _CapturedGraph)

    def __call__(self, latents: Tensor, timestep: Tensor, text: Tensor, run: ForwardOptions) -> Tensor:
        """As `MergedUNet`'s forward."""
        if run != ForwardOptions():
            return _run(self._denoiser, latents, timestep, text, run)
        compiled = self._compiler.compiled(self._denoiser, latents, text) if self._compiler is not None else None
        kind = compiled is not None, latents.shape, text.shape
        if kind != self._kind:
            # Compiling measures kernels and waits for the whole device, which no thread may do during a recording.
            if self._compiler is not None and self._compiler.busy:
                return (compiled or self._denoiser)(latents, timestep, text)
            self._kind, self._pass = kind, self._denoiser  # gives back what was recorded before
            self._pass = capture(compiled or self._denoiser, latents, timestep, text)
        return self._pass(latents, timestep, text)


def capture(compute: Pass, *inputs: Tensor) -> Pass:
    """A replay of `compute`, checked with these inputs; `compute` itself where it cannot be recorded."""
    expected = compute(*inputs)
    try:
        # From other inputs, so that one that is not followed is seen.
        replay = _CapturedGraph(compute, *_blank(inputs[0], inputs[2]))
    except RuntimeError as error:  # memory for a second set of activations, or what must not be recorded
        log.warning("a pass cannot be recorded: %s", _shortened(error))
        return compute
    difference = (replay(*inputs) - expected).norm() / expected.norm()
    if not difference <= REPLAY_TOLERANCE:
        log.warning("a recorded pass differs by %.2g of its norm", float(difference))
        return compute
    return replay


class _CapturedGraph:
    """A CUDA graph of a pass, with memory of its own for inputs, activations and output."""

    def __init__(self, compute: Pass, *inputs: Tensor) -> None:
        self._inputs = inputs
        self._graph = torch.cuda.CUDAGraph()
        stream = torch.cuda.current_stream()
        try:
            # Other threads may use the device meanwhile.
            with torch.cuda.graph(self._graph, capture_error_mode="thread_local"):
                self._output = compute(*self._inputs)
        except RuntimeError:
            torch.cuda.set_stream(stream)  # which a recording that fails to end does not go back to
            torch.cuda.synchronize()
            raise

    def __call__(self, *inputs: Tensor) -> Tensor:
        for kept, given in zip(self._inputs, inputs, strict=True):
            kept.copy_(given)
        self._graph.replay()
        return self._output.clone()


def _blank(latents: Tensor, text: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Inputs of a pass of these shapes, all zero."""
    timestep = torch.zeros((), dtype=torch.long, device=latents.device)
    return torch.zeros_like(latents), timestep, torch.zeros_like(text)


def _run(
    denoiser: MergedUNet, latents: Tensor, timestep: Tensor, text: Tensor, run: ForwardOptions | None = None
) -> Tensor:
    output: Tensor = denoiser(latents, timestep, text, run)
    return output


def _shortened(error: Exception) -> str:
    """Without the pages on how to find out more."""
    return " ".join(str(error).split("\n")[:2])


def _structure(denoiser: MergedUNet) -> str:
    """The same for all denoisers that one compiled pass serves."""
    parameters = [(name, tensor.shape, tensor.dtype) for name, tensor in denoiser.named_parameters()]
    return hashlib.sha256(repr(parameters).encode()).hexdigest()
