"""The client of Ray Serve's REST API: what runs on a cluster, and the one way to change it."""

import os
import ssl
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

import httpx
from pydantic import ConfigDict, Field

from gitops.contracts.base import Contract
from gitops.environment import DEFAULT_GRPC_PORT
from gitops.errors import ContractError, StalledError, WaitingError

ANY_INTERFACE = ("0.0.0.0", "::", "")  # noqa: S104  (compared with, not bound to)
_LOOK_SECONDS = 60.0  # the first question makes the dashboard import Ray Serve: seconds, on a busy machine many
_CONNECT_SECONDS = 5.0
_PUT_SECONDS = 120.0  # the first PUT starts Serve's controller and proxy before it answers
_APPLICATIONS = "/api/serve/applications/"
_T = TypeVar("_T", bound=Contract)


class Foreign(Contract):
    """Base of what others answer: the fields that we read; further ones may come with their next release."""

    model_config = ConfigDict(extra="ignore")


class Replica(Foreign):
    """A process of a deployment."""

    replica_id: str
    state: str = Field(description="STARTING, UPDATING, RECOVERING, RUNNING, STOPPING …")


class Deployment(Foreign):
    """A deployment as it is."""

    name: str
    status: str = Field(description="UPDATING, HEALTHY, UNHEALTHY, DEPLOY_FAILED, UPSCALING, DOWNSCALING.")
    message: str = ""
    target_num_replicas: int = 0
    replicas: tuple[Replica, ...] = ()

    @property
    def running(self) -> frozenset[str]:
        """Ids of the replicas that requests may reach."""
        return frozenset(replica.replica_id for replica in self.replicas if replica.state == "RUNNING")


class Application(Foreign):
    """An application as it is."""

    name: str
    route_prefix: str | None = None
    status: str = Field(description="NOT_STARTED, DEPLOYING, DEPLOY_FAILED, RUNNING, UNHEALTHY, DELETING.")
    message: str = ""
    source: str = Field(default="declarative", description="imperative: put there by serve.run(), not by a config.")
    deployed_app_config: dict[str, Any] | None = Field(
        default=None, description="The configuration that was put, without defaults; None before its first checkpoint."
    )
    deployments: dict[str, Deployment] = Field(default={})


class HttpOptions(Foreign):
    """Where Serve listens."""

    host: str = "127.0.0.1"
    port: int = 8000


class GrpcOptions(Foreign):
    """Where Serve listens for gRPC, if it does."""

    port: int = DEFAULT_GRPC_PORT
    grpc_servicer_functions: tuple[str, ...] = Field(default=(), description="Empty: it does not.")


class ServeDetails(Foreign):
    """All that runs on a cluster."""

    applications: dict[str, Application] = Field(default={})
    http_options: HttpOptions | None = Field(default=None, description="None: Serve has not been started.")
    grpc_options: GrpcOptions | None = None
    target_capacity: float | None = None

    @property
    def living(self) -> dict[str, Application]:
        """The applications that are not on their way out."""
        return {name: app for name, app in self.applications.items() if app.status != "DELETING"}


class _RayVersion(Foreign):
    session_name: str


@cache
def tls() -> ssl.SSLContext:
    """What connections are verified with: to read the certificates takes 20 ms, more than all else of a request."""
    return httpx.create_ssl_context(trust_env=False)


class ServeApi:
    """Ray Serve's REST API at a dashboard's address; each call is one request.

    Raises:
        WaitingError: the address doesn't answer, or the cluster is not ready.
        StalledError: the request is refused: a wrong token, or a configuration that Serve does not take.
    """

    def __init__(self, dashboard_url: str, token: str | None = None) -> None:
        self.url = dashboard_url.rstrip("/")
        self._headers = {"Authorization": f"Bearer {token}"} if token else {}

    def session(self) -> str:
        """Ray's name of the cluster's life: another one after each restart."""
        return self._parsed(_RayVersion, self._request("GET", "/api/ray/version", _LOOK_SECONDS)).session_name

    def applications(self) -> ServeDetails:
        """What runs now."""
        return self._parsed(ServeDetails, self._request("GET", _APPLICATIONS, _LOOK_SECONDS))

    def put(self, config: Mapping[str, Any]) -> None:
        """Make `config` what Serve works towards; applications that it leaves out are deleted."""
        self._request("PUT", _APPLICATIONS, _PUT_SECONDS, config)

    def _request(self, method: str, path: str, timeout: float, body: Mapping[str, Any] | None = None) -> httpx.Response:
        try:
            # No proxy of the environment: it is meant for the internet, and the cluster is ours.
            limits = httpx.Timeout(timeout, connect=_CONNECT_SECONDS)
            options: dict[str, Any] = {"headers": self._headers, "timeout": limits, "trust_env": False}
            with httpx.Client(base_url=self.url, verify=tls(), **options) as client:
                response = client.request(method, path, json=body)
        except (httpx.InvalidURL, httpx.UnsupportedProtocol) as error:
            raise StalledError(f"{self.url} is not an address: {error}. Give one like http://127.0.0.1:8265") from error
        except httpx.HTTPError as error:
            reason = str(error) or type(error).__name__
            raise WaitingError(
                f"Ray's dashboard at {self.url} does not answer ({reason}); is the cluster up? `mergeline up` starts "
                "one here"
            ) from error
        if response.is_success:
            return response
        raise self._refusal(method, response)

    def _refusal(self, method: str, response: httpx.Response) -> StalledError | WaitingError:
        text = response.text.strip()
        code = response.status_code
        if code in (httpx.codes.UNAUTHORIZED, httpx.codes.FORBIDDEN):
            return StalledError(
                f"Ray at {self.url} refuses the token ({code}: {text}); "
                "set RAY_AUTH_TOKEN, or RAY_AUTH_TOKEN_PATH to the file that holds it"
            )
        if response.is_client_error:
            return StalledError(f"Ray Serve at {self.url} refuses the {method} ({code}): {text}")
        return WaitingError(f"Ray at {self.url} cannot do the {method} now ({code}): {text}")

    def _parsed(self, kind: type[_T], response: httpx.Response) -> _T:
        try:
            return kind.parse(response.json(), f"the answer of {response.url}")
        except (ValueError, ContractError) as error:
            raise StalledError(f"{response.url} does not answer like Ray's dashboard: {error}") from error


def ray_token(environment: Mapping[str, str] = os.environ) -> str | None:
    """The token of Ray's authentication, looked for where Ray looks: variable, file named by a variable, home.

    Raises:
        StalledError: RAY_AUTH_TOKEN_PATH names a file that cannot be read.
    """
    if environment.get("RAY_AUTH_TOKEN"):
        return environment["RAY_AUTH_TOKEN"]
    named = environment.get("RAY_AUTH_TOKEN_PATH")
    file = Path(named).expanduser() if named else Path("~/.ray/auth_token").expanduser()
    if not named and not file.is_file():
        return None
    try:
        return file.read_text().strip() or None
    except OSError as error:
        raise StalledError(f"cannot read Ray's token from {file}: {error.strerror}") from error
