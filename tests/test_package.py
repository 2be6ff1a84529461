import os
import subprocess
import sys


def test_onnxruntime_is_told_to_report_nothing() -> None:
    environ = {name: text for name, text in os.environ.items() if name != "ORT_DISABLE_TELEMETRY"}
    code = "import os, threadline; print(os.environ['ORT_DISABLE_TELEMETRY'])"
    child = subprocess.run(
        [sys.executable, "-c", code], env=environ, capture_output=True, text=True, check=True
    )
    assert child.stdout == "1\n"
