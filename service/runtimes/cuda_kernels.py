"""Kernels for instance normalization on CUDA: bf16 maps, channels last, statistics in fp32.

PyTorch has no instance normalization and no reflection padding for that layout: it turns each map
around before and after, and writes it in fp32 in between. Here a map is read once for its
statistics, then read once and written once, whatever is done to it: normalized, ReLU, added to
another map, padded. NVRTC, which comes with PyTorch, compiles them in a fraction of a second; no
compiler need be installed.
"""

from __future__ import annotations

import ctypes
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor

if TYPE_CHECKING:
    from collections.abc import Sequence

PaddingMode = Literal["reflect", "replicate", "zeros"]

VECTOR = 8
"""Channels that a thread reads at once: 16 bytes."""
_THREADS = 256
_CHUNKS = 64
"""Most blocks that share one picture's statistics; each leaves its sums to be added up in order,
so that the answer is the same each time."""
_MODES: dict[PaddingMode, int] = {"reflect": 0, "replicate": 1, "zeros": 2}

_SOURCE = r"""
struct alignas(16) Vector { unsigned int words[4]; };

__device__ float low(unsigned int word) { return __uint_as_float(word << 16); }
__device__ float high(unsigned int word) { return __uint_as_float(word & 0xffff0000u); }

__device__ unsigned int rounded(float value) {  // to the nearest bf16, ties to even
    unsigned int bits = __float_as_uint(value);
    if ((bits & 0x7fffffffu) > 0x7f800000u) return 0x7fc0u;  // not a number stays none
    return (bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16;
}

__device__ void widen(const Vector& from, float* to) {
    for (int i = 0; i < 4; ++i) {
        to[2 * i] = low(from.words[i]);
        to[2 * i + 1] = high(from.words[i]);
    }
}

// Sums and sums of squares of each channel, less its first pixel, which keeps them small beside
// their difference. Blocks (chunks, pictures); sums is (N, chunks, 2, C).
extern "C" __global__ void sum_channels(
    const Vector* map, float* sums, int pixels, int lanes) {
    extern __shared__ float shared[];
    const int lane = threadIdx.x % lanes, row = threadIdx.x / lanes, rows = blockDim.x / lanes;
    const Vector* picture = map + (size_t)blockIdx.y * pixels * lanes;
    float sum[8] = {}, square[8] = {};
    if (row < rows) {
        float first[8], value[8];
        widen(picture[lane], first);
        for (int pixel = blockIdx.x * rows + row; pixel < pixels; pixel += gridDim.x * rows) {
            widen(picture[(size_t)pixel * lanes + lane], value);
            for (int i = 0; i < 8; ++i) {
                const float difference = value[i] - first[i];
                sum[i] += difference;
                square[i] += difference * difference;
            }
        }
    }
    float* own = shared + threadIdx.x * 17;  // 17, lest all threads meet in one bank
    for (int i = 0; i < 8; ++i) {
        own[i] = sum[i];
        own[8 + i] = square[i];
    }
    __syncthreads();
    float* of_block = sums + ((size_t)blockIdx.y * gridDim.x + blockIdx.x) * 16 * lanes;
    for (int number = threadIdx.x; number < 16 * lanes; number += blockDim.x) {
        const int part = number / 8 / lanes, channel = number % (8 * lanes);
        float total = 0.0f;
        for (int r = 0; r < rows; ++r)
            total += shared[(r * lanes + channel / 8) * 17 + 8 * part + channel % 8];
        of_block[number] = total;
    }
}

// What normalization multiplies and adds, (N, 2, C). Blocks (pictures), a thread a channel.
extern "C" __global__ void find_affine(
    const Vector* map, const float* sums, const float* weight, const float* bias, float* affine,
    int pixels, int chunks, int channels, int stride, float eps) {
    const int channel = threadIdx.x;
    const size_t picture = blockIdx.x;
    float sum = 0.0f, square = 0.0f;
    for (int chunk = 0; chunk < chunks; ++chunk) {
        const float* of_chunk = sums + (picture * chunks + chunk) * 2 * channels;
        sum += of_chunk[channel];
        square += of_chunk[channels + channel];
    }
    const unsigned short* first =
        reinterpret_cast<const unsigned short*>(map) + picture * pixels * channels;
    const float shifted = sum / pixels;
    const float variance = fmaxf(square / pixels - shifted * shifted, 0.0f);
    const float gain = weight[picture * stride + channel] * rsqrtf(variance + eps);
    affine[picture * 2 * channels + channel] = gain;
    affine[(picture * 2 + 1) * channels + channel] =
        bias[picture * stride + channel] - (low(first[channel]) + shifted) * gain;
}

// Where a pixel lies in a map whose squares of phases x phases pixels lie together.
__device__ size_t place(size_t picture, int y, int x, int height, int width, int phases) {
    if (phases == 1) return (picture * height + y) * width + x;
    const size_t row = picture * (height / phases) + y / phases;
    const size_t square = row * (width / phases) + x / phases;
    return (square * phases + y % phases) * phases + x % phases;
}

// map * gain + shift, + other, ReLU, padded; each but the first two if asked for. Blocks (vectors
// of a row, rows, pictures) of the answer. Map and answer may each have their pixels in phases.
extern "C" __global__ void rewrite(
    const Vector* map, const float* affine, const Vector* other, Vector* answer,
    int height, int width, int lanes, int padding, int mode,
    int has_affine, int affine_stride, int has_other, int relu, int phases, int answer_phases) {
    const int column = blockIdx.x * blockDim.x + threadIdx.x;
    if (column >= (width + 2 * padding) * lanes) return;
    const int lane = column % lanes;
    int x = column / lanes - padding, y = (int)blockIdx.y - padding;
    const bool outside = x < 0 || x >= width || y < 0 || y >= height;
    const size_t to = lane + lanes * place(
        blockIdx.z, blockIdx.y, column / lanes, gridDim.y, width + 2 * padding, answer_phases);
    if (outside && mode == 2) {
        answer[to] = Vector{{0u, 0u, 0u, 0u}};
        return;
    }
    if (mode == 0) {
        x = x < 0 ? -x : x >= width ? 2 * width - 2 - x : x;
        y = y < 0 ? -y : y >= height ? 2 * height - 2 - y : y;
    } else {
        x = min(max(x, 0), width - 1);
        y = min(max(y, 0), height - 1);
    }
    const size_t from = lane + lanes * place(blockIdx.z, y, x, height, width, phases);
    if (!has_affine && !has_other && !relu) {
        answer[to] = map[from];
        return;
    }
    float value[8];
    widen(map[from], value);
    if (has_affine) {
        const float* gain = affine + (size_t)blockIdx.z * affine_stride + lane * 8;
        const float* shift = gain + lanes * 8;
        for (int i = 0; i < 8; ++i) value[i] = value[i] * gain[i] + shift[i];
    }
    if (has_other) {
        float added[8];
        widen(other[from], added);
        for (int i = 0; i < 8; ++i) value[i] += added[i];
    }
    Vector packed;
    for (int i = 0; i < 4; ++i) {
        float a = value[2 * i], b = value[2 * i + 1];
        if (relu) {  // written so that what is not a number stays none
            a = a < 0.0f ? 0.0f : a;
            b = b < 0.0f ? 0.0f : b;
        }
        packed.words[i] = rounded(a) | (rounded(b) << 16);
    }
    answer[to] = packed;
}
"""


