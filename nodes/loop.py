"""HeliosLoopStart and HeliosLoopEnd: what stands between them runs once per chunk."""

from __future__ import annotations

from ..helios_core.workflow import loops
from . import expansion, sockets

UNREAD = {"lazy": True, "rawLink": True}  # the wire itself, not what it brings: that is for the copies of the body
HIDDEN = {"graph": "DYNPROMPT", "unique_id": "UNIQUE_ID"}


class HeliosLoopStart:
    """Where a loop over chunks begins."""

    CATEGORY = "Helios"
    DESCRIPTION = (
        "The beginning of a loop: everything from here to HeliosLoopEnd runs once per chunk, each chunk going on from "
        "the one before. Make more chunks later and only the new ones are computed; stop a run and it goes on from "
        "the last finished chunk."
    )
    SEARCH_ALIASES = ["helios loop", "for loop", "repeat", "iterate", "long video", "chunks"]
    FUNCTION = "begin"
    RETURN_TYPES = (sockets.LOOP, sockets.HISTORY, sockets.CLIP, "INT", *[sockets.ANY] * len(loops.VALUES))
    RETURN_NAMES = loops.GIVEN
    OUTPUT_TOOLTIPS = (
        "For the loop of this loop's HeliosLoopEnd, and for nothing else.",
        "The history so far, for DMDPyramidSample.",
        "The video so far, for ChunkConcat. There is none in the first chunk, where it begins a new one.",
        "Which round of the loop it is, counted from 0. The model does not need it: it goes by the history.",
        *["What was wired in here in the first chunk; afterwards, what the chunk before gave to HeliosLoopEnd."] * 4,
    )

    @classmethod
    def INPUT_TYPES(cls):
        """The inputs, as ComfyUI asks for them."""
        chunks = {"default": 4, "min": 0, "max": loops.MAX_CHUNKS, "tooltip": CHUNKS_TIP}
        return {
            "required": {
                "chunks": ("INT", chunks),
                "history": (sockets.HISTORY, {**UNREAD, "tooltip": "The history to begin with: HistoryMemory's."}),
            },
            "optional": {
                "clip": (sockets.CLIP, {**UNREAD, "tooltip": "A video to go on with. Left open, a new one begins."}),
                **{name: (sockets.ANY, {**UNREAD, "tooltip": FIRST_TIP}) for name in loops.VALUES},
            },
            "hidden": HIDDEN,
        }

    def begin(self, chunks, graph, unique_id, **_):
        """(The number of chunks, and no values yet: HeliosLoopEnd gives each chunk its own.)"""
        chunks = loops.count_of(chunks)
        loops.check_count(chunks)
        expansion.check_start(graph, unique_id)
        return (chunks, *[expansion.blocked()] * (len(loops.GIVEN) - 1))


class HeliosLoopEnd:
    """Where a loop over chunks ends: it becomes the nodes of the next chunk."""

    CATEGORY = "Helios"
    DESCRIPTION = (
        "The end of a loop: takes what each chunk hands to the next, and gives what the last one left. Any nodes may "
        "stand between HeliosLoopStart and here, other loops too; progress and errors are shown on them."
    )
    SEARCH_ALIASES = ["helios loop", "for loop", "loop end", "repeat", "iterate", "long video"]
    FUNCTION = "end"
    RETURN_TYPES = (sockets.HISTORY, sockets.CLIP, "VIDEO", *[sockets.ANY] * len(loops.VALUES))
    RETURN_NAMES = loops.RESULTS
    OUTPUT_TOOLTIPS = (
        "The history after the last chunk, to save it or to go on.",
        "The video of all chunks, as a handle to go on with.",
        "The video of all chunks, for Save Video: wire ChunkConcat's in.",
        *["What the last chunk gave."] * 4,
    )

    @classmethod
    def INPUT_TYPES(cls):
        """The inputs, as ComfyUI asks for them."""
        return {
            "required": {
                "loop": (sockets.LOOP, {"tooltip": "The loop of the HeliosLoopStart that this is the end of."}),
                "history": (sockets.HISTORY, {**UNREAD, "tooltip": "After the chunk: the sampler's or AntiDrift's."}),
            },
            "optional": {
                "clip": (sockets.CLIP, {**UNREAD, "tooltip": "ChunkConcat's clip, which the next chunk adds to."}),
                "video": ("VIDEO", {**UNREAD, "tooltip": "ChunkConcat's video. Only the last chunk's is made."}),
                **{name: (sockets.ANY, {**UNREAD, "tooltip": NEXT_TIP}) for name in loops.VALUES},
            },
            "hidden": HIDDEN,
        }

    def end(self, loop, graph, unique_id, **_):
        """What the last chunk left, or the nodes that this one becomes."""
        return expansion.expand(graph, unique_id, loop)


CHUNKS_TIP = (
    "How often the body runs. A chunk is 33 frames: 4 are 5.5 seconds at 24 frames per second, 44 are a minute. "
    "Changing it computes no finished chunk again. 0: until the score of a prompt schedule ends it, 250 at most."
)
FIRST_TIP = "Anything that the body takes along from chunk to chunk: what the first chunk gets."
NEXT_TIP = "Anything: what the next chunk gets of HeliosLoopStart, and what the last chunk leaves."
