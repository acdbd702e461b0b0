"""The extraction from Kaggle, over a server that speaks what Kaggle's client calls."""

import hashlib
import io
import json
import os
import signal
import subprocess
import sys
import threading
import time
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path


class Kaggle(ThreadingHTTPServer):
    """The three calls that a download makes; it is asked as an HTTP proxy for http://localhost, port 80."""

    def __init__(self, archive: bytes, break_at: int | None = None, *, hang: bool = False) -> None:
        super().__init__(("127.0.0.1", 0), _Answer)
        self.archive, self.break_at, self.hang = archive, break_at, hang
        self.sent_half = threading.Event()
        self.ranges: list[str | None] = []


class _Answer(BaseHTTPRequestHandler):
    server: Kaggle

    def log_message(self, *args: object) -> None:
        """Keep quiet."""

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        if self.path.endswith("IntrospectToken"):
            self._reply(200, json.dumps({"active": True, "username": "tester"}).encode(), "application/json")
        elif self.headers["Authorization"] != "Bearer the-token":
            self._reply(401, b"{}", "application/json")
        elif self.path.endswith("DownloadDataset"):
            self.send_response(302)
            self.send_header("Location", "http://localhost/files/archive.zip")
            self.send_header("Content-Length", "0")
            self.end_headers()

    def do_GET(self) -> None:
        wanted = self.headers["Range"]
        self.server.ranges.append(wanted)
        start = int(wanted.removeprefix("bytes=").removesuffix("-")) if wanted else 0
        body = self.server.archive[start:]
        self.send_response(206 if wanted else 200)
        for name, value in {
            "Content-Type": "application/zip",
            "Content-Length": str(len(body)),
            "Accept-Ranges": "bytes",
            "ETag": '"one"',
            "Last-Modified": "Mon, 02 Nov 2026 10:00:00 GMT",
        }.items():
            self.send_header(name, value)
        self.end_headers()
        stop, self.server.break_at = self.server.break_at, None
        self.wfile.write(body[:stop])
        self.wfile.flush()
        if stop is not None:
            self.server.sent_half.set()
            if self.server.hang:
                time.sleep(60)
            self.close_connection = True

    def _reply(self, status: int, body: bytes, kind: str) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


@contextmanager
def serving(server: Kaggle) -> Iterator[str]:
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()


def archive_of(*images: str) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as bundle:
        table = "".join(f"{name},{int(not name.startswith('ok'))}\n" for name in images)
        bundle.writestr("train.csv", "filename,anomaly\n" + table)
        for name in images:
            bundle.writestr(f"train/{name}", name.encode() + os.urandom(2_000_000))
    return buffer.getvalue()


def start_extraction(tmp_path: Path, proxy: str, **environment: str) -> subprocess.Popen[str]:
    project = tmp_path / "project.yaml"
    project.write_text(
        "{name: part, goal: Sort., owner: me, classes: [good, defective], environments: [local], "
        "data: {source: kaggle, kaggle: me/parts}}"
    )
    inherited = {name: value for name, value in os.environ.items() if not name.upper().endswith("_PROXY")}
    inherited = {name: value for name, value in inherited.items() if not name.startswith("KAGGLE_")}
    variables = {"HOME": str(tmp_path), "KAGGLE_API_ENVIRONMENT": "LOCALHOST", "http_proxy": proxy}
    return subprocess.Popen(
        [sys.executable, "-m", "ray_jobs.dataset", "--project", str(project), "--state", str(tmp_path / "state")],
        env=inherited | variables | environment,
        cwd=Path(__file__).parents[2],
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )


def test_a_broken_off_download_goes_on_after_a_kill(tmp_path: Path) -> None:
    server = Kaggle(archive_of("ok0.png", "bent0.png"), break_at=3_000_000, hang=True)
    with serving(server) as proxy:
        killed = start_extraction(tmp_path, proxy, KAGGLE_API_TOKEN="the-token")
        assert server.sent_half.wait(120)
        half = tmp_path / "state/sources/kaggle/me--parts/parts.zip"
        deadline = time.monotonic() + 60
        while not half.exists() or half.stat().st_size < 1_000_000:
            assert time.monotonic() < deadline
            time.sleep(0.05)
        killed.send_signal(signal.SIGKILL)
        killed.communicate()
        resumed = start_extraction(tmp_path, proxy, KAGGLE_API_TOKEN="the-token")
        output, _ = resumed.communicate(timeout=240)
        assert resumed.returncode == 0, output
        assert "2 photographs from kaggle:me/parts" in output
        again = start_extraction(tmp_path, proxy, KAGGLE_API_TOKEN="the-token")
        output, _ = again.communicate(timeout=240)
        assert "nothing to download" in output
        assert "nothing to do" in output
    assert server.ranges[-1] is not None
    assert int(server.ranges[-1].removeprefix("bytes=").removesuffix("-")) >= 1_000_000
    (unpacked,) = (tmp_path / "state/sources/kaggle/me--parts").glob("*")
    assert unpacked.name == hashlib.sha256(server.archive).hexdigest()


def test_a_damaged_archive_is_removed(tmp_path: Path) -> None:
    damaged = bytearray(archive_of("ok0.png", "bent0.png"))
    damaged[1_000_000] ^= 255
    server = Kaggle(bytes(damaged))
    with serving(server) as proxy:
        run = start_extraction(tmp_path, proxy, KAGGLE_API_TOKEN="the-token")
        output, _ = run.communicate(timeout=240)
    assert run.returncode == 1
    assert "is damaged (Bad CRC-32" in output
    assert not list((tmp_path / "state/sources/kaggle/me--parts").glob("*"))


def test_without_credentials_the_error_says_how_to_set_them(tmp_path: Path) -> None:
    run = start_extraction(tmp_path, "http://127.0.0.1:9")
    output, _ = run.communicate(timeout=240)
    assert run.returncode == 1
    assert "KAGGLE_API_TOKEN" in output
    assert "KAGGLE_USERNAME and KAGGLE_KEY" in output
    assert "Traceback" not in output


def test_wrong_credentials_are_a_clear_error(tmp_path: Path) -> None:
    with serving(Kaggle(b"")) as proxy:
        run = start_extraction(tmp_path, proxy, KAGGLE_USERNAME="me", KAGGLE_KEY="wrong")
        output, _ = run.communicate(timeout=240)
    assert run.returncode == 1
    assert "cannot download me/parts from Kaggle: 401" in output
    assert "Traceback" not in output