class KernelsUnavailableError(RuntimeError):
    """They cannot be compiled, loaded or launched on this machine."""


@dataclass(frozen=True, slots=True)
class Kernels:
    """The kernels, loaded on one device. Maps are (N, C, H, W), bf16, channels last, C = 8 n.

    Maps in ``phases``, f, are (N, f f C, H / f, W / f): the pixels of each square of f x f are
    channels, those of one pixel beside each other.
    """

    sum_channels: Any
    find_affine: Any
    rewrite: Any

    def instance_affine(
        self, x: Tensor, weight: Tensor, bias: Tensor, eps: float, *, phases: int = 1
    ) -> Tensor:
        """What instance normalization multiplies and adds.

        Args:
            x: the map.
            weight: fp32, (C,), or (N, C): one for each picture.
            bias: as ``weight``.
            eps: added to the variance.
            phases: those of ``x``.

        Returns:
            fp32, (N, 2, C): gain and shift.
        """
        batch, channels, height, width = _shape_without(phases, x)
        pixels, lanes = height * width, channels // VECTOR
        rows = _THREADS // lanes
        chunks = max(1, min(_CHUNKS, pixels // (4 * rows)))
        sums = x.new_empty((batch, chunks, 2, channels), dtype=torch.float32)
        affine = x.new_empty((batch, 2, channels), dtype=torch.float32)
        weight, bias = weight.contiguous(), bias.contiguous()
        stride = channels if weight.dim() == 2 and len(weight) > 1 else 0
        _launch(
            self.sum_channels,
            (chunks, batch, 1),
            _THREADS,
            (x, sums, pixels, lanes),
            shared_bytes=_THREADS * 17 * 4,
        )
        arguments = (x, sums, weight, bias, affine, pixels, chunks, channels, stride, float(eps))
        _launch(self.find_affine, (batch, 1, 1), channels, arguments)
        return affine

    def rewritten(
        self,
        x: Tensor,
        affine: Tensor | None = None,
        *,
        other: Tensor | None = None,
        relu: bool = False,
        padding: int = 0,
        mode: PaddingMode = "reflect",
        phases: int = 1,
        answer_phases: int = 1,
    ) -> Tensor:
        """``x`` times gain plus shift, plus ``other``, ReLU, padded, each if asked for, in one go.

        Args:
            x: the map.
            affine: fp32, (N, 2, C) or (1, 2, C).
            other: a map to add, as ``x``.
            relu: whether numbers below 0 become 0.
            padding: px at each side, less than H and W where it reflects.
            mode: what is in them.
            phases: those of ``x``.
            answer_phases: those of the answer; its sides are multiples of them.
        """
        batch, channels, height, width = _shape_without(phases, x)
        lanes = channels // VECTOR
        rows, columns = height + 2 * padding, width + 2 * padding
        f = answer_phases
        answer = torch.empty(
            (batch, f * f * channels, rows // f, columns // f),
            dtype=x.dtype,
            device=x.device,
            memory_format=torch.channels_last,
        )
        of_affine = 0 if affine is None or len(affine) == 1 else 2 * channels
        arguments = (
            *(x, x if affine is None else affine, x if other is None else other, answer),
            *(height, width, lanes, padding, _MODES[mode]),
            *(int(affine is not None), of_affine, int(other is not None), int(relu)),
            *(phases, answer_phases),
        )
        grid = (-(-columns * lanes // _THREADS), rows, batch)
        _launch(self.rewrite, grid, _THREADS, arguments)
        return answer


def _shape_without(phases: int, x: Tensor) -> tuple[int, int, int, int]:
    batch, channels, height, width = x.shape
    return batch, channels // phases**2, height * phases, width * phases


def suits(x: Tensor) -> bool:
    """Whether the kernels take ``x``."""
    batch, channels, height, _ = x.shape
    return (
        x.is_cuda
        and x.dtype is torch.bfloat16
        and channels % VECTOR == 0
        and channels <= 1024
        and height < 60000  # a grid's second side, with room for the padding
        and batch < 60000
        and x.is_contiguous(memory_format=torch.channels_last)
    )


@cache
def load_kernels(device: torch.device) -> Kernels:
    """Compile the kernels for ``device`` and load them there.

    Raises:
        KernelsUnavailableError: there is no compiler for them, or they cannot be loaded.
    """
    try:
        from cuda.bindings import driver
    except ImportError as error:
        raise KernelsUnavailableError("the package cuda-bindings is not installed") from error
    torch.ones(1, device=device)  # so that torch's context is there, and the one that is current
    major, minor = torch.cuda.get_device_capability(device)
    binary = compile_kernels(f"sm_{major}{minor}")
    status, module = driver.cuModuleLoadData(binary)
    _check(status, "loading the kernels")
    functions = []
    for name in Kernels.__slots__:
        status, function = driver.cuModuleGetFunction(module, name.encode())
        _check(status, f"finding the kernel {name}")
        functions.append(function)
    return Kernels(*functions)


def compile_kernels(architecture: str) -> bytes:
    """Give the machine code for ``architecture``, like ``sm_90``; needs no GPU.

    Raises:
        KernelsUnavailableError: NVRTC is not there, or does not know the architecture.
    """
    try:
        from cuda.bindings import nvrtc

        status, program = nvrtc.nvrtcCreateProgram(_SOURCE.encode(), b"atelier.cu", 0, None, None)
    except Exception as error:  # whatever the search for a shared library raises
        raise KernelsUnavailableError(f"NVRTC cannot be used: {error}") from error
    _check(status, "creating the program")
    options = [f"--gpu-architecture={architecture}".encode(), b"--std=c++17"]
    (status,) = nvrtc.nvrtcCompileProgram(program, len(options), options)
    if int(status) != 0:
        _, size = nvrtc.nvrtcGetProgramLogSize(program)
        log = b" " * size
        nvrtc.nvrtcGetProgramLog(program, log)
        raise KernelsUnavailableError(f"NVRTC: {log.decode(errors='replace').strip()}")
    status, size = nvrtc.nvrtcGetCUBINSize(program)
    _check(status, "compiling")
    binary: bytes = b" " * size
    (status,) = nvrtc.nvrtcGetCUBIN(program, binary)
    _check(status, "compiling")
    nvrtc.nvrtcDestroyProgram(program)
    return binary


def _launch(
    kernel: Any,
    grid: tuple[int, int, int],
    threads: int,
    arguments: Sequence[Tensor | int | float],
    *,
    shared_bytes: int = 0,
) -> None:
    from cuda.bindings import driver

    values = tuple(a.data_ptr() if isinstance(a, Tensor) else a for a in arguments)
    kinds = tuple(_C_TYPES.get(type(a), ctypes.c_void_p) for a in arguments)
    stream = torch.cuda.current_stream().cuda_stream
    (status,) = driver.cuLaunchKernel(
        kernel, *grid, threads, 1, 1, shared_bytes, stream, (values, kinds), 0
    )
    _check(status, "launching a kernel")


_C_TYPES: dict[type, Any] = {int: ctypes.c_int, float: ctypes.c_float}


def _check(status: Any, doing: str) -> None:
    if int(status) != 0:
        raise KernelsUnavailableError(f"{doing}: {status!r}")
