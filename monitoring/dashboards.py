"""Grafana's dashboards as code: what each panel asks Prometheus, and how it is drawn.

They suit any Grafana, and any data source of the kind Prometheus; `mergeline monitor dashboards` writes their JSON.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

from grafana_foundation_sdk.builders import dashboard as builders
from grafana_foundation_sdk.builders import prometheus, stat, table, timeseries
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models import dashboard as models
from grafana_foundation_sdk.models.common import DataSourceRef
from grafana_foundation_sdk.models.prometheus import PromQueryFormat

from monitoring import metrics as m

TAG = "mergeline"
"""Every dashboard has it, and begins its uid with it."""
_WIDE, _HALF, _THIRD = 24, 12, 8  # of Grafana's 24 columns
_HEIGHT = 8
_DATA = DataSourceRef(type_val="prometheus", uid="${datasource}")
_RATE = "$__rate_interval"
_SERVICE = "http://127.0.0.1:8000"
"""Of `mergeline up`; people write theirs in its place."""
_Kind = Literal["lines", "figure", "table"]


@dataclass(frozen=True)
class Query:
    """A question in PromQL."""

    expression: str
    legend: str = "__auto"


@dataclass(frozen=True)
class Panel:
    """A picture of some queries."""

    title: str
    queries: tuple[Query, ...]
    unit: str = "short"
    """Grafana's name of the unit."""
    kind: _Kind = "lines"
    about: str = ""
    """What one should know to read it."""
    width: int = _HALF


@dataclass(frozen=True)
class Row:
    """Panels under a heading."""

    title: str
    panels: tuple[Panel, ...]


@dataclass(frozen=True)
class Variable:
    """A choice at the top of a dashboard: values of a label."""

    name: str
    metric: str


@dataclass(frozen=True)
class Dashboard:
    """A dashboard."""

    uid: str
    title: str
    rows: tuple[Row, ...]
    variables: tuple[Variable, ...] = ()
    links: tuple[tuple[str, str], ...] = field(default=())
    """Title and uid of others: Ray's own, which Ray itself generates."""
    service_link: str = ""
    """Title of a link to the service's page, whose address is a choice at the top; empty: there is none."""

    @property
    def panels(self) -> tuple[Panel, ...]:
        """The panels of all rows."""
        return tuple(panel for row in self.rows for panel in row.panels)

    @property
    def json(self) -> str:
        """What Grafana takes; the same dashboard always gives the same text."""
        return JSONEncoder(sort_keys=True, indent=2).encode(_built(self)) + "\n"


# --- PromQL -----------------------------------------------------------------------------------------------------------

# On a cluster an environment is a namespace; on one machine there is none, and the choice of all takes that as well.
_APPLICATION = 'namespace=~"$namespace", application=~"$application"'


def _rate(metric: str, by: str, where: str = _APPLICATION) -> str:
    return f"sum by ({by}) (rate({metric}{{{where}}}[{_RATE}]))"


def _quantile(share: float, metric: m.Metric, by: str, where: str = _APPLICATION) -> str:
    return f"histogram_quantile({share}, {_rate(metric.exported + '_bucket', f'le, {by}', where)})"


def _mean(metric: m.Metric, by: str) -> str:
    # Where nothing came there is no mean, rather than one of 0/0.
    return f"{_rate(metric.exported + '_sum', by)} / ({_rate(metric.exported + '_count', by)} > 0)"


def _budget_left(bad: str, all_: str, budget: float) -> str:
    """The share of the error budget that is left of 30 days."""
    by = "by (namespace, application)"
    spent = f"(sum {by} (increase({bad}[30d])) or 0 * sum {by} (increase({all_}[30d])))"
    return f"1 - {spent} / (sum {by} (increase({all_}[30d])) > 0) / {budget}"


_POSTS = f'method="POST", {_APPLICATION}'
_HTTP = f"ray_serve_num_http_requests_total{{{_POSTS}}}"
_HTTP_ERRORS = f'ray_serve_num_http_requests_total{{{_POSTS}, status_code=~"5.."}}'


def _lines(title: str, expression: str, legend: str, unit: str = "short", about: str = "", width: int = _HALF) -> Panel:
    return Panel(title, (Query(expression, legend),), unit, "lines", about, width)


