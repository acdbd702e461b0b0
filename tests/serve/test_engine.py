"""OpenVINO as it is imported here."""

import os
import subprocess
import sys


def test_openvino_tells_nobody_about_its_use() -> None:
    code = "import serve.engine; from openvino.tools import ovc; print(type(ovc.telemetry).__module__)"
    # Where CI is set it would tell nobody anyway.
    environment = {name: value for name, value in os.environ.items() if name != "CI"}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment)
    assert done.stdout.strip() == "openvino.tools.ovc.telemetry_stub"
