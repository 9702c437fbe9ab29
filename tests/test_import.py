"""Importing and packaging: light imports, ComfyUI's way of loading, and what the registry asks of pyproject.toml."""

import ast
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib  # pytest brings it

ROOT = Path(__file__).resolve().parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
SKIPPED = {".git", ".venv", "venv", "build", "dist", "node_modules", "__pycache__"}
PYTHON_FILES = [p for p in sorted(ROOT.rglob("*.py")) if not SKIPPED & set(p.relative_to(ROOT).parts)]
HEAVY = ["torch", "mlx", "comfy", "folder_paths", "server", "transformers", "diffusers", "av", "nodes"]
HEAVY += ["ray", "fsspec"]

LIGHT = f"""
import os, socket, sys
before = set(os.listdir("."))
def refuse(*a, **k):
    raise AssertionError("import opened a connection")
socket.socket.connect = socket.create_connection = socket.getaddrinfo = refuse
import importlib
made = []
os.mkdir, os.makedirs = (lambda *a, **k: made.append(a)), (lambda *a, **k: made.append(a))
for name in sys.argv[1:]:
    importlib.import_module(name)
loaded = [m for m in {HEAVY} if m in sys.modules]
assert not loaded, loaded
assert not made and set(os.listdir(".")) == before, made
"""

COMFY = f"""
import importlib.util, os, sys
folder = sys.argv[1]
name = folder.replace(".", "_x_")  # ComfyUI names the module by its path, so
spec = importlib.util.spec_from_file_location(
    name, os.path.join(folder, "__init__.py"), submodule_search_locations=[folder]
)
module = importlib.util.module_from_spec(spec)
sys.modules[name] = module
spec.loader.exec_module(module)
assert set(module.NODE_CLASS_MAPPINGS) == set(module.NODE_DISPLAY_NAME_MAPPINGS)
assert os.path.isdir(os.path.join(folder, module.WEB_DIRECTORY))
for kind in module.NODE_CLASS_MAPPINGS.values():
    assert kind.__module__.startswith(name + "."), kind
    kind.INPUT_TYPES()
assert not any(m == "helios_video" or m.startswith("helios_video.") for m in sys.modules)
loaded = [m for m in {HEAVY} if m in sys.modules]
assert not loaded, loaded
"""


def python(code, *arguments, cwd):
    command = [sys.executable, "-B", "-c", code, *map(str, arguments)]
    run = subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=60)
    assert run.returncode == 0, run.stderr


@pytest.mark.parametrize("module", ["helios_video", "helios_video.helios_core", "helios_video.nodes"])
def test_imports_are_light(module, tmp_path):
    python(LIGHT, module, cwd=tmp_path)


def test_the_command_line_and_the_core_modules_import_light(tmp_path):
    core = ["cli", "generate", "noise", "pipeline", "resample", "unified", "with_loras", "backends", "backends.rope"]
    core += ["checkpoint", "config", "convert", "decode", "devices", "history", "join", "lora", "measure", "pyramid"]
    core += ["steps", "text", "ul", "workflow"]
    python(LIGHT, *(f"helios_video.helios_core.{name}" for name in core), cwd=tmp_path)


@pytest.mark.parametrize("name", ["helios-video", "helios video", "helios.video", "ComfyUI-Helios Video v0.1"])
def test_loads_the_way_comfyui_loads_it(name, tmp_path):
    folder = tmp_path / "custom_nodes" / name
    for part in ("__init__.py", "nodes", "helios_core", "web"):
        copy = shutil.copytree if (ROOT / part).is_dir() else shutil.copy
        folder.mkdir(parents=True, exist_ok=True)
        copy(ROOT / part, folder / part, **({"ignore": _not_weights} if copy is shutil.copytree else {}))
    python(COMFY, folder, cwd=tmp_path)


def _not_weights(_, names):
    return [n for n in names if n == "__pycache__" or n.endswith((".safetensors", ".pt"))]


def test_requirements_equal_the_dependencies():
    assert (ROOT / "requirements.txt").read_text().split("\n")[:-1] == PROJECT["project"]["dependencies"]


EXTRAS = ("mlx", "ftfy", "plots", "gguf", "download", "ray", "osc")


def test_dependencies_have_lower_bounds_only():
    optional = PROJECT["project"]["optional-dependencies"]
    assert set(optional) == {"test", *EXTRAS}
    lists = [PROJECT["project"]["dependencies"], *(optional[name] for name in EXTRAS)]
    for requirement in [requirement for some in lists for requirement in some]:
        assert re.fullmatch(r"[\w-]+(\[\w+\])?>=[\d.]+(; .*)?", requirement), requirement


def test_every_import_of_the_product_is_declared():
    declared = {re.match(r"[\w-]+", d).group() for d in PROJECT["project"]["dependencies"]}
    declared = {{"pillow": "PIL"}.get(name, name) for name in declared}
    extras = {"mlx", "ftfy", "matplotlib", "gguf", "huggingface_hub", "ray", "fsspec", "pythonosc"}
    provided = declared | extras | {"helios_video"} | set(sys.stdlib_module_names)
    outside = {"comfy", "comfy_api", "comfy_execution", "folder_paths", "latent_preview", "psutil", "server"}
    outside |= {"aiohttp"}  # which ComfyUI serves with
    outside |= {"flash_attn_interface", "sageattention"}  # ways of attention that a user may install
    outside |= {"diffusers"}  # that `helios bench speed` measures beside ours where it is installed
    outside |= {"triton"}  # which torch brings where it knows a GPU for it
    for path in PYTHON_FILES:
        if path.relative_to(ROOT).parts[0] == "tests":
            continue
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = [a.name for a in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom) and not node.level:
                names = [node.module]
            unknown = {n.split(".")[0] for n in names} - provided - outside
            assert not unknown, f"{path.relative_to(ROOT)} imports {unknown}"


