"""Prompts with probes in them, for a real ComfyUI that has probe_pack.py, and what the probes noted."""

from __future__ import annotations

from pathlib import Path

from .comfyui import messages, twin, with_value

PROBES = (Path(__file__).parent / "probe_pack.py").read_text(encoding="utf-8")


def long_video(**changes) -> dict:
    """long_video.json of 3 chunks with a probe behind the sampler and one behind the joint. changes: of the loop."""
    prompt = with_value(twin("long_video"), "DMDPyramidSample", steps="1,1,1")
    start, end, sampler, join = (
        number(prompt, kind) for kind in ("HeliosLoopStart", "HeliosLoopEnd", "DMDPyramidSample", "ChunkConcat")
    )
    prompt[start]["inputs"] |= {"chunks": 3, **changes}
    prompt["90"] = probe([sampler, 1], "sampled", [start, 3])
    prompt["91"] = probe([join, 0], "joined", [start, 3])
    prompt[number(prompt, "AntiDrift")]["inputs"]["history"] = ["90", 0]
    prompt[end]["inputs"]["clip"] = ["91", 0]
    return prompt


def small(prompt: dict) -> dict:
    """The prompt with a small picture and no more steps than it needs: the networks are not what is tried."""
    with_value(prompt, "HistoryMemory", width=64, height=64)
    return with_value(prompt, "DMDPyramidSample", boost_first_chunk=False)


def number(prompt: dict, kind: str) -> str:
    """The last node of a kind."""
    return {node["class_type"]: i for i, node in prompt.items()}[kind]


def probe(value, text, number, **more) -> dict:
    return {"class_type": "Probe", "inputs": {"value": value, "text": text, "number": number, **more}}


def succeeds(server, prompt) -> dict:
    entry = server.run(prompt)
    assert entry["status"]["status_str"] == "success", messages(entry, "execution_error")
    return entry


def ran(server) -> list[str]:
    """What was noted since the last call."""
    log = server.base / "probes.txt"
    noted = log.read_text().split() if log.exists() else []
    log.write_text("")
    return noted


def computed(noted: list[str]) -> list[str]:
    """What the networks did of it, in order: sample0, decode0 ..."""
    return [word for word in noted if word.startswith(("sample", "decode")) and not word.startswith("sampled")]


def chunks(*numbers: int) -> list[str]:
    """What the networks do for those chunks, each once."""
    return [f"{what}{k}" for k in numbers for what in ("sample", "decode")]
