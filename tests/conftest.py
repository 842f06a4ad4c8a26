import subprocess, sys

import pytest


def pytest_configure(config):
    config.addinivalue_line("markers", "runtimes: installs TFLite runtimes into environments of their own")
    config.addinivalue_line("markers", "install: installs the base package into an empty environment")
    config.addinivalue_line("markers", "ray: starts a local Ray cluster")
    config.addinivalue_line("markers", "browser: opens the report and the demo in the system's Chromium")
    config.addinivalue_line("markers", "node: fetches transformers.js and its runtimes with npm (0.6 GB) and runs them in Node")
    config.addinivalue_line("markers", "clients: installs MediaPipe and the TFLite Task Library (0.8 GB) into environments of their own")


@pytest.fixture(scope="session")
def chain(tmp_path_factory):
    "Two folders made by the same chain at 32 tokens, each in a process of its own."
    code = ("from memo_bert.core import ModelFolder; from memo_bert.delegates import gpu_file, nnapi_file; from memo_bert.quantize import tflite_file, MODES; from memo_bert.quantize_onnx import pc_file, RECIPES;"
            "f = ModelFolder('memo'); [tflite_file(f, m, 32, calibration=36) for m in MODES]; [pc_file(f, r, 32) for r in RECIPES]; gpu_file(f, 32); nnapi_file(f, 32, calibration=36)")
    roots = [tmp_path_factory.mktemp(n) for n in ("first", "second")]
    for r in roots: subprocess.run([sys.executable, "-c", code], env=environment(r), check=True, capture_output=True)
    return [r/"memo" for r in roots]


def environment(outputs):
    import os
    return os.environ | {"MEMO_BERT_OUTPUTS": str(outputs)}
