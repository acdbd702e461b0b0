"""The alert rules and dashboards as a cluster takes them: `python -m monitoring.manifests`, after a change of either.

It writes into `monitoring/cluster/`, whose kustomization Argo CD syncs. There is one source for both places: the rules
that Prometheus reads on one machine, and the dashboards that `mergeline monitor publish` puts into a Grafana.
"""

import io
from collections.abc import Iterator
from pathlib import Path

from ruamel.yaml import YAML

from monitoring.configuration import rule_files
from monitoring.dashboards import dashboards

FOLDER = Path(__file__).parent / "cluster"
_MADE = "# Made of ../alerts by `python -m monitoring.manifests`.\n"


def manifests() -> Iterator[tuple[str, str]]:
    """Names below the folder, and texts."""
    yaml, text = YAML(typ="safe", pure=True), io.StringIO(_MADE)
    yaml.default_flow_style = False
    yaml.width = 1000
    text.seek(0, io.SEEK_END)
    rules = [
        {
            "apiVersion": "monitoring.coreos.com/v1",
            "kind": "PrometheusRule",
            "metadata": {"name": f"mergeline-{file.name.removesuffix('.rules.yml')}"},
            "spec": YAML(typ="safe").load(file.read_text()),
        }
        for file in rule_files()
    ]
    yaml.dump_all(rules, text)
    yield "prometheus-rules.yaml", text.getvalue()
    for board in dashboards():
        yield f"dashboards/{board.uid}.json", board.json


def main() -> None:
    """Write them."""
    for name, text in manifests():
        file = FOLDER / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)


if __name__ == "__main__":
    main()
