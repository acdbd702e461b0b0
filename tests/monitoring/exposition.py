"""An HTTP server that exports every series which Mergeline's rules and dashboards ask for, under the real names.

What Ray really exports is looked at in tests/serve/test_app.py.
"""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from monitoring.metrics import LINE, RECONCILER, SERVING, Metric

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
        lines = [*GAUGES, *self._drift(count), *_ingress(count)]
        for metric in (*SERVING, *RECONCILER, *LINE):
            lines += _series(metric, count)
        return "\n".join(lines) + "\n"

    def _drift(self, count: float) -> Iterator[str]:
        for kind in ("image", "score", "label", "confidence", "embedding", "any"):
            yield f'ray_mergeline_drift_detected{{{_VERSION},kind="{kind}"}} {int(self.drifted)}'
        yield f'ray_mergeline_drift_statistic{{{_VERSION},feature="brightness",statistic="ks"}} 0.1'
        yield f'ray_mergeline_drift_p_value{{{_VERSION},feature="brightness",statistic="ks"}} 0.5'
        yield f'ray_mergeline_drift_windows_total{{{_VERSION},outcome="stable"}} {count}'
        yield f'ray_mergeline_drift_samples_total{{application="screw",outcome="kept"}} {count}'
        yield f'ray_mergeline_live_accuracy{{{_VERSION},bound="high"}} 0.99'


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

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = exposition.text().encode()
            self.send_response(200)
            self.send_header("Content-Type", "text/plain; version=0.0.4")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None: ...

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
