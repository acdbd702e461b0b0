"""Secrets in clear are found by names and by values, and what only refers to one is none."""

from typing import Any

import pytest

from gitops import clear_text, policies
from tests.gitops.conftest import (
    ARGO,
    ARGO_OPERATORS,
    CONFIG,
    OTHER,
    SERVICE,
    WORKER,
    Changes,
    Refused,
    expect_patch_refused,
    expect_refused,
    expect_taken,
    refusals,
    with_object,
)

BAD: dict[str, Refused] = {
    "a token in clear": (
        SERVICE,
        '{name: RAY_USAGE_STATS_ENABLED, value: "0"}',
        '{name: RAY_AUTH_TOKEN, value: "s3cr3t"}',
        "secret",
        "RAY_AUTH_TOKEN stands there in clear",
    ),
    "a key in the Serve configuration": (
        CONFIG,
        "          num_cpus: 2\n",
        "          num_cpus: 2\n          runtime_env: {env_vars: {AWS_SECRET_ACCESS_KEY: abc}}\n",
        "secret",
        "AWS_SECRET_ACCESS_KEY stands there in clear",
    ),
    "a repository's password in Git": (
        ARGO,
        "configMapGenerator:\n",
        "secretGenerator:\n  - {name: deployments, literals: [password=hunter2]}\nconfigMapGenerator:\n",
        "secret",
        "would lie in Git in clear",
    ),
    "a password in a chart's values": (
        ARGO_OPERATORS,
        "    chart: kuberay-operator\n",
        "    chart: kuberay-operator\n    helm: {valuesObject: {adminPassword: hunter2}}\n",
        "secret",
        "Application kuberay-operator: spec.source.helm.valuesObject: adminPassword stands there in clear",
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_a_bad_overlay_is_refused(files: dict[str, str], case: str) -> None:
    expect_refused(files, *BAD[case])


ALLOWED: dict[str, Changes] = {
    "a repository that anybody can read": {
        "gitops/argocd/monitoring.yaml": [
            (
                "CreateNamespace=true, ServerSideApply=true]\n",
                "CreateNamespace=true, ServerSideApply=true]\n---\napiVersion: v1\nkind: Secret\n"
                "metadata: {name: charts, labels: {argocd.argoproj.io/secret-type: repository}}\n"
                "stringData: {type: helm, enableOCI: 'true', url: registry.example.com/charts}\n",
            )
        ]
    },
    "Vault's agent, and what only says where a secret is": {
        SERVICE: [
            (
                "              app.kubernetes.io/component: ray-worker\n          spec",
                "              app.kubernetes.io/component: ray-worker\n            annotations:\n"
                "              vault.hashicorp.com/agent-inject-secret-db-password: secret/data/line/db\n"
                "          spec",
            ),
            (
                "              env: &ray_environment\n",
                "              env: &ray_environment\n"
                "                - {name: GOOGLE_APPLICATION_CREDENTIALS, value: /gcp/key.json}\n"
                "                - {name: AWS_KMS_KEY_ID, value: 1234abcd-12ab-34cd-56ef-1234567890ab}\n"
                "                - {name: DB_SECRET, value: 'arn:aws:secretsmanager:eu-central-1:1:secret:db-AbCdEf'}\n"
                "                - {name: DB_PASSWORD, value: 'vault:secret/data/line#password'}\n",
            ),
        ]
    },
}


@pytest.mark.parametrize("case", ALLOWED)
def test_what_is_right_is_not_refused(files: dict[str, str], case: str) -> None:
    expect_taken(files, ALLOWED[case])


@pytest.mark.parametrize(
    ("operation", "key", "words"),
    [
        (f"{{op: add, path: {WORKER}/containers/0/args, value: ['--password', 'a b']}}", "secret", "--password stands"),
        (
            f"{{op: add, path: {WORKER}/containers/0/args, value: ['export API_TOKEN=abc; ray start']}}",
            "secret",
            "API_TOKEN stands there in clear",
        ),
    ],
)
def test_a_service_that_breaks_a_policy_is_refused(files: dict[str, str], operation: str, key: str, words: str) -> None:
    expect_patch_refused(files, operation, key, words)


def test_a_secret_in_git_is_refused(files: dict[str, str]) -> None:
    secret = "apiVersion: v1\nkind: Secret\nmetadata: {name: ray-token}\nstringData: {auth_token: abc}\n"
    found = refusals(files | with_object(files, secret))
    assert {finding.key for finding in found} == {"secret", "argocd"}
    assert "Secret ray-token would lie in Git in clear" in str(found)


def test_what_only_names_a_secret_is_not_refused() -> None:
    sealed = {"kind": "SealedSecret", "metadata": {"name": "a"}, "spec": {"encryptedData": {"auth_token": "AgBy3"}}}
    keys = [{"secretKey": "auth_token", "remoteRef": {"key": "line/ray"}}]
    external = {"kind": "ExternalSecret", "metadata": {"name": "a"}, "spec": {"data": keys}}
    reference = {"name": "TOKEN", "valueFrom": {"secretKeyRef": {"name": "ray-token", "key": "auth_token"}}}
    pod = {"kind": "ConfigMap", "metadata": {"name": "a"}, "env": [reference], "secretName": "ray-token"}
    assert policies.refusals([sealed, external, pod]) == []
    redis = {"kind": "RayCluster", "metadata": {"name": "a"}, "spec": {"redisPassword": {"value": "hunter2"}}}
    assert [finding.key for finding in policies.refusals([redis])] == ["secret"]


NAMED = (
    "AZURE_STORAGE_KEY ACCOUNT_KEY KAGGLE_KEY SIGNING_KEY ENCRYPTION_KEY SSH_KEY TLS_KEY DB_PASS MYSQL_PWD PGPASSWORD "
)
NAMED += "REDIS_AUTH PASSPHRASE GITHUB_PAT SECRETS TOKEN_2 AZURE_STORAGE_CONNECTION_STRING AWS_ACCESS_KEY_ID "
NAMED += "apiToken example.com/token redis-password Authorization API_KEY apiKey"
HARMLESS = (
    "PASSWORD_FILE topologyKey PUBLIC_KEY PARTITION_KEY PWD secretName COMPASS KEYS OMP_NUM_THREADS tokenizer bypass"
)


@pytest.mark.parametrize("name", NAMED.split())
def test_a_name_says_that_a_value_is_secret(name: str) -> None:
    for value in ({"name": name, "value": "abc"}, {name: "abc"}, {name: {"value": "abc"}}):
        assert [found.key for found in clear_text.refusals_in({"env": [value]}, "it")] == ["secret"]
    for nothing in ("", "$REDIS_PASSWORD", "$(RAY_AUTH_TOKEN)", "${A}", "{{ .password }}", "false"):
        assert list(clear_text.refusals_in({"env": [{"name": name, "value": nothing}]}, "it")) == []


@pytest.mark.parametrize("name", HARMLESS.split())
def test_other_names_do_not(name: str) -> None:
    assert list(clear_text.refusals_in({name: "abc", "env": [{"name": name, "value": "abc"}]}, "it")) == []


@pytest.mark.parametrize(
    ("value", "is_secret"),
    [
        ("postgres://u:hunter2@db/x", True),
        ("https://user:hunter2@mlflow.example.com", True),
        ("redis://:hunter2@redis:6379", True),
        ("s3://AKIA:abc@bucket/key?region=us-east-1", True),
        ("https://hooks.slack.com/services/T0123ABCD/B0123ABCD/abcdefghijklmnop", True),
        ("--pass-access-token=true", False),
        ("--access-token=trueish", True),
        ("ray start --redis-password=hunter2", True),
        ("Bearer eyJhbGciOi", True),
        ("DefaultEndpointsProtocol=https;AccountName=a;AccountKey=abc==", True),
        ("-----BEGIN RSA PRIVATE KEY-----\nMIIE", True),
        (f"ghp_{'a' * 36}", True),
        ("eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0In0.dozjgNryP4J3jVmNHl0w5N", True),
        ("https://user:$PASSWORD@mlflow.example.com", False),
        ("https://mlflow.example.com:5000/a@b", False),
        ("s3://line/bundles/a?scheme=https&endpoint_override=minio.example.com:9000", False),
        ("ray start --redis-password=$REDIS_PASSWORD", False),
        ("-----BEGIN CERTIFICATE-----", False),
        ("line@example.com", False),
        (OTHER, False),
    ],
)
def test_a_value_can_say_it_itself(value: str, is_secret: bool) -> None:
    found = [*clear_text.refusals_in({"args": [value]}, "it"), *clear_text.refusals_in({"uri": value}, "it")]
    assert [finding.key for finding in found] == ["secret", "secret"] * is_secret


@pytest.mark.parametrize(
    ("item", "count"),
    [
        ({"kind": "ConfigMap", "data": {"app.env": "# of the app\nexport AWS_SECRET_ACCESS_KEY='abc'\n"}}, 1),
        ({"kind": "ConfigMap", "data": {"app.sh": "TOKEN=$(cat /token)\nOTHER=abc\n"}}, 0),
        ({"kind": "ConfigMap", "data": {"secret": "hunter2"}}, 1),
        ({"kind": "ConfigMap", "data": {"a.json": '{"user": "me", "password": "hunter2"}'}}, 1),
        ({"kind": "ConfigMap", "data": {"a.yaml": "db:\n  password: hunter2\n"}}, 1),
        ({"kind": "ConfigMap", "data": {"a.ini": "[db]\npassword = 123456\n"}}, 1),
        ({"kind": "ConfigMap", "data": {"a.json": '{"user": "me", "password": 123456}'}}, 1),
        ({"kind": "ConfigMap", "data": {"a.json": '{"title": "A, token: b", "expr": "x{token=\\"a\\"}"}'}}, 0),
        ({"kind": "ConfigMap", "data": {"a.json": '{"url": "https://me:hunter2@example.com"}'}}, 1),
        ({"kind": "ConfigMap", "data": {"a.ini": "max_tokens = -1"}}, 0),
        ({"kind": "ConfigMap", "data": {"a.yaml": 'headers: {authorization: "Bearer ${env:TOKEN}"}\n'}}, 0),
        ({"kind": "ConfigMap", "data": {"a.yaml": "passwordSecret: {name: creds, key: password}\n"}}, 0),
        ({"kind": "Deployment", "env": [{"name": "TLS_PRIVATE_KEY", "value": "/certs/tls.key"}]}, 0),
        ({"kind": "Deployment", "env": [{"name": "API_KEY", "value": "/bPxRfiCYEXAMPLEKEY"}]}, 1),
        (
            {
                "kind": "Deployment",
                "spec": {"env": [{"name": "GOOGLE_APPLICATION_CREDENTIALS", "value": "/var/run/key.json"}]},
            },
            0,
        ),
        ({"kind": "ConfigMap", "data": {"a.ini": "max_tokens = 4096\ntoken_file = /run/token\n"}}, 0),
        ({"kind": "Deployment", "spec": {"env": [{"name": "DB_PASSWORD", "value": "123456"}]}}, 1),
        (
            {"kind": "Ingress", "metadata": {"annotations": {"nginx.ingress.kubernetes.io/auth-secret": "basic-auth"}}},
            0,
        ),
        (
            {
                "kind": "Application",
                "metadata": {
                    "annotations": {
                        "argocd-image-updater.argoproj.io/line.pull-secret": "pullsecret:argocd/registry",
                        "argocd-image-updater.argoproj.io/page.pull-secret": "secret:argocd/registry#token",
                    }
                },
            },
            0,
        ),
        ({"kind": "ResourceQuota", "spec": {"hard": {"count/secrets": "10"}}}, 0),
        ({"kind": "Middleware", "spec": {"basicAuth": {"secret": "line/users"}}}, 0),
        ({"kind": "ServiceAccount", "automountServiceAccountToken": "false"}, 0),
        ({"kind": "Deployment", "spec": {"env": [{"name": "MAX_TOKENS", "value": "4096"}]}}, 0),
        ({"kind": "Redis", "spec": {"existingSecret": "redis-auth"}}, 0),
        ({"kind": "Redis", "spec": {"existingSecret": "Hunter2!"}}, 1),
        ({"kind": "Ingress", "metadata": {"annotations": {"about": "needs Bearer authentication here"}}}, 0),
        ({"kind": "MySecretThing", "spec": {"password": "hunter2"}}, 1),
        ({"kind": "SecretStore", "spec": {"provider": {"vault": {"auth": {"token": "s3cr3t"}}}}}, 1),
        ({"kind": "ExternalSecret", "spec": {"target": {"template": {"data": {"password": "hunter2"}}}}}, 1),
        ({"kind": "ExternalSecret", "spec": {"target": {"template": {"data": {"password": "{{ .a }}"}}}}}, 0),
        ({"kind": "SealedSecret", "spec": {"encryptedData": {"password": "AgBy3"}, "template": {"token": "abc"}}}, 1),
    ],
)
def test_a_reference_is_no_secret_and_a_kind_s_name_no_excuse(item: dict[str, Any], count: int) -> None:
    whole = {**item, "metadata": {"name": "a", **item.get("metadata", {})}}
    assert [found.key for found in clear_text.refusals(whole)] == ["secret"] * count
