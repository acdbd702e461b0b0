"""What Argo CD is told: it lets nothing through, and no environment before staging."""

import pytest

from tests.gitops.conftest import (
    ARGO,
    ARGO_OPERATORS,
    ARGO_PROJECT,
    ARGO_SET,
    MORE,
    Changes,
    Refused,
    expect_refused,
    expect_taken,
    refusals,
)

APPLICATION = (
    "{{apiVersion: argoproj.io/v1alpha1, kind: {kind}, metadata: {{name: tools}}, spec: {spec}}}\n"  # of the team's own
)
RESPECTFUL = "          - RespectIgnoreDifferences=true\n"
CLUSTERS = 'kind: RayCluster\n          jqPathExpressions: [".spec.workerGroupSpecs[].replicas"]'
SERVICES = 'kind: RayService\n          jqPathExpressions: [".spec.rayClusterConfig.workerGroupSpecs[].replicas"]'
TOOLS = "targetRevision: 1.2.0}], destination: {namespace: tools}, syncPolicy: {}"

BAD: dict[str, Refused] = {
    "an environment before staging": (
        ARGO_SET,
        "operator: In, values: [staging]",
        "operator: In, values: [stagin]",
        "argocd",
        "takes production no later than staging",
    ),
    "no order of environments": (
        ARGO_SET,
        "type: RollingSync",
        "type: AllAtOnce",
        "argocd",
        "no step of a RollingSync",
    ),
    "a label that no step asks for": (
        ARGO_SET,
        '        environment: "{{ .path.basename }}"\n',
        '        env: "{{ .path.basename }}"\n',
        "argocd",
        "takes production no later than staging",
    ),
    "a client-side apply": (ARGO_SET, "          - ServerSideApply=true\n", "", "argocd", "lacks ServerSideApply=true"),
    "worker groups from what runs": (
        ARGO_SET,
        CLUSTERS,
        SERVICES,
        "argocd",
        "RespectIgnoreDifferences=true, and `ignoreDifferences` has .spec.rayClusterConfig.workerGroupSpecs[].replicas",
    ),
    "promotions that count as synced": (
        ARGO_SET,
        '[".spec.workerGroupSpecs[].replicas"]',
        "[.spec.serveConfigV2]",
        "argocd",
        "`ignoreDifferences` leaves out .spec.serveConfigV2",
    ),
    "namespaces that take any pod": (ARGO_SET, "enforce: restricted", "enforce: privileged", "argocd", "privileged"),
    "another project": (
        ARGO_SET,
        "project: mergeline\n",
        "project: default\n",
        "argocd",
        "its project default is none",
    ),
    "another revision": (
        ARGO_SET,
        "        revision: main",
        "        revision: dev",
        "argocd",
        "at dev, and applies main",
    ),
    "every repository": (
        ARGO_PROJECT,
        "    - https://github.com/OWNER/REPOSITORY.git\n",
        '    - https://github.com/OWNER/REPOSITORY.git\n    - "*"\n',
        "argocd",
        "takes every repository",
    ),
    "every repository by https": (
        ARGO_PROJECT,
        "    - https://github.com/OWNER/REPOSITORY.git\n",
        "    - https://github.com/OWNER/REPOSITORY.git\n    - https://**\n",
        "argocd",
        "takes every repository",
    ),
    "the system's namespaces": (
        ARGO_PROJECT,
        "      namespace: mergeline-*",
        "      namespace: '*-*'",
        "argocd",
        "every namespace",
    ),
    "an operator in a range": (
        ARGO_OPERATORS,
        "targetRevision: 1.7.0",
        "targetRevision: ^1.7.0",
        "argocd",
        "Application kuberay-operator: targetRevision '^1.7.0' is another one tomorrow",
    ),
    "every namespace": (
        ARGO_PROJECT,
        "      namespace: mergeline-*",
        '      namespace: "*"',
        "argocd",
        "every namespace",
    ),
    "every kind": (
        ARGO_PROJECT,
        "{group: ray.io, kind: RayService}",
        '{group: "*", kind: "*"}',
        "argocd",
        "takes every kind",
    ),
    "Secrets from Git": (
        ARGO_PROJECT,
        "    - {group: ray.io, kind: RayService}\n",
        '    - {group: ray.io, kind: RayService}\n    - {group: "", kind: Secret}\n',
        "argocd",
        "takes the kind Secret, which no merge should bring",
    ),
    "rights in every namespace": (
        ARGO_PROJECT,
        '    - group: ""\n      kind: Namespace\n      name: mergeline-*\n',
        "    - {group: rbac.authorization.k8s.io, kind: ClusterRoleBinding}\n",
        "argocd",
        "takes the kind ClusterRoleBinding, which no merge should bring",
    ),
    "every kind but quotas": (
        ARGO_PROJECT,
        "  namespaceResourceWhitelist:\n",
        "  namespaceResourceBlacklist: [{group: '', kind: ResourceQuota}]\n  other:\n",
        "argocd",
        "AppProject mergeline: spec.namespaceResourceBlacklist takes the kind Secret, which no merge should bring",
    ),
    "a window that never opens": (
        ARGO_PROJECT,
        "schedule: 0 20 * * *",
        "schedule: 0 26 * * *",
        "argocd",
        "the schedule '0 26 * * *' cannot have '26' as its hour",
    ),
    "an operator of tomorrow": (
        ARGO_OPERATORS,
        "targetRevision: v0.93.0",
        "targetRevision: main",
        "argocd",
        "Application prometheus-operator: targetRevision 'main' is another one tomorrow",
    ),
    "commits that nobody signs": (
        ARGO,
        "# Commits must be signed: components: ",
        "components: ",
        "argocd",
        "AppProject mergeline: spec.sourceIntegrity.git.policies.0.gpg.keys.0 is the key that stands for none",
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_a_bad_overlay_is_refused(files: dict[str, str], case: str) -> None:
    expect_refused(files, *BAD[case])


ALLOWED: dict[str, Changes] = {
    "a repository that the project names otherwise": {
        ARGO: [
            ("url=https://github.com/OWNER/REPOSITORY.git", "url=git@git.example.com:Line/deployments.git"),
            ("      - select: {kind: AppProject, name: mergeline}\n        fieldPaths: [spec.sourceRepos.0]\n", ""),
        ],
        ARGO_PROJECT: [("https://github.com/OWNER/REPOSITORY.git", "ssh://git@git.example.com/line/*")],
    },
    "commits that somebody signs": {
        ARGO: [("# Commits must be signed: components: ", "components: ")],
        "gitops/components/signed-commits/kustomization.yaml": [("0000000000000000", "D56C4FCA57A46444")],
    },
    "operators in a project that takes what they need": {
        ARGO_PROJECT: [
            (
                "      manualSync: true\n",
                "      manualSync: true\n---\napiVersion: argoproj.io/v1alpha1\nkind: AppProject\n"
                "metadata: {name: operators}\nspec:\n  sourceRepos: ['*']\n"
                "  destinations: [{namespace: '*', server: https://kubernetes.default.svc}]\n"
                "  clusterResourceWhitelist: [{group: '*', kind: '*'}]\n",
            )
        ],
        ARGO_OPERATORS: [("project: default", "project: operators")],
    },
    "a project for each environment": {
        ARGO_SET: [("project: mergeline\n", 'project: "line-{{ .path.basename }}"\n')],
        ARGO_PROJECT: [
            ("name: mergeline\n", "name: line-production\n"),
            ("namespace: mergeline-*", "namespace: mergeline-production"),
            (
                "      manualSync: true\n",
                "      manualSync: true\n---\napiVersion: argoproj.io/v1alpha1\nkind: AppProject\n"
                "metadata: {name: line-staging}\nspec:\n  sourceRepos: [https://github.com/OWNER/REPOSITORY.git]\n"
                "  destinations: [{namespace: mergeline-staging, server: https://kubernetes.default.svc}]\n",
            ),
        ],
        "gitops/argocd/monitoring.yaml": [("project: mergeline", "project: default")],
    },
    "namespaces that somebody else makes": {
        ARGO_SET: [
            ("          - CreateNamespace=true\n", ""),
            (
                "        managedNamespaceMetadata:\n          labels:\n"
                "            pod-security.kubernetes.io/enforce: restricted\n",
                "",
            ),
        ]
    },
    "templates as they were": {
        ARGO_SET: [
            ("  goTemplate: true\n  goTemplateOptions: [missingkey=error]\n", ""),
            ("{{ .path.basename }}", "{{path.basename}}"),
        ]
    },
    "differences that are respected, in no list": {
        ARGO_SET: [
            (
                f"        - group: ray.io\n          {CLUSTERS}",
                "        - {group: apps, kind: Deployment, jqPathExpressions: [.spec.replicas]}\n"
                "        - {group: apps, kind: StatefulSet, jsonPointers: [/spec/replicas]}",
            ),
        ]
    },
    "differences that are not respected": {ARGO_SET: [(RESPECTFUL, ""), (CLUSTERS, SERVICES)]},
    "kinds that a project refuses, in place of those that it takes": {
        ARGO_PROJECT: [
            (
                "  namespaceResourceWhitelist:\n",
                "  namespaceResourceBlacklist:\n    - {group: '', kind: Secret}\n    "
                "- {group: rbac.authorization.k8s.io, kind: '*'}\n  other:\n",
            )
        ]
    },
    "environments that are rendered into branches": {
        ARGO_SET: [
            (
                "      source:\n        repoURL: https://github.com/OWNER/REPOSITORY.git\n"
                '        targetRevision: main\n        path: "{{ .path.path }}"\n',
                "      sourceHydrator:\n        drySource: {repoURL: https://github.com/OWNER/REPOSITORY.git, "
                "targetRevision: main, path: '{{ .path.path }}'}\n"
                "        syncSource: {targetBranch: 'env/{{ .path.basename }}', path: '{{ .path.basename }}'}\n",
            )
        ],
        ARGO: [("spec.template.spec.source.repoURL", "spec.template.spec.sourceHydrator.drySource.repoURL")],
    },
    "the default branch by its other name": {ARGO_SET: [("        revision: main", "        revision: HEAD")]},
    "definitions that are replaced, as Ray's guide does": {
        ARGO_OPERATORS: [
            (
                "    path: .\n    targetRevision: v0.93.0\n    kustomize:\n      namespace: monitoring\n",
                "    path: example/prometheus-operator-crd\n    targetRevision: v0.93.0\n",
            ),
            (
                "    namespace: monitoring\n  syncPolicy:\n    automated: {prune: true, selfHeal: true}\n"
                "    syncOptions: [CreateNamespace=true, ServerSideApply=true]\n",
                "    namespace: monitoring\n  syncPolicy: {syncOptions: [Replace=true]}\n",
            ),
        ]
    },
    "a project for each environment, by a template of one's own": {
        ARGO_SET: [("project: mergeline\n", "project: 'line-{{ .env }}'\n")],
        ARGO_PROJECT: [
            ("name: mergeline\n", "name: line-production\n"),
            (
                "      manualSync: true\n",
                "      manualSync: true\n---\napiVersion: argoproj.io/v1alpha1\nkind: AppProject\n"
                "metadata: {name: operators}\nspec: {sourceRepos: ['*'], destinations: [{namespace: '*'}]}\n",
            ),
        ],
        "gitops/argocd/monitoring.yaml": [("project: mergeline", "project: default")],
    },
    "names from a generator of another kind": {ARGO_SET: [(".path.basename", ".environment")]},
    "a label beside": {
        ARGO_SET: [
            (
                '        environment: "{{ .path.basename }}"\n',
                '        environment: "{{ .path.basename }}"\n        team: a\n',
            ),
            ("values: [staging]}\n", "values: [staging]}\n            - {key: team, operator: In, values: [a]}\n"),
        ]
    },
}


@pytest.mark.parametrize("case", ALLOWED)
def test_what_is_right_is_not_refused(files: dict[str, str], case: str) -> None:
    expect_taken(files, ALLOWED[case])


@pytest.mark.parametrize(
    ("kind", "spec"),
    [
        ("Application", f"{{sources: [{{chart: tools, {TOOLS}}}"),
        ("ApplicationSet", f"{{generators: [], template: {{spec: {{project: default, sources: [{{{TOOLS}}}}}}}"),
        ("AppProject", "{destinations: [{namespace: tools}]}"),
    ],
)
def test_what_argo_cd_has_beside_environments_is_the_team_s(files: dict[str, str], kind: str, spec: str) -> None:
    listed = files[ARGO].replace("  - project.yaml\n", "  - project.yaml\n  - more.yaml\n")
    assert refusals(files | {ARGO: listed, MORE: APPLICATION.format(kind=kind, spec=spec)}) == []


def test_a_cluster_that_the_team_applies_itself_takes_what_git_says(files: dict[str, str]) -> None:
    ignored = "{group: ray.io, kind: RayCluster, jqPathExpressions: ['.spec.workerGroupSpecs[].replicas']}"
    synced = "syncPolicy: {syncOptions: [ServerSideApply=true, RespectIgnoreDifferences=true]}"
    spec = f"{{sources: [{{chart: tools, targetRevision: 1.2.0}}], {synced}, ignoreDifferences: [{ignored}]}}"
    listed = files[ARGO].replace("  - project.yaml\n", "  - project.yaml\n  - more.yaml\n")
    (found,) = refusals(files | {ARGO: listed, MORE: APPLICATION.format(kind="Application", spec=spec)})
    assert "`ignoreDifferences` has .spec.workerGroupSpecs[].replicas" in found.reason


def test_an_environment_by_an_application_alone_does_not_wait_for_staging(files: dict[str, str]) -> None:
    plain = APPLICATION.format(
        kind="Application",
        spec="{source: {repoURL: https://git.example.com/line, targetRevision: main, "
        "path: gitops/environments/production}, "
        "syncPolicy: {syncOptions: [ServerSideApply=true]}}",
    )
    (found,) = refusals(files | {ARGO: "resources: [more.yaml]\n", MORE: plain})
    assert "Application tools: nothing keeps it behind staging" in found.reason
    without = {path: text for path, text in files.items() if "/staging/" not in path}
    assert refusals(without | {ARGO: "resources: [more.yaml]\n", MORE: plain}) == []
