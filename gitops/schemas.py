"""Validates Kubernetes objects against the schemas of their kind and version.

Schemas of Kubernetes' own kinds come with the package kubernetes-validate (the extra `cluster`). Those of other kinds
are in CustomResourceDefinitions, which whoever runs the cluster has: `kubectl get crd --output json > crds.json`.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from gitops.errors import ContractError, MergelineError
from gitops.objects import group_of

KUBERNETES = "1.37"
"""The version of Kubernetes whose schemas are asked."""

Schema = dict[str, Any]
KindVersion = tuple[str, str]
"""apiVersion and kind."""

# Those of Kubernetes' own groups that have a domain, as those of others do.
_OWN_GROUPS = {
    *(f"{group}.k8s.io" for group in ("admissionregistration", "apiextensions", "apiregistration", "authentication")),
    *(f"{group}.k8s.io" for group in ("authorization", "certificates", "coordination", "discovery", "events")),
    *(f"{group}.k8s.io" for group in ("flowcontrol.apiserver", "internal.apiserver", "networking", "node")),
    *(f"{group}.k8s.io" for group in ("rbac.authorization", "resource", "scheduling", "storage", "storagemigration")),
}
_SHARED_GROUPS = {"argoproj.io"}
"""Of which several projects have kinds: Argo CD, its operator, Rollouts, Workflows, Events."""
_LABEL = r"^([A-Za-z0-9]([A-Za-z0-9_.-]{0,61}[A-Za-z0-9])?)?$"
# A definition says nothing of it: the API server checks the metadata of all kinds alike.
_METADATA: Schema = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "pattern": r"^[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?$"},
        "namespace": {"type": "string", "pattern": r"^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$"},
        "labels": {"type": ["object", "null"], "additionalProperties": {"type": "string", "pattern": _LABEL}},
        "annotations": {"type": ["object", "null"], "additionalProperties": {"type": "string"}},
        "finalizers": {"type": ["array", "null"], "items": {"type": "string"}},
        "ownerReferences": {"type": ["array", "null"], "items": {"type": "object"}},
        **{key: {} for key in ("creationTimestamp", "generateName", "generation", "managedFields")},
        **{key: {} for key in ("resourceVersion", "uid")},
    },
    "required": ["name"],
    "additionalProperties": False,
}


def read_crds(path: Path) -> dict[KindVersion, Schema]:
    """The schemas in CustomResourceDefinitions, by what they describe.

    Args:
        path: a YAML or JSON file, or a folder of such; a file may hold several, or a list as kubectl prints it.

    Raises:
        ContractError: a file cannot be read, or there is no CustomResourceDefinition in any.
    """
    import yaml

    class Loader(yaml.CSafeLoader):  # type: ignore[misc]  # the package has no types
        """Takes the plain `=` of YAML 1.1 as a text, which it is in Alertmanager's definitions."""

    Loader.add_constructor("tag:yaml.org,2002:value", yaml.CSafeLoader.construct_yaml_str)
    files = sorted(file for file in path.rglob("*") if file.suffix in (".yaml", ".yml", ".json"))
    found: dict[KindVersion, Schema] = {}
    for file in files if path.is_dir() else [path]:
        try:
            documents = list(yaml.load_all(file.read_text(), Loader=Loader))
        except OSError as error:
            raise ContractError(f"cannot read {file}: {error.strerror}") from error
        except (yaml.YAMLError, UnicodeDecodeError) as error:
            raise ContractError(f"{file} is not YAML: {error}") from error
        for document in documents:
            found |= dict(_schemas_in(document))
    if not found:
        raise ContractError(
            f"there is no CustomResourceDefinition in {path}: write them with `kubectl get crd --output json`"
        )
    return found


def complaints(item: Mapping[str, Any], crds: Mapping[KindVersion, Schema]) -> list[str] | None:
    """What a schema says against an object, place by place; None: there is no schema of its kind and version.

    Unknown keys are refused, which the API server would drop. Rules in CEL (`x-kubernetes-validations`) are not asked.

    Args:
        item: the object.
        crds: what `read_crds` returns.

    Raises:
        MergelineError: the package with Kubernetes' own schemas is not installed.
    """
    from jsonschema import Draft202012Validator

    schema = crds.get((item["apiVersion"], item["kind"]))
    if schema is None:
        group = group_of(item)
        if group in {version.rpartition("/")[0] for version, _ in crds} - _SHARED_GROUPS:
            return [f"the definitions of {group} have no {item['kind']} in {item['apiVersion']}"]
        return _kubernetes_complaints(item)
    errors = sorted(Draft202012Validator(schema).iter_errors(item), key=lambda error: list(map(str, error.path)))
    return [_text(error.path, error.message) for error in errors]


def _kubernetes_complaints(item: Mapping[str, Any]) -> list[str] | None:
    try:
        import kubernetes_validate
    except ImportError as error:
        raise MergelineError(
            "Kubernetes' schemas are not installed: pip install 'mergeline[cluster]', or leave out --env"
        ) from error
    try:
        kubernetes_validate.validate(dict(item), KUBERNETES, strict=True)
    except kubernetes_validate.SchemaNotFoundError:
        group = group_of(item)
        if "." in group and group not in _OWN_GROUPS:
            return None
        return [f"Kubernetes {KUBERNETES} has no {item['kind']} in {item['apiVersion']}"]
    except kubernetes_validate.ValidationError as error:
        return [_text(error.path, error.message)]
    return []


def _text(path: Any, message: str) -> str:
    where = ".".join(str(part) for part in path) or "(the whole object)"
    return f"{where}: {message if len(message) < 300 else message[:300] + ' …'}"


def _schemas_in(document: object) -> Iterator[tuple[KindVersion, Schema]]:
    if not isinstance(document, dict):
        return
    if document.get("kind") != "CustomResourceDefinition":
        for item in document.get("items") or ():
            yield from _schemas_in(item)
        return
    spec = document["spec"]
    for version in spec["versions"]:
        schema = _strict(version["schema"]["openAPIV3Schema"])
        schema["properties"] = schema.get("properties", {}) | {
            "apiVersion": {},
            "kind": {},
            "metadata": _METADATA,
        }
        yield (f"{spec['group']}/{version['name']}", spec["names"]["kind"]), schema


def _strict(schema: Mapping[str, Any]) -> Schema:
    """A structural schema as JSON Schema: what it doesn't name is refused, unless it says that it stays."""
    strict = {key: value for key, value in schema.items() if not key.startswith("x-kubernetes-")}
    if strict.pop("nullable", False) and "type" in strict:
        strict["type"] = [strict["type"], "null"]
    if "properties" in schema:
        strict["properties"] = {key: _strict(value) for key, value in schema["properties"].items()}
        if not schema.get("x-kubernetes-preserve-unknown-fields"):
            strict.setdefault("additionalProperties", False)
    if isinstance(schema.get("additionalProperties"), dict):
        strict["additionalProperties"] = _strict(schema["additionalProperties"])
    if "items" in schema:
        strict["items"] = _strict(schema["items"])
    return strict
