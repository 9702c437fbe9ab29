"""The page of a study: Markdown, its pictures in a folder of its name beside it."""

from __future__ import annotations

from pathlib import Path

from PIL import Image

from ..disk import replacing

COLOURS = 256  # of a picture of lines; with fewer, or by the median, lines of two colours become one


def save_picture(page: Path, name: str, picture: Image.Image, title: str) -> str:
    """The Markdown that shows it."""
    folder = page.with_suffix("")
    folder.mkdir(parents=True, exist_ok=True)
    with replacing(folder / f"{name}.png") as part:
        picture.quantize(COLOURS, Image.Quantize.MAXCOVERAGE, dither=Image.Dither.NONE).save(part, "PNG", optimize=True)
    return f"![{title}]({folder.name}/{name}.png)"


def rerun(command: str) -> str:
    """A line that tells how to make the page again."""
    return f"This page is generated; to rerun it: `{command}`."
