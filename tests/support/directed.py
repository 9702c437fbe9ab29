"""What tests of directed runs share: prompts that can be read off a video, a node that waits, and the routes."""

from __future__ import annotations

import json
import urllib.error
import urllib.request

from helios_video.helios_core.drawn.reading import read_video

from .comfyui import twin, with_value
from .probed import number

RED, BLUE = "a red circle moving left", "a blue square moving up"
# The text of a pack with a node that makes a loop slow enough to be directed.
WAIT = """
import time


class Wait:
    INPUT_TYPES = classmethod(lambda cls: {"required": {"history": ("HELIOS_HISTORY",), "seconds": ("FLOAT", {})}})
    RETURN_TYPES, FUNCTION, CATEGORY = ("HELIOS_HISTORY",), "wait", "probes"

    def wait(self, history, seconds):
        time.sleep(0 if history.given and history.given.end else seconds)
        return (history,)


NODE_CLASS_MAPPINGS = {"Wait": Wait}
"""


def ask(server, path: str, body: dict | None = None, kind: str = "application/json", **headers):
    """(HTTP status, answer) of one of our routes; a body makes it a POST."""
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(f"http://127.0.0.1:{server.port}/helios/{path}", data, headers)
    request.add_header("Content-Type", kind)
    try:
        with urllib.request.urlopen(request, timeout=30) as answer:
            return answer.status, json.loads(answer.read())
    except urllib.error.HTTPError as error:
        said = error.read()
        return error.code, json.loads(said) if said[:1] == b"{" else said


def shown(frames) -> list[tuple[str, str]]:
    """Colour and shape of each chunk."""
    found = [read_video(frames[33 * k : 33 * k + 33]).objects[0] for k in range(len(frames) // 33)]
    return [(thing.colour, thing.shape) for thing in found]


def loop(text: str, chunks: int, wait: float = 0.0) -> tuple[dict, str]:
    """A loop of a score, and the node that has it. wait: seconds after each chunk."""
    prompt = with_value(twin("long_video"), "DMDPyramidSample", steps="1,1,1")
    with_value(with_value(prompt, "ChunkConcat", boundary="none"), "HeliosLoopStart", chunks=chunks)
    node = number(prompt, "T5Encode")
    prompt[node]["class_type"] = "HeliosPromptSchedule"
    prompt[node]["inputs"] = {"text_encoder": prompt[node]["inputs"]["text_encoder"], "text": text}
    drift = prompt[number(prompt, "AntiDrift")]["inputs"]
    prompt["90"] = {"class_type": "Wait", "inputs": {"history": drift["history"], "seconds": wait}}
    drift["history"] = ["90", 0]
    return prompt, node
