"""One word, one thing: no two classes of one name, and files that a text names are there."""

import ast
import re
from collections import defaultdict
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
FILES = [p for folder in ("helios_core", "nodes") for p in sorted((ROOT / folder).rglob("*.py"))]
THERE = [p.relative_to(ROOT).as_posix() for f in ("helios_core", "nodes", "tests") for p in (ROOT / f).rglob("*.py")]
COMFYUI = {"ops.py", "utils.py"}  # files of its own that texts name


def classes() -> dict[str, set[str]]:
    """Name of a class -> the files that define it; the twins of the two backends count as one."""
    found = defaultdict(set)
    for path in FILES:
        place = re.sub("backends/(torch|mlx)/", "backends/*/", path.relative_to(ROOT).as_posix())
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ClassDef):
                found[node.name].add(place)
    return found


def test_no_two_classes_have_one_name():
    wrong = {name: sorted(places) for name, places in classes().items() if len(places) > 1}
    assert not wrong, wrong


@pytest.mark.parametrize("path", FILES, ids=lambda p: p.relative_to(ROOT).as_posix())
def test_files_that_a_text_names_are_there(path):
    named = {name.lstrip("/") for name in re.findall(r"[\w/]*\w\.py\b", path.read_text(encoding="utf-8"))} - COMFYUI
    gone = [name for name in named if not any(f"/{file}".endswith(f"/{name}") for file in THERE)]
    assert not gone, gone
