"""A pack for a test's ComfyUI, copied there as it is: notes what ran in a file, and fails where a test asks for it.

`sample0` and `decode0` are written where the network begins with a chunk, whatever nodes ran; a Probe node writes its
own word. A file named full, with the word segment or join in it, stands for a disk that is full there.
"""

import errno
import sys
import time
from importlib import import_module
from pathlib import Path

BASE = Path(__file__).parents[1]
CHUNK = 9  # latent frames
WATCHED = []  # the pack that has the notes


def note(word):
    with (BASE / "probes.txt").open("a") as log:
        log.write(f"{word}\n")


def full(what):
    flag = BASE / "full"
    if flag.exists() and flag.read_text() == what:
        raise OSError(errno.ENOSPC, "No space left on device")


class Anything(str):
    def __ne__(self, other):
        return False


class Probe:
    """Hands a value on, and notes that it ran: before it waits, after it has failed."""

    FUNCTION, RETURN_TYPES, CATEGORY = "go", (Anything("*"), "STRING"), "test"

    @classmethod
    def INPUT_TYPES(cls):
        watch()
        required = {"value": (Anything("*"),), "text": ("STRING", {}), "number": ("INT", {})}
        return {"required": required, "optional": {"fails_at": ("INT", {}), "wait": ("FLOAT", {})}}

    def go(self, value, text, number, fails_at=-1, wait=0.0):
        if number == fails_at:
            raise RuntimeError(f"{text} {number} fails")
        note(f"{text}{number}")
        time.sleep(wait)
        return value, f"{value}{text}{number} "


def watch():
    """Puts the notes into the pack, once it is loaded. ComfyUI asks for inputs thousands of times a prompt."""
    if WATCHED:
        return
    place = BASE / "custom_nodes" / "helios-video" / "__init__.py"
    found = [(name, getattr(module, "__file__", None)) for name, module in list(sys.modules.items())]
    pack = next((name for name, file in found if file and Path(file).resolve() == place.resolve()), None)
    if pack is None:
        return
    pipeline, concat = (import_module(name, pack) for name in (".helios_core.pipeline", ".nodes.concat"))
    video = import_module(".helios_core.join.video", pack)
    WATCHED.append(pack)
    steps, decode = pipeline.Helios._steps, concat._decode_chunk
    write, remux = video.VideoWriter.write, video.remux

    def noted_steps(helios, plan, history, *more):
        note(f"sample{history.chunk}")
        yield from steps(helios, plan, history, *more)

    def noted_decode(raw, decoder, bar, done, first):
        note(f"decode{(first + done) // CHUNK}")
        yield from decode(raw, decoder, bar, done, first)

    def full_write(writer, frames):
        full("segment")
        write(writer, frames)

    def full_remux(*given, **more):
        full("join")
        return remux(*given, **more)

    pipeline.Helios._steps, concat._decode_chunk = noted_steps, noted_decode
    video.VideoWriter.write, video.remux = full_write, full_remux


NODE_CLASS_MAPPINGS = {"Probe": Probe}
