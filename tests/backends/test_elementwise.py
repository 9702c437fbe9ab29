"""What the published transformer moves between its products, per chunk of 640x384 in 2,2,2 steps: on record, counted.

By Triton's kernels, uncompiled, on fake CUDA tensors (tests/benchmarks/counted.py), in a process of its own.
"""

import json
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
import torch

BENCHMARKS = Path(__file__).resolve().parents[1] / "benchmarks"
CODE = """
import json, sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
import counted
print(json.dumps(counted.prepare(Path(sys.argv[2]), 40)("t2v, kernels", steps=(2, 2, 2))["chunk"]["GB"]))
"""
MOST = 450.0  # GB of elementwise work a chunk; 1,060 before this was counted
RECORD = 447.3
ROOM = 1.02


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="no g++ to compile the guard of fake CUDA devices with")
@pytest.mark.skipif(torch.__version__ < "2.6", reason="FakeTensorMode of older torch is another")
def test_elementwise_bytes_of_a_chunk():
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-c", CODE, BENCHMARKS, folder]
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    found = json.loads(done.stdout.splitlines()[-1])["other"]
    assert found < min(MOST, ROOM * RECORD), found
