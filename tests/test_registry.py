"""What the ComfyUI registry gets and gives: the zip that `comfy node pack` makes holds what it must and nothing else,
and the pack in it loads in a fresh folder. With COMFYUI_PATH (and COMFYUI_PYTHON) it loads in the real program too."""

from __future__ import annotations

import ast
import os
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import helios_video as pack
import pytest

ROOT = Path(pack.__file__).parent
COMFY = shutil.which("comfy") or shutil.which("comfy", path=str(Path(sys.executable).parent))
COMFYUI = os.environ.get("COMFYUI_PATH")
COMFY_PYTHON = os.environ.get("COMFYUI_PYTHON", sys.executable)
FILES = {"__init__.py", "pyproject.toml", "requirements.txt", "README.md", "LICENSE"}
FOLDERS = {
    "nodes": {".py"},
    "helios_core": {".py", ".json", ".safetensors", ".html"},
    "locales": {".json"},
    "web": {".md", ".png", ".webp", ".js", ".css", ".json", ".mp4"},
    "workflows": {".json", ".jpg"},
    "subgraphs": {".json"},  # the name is ComfyUI's: it looks for blueprints in no other folder
}
# What ComfyUI 0.3.64 asks for in its requirements.txt: name -> lower bound, if any.
COMFYUI_BRINGS = {
    **dict.fromkeys(("torch", "einops", "pillow", "tqdm"), ""),
    **{"numpy": "1.25.0", "safetensors": "0.4.2", "transformers": "4.37.2", "tokenizers": "0.13.3", "av": "14.2.0"},
}
PRODUCT = [ROOT / "__init__.py", *sorted((ROOT / "nodes").rglob("*.py")), *sorted((ROOT / "helios_core").rglob("*.py"))]
HIGHER = {"transformers", "tokenizers"}  # than ComfyUI's bound: older ones cannot read a tokenizer.json of today

LOADS = """
import importlib.util, sys
folder = sys.argv[1]
spec = importlib.util.spec_from_file_location("pack", folder + "/__init__.py", submodule_search_locations=[folder])
pack = sys.modules["pack"] = importlib.util.module_from_spec(spec)
spec.loader.exec_module(pack)
assert not any(name.startswith("helios_video") for name in sys.modules)
loader, memory, encode = (pack.NODE_CLASS_MAPPINGS[n]() for n in ("HeliosLoader", "HistoryMemory", "T5Encode"))
model, text, vae = loader.load("helios-tiny")
(history,) = memory.start(model, 0, 0)
(positive,) = encode.encode(text, "a red circle moving left")
latent, history = pack.NODE_CLASS_MAPPINGS["DMDPyramidSample"]().sample(model, positive, history, 0, "1,1,1")
assert latent["samples"].shape[1:3] == (16, 9) and history.history.chunk == 1, latent["samples"].shape
"""


def version(text: str) -> tuple[int, ...]:
    return tuple(map(int, text.split(".")))


def files_of_the_tree() -> list[str]:
    """What git would commit; without git, everything but caches and environments, which .gitignore leaves out."""
    command = ["git", "-C", str(ROOT), "ls-files", "--cached", "--others", "--exclude-standard", "-z"]
    listed = subprocess.run(command, capture_output=True, text=True)
    if listed.returncode == 0:
        return [name for name in listed.stdout.split("\0") if name and (ROOT / name).is_file()]
    return [name for name in names(ROOT) if not {".git", ".venv", "venv", "build"} & set(Path(name).parts)]


@pytest.fixture(scope="module")
def unpacked(tmp_path_factory):
    """The unpacked zip of the tree as it stands, committed or not."""
    if COMFY is None:
        pytest.skip("comfy-cli is not installed")
    work = tmp_path_factory.mktemp("registry")
    tree, home = work / "tree", work / "home"
    home.mkdir()
    for name in files_of_the_tree():
        (tree / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, tree / name)
    environment = {**os.environ, "HOME": str(home), "DO_NOT_TRACK": "1"}
    environment = {key: value for key, value in environment.items() if not key.startswith("GIT_")}
    quiet = {"cwd": tree, "env": environment, "stdin": subprocess.DEVNULL, "capture_output": True, "text": True}
    for command in (["git", "init", "-q"], ["git", "add", "-A"], [COMFY, "--skip-prompt", "node", "pack"]):
        done = subprocess.run(command, **quiet)
        assert done.returncode == 0, done.stdout + done.stderr
    folder = work / "custom_nodes" / "helios-video"
    with zipfile.ZipFile(tree / "node.zip") as file:
        file.extractall(folder)
    return folder


