"""Directing a run from outside: the verbs as HTTP routes of ComfyUI's server, from one table, as is their OpenAPI page.

Each verb on a run is bound to a prompt in work and a schedule node of it. None takes a path; a body is a JSON object of
that content type, so that pages of other origins cannot send one unasked, and ComfyUI's own check of origins holds.
"""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Callable, Mapping
from typing import NamedTuple

from ..helios_core import __version__
from . import core, directing, films, runs

JSON = "application/json"
LONGEST = 1_000_000  # bytes of a body
RUN, FILM = "/helios/runs/{run}/{node}", "/helios/films/{run}/{film}"
TEXT = {"type": "string", "description": "a score"}
BASE = {"type": "string", "description": "the score that this was made from; if another is there by now, it is refused"}
NUMBER = {"type": ["number", "null"]}
ENTRY = {
    "chunk": {"type": "integer", "minimum": 0},
    "prompt": {"type": ["string", "null"]},
    "blend": {"type": "integer", "minimum": 1},
    "seed": {"type": ["integer", "null"]},
    "cfg": NUMBER,
    "drift": NUMBER,
    "image": {"type": ["array", "null"], "description": "[file name in the input folder, strength]"},
    "cut": {"type": "boolean"},
    "end": {"type": "boolean"},
}


class Sent(NamedTuple):
    """An answer that is no JSON. lasts: it never changes, so that a browser may keep it."""

    kind: str
    data: bytes
    lasts: bool = True


class Verb(NamedTuple):
    """One route: what it does, in words and as a function of its body and of what its path names, which gives a JSON
    object, or a Sent of the type that `gives` says."""

    method: str
    path: str
    name: str
    about: str
    answer: Callable[..., dict | Sent]
    body: dict | None = None
    needed: tuple[str, ...] = ()
    gives: str = JSON

    @property
    def names(self) -> list[str]:
        """What its path names."""
        return re.findall(r"{(\w+)}", self.path)


def verbs() -> tuple[Verb, ...]:
    """The table of all routes."""
    return (
        Verb("GET", "/helios/runs", "runs", "Runs in work, and their schedule nodes.", _runs),
        *on_runs(),
        *on_films(),
        Verb("POST", "/helios/score/read", "read", "What a score says of each chunk.", _read, READ, ("text",)),
        Verb("POST", "/helios/retake", "retake", RETAKE_ABOUT, _retake, RETAKE, ("run", "node", "chunk")),
        Verb(
            "POST", "/helios/score/write", "write", "Edits a score that no run has.", _write, WRITE, ("text", "chunk")
        ),
        Verb("GET", "/helios/openapi.json", "openapi", "This table.", lambda body: openapi()),
    )


def on_runs() -> tuple[Verb, ...]:
    """Of these the verbs on a run."""
    edit, score = directed(lambda score, body: score.edit(**body)), directed(lambda score, body: score.replace(**body))
    pause, go_on, stop = (directed(lambda s, _, n=n: getattr(s, n)()) for n in ("pause", "go_on", "stop"))
    return (
        Verb("GET", RUN, "status", "How a run's score stands: text, chunks, which is in work.", directed()),
        Verb("POST", f"{RUN}/score", "score", "Takes a score for the chunks not begun.", score, SCORE, ("text",)),
        Verb("POST", f"{RUN}/edit", "edit", "Edits the score's entry at a chunk.", edit, EDIT, ("chunk",)),
        Verb("POST", f"{RUN}/pause", "pause", "Lets the next chunk wait.", pause, {}),
        Verb("POST", f"{RUN}/go_on", "go_on", "Ends a pause.", go_on, {}),
        Verb("POST", f"{RUN}/stop", "stop", "Ends the video after the chunk in work, and keeps it.", stop, {}),
    )


def on_films() -> tuple[Verb, ...]:
    """Of these the ones that give what is made so far: of runs in work, and of those that are over."""
    types, lists = core.join.hls.TYPES, "/helios/films"

    def sent(kind: str, get: Callable, lasts: bool = True) -> dict:
        return {"answer": lambda body, **place: Sent(kind, get(*place.values()), lasts), "gives": kind}

    playlist = sent(types[".m3u8"], lambda *place: films.playlist(*place).encode(), lasts=False)
    return (
        Verb("GET", lists, "films", "Videos of runs, as far as they are made.", lambda body: {"films": films.listed()}),
        Verb("GET", f"{FILM}/video.m3u8", "playlist", "HLS: an event playlist that grows.", **playlist),
        Verb("GET", f"{FILM}/head.mp4", "head", "What stands before its parts.", **sent(types[".mp4"], films.head)),
        Verb("GET", f"{FILM}/{{chunk}}.m4s", "part", "One chunk.", **sent(types[".m4s"], films.part)),
        Verb("GET", f"{FILM}/{{chunk}}.jpg", "picture", "A small picture of it.", **sent("image/jpeg", films.picture)),
    )


