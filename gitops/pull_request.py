"""Pull requests on GitHub: through the `gh` command where it is signed in, else the REST API with a token."""

import os
import re
import shutil
import subprocess
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from urllib.parse import urlsplit

from gitops.contracts.comparison import Comparison
from gitops.contracts.model import EvaluationReport
from gitops.contracts.serving import ModelVersion
from gitops.errors import GitError
from gitops.findings import Finding, Phase, in_order
from gitops.gates import Arrival

API_URL = "https://api.github.com"
TIMEOUT_S = 30.0
_GH_SECONDS = 120
SHOWN_DISAGREEMENTS = 20
"""Most images that a pull request names; GitHub takes 65,536 characters."""

_LOCATION = re.compile(
    r"^(?:https?://(?:[^@/]+@)?|ssh://(?:[^@/]+@)?|[\w.-]+@)(?P<host>[^/:]+)(?::\d+)?[:/]"
    r"(?P<owner>[^/]+)/(?P<name>[^/]+?)(?:\.git)?/?$"
)


@dataclass(frozen=True)
class Remote:
    """A repository on GitHub, or on a GitHub Enterprise server."""

    host: str
    owner: str
    name: str

    @classmethod
    def of(cls, location: str) -> "Remote | None":
        """The GitHub repository that a Git URL names; None for any other host (Enterprise hosts come from GITHUB_*)."""
        match = _LOCATION.match(location)
        hosts = {"github.com", os.environ.get("GH_HOST", "")}
        hosts |= {urlsplit(os.environ.get(key, "")).hostname or "" for key in ("GITHUB_SERVER_URL", "GITHUB_API_URL")}
        if match is None or match["host"] not in hosts:
            return None
        return cls(match["host"], match["owner"], match["name"])

    def compare_url(self, base: str, branch: str) -> str:
        """The page on which a person opens the pull request."""
        return f"https://{self.host}/{self.owner}/{self.name}/compare/{base}...{branch}?expand=1"


def open_pull_request(remote: Remote, branch: str, base: str, title: str, body: str) -> str | None:
    """Open a pull request, or renew the text of the one that is open; return its URL, or None without credentials.

    Raises:
        GitError: GitHub refuses; the branch is pushed all the same.
    """
    if _gh_is_signed_in(remote):
        return _open_with_gh(remote, branch, base, title, body)
    token = os.environ.get("GITHUB_TOKEN") or os.environ.get("GH_TOKEN")
    return _open_with_api(remote, branch, base, title, body, token) if token else None


def report_markdown(
    version: ModelVersion | None,
    findings: Iterable[Finding],
    comparison: Comparison | str | None = None,
    purpose: str = "",
) -> str:
    """The evaluation of a version and what the gates say of its promotion, for the body of a pull request.

    Args:
        version: what is promoted; None: nothing new, so that there is no evaluation to show.
        findings: of the gates.
        comparison: with the version now served, or why there is none; None: nothing is said of it.
        purpose: what the pull request does, where its title does not say it all.
    """
    if version is None:
        return "\n\n".join([*filter(None, [purpose]), _gate_table(findings)]) + "\n"
    parts = [
        *filter(None, [purpose]),
        _judged(version),
        _gate_table(findings),
        *([] if comparison is None else [comparison_markdown(comparison)]),
        *_beside(version, None),
        *_details(version),
    ]
    return "\n\n".join(parts) + "\n"


def change_markdown(findings: Iterable[Finding], arrivals: Iterable[Arrival]) -> str:
    """What the gates say of a change and the evaluation of each version that it brings, for a comment.

    Args:
        findings: of the gates.
        arrivals: the versions, and where they go.
    """
    parts = [_gate_table(findings)]
    for arrival in arrivals:
        version = arrival.version
        parts += [f"#### {arrival.target}", _judged(version), *_beside(version, arrival.served), *_details(version)]
    return "\n\n".join(parts) + "\n"


