"""A real ComfyUI of a test's own, on the CPU: started, asked, listened to, stopped.

Set COMFYUI_PATH to ComfyUI's folder, and COMFYUI_PYTHON to the Python that has its requirements (default: this one).
Nothing is written there: base directory and database are temporary. COMFYUI_FRONTEND: the folder of
another frontend than the one that comes with it (what holds index.html).
"""

from __future__ import annotations

import json
import os
import re
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Sequence
from contextlib import contextmanager
from pathlib import Path

import helios_video as pack
import pytest

from .events import Events

COMFYUI = os.environ.get("COMFYUI_PATH")
PYTHON = os.environ.get("COMFYUI_PYTHON", sys.executable)
ROOT = Path(pack.__file__).parent
NAME = "helios-video"
PATIENCE = 300  # seconds, for a start or a prompt
# The text of a pack with a node that keeps latents as they are, for more to be put behind it.
PROBE_LATENT = """
import numpy, os, folder_paths


class ProbeLatent:
    INPUT_TYPES = classmethod(lambda cls: {"required": {"latent": ("LATENT",), "name": ("STRING", {})}})
    RETURN_TYPES, FUNCTION, CATEGORY, OUTPUT_NODE = (), "keep", "probes", True

    def keep(self, latent, name):
        numpy.save(os.path.join(folder_paths.get_output_directory(), name), latent["samples"].numpy())
        return {}


"""
NEEDED = [
    pytest.mark.slow,
    pytest.mark.skipif(not COMFYUI, reason="COMFYUI_PATH is not set: no ComfyUI to try the pack in"),
]


class Server:
    """A ComfyUI of its own, with this pack alone in custom_nodes, and `probes`, the text of a pack for the test.

    flags: further arguments of its command line.
    """

    def __init__(self, base: Path, probes: str = "", flags: Sequence[str] = ()):
        self.base, self.flags = base, list(flags)
        for folder in ("custom_nodes", "input", "output", "models", "user"):
            (base / folder).mkdir()
        # A link, as developers have it; the name is the registry's, with its hyphen.
        (base / "custom_nodes" / NAME).symlink_to(ROOT, target_is_directory=True)
        if probes:
            (base / "custom_nodes" / "probes.py").write_text(probes)
        self.begin()

    def begin(self, port: int = 0) -> None:
        """Starts the process, at that port or at any that is free; `up` waits for it."""
        base = self.base
        with socket.socket() as free:
            free.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            free.bind(("127.0.0.1", port))
            self.port = free.getsockname()[1]
        command = [PYTHON, "main.py", "--cpu", "--port", str(self.port), "--base-directory", str(base), *self.flags]
        command += ["--database-url", f"sqlite:///{base}/comfyui.db", "--preview-method", "auto"]
        if frontend := os.environ.get("COMFYUI_FRONTEND"):
            command += ["--front-end-root", frontend]
        own = {name: value for name, value in os.environ.items() if name != "HELIOS_CACHE"}  # a user's server has none
        with open(base / "log.txt", "a") as log:
            self.process = subprocess.Popen(command, cwd=COMFYUI, stdout=log, stderr=subprocess.STDOUT, env=own)

    def up(self) -> None:
        """Waits until it answers."""
        self.wait(lambda: self.get("/system_stats"), "ComfyUI's start")
        if (self.base / "custom_nodes" / "probes.py").exists():
            self.get("/object_info/Probe")  # the probe pack puts its notes into ours when its node is asked

    def stop(self) -> None:
        """Ends the process."""
        self.process.terminate()
        self.process.wait(30)

    def restart(self) -> None:
        """Ends it and starts another in the same folders: what it had in memory is gone, and what was in temp."""
        self.stop()
        self.begin()
        self.up()

    def get(self, path: str):
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}{path}", timeout=30) as answer:
            return answer.read()

    def post(self, path: str, body: dict) -> dict:
        request = urllib.request.Request(f"http://127.0.0.1:{self.port}{path}", json.dumps(body).encode())
        request.add_header("Content-Type", "application/json")
        with urllib.request.urlopen(request, timeout=30) as answer:
            return json.loads(answer.read() or b"{}")

    def wait(self, ready, what: str):
        """What `ready` gives once it gives something; fails with the log's end when time is up."""
        end = time.monotonic() + PATIENCE
        while time.monotonic() < end and self.process.poll() is None:
            try:
                if found := ready():
                    return found
            except (urllib.error.URLError, ConnectionError, TimeoutError):
                pass
            time.sleep(0.2)
        pytest.fail(f"{what} did not come; the log ends:\n{(self.base / 'log.txt').read_text()[-3000:]}")

    def queue(self, prompt: dict, workflow: dict | None = None) -> str:
        """workflow: what the frontend sends along for the metadata of files."""
        extra = {"extra_data": {"extra_pnginfo": {"workflow": workflow}}} if workflow else {}
        return self.post("/prompt", {"prompt": prompt, **extra})["prompt_id"]

    def finish(self, number: str) -> dict:
        """The history entry of a prompt, when it is over."""
        return self.wait(lambda: json.loads(self.get(f"/history/{number}")).get(number), f"the end of prompt {number}")

    def run(self, prompt: dict) -> dict:
        return self.finish(self.queue(prompt))


