"""Ray Serve with batching: FastAPI as ingress, a deployment with @serve.batch behind it.

No postponed annotations here: FastAPI reads those of the endpoint.
"""

import os
import signal
from typing import Annotated, Any

import numpy as np
import ray
from fastapi import FastAPI, File, Form, Response
from ray import serve

from benchmarks.peers.painting import load_painter, read_picture, write_picture

os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
app = FastAPI()


@serve.deployment(max_ongoing_requests=16, ray_actor_options={"num_cpus": 0})
@serve.ingress(app)
class Stylize:
    """One replica: both ends of HTTP and the model, so that pictures cross no process twice."""

    def __init__(self) -> None:
        """Load the model."""
        self.paint = load_painter()

    @serve.batch(max_batch_size=8, batch_wait_timeout_s=0.005)
    async def paint_together(self, photos: list[np.ndarray]) -> list[np.ndarray]:
        """Paint what arrived together in one pass."""
        return list(self.paint(np.stack(photos)))

    @app.post("/stylize")
    async def stylize(
        self,
        image: Annotated[bytes, File()],
        style: Annotated[str, Form()],  # noqa: ARG002
    ) -> Response:
        """Paint one photograph."""
        painted: Any = await self.paint_together(read_picture(image))
        return Response(write_picture(painted), media_type="image/jpeg")

    @app.get("/livez")
    async def live(self) -> str:
        """Answer once the model is loaded."""
        return "ok"


if __name__ == "__main__":
    ray.init(num_cpus=2, include_dashboard=False, configure_logging=False)
    serve.start(http_options={"host": "127.0.0.1", "port": int(os.environ["PEER_PORT"])})
    serve.run(Stylize.bind())
    signal.sigwait({signal.SIGTERM, signal.SIGINT})
    serve.shutdown()
    ray.shutdown()
