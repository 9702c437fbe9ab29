"""The runs that ComfyUI has in work, and the scores by which they may be directed: one per run and schedule node."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from threading import Lock

from . import core, directing, host

SCHEDULE, TEXT = "HeliosPromptSchedule", "text"
KEPT = 32  # scores, of runs in work and over
EVENT = "helios-video.score"

_SCORES: OrderedDict[tuple[str, str], object] = OrderedDict()
_EDITED: dict[str, int] = {}  # a text that runs began with -> how many of them were edited
_COUNTED: set[tuple[str, str]] = set()  # which these are
_LOCK = Lock()
LISTENERS: list[Callable[[str, dict], None]] = []  # besides ComfyUI's socket: (event, values)


class UnknownRun(ValueError):
    """No such run is in work, or it has no such node."""


def server():
    """ComfyUI's server, or None."""
    return getattr(host.optional("server", "PromptServer"), "instance", None)


def in_work() -> dict[str, dict]:
    """Id -> graph of every prompt that ComfyUI is running."""
    return {item[1]: item[2] for item in _items()}


def _items() -> list:
    """What ComfyUI's queue holds of the prompts in work: (number, id, graph, extra data ...) each, its own copies."""
    queue = getattr(server(), "prompt_queue", None)
    if queue is None:
        return []
    with queue.mutex:
        return list(queue.currently_running.values())


def schedules(graph: dict) -> list[str]:
    """The schedule nodes of a graph."""
    return [node for node, entry in graph.items() if entry["class_type"] == SCHEDULE]


def find(run: str, node: str):
    """The LiveScore of a run in work. UnknownRun where there is none."""
    graph = in_work().get(run)
    if graph is None:
        raise UnknownRun(f"no run {run!r} is in work")
    if graph.get(node, {}).get("class_type") != SCHEDULE:
        raise UnknownRun(f"the run has no schedule node {node!r}; it has {', '.join(schedules(graph)) or 'none'}")
    text = graph[node]["inputs"].get(TEXT)
    if not isinstance(text, str):
        raise UnknownRun(f"the text of node {node!r} comes over a wire: nothing here can change it")
    return score_of(run, node, text)


def score_of(run: str, node: str, text: str):
    """The LiveScore of a node in a run that began with that text; a new one, where nobody has asked for it yet."""
    with _LOCK:
        found = _SCORES.get((run, node))
        if found is None:
            found = core.text.LiveScore(text, directing.check_text, lambda: tell(run, node, found))
            _SCORES[run, node] = found
            while len(_SCORES) > KEPT:
                _SCORES.popitem(last=False)
    return found


def known(run: str, node: str):
    """The LiveScore of a node in a run, if anybody has asked for it yet; else None."""
    with _LOCK:
        return _SCORES.get((run, node))


def tell(run: str, node: str, score) -> None:
    """Tells every page, and whatever else listens on ComfyUI's socket, how a score stands; remembers its edits."""
    with _LOCK:
        if score.edits and (run, node) not in _COUNTED:
            _COUNTED.add((run, node))
            _EDITED[score.first] = _EDITED.get(score.first, 0) + 1
    told({"prompt": run, "node": node, **score.status()})


def told(values: dict, event: str = EVENT) -> None:
    """Tells every page, and whoever else listens."""
    if board := server():
        board.send_sync(event, values)
    for listener in LISTENERS:
        listener(event, values)


def past(run: str, node: str, change: Callable[[str], str]) -> dict:
    """The graph of a run that is over, with the score of a node changed. UnknownRun where there is no such run; errors
    as change's, and ValueError for a score that says what it said before."""
    queue = getattr(server(), "prompt_queue", None)
    found = {} if queue is None else queue.get_history(prompt_id=run)
    if run not in found:
        raise UnknownRun(f"no run {run!r} is over and remembered")
    graph = found[run]["prompt"][2]
    if node not in schedules(graph) or not isinstance(graph[node]["inputs"].get(TEXT), str):
        raise UnknownRun(
            f"the run has no schedule node {node!r} with a text; it has {', '.join(schedules(graph)) or 'none'}"
        )
    before = graph[node]["inputs"][TEXT]
    after = change(before)
    if after == before:
        raise ValueError("the score says that already: a retake needs something that is different")
    directing.check_text(after)
    graph[node]["inputs"][TEXT] = after
    return graph


