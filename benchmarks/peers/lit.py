"""LitServe with batching."""

import os
from typing import Any

import litserve
import numpy as np
from fastapi import Request, Response

from benchmarks.peers.painting import load_painter, read_picture, write_picture


class StylizeAPI(litserve.LitAPI):
    """Paints the photographs that arrive together in one pass."""

    def setup(self, device: str) -> None:  # noqa: ARG002
        """Load the model, in the worker."""
        self.paint = load_painter()

    def decode_request(self, request: Request) -> np.ndarray:
        """Decode one photograph."""
        return read_picture(request["image"].file.read())  # type: ignore[index]  # its form

    def batch(self, inputs: list[np.ndarray]) -> np.ndarray:
        """Stack photographs, which this benchmark sends in one size only."""
        return np.stack(inputs)

    def predict(self, x: np.ndarray) -> Any:
        """Paint; without batching LitServe gives one photograph."""
        return self.paint(x if x.ndim == 4 else x[None])

    def unbatch(self, output: np.ndarray) -> list[np.ndarray]:
        """Take paintings apart."""
        return list(output)

    def encode_response(self, output: np.ndarray) -> Response:
        """Encode one painting."""
        return Response(write_picture(output), media_type="image/jpeg")


if __name__ == "__main__":
    api = StylizeAPI(max_batch_size=8, batch_timeout=0.005, api_path="/stylize")
    server = litserve.LitServer(
        api, accelerator="cpu", workers_per_device=1, healthcheck_path="/livez"
    )
    server.run(
        host="127.0.0.1",
        port=int(os.environ["PEER_PORT"]),
        log_level="warning",
        generate_client_file=False,
    )