@contextmanager
def serving(base: Path, probes: str = "", flags: Sequence[str] = ()):
    """A `Server` that is up."""
    server = Server(base, probes, flags)
    try:
        server.up()
        yield server
    finally:
        server.stop()
        shutil.rmtree(base, ignore_errors=True)


def twin(name: str) -> dict:
    return json.loads((ROOT / "workflows" / "api" / f"{name}.json").read_text(encoding="utf-8"))


def with_value(prompt: dict, kind: str, **values) -> dict:
    for node in prompt.values():
        if node["class_type"] == kind:
            node["inputs"].update(values)
    return prompt


def messages(entry: dict, kind: str) -> list[dict]:
    return [content for name, content in entry["status"]["messages"] if name == kind]


def saved(server: Server, entry: dict) -> Path:
    (result,) = [r for out in entry["outputs"].values() for r in out.get("images", []) if r["type"] == "output"]
    return server.base / "output" / result["subfolder"] / result["filename"]


def listen(server, prompt: dict, until=None):
    """(events, history entry) of a prompt. until: presses Stop once it holds of the events so far."""
    with Events(server.port, "test") as events:
        events.began = time.monotonic()
        number = server.post("/prompt", {"prompt": prompt, "client_id": "test"})["prompt_id"]
        if until is not None:
            server.wait(lambda: until(events), "what Stop waits for")
            events.pressed, worked = time.monotonic(), work(server)
            server.post("/interrupt", {})
            server.wait(lambda: ended(events), "the end")
            events.worked = work(server) - worked
        entry = server.finish(number)
        server.wait(lambda: ended(events), "the last event")
    return events, entry


def work(server) -> float:
    """Seconds of processor time that the server has had, which other programs on the machine do not lengthen."""
    fields = Path(f"/proc/{server.process.pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def ended(events: Events) -> bool:
    return any(events.of(kind) for kind in ("execution_success", "execution_interrupted", "execution_error"))


def seeded(seed: int, **sampler) -> dict:
    """The workflow, made to run anew: nothing of it is in ComfyUI's cache but the loaded model."""
    prompt = with_value(twin("text_to_video"), "DMDPyramidSample", **sampler)
    kinds = {node["class_type"]: node for node in prompt.values()}
    kinds["PrimitiveInt"]["inputs"]["value"] = seed
    return prompt


def nodes(prompt: dict, kind: str) -> list[str]:
    return sorted((n for n, node in prompt.items() if node["class_type"] == kind), key=int)


def resident(server) -> int:
    """Resident memory in MB."""
    status = Path(f"/proc/{server.process.pid}/status").read_text()
    return int(re.search(r"VmRSS:\s+(\d+)", status)[1]) // 1024
