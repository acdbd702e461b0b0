"""The image: built from a base that is made here, run as KubeRay runs it, and asked for a judgement.

It needs podman, and as root debootstrap for the base. `MERGELINE_IMAGE_BASE` names a base to build from, where one can
be pulled, and `MERGELINE_IMAGE` an image that is built already.
"""

import json
import os
import secrets
import shutil
import subprocess
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NoReturn

import cv2
import pytest
from packaging.utils import canonicalize_name
from packaging.version import Version
from ruamel.yaml import YAML

from gitops.contracts.serving import ServedModel
from gitops.environment import promote
from tests.bundles import make_bundle
from tests.photographs import screw

ROOT = Path(__file__).parents[1]
BASE, BUILT = "MERGELINE_IMAGE_BASE", "MERGELINE_IMAGE"
# HAProxy wants 10,277 files; where this runs in a container itself, more than its own limits are refused.
LIMITS = ("--ulimit=nofile=16384:16384", "--ulimit=nproc=4096:4096")
DEADLINE_SECONDS = 180

pytestmark = pytest.mark.timeout(3600)


class Podman:
    """The command; what it makes here bears a name of its own and is removed."""

    def __init__(self) -> None:
        # Debian's podman would take crun, which fails where this runs in a container itself.
        self.command = ["podman", *(["--runtime=runc"] if os.geteuid() == 0 and shutil.which("runc") else [])]
        self.name = f"mergeline-test-{secrets.token_hex(4)}"

    def run(self, *arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        done = subprocess.run([*self.command, *arguments], capture_output=True, text=True, check=False, cwd=ROOT)
        assert done.returncode == 0 or not check, f"podman {' '.join(arguments)}\n{done.stdout}{done.stderr}"
        return done

    def inside(self, *command: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        return self.run("exec", self.name, *command, check=check)


def missing(reason: str) -> NoReturn:
    """Skip, unless somebody has named what there is to test: then it is a failure."""
    if BASE in os.environ or BUILT in os.environ:
        pytest.fail(reason)
    pytest.skip(reason)


@pytest.fixture(scope="module")
def podman() -> Iterator[Podman]:
    if not shutil.which("podman"):
        missing("podman is not installed: apt-get install podman runc debootstrap")
    podman = Podman()
    yield podman
    podman.run("rm", "--force", "--ignore", "--time=0", podman.name, check=False)
    podman.run("rmi", "--force", f"{podman.name}-image", f"{podman.name}-base", check=False)


@pytest.fixture(scope="module")
def image(podman: Podman) -> str:
    """The image for CPUs."""
    if BUILT in os.environ:
        return os.environ[BUILT]
    base, image = os.environ.get(BASE, ""), f"{podman.name}-image"
    if not base:
        base = f"{podman.name}-base"
        if not shutil.which("debootstrap") or os.geteuid() != 0:
            missing(f"no base to build from: name one in {BASE}, or be root and apt-get install debootstrap")
        if subprocess.run([ROOT / "tests" / "base_image.sh", base, *podman.command], check=False).returncode:
            missing("no base could be made of Debian's packages; the output says why")
    tried = podman.run("run", "--rm", "--network=host", *LIMITS, base, "true", check=False)
    if tried.returncode:
        missing(f"this machine runs no containers: {tried.stderr.strip()}")
    # In one step: a file system for each would be written, and read again, gigabytes at a time.
    where = ("--layers=false", "--network=host", *LIMITS)
    podman.run("build", *where, f"--build-arg=BASE={base}", f"--tag={image}", ".")
    return image


@pytest.fixture(scope="module")
def head() -> dict[str, Any]:
    """The pod of Ray's head, as the base has it."""
    service = YAML(typ="safe").load(ROOT / "gitops" / "base" / "rayservice.yaml")
    spec: dict[str, Any] = service["spec"]["rayClusterConfig"]["headGroupSpec"]["template"]["spec"]
    return spec


def restricted(pod: dict[str, Any]) -> list[str]:
    """podman's options for a pod's security and the variables of its container."""
    (container,) = pod["containers"]
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert [mount["mountPath"] for mount in container["volumeMounts"]] == ["/tmp"]
    user = f"--user={pod['securityContext']['runAsUser']}:{pod['securityContext']['runAsGroup']}"
    variables = (f"--env={variable['name']}={variable['value']}" for variable in container["env"])
    rights = ("--read-only", "--read-only-tmpfs=false", "--cap-drop=ALL", "--security-opt=no-new-privileges")
    return [user, *rights, "--tmpfs=/tmp:rw,mode=1777,size=6g", *variables]


@pytest.fixture(scope="module")
def pod(podman: Podman, image: str, head: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Podman:
    """A container with Ray's head, as restricted as the base's, which also takes the replicas."""
    folder = tmp_path_factory.mktemp("pod")
    folder.chmod(0o755)
    model = ServedModel(name="screw", version="1", sha256=make_bundle(folder / "bundle"), uri="file:///pod/bundle")
    text = (ROOT / "gitops" / "environments" / "production" / "serve-config.yaml").read_text()
    (folder / "serve-config.yaml").write_text(promote(text, None, model))
    assert cv2.imwrite(str(folder / "part.png"), screw(0))
    subprocess.run(["chmod", "-R", "a+rX", folder], check=True)
    place = ("--shm-size=1g", f"--volume={folder}:/pod:ro", "--network=none")
    token = ("--env=RAY_AUTH_MODE=token", f"--env=RAY_AUTH_TOKEN={secrets.token_hex(32)}")
    start = "ray start --head --block --dashboard-agent-listen-port=52365 --num-cpus=4 --object-store-memory=200000000"
    options = ("--detach", f"--name={podman.name}", *restricted(head), *place, *LIMITS, *token)
    podman.run("run", *options, image, "/bin/bash", "-c", f"ulimit -n 65536; {start}")
    eventually(podman, "serve", "deploy", "/pod/serve-config.yaml")
    return podman


def eventually(pod: Podman, *command: str) -> str:
    """What a command prints when it succeeds at last."""
    deadline = time.monotonic() + DEADLINE_SECONDS
    while (done := pod.inside(*command, check=False)).returncode:
        if time.monotonic() > deadline:
            log = pod.run("logs", pod.name, check=False)
            pytest.fail(f"{command}:\n{done.stdout}{done.stderr}\nthe container said:\n{log.stdout}{log.stderr}")
        time.sleep(1)
    return done.stdout


def test_a_container_judges_a_photograph(pod: Podman) -> None:
    text = eventually(pod, "mergeline", "predict", "--url", "http://127.0.0.1:8000", "/pod/part.png", "--json")
    (answer,) = json.loads(text)
    assert (answer["label"], answer["model_version"], answer["part_found"]) == ("good", "1", True)


def test_it_can_be_watched_as_a_pod_is(pod: Podman) -> None:
    ask = "import sys, urllib.request; print(urllib.request.urlopen(sys.argv[1], timeout=10).read().decode())"
    for url in ("http://127.0.0.1:52365/api/healthz", "http://127.0.0.1:8000/-/healthz"):
        assert "success" in eventually(pod, "python", "-c", ask, url)


def test_nobody_is_root_and_nothing_of_ours_can_be_changed(pod: Podman) -> None:
    assert pod.inside("id", "--user", "--name").stdout.strip() == "mergeline"
    theirs = ("-uid", "1000", "-o", "-gid", "1000", "-o", "-perm", "-o=w")
    assert pod.inside("find", "/opt/mergeline", "-not", "-type", "l", "(", *theirs, ")").stdout == ""


def test_it_trains_with_the_same_entry_points(pod: Podman) -> None:
    code = "import keras, mlflow, ray_jobs.pipeline, ray_jobs.train, tensorflow; print(tensorflow.__version__)"
    assert pod.inside("python", "-c", code).stdout.startswith("2.")


def test_it_holds_what_the_lock_names_and_nothing_to_build_with(pod: Podman) -> None:
    listed = "import importlib.metadata as m; print(*(f'{d.name}=={d.version}' for d in m.distributions()))"
    found = packages(pod.inside("python", "-c", listed).stdout.split())
    locked = packages(
        line.split()[0] for line in (ROOT / "image" / "cpu.lock").read_text().splitlines() if "==" in line
    )
    assert found - locked == packages(["mergeline==0.1.0"])
    assert not locked - found


def test_an_image_holds_the_versions_that_the_tests_run_with() -> None:
    tested = locked_in("requirements.lock")
    assert locked_in("image/cpu.lock") <= tested
    assert locked_in("image/build.lock") <= tested
    only_for_gpus = {name for name, _ in locked_in("image/gpu.lock") - tested}
    assert {name for name in only_for_gpus if not name.startswith("nvidia-")} == {"tensorflow"}


def locked_in(file: str) -> set[tuple[str, Version]]:
    """The packages of a lock."""
    return packages(line.split()[0] for line in (ROOT / file).read_text().splitlines() if line[:1].isalnum())


def packages(lines: Iterable[str]) -> set[tuple[str, Version]]:
    """Names and versions as installers compare them."""
    return {
        (canonicalize_name(name), Version(version)) for name, _, version in (line.partition("==") for line in lines)
    }