# --- the dashboards ---------------------------------------------------------------------------------------------------


def _serving() -> Dashboard:
    quantiles = tuple(
        Query(_quantile(share, m.REQUEST_SECONDS, "model_version"), f"version {{{{model_version}}}} p{share * 100:.0f}")
        for share in (0.5, 0.99)
    )
    scores = tuple(
        Query(_quantile(share, m.SCORES, "model_version"), f"version {{{{model_version}}}} p{share * 100:.0f}")
        for share in (0.1, 0.5, 0.9)
    )
    objectives = Row(
        "Objectives",
        (
            Panel(
                "Error budget left",
                (Query(_budget_left(_HTTP_ERRORS, _HTTP, 0.005), "{{application}}"),),
                "percentunit",
                "figure",
                "Of 30 days: 99.5 % of the requests to judge are answered without a status 5xx.",
                _THIRD,
            ),
            _lines(
                "Errors",
                "mergeline:errors:ratio_rate5m{" + _APPLICATION + "}",
                "{{application}}",
                "percentunit",
                "",
                _THIRD,
            ),
            _lines(
                "Later than half a second",
                "mergeline:slow:ratio_rate5m{" + _APPLICATION + "}",
                "{{application}}",
                "percentunit",
                "1 % are allowed over 30 days.",
                _THIRD,
            ),
        ),
    )
    versions = Row(
        "By model version",
        (
            _lines(
                "Requests",
                _rate(m.REQUESTS.exported, "model_version, outcome"),
                "version {{model_version}} {{outcome}}",
                "reqps",
            ),
            Panel("Time to the answer", quantiles, "s", about="In the replica; what waits for one is not in it."),
            Panel(
                "Photographs judged",
                (
                    Query(_rate(m.JUDGEMENTS.exported, "model_version, label"), "version {{model_version}} {{label}}"),
                    Query(
                        _rate(m.SHADOW_JUDGEMENTS.exported, "model_version, label"),
                        "shadow of version {{model_version}} {{label}}",
                    ),
                ),
                "ops",
                about="A shadow's are not answered.",
            ),
            Panel("Scores", scores, "percentunit", about="The probability that a part is not good."),
        ),
    )
    inside = Row(
        "Inside of the replicas",
        (
            _lines(
                "Time by stage, mean",
                _mean(m.REQUEST_STAGE_SECONDS, "stage"),
                "{{stage}}",
                "s",
                "About: Ray takes each time for the middle of its histogram's bucket.",
            ),
            _lines("Photographs of a request, mean", _mean(m.REQUEST_PHOTOGRAPHS, "application"), "{{application}}"),
            _lines(
                "Requests in replicas",
                f"sum by (application, deployment) (ray_serve_replica_processing_queries{{{_APPLICATION}}})",
                "{{application}} {{deployment}}",
            ),
            _lines(
                "Healthy replicas",
                f"sum by (application, deployment) (ray_serve_deployment_replica_healthy{{{_APPLICATION}}})",
                "{{application}} {{deployment}}",
            ),
            _lines("Refusals", _rate(m.REFUSALS.exported, "status"), "{{status}}", "ops"),
            _lines(
                "Bundles loaded",
                f"sum by (outcome) (increase({m.MODEL_LOADS.exported}{{{_APPLICATION}}}[1h]))",
                "{{outcome}}",
                about="In the hour before.",
            ),
        ),
    )
    said = Row(
        "What others say",
        (
            _lines(
                "Feedback",
                f"sum by (model_version, agreement) (increase({m.FEEDBACK.exported}{{{_APPLICATION}}}[1h]))",
                "version {{model_version}} {{agreement}}",
                about="In the hour before.",
            ),
            _lines(
                "Shadow",
                _rate(m.SHADOW_PHOTOGRAPHS.exported, "model_version, outcome"),
                "version {{model_version}} {{outcome}}",
                "ops",
            ),
        ),
    )
    return Dashboard(
        "mergeline-serving",
        "Mergeline: serving",
        (objectives, versions, inside, said),
        (Variable("namespace", m.REQUESTS.exported), Variable("application", m.REQUESTS.exported)),
        (("Ray Serve", "rayServeDashboard"),),
    )


