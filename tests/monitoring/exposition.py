"""An HTTP server that exports every series which Mergeline's rules and dashboards ask for, under the real names.

What Ray really exports is looked at in tests/serve/test_app.py.
"""

import time
from collections.abc import Iterator
from contextlib import contextmanager

from monitoring.metrics import DRIFT, DRIFT_DETECTED, LINE, RECONCILER, SERVING, Metric
from tests.http_server import Handler, listening

GAUGES = (
    'ray_serve_replica_processing_queries{application="screw",deployment="Classifier",replica="a"} 1',
    'ray_serve_deployment_replica_healthy{application="screw",deployment="Classifier"} 1',
    'ray_node_cpu_utilization{instance="a"} 50',
    'ray_node_mem_used{instance="a"} 1e9',
    'ray_node_mem_total{instance="a"} 4e9',
    'ray_object_store_memory{instance="a"} 1e8',
    'ray_resources{instance="a",Name="object_store_memory",State="AVAILABLE"} 1e9',
    'ray_node_disk_usage{instance="a"} 1e9',
    'ray_node_disk_free{instance="a"} 9e9',
    'ray_node_network_receive_speed{instance="a"} 1',
    'ray_node_network_send_speed{instance="a"} 1',
    'ray_component_rss_mb{Component="raylet"} 100',
    'ray_component_cpu_percentage{Component="raylet"} 5',
    'haproxy_frontend_current_sessions{proxy="http_frontend"} 2',
    'mergeline_evaluation{environment="local",application="screw",model="screw",model_version="3",metric="loss"} 0.1',
)
"""What others export, as far as it is asked for; and another figure of an evaluation."""
_VERSION = 'application="screw",model_version="3"'
_POST = 'method="POST",application="screw",status_code'


class Exposition:
    """What is exported now."""

    drifted = False

    def __init__(self) -> None:
        self._begun = time.monotonic()

    def text(self) -> str:
        """In Prometheus's format; counters grow by ten a second."""
        count = 10 * (1 + time.monotonic() - self._begun)
        lines = [*GAUGES, *_ingress(count)]
        for metric in (*SERVING, *DRIFT, *RECONCILER, *LINE):
            if metric is not DRIFT_DETECTED:
                lines += _series(metric, count)
        for kind in DRIFT_DETECTED.values["kind"]:
            lines.append(f'{DRIFT_DETECTED.exported}{{{_VERSION},kind="{kind}"}} {int(self.drifted)}')
        return "\n".join(lines) + "\n"


def _ingress(count: float) -> Iterator[str]:
    for status, share in (("200", 0.999), ("500", 0.001)):
        yield f'ray_serve_num_http_requests_total{{{_POST}="{status}"}} {count * share}'
    for bound in ("500.0", "+Inf"):
        yield f'ray_serve_http_request_latency_ms_bucket{{{_POST}="200",le="{bound}"}} {count}'
    yield f'ray_serve_http_request_latency_ms_count{{{_POST}="200"}} {count}'


def _series(metric: Metric, count: float) -> Iterator[str]:
    pairs = [f'{label}="{metric.values.get(label, (_example(label),))[0]}"' for label in metric.labels]
    if metric.exporter == "ray":
        pairs.append('application="screw"')
    name, labels = metric.exported, ",".join(pairs)
    if metric.kind == "histogram":
        for bound in (*metric.buckets, "+Inf"):
            yield f'{name}_bucket{{{labels},le="{bound}"}} {count}'.replace("{,", "{")
        yield f"{name}_count{{{labels}}} {count}"
        yield f"{name}_sum{{{labels}}} {count}"
    else:
        yield f"{name}{{{labels}}} {count if metric.kind == 'counter' else 1}"


def _example(label: str) -> str:
    return {"metric": "accuracy"}.get(label, label)


@contextmanager
def exporting(exposition: Exposition) -> Iterator[str]:
    """Answer `GET /metrics`; yields the address."""

    class Metrics(Handler):
        def do_GET(self) -> None:
            self.say(200, exposition.text().encode(), **{"Content-Type": "text/plain; version=0.0.4"})

    with listening(Metrics) as url:
        yield url.removeprefix("http://")
