"""Seeded mutations of files and arguments, and what must hold of whatever a command makes of them."""

from __future__ import annotations

import copy
import json
import random
from pathlib import Path

from helios_video.helios_core.commands import failures

FOREIGN = (failures.DEBUG, "Traceback", " says: ")  # of the message for errors that nobody foresaw
DEEP = "[" * 3000 + "]" * 3000
NUMBERS = (0, -1, 1, 2, 3.5, -0.0, 1e30, -1e308, 10**18, 10**20, 10**400, 2**31, 2**63, 2**64, 0.0001, 1e-320)
NUMBERS += (float("nan"), float("inf"), True, False)
TEXTS = ("", " ", "\0", "a\0b", "\n", "a\nb", "../x", "..\\x", "/abs/x", "C:\\x", "C:x", "file:x", "con", "NUL.txt")
TEXTS += ("x.", "x ", "x" * 300, "\ufeff", "\ud800", "\U0001f600" * 80, "null", "nan", "1e400", "%s%d{0}", "--help")
TEXTS += ("a" * 70000, "-", "~", "x.mp4", "x.safetensors", "con.mp4", "x" * 251 + ".mp4", "a:b.mp4", "a\0.mp4", "x.md")
TEXTS += ("\u202e", "a:b", "1,2,3", "2,2", "none", "auto", "helios-tiny", "9" * 5000)
VALUES = (*NUMBERS, *TEXTS, None, [], {}, [[]], [None], [1, 2], {"a": 1}, [[0, 1]], ["1", 0], ["1", 10**9], ["x", -1])


def mutate_bytes(data: bytes, rng: random.Random, within: int = 0) -> bytes:
    """One to three changes of the first `within` bytes, 0: of all: flipped, cut, doubled, replaced by a nasty text."""
    data = bytearray(data)
    for _ in range(rng.randint(1, 3)):
        end = min(within or len(data), len(data))
        a = rng.randrange(max(1, end))
        b = min(end, a + rng.choice((1, 1, 2, 8, 40)))
        kind = rng.randrange(7)
        if kind == 0 and data:
            data[min(a, len(data) - 1)] = rng.randrange(256)
        elif kind == 1:
            del data[a:b]
        elif kind == 2:
            del data[a:]
        elif kind == 3:
            data[a:a] = data[a:b]
        elif kind == 4:
            data[a:b] = rng.choice((b"9" * 25, b"-1", b"1.5", b"null", b"\xff\xfe", b"\0", b'"', b"{", b"[" * 1500))
        elif kind == 5:
            data[a:b] = str(rng.choice(NUMBERS)).encode()
        else:
            data[:0] = rng.choice((b"\xef\xbb\xbf", b"\0", b" ", b"GGUF", b"<html>"))
    return bytes(data)


def places(value, path: tuple = ()):
    """Paths to everything in a JSON value."""
    yield path
    for key, inner in value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ():
        yield from places(inner, (*path, key))


def mutate_json(value, rng: random.Random):
    """One or two parts replaced, taken out, doubled, or put elsewhere."""
    value = copy.deepcopy(value)
    for _ in range(rng.randint(1, 2)):
        found = [path for path in places(value) if path]
        if not found:
            break
        *way, last = rng.choice(found)
        holder = value
        for key in way:
            holder = holder[key]
        kind = rng.randrange(5)
        if kind == 0:
            del holder[last]
        elif kind == 1 and isinstance(holder, list):
            holder.insert(last, copy.deepcopy(holder[last]))
        elif kind == 2 and isinstance(holder, dict):
            holder[rng.choice(("colour", "", "_x", "\0", "id", "type", "steps"))] = rng.choice(VALUES)
        else:
            holder[last] = copy.deepcopy(rng.choice(VALUES))
    return value


def mutated_text(value, rng: random.Random) -> bytes:
    """A JSON file of the value with parts or bytes changed."""
    kind = rng.randrange(20)
    if kind == 0:
        deep = b'{"a":' * 2000 + b"1" + b"}" * 2000
        return rng.choice((DEEP.encode(), deep, b"", b"null", b"\xff", b'"text"', b"[]"))
    text = json.dumps(value if kind < 3 else mutate_json(value, rng)).encode("utf-8", "surrogatepass")
    return mutate_bytes(text, rng) if kind < 3 else text


def mutated_header(data: bytes, rng: random.Random) -> bytes:
    """A safetensors file with another header: parts of it, its bytes, or its length."""
    length = 8 + int.from_bytes(data[:8], "little")
    if rng.randrange(4) == 0:
        return mutate_bytes(data, rng, length)
    header = mutated_text(json.loads(data[8:length]), rng)
    return len(header).to_bytes(8, "little") + header + data[length:]


def listing(folder: Path) -> set[str]:
    """Everything below a folder."""
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*")}


def faults(code: int, said: str) -> list[str]:
    """What is wrong with an exit code and what was printed on stderr."""
    found = [f"it prints {word!r}" for word in FOREIGN if word in said]
    found += [f"exit code {code}"] if code not in (0, 1, 2) else []
    if code == 2:
        messages = [line for line in said.splitlines() if line.startswith("helios ")]
        found += [f"{len(messages)} messages"] if len(messages) != 1 else []
    return found
