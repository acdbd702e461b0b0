"""Watching the line: what is measured, the alerts, the dashboards, and drift."""

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.text import Text

from gitops.errors import MergelineError
from gitops.monitor import Monitor, monitor_of
from gitops.state import State, write_atomically
from mergeline.options import PROJECT, STATE, Environment, Json, ProjectFile, StateFolder, environment_of
from mergeline.output import Prose, say, say_json, say_table

if TYPE_CHECKING:
    from ray_jobs.monitor import MonitorStatus

app = typer.Typer()
monitor = typer.Typer(no_args_is_help=True, help="Watch it: Prometheus, Alertmanager, and dashboards for Grafana.")
app.add_typer(monitor, name="monitor")


@monitor.command(name="up")
def monitor_up(
    state: StateFolder = STATE,
    webhook: Annotated[
        str | None, typer.Option("--webhook", help="URL that alerts are sent to; empty: none any more.")
    ] = None,
    retention: Annotated[str, typer.Option("--retention", help="How long samples are kept, as 12h or 15d.")] = "15d",
    port: Annotated[int, typer.Option(min=1, max=65535, help="Prometheus's port, if it is free.")] = 9090,
    print_config: Annotated[
        bool,
        typer.Option("--print-config", help="Print the configuration for a Prometheus of your own; start nothing."),
    ] = False,
) -> None:
    """Start Prometheus and Alertmanager for the state folder, on loopback; ones that run read their rules anew."""
    from ray_jobs import monitor as monitoring

    place = State.at(state)
    if print_config:
        for name, text in monitoring.configurations(place, "127.0.0.1:9093", webhook).items():
            print(f"--- # {name}\n{text}", end="")
        return
    _print_addresses(monitoring.up(place, webhook=webhook, retention=retention, port=port))


@monitor.command(name="down")
def monitor_down(state: StateFolder = STATE) -> None:
    """End what `monitor up` started for the state folder; what was measured stays."""
    from ray_jobs import monitor as monitoring

    count = monitoring.down(State.at(state))
    say(f"ended {count} processes" if count else f"nothing watches {state}")


@monitor.command(name="status")
def monitor_status(state: StateFolder = STATE, as_json: Json = False) -> None:
    """Say what is scraped and which alerts there are; exit status 1 if something is not, or an alert fires."""
    from ray_jobs import monitor as monitoring

    found = monitoring.status(State.at(state))
    if as_json:
        say_json(found.model_dump(mode="json"))
    else:
        _print_monitor(found)
    if not all(target.up for target in found.targets) or any(alert.state == "firing" for alert in found.alerts):
        raise typer.Exit(1)


def _print_addresses(running: Monitor) -> None:
    say(f"Prometheus    {running.prometheus}")
    say(f"Alertmanager  {running.alertmanager}")


def _print_monitor(found: "MonitorStatus") -> None:
    _print_addresses(found.monitor)
    scraped = [
        (target.job, target.address, Text("up", "green") if target.up else Text("down", "red"), target.error)
        for target in found.targets
    ]
    say_table("scraped", "address", "", Prose(), rows=scraped)
    if not found.alerts:
        say("no alerts")
        return
    alerts = [
        (alert.name, Text(alert.state, "red" if alert.state == "firing" else "yellow"), alert.summary, alert.runbook)
        for alert in found.alerts
    ]
    say_table("alert", "", Prose("what"), "what to do", rows=alerts)


@monitor.command(name="dashboards")
def monitor_dashboards(
    folder: Annotated[Path, typer.Argument(help="Folder to write into: a JSON file for each.")],
) -> None:
    """Write the dashboards as JSON, for Grafana's provisioning or its sidecar."""
    from monitoring.dashboards import dashboards

    for dashboard in dashboards():
        write_atomically(folder / f"{dashboard.uid}.json", dashboard.json)
    say(f"written to {folder}")


@monitor.command(name="publish")
def monitor_publish(
    grafana: Annotated[str, typer.Option("--grafana", help="Grafana's URL; its token in GRAFANA_TOKEN.")],
    prometheus: Annotated[
        str | None,
        typer.Option("--prometheus", help="Prometheus's URL as Grafana reaches it; the state folder's if not given."),
    ] = None,
    state: StateFolder = STATE,
) -> None:
    """Publish the dashboards, their folder and the data source to a Grafana; removes only what it once put there."""
    from ray_jobs import grafana as publishing

    running = None if prometheus else monitor_of(State.at(state))
    url = prometheus or (running and running.prometheus)
    if not url:
        raise MergelineError(
            f"no Prometheus is known for {state}: run `mergeline monitor up`, or give --prometheus URL"
        )
    for line in publishing.publish(grafana, os.environ.get(publishing.TOKEN_VARIABLE, ""), url):
        say(line)


@app.command()
def drift(
    env: Environment = None,
    folder: Annotated[
        Path | None,
        typer.Option(
            "--folder",
            exists=True,
            file_okay=False,
            help="`args.windows` of the environment; the state folder's if not given.",
        ),
    ] = None,
    limit: Annotated[int, typer.Option("--limit", min=1, help="Windows to list, the latest ones.")] = 20,
    project: ProjectFile = PROJECT,
    state: StateFolder = STATE,
    as_json: Json = False,
) -> None:
    """List the windows of photographs that were judged, oldest first, and what drifted in them."""
    place = folder or State.at(state).windows / environment_of(project, env)
    from serve import windows

    found = windows.windows_below(place)[-limit:]
    if as_json:
        say_json([window.model_dump(mode="json") for window in found])
        return
    if not found:
        say(f"no window of photographs lies in {place} yet: it takes traffic, and args.windows")
        return
    colors = {"drifted": "red", "stable": "green", "too_few": "yellow"}
    rows = []
    for window in found:
        ended = window.ended_at.astimezone().strftime("%Y-%m-%d %H:%M:%S")
        said = Text(window.outcome.replace("_", " "), colors[window.outcome])
        drifted = ", ".join(f"{one.feature} ({one.statistic} {one.value:.2f})" for one in window.drifted)
        rows.append((ended, window.application, window.model.version, str(window.photographs), said, drifted))
    say_table("ended", "application", "version", "photographs", "outcome", Prose("what drifted"), rows=rows)
