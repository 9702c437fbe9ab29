"""The command line: what it does not know is refused in one line, with the nearest word; help and version."""

import logging
import re
import sys

import helios_video as pack
import pytest
from helios_video.helios_core import __version__
from helios_video.helios_core.cli import main, parser
from helios_video.helios_core.commands import messages
from tqdm import tqdm


def told(argv, capsys) -> str:
    """What it says of arguments that it refuses: one line."""
    with pytest.raises(SystemExit) as stop:
        main(argv)
    out, err = capsys.readouterr()
    assert stop.value.code == 2 and not out and err.count("\n") == 1
    return err


def test_unknown_arguments_are_refused(capsys):
    assert "--loud" in told(["doctor", "--loud"], capsys)
    assert "unrecognized arguments: now" in told(["doctor", "now"], capsys)


@pytest.mark.parametrize(
    ("argv", "nearest"),
    [
        (["genrate"], "generate"),
        (["generate", "--promt", "a ball"], "--prompt"),
        (["generate", "--prompt", "a ball", "--widht=64"], "--width"),
        (["generate", "--prompt", "a ball", "--solver", "unipk"], "unipc"),
        (["train", "tinny"], "tiny"),
        (["train", "tiny", "--stesp", "3"], "--steps"),
        (["download", "distiled"], "distilled"),
    ],
)
def test_a_typo_gets_the_nearest_word(argv, nearest, capsys):
    assert f"the nearest is {nearest}" in told(argv, capsys)


def test_help_and_version(capsys):
    assert main(["train", "--help"]) == 0
    assert "helios train tiny --help" in capsys.readouterr().out
    assert "say what to train: tiny" in told(["train"], capsys)
    with pytest.raises(SystemExit) as stop:
        main(["--version"])
    assert not stop.value.code and capsys.readouterr().out == f"helios {__version__}\n"


def test_generates_help_is_in_groups_and_explains_every_option():
    text = parser().named("generate").format_help()
    heads = re.findall(r"^([a-z].*):$", text, re.MULTILINE)
    assert heads[0] == "options" and "sampling" in heads and "the model" in heads and len(heads) > 6
    assert re.search(r"^options:\n  -h, --help .*\n\n", text, re.MULTILINE), "an option stands in no group"
    plain = [action for action in parser().named("generate")._actions if not action.help]
    assert not plain


def test_what_is_logged_stands_above_a_bar_on_a_line_of_its_own(capsys):
    with messages(), tqdm(total=2, file=sys.stderr) as bar:
        bar.update(1)
        logging.getLogger(f"{pack.__name__}.helios_core.any").warning("mind the gap")
    lines = capsys.readouterr().err.replace("\r", "\n").split("\n")
    assert lines.count("mind the gap") == 1
