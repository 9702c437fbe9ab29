"""What the published transformer moves between its products, per chunk of 640x384 in 2,2,2 steps: on record, counted.

By Triton's kernels, uncompiled, on fake CUDA tensors (tests/benchmarks/counted.py), in a process of its own.
"""

import tempfile

import pytest
from support.scripts import FAKE_CUDA, FOLDER, found_by

pytestmark = [pytest.mark.slow, *FAKE_CUDA]
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


def test_elementwise_bytes_of_a_chunk():
    with tempfile.TemporaryDirectory() as folder:
        found = found_by("-c", CODE, str(FOLDER), folder)["other"]
    assert found < min(MOST, ROOM * RECORD), found
