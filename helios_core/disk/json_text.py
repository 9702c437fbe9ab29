"""JSON from files that people bring: with or without a byte order mark, never deeper than anything needs to be."""

from __future__ import annotations

import json
from pathlib import Path

DEEPEST = 100  # brackets inside brackets; a workflow has about ten


def parse(text: str | bytes, where):
    """What the text says. where: names it in messages. ValueError for what is no JSON, no UTF-8, or too deep."""
    try:
        text = text.decode("utf-8-sig") if isinstance(text, bytes) else text.removeprefix("\ufeff")
        value = json.loads(text)
    except UnicodeDecodeError as error:
        raise ValueError(f"{where} is no UTF-8 text (byte {error.start}); save it as UTF-8") from error
    except json.JSONDecodeError as error:
        raise ValueError(f"{where} is not JSON: {error}") from error
    except RecursionError:
        raise ValueError(f"{where} is no file of this kind: its brackets are nested too deeply") from None
    except ValueError as error:  # a number of thousands of digits
        raise ValueError(f"{where} is not JSON that can be read: it holds an endless number") from error
    if depth(value) > DEEPEST:
        raise ValueError(f"{where} is no file of this kind: its brackets are nested too deeply")
    return value


def read(path: Path):
    """The same of a file. ValueError if it cannot be read too."""
    try:
        data = Path(path).read_bytes()
    except OSError as error:
        raise ValueError(f"{path} cannot be read: {error.strerror}") from error
    return parse(data, path)


def parse_object(text: str | bytes, where) -> dict:
    """The same of text that must be an object."""
    return as_object(parse(text, where), where)


def read_object(path: Path) -> dict:
    """The same of a file that must hold an object."""
    return as_object(read(path), path)


def as_object(value, where) -> dict:
    """The value. ValueError unless it is a JSON object."""
    if not isinstance(value, dict):
        raise ValueError(f"{where} should hold a JSON object, it holds {KINDS.get(type(value), 'null')}")
    return value


KINDS = {list: "a list", str: "a text", bool: "true or false", int: "a number", float: "a number"}


def depth(value) -> int:
    """How many brackets are nested, at most DEEPEST + 1."""
    layer, found = [value], 0
    while layer and found <= DEEPEST:
        layer = [v for v in layer if isinstance(v, (dict, list))]
        layer = [inner for v in layer for inner in (v.values() if isinstance(v, dict) else v)]
        found += bool(layer)
    return found