def _gate_table(findings: Iterable[Finding]) -> str:
    return _table(("gate", "", "found"), [_finding_row(finding) for finding in in_order(findings)])


def _judged(version: ModelVersion) -> str:
    model = version.model
    return f"**{model.name} {model.version}**, judged on {version.evaluation.images} images that nothing was fitted to."


def _beside(version: ModelVersion, served: ModelVersion | None) -> Iterator[str]:
    """The metrics of a version, and of the one that is served."""
    found = version.evaluation.metrics
    if served is None:
        yield _table(("metric", "value"), [(name, _figure(found, name)) for name in found])
        return
    now = served.evaluation.metrics
    new, old = (f"{one.model.name} {one.model.version}" for one in (version, served))
    rows = [(name, _figure(found, name), _figure(now, name)) for name in {**found, **now}]
    yield _table(("metric", new, f"{old}, now served"), rows)
    if version.evaluation.dataset == served.evaluation.dataset:
        yield "Both were judged on the same dataset; image by image they are compared by `mergeline compare`."
    else:
        yield "Mind: they were judged on different datasets, so a difference may be one of the images."


def _figure(metrics: Mapping[str, float], name: str) -> str:
    return f"{metrics[name]:.4f}" if name in metrics else "–"


def _details(version: ModelVersion) -> Iterator[str]:
    """The confusion, the types of defects and the origin."""
    report, model = version.evaluation, version.model
    yield "Confusion (truth by row):\n\n" + _confusion(report)
    if report.per_kind:
        rows = [(kind, f"{found['recall']:.3f}", f"{found['images']:.0f}") for kind, found in report.per_kind.items()]
        yield "By type of defect:\n\n" + _table(("type", "recall", "images"), rows)
    origin = [
        ("bundle", f"`{model.uri}`"),
        ("SHA-256", f"`{model.sha256}`"),
        ("dataset", f"`{report.dataset}`"),
        ("threshold", f"{report.threshold.value:.4f} ({report.threshold.split}): {report.threshold.method}"),
        ("MLflow run", f"`{version.mlflow_run_id}`"),
        ("registered", version.created),
    ]
    yield _table(("origin", ""), origin)


def comparison_markdown(comparison: Comparison | str) -> str:
    """What a version gains and loses against the one now served; a text says why nobody knows."""
    if isinstance(comparison, str):
        return f"Not compared with what is served now: {' '.join(comparison.split())}"
    a, b, test = comparison.a.model, comparison.b.model, comparison.mcnemar
    one, other = f"{a.name} {a.version}", f"{b.name} {b.version}"
    rows = [
        (name, f"{found.a:.4f}", f"{found.b:.4f}", f"{found.difference:+.4f}", f"{found.low:+.4f} to {found.high:+.4f}")
        for name, found in comparison.metrics.items()
    ]
    left_out = f"; {len(comparison.left_out)} are left out, because one of the two was fitted to them or lookalikes"
    parts = [
        f"**{other} against {one}**, now served, on the same {comparison.images} held-out images of dataset "
        f"`{comparison.dataset[:12]}`{left_out if comparison.left_out else ''}:",
        _table(("metric", one, other, "difference", "95 % interval"), rows),
        f"Images that only {one} judges right: {test.only_a_right}; only {other}: {test.only_b_right} "
        f"(McNemar's exact test: {test.p_text}).",
        *([f"On {comparison.newcomers.summary}."] if comparison.newcomers else []),
        *(f"Mind: {warning}." for warning in comparison.warnings),
    ]
    if found := comparison.disagreements:
        shown = [
            (item.filename, item.label, f"{item.a} ({item.a_score:.3f})", f"{item.b} ({item.b_score:.3f})")
            for item in found[:SHOWN_DISAGREEMENTS]
        ]
        more = f", the first {SHOWN_DISAGREEMENTS} of them" if len(found) > SHOWN_DISAGREEMENTS else ""
        title = f"They judge {len(found)} images differently{more} (scores in brackets):"
        parts += [title, _table(("file", "truth", one, other), shown)]
    return "\n\n".join(parts)


