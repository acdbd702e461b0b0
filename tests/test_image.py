"""The image: built from a base that is made here, run as KubeRay runs it, and asked for a judgement.

It needs podman, and as root debootstrap for the base; `MERGELINE_IMAGE_BASE` names a base to build from, where one can
be pulled.
"""

import json
import os
import secrets
import shutil
import subprocess
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

import cv2
import pytest
from packaging.utils import canonicalize_name
from packaging.version import Version
from ruamel.yaml import YAML

from gitops.environment import promote
from gitops.manifest import ServedModel
from tests.bundles import make_bundle
from tests.photographs import screw

ROOT = Path(__file__).parents[1]
BASE = "MERGELINE_IMAGE_BASE"
# HAProxy wants 10,277 files; where this runs in a container itself, more than its own limits are refused.
LIMITS = ("--ulimit=nofile=16384:16384", "--ulimit=nproc=4096:4096")
DEADLINE_SECONDS = 180

pytestmark = pytest.mark.timeout(3600)


class Podman:
    """The command; what it makes here bears a name of its own and is removed."""

    def __init__(self) -> None:
        # Debian's podman would take crun, which fails where the kernel lets a container set nothing about itself.
        self.command = ["podman", *(["--runtime=runc"] if shutil.which("runc") else [])]
        self.name = f"mergeline-test-{secrets.token_hex(4)}"

    def run(self, *arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        done = subprocess.run([*self.command, *arguments], capture_output=True, text=True, check=False, cwd=ROOT)
        assert done.returncode == 0 or not check, f"podman {' '.join(arguments)}\n{done.stdout}{done.stderr}"
        return done

    def inside(self, *command: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        return self.run("exec", self.name, *command, check=check)


@pytest.fixture(scope="module")
def podman() -> Iterator[Podman]:
    if not shutil.which("podman"):
        pytest.skip("podman is not installed: apt-get install podman runc debootstrap")
    podman = Podman()
    yield podman
    podman.run("rm", "--force", "--ignore", "--time=0", podman.name, check=False)
    podman.run("rmi", "--force", f"{podman.name}-image", f"{podman.name}-base", check=False)


@pytest.fixture(scope="module")
def image(podman: Podman) -> str:
    """The image for CPUs."""
    base, image = os.environ.get(BASE, ""), f"{podman.name}-image"
    if not base:
        if not shutil.which("debootstrap") or os.geteuid() != 0:
            pytest.skip(f"no base to build from: name one in {BASE}, or be root and apt-get install debootstrap")
        base = f"{podman.name}-base"
        subprocess.run([ROOT / "tests" / "base_image.sh", base, *podman.command], check=True)
    tried = podman.run("run", "--rm", "--network=host", *LIMITS, base, "true", check=False)
    if tried.returncode:
        pytest.skip(f"this machine runs no containers: {tried.stderr.strip()}")
    # In one step: a file system for each would be written, and read again, gigabytes at a time.
    where = ("--layers=false", "--network=host", *LIMITS)
    podman.run("build", *where, f"--build-arg=BASE={base}", f"--tag={image}", ".")
    return image


def settings() -> list[str]:
    """The variables that the pods have, as options."""
    service = YAML(typ="safe").load(ROOT / "gitops" / "base" / "rayservice.yaml")
    (container,) = service["spec"]["rayClusterConfig"]["headGroupSpec"]["template"]["spec"]["containers"]
    return [f"--env={variable['name']}={variable['value']}" for variable in container["env"]]


@pytest.fixture(scope="module")
def pod(podman: Podman, image: str, tmp_path_factory: pytest.TempPathFactory) -> Podman:
    """A container with Ray's head, as restricted as a pod of the base is."""
    folder = tmp_path_factory.mktemp("pod")
    folder.chmod(0o755)
    model = ServedModel(name="screw", version="1", sha256=make_bundle(folder / "bundle"), uri="file:///pod/bundle")
    text = (ROOT / "gitops" / "environments" / "production" / "serve-config.yaml").read_text()
    (folder / "serve-config.yaml").write_text(promote(text, None, model))
    assert cv2.imwrite(str(folder / "part.png"), screw(0))
    subprocess.run(["chmod", "-R", "a+rX", folder], check=True)
    restricted = ("--read-only", "--read-only-tmpfs=false", "--cap-drop=ALL", "--security-opt=no-new-privileges")
    space = ("--tmpfs=/tmp:rw,mode=1777,size=6g", "--shm-size=1g", f"--volume={folder}:/pod:ro", "--network=none")
    token = ("--env=RAY_AUTH_MODE=token", f"--env=RAY_AUTH_TOKEN={secrets.token_hex(32)}")
    start = "ray start --head --block --dashboard-agent-listen-port=52365 --num-cpus=4 --object-store-memory=200000000"
    options = ("--detach", f"--name={podman.name}", *restricted, *space, *LIMITS, *token, *settings())
    podman.run("run", *options, image, "/bin/bash", "-c", start)
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


def test_nobody_is_root_and_nothing_but_tmp_can_be_written(pod: Podman) -> None:
    assert pod.inside("id", "--user", "--name").stdout.strip() == "mergeline"
    for place in ("/opt/mergeline/x", "/x", "/etc/x"):
        assert "Read-only file system" in pod.inside("touch", place, check=False).stderr


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
