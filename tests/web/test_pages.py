"""README and pages: links lead to files and headings, commands are ones that the command line takes, files that are
named exist."""

from __future__ import annotations

import re
import shlex
from importlib import import_module
from pathlib import Path

import helios_video as pack
import pytest
from helios_video.helios_core import cli
from support.layout import RANK

ROOT = Path(pack.__file__).parent
README = ROOT / "README.md"
PAGES = [README, *sorted((ROOT / "web" / "docs").glob("*.md"))]
MARKS = ("generate", "test")  # .ci/run reads the code blocks below these
FOLDERS = r"(?:helios_core|nodes|tests|workflows|locales|web|\.github)/"


def read(page: Path) -> str:
    return page.read_text(encoding="utf-8")


def prose(page: Path) -> str:
    """Without code blocks."""
    return re.sub(r"^```.*?^```$", "", read(page), flags=re.MULTILINE | re.DOTALL)


def slugs(page: Path) -> set[str]:
    """The headings' names in links, as GitHub makes them."""
    headings = re.findall(r"^#+ (.+)$", prose(page), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def commands(page: Path) -> list[str]:
    """Lines of shell blocks that call helios."""
    blocks = re.findall(r"^```bash\n(.*?)^```$", read(page), re.MULTILINE | re.DOTALL)
    lines = [part.strip() for block in blocks for line in block.splitlines() for part in line.split("&&")]
    return [line for line in lines if line.startswith("helios ")]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_links_lead_to_files_and_headings(page):
    for target in re.findall(r"\]\(([^)\s]+)\)", prose(page)):
        if target.startswith("https://"):
            continue
        name, _, heading = target.partition("#")
        place = page.parent / name if name else page
        assert place.exists(), f"{page.name}: {target}"
        assert not heading or heading in slugs(place), f"{page.name}: {target}; there are {sorted(slugs(place))}"


@pytest.mark.parametrize("page", [page for page in PAGES if commands(page)], ids=lambda page: page.stem)
def test_the_command_line_takes_what_a_page_shows(page):
    for line in commands(page):
        args, rest = cli.parser().parse_known_args(shlex.split(line)[1:])
        if args.command == "train":
            module = f"helios_video.helios_core.commands.{cli.TRAINERS[args.what]}"
            import_module(module).parser().parse_args(rest)
        else:
            assert not rest, f"{page.name}: {line}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_files_that_a_page_names_exist(page):
    """In backticks, with their folder; NAME and ID stand for any."""
    named = re.findall(rf"`({FOLDERS}[\w./-]+)`", prose(page))
    missing = [name for name in named if not re.search(r"NAME|\bID\.", name) and not (ROOT / name).exists()]
    assert not missing


def test_the_readme_is_short_and_has_what_the_ci_runs():
    text = read(README)
    assert len(text.split()) <= 1200, "a newcomer's page: put details into web/docs"
    for mark in MARKS:
        assert re.search(rf"<!-- {mark} -->\n```bash\n.+\n```", text), mark


def test_the_map_is_the_houses():
    """Every room has its line in developing.md, in backticks."""
    text = read(ROOT / "web" / "docs" / "developing.md")
    missing = [room for room in RANK if f"`{room}`" not in text and f"`helios_core/{room}`" not in text]
    assert not missing
