"""FastAPI and a model, as most would begin.

No postponed annotations here: FastAPI reads those of the endpoint.
"""

import os
from typing import Annotated

import uvicorn
from fastapi import FastAPI, File, Form, Response

from benchmarks.peers.painting import load_painter, read_picture, write_picture

app = FastAPI()
paint = load_painter()


# A plain def: FastAPI runs it on its thread pool, as its guide advises for work that blocks.
@app.post("/stylize")
def stylize(image: Annotated[bytes, File()], style: Annotated[str, Form()]) -> Response:  # noqa: ARG001
    """Paint one photograph."""
    painted = paint(read_picture(image)[None])[0]
    return Response(write_picture(painted), media_type="image/jpeg")


@app.get("/livez")
def live() -> str:
    """Answer once the model is loaded."""
    return "ok"


if __name__ == "__main__":
    uvicorn.run(app, port=int(os.environ["PEER_PORT"]), log_level="warning")
