"""The alert rules: Prometheus's own checks of them, and a page on what to do for each."""

import shutil
import subprocess
from pathlib import Path

import pytest
from ruamel.yaml import YAML

from monitoring.configuration import ALERTS, rule_files

ROOT = Path(__file__).parents[2]
needs_promtool = pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool is not installed: `make test`")
TESTS = sorted(ALERTS.glob("*.test.yml"))


def alerts(file: Path) -> list[dict[str, object]]:
    groups = YAML(typ="safe").load(file.read_text())["groups"]
    return [rule for group in groups for rule in group["rules"] if "alert" in rule]


def promtool(*words: str) -> None:
    result = subprocess.run(["promtool", *words], cwd=ALERTS, capture_output=True, text=True, timeout=60, check=False)
    assert result.returncode == 0, result.stdout + result.stderr


@needs_promtool
def test_promtool_finds_the_rules_right() -> None:
    promtool("check", "rules", *map(str, rule_files()))


@needs_promtool
@pytest.mark.parametrize("file", TESTS, ids=lambda file: file.stem)
def test_alerts_fire_when_they_should(file: Path) -> None:
    promtool("test", "rules", file.name)


@pytest.mark.parametrize("file", rule_files(), ids=lambda file: file.stem)
def test_every_alert_has_a_test_a_severity_and_a_page(file: Path) -> None:
    found = alerts(file)
    assert found
    tested = file.with_name(file.name.replace(".rules.", ".test.")).read_text()
    for alert in found:
        assert f"alertname: {alert['alert']}\n" in tested
        assert isinstance(alert["labels"], dict)
        asks = {"retrain": "true"} if "retrain" in alert["labels"] else {}
        assert alert["labels"] in ({"severity": "page"} | asks, {"severity": "ticket"} | asks)
        annotations = alert["annotations"]
        assert isinstance(annotations, dict)
        page = ROOT / annotations["runbook_url"]
        assert page.exists(), page
        assert f"`{alert['alert']}`" in page.read_text()


def test_every_page_is_of_an_alert() -> None:
    named = {str(alert["annotations"]["runbook_url"]) for file in rule_files() for alert in alerts(file)}  # type: ignore[index]
    assert named == {f"docs/runbooks/{page.name}" for page in (ROOT / "docs" / "runbooks").glob("*.md")}
