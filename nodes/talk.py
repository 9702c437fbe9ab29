"""Directing runs over a WebSocket: the verbs of routes.py as JSON messages, and news of scores and films unasked.

A message is an object with a `verb`, what its route's path and body would hold, and an `id` of the client's own, which
the answer has again. Where one run with one schedule node is in work, `run` and `node` may be left out.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from contextlib import suppress

from . import core, films, routes, runs

PATH = "/helios/socket"
MOST = 1000  # messages that a client leaves unread, before it is taken for gone
OWN = ("id", "verb")
NEWS = {runs.EVENT: "score", films.EVENT: "film"}

_LISTENERS: set[Callable[[dict], None]] = set()


def news(kind: str, values: dict) -> None:
    """Tells everyone who is connected; from any thread. kind: the name of the event on ComfyUI's own socket."""
    for listener in tuple(_LISTENERS):
        listener({"event": NEWS[kind], **values})


def reply(text: str) -> dict:
    """What is answered to a message: `status` as over HTTP, and the verb's answer or an `error`."""
    try:
        message = core.disk.parse_object(text, "the message")
    except ValueError as error:
        return {"status": 400, "error": str(error)}
    known = {verb.name: verb for verb in routes.verbs() if verb.gives == routes.JSON}
    told = {"id": message["id"]} if "id" in message else {}
    verb = known.get(message.get("verb")) if isinstance(message.get("verb"), str) else None
    if verb is None:
        return {**told, "status": 400, "error": f"unknown verb; wanted one of {', '.join(known)}"}
    place = {name: message.get(name) for name in verb.names}
    if {"run", "node"} <= place.keys():
        place = {**_only_one(), **{name: value for name, value in place.items() if value is not None}}
    if missing := [name for name in verb.names if not isinstance(place.get(name), str)]:
        return {**told, "status": 400, "error": f"{' and '.join(missing)}: wanted the name of one"}
    body = {name: value for name, value in message.items() if name not in (*OWN, *verb.names)}
    status, found = routes.answer(verb, place, json.dumps(body).encode())
    return {**told, "status": status, **found}


def _only_one() -> dict:
    """The run and the node that are meant where none is named."""
    found = [(run, node) for run, graph in runs.in_work().items() for node in runs.schedules(graph)]
    return {"run": found[0][0], "node": found[0][1]} if len(found) == 1 else {}


def same_origin(headers) -> bool:
    """Whether a request is no page's of elsewhere: what a browser asks across origins names its own."""
    origin = headers.get("Origin")
    return origin is None or origin.partition("://")[2].lower() == headers.get("Host", "").lower()


async def handle(request):
    """aiohttp's handler of the socket."""
    from aiohttp import WSMsgType, web

    if not same_origin(request.headers):
        return web.json_response({"error": "pages of another origin direct nothing here"}, status=403)
    socket = web.WebSocketResponse(max_msg_size=routes.LONGEST, heartbeat=30)
    await socket.prepare(request)
    loop, out = asyncio.get_running_loop(), asyncio.Queue(MOST)

    def put(message: dict) -> None:
        with suppress(asyncio.QueueFull):
            out.put_nowait(message)

    def listen(message: dict) -> None:
        loop.call_soon_threadsafe(put, message)

    sender = loop.create_task(_send(socket, out))
    _LISTENERS.add(listen)
    try:
        async for message in socket:
            if message.type == WSMsgType.TEXT:
                put(await loop.run_in_executor(None, reply, message.data))
    finally:
        _LISTENERS.discard(listen)
        sender.cancel()
    return socket


async def _send(socket, out: asyncio.Queue) -> None:
    while True:
        await socket.send_json(await out.get())


def register() -> None:
    """Puts the socket into ComfyUI's server, where there is one."""
    if (server := runs.server()) is not None:
        server.routes.get(PATH)(handle)
        runs.LISTENERS.append(news)
