"""FastAPI behind uvicorn with a worker a core; the work is done in its thread pool.

https://fastapi.tiangolo.com/deployment/server-workers/ and /async/: what takes long is not awaited.
"""

from typing import Any

from fastapi import FastAPI, Request
from fastapi.concurrency import run_in_threadpool

from benchmarks.peers import judging

app = FastAPI()
predictor = judging.load()


@app.post("/predict")
async def predict(request: Request) -> dict[str, Any]:
    return await run_in_threadpool(judging.judge, predictor, await request.body())
