"""Where a run of ComfyUI stands: which chunk of how many the running node works on, and how long the rest will take."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from weakref import WeakKeyDictionary

from . import core, host

SAMPLER, DECODER = "DMDPyramidSample", "ChunkConcat"
SHARE = {SAMPLER: (0.0, 0.9), DECODER: (0.9, 0.1)}  # of a chunk's part of the bar: where it begins, how long it is
WORDS = {SAMPLER: "chunk {} of {}, step {} of {}", DECODER: "decoding chunk {} of {}"}


@dataclass
class Pace:
    """Seconds that one kind of node was seen to take for so much work; later: work of a whole chunk."""

    seconds: float = 0.0
    work: float = 0.0
    later: float = 0.0

    def left(self, work: float) -> float:
        """Seconds for so much work; 0 before anything was seen."""
        return self.seconds / self.work * work if self.work else 0.0


class Layout:
    """A graph as bars need it. kinds: node -> class; wires: node -> the nodes that it is wired to."""

    def __init__(self, kinds: dict[str, str], wires: dict[str, set[str]]):
        self.kinds, self.wires = kinds, wires
        self.users: dict[str, set[str]] = {i: set() for i in wires}
        for user, found in wires.items():
            for source in found & self.users.keys():
                self.users[source].add(user)
        self._before: dict[str, set[str]] = {}

    @classmethod
    def of(cls, graph) -> Layout:
        """Of ComfyUI's graph as it is now."""
        nodes = {i: graph.get_node(i) for i in graph.all_node_ids()}
        return cls({i: node["class_type"] for i, node in nodes.items()}, {i: sources(n) for i, n in nodes.items()})

    def chunk_of(self, node: str) -> tuple[int, int]:
        """(which chunk from 0, how many) of a node: the samplers its own hangs on, and those that hang on it."""
        sampler = self.kinds[node] == SAMPLER
        last = node if sampler else max(self.before(node), key=lambda i: len(self.before(i)), default=node)
        index = len(self.before(last))
        return index, index + 1 + len(self._samplers(last, self.users))

    def before(self, node: str) -> set[str]:
        """The samplers that a node hangs on."""
        if node not in self._before:
            self._before[node] = self._samplers(node, self.wires)
        return self._before[node]

    def _samplers(self, start: str, wires: dict[str, set[str]]) -> set[str]:
        return {i for i in reach(start, wires) if self.kinds.get(i) == SAMPLER}


@dataclass
class Prompt:
    """What is known of one prompt in work: the paces so far, how far its bar is, and how many chunks are sampled.

    layout: of its graph when that had so many nodes.
    """

    paces: dict[str, Pace] = field(default_factory=dict)
    value: int = 0
    sampled: int = 0
    layout: tuple[int, Layout] | None = None

    def laid_out(self, graph) -> Layout:
        """The layout of ComfyUI's graph, which only ever gets more nodes."""
        count = len(graph.all_node_ids())
        if self.layout is None or self.layout[0] != count:
            self.layout = count, Layout.of(graph)
        return self.layout[1]


_PROMPTS: WeakKeyDictionary = WeakKeyDictionary()  # ComfyUI's record of a prompt's progress -> Prompt


@dataclass
class RunPlace:
    """The running node's place in its prompt. index: its chunk, from 0; shown: the node that the user sees of it;
    parents: see parents_of."""

    prompt: Prompt
    kind: str
    shown: str
    index: int
    chunks: int
    decoded: bool
    parents: tuple[str, ...] = ()

    @classmethod
    def current(cls) -> RunPlace | None:
        """Of the node that runs; None without ComfyUI, and where it does not say which node that is."""
        if (found := running()) is None:
            return None
        graph, node = found
        record = host.optional("comfy_execution.progress", "get_progress_state")
        prompt = _PROMPTS.setdefault(record(), Prompt())
        kind = graph.get_node(node)["class_type"]
        if kind not in SHARE:
            return None
        layout = prompt.laid_out(graph)
        decoded, shown = DECODER in layout.kinds.values(), graph.get_display_node_id(node)
        return cls(prompt, kind, shown, *layout.chunk_of(node), decoded, parents_of(node, graph))

    def advance(self, costs, before: int, value: int, later: float, seconds: float) -> tuple[int, int, str]:
        """The whole bar's value and total, and words: units `before` to `value` of the node's took so many seconds."""
        pace = self.prompt.paces.setdefault(self.kind, Pace())
        pace.later = later
        if before or pace.work or self.kind == DECODER:  # the very first step includes loading
            pace.seconds += seconds
            pace.work += sum(costs[before:value])
        start, share = SHARE[self.kind] if self.decoded else (0, 1)
        done = self.index + start + share * sum(costs[:value]) / sum(costs)
        self.prompt.value = max(self.prompt.value, round(100 * done))
        words = WORDS[self.kind].format(self.index + 1, self.chunks, value, len(costs))
        left = self._left(sum(costs[value:]))
        return self.prompt.value, 100 * self.chunks, f"{words}, {clock(left)} left" if left else words

    def _left(self, work: float) -> float:
        """Seconds until the last chunk is done, as far as the paces are known."""
        if self.kind == SAMPLER:
            self.prompt.sampled = self.index + 1
        coming = {
            SAMPLER: self.chunks - self.prompt.sampled,
            DECODER: self.chunks - self.index - (self.kind == DECODER),
        }
        whole = sum(pace.left(pace.later * coming[kind]) for kind, pace in self.prompt.paces.items())
        return whole + self.prompt.paces[self.kind].left(work)


def running() -> tuple | None:
    """(ComfyUI's graph, the id in it of the node that runs); None without ComfyUI, and where it does not say."""
    context = host.optional("comfy_execution.utils", "get_executing_context")
    record = host.optional("comfy_execution.progress", "get_progress_state")
    here = context and record and context()
    return (record().dynprompt, here.node_id) if here else None


def forget_finished() -> None:
    """Takes of the nodes that others became what is done, and the steps between chunks, out of ComfyUI's record of
    progress. It sends the whole record to the page at every change: of 250 chunks 400 MB in all, so 31."""
    record = host.optional("comfy_execution.progress", "get_progress_state")
    if record is None:
        return
    found, end = record(), core.workflow.loops.END
    for node, state in list(found.nodes.items()):
        over = state["state"].value == "finished" or found.dynprompt.get_node(node)["class_type"] == end
        if over and found.dynprompt.get_parent_node_id(node) is not None:
            del found.nodes[node]


def parents_of(node: str, graph) -> tuple[str, ...]:
    """The nodes that became the ones a node is among, nearest first: ends of loops, which have bars of their own."""
    found = []
    while (node := graph.get_parent_node_id(node)) is not None:
        found.append(node)
    return tuple(found)


def reach(start: str, wires: dict[str, set[str]]) -> set[str]:
    """All nodes that can be reached from one."""
    found, todo = set(), [start]
    while todo:
        new = wires.get(todo.pop(), set()) - found
        found |= new
        todo += new
    return found


def sources(node: dict) -> set[str]:
    """The nodes that a node is wired to: by its inputs, and between the chunks of a loop by what it is to become."""
    wires = (*node["inputs"].values(), *node.get("becomes", ()))
    return {v[0] for v in wires if isinstance(v, (list, tuple)) and len(v) == 2}


def clock(seconds: float) -> str:
    """1:05, or 1:01:05 from an hour on."""
    minutes, seconds = divmod(math.ceil(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"