def imported(path):
    """Modules that a file imports, at the top or inside functions; of the pack's own, those of its backends."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name.split(".")[0] for alias in node.names}
        if isinstance(node, ast.ImportFrom) and not node.level:
            found |= {node.module.split(".")[0], *(f"{node.module}.{alias.name}" for alias in node.names)}
    return found


CORE = ROOT / "helios_core"
OWN_LIBRARY = ("backends/torch", "backends/mlx", "training", "study", "commands")
OWN_LIBRARY += ("workflow/standins.py", "workflow/files.py")  # ComfyUI's nodes, and what they hand on
OWN_LIBRARY += ("lora/changes.py",)  # torch.load of the official companion
SHARED = [p for p in sorted(CORE.rglob("*.py")) if not p.relative_to(CORE).as_posix().startswith(OWN_LIBRARY)]


@pytest.mark.parametrize("path", SHARED, ids=lambda p: p.relative_to(CORE).as_posix())
def test_shared_algorithms_know_no_backend(path):
    """Nor einops' repeat, which fails on MLX."""
    assert not {"torch", "mlx", "einops.repeat"} & imported(path)


def test_the_algorithms_are_among_the_shared():
    named = {p.relative_to(CORE).as_posix() for p in SHARED}
    assert {"steps/denoise.py", "pyramid/levels.py", "history/drift.py", "ul/decode.py", "pipeline.py"} <= named


def test_backends_know_only_their_own_library():
    folders = ROOT / "helios_core" / "backends"
    for name, other in (("torch", "mlx"), ("mlx", "torch")):
        assert len(files := list((folders / name).glob("*.py"))) > 5
        for path in files:
            assert not {other, "transformers" if name == "mlx" else "mlx"} & imported(path), path


def test_registry_name_and_version():
    name, version = PROJECT["project"]["name"], PROJECT["project"]["version"]
    assert name == "helios-video" and len(name) < 100 and "comfyui" not in name.lower()
    assert re.fullmatch(r"[A-Za-z][A-Za-z0-9]*([-_.][A-Za-z0-9]+)*", name)
    assert re.fullmatch(r"\d+\.\d+\.\d+", version)
    comfy = PROJECT["tool"]["comfy"]
    assert comfy["PublisherId"] and comfy["DisplayName"] and re.fullmatch(r">=\d+\.\d+\.\d+", comfy["requires-comfyui"])
    assert {"Repository", "Documentation", "Issues", "Bug Tracker"} <= set(PROJECT["project"]["urls"])


def test_classifiers_are_those_the_registry_knows():
    """One unknown "Environment ::" or "Operating System ::" entry makes the registry drop the whole list."""
    known = {"NVIDIA CUDA", "AMD ROCm", "Intel Arc", "Apple Metal"}
    known = {f"Environment :: GPU :: {name}" for name in known} | {"Environment :: NPU :: Huawei Ascend"}
    known |= {f"Operating System :: {s}" for s in ("OS Independent", "Microsoft :: Windows", "POSIX :: Linux", "MacOS")}
    classifiers = PROJECT["project"]["classifiers"]
    for entry in classifiers:
        if entry.startswith(("Environment ::", "Operating System ::")):
            assert entry in known, entry
    assert "Operating System :: OS Independent" in classifiers


def test_license_is_apache_2():
    assert PROJECT["project"]["license"] == {"file": "LICENSE"}
    text = (ROOT / "LICENSE").read_text()
    assert "Apache License" in text and "Version 2.0, January 2004" in text and "9. Accepting Warranty" in text


def test_comfyignore_leaves_out_the_tests_and_keeps_what_comfyui_reads():
    lines = (ROOT / ".comfyignore").read_text().split()
    assert "tests/" in lines
    assert not {"workflows/", "web/", "helios_core/", "nodes/", "requirements.txt"} & set(lines)


def test_every_package_is_installed():
    folders = {p.parent.relative_to(ROOT) for p in PYTHON_FILES}
    wanted = {".".join(("helios_video", *f.parts)) for f in folders if f.parts[:1] not in (("tests",), (".ci",))}
    assert set(PROJECT["tool"]["setuptools"]["packages"]) == wanted


def test_workflow_files_carry_the_registry_id():
    for path in sorted((ROOT / "workflows").glob("*.json")):
        for node in json.loads(path.read_text(encoding="utf-8"))["nodes"]:
            assert node["type"] in ("Note", "MarkdownNote") or node["properties"]["cnr_id"], (path.name, node["id"])


@pytest.mark.parametrize("path", PYTHON_FILES, ids=lambda p: p.relative_to(ROOT).as_posix())
def test_style(path):
    """Encodable in cp1252 (Windows consoles), short, no broad except, one root of imports."""
    text = path.read_text(encoding="utf-8")
    text.encode("ascii")
    tests = path.relative_to(ROOT).parts[0] == "tests"
    assert tests or text.count("\n") <= 300
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            length = node.end_lineno - node.lineno + 1
            assert tests or length <= 40, f"{node.name} has {length} lines"
        if isinstance(node, ast.ExceptHandler):
            caught = ast.unparse(node.type) if node.type else "everything"
            assert caught not in ("everything", "Exception", "BaseException"), f"line {node.lineno} catches {caught}"
        if isinstance(node, ast.ImportFrom) and not tests:
            assert node.level or not (node.module or "").startswith("helios_"), f"line {node.lineno}: import relatively"
