"""Ctrl-C, from the first moment of a command on."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

import pytest
from helios_video.helios_core import interrupts


@pytest.mark.skipif(os.name == "nt", reason="Windows has other signals")
@pytest.mark.parametrize("wait", [0.15, 0.3, 0.6])
def test_ctrl_c_is_quiet_from_the_beginning(tmp_path, wait):
    line = [sys.executable, "-c", WAITS, "generate", "--prompt", "a", "-o", str(tmp_path / "o.mp4")]
    heard = lambda: signal.signal(signal.SIGINT, signal.SIG_DFL)  # noqa: E731 a shell's background jobs are deaf to it
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    process = subprocess.Popen(line, **pipes, preexec_fn=heard)
    assert process.stdout.readline() == "begun\n"
    time.sleep(wait)
    process.send_signal(signal.SIGINT)
    said = process.communicate()[1]
    assert process.returncode == interrupts.CODE and "Traceback" not in said and said.splitlines()[-1] == "stopped"


WAITS = """
import sys
sys.argv[0] = "helios"
from helios_video.helios_core import interrupts
print("begun", flush=True)
import helios_video.helios_core.cli as cli
import time
real = cli._run
cli._run = lambda argv: (real(argv), time.sleep(60))
cli.entry()
"""