def _line() -> Dashboard:
    project = 'project=~"$project"'

    def newest(metric: m.Metric, by: str) -> str:
        # Each reconciler of a state folder exports the same.
        return f"max by ({by}) ({metric.exported}{{{project}}})"

    by = "project, stage"
    jobs = Row(
        "Jobs",
        (
            _lines("Running", newest(m.STAGE_RUNNING, by), "{{project}} {{stage}}"),
            _lines("Duration of the last run", newest(m.STAGE_SECONDS, by), "{{project}} {{stage}}", "s"),
            Panel(
                "Runs",
                (Query(newest(m.STAGE_RUNS, "project, stage, outcome"), "{{stage}} {{outcome}}"),),
                kind="table",
                about="Since the state folder was made.",
            ),
            _lines(
                "Since the last progress",
                f"(time() - {newest(m.STAGE_PROGRESS, by)}) * {newest(m.STAGE_RUNNING, by)}",
                "{{project}} {{stage}}",
                "s",
                "Of stages that run; one that was killed grows until it is begun again.",
            ),
        ),
    )
    data = Row(
        "Datasets",
        (
            _lines("Images of the newest", newest(m.DATASET_IMAGES, "project, split, label"), "{{split}} {{label}}"),
            _lines("Set aside", newest(m.DATASET_SET_ASIDE, "project"), "{{project}}"),
            _lines(
                "What the served version was trained on",
                f"max by (environment, application, model, model_version, split) ({m.SERVED_DATASET_IMAGES.exported})",
                "{{environment}} {{application}} {{model}} version {{model_version}} {{split}}",
            ),
        ),
    )
    evaluation = Row(
        "Evaluation of what is served",
        (
            _lines(
                "Figures",
                "max by (environment, application, model, model_version, metric) "
                f'({m.EVALUATION.exported}{{metric=~"accuracy|balanced_accuracy|auroc|recall|precision"}})',
                "{{environment}} {{application}} {{model}} version {{model_version}} {{metric}}",
                "percentunit",
                "On held-out images; a step is a promotion.",
            ),
            _lines(
                "Loss",
                f'max by (environment, application, model, model_version) ({m.EVALUATION.exported}{{metric="loss"}})',
                "{{environment}} {{application}} {{model}} version {{model_version}}",
                about="In nats.",
            ),
        ),
    )
    return Dashboard(
        "mergeline-line",
        "Mergeline: the line",
        (jobs, data, evaluation),
        (Variable("project", m.STAGE_RUNNING.exported),),
        (("Ray Train", "rayTrainDashboard"), ("Ray Data", "rayDataDashboard")),
    )


def _drift() -> Dashboard:
    version = "version {{model_version}}"
    return Dashboard(
        "mergeline-drift",
        "Mergeline: drift",
        (
            Row(
                "Drift",
                (
                    _lines(
                        "Detected",
                        f"max by (application, model_version, kind) ({m.DRIFT_DETECTED.exported}{{{_APPLICATION}}})",
                        f"{version} {{{{kind}}}}",
                        about="1: the last window differs from the reference in the bundle.",
                    ),
                    Panel(
                        "Drifting for",
                        (
                            Query(
                                f"time() - (max by (namespace, application, model_version) "
                                f"({m.DRIFT_SINCE.exported}{{{_APPLICATION}}}) > 0)",
                                f"{{{{application}}}} {version}",
                            ),
                        ),
                        "s",
                        "figure",
                        "Since the first of the windows in a row that drifted; empty: the last one did not.",
                    ),
                    _lines(
                        "Windows",
                        f"sum by (model_version, outcome) (increase({m.DRIFT_WINDOWS.exported}{{{_APPLICATION}}}[1h]))",
                        f"{version} {{{{outcome}}}}",
                        about="In the hour before.",
                    ),
                    _lines(
                        "Statistics",
                        f"max by (model_version, feature, statistic) ({m.DRIFT_STATISTIC.exported}{{{_APPLICATION}}})",
                        f"{version} {{{{feature}}}} {{{{statistic}}}}",
                    ),
                    _lines(
                        "p values",
                        f"min by (model_version, feature, statistic) ({m.DRIFT_P_VALUE.exported}{{{_APPLICATION}}})",
                        f"{version} {{{{feature}}}} {{{{statistic}}}}",
                        about="Corrected for many tests.",
                    ),
                    _lines("Samples", _rate(m.DRIFT_SAMPLES.exported, "outcome"), "{{outcome}}", "ops"),
                ),
            ),
            Row(
                "Accuracy from feedback",
                (
                    _lines(
                        "Live accuracy",
                        f"max by (application, model_version, bound) ({m.LIVE_ACCURACY.exported}{{{_APPLICATION}}})",
                        f"{version} {{{{bound}}}}",
                        "percentunit",
                        "With its 95 % interval.",
                        _WIDE,
                    ),
                ),
            ),
        ),
        (Variable("namespace", m.DRIFT_SAMPLES.exported), Variable("application", m.DRIFT_SAMPLES.exported)),
        service_link="Example photographs",
    )


