"""Which device trains, and in which precision."""

from __future__ import annotations

import ctypes
import sys
from typing import Literal

import torch

from trainer.errors import TrainerError

Precision = Literal["auto", "fp32", "bf16"]


def choose_device(name: str, local_rank: int = 0) -> torch.device:
    """``auto`` (CUDA where there is one), ``cpu`` or ``cuda``: the GPU number ``local_rank``.

    Raises:
        TrainerError: CUDA was asked for and is not there.
    """
    if name == "cpu" or (name == "auto" and not torch.cuda.is_available()):
        return torch.device("cpu")
    if local_rank >= torch.cuda.device_count():
        raise TrainerError(
            f"--device {name}: {torch.cuda.device_count()} CUDA devices are visible, number "
            f"{local_rank + 1} was asked for; use --device cpu, or fewer processes"
        )
    torch.cuda.set_device(local_rank)
    return torch.device("cuda", local_rank)


def choose_dtype(precision: Precision, device: torch.device) -> torch.dtype:
    """Dtype of the convolutions: bf16 where the device multiplies it natively, else fp32.

    On a GPU of those of the loss network alone; see :class:`trainer.learner.Learner`.

    Gram matrices, normalization statistics and weights stay fp32 either way.
    """
    if precision == "auto":
        native = torch.cuda.is_bf16_supported() if device.type == "cuda" else _cpu_has_bf16()
        return torch.bfloat16 if native else torch.float32
    return torch.bfloat16 if precision == "bf16" else torch.float32


def keep_freed_memory() -> None:
    """Tell glibc to keep freed tensors' memory instead of handing it back after every layer.

    Without this each activation of a step is mapped and zeroed by the kernel anew, which took a
    third of a training step on 2 cores (docs/decisions/0003). Does nothing where there is no glibc.
    """
    if not sys.platform.startswith("linux"):
        return
    try:
        mallopt = ctypes.CDLL("libc.so.6").mallopt
    except (OSError, AttributeError):
        return
    m_trim_threshold, m_mmap_max = -1, -4
    mallopt(m_mmap_max, 0)
    mallopt(m_trim_threshold, 2**31 - 1)


def _cpu_has_bf16() -> bool:
    try:
        with open("/proc/cpuinfo", encoding="ascii", errors="replace") as file:  # noqa: PTH123
            flags = next((line for line in file if line.startswith("flags")), "")
    except OSError:
        return False
    return "avx512_bf16" in flags or "amx_bf16" in flags
