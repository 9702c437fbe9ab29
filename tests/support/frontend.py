"""What the tests in a browser share: ComfyUI's real frontend, and a small server that knows our nodes.

Needs a Chromium (/usr/bin/chromium, or HELIOS_CHROMIUM), playwright and comfyui-frontend-package. Further versions of
the frontend: HELIOS_FRONTENDS, folders that hold index.html, separated as in PATH.
"""

from __future__ import annotations

import json
import os
import shutil
import threading
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import helios_video as pack
import pytest
from helios_video.helios_core.workflow.standins import NODES as CORE

WEB = Path(pack.__file__).parent / pack.WEB_DIRECTORY
MOUNT = "/extensions/helios-video"
EXTENSIONS = [f"{MOUNT}/{path.relative_to(WEB).as_posix()}" for path in sorted(WEB.rglob("*.js"))]
CLASSES = {**CORE, **pack.NODE_CLASS_MAPPINGS}
CHROMIUM = os.environ.get("HELIOS_CHROMIUM") or shutil.which("chromium") or shutil.which("google-chrome")
ARGUMENTS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--no-first-run"]
READY = "() => window.app && window.app.graph && document.querySelector('canvas#graph-canvas')"


def static_folders() -> list[Path]:
    folders = [Path(p) for p in os.environ.get("HELIOS_FRONTENDS", "").split(os.pathsep) if p]
    try:
        import comfyui_frontend_package
    except ImportError:
        return folders
    return [Path(comfyui_frontend_package.__file__).parent / "static", *folders]


def node_info(name: str, kind) -> dict:
    """What /object_info says of a V1 class."""
    types = kind.INPUT_TYPES()
    outputs = list(kind.RETURN_TYPES)
    return {
        "input": types,
        "input_order": {part: list(inputs) for part, inputs in types.items()},
        "output": outputs,
        "output_is_list": [False] * len(outputs),
        "output_name": list(getattr(kind, "RETURN_NAMES", outputs)),
        "output_tooltips": list(getattr(kind, "OUTPUT_TOOLTIPS", ())),
        "name": name,
        "display_name": pack.NODE_DISPLAY_NAME_MAPPINGS.get(name, name),
        "description": getattr(kind, "DESCRIPTION", ""),
        "python_module": "custom_nodes.helios-video" if name in pack.NODE_CLASS_MAPPINGS else "nodes",
        "category": getattr(kind, "CATEGORY", "core"),
        "output_node": getattr(kind, "OUTPUT_NODE", False),
    }


ANSWERS = {
    "/api/users": {"storage": "server", "migrated": True},
    "/api/settings": {"Comfy.TutorialCompleted": True, "Comfy.VueNodes.Enabled": False},
    "/api/extensions": [],
    "/api/object_info": {name: node_info(name, kind) for name, kind in CLASSES.items()},
    "/api/i18n": {},
    "/api/features": {},
    "/api/global_subgraphs": {},
    "/api/queue": {"queue_running": [], "queue_pending": []},
    "/api/history": {},
    "/api/userdata": [],
    "/api/experiment/models": [],
}


class Stub(SimpleHTTPRequestHandler):
    """The frontend's files and our web folder's, and the few answers the frontend needs to start."""

    def __init__(self, *given, answers, **more):
        self.answers = answers
        super().__init__(*given, **more)

    def translate_path(self, path):
        ours = path.partition("?")[0].removeprefix(MOUNT + "/")
        return str(WEB / ours) if ours != path.partition("?")[0] else super().translate_path(path)

    def do_GET(self):
        answer = self.answers.get(self.path.partition("?")[0])
        if answer is None:
            super().do_GET()
            return
        body = json.dumps(answer).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


@contextmanager
def visited(address: str):
    """A page with the frontend that a real server at an address brings, once it has started."""
    if CHROMIUM is None:
        pytest.skip("no chromium: install Debian's chromium, or name one in HELIOS_CHROMIUM")
    playwright = pytest.importorskip("playwright.sync_api", reason="no playwright to drive chromium with")
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        page = browser.new_page(viewport={"width": 1920, "height": 1080})
        page.goto(address, wait_until="domcontentloaded", timeout=90_000)
        page.wait_for_function(READY, timeout=240_000)
        page.wait_for_timeout(4000)  # extensions register after the graph is there
        yield page
        browser.close()


@contextmanager
def opened(static: Path | None, *, extensions=(), prepare=lambda page: None, **settings):
    """A page with the started frontend of a folder. extensions: addresses of JavaScript that the server offers.

    prepare(page): called before it loads. settings: of the frontend, with _ for a full stop.
    """
    if static is None:
        pytest.skip("no frontend: comfyui-frontend-package is not installed and HELIOS_FRONTENDS is not set")
    if CHROMIUM is None:
        pytest.skip("no chromium: install Debian's chromium, or name one in HELIOS_CHROMIUM")
    playwright = pytest.importorskip("playwright.sync_api", reason="no playwright to drive chromium with")
    chosen = {**ANSWERS["/api/settings"], **{name.replace("_", "."): value for name, value in settings.items()}}
    answers = {**ANSWERS, "/api/settings": chosen, "/api/extensions": list(extensions)}
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Stub, directory=str(static), answers=answers))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        with playwright.sync_playwright() as driver:
            browser = driver.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
            page = browser.new_page(viewport={"width": 1920, "height": 1080})
            prepare(page)
            page.goto(f"http://127.0.0.1:{server.server_port}/", wait_until="domcontentloaded", timeout=90_000)
            page.wait_for_function(READY, timeout=240_000)
            page.wait_for_timeout(4000)  # extensions register after the graph is there
            yield page
            browser.close()
    finally:
        server.shutdown()
