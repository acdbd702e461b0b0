"""Images by digest, code from the image, limits, tokens, and Serve's ports."""

import pytest

from gitops import policies
from tests.gitops.conftest import (
    CONFIG,
    DIGEST,
    GATEWAY,
    LIMITED,
    OVERLAY,
    SERVICE,
    WORKER,
    Changes,
    Refused,
    expect_patch_refused,
    expect_refused,
    expect_taken,
    refusals,
)

IMAGE = f"    newName: registry.example.com/mergeline\n    digest: sha256:{DIGEST}"

BAD: dict[str, Refused] = {
    "latest": (OVERLAY, f"digest: sha256:{DIGEST}", "newTag: latest", "image", "mergeline:latest is `latest`"),
    "no tag": (OVERLAY, IMAGE, "    newName: registry.example.com/mergeline", "image", "mergeline is `latest`"),
    "no digest": (OVERLAY, f"digest: sha256:{DIGEST}", "newTag: 1.2.0", "image", "mergeline:1.2.0 has no digest"),
    "the placeholder": (OVERLAY, DIGEST, policies.NO_DIGEST, "image", "the digest that stands for none yet"),
    "working_dir": (
        CONFIG,
        "    import_path: serve.app:build\n",
        "    import_path: serve.app:build\n    runtime_env: {working_dir: https://example.com/code.zip}\n",
        "working-dir",
        "applications.0.runtime_env: `working_dir` wins over the code in the image",
    ),
    "no limits": (
        SERVICE,
        '                limits: {cpu: "2", memory: 4Gi, ephemeral-storage: 12Gi}\n',
        "                limits: {memory: 4Gi}\n",
        "limits",
        "container ray-head has no limit of cpu",
    ),
    "loopback": (CONFIG, "host: 0.0.0.0", "host: 127.0.0.1", "http", "Serve would listen on 127.0.0.1"),
    "another loopback": (CONFIG, "host: 0.0.0.0", 'host: "::1"', "http", "Serve would listen on ::1"),
    "a proxy where nobody asks": (CONFIG, "proxy_location: EveryNode", "proxy_location: HeadOnly", "http", "HeadOnly"),
    "another port": (CONFIG, "port: 8000", "port: 8001", "http", "http_options.port is 8001"),
    "another port of gRPC": (CONFIG, "port: 9000", "port: 9001", "http", "grpc_options.port is 9001"),
    "a worker's other port": (
        SERVICE,
        "                  - {name: serve, containerPort: 8000, protocol: TCP}",
        "                  - {name: serve, containerPort: 8001, protocol: TCP}",
        "http",
        "the port `serve` of RayService mergeline, group cpu, another one: 8001",
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_a_bad_overlay_is_refused(files: dict[str, str], case: str) -> None:
    expect_refused(files, *BAD[case])


ALLOWED: dict[str, Changes] = {
    "another port everywhere": {
        CONFIG: [("port: 8000", "port: 8080")],
        SERVICE: [("containerPort: 8000", "containerPort: 8080")],
        GATEWAY: [("port: 8000", "port: 8080")],
    },
}


@pytest.mark.parametrize("case", ALLOWED)
def test_what_is_right_is_not_refused(files: dict[str, str], case: str) -> None:
    expect_taken(files, ALLOWED[case])


@pytest.mark.parametrize(
    ("operation", "key", "words"),
    [
        (f"{{op: remove, path: {WORKER}/containers/0/image}}", "image", "container ray-worker has no image"),
        (f'{{op: replace, path: {WORKER}/containers/0/image, value: ""}}', "image", "ray-worker has no image"),
        (
            f'{{op: replace, path: {WORKER}/containers/0/image, value: "https://r/m @sha256:{DIGEST}"}}',
            "image",
            "is no reference of an image",
        ),
        (
            f'{{op: replace, path: {WORKER}/containers/0/image, value: "R/M@sha256:{DIGEST}"}}',
            "image",
            "is no reference of an image",
        ),
        (
            f"{{op: add, path: {WORKER}/volumes/-, value: {{name: a, image: {{reference: 'q.io/m:latest'}}}}}}",
            "image",
            "the image q.io/m:latest is `latest`",
        ),
        (
            f"{{op: add, path: {WORKER}/initContainers, value: [{{name: a, image: 'b:1', {LIMITED}}}]}}",
            "image",
            "the image b:1 has no digest",
        ),
        (f'{{op: replace, path: {WORKER}/containers/0/resources/limits/memory, value: "0"}}', "limits", "of memory"),
        (
            f"{{op: replace, path: {WORKER}/containers/0/resources/limits/memory, value: 1Gi}}",
            "limits",
            "requests 4Gi of memory, and its limit is 1Gi",
        ),
        (f"{{op: replace, path: {WORKER}/containers/0/resources/limits/cpu, value: 1500m}}", "limits", "is 1500m"),
        ("{op: remove, path: /spec/rayClusterConfig/authOptions}", "token", "authOptions.mode is not `token`"),
        ("{op: replace, path: /spec/rayClusterConfig/authOptions/mode, value: disabled}", "token", "is not `token`"),
        (f"{{op: replace, path: {WORKER}/automountServiceAccountToken, value: true}}", "pod-security", "has a token"),
        (
            f"{{op: add, path: {WORKER}/volumes/-, value: "
            "{name: a, projected: {sources: [{serviceAccountToken: {path: token}}]}}}",
            "pod-security",
            "has a token",
        ),
        (
            "{op: replace, path: /spec/rayClusterConfig/autoscalerOptions/resources, value: {limits: {memory: 1Gi}}}",
            "limits",
            "container autoscaler has no limit of cpu",
        ),
        (f"{{op: replace, path: {WORKER}/containers/0/resources/limits/memory, value: 8000m}}", "limits", "8 bytes"),
    ],
)
def test_a_service_that_breaks_a_policy_is_refused(files: dict[str, str], operation: str, key: str, words: str) -> None:
    expect_patch_refused(files, operation, key, words)


@pytest.mark.parametrize(
    ("image", "said"),
    [
        ("registry:5000/a", "`latest`"),
        ("registry:5000/a:latest", "`latest`"),
        (f"a:latest@sha256:{DIGEST}", "`latest`"),
        ("registry:5000/a:1.2", "no digest"),
        ("a@sha256:abc", "no digest"),
        (f"a@sha256:{policies.NO_DIGEST}", "stands for none"),
        (f"registry:5000/a:1.2@sha256:{DIGEST}", ""),
        (f"registry:5000/a@sha256:{DIGEST}", ""),
    ],
)
def test_an_image_is_named_by_digest(image: str, said: str) -> None:
    found = policies.refusals([{"kind": "RayCluster", "metadata": {"name": "a"}, "spec": {"image": image}}])
    assert [said in finding.reason for finding in found] == ([True] if said else [])


@pytest.mark.parametrize(
    "runtime",
    [
        "{py_modules: ['https://example.com/a.zip']}",
        "{pip: [requests]}",
        "{uv: [requests]}",
        "{conda: {dependencies: [pip]}}",
        "{py_executable: uv run}",
        "{worker_process_setup_hook: a.b}",
        "{image_uri: 'rayproject/ray:latest'}",
        "{container: {image: 'rayproject/ray:latest'}}",
        "{env_vars: {PYTHONPATH: /tmp}}",
    ],
)
def test_code_comes_from_the_image(files: dict[str, str], runtime: str) -> None:
    for line in ("    import_path: serve.app:build\n", "          num_cpus: 2\n"):
        indent = line[: len(line) - len(line.lstrip())]
        text = files[CONFIG].replace(line, f"{line}{indent}runtime_env: {runtime}\n")
        assert "working-dir" in {finding.key for finding in refusals(files | {CONFIG: text})}
        harmless = files[CONFIG].replace(line, f"{line}{indent}runtime_env: {{env_vars: {{OMP_NUM_THREADS: '2'}}}}\n")
        assert refusals(files | {CONFIG: harmless}) == []


@pytest.mark.parametrize(("text", "count"), [("pip: [a]", 1), ("env_vars: {A: b}", 0), ("a: [", 1)])
def test_a_job_s_code_comes_from_the_image_too(text: str, count: int) -> None:
    job = {"kind": "RayJob", "metadata": {"name": "a"}, "spec": {"runtimeEnvYAML": text}}
    for item in (job, {"kind": "RayCronJob", "metadata": {"name": "a"}, "spec": {"jobTemplate": job["spec"]}}):
        found = [one for one in policies.check([item], {}, "production") if one.key == "working-dir"]
        assert len(found) == count
        assert policies.check([item], {}, "staging")[0].key != "working-dir"


def test_staging_may_try_code_that_is_in_no_image(files: dict[str, str]) -> None:
    _, old, new, _, _ = BAD["working_dir"]
    path = "gitops/environments/staging/serve-config.yaml"
    assert refusals(files | {path: files[path].replace(old, new)}, "staging") == []


def test_an_environment_of_another_name_is_judged_as_strictly_as_production(files: dict[str, str]) -> None:
    moved = {
        path.replace("environments/production", "environments/hall-2"): text.replace(
            "mergeline-production", "mergeline-hall-2"
        )
        for path, text in files.items()
        if path in (OVERLAY, CONFIG)
    }
    assert refusals(files | moved, "hall-2") == []
    _, old, new, _, _ = BAD["working_dir"]
    path = CONFIG.replace("production", "hall-2")
    assert [found.key for found in refusals(files | moved | {path: files[CONFIG].replace(old, new)}, "hall-2")] == [
        "working-dir"
    ]
