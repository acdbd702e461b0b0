"""OpenVINO, which everybody here imports from this module: it comes without its telemetry.

Its import would otherwise report itself to Google Analytics, from each process that begins and without having asked;
where there is no internet it would leave a process behind that waits for an answer.
"""

import sys

# OpenVINO does without the package where it is missing.
sys.modules["openvino_telemetry"] = None  # type: ignore[assignment]

import openvino  # noqa: E402, TID251

__all__ = ["openvino"]