def _gitops() -> Dashboard:
    environment = 'environment=~"$environment"'

    def latest(metric: m.Metric, by: str) -> str:
        return f"max by ({by}) ({metric.exported}{{{environment}}})"

    durations = tuple(
        Query(_quantile(share, m.SYNC_SECONDS, "environment", environment), f"{{{{environment}}}} p{share * 100:.0f}")
        for share in (0.5, 0.99)
    )
    return Dashboard(
        "mergeline-gitops",
        "Mergeline: GitOps",
        (
            Row(
                "What is served where",
                (
                    Panel(
                        "Now",
                        (Query(latest(m.SERVED, "environment, application, model, model_version, bundle, revision")),),
                        kind="table",
                        width=_WIDE,
                    ),
                    _lines(
                        "History",
                        latest(m.SERVED, "environment, application, model_version, revision"),
                        "{{environment}} {{application}} version {{model_version}} at {{revision}}",
                        width=_WIDE,
                    ),
                ),
            ),
            Row(
                "Reconciling",
                (
                    _lines("Sync", latest(m.SYNC_STATUS, "environment, status"), "{{environment}} {{status}}"),
                    _lines("Health", latest(m.HEALTH_STATUS, "environment, status"), "{{environment}} {{status}}"),
                    _lines(
                        "From merge to served",
                        latest(m.SYNC_LAG_SECONDS, "environment"),
                        "{{environment}}",
                        "s",
                        "Of the last deployment, from the commit's date.",
                    ),
                    _lines(
                        "Attempts",
                        f"sum by (environment, outcome) (increase({m.SYNC_ATTEMPTS.exported}{{{environment}}}[1h]))",
                        "{{environment}} {{outcome}}",
                        about="In the hour before.",
                    ),
                    Panel("Duration of an attempt", durations, "s"),
                    _lines("Deployments", latest(m.DEPLOYMENTS, "environment"), "{{environment}}"),
                    _lines(
                        "Since the reconciler looked",
                        f"time() - {latest(m.RECONCILED, 'environment')}",
                        "{{environment}}",
                        "s",
                    ),
                ),
            ),
        ),
        (Variable("environment", m.SYNC_STATUS.exported),),
    )


