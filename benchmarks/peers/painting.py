"""What every peer does alike: its model, and pictures in and out."""

from __future__ import annotations

import io
import os
import threading
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from PIL import Image

from model_zoo.cards import Manifest
from model_zoo.checkpoints import load_generator

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    Paint = Callable[[NDArray[np.uint8]], NDArray[np.uint8]]

OURS = "ours"


def load_painter() -> Paint:
    """Give what paints uint8 (N, H, W, 3), by the environment that ``benchmarks.peers`` sets.

    PEER_ZOO and PEER_STYLE say what; PEER_RUNTIME=ours gives the peer our runtime instead of eager
    torch; PEER_THREADS are those inside a pass.
    """
    manifest = Manifest.read(Path(os.environ["PEER_ZOO"]))
    card = manifest.card(os.environ["PEER_STYLE"])
    threads = int(os.environ["PEER_THREADS"])
    generator = load_generator(manifest.weights_path(card), card.generator, card.arguments)
    if os.environ["PEER_RUNTIME"] == OURS:
        from service.runtimes import create_runtime

        runtime = create_runtime("auto", torch.device("cpu"), threads)
        painter = runtime.load(generator, "peer")
        at_once = threading.Semaphore(runtime.passes_at_once)  # as in the service

        def paint_ours(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
            with at_once:
                return painter.paint(pixels, [0] * len(pixels))[0]

        return paint_ours
    torch.set_num_threads(threads)

    @torch.inference_mode()
    def paint(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
        photos = torch.from_numpy(pixels).permute(0, 3, 1, 2) / 255
        painted = (generator(photos).clamp(0, 1) * 255).round().to(torch.uint8)
        array: NDArray[np.uint8] = painted.permute(0, 2, 3, 1).numpy()
        return array

    return paint


def read_picture(data: bytes) -> NDArray[np.uint8]:
    """Decode a photograph, uint8 (H, W, 3)."""
    return np.array(Image.open(io.BytesIO(data)).convert("RGB"))


def write_picture(pixels: NDArray[np.uint8]) -> bytes:
    """Encode a painting as the service does."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "jpeg", quality=90, subsampling="4:4:4")
    return buffer.getvalue()
