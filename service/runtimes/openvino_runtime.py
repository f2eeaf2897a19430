"""OpenVINO: the fastest on CPUs (docs/decisions/0007 has ONNX Runtime beside it)."""

from __future__ import annotations

import functools
import sys
import threading
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

# It comes with a package that reports its use to its maker. Where that cannot be imported,
# OpenVINO does without; None here is Python's way to say so.
sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]

import openvino  # noqa: E402
from openvino import properties  # noqa: E402

from model_zoo.generators.conditional import ConditionalGenerator  # noqa: E402
from model_zoo.tiling import statistics_size  # noqa: E402
from service.runtimes.folding import fold  # noqa: E402
from service.runtimes.heap import return_large_blocks  # noqa: E402
from service.runtimes.memory import bytes_to_measure, bytes_to_paint  # noqa: E402
from service.runtimes.openvino_graphs import Graphs  # noqa: E402
from service.runtimes.passes import FramePass, TilePass, WholePass  # noqa: E402
from service.runtimes.spares import CompiledPass, Spares  # noqa: E402
from service.runtimes.torch_runtime import TorchPainter  # noqa: E402
from service.runtimes.work import operations_to_paint  # noqa: E402

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    from model_zoo.layers import Generator
    from model_zoo.tiling import WholeStatistics
    from service.runtimes import Mixes, NormStatistics, Painter

# Largest maps held at once: 1.8 for johnson to 3.1 for texture_net, at 1024 x 1024 px.
_MAPS_AT_ONCE = 3.1

# Each pass uses all threads. Where they are few and layers short, one pass fills what another
# leaves idle at the end of each; else they get in each other's way (docs/decisions/0008).
_PASSES_AT_ONCE = 3
_MOST_THREADS_TO_SHARE = 4
_MOST_OPERATIONS_BESIDE = 15e9

# Kernels are made for each size of picture; by default 5,000 of each style's are kept, which is
# memory that grows for thousands of requests (docs/decisions/0008). A pass has about 30.
_KERNELS_KEPT = 128


@functools.cache
def _core() -> openvino.Core:
    """One for the life of the process.

    Its CPU plugin gives the thread that loads it another stack for signals, and frees that stack
    when the last Core goes, perhaps in another thread: the next signal is then a crash.
    """
    return openvino.Core()


class OpenVinoRuntime:
    """Runs every generator without noise; those with go to torch, whose random numbers they are.

    Args:
        threads: inside one pass; None: all cores.
    """

    name = "openvino"
    device = torch.device("cpu")

    def __init__(self, threads: int | None = None) -> None:
        return_large_blocks()  # of which its maps are most
        self._core = _core()
        self._graphs = Graphs(openvino)
        self._threads = threads or torch.get_num_threads()
        torch.set_num_threads(self._threads)
        shares = 1 < self._threads <= _MOST_THREADS_TO_SHARE
        self.passes_at_once = _PASSES_AT_ONCE if shares else 1
        # Fewer pictures are sooner done one after the other.
        self.crowd = self.passes_at_once + 1
        self._spares = Spares(self.passes_at_once - 1)

    def load(self, generator: Generator, architecture: str) -> Painter:
        """Compile ``generator``."""
        if generator.noise_channels:
            return TorchPainter(generator, self.device)
        compile_pass = functools.partial(self._compile, architecture)
        return OpenVinoPainter(generator, compile_pass, self._spares)

    def _compile(
        self, architecture: str, module: torch.nn.Module, example: tuple[torch.Tensor, ...]
    ) -> Any:
        return self._core.compile_model(
            self._graphs.make(architecture, module, example),
            "CPU",
            {
                properties.hint.performance_mode: properties.hint.PerformanceMode.LATENCY,
                properties.hint.inference_precision: openvino.Type.f32,
                properties.inference_num_threads: self._threads,
                properties.hint.enable_cpu_pinning: False,  # replicas may share the machine
                "CPU_RUNTIME_CACHE_CAPACITY": _KERNELS_KEPT,
            },
        )


