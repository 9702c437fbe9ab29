"""Runs a workflow file, UI (0.4) or API format, with the node classes it is given: no server, no browser.

Everything is checked before anything runs: unknown nodes and inputs, missing inputs, values out of range, types that
do not fit, cycles, an output folder that cannot be written. Only what an output needs is run, each node once.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator
from contextlib import contextmanager
from glob import escape
from pathlib import Path
from typing import NamedTuple

from ..checkpoint import cache_folder
from ..disk import Journal, Store, digest, journal, json_text, safe_files
from . import format as fmt
from . import values
from .context import Run, running
from .graph import Graph, execute

LOG = logging.getLogger(__name__)


class Result(NamedTuple):
    """What a run left: files written, in order, and the text that preview nodes showed, by node title."""

    files: list[Path]
    texts: dict[str, str]


def run(path, node_classes: dict, overrides=None, *, output_dir, input_dir=None, on_progress=None, again=()) -> Result:
    """Runs the workflow file at `path`, or goes on with the same run where it was stopped.

    node_classes: id -> V1 class. overrides: {"NODE.INPUT": value}, NODE being an id, a title or a type (all of it);
    text is converted to the input's type. again: the arguments of `helios` that go on. ValueError for anything wrong
    with the file, before any node runs.
    """
    from .standins import NODES

    classes = {**NODES, **node_classes}
    source = read(path)
    with _naming(path):
        prompt, cut = fmt.to_api_and_cut(source, classes)
        values.override(prompt, classes, overrides or {})
        order = plan(prompt, classes)
    state = Run(prompt, Path(output_dir), Path(input_dir or "."), on_progress or (lambda _: None), classes)
    hidden = {"PROMPT": prompt, "EXTRA_PNGINFO": {"workflow": source} if fmt.is_ui(source) else {}}
    with running(state):
        with _naming(path):
            values.check(prompt, classes, order, cut)
        safe_files.check_folder(state.output_dir).mkdir(parents=True, exist_ok=True)
        with _going_on(state, Path(path).stem, [*again]):
            execute(Graph(prompt, cut), classes, outputs(prompt, classes), hidden, state.starts)
    return Result(state.files, state.texts)


@contextmanager
def _going_on(state: Run, name: str, again: list[str]) -> Iterator[None]:
    """Inside, the run has its journal. Its folder goes by the workflow's values, so each set of them has its own."""
    kept = cache_folder()
    place = state.output_dir / f"{name}_{digest(state.prompt)[:6]}_chunks"
    behind = None if kept is None else Store(kept / "chunks")
    state.journal = Journal.begin(place, {"workflow": state.prompt}, again, behind)
    for other in sorted(state.output_dir.glob(f"{escape(name)}_*_chunks"))[:3]:
        if other != state.folder and journal.playable(other):
            LOG.warning("%s has another run's chunks; if it was stopped, go on with %s", other, journal.command(other))
    if state.journal.went_on:
        LOG.warning("going on in %s: %s there", state.folder, journal.told(state.journal.went_on))
    try:
        yield
        state.journal.finish()
    finally:
        if left := state.journal.close():
            state.starts("", "")  # ends the bar of the node that ran last
            LOG.warning("%s", left)


@contextmanager
def _naming(path) -> Iterator[None]:
    """What is wrong with a workflow names its file; what --set says speaks for itself."""
    try:
        yield
    except ValueError as error:
        if str(error).startswith("--set"):
            raise
        raise ValueError(f"{Path(path).name}: {error}") from error


def read(path) -> dict:
    """The JSON of a workflow file. ValueError if it is missing, broken or no workflow."""
    path = Path(path)
    if not path.is_file():
        raise ValueError(f"no workflow file at {path}")
    source = json_text.read(path)
    if not fmt.is_ui(source) and not fmt.is_api(source):
        raise ValueError(f"{path} is no workflow: wanted 'nodes' and 'links', or {_wanted(source)}")
    return source


def _wanted(source) -> str:
    """What a file lacks to be of the API format; which node, where most of it is."""
    whole = [i for i, n in source.items() if fmt.is_api({i: n})] if isinstance(source, dict) else []
    broken = [i for i in source if i not in whole] if whole else []
    at = f"; node {str(broken[0])[:40]} has none, export the workflow from ComfyUI again" if broken else ""
    return f"numbered nodes with class_type and inputs{at}"


def plan(prompt: dict, classes: dict) -> list[str]:
    """The nodes that outputs need, in the order to check them. ValueError for unknown nodes, no output, or a cycle."""
    unknown: dict[str, list[str]] = {}
    for node, entry in prompt.items():
        if entry["class_type"] not in classes:
            unknown.setdefault(entry["class_type"], []).append(node)
    if unknown:
        hints = [f"{_unknown(kind, classes)} (node {', '.join(nodes[:5])})" for kind, nodes in sorted(unknown.items())]
        raise ValueError(f"nodes this pack does not know: {', '.join(hints)}. Such a workflow needs ComfyUI itself.")
    if not (found := outputs(prompt, classes)):
        raise ValueError("the workflow saves nothing: add a Save Video node")
    order: dict[str, None] = {}
    for node in found:
        if node not in order:
            _visit(node, prompt, order)
    return list(order)


def _unknown(kind: str, classes: dict) -> str:
    if re.fullmatch(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", kind):
        return "a subgraph that the file does not hold; save it in ComfyUI again"
    if re.match(r"workflow[>/]", kind):
        return f"the group node {kind[9:]!r}; convert it to nodes or to a subgraph in ComfyUI"
    return f"{kind!r}{values.near(kind, classes)}"


def outputs(prompt: dict, classes: dict) -> list[str]:
    """The nodes that save or show something."""
    return [i for i, n in prompt.items() if getattr(classes[n["class_type"]], "OUTPUT_NODE", False)]


def _visit(node: str, prompt: dict, order: dict[str, None]) -> None:
    """Adds the node to the order, after all that it needs, however long the way there is."""
    path = {node: _wired(node, prompt)}  # node -> what of its inputs is still to be looked at
    while path:
        last = next(reversed(path))
        found = next(path[last], None)
        if found is None:
            del path[last]
            order[last] = None
        elif found in path:
            circle = [*path][[*path].index(found) :]
            raise ValueError(f"the workflow runs in a circle: {' -> '.join([*circle[:20], found])}")
        elif found not in order:
            path[found] = _wired(found, prompt)


def _wired(node: str, prompt: dict) -> Iterator[str]:
    for name, value in prompt[node]["inputs"].items():
        if fmt.is_link(value):
            if value[0] not in prompt:
                raise ValueError(f"{values.label(node, prompt)}.{name} is wired to node {value[0]}, which is not there")
            yield value[0]
