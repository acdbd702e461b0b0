"""Judges what an environment would be on a cluster: rendered, compared with the schemas, and asked for our policies."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from gitops import applications, destination, kustomize, policies, schemas, upgrade
from gitops.environment import Environment
from gitops.errors import ContractError
from gitops.findings import Finding, accept, refuse, skip
from gitops.gates import Schema, judge_schema, serve_schema
from gitops.layout import ENVIRONMENTS, STAGING, serve_config_path
from gitops.objects import Object, at, dicts, mappings, name_of
from gitops.repository import Repository
from gitops.upgrade import OBSERVED, RAY_SERVICE, Forecast

_LONGEST_ANNOTATION = 250 * 1024  # Kubernetes takes 256 KiB for all of an object's, names included


def files_at(repository: Repository, commit: str) -> dict[str, str]:
    """Paths and texts of what an overlay may refer to at a commit; links, submodules and binary files it may not."""
    return {path: text for folder in kustomize.FOLDERS for path, text in repository.texts(commit, folder).items()}


def check(
    files: Mapping[str, str],
    environment: str,
    crds: Path | None = None,
    schema: Schema = serve_schema,
) -> list[Finding]:
    """Every finding on an environment's overlay.

    Args:
        files: what `files_at` returns.
        environment: which one.
        crds: CustomResourceDefinitions, as `schemas.read_crds` takes them; None: kinds that need them go unchecked.
        schema: says what is wrong with a Serve configuration.

    Raises:
        MergelineError: kubectl or Kubernetes' schemas are not installed, or `crds` cannot be read.
    """
    known = schemas.read_crds(crds) if crds else {}
    try:
        objects = kustomize.render(files, environment)
        config = embedded(objects, files.get(serve_config_path(environment)), environment)
        kustomize.mind_targets(files, f"{ENVIRONMENTS}/{environment}", objects)
    except ContractError as error:
        remedy = f"mend it; `kubectl kustomize gitops/environments/{environment}` renders what is there"
        return [refuse("overlay", str(error), remedy)]
    told, said = _told(files)
    return [
        accept("overlay", f"kustomize renders {len(objects)} objects of {environment}"),
        *said,
        *_schemas([*objects, *told], known),
        judge_schema(serve_config_path(environment), config, schema),
        *_observers(objects, files[serve_config_path(environment)], environment),
        *_policies(objects, config, files, told, environment),
    ]


def _told(files: Mapping[str, str]) -> tuple[list[dict[str, Any]], list[Finding]]:
    """What Argo CD is told, none of it where that cannot be read, and what is to be said of that."""
    try:
        return destination.told(files)
    except ContractError as error:
        remedy = f"mend it; `kubectl kustomize {destination.FOLDER}` renders what Argo CD is told"
        return [], [refuse("argocd", str(error), remedy)]


def _policies(
    objects: Sequence[Object],
    config: Mapping[str, Any],
    files: Mapping[str, str],
    told: Sequence[Object],
    environment: str,
) -> list[Finding]:
    staged = kustomize.overlay_path(STAGING) in files
    try:
        return [
            *destination.refusals(objects, told, environment),
            *applications.refusals(told, environment, staged=staged),
            *policies.check(objects, config, environment),
        ]
    except (TypeError, ValueError) as error:  # a number where a list belongs, say, or a URI that is none
        found = (
            f"an object or the Serve configuration holds what has no sense, and the policies cannot be asked ({error})"
        )
        return [refuse("policies", found, "mend what the schemas refuse first")]


def forecast(repository: Repository, base: str, revision: str, environment: str) -> Forecast:
    """What the merge of a revision into a branch will do to an environment.

    Args:
        repository: the deployments repository.
        base: the branch; compared with is where the revision left it.
        revision: branch, tag or commit.
        environment: which one; one without an overlay is one machine's.

    Raises:
        GitError: the repository cannot be reached, or has no such branch or revision.
        ContractError: one of the two cannot be read or rendered.
    """
    change, into = repository.fetch(revision).id, repository.fetch(base).id
    fork = repository.merge_base(into, change) or into
    before, after = files_at(repository, fork), files_at(repository, change)
    path = serve_config_path(environment)
    for files in (before, after):
        if path not in files:
            raise ContractError(f"{path} is missing on one side: there is nothing to compare")
    old, new = (Environment.parse(files[path], path).config for files in (before, after))
    if not all(kustomize.overlay_path(environment) in files for files in (before, after)):
        return upgrade.forecast(environment, (old, new), None)
    one, other = (kustomize.render(files, environment) for files in (before, after))
    for objects in (one, other):
        _service(objects, environment)
    return upgrade.forecast(environment, (old, new), (one, other))


def embedded(objects: Sequence[Mapping[str, Any]], text: str | None, environment: str) -> dict[str, Any]:
    """The Serve configuration of an environment's RayService.

    Args:
        objects: what kustomize rendered.
        text: the environment's serve-config.yaml; None: there is none.
        environment: named in errors.

    Raises:
        ContractError: there is not one RayService, it holds another text, or that cannot be read.
    """
    service, where = _service(objects, environment), serve_config_path(environment)
    if text is None:
        raise ContractError(f"{where} is missing")
    if service["spec"].get("serveConfigV2") != text:
        raise ContractError(
            f"spec.serveConfigV2 of {name_of(service)} is not {where}: a promotion would change nothing; "
            f"see `replacements` in {kustomize.overlay_path('staging')}"
        )
    config = Environment.parse(text, where).config
    if not config["applications"]:
        raise ContractError(f"{where} names no application: nothing would be served, and KubeRay never be ready")
    return config


def _service(objects: Sequence[Mapping[str, Any]], environment: str) -> Mapping[str, Any]:
    found = [item for item in objects if item["kind"] == RAY_SERVICE]
    if len(found) != 1:
        raise ContractError(f"{environment} renders {len(found)} objects of kind {RAY_SERVICE}; it must be one")
    try:
        cluster = found[0]["spec"]["rayClusterConfig"]
        for group in (cluster["headGroupSpec"], *(cluster.get("workerGroupSpecs") or ())):
            group["template"]["spec"]["containers"][0]["name"]
    except (KeyError, IndexError, TypeError, AttributeError) as error:
        raise ContractError(
            f"spec.rayClusterConfig of {name_of(found[0])} does not say its pods: each group needs "
            f"template.spec.containers ({type(error).__name__}: {error})"
        ) from error
    return found[0]


def _schemas(
    objects: Sequence[Mapping[str, Any]], known: Mapping[schemas.KindVersion, schemas.Schema]
) -> Iterator[Finding]:
    unknown: Counter[str] = Counter()
    checked = 0
    for item in objects:
        found = schemas.complaints(item, known)
        if found is None:
            unknown[f"{item['kind']} ({item['apiVersion']})"] += 1
            continue
        checked += 1
        for complaint in found:
            remedy = f"correct it as the schema of {item['apiVersion']} asks"
            yield refuse("kubernetes", f"{name_of(item)}: {complaint}", remedy)
    if checked:
        yield accept("kubernetes", f"{checked} of {len(objects)} objects were compared with the schemas of their kinds")
    if unknown:
        kinds = ", ".join(f"{count} {kind}" for kind, count in sorted(unknown.items()))
        yield skip("kubernetes", f"not compared with a schema: {kinds}", "give their definitions with --crds")


def _observers(objects: Sequence[Mapping[str, Any]], text: str, environment: str) -> Iterator[Finding]:
    """Who looks whether the cluster serves what Git wants has what Git wants."""
    where = serve_config_path(environment)
    for item in objects:
        for path, annotations in mappings(item):
            if OBSERVED not in annotations or not path.endswith("template.metadata.annotations"):
                continue
            found = f"{name_of(item)}: {path}.{OBSERVED}"
            if at(item, "spec", "replicas") == 0 or not any(
                container.get("readinessProbe") for container in dicts(item, "spec", "template", "spec", "containers")
            ):
                remedy = (
                    "take it as gitops/base/observer.yaml has it, or delete the Deployment by a patch of the overlay"
                )
                yield refuse("observer", f"{name_of(item)} has no pod, or one that is ready whatever is served", remedy)
            if annotations[OBSERVED] != text:
                remedy = f"put it there by `replacements`, as {kustomize.overlay_path('staging')} does"
                yield refuse("observer", f"{found} is not {where}: nobody would look whether that is served", remedy)
            elif len(text.encode()) > _LONGEST_ANNOTATION:
                limit = f"Kubernetes takes annotations of {_LONGEST_ANNOTATION // 1024} KiB"
                remedy = "divide the environment, or delete the Deployment by a patch of the overlay"
                yield refuse("observer", f"{found} has {len(text.encode())} bytes, and {limit}", remedy)
