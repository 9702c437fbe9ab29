"""%date:yyyy-MM-dd% and %year% in the names of files, as ComfyUI's frontend and its own save nodes have them."""

from __future__ import annotations

import re
from datetime import datetime

WORDS = {"year": "yyyy", "month": "MM", "day": "dd", "hour": "hh", "minute": "mm", "second": "ss"}


def fill(name: str, now: datetime | None = None) -> str:
    """A name with its dates filled in; now: left open, the clock's."""
    now = now or datetime.now()
    name = re.sub(r"%date(?::([^%]*))?%", lambda m: _written(m[1] or "yyyyMMddhhmmss", now), name)
    return re.sub(rf"%({'|'.join(WORDS)})%", lambda m: _written(WORDS[m[1]], now), name)


def _written(form: str, now: datetime) -> str:
    parts = {"d": now.day, "M": now.month, "h": now.hour, "m": now.minute, "s": now.second}

    def part(found) -> str:
        text = found[0]
        if text[0] == "y":
            return {2: f"{now.year % 100:02}", 4: str(now.year)}.get(len(text), text)
        return str(parts[text[0]]).zfill(len(text))

    return re.sub("dd?|MM?|hh?|mm?|ss?|yyy?y?", part, form)
