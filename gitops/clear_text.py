"""Finds secrets that stand in clear: by the names of variables and keys, and by values that can be nothing else."""

import json
import re
from collections.abc import Iterator, Mapping
from itertools import pairwise
from typing import Any

from gitops import bounded_yaml
from gitops.errors import ContractError
from gitops.findings import Finding, refuse
from gitops.objects import Object, at, group_of, mappings, name_of, texts

_NAME = re.compile(
    r"(?i)(pass(word|wd|phrase)s?|(?<=[_-])(pass|pwd|pat)|tokens?|secrets?|credentials?|bearer|authorization"
    r"|connection_?string|(redis|basic|http)[_-]?auth"
    r"|(access|account|api|encryption|master|private|secret|signing|ssh|storage|tls)[_-]?key(_id)?)([_-]?\d+)?\Z"
)
_KEY = re.compile(r"(?<!PUBLIC)(?<!PARTITION)(?<!KMS)_KEY(_ID|_\d+)?\Z")
"""Variables are in capitals; in small letters a key is more often that of a mapping."""
# Values by which nobody gets in: a variable, a template's, a switch, a scheme, where another keeps it; a file's path;
# a number, where it is no password.
_NONE = re.compile(r"\$|\{\{|(?i:true|false|bearer)\Z|\Z|arn:|op://|ref\+[a-z0-9]+://|vault:|projects/[\w-]+/secrets/")
_PLACE = re.compile(
    r"(?i)(file://)?(/(etc|mnt|opt|run|secrets?|srv|tmp|var|vault)/[\w./-]+|(/[\w.-]+)+\.(crt|json|key|pem|txt|ya?ml))\Z"
)
_NUMBER = re.compile(r"-?[0-9.]*\Z")
_PASSWORD = re.compile(r"(?i)pass|pwd|pin\Z")
_SECRETS_NAME = re.compile(r"((pull)?secret:)?[a-z0-9.-]+(/[a-z0-9._-]+)*(#[\w.-]+)?\Z")
"""With what Argo CD's Image Updater writes around it."""
_REFERRING = re.compile(r"/.*-secret\Z|/agent-inject-secret-")
"""Annotations that name a Secret, or for Vault's agent a place in Vault."""
_VALUES = {
    "a password in a URL": re.compile(r"(?i)\b[a-z][a-z0-9+.-]{0,20}://[^\s/:@]{0,99}:(?![$<{])[^\s/@]+@"),
    "a private key": re.compile(r"-----BEGIN [A-Z ]*PRIVATE KEY-----"),
    "a token": re.compile(
        r"\b(gh[oprsu]_\w{30}|github_pat_\w{22}|glpat-[\w-]{20}|xox[abp]-[\w-]{10}|AKIA[0-9A-Z]{16}\b|hf_[A-Za-z]{30})"
        r"|\beyJ[\w-]{10,}\.eyJ[\w-]{10,}\."
        r"|\bhooks\.slack\.com/services/T\w+/B\w+/\w{10}"
        r"|\bBearer (?=\S*[0-9A-Z])[\w.~+/=-]{10}|\bAccountKey=\w"
    ),
    "a password in an option": re.compile(
        r"(?i)(?<!\S)--[a-z-]*(password|passwd|secret|token|api-key)[= ](?![$<{-]|(true|false)\b)\S"
    ),
}
_ASSIGNED = re.compile(r"(?m)(?:^|(?<=[\s;&|(]))([A-Z][A-Z0-9_]*)=[\"']?(?P<value>[^\s;&|\"']*)")
"""As a shell takes it, in any text."""
_WRITTEN = re.compile(
    r"(?m)(?:^|[{,])[ \t]*[\"']?([A-Za-z][\w.-]*)[\"']?[ \t]*[:=][ \t]*[\"']?(?P<value>[^\s\"',}{\[][^\s\"',}]*)"
)
"""As JSON, YAML and INI files have it, of which ConfigMaps are made."""
_OPTION = re.compile(r"--[a-z-]*(password|passwd|secret|token|api-key)\Z")
_ELSEWHERE = "take it from a Secret with `valueFrom.secretKeyRef`"
_JUDGED_APART = ("spec.serveConfigV2", "spec.template.metadata.annotations.serve-config")


