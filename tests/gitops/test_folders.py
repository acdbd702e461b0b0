"""What an application reads and writes lies on a volume of the pods, and what is kept outlives them."""

from typing import Any

import pytest

from gitops import policies
from tests.gitops.conftest import (
    CONFIG,
    DIGEST,
    SERVICE,
    WORKER,
    Changes,
    Refused,
    expect_patch_refused,
    expect_refused,
    expect_taken,
)

BAD: dict[str, Refused] = {
    "a bundle on somebody's machine": (
        CONFIG,
        "model: null",
        f"model: {{name: screw, version: '1', uri: 'file:///home/me/it', sha256: {DIGEST}}}",
        "folder",
        "uri is file:///home/me/it, and in RayService mergeline, group cpu, nothing is there",
    ),
    "windows that end with their pod": (
        CONFIG,
        "      threads: 2\n",
        "      threads: 2\n      windows: /tmp/windows\n",
        "folder",
        "screw: args.windows is /tmp/windows, and in RayService mergeline, head, the volume tmp ends with the pod",
    ),
    "feedback without a volume": (
        CONFIG,
        "      threads: 2\n",
        "      threads: 2\n      feedback: /feedback\n",
        "folder",
        "in RayService mergeline, group cpu, no volume is mounted there: the root file system is read-only",
    ),
    "a cache that cannot be written": (
        CONFIG,
        "      threads: 2\n",
        "      threads: 2\n      cache: /var/cache/bundles\n",
        "folder",
        "args.cache is /var/cache/bundles",
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_a_bad_overlay_is_refused(files: dict[str, str], case: str) -> None:
    expect_refused(files, *BAD[case])


ALLOWED: dict[str, Changes] = {
    "windows in a bucket": {
        SERVICE: [
            (
                "- {name: tmp, mountPath: /tmp}\n    #",
                "- {name: tmp, mountPath: /tmp}\n        - {name: line, mountPath: /line}\n    #",
            ),
            (
                "              emptyDir: {sizeLimit: 8Gi}\n",
                "              emptyDir: {sizeLimit: 8Gi}\n            - {name: line, csi: "
                "{driver: gcsfuse.csi.storage.gke.io, volumeAttributes: {bucketName: line}}}\n",
            ),
        ],
        CONFIG: [("      threads: 2\n", "      threads: 2\n      windows: /line/windows\n")],
    },
}


@pytest.mark.parametrize("case", ALLOWED)
def test_what_is_right_is_not_refused(files: dict[str, str], case: str) -> None:
    expect_taken(files, ALLOWED[case])


@pytest.mark.parametrize(
    ("operation", "key", "words"),
    [
        (f"{{op: remove, path: {WORKER}/containers/0/volumeMounts/0}}", "folder", "Ray writes to /tmp, and no volume"),
    ],
)
def test_a_service_that_breaks_a_policy_is_refused(files: dict[str, str], operation: str, key: str, words: str) -> None:
    expect_patch_refused(files, operation, key, words)


DISK = {"name": "disk", "persistentVolumeClaim": {"claimName": "disk"}}
TMP = {"name": "tmp", "emptyDir": {}}


def _pod(*mounts: Any, volumes: Any = (DISK, TMP), read_only_root: bool = True) -> dict[str, Any]:
    container = {
        "volumeMounts": list(mounts),
        "securityContext": {"readOnlyRootFilesystem": read_only_root},
        "env": [{"name": "HOME", "value": "/home/ray"}],
    }
    return {"containers": [container], "volumes": list(volumes)}


def _folders(
    pod: dict[str, Any], arguments: Any, *, import_path: str = "serve.app:build", **start_params: str
) -> list[str]:
    """What the policy says of an application whose only pod is this one."""
    cluster = {"headGroupSpec": {"rayStartParams": start_params, "template": {"spec": pod}}}
    service = {"kind": "RayService", "metadata": {"name": "a"}, "spec": {"rayClusterConfig": cluster}}
    application = {"name": "screw", "import_path": import_path, "args": arguments}
    found = policies.check([service], {"applications": [application]}, "staging")
    return [finding.reason for finding in found if finding.key == "folder" and "args." in finding.reason]


def _at(path: Any, name: str = "disk", **more: Any) -> dict[str, Any]:
    return {"name": name, "mountPath": path, **more}


@pytest.mark.parametrize(
    ("arguments", "pod", "words"),
    [
        ({"windows": "/data/it"}, _pod(_at("/data")), None),
        ({"windows": "//data/it"}, _pod(_at("/data/")), None),
        ({"windows": "/data/it"}, _pod(_at("/dat")), "no volume is mounted there: the root file system is read-only"),
        ({"windows": "/data/../tmp"}, _pod(_at("/data")), "no volume is mounted there"),
        ({"windows": "~/it"}, _pod(_at("/home/ray")), None),
        ({"windows": "/data/it"}, _pod(_at("/"), _at("/data/", "tmp")), "the volume tmp ends with the pod"),
        ({"windows": "/data/it"}, _pod(_at("/data"), _at("/", "tmp")), None),
        ({"windows": "/data/it"}, _pod(_at("/data", readOnly=True)), "to be read only"),
        ({"windows": "/data/it"}, _pod(_at("/data", "other")), "the volume other ends with the pod"),
        ({"windows": "/data/it"}, _pod(_at("/data"), volumes=[{"name": "disk"}]), "ends with the pod"),
        ({"windows": "/data/it"}, _pod(_at("/data"), volumes=[{"name": "disk", "ephemeral": {}}]), "ends with the pod"),
        ({"windows": "/data/it"}, _pod(read_only_root=False), "no volume is mounted there"),
        ({"cache": "/data/it"}, _pod(read_only_root=False), None),
        ({"cache": "/data/it"}, _pod(_at("/data", "tmp")), None),
        ({"cache": "/data/it"}, _pod(_at("/data"), volumes=[{"name": "disk", "configMap": {}}]), "to be read only"),
        (
            {"cache": "/data/it"},
            _pod(_at("/data"), volumes=[{"name": "disk", "persistentVolumeClaim": {"readOnly": True}}]),
            "to be read only",
        ),
        ({"cache": "beside/it"}, _pod(), None),
        # What other gates refuse is not this one's, and no reason to break off.
        ({"cache": "/data/it"}, _pod(_at(None), {}, "text", volumes=[None]), "no volume is mounted there"),
        (["a"], _pod(), None),
        ("text", _pod(), None),
    ],
)
def test_a_folder_lies_on_the_innermost_volume(arguments: Any, pod: dict[str, Any], words: str | None) -> None:
    found = _folders(pod, arguments)
    assert len(found) == (words is not None)
    assert (words or "") in "".join(found)


def test_only_pods_that_may_run_the_application_need_the_volume() -> None:
    assert _folders(_pod(), {"feedback": "/data"}, **{"num-cpus": "0"}) == []
    assert len(_folders(_pod(), {"feedback": "/data"}, **{"num-cpus": "2"})) == 1
    # The monitor asks for no CPU, and reads what users say.
    assert len(_folders(_pod(), {"feedback": "/data", "windows": "/windows"}, **{"num-cpus": "0"})) == 2
    assert _folders(_pod(), {"feedback": "/data"}, import_path="other:build") == []  # its arguments are its own