class OpenVinoPainter:
    """One generator; see :class:`service.runtimes.Painter`.

    The passes for tiles and for frames are made when they are first needed. Statistics of tiles
    are taken by torch: once a picture, of a sample.
    """

    keeps_memory = True

    def __init__(
        self, generator: Generator, compile_pass: Callable[..., Any], spares: Spares
    ) -> None:
        self.generator = generator
        self._folded = fold(generator)
        self.bytes_to_paint = bytes_to_paint(self._folded, _MAPS_AT_ONCE)
        self.bytes_to_measure = bytes_to_measure(generator)
        self.most_px_beside = _MOST_OPERATIONS_BESIDE / operations_to_paint(self._folded)
        self._in_torch = TorchPainter(generator, torch.device("cpu"))
        self._compile_pass = compile_pass
        self._spares = spares
        self._compiling = threading.Lock()
        self._passes: dict[type[torch.nn.Module], CompiledPass] = {}
        self._pass(WholePass)

    def paint(
        self,
        pixels: NDArray[np.uint8],
        seeds: Sequence[int],  # noqa: ARG002
        mixes: Mixes = None,
    ) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
        painted, finite = self._pass(WholePass).run(pixels, *self._rows(mixes, len(pixels)))
        return painted, finite.astype(np.bool_)

    def measure(
        self, pixels: NDArray[np.uint8], contrast: float, mixes: Mixes = None
    ) -> WholeStatistics:
        return self._in_torch.measure(pixels, contrast, mixes)

    def paint_tile(
        self,
        pixels: NDArray[np.uint8],
        whole: WholeStatistics,
        top: int,
        left: int,
        mixes: Mixes = None,
    ) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
        place = (np.asarray(top, np.int64), np.asarray(left, np.int64))
        statistics_of_whole = (whole.contrast.numpy(), whole.norms.numpy())
        rows = self._rows(mixes, 1)
        painted, finite = self._pass(TilePass).run(pixels, *place, *statistics_of_whole, *rows)
        return painted, finite.astype(np.bool_)

    def paint_frame(
        self,
        pixels: NDArray[np.uint8],
        before: NormStatistics | None,
        memory: float,
        seed: int,  # noqa: ARG002
        mixes: Mixes = None,
    ) -> tuple[NDArray[np.uint8], NDArray[np.bool_], NormStatistics]:
        size = statistics_size(self.generator)
        kept = np.zeros(size, np.float32) if before is None else before
        share = np.full(1, 0.0 if before is None else memory, np.float32)
        inputs = (pixels, share, kept, *self._rows(mixes, 1))
        painted, finite, left = self._pass(FramePass).run(*inputs)
        return painted, finite.astype(np.bool_), left

    def release_memory(self) -> None:
        for compiled in list(self._passes.values()):
            compiled.release_memory()

    def _pass(self, kind: type[torch.nn.Module]) -> CompiledPass:
        """The pass of that kind, which any thread may ask for."""
        if compiled := self._passes.get(kind):
            return compiled
        with self._compiling:
            if kind not in self._passes:
                module = kind(self._folded).eval()
                compile_copy = functools.partial(self._compile_pass, module, self._inputs_of(kind))
                self._passes[kind] = CompiledPass(compile_copy, self._spares)
            return self._passes[kind]

    def _inputs_of(self, kind: type[torch.nn.Module]) -> tuple[torch.Tensor, ...]:
        """Inputs to trace a pass with."""
        if kind is WholePass:
            return (self._example(), *self._mixes_of_own_row(2))
        statistics = (torch.ones(1), torch.ones(statistics_size(self.generator)))
        at = torch.zeros((), dtype=torch.int64)
        place = (at, at) if kind is TilePass else ()
        return (self._example(), *place, *statistics, *self._mixes_of_own_row(1))

    def _example(self) -> torch.Tensor:
        """Pixels to trace with; sides unlike each other, or one could be taken for the other."""
        side = self.generator.minimum_side
        shape = (2, side, side + self.generator.stride, 3)
        return torch.randint(0, 256, shape, dtype=torch.uint8)

    def _mixes_of_own_row(self, pictures: int) -> list[torch.Tensor]:
        if not isinstance(self.generator, ConditionalGenerator):
            return []
        rows = len(self.generator.rows)
        return [torch.eye(rows)[self.generator.style_row].repeat(pictures, 1)]

    def _rows(self, mixes: Mixes, pictures: int) -> list[NDArray[np.float32]]:
        """The input for ``mixes``, which a graph that has it cannot do without."""
        if mixes is not None:
            return [mixes]
        return [own.numpy() for own in self._mixes_of_own_row(pictures)]
