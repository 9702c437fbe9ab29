"""How long the nodes take to import, beside what ComfyUI has loaded by then: `python tests/benchmarks/startup.py`.

Processor time of fresh processes, since other programs run too; bytecode is written first, as after an installation.
"""

import os
import subprocess
import sys
import tempfile
from statistics import median

ROUNDS = 11
IMPORT = """
import asyncio, dataclasses, einops, fractions, hashlib, importlib.metadata, inspect, json, logging, numpy, pathlib
import PIL.Image, tempfile, time, typing, urllib.request, uuid
then = time.process_time()
import helios_video
print(time.process_time() - then)
"""


def main() -> None:
    with tempfile.TemporaryDirectory() as cache:
        environ = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"}
        environ["PYTHONPYCACHEPREFIX"] = cache
        run = lambda: subprocess.run([sys.executable, "-c", IMPORT], capture_output=True, text=True, env=environ)  # noqa: E731
        times = [1000 * float(run().stdout) for _ in range(ROUNDS)]
    print(f"first {times[0]:.0f} ms, then median {median(times[1:]):.0f}, least {min(times[1:]):.0f}")


if __name__ == "__main__":
    main()
