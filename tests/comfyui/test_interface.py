"""The table of what the pack takes of ComfyUI (interface.py) beside the nodes, and beside a ComfyUI at COMFYUI_PATH."""

from __future__ import annotations

import ast
import re
from functools import cache
from pathlib import Path

import pytest
from comfyui.interface import ABSENT, ANSWERS, HELD, NAMES, OLDER, OWN, PUT_BY, READ
from helios_video.nodes import host
from support.comfyui import COMFYUI, ROOT
from support.comfyui_names import FUNCTIONS, Source, binds, call_of, touched

FILES = sorted((ROOT / "nodes").glob("*.py"))
TABLE = {f"{module}.{name}": call for module, names in NAMES.items() for name, call in names.items()}
LISTED = {".".join(name.split(".")[:i]) for name in TABLE for i in range(1, name.count(".") + 2)}
PYTHON = ("__name__", "register")  # what Python gives every module, and abc every abstract class
TAKEN = [  # ways to take something that the table does not have
    ("management.new()", "comfy.model_management.new"),
    ("comfy.ops.manual_cast.New(3)", "comfy.ops.manual_cast.New"),
    ("from comfy.new import thing", "comfy.new.thing"),
    ("a, b = 1, host.comfy('comfy.new'); b.thing", "comfy.new.thing"),
    ("host.optional('comfy.new', 'thing')", "comfy.new.thing"),
    ("patcher.new", "comfy.model_patcher.ModelPatcher.new"),
    ("getattr(patcher, 'new', None)", "comfy.model_patcher.ModelPatcher.new"),
    ("self._bar.new()", "comfy.utils.ProgressBar.new"),
]
here = pytest.mark.skipif(not COMFYUI, reason="COMFYUI_PATH is not set: no ComfyUI to read")


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_what_the_nodes_take_is_in_the_table(file):
    names = {n for n in touched(file, host.API, HELD) if n.split(".")[-1] not in PYTHON and not n.endswith(OWN)}
    assert [name for name in sorted(names) if not accounted(name)] == []


def accounted(name: str) -> bool:
    """Whether a name is in the table, or is asked of a value that is; a class or module lists what is asked of it."""
    owner = name.rpartition(".")[0]
    if name in LISTED:
        return True
    if owner in TABLE:
        return owner.split(".")[-1][0].islower() and not any(other.startswith(f"{owner}.") for other in TABLE)
    return bool(owner) and owner not in LISTED and accounted(owner)


def test_the_table_holds_no_name_that_the_nodes_do_not_take():
    text = "\n".join(file.read_text(encoding="utf-8") for file in FILES)
    silent = ("memory_required",)  # theirs are overridden
    idle = [name for name in TABLE if not re.search(rf"\b{name.split('.')[-1]}\b", text)]
    classes = {name.rpartition(".")[0] for name in TABLE}
    assert [name for name in idle if name not in classes and not name.endswith(silent)] == []


def test_the_table_says_of_versions_and_modules_only_what_it_has():
    assert set(ABSENT) <= set(TABLE) and set(OLDER) <= set(NAMES)
    assert {version for versions in ABSENT.values() for version in versions} <= set(READ)


@pytest.mark.parametrize("line, name", TAKEN)
def test_a_name_that_is_taken_is_found(tmp_path, line, name):
    file = tmp_path / "live.py"
    file.write_text(f"import comfy.ops, comfy.model_management as management\ndef f(self, patcher):\n    {line}\n")
    assert name in touched(file, host.API, HELD) and not accounted(name)


@here
@pytest.mark.parametrize("name", TABLE)
def test_comfyui_has_what_the_nodes_take(name):
    module = next(m for m in NAMES if name.startswith(f"{m}.") and name.removeprefix(f"{m}.") in NAMES[m])
    source = comfyui()
    if name in PUT_BY:
        assert f".{name.rpartition('.')[2]} = " in (source.root / PUT_BY[name]).read_text(encoding="utf-8")
        return
    found = source.find(module, name.removeprefix(f"{module}."))
    if version() in ABSENT.get(name, ()):
        assert not found
        return
    assert found, f"ComfyUI {version()} has no {name}"
    if TABLE[name]:
        assert all(source.takes(one, TABLE[name]) for one in found), f"not to be called with {TABLE[name]}"


@cache
def comfyui() -> Source:
    """The ComfyUI at COMFYUI_PATH."""
    return Source(Path(COMFYUI))


def version() -> str:
    """Of the ComfyUI at COMFYUI_PATH."""
    return re.search(r'"(.+)"', (Path(COMFYUI) / "comfyui_version.py").read_text())[1]


def ours(owner: str) -> dict:
    """The methods of a class of nodes/, by "FILE class"."""
    file, name = owner.split()
    tree = ast.parse((ROOT / "nodes" / file).read_text(encoding="utf-8"))
    (found,) = [node for node in ast.walk(tree) if isinstance(node, ast.ClassDef) and node.name == name]
    return {node.name: node for node in found.body if isinstance(node, FUNCTIONS)}


@pytest.mark.parametrize("owner", ANSWERS)
def test_our_objects_take_what_the_newest_comfyui_gives_them(owner):
    methods = ours(owner)
    assert [m for m, call in ANSWERS[owner][1].items() if m not in methods or not binds(methods[m], call)] == []


@here
@pytest.mark.parametrize("owner", [owner for owner, (theirs, _) in ANSWERS.items() if theirs])
def test_our_objects_take_what_this_comfyui_gives_them(owner):
    source, bad = comfyui(), []
    module, _, name = ANSWERS[owner][0].rpartition(".")
    for method, node in ours(owner).items():
        for found in source.find(module, f"{name}.{method}"):
            if isinstance(found.node, FUNCTIONS) and method != "__init__" and not binds(node, call_of(found.node)):
                bad.append(f"{method}{call_of(found.node)}")
    assert bad == []