def times_edited(text: str | None) -> int:
    """How many edited runs began with a text: what ComfyUI's cache has of them is not what the text says."""
    return _EDITED.get(text, 0)


def write_back(dynamic, run: str, node: str, score, extra: dict | None) -> None:
    """Puts the score as used into what the run's files are marked with, and into ComfyUI's history of it.

    dynamic: ComfyUI's DynamicPrompt. The nodes' own inputs stay as they are: ComfyUI's cache goes by them.
    """
    if score.text == score.first:
        return
    prompt = dict(dynamic.original_prompt)
    prompt[node] = {**prompt[node], "inputs": {**prompt[node]["inputs"], TEXT: score.text}}
    dynamic.get_original_prompt = lambda: prompt  # holds for this run alone
    put_into_workflow(extra, node, score)
    for _, found, kept, more, *_ in _items():
        if found == run:
            kept[node]["inputs"][TEXT] = score.text
            put_into_workflow(more.get("extra_pnginfo"), node, score)


def put_into_workflow(extra, node: str, score) -> None:
    """Puts a score's text into the editor's workflow of an EXTRA_PNGINFO, in the widget of its node, which may stand in
    subgraphs. What is no such workflow stays as it is: any client may send anything there."""
    entry = find_node(_part(extra, "workflow", dict), node.split(":"))
    values = (entry or {}).get("widgets_values")
    if isinstance(values, dict):
        values[TEXT] = score.text
    elif isinstance(values, list) and values:
        values[0] = score.text


def find_node(workflow: dict, path: list[str]) -> dict | None:
    """A node of the editor's workflow by its ids, from the outermost subgraph inwards; None where there is none."""
    found, level = None, workflow
    inner = _dicts(_part(workflow, "definitions", dict), "subgraphs")
    for name in path:
        found = next((node for node in _dicts(level, "nodes") if str(node.get("id")) == name), None)
        level = next((graph for graph in inner if found and graph.get("id") == found.get("type")), {})
    return found


def _dicts(value, name: str) -> list[dict]:
    return [one for one in _part(value, name, list) if isinstance(one, dict)]


def _part(value, name: str, kind: type):
    """A part of JSON that should be of that kind; an empty one where it is not."""
    found = value.get(name) if isinstance(value, dict) else None
    return found if isinstance(found, kind) else kind()


class Asked:
    """A chunk's turn in its run: what it is made by (`schedule`, a text.Schedule), and word when it is done."""

    def __init__(self, schedule, score=None, chunk: int = 0):
        self.schedule, self.score, self.chunk = schedule, score, chunk

    def done(self) -> None:
        """The chunk is made."""
        if self.score is not None:
            self.score.finish(self.chunk)


def ask(schedule, chunk: int, extra: dict | None = None) -> Asked:
    """A chunk's turn: in ComfyUI by the score as it is now, after a pause where it pauses; else by the schedule itself.

    extra: ComfyUI's EXTRA_PNGINFO of the run, which is marked with what was used.
    """
    record = host.optional("comfy_execution.progress", "get_progress_state")
    run = getattr(server(), "last_prompt_id", None)
    if schedule is None or schedule.node is None or record is None or run is None:
        return Asked(schedule)
    dynamic = record().dynprompt
    node = dynamic.get_display_node_id(schedule.node)
    text = dynamic.original_prompt.get(node, {}).get("inputs", {}).get(TEXT)
    if not isinstance(text, str):
        return Asked(schedule)
    score = score_of(run, node, text)
    source = score.begin(chunk, host.stop_check(), None if score.ended else _total(chunk))
    write_back(dynamic, run, node, score, extra)
    return Asked(schedule if score.text == score.first else schedule.replaced(source), score, chunk)


def _total(chunk: int) -> int | None:
    """Chunks of the whole video, by the samplers of the graph."""
    from .place import RunPlace

    place = RunPlace.current()
    return None if place is None else chunk - place.index + place.chunks