def _finding_row(finding: Finding) -> tuple[str, str, str]:
    mark = {Phase.SUCCESS: "✅", Phase.FAILURE: "❌", Phase.SKIPPED: "skipped"}[finding.phase]
    return finding.key, mark, finding.reason + (f". To do: {finding.remedy}" if finding.remedy else "")


def _confusion(report: EvaluationReport) -> str:
    columns = sorted({label for row in report.confusion.values() for label in row}, key=list(report.confusion).index)
    rows = [(truth, *(str(row.get(label, 0)) for label in columns)) for truth, row in report.confusion.items()]
    return _table(("", *columns), rows)


def _table(header: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    def line(cells: Iterable[str]) -> str:
        return "| " + " | ".join(cell.replace("|", "\\|").replace("\n", " ") for cell in cells) + " |"

    return "\n".join([line(header), line("---" for _ in header), *(line(row) for row in rows)])


def _gh_is_signed_in(remote: Remote) -> bool:
    return shutil.which("gh") is not None and _gh("auth", "status", "--hostname", remote.host).returncode == 0


def _open_with_gh(remote: Remote, branch: str, base: str, title: str, body: str) -> str:
    place = ("--repo", f"{remote.host}/{remote.owner}/{remote.name}")
    found = _gh("pr", "list", *place, "--head", branch, "--base", base, "--json", "url", "--jq", ".[].url")
    if url := found.stdout.strip():
        done = _gh("pr", "edit", url.split()[0], *place, "--title", title, "--body-file", "-", text=body)
    else:
        options = ("--head", branch, "--base", base, "--title", title, "--body-file", "-")
        done = _gh("pr", "create", *place, *options, text=body)
    if done.returncode != 0:
        raise GitError(f"gh could not open the pull request of {branch}, which is pushed: {done.stderr.strip()}")
    return done.stdout.strip().split()[-1] if done.stdout.strip() else url.split()[0]


def _gh(*arguments: str, text: str = "") -> "subprocess.CompletedProcess[str]":
    environment = os.environ | {"GH_PROMPT_DISABLED": "1", "NO_COLOR": "1"}
    try:
        return subprocess.run(
            ["gh", *arguments],
            input=text,
            capture_output=True,
            text=True,
            env=environment,
            timeout=_GH_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise GitError(
            f"gh did not answer within {_GH_SECONDS} s; the branch is pushed: run the command again, or open the pull "
            "request by hand"
        ) from error


def _open_with_api(remote: Remote, branch: str, base: str, title: str, body: str, token: str) -> str:
    import httpx

    headers = {"Authorization": f"Bearer {token}", "Accept": "application/vnd.github+json"}
    server = os.environ.get("GITHUB_API_URL") or API_URL
    pulls = f"{server.rstrip('/')}/repos/{remote.owner}/{remote.name}/pulls"
    with httpx.Client(headers=headers, timeout=TIMEOUT_S) as client:

        def ask(method: str, url: str, **options: Mapping[str, str]) -> list[dict[str, str]]:
            try:
                answer = client.request(method, url, params=options.get("params"), json=options.get("json"))
            except httpx.HTTPError as error:
                raise GitError(
                    f"cannot reach {url}: {error}; {branch} is pushed, open the pull request there"
                ) from error
            if answer.is_error:
                raise GitError(f"GitHub refuses the pull request of {branch} ({answer.status_code}): {answer.text}")
            data = answer.json()
            return data if isinstance(data, list) else [data]

        query = {"head": f"{remote.owner}:{branch}", "base": base, "state": "open"}
        if found := ask("GET", pulls, params=query):
            return ask("PATCH", found[0]["url"], json={"title": title, "body": body})[0]["html_url"]
        new = {"title": title, "head": branch, "base": base, "body": body}
        return ask("POST", pulls, json=new)[0]["html_url"]
