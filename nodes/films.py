"""The films of ComfyUI's runs: what ChunkConcat has finished of each video, to be looked at while it grows and after.

A film is known by its run's id and its number there. Whoever asks for a picture or a part of one names a chunk by its
place; where the files lie, nobody outside learns.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, replace
from pathlib import Path
from threading import Lock

from . import core, kept, place, runs

KEPT = 64  # films, of runs in work and over
EVENT = "helios-video.film"
CHUNK = "helios_chunk"  # on a LATENT: which chunk of its video it is

_FILMS: OrderedDict[tuple[str, int], Film] = OrderedDict()
_LOCK = Lock()


@dataclass
class Film:
    """A clip of a run. node: the ChunkConcat on screen that made it; schedule: the node whose score it was made by, and
    text that score; first: the number of its first chunk."""

    run: str
    number: int
    clip: object
    node: str
    schedule: str | None
    first: int
    text: str | None = None

    @property
    def over(self) -> bool:
        """Whether nothing more will come."""
        return self.run not in runs.in_work()

    def told(self) -> dict:
        """What pages are told of it, as JSON."""
        facts = ("run", "node", "schedule", "first", "text", "over")
        clip = self.clip
        size = {"width": clip.size[0], "height": clip.size[1], "fps": float(clip.fps)}
        frames = [segment.frames for segment in clip.segments]
        told = {name: getattr(self, name) for name in facts}
        return {"film": self.number, **told, "chunks": len(frames), "frames": frames, **size}


def grew(clip, chunk: int | None) -> None:
    """A clip has one more chunk, in ComfyUI; elsewhere nothing is done. chunk: its number in the video, if known."""
    found, run = place.running(), getattr(runs.server(), "last_prompt_id", None)
    if found is None or run is None:
        return
    film = _film(run, clip, *found, chunk)
    core.join.small.keep(clip.tail.frame, clip.segments[-1].path)
    runs.told(film.told(), EVENT)


def _film(run: str, clip, graph, node: str, chunk: int | None) -> Film:
    """The film of the run that the clip goes on with; a new one, where there is none."""
    with _LOCK:
        mine = [film for (name, _), film in _FILMS.items() if name == run]
        film = next((film for film in mine if film.clip.segments == clip.segments[:-1]), None)
        if film is None:
            first = 0 if chunk is None else chunk + 1 - len(clip.segments)
            film = Film(run, len(mine), clip, "", schedule_of(graph, node), max(0, first))
            _FILMS[run, film.number] = film
            while len(_FILMS) > KEPT:
                _FILMS.popitem(last=False)
        film.clip, film.node = replace(clip, tail=None), graph.get_display_node_id(node)
    if film.schedule is not None:
        score = runs.known(run, film.schedule)
        text = score.text if score else graph.original_prompt.get(film.schedule, {}).get("inputs", {}).get(runs.TEXT)
        film.text = text if isinstance(text, str) else None
    return film


def schedule_of(graph, node: str) -> str | None:
    """The schedule node on screen that the chunks of a node were sampled by; None where there is none."""
    entries = {i: graph.get_node(i) for i in graph.all_node_ids()}
    wires = {i: place.sources(entry) for i, entry in entries.items()}
    for sampler in place.reach(node, wires):
        if entries[sampler]["class_type"] == place.SAMPLER and isinstance(entries[sampler]["inputs"]["positive"], list):
            start = entries[sampler]["inputs"]["positive"][0]
            for found in sorted({start} | place.reach(start, wires)):
                if entries[found]["class_type"] == runs.SCHEDULE:
                    return graph.get_display_node_id(found)
    return None


def listed(run: str | None = None) -> list[dict]:
    """The films that are remembered, of a run or of all, the oldest first."""
    with _LOCK:
        found = [film for (name, _), film in _FILMS.items() if run in (None, name)]
    return [film.told() for film in found]


def find(run: str, number: str) -> Film:
    """A film. UnknownRun where there is none."""
    with _LOCK:
        film = _FILMS.get((run, int(number))) if number.isdecimal() else None
    if film is None:
        raise runs.UnknownRun(f"no film {number} of a run {run!r} is remembered")
    return film


def picture(run: str, number: str, chunk: str) -> bytes:
    """A small picture of the end of a chunk, JPEG. UnknownRun where there is none."""
    clip, index = _segment(run, number, chunk)
    return core.join.small.read(clip.segments[index].path)


def part(run: str, number: str, chunk: str) -> bytes:
    """The fragments of a chunk (join.hls). UnknownRun where there is none."""
    return core.join.hls.part(*_segment(run, number, chunk))


def head(run: str, number: str) -> bytes:
    """What stands before a film's fragments."""
    clip, _ = _segment(run, number, "0")
    return core.join.hls.head(clip)


def playlist(run: str, number: str) -> str:
    """A film's event playlist."""
    film = find(run, number)
    over = film.over  # asked first: what comes in between is in the clip
    return core.join.hls.playlist(film.clip, over)


def _segment(run: str, number: str, chunk: str):
    """(clip, place of a chunk in it), whose file is there. UnknownRun."""
    clip = find(run, number).clip
    if not chunk.isdecimal() or int(chunk) >= len(clip.segments):
        raise runs.UnknownRun(f"film {number} has the chunks 0 to {len(clip.segments) - 1}, not {chunk}")
    path: Path = clip.segments[int(chunk)].path
    if not path.is_file():
        core.join.restore(clip, kept.store())
    if not path.is_file():
        raise runs.UnknownRun(f"chunk {chunk} of film {number} is gone from the folder of what is temporary")
    return clip, int(chunk)
