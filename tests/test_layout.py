"""The house: who may import whom, that nothing runs in a circle, and that a room is entered by its door."""

from __future__ import annotations

import ast
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import helios_video as pack
import pytest
from support.layout import RANK

ROOT = Path(pack.__file__).parent
FILES = {
    ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path
    for folder in ("helios_core", "nodes")
    for path in sorted((ROOT / folder).rglob("*.py"))
}


def room(module: str) -> str:
    """helios_core.history.window -> history; nodes.sample -> nodes."""
    parts = module.split(".")
    return "nodes" if parts[0] == "nodes" else (parts + ["helios_core"])[1] if len(parts) > 1 else "helios_core"


def imports(module: str, *, late: bool = True):
    """Modules of the pack that one imports, with the name taken of it. late: those inside functions too."""
    path = FILES[module]
    package = module.split(".") if path.name == "__init__.py" else module.split(".")[:-1]
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for node in ast.walk(tree) if late else tree.body:
        if not isinstance(node, ast.ImportFrom) or not node.level:
            continue
        base = package[: len(package) - node.level + 1] + (node.module.split(".") if node.module else [])
        for name in node.names:
            whole = ".".join([*base, name.name])
            yield (whole, "") if whole in FILES else (".".join(base), name.name)


def test_every_room_has_its_place():
    assert {room(module) for module in FILES} == set(RANK)


@pytest.mark.parametrize("module", list(FILES))
def test_imports_run_downwards(module):
    own = room(module)
    up = [f"{module} imports {found}" for found, _ in imports(module) if (there := room(found)) != own
          and RANK[there] <= RANK[own]]  # fmt: skip
    assert not up, up


def test_no_imports_in_a_circle():
    graph = {module: {found for found, _ in imports(module) if found in FILES} - {module} for module in FILES}
    for module, found in graph.items():  # a package does not depend on itself through the modules it hands on
        found -= {other for other in found if module.startswith(f"{other}.")}
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        pytest.fail(" -> ".join(error.args[1]))


def test_rooms_are_entered_by_their_doors():
    """Where a folder hands names on, nobody outside takes them from its modules; of a folder in a folder its own door
    counts. The backends' doors are what they have in common (backends/interface.py); trainings take networks from where
    they are."""
    doors = {module for module, path in FILES.items() if path.name == "__init__.py" and "__all__" in path.read_text()}
    doors -= {"helios_core.backends.torch", "helios_core.backends.mlx"}
    wrong = []
    for module in FILES:
        for found, _ in imports(module):
            door = max((d for d in doors if found.startswith(f"{d}.")), key=len, default=None)
            inside = door is None or found in doors or module == door or module.startswith(f"{door}.")
            if not inside and found.rpartition(".")[2] not in _handed_on(door):
                wrong.append(f"{module} imports {found}; take it from {door}")
    assert not wrong, wrong


def _handed_on(door: str) -> list[str]:
    tree = ast.parse(FILES[door].read_text(encoding="utf-8"))
    values = [n.value for n in tree.body if isinstance(n, ast.Assign) and n.targets[0].id == "__all__"]
    return ast.literal_eval(values[0])


@pytest.mark.parametrize("folder", [m for m, p in FILES.items() if p.name == "__init__.py"])
def test_every_folder_says_what_it_is_for(folder):
    text = ast.get_docstring(ast.parse(FILES[folder].read_text(encoding="utf-8")))
    assert text and 1 <= len(text.splitlines()) <= 2
