"""The help pages: what a node does, how it is wired, its inputs and outputs, its pitfalls; and their pictures."""

from __future__ import annotations

import re
from pathlib import Path

import helios_video as pack
import pytest
from helios_video.helios_core.workflow.format import inputs_of
from PIL import Image

DOCS = Path(pack.__file__).parent / "web" / "docs"
NODES = pack.NODE_CLASS_MAPPINGS
SECTIONS = ["## Wiring", "## Inputs", "## Outputs", "## Pitfalls"]


def rows(page: str, section: str) -> list[str]:
    """What the first column of a section's table names, in order."""
    part = page.split(f"## {section}\n")[1].split("\n## ")[0]
    cells = [line.split("|")[1] for line in part.splitlines() if line.startswith("| `")]
    return [name for cell in cells for name in re.findall(r"`([^`]+)`", cell)]


@pytest.mark.parametrize("name", NODES)
def test_a_page_says_what_there_is_to_know(name):
    kind, page = NODES[name], (DOCS / f"{name}.md").read_text(encoding="utf-8")
    assert page.startswith(f"# {pack.NODE_DISPLAY_NAME_MAPPINGS[name]}\n\n") and page.endswith("\n")
    found = re.findall(r"^## .*$", page, re.MULTILINE)
    assert [section for section in found if section in SECTIONS] == SECTIONS
    assert rows(page, "Inputs") == list(inputs_of(kind)), "the table of inputs, in the node's order"
    assert rows(page, "Outputs") == list(kind.RETURN_NAMES)
    assert re.search(r"^- ", page.split("## Pitfalls\n")[1], re.MULTILINE)
    assert not re.search(r"<(?!br>)[a-z]+[ >]", page), "ComfyUI drops most HTML"


STUDIES = ("control_study", "policies", "unified_latents", "variance_expansion")  # pages that a study writes
GUIDES = ("backends", "command_line", "developing", "files", "helios_tiny", "live", "long_videos", "many_gpus", "nodes")
GUIDES += ("control", "training_latents", "training_lora", "troubleshooting")


def test_pages_are_of_nodes_and_show_pictures_that_exist():
    pictures = {path for path in DOCS.rglob("*.*") if path.suffix not in (".md", ".json")}
    assert {path.stem for path in DOCS.glob("*.md")} == {*NODES, *STUDIES, *GUIDES}
    for page in DOCS.glob("*.md"):
        for alt, target in re.findall(r"!\[(.*?)\]\((.*?)\)", page.read_text(encoding="utf-8")):
            assert alt and (DOCS / target).is_file(), f"{page.name}: {target}"
    assert all(max(Image.open(path).size) <= 1700 for path in pictures)
    assert sum(path.stat().st_size for path in pictures) < 1e6


def test_each_workflow_has_its_picture_in_the_frontend():
    """`python tests/screenshots.py --docs` makes them."""
    for path in (DOCS.parent.parent / "workflows").glob("*.json"):
        assert (DOCS / f"{path.stem}.webp").is_file(), path.stem