SCORE = {"text": TEXT, "base": BASE}
EDIT = {**ENTRY, "base": BASE}
READ = {"text": TEXT, "chunks": {"type": "integer", "minimum": 1, "maximum": 1000}}
WRITE = {"text": TEXT, **ENTRY}
RETAKE = {"run": {"type": "string"}, "node": {"type": "string"}, **ENTRY}
RETAKE_ABOUT = "The prompt that makes another take of a run that is over: what POST /prompt of ComfyUI takes."


def _runs(body: dict) -> dict:
    return {"runs": [{"run": name, "nodes": runs.schedules(graph)} for name, graph in runs.in_work().items()]}


def directed(change: Callable | None = None) -> Callable:
    """The answer of a verb on a run: how its score stands after change(score, body), if there is one."""

    def answer(body: dict, run: str, node: str) -> dict:
        found = runs.find(run, node)
        if change is not None:
            change(found, body)
        return found.status()

    return answer


def _read(body: dict) -> dict:
    schedule = directing.check_text(body["text"])
    count = min(body.get("chunks") or schedule.cues[-1].chunk + 1, 1000)
    return {"chunks": core.text.cells(schedule, count), "end": schedule.end}


def _write(body: dict) -> dict:
    return {"text": core.text.editing.edit(body.pop("text"), **body)}


def _retake(body: dict) -> dict:
    run, node = body.pop("run"), body.pop("node")
    return {"prompt": runs.past(run, node, lambda text: core.text.editing.edit(text, **body))}


def answer(verb: Verb, place: Mapping[str, str], raw: bytes = b"") -> tuple[int, dict | Sent]:
    """(HTTP status, what is answered) of a request. place: what its path names.

    400 for a body that is none, 404 for a run that is not in work, 409 for what is refused, with the reason.
    """
    try:
        body = _body(verb, raw)
    except ValueError as error:
        return 400, {"error": str(error)}
    try:
        return 200, verb.answer(body, **{name: place[name] for name in verb.names})
    except runs.UnknownRun as error:
        return 404, {"error": str(error)}
    except ValueError as error:
        return 409, {"error": str(error)}


KINDS = {"string": str, "integer": int, "number": (int, float), "boolean": bool, "array": list, "null": type(None)}


def _body(verb: Verb, raw: bytes) -> dict:
    if verb.method == "GET":
        return {}
    body = core.disk.parse_object((raw or b"{}").decode("utf-8", "replace"), "the body")
    if unknown := sorted(set(body) - set(verb.body)):
        raise ValueError(f"unknown {', '.join(unknown)}; wanted {', '.join(verb.body) or 'an empty object'}")
    if missing := [name for name in verb.needed if name not in body]:
        raise ValueError(f"{', '.join(missing)} is missing")
    for name, value in body.items():
        kinds = verb.body[name]["type"]
        kinds = [kinds] if isinstance(kinds, str) else kinds
        fits = any(isinstance(value, KINDS[kind]) for kind in kinds)
        if not fits or (isinstance(value, bool) and "boolean" not in kinds):
            raise ValueError(f"{name}: wanted {' or '.join(kinds)}, got {json.dumps(value)[:40]}")
    return body


def openapi() -> dict:
    """The OpenAPI 3.1 page of the table."""
    paths: dict = {}
    for verb in verbs():
        about = {"operationId": verb.name, "summary": verb.about, "responses": _responses(verb)}
        about["parameters"] = [
            {"name": name, "in": "path", "required": True, "schema": {"type": "string"}} for name in verb.names
        ]
        if verb.body is not None:
            schema = {"type": "object", "properties": verb.body, "required": list(verb.needed)}
            about["requestBody"] = {"content": {JSON: {"schema": schema}}}
        paths.setdefault(verb.path, {})[verb.method.lower()] = about
    return {"openapi": "3.1.0", "info": {"title": "Helios: directing a run", "version": __version__}, "paths": paths}


def _responses(verb: Verb) -> dict:
    return {"200": {"description": "Done.", "content": {verb.gives: {}}}, **REFUSALS}


REFUSALS = {
    "400": {"description": "The body is not what the verb takes."},
    "404": {"description": "No such run is in work, or it has no such schedule node; no such film, or chunk of it."},
    "409": {"description": "Refused, with the reason; the run goes on as it was."},
}


def register() -> None:
    """Puts the routes into ComfyUI's server, where there is one."""
    server = runs.server()
    if server is None:
        return
    for verb in verbs():
        getattr(server.routes, verb.method.lower())(verb.path)(_handler(verb))


def _handler(verb: Verb) -> Callable:
    from aiohttp import web

    async def handle(request):
        if verb.method == "POST" and request.content_type != JSON:
            return web.json_response({"error": "wanted a body of the type application/json"}, status=415)
        if (request.content_length or 0) > LONGEST:
            return web.json_response({"error": f"wanted a body of {LONGEST} bytes at most"}, status=413)
        raw = b"" if verb.method == "GET" else await request.read()
        loop = asyncio.get_running_loop()
        status, found = await loop.run_in_executor(None, answer, verb, request.match_info, raw)
        if not isinstance(found, Sent):
            return web.json_response(found, status=status)
        keep = {"Cache-Control": "max-age=86400, immutable" if found.lasts else "no-store"}
        return web.Response(body=found.data, content_type=found.kind, headers=keep)

    return handle