def _infrastructure() -> Dashboard:
    def of_node(metric: str) -> str:
        return f"sum by (instance) ({metric})"

    memory = f"{of_node('ray_node_mem_used')} / {of_node('ray_node_mem_total')}"
    store = of_node("ray_object_store_memory") + " / " + of_node('ray_resources{Name="object_store_memory"}')
    disk = f"{of_node('ray_node_disk_usage')} / ({of_node('ray_node_disk_usage')} + {of_node('ray_node_disk_free')})"
    network = (
        Query(of_node("ray_node_network_receive_speed"), "{{instance}} received"),
        Query(of_node("ray_node_network_send_speed"), "{{instance}} sent"),
    )
    return Dashboard(
        "mergeline-infrastructure",
        "Mergeline: infrastructure",
        (
            Row(
                "Nodes",
                (
                    _lines("CPU", "avg by (instance) (ray_node_cpu_utilization) / 100", "{{instance}}", "percentunit"),
                    _lines("Memory", memory, "{{instance}}", "percentunit"),
                    _lines("Object store", store, "{{instance}}", "percentunit"),
                    _lines("Disk", disk, "{{instance}}", "percentunit"),
                    _lines(
                        "GPU",
                        "avg by (instance) (ray_node_gpus_utilization) / 100 or vector(0)",
                        "{{instance}}",
                        "percentunit",
                        "0 where there is none.",
                    ),
                    Panel("Network", network, "Bps"),
                ),
            ),
            Row(
                "Processes",
                (
                    _lines(
                        "Memory by component",
                        "sum by (Component) (ray_component_rss_mb) * 1e6",
                        "{{Component}}",
                        "bytes",
                    ),
                    _lines(
                        "CPU by component",
                        "sum by (Component) (ray_component_cpu_percentage) / 100",
                        "{{Component}}",
                        "percentunit",
                    ),
                ),
            ),
            Row(
                "Ingress",
                (
                    _lines(
                        "Connections of HAProxy",
                        'sum by (proxy) (haproxy_frontend_current_sessions{proxy="http_frontend"})',
                        "{{proxy}}",
                        about="None where Ray's own proxy takes requests.",
                    ),
                    _lines(
                        "Answers by status",
                        'sum by (status_code) (rate(ray_serve_num_http_requests_total{application!=""}['
                        + _RATE
                        + "]))",
                        "{{status_code}}",
                        "reqps",
                    ),
                ),
            ),
        ),
        links=(("Ray", "rayDefaultDashboard"),),
    )


def dashboards() -> tuple[Dashboard, ...]:
    """All of them."""
    return (_serving(), _line(), _drift(), _gitops(), _infrastructure())


# --- building ---------------------------------------------------------------------------------------------------------


def _built(board: Dashboard) -> models.Dashboard:
    builder = (
        builders.Dashboard(board.title)
        .uid(board.uid)
        .tags([TAG])
        .readonly()
        .time("now-6h", "now")
        .refresh("30s")
        .timezone("browser")
        .with_variable(builders.DatasourceVariable("datasource").label("Prometheus").type("prometheus"))
        .links([_link(title, f"/d/{uid}") for title, uid in board.links])
    )
    if board.service_link:
        builder.with_variable(builders.TextBoxVariable("service").label("Service").default_value(_SERVICE))
        builder.link(_link(board.service_link, "${service}/#served"))
    for variable in board.variables:
        builder.with_variable(
            builders.QueryVariable(variable.name)
            .query(f"label_values({variable.metric}, {variable.name})")
            .datasource(_DATA)
            .refresh(models.VariableRefresh.ON_TIME_RANGE_CHANGED)
            .multi(True)
            .include_all(True)
            .all_value(".*")
            .current(models.VariableOption(selected=True, text="All", value="$__all"))
        )
    for row in board.rows:
        builder.with_row(builders.Row(row.title))
        for panel in row.panels:
            builder.with_panel(_panel(panel))
    return builder.build()


def _link(title: str, url: str) -> builders.DashboardLink:
    return builders.DashboardLink(title).type(models.DashboardLinkType.LINK).url(url)


def _panel(panel: Panel) -> timeseries.Panel | stat.Panel | table.Panel:
    kinds: dict[_Kind, Callable[[], timeseries.Panel | stat.Panel | table.Panel]] = {
        "lines": timeseries.Panel,
        "figure": stat.Panel,
        "table": table.Panel,
    }
    builder = kinds[panel.kind]()
    builder.title(panel.title).description(panel.about).unit(panel.unit).datasource(_DATA)
    builder.span(panel.width).height(_HEIGHT)
    for number, query in enumerate(panel.queries):
        builder.with_target(_target(query, panel.kind, chr(ord("A") + number)))
    return builder


def _target(query: Query, kind: _Kind, ref_id: str) -> prometheus.Dataquery:
    target = prometheus.Dataquery().expr(query.expression).legend_format(query.legend).ref_id(ref_id).datasource(_DATA)
    if kind == "table":
        return target.format(PromQueryFormat.TABLE).instant()
    return target.range()
