"""The tests' own house: they stand in the folders of what they test, share through tests/support, and stay short."""

from __future__ import annotations

import ast
import re
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

import helios_video as pack
import pytest

ROOT, TESTS = Path(pack.__file__).parent, Path(__file__).parent
FILES = sorted(TESTS.rglob("*.py"))
ELSEWHERE = {"comfyui", "benchmarks"}  # tests of the whole pack in ComfyUI, and of the scripts beside them


def named(path: Path) -> str:
    return path.relative_to(TESTS).as_posix()


def test_tests_stand_in_the_folder_of_what_they_test():
    folders = {path.parent.relative_to(TESTS) for path in FILES if path.name.startswith("test_")}
    lost = [f for f in folders if not (ROOT / "helios_core" / f).is_dir() and not (ROOT / f).is_dir()]
    assert {folder.as_posix() for folder in lost} <= ELSEWHERE


@pytest.mark.parametrize("path", FILES, ids=named)
def test_no_test_module_imports_another(path):
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom):
            found |= {node.module or "", *(f"{node.module}.{name.name}" for name in node.names)}
        elif isinstance(node, ast.Import):
            found |= {name.name for name in node.names}
    parts = {part for name in found if not name.startswith("helios_video") for part in name.split(".")}
    assert not [part for part in parts if part.startswith("test_") or part == "conftest"], "share through tests/support"


@pytest.mark.parametrize("path", FILES, ids=named)
def test_files_are_short(path):
    assert path.read_text(encoding="utf-8").count("\n") <= 300


@pytest.mark.parametrize("path", FILES, ids=named)
def test_what_scripts_in_strings_import_is_there(path):
    """Programs that tests start are texts: no linter reads their imports."""
    missing = []
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            for module, names in re.findall(r"^\s*from (helios_video[\w.]*) import ([\w, ]+)$", node.value, re.M):
                found = import_module(module)
                for name in (word.split()[0] for word in names.split(",")):
                    if not hasattr(found, name) and find_spec(f"{module}.{name}") is None:
                        missing.append(f"{module}.{name}")
    assert not missing
