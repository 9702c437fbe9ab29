"""Scripts of tests/benchmarks on fake CUDA tensors, each in a process of its own, for they change torch for good."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

FOLDER = Path(__file__).resolve().parents[1] / "benchmarks"
FAKE_CUDA = [
    pytest.mark.skipif(shutil.which("g++") is None, reason="no g++ to compile the guard of fake CUDA devices with"),
    pytest.mark.skipif(torch.__version__ < "2.6", reason="FakeTensorMode of older torch is another"),
]


def found_by(*command: str):
    """What a script prints as JSON, or the lines of one after -c. Skips where the guard does not compile."""
    run = subprocess.run([sys.executable, *command], capture_output=True, text=True)
    if "the guard does not compile" in run.stderr:
        pytest.skip(next(line for line in run.stderr.splitlines() if "the guard does not compile" in line))
    assert run.returncode == 0, run.stderr
    return json.loads(run.stdout)