def names(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


def test_the_zip_holds_what_it_must_and_nothing_else(unpacked):
    found = names(unpacked)
    assert {name for name in found if "/" not in name} == FILES
    assert {name.split("/")[0] for name in found if "/" in name} == set(FOLDERS)
    strange = [n for n in found if "/" in n and Path(n).suffix not in FOLDERS[n.split("/")[0]]]
    assert not strange
    tree = unpacked.parent.parent / "tree"
    assert {n for n in found if "/" in n} == {f"{f}/{n}" for f in FOLDERS for n in names(tree / f)}


def test_the_zip_is_no_download_to_wait_for(unpacked):
    """The small models are most of it; no single file of the rest is large."""
    sizes = {path: path.stat().st_size for path in unpacked.rglob("*") if path.is_file()}
    assert sum(sizes.values()) < 60e6
    assert sum(size for path, size in sizes.items() if "docs" in path.parts) < 1.5e6
    assert all(size < 500e3 for path, size in sizes.items() if "assets" not in path.parts)


def loads(python: str, folder: Path, work: Path) -> None:
    """A chunk of helios-tiny with the nodes of that folder, and with no other copy of the pack in reach."""
    environment = {key: value for key, value in os.environ.items() if key not in ("PYTHONPATH", "HELIOS_MODELS")}
    command = [python, "-B", "-c", LOADS, str(folder)]
    done = subprocess.run(command, cwd=work, env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr


def test_the_pack_in_the_zip_works_in_a_fresh_folder(unpacked, tmp_path):
    loads(sys.executable, unpacked, tmp_path)


@pytest.mark.skipif(not COMFYUI, reason="COMFYUI_PATH is not set: no ComfyUI to install the zip in")
def test_the_real_comfyui_starts_with_the_pack_from_the_zip(unpacked, tmp_path):
    """In a folder of its own under custom_nodes, where ComfyUI's Python has no other copy."""
    for name in ("input", "output", "models", "user", "custom_nodes"):
        (tmp_path / name).mkdir()
    shutil.copytree(unpacked, tmp_path / "custom_nodes" / "helios-video")
    command = [COMFY_PYTHON, "main.py", "--cpu", "--quick-test-for-ci", "--base-directory", str(tmp_path)]
    command += ["--database-url", f"sqlite:///{tmp_path}/comfyui.db"]
    done = subprocess.run(command, cwd=COMFYUI, capture_output=True, text=True, timeout=300)
    log = done.stdout + done.stderr
    assert done.returncode == 0, log[-3000:]
    assert "custom_nodes/helios-video" in log and "IMPORT FAILED" not in log, log[-3000:]
    loads(COMFY_PYTHON, tmp_path / "custom_nodes" / "helios-video", tmp_path)


def test_installing_adds_nothing_to_an_environment_that_runs_comfyui():
    """Manager runs pip install -r requirements.txt: every line must be met already."""
    for line in (ROOT / "requirements.txt").read_text(encoding="utf-8").splitlines():
        name, bound = re.fullmatch(r"([a-z]+)>=([\d.]+)", line).groups()
        assert name in COMFYUI_BRINGS, f"ComfyUI does not bring {name}"
        brought = COMFYUI_BRINGS[name]
        assert name in HIGHER or not brought or version(bound) <= version(brought), line


@pytest.mark.skipif(not COMFYUI, reason="COMFYUI_PATH is not set: no ComfyUI to compare with")
def test_comfyuis_requirements_are_as_noted():
    lines = (Path(COMFYUI) / "requirements.txt").read_text(encoding="utf-8").lower().splitlines()
    there = {m[1]: m[2] or "" for m in (re.match(r"([\w-]+)(?:>=([\d.]+))?", line) for line in lines) if m}
    for name, noted in COMFYUI_BRINGS.items():  # of the oldest that we run in; later ones may ask for more
        assert there[name] == noted or version(there[name]) > version(noted), name
    dry = ["-m", "pip", "install", "--dry-run", "--no-index", "-q", "-r", str(ROOT / "requirements.txt")]
    done = subprocess.run([COMFY_PYTHON, *dry], capture_output=True, text=True)
    assert done.returncode == 0 and "Would install" not in done.stdout, done.stdout + done.stderr


def test_comfy_node_validate_is_clean(unpacked, tmp_path):
    done = subprocess.run(
        [COMFY, "--skip-prompt", "node", "validate"],
        cwd=unpacked, env={**os.environ, "HOME": str(tmp_path), "DO_NOT_TRACK": "1"},
        stdin=subprocess.DEVNULL, capture_output=True, text=True,
    )  # fmt: skip
    said = done.stdout + done.stderr
    assert done.returncode == 0 and "warning" not in said.lower() and "S102" not in said and "E702" not in said, said


# `helios generate --live`: of the command line alone, on loopback, while it runs (tests/commands/test_live.py).
NETWORK = {"helios_core/commands/live.py": {"http"}}
# `helios osc` asks the ComfyUI server that it is told of, on this machine unless it is named another.
NETWORK["helios_core/commands/osc.py"] = {"urllib"}
# `--ray HOST:PORT` asks whether anybody answers there, before Ray waits for minutes.
NETWORK["helios_core/commands/actors.py"] = {"http"}


def calls(path: Path):
    """Dotted name and node of every call in a file."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Call):
            yield ast.unparse(node.func), node


def modules(path: Path) -> set[str]:
    """First names of all modules that a file imports."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name.split(".")[0] for alias in node.names}
        if isinstance(node, ast.ImportFrom) and not node.level:
            found.add(node.module.split(".")[0])
    return found


@pytest.mark.parametrize("path", PRODUCT, ids=lambda p: p.relative_to(ROOT).as_posix())
def test_nothing_runs_what_others_wrote(path):
    """No eval or exec, no other program (pip least of all) and no network; of pickles only what holds tensors alone."""
    nodes = path.relative_to(ROOT).parts[0] in ("nodes", "__init__.py")
    found = modules(path) & {"marshal", "socket", "urllib", "requests", "http", "pip", "ctypes", "runpy"}
    assert found <= NETWORK.get(path.relative_to(ROOT).as_posix(), set())
    assert not nodes or "subprocess" not in modules(path)
    for name, call in calls(path):
        assert not name.startswith("pickle.")
        assert name not in ("eval", "exec", "compile", "__import__", "os.system", "os.popen"), ast.unparse(call)
        if name == "torch.load":
            assert any(k.arg == "weights_only" and ast.unparse(k.value) == "True" for k in call.keywords)
        # Nodes open no files: the core does, at places that host.py or its own checks allow.
        opens = name.split(".")[-1] in ("open", "read_bytes", "write_bytes", "write_text", "unlink", "rmtree")
        assert not (nodes and opens), name


@pytest.mark.parametrize("path", PRODUCT, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_nothing_reads_as_if_it_did(path):
    """Scanners of packs look for these words, and call a pack malicious for torch's eval and re's compile."""
    text = path.read_text(encoding="utf-8")
    assert not re.search(r"eval\(|exec\(|compile\(|__import__\(|importlib\.import_module|subprocess\.", text)


def test_a_new_version_is_published_by_an_action():
    text = (ROOT / ".github" / "workflows" / "publish_action.yml").read_text(encoding="utf-8")
    assert "Comfy-Org/publish-node-action@" in text and 'paths: ["pyproject.toml"]' in text
    assert "secrets.REGISTRY_ACCESS_TOKEN" in text and "contents: read" in text
