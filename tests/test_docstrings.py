"""Every public function and class says what it is, those that refuse say so, and none is long."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
FILES = [p for folder in ("helios_core", "nodes") for p in sorted((ROOT / folder).rglob("*.py"))]
LONGEST = 60  # lines of a function
MADE_BY = ("__init__", "__post_init__", "__new__")  # what these refuse, their class says

DEFINITIONS = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)


def definitions(tree: ast.Module):
    """(name, definition, its class or None) of what is defined in a module and in its classes, not inside functions."""
    for node in tree.body:
        if isinstance(node, DEFINITIONS):
            yield node.name, node, None
        if isinstance(node, ast.ClassDef):
            yield from ((f"{node.name}.{m.name}", m, node) for m in node.body if isinstance(m, DEFINITIONS))


def is_public(name: str) -> bool:
    return not any(part.startswith("_") for part in name.split("."))


def is_setter(node: ast.AST) -> bool:
    """Whether it sets a property, whose getter says what it is."""
    return any(isinstance(d, ast.Attribute) and d.attr == "setter" for d in node.decorator_list)


def refuses(function: ast.AST) -> bool:
    """Whether it raises ValueError itself, not in a function inside it."""
    for node in ast.iter_child_nodes(function):
        if isinstance(node, DEFINITIONS):
            continue
        if isinstance(node, ast.Raise) and node.exc is not None and "ValueError" in ast.unparse(node.exc).split("(")[0]:
            return True
        if refuses(node):
            return True
    return False


def faults(tree: ast.Module) -> list[str]:
    found = []
    for name, node, owner in definitions(tree):
        function = not isinstance(node, ast.ClassDef)
        text = ast.get_docstring(node) or ""
        if function and node.end_lineno - node.lineno + 1 > LONGEST:
            found.append(f"{name} is longer than {LONGEST} lines")
        if is_public(name) and not text and not is_setter(node):
            found.append(f"{name} has no docstring")
        if function and refuses(node):
            made = owner is not None and node.name in MADE_BY
            text += ast.get_docstring(owner) or "" if made else ""
            public = is_public(owner.name) if made else is_public(name)
            if public and "ValueError" not in text:
                found.append(f"{name} raises ValueError and does not say so")
    return found


@pytest.mark.parametrize("path", FILES, ids=lambda p: p.relative_to(ROOT).as_posix())
def test_what_is_public_is_explained(path):
    assert not faults(ast.parse(path.read_text(encoding="utf-8")))


WRONG = '''
def f():
    raise ValueError("x")

class A:
    """A."""

    def __post_init__(self):
        raise ValueError("x")

    def g(self):
        """G."""
        def inner():
            raise ValueError("x")
'''


def test_faults_are_found():
    said = [
        "f has no docstring",
        "f raises ValueError and does not say so",
        "A.__post_init__ raises ValueError and does not say so",
    ]
    assert faults(ast.parse(WRONG)) == said
    assert faults(ast.parse("def f():\n    '''F.'''\n" + "    x = 1\n" * 60)) == ["f is longer than 60 lines"]
