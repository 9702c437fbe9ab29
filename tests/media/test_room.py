"""Files of others are opened in this room only, so that one rule says how they are read."""

import re
from pathlib import Path

import helios_video as pack

ROOT = Path(pack.__file__).parent
OPENS = {
    "helios_core/media/container.py",
    "helios_core/media/picture.py",
    "helios_core/join/video.py",  # writes
    "helios_core/measure/figures.py",  # a figure that it has just drawn
}


def test_nobody_else_opens_pictures_and_clips():
    files = [path for folder in ("helios_core", "nodes") for path in (ROOT / folder).rglob("*.py")]
    found = {path for path in files if re.search(r"\b(av|Image)\.open\(", path.read_text(encoding="utf-8"))}
    assert {path.relative_to(ROOT).as_posix() for path in found} == OPENS
