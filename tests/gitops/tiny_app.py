"""A Serve application that keeps the serving contract without any model: the reconciler's tests deploy it."""

import asyncio
import json
from pathlib import Path
from typing import Any
from urllib.parse import urlparse

from ray import serve
from ray.serve import Application
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

READY_PATH, PREDICT_PATH = "/v2/health/ready", "/predict"


@serve.deployment(
    max_ongoing_requests=20, graceful_shutdown_timeout_s=0.1, max_surge_percent=100, max_constructor_retry_count=3
)
class Tiny:
    """Answers with the score that the bundle's behaviour.json states."""

    def __init__(self, refuse: str | None = None) -> None:
        if refuse:
            raise RuntimeError(refuse)
        self.model: dict[str, Any] | None = None
        self.wanted: dict[str, Any] | None = None
        self.load_error: str | None = None
        self.score = 0.0

    async def reconfigure(self, config: dict[str, Any]) -> None:
        self.wanted, self.load_error = config.get("model"), None
        if self.wanted is None:
            self.model = None
            return
        behaviour = json.loads((Path(urlparse(self.wanted["uri"]).path) / "behaviour.json").read_text())
        await asyncio.sleep(behaviour.get("seconds", 0))
        if behaviour.get("broken"):
            self.load_error = "the engine file is not one"
        else:
            self.model, self.score = self.wanted, behaviour["answers"]

    async def __call__(self, request: Request) -> Response:
        path = request.url.path.removeprefix(request.scope.get("root_path", ""))
        if path == PREDICT_PATH:
            return self._predict(await request.body())
        if path == READY_PATH:
            return Response(status_code=200 if self.model else 503)
        return JSONResponse(self._metadata(path.rpartition("/")[2]))

    def _predict(self, image: bytes) -> Response:
        if self.model is None or not image:
            return JSONResponse({"reason": "no model, or no image"}, 503)
        return JSONResponse(
            {
                "label": "good",
                "score": self.score,
                "model_name": self.model["name"],
                "model_version": self.model["version"],
                "model_digest": f"sha256:{self.model['sha256']}",
            }
        )

    def _metadata(self, name: str) -> dict[str, Any]:
        model, wanted = self.model or {}, self.wanted
        return {
            "name": name,
            "versions": [model["version"]] if model else [],
            "platform": "tiny",
            "inputs": [],
            "outputs": [],
            "version": model.get("version"),
            "sha256": model.get("sha256"),
            "replica": serve.get_replica_context().replica_id.unique_id,
            "wanted": {"version": wanted["version"], "sha256": wanted["sha256"]} if wanted else None,
            "load_error": self.load_error,
            "trial": None,
        }


def build(args: dict[str, Any]) -> Application:
    """The application; `fail` makes its builder raise, and so does a file `fail_if`; `refuse` its constructor."""
    if args.get("fail"):
        raise RuntimeError(args["fail"])
    if args.get("fail_if") and Path(args["fail_if"]).exists():
        raise RuntimeError(f"there is a file {args['fail_if']}")
    return Tiny.bind(args.get("refuse"))  # type: ignore[attr-defined, no-any-return]
