"""Names of ComfyUI in the nodes' source, and definitions in ComfyUI's: read with ast, nothing is imported."""

from __future__ import annotations

import ast
from dataclasses import dataclass
from functools import cache
from pathlib import Path

ROOTS = ("comfy", "comfy_api", "comfy_execution", "folder_paths", "latent_preview", "nodes", "server", "execution")
FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)


def touched(file: Path, api: str, held: dict[str, str]) -> set[str]:
    """Dotted names of ComfyUI that a file of nodes/ takes.

    api: what `host.API` says. held: what variables hold that no import explains, by "variable" or "FILE variable".
    """
    tree, found = ast.parse(file.read_text(encoding="utf-8")), set()
    scoped = {key.split()[-1]: name for key, name in held.items() if key.startswith(f"{file.name} ")}
    names = {key: name for key, name in held.items() if " " not in key} | scoped

    def value(node) -> str | None:
        """The dotted name that an expression stands for, noted down where it is one."""
        if isinstance(node, ast.Name):
            return names.get(node.id)
        if isinstance(node, ast.Attribute):
            base = value(node.value)
            if base is None:
                return names.get(node.attr.lstrip("_")) if ast.unparse(node.value) == "self" else None
            found.add(f"{base}.{node.attr}")
            return f"{base}.{node.attr}"
        if isinstance(node, ast.BoolOp):
            return next(filter(None, map(value, node.values)), None)
        return asked(node) if isinstance(node, ast.Call) else None

    def asked(call: ast.Call) -> str | None:
        """Of host.comfy("module"), host.optional("module", "name") and getattr(it, "name")."""
        words = [a.value if isinstance(a, ast.Constant) else None for a in call.args]
        kind = ast.unparse(call.func)
        if kind in ("host.comfy", "comfy"):
            return words[0] or (api if ast.unparse(call.args[0]) == "host.API" else None)
        if kind == "host.optional":
            found.add(".".join(words[:2]))
            return ".".join(words[:2])
        if kind in ("getattr", "hasattr") and words[1] and (base := value(call.args[0])):
            found.add(f"{base}.{words[1]}")
        return None

    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for name in node.names:
                root = name.name.split(".")[0]
                if root in ROOTS:
                    names[name.asname or root] = name.name if name.asname else root
        elif isinstance(node, ast.ImportFrom) and not node.level and node.module.split(".")[0] in ROOTS:
            for name in node.names:
                found.add(f"{node.module}.{name.name}")
                names[name.asname or name.name] = f"{node.module}.{name.name}"
    for node in ast.walk(tree):
        for target, given in assigned(node):
            if isinstance(target, ast.Name) and target.id not in names and (meaning := value(given)):
                names[target.id] = meaning
    for node in ast.walk(tree):
        value(node)
    return found


def assigned(node):
    """(target, value) pairs of an assignment, a tuple's one by one."""
    if isinstance(node, ast.NamedExpr):
        yield node.target, node.value
    elif isinstance(node, ast.Assign):
        for target in node.targets:
            if isinstance(target, ast.Tuple) and isinstance(node.value, ast.Tuple):
                yield from zip(target.elts, node.value.elts)
            else:
                yield target, node.value


@dataclass(frozen=True)
class Found:
    """A definition: its node, and the module that it stands in."""

    node: ast.AST
    module: str