def refusals(item: Object) -> Iterator[Finding]:
    """What an object holds in clear."""
    if item["kind"] == "Secret" and group_of(item) == "":
        if item.get("data") or item.get("stringData"):
            remedy = "make it by hand, or let External Secrets or Sealed Secrets do it"
            yield refuse("secret", f"{name_of(item)} would lie in Git in clear (base64 hides nothing)", remedy)
        return
    if item["kind"] == "SealedSecret" and isinstance(item.get("spec"), dict):
        item = {**item, "spec": {key: value for key, value in item["spec"].items() if key != "encryptedData"}}
    yield from refusals_in(item, name_of(item), item["kind"])


def refusals_in(value: Mapping[str, Any], source: str, kind: str = "") -> Iterator[Finding]:
    """What a value holds in clear.

    Args:
        value: an object or a configuration.
        source: named in errors.
        kind: the object's; empty: it is none of Kubernetes.
    """
    for path, inner in mappings(value):
        named = {str(inner.get("name")): inner.get("value")}
        keys = {str(key): at(found, "value") if isinstance(found, dict) else found for key, found in inner.items()}
        for name, found in (named | keys).items():
            if isinstance(found, str) and _is_secret(name, found) and not _names_one(path, name, found, kind):
                yield refuse("secret", f"{source}: {path or 'the top level'}: {name} stands there in clear", _ELSEWHERE)
    yield from _options(value, source)
    for path, text in texts(value):
        if path in _JUDGED_APART:
            continue
        if kind == "ConfigMap" and (document := _document(text)):
            yield from refusals_in({"": document}, f"{source}: {path}")
            continue
        for what, pattern in _VALUES.items():
            if pattern.search(text):
                yield refuse("secret", f"{source}: {path} holds {what}", _ELSEWHERE)
        found = [*_ASSIGNED.finditer(text), *(_WRITTEN.finditer(text) if kind == "ConfigMap" else ())]
        for name in dict.fromkeys(line[1] for line in found if _is_secret(line[1], line["value"])):
            yield refuse("secret", f"{source}: {path}: {name} stands there in clear", _ELSEWHERE)


def _document(text: str) -> Any:
    """What a text holds as JSON, such as a dashboard, in whose words a colon says nothing; None: another text."""
    try:
        found = json.loads(text, parse_int=str, parse_float=str)  # a password may be a number
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, dict | list) else None


def _options(value: Any, source: str) -> Iterator[Finding]:
    """Options whose value is the argument behind them; and environments of Ray's jobs, which are YAML in a text."""
    for path, inner in mappings(value):
        for key, found in inner.items():
            where = f"{path}.{key}".lstrip(".")
            for option, argument in pairwise(found) if isinstance(found, list) else ():
                are_texts = isinstance(option, str) and isinstance(argument, str)
                if are_texts and _OPTION.match(option) and not (_NONE.match(argument) or argument.startswith("-")):
                    yield refuse("secret", f"{source}: {where}: {option} stands there in clear", _ELSEWHERE)
            if key == "runtimeEnvYAML" and isinstance(found, str):
                try:
                    environment = bounded_yaml.load(found, where)
                except ContractError:  # of that the gate `working-dir` says more
                    continue
                yield from refusals_in({"": environment}, f"{source}: {where}")


def _is_secret(name: str, value: str) -> bool:
    harmless = _NONE.match(value) or _PLACE.match(value) or (_NUMBER.match(value) and not _PASSWORD.search(name))
    return bool(_NAME.search(name) or _KEY.search(name)) and not harmless


def _names_one(path: str, name: str, value: str, kind: str) -> bool:
    """Whether the value is the name of a Secret, or of a key in one, as controllers take them."""
    if kind == "ResourceQuota":  # it counts them
        return True
    if kind.endswith("ExternalSecret"):
        return name == "secretKey"
    is_annotation = _REFERRING.search(name) is not None and path.endswith("annotations")
    is_reference = name in ("secret", "secretName") or name.endswith("Secret") or is_annotation
    return kind not in ("", "ConfigMap") and is_reference and _SECRETS_NAME.match(value) is not None