class Source:
    """A ComfyUI's source by dotted names."""

    def __init__(self, root: Path):
        self.root = root
        self.tree = cache(self._tree)

    def _tree(self, module: str) -> ast.Module | None:
        place = self.root.joinpath(*module.split("."))
        file = next((f for f in (place.with_suffix(".py"), place / "__init__.py") if f.is_file()), None)
        return file and ast.parse(file.read_text(encoding="utf-8"))

    def find(self, module: str, name: str) -> list[Found]:
        """All definitions of a name of a module, "Class.member" too; none if there are none."""
        first, *rest = name.split(".")
        found = self._top(module, first)
        for part in rest:
            found = [member for one in found for member in self._members(one, part)]
        return found

    def _top(self, module: str, name: str) -> list[Found]:
        tree, found = self.tree(module), []
        for node in _here(tree) if tree else ():
            if isinstance(node, (*FUNCTIONS, ast.ClassDef)) and node.name == name:
                found.append(Found(node, module))
            elif isinstance(node, ast.AnnAssign) and getattr(node.target, "id", None) == name:
                found.append(Found(node, module))
            elif isinstance(node, ast.ImportFrom):
                for alias in node.names:
                    if (alias.asname or alias.name) == name:
                        found += self._top(self._module(module, node), alias.name)
            for target, given in assigned(node):
                if isinstance(target, ast.Name) and target.id == name:
                    same = isinstance(given, ast.Name) and given.id != name
                    found += (self._top(module, given.id) if same else []) or [Found(node, module)]
        return found

    def _module(self, module: str, node: ast.ImportFrom) -> str:
        if not node.level:
            return node.module
        inside = (self.root.joinpath(*module.split(".")) / "__init__.py").is_file()
        parts = module.split(".")[: len(module.split(".")) - node.level + inside]
        return ".".join([*parts, *([node.module] if node.module else [])])

    def _members(self, owner: Found, name: str) -> list[Found]:
        if not isinstance(owner.node, ast.ClassDef):
            given = getattr(owner.node, "value", None)  # an attribute that is another name
            found = self.find(owner.module, ast.unparse(given)) if isinstance(given, (ast.Name, ast.Attribute)) else []
            return [member for one in found if one.node is not owner.node for member in self._members(one, name)]
        found = []
        for node in owner.node.body:
            if isinstance(node, (*FUNCTIONS, ast.ClassDef)) and node.name == name:
                found.append(Found(node, owner.module))
            elif isinstance(node, ast.AnnAssign) and getattr(node.target, "id", None) == name:
                found.append(Found(node, owner.module))
            for target, given in assigned(node):
                if getattr(target, "id", None) == name:
                    alias = self.find(owner.module, ast.unparse(given)) if isinstance(given, ast.Name) else []
                    found += alias or [Found(node, owner.module)]
        mine = {"self", "cls", owner.node.name}
        for node in ast.walk(owner.node):
            places = [t for t, _ in assigned(node)] + ([node.target] if isinstance(node, ast.AnnAssign) else [])
            for place in places:
                if isinstance(place, ast.Attribute) and place.attr == name and ast.unparse(place.value) in mine:
                    found.append(Found(node, owner.module))
        if found:
            return found
        bases = [one for base in owner.node.bases for one in self.find(owner.module, ast.unparse(base))]
        return [member for base in bases if base.node is not owner.node for member in self._members(base, name)]

    def takes(self, found: Found, call: str) -> bool:
        """Whether a definition can be called so; True where its arguments are not written down."""
        if isinstance(found.node, ast.ClassDef):
            makers = self._members(found, "__init__")
            return all(self.takes(maker, call) for maker in makers)
        return not isinstance(found.node, FUNCTIONS) or binds(found.node, call)


def _here(tree):
    """Statements of a module's top, those under if, try and with too."""
    for node in tree.body:
        yield node
        if isinstance(node, (ast.If, ast.Try, ast.With)):
            yield from (n for n in ast.walk(node) if isinstance(n, ast.stmt) and n is not node)


def binds(function, call: str) -> bool:
    """Whether a def takes the arguments of a call, such as "(a, b, c=1)"; self and cls are left out."""
    given, spec = ast.parse(f"f{call}", mode="eval").body, function.args
    places = [a.arg for a in (*spec.posonlyargs, *spec.args)]
    places = places[1:] if places[:1] in (["self"], ["cls"]) else places
    named = [k.arg for k in given.keywords]
    if len(given.args) > len(places) and spec.vararg is None:
        return False
    known = {*places[len(given.args) :], *(a.arg for a in spec.kwonlyargs)}
    if spec.kwarg is None and not set(named) <= known:
        return False
    needed = places[: len(places) - len(spec.defaults)][len(given.args) :]
    needed += [a.arg for a, default in zip(spec.kwonlyargs, spec.kw_defaults) if default is None]
    return set(needed) <= set(named)


def call_of(function) -> str:
    """How a def can be called with all that it has: arguments without a default in their places, the others by name."""
    spec = function.args
    places = [a.arg for a in (*spec.posonlyargs, *spec.args)]
    places = places[1:] if places[:1] in (["self"], ["cls"]) else places
    bare = len(places) - len(spec.defaults)
    named = [*places[bare:], *(a.arg for a in spec.kwonlyargs)]
    return f"({', '.join([*places[:bare], *(f'{name}=None' for name in named)])})"
