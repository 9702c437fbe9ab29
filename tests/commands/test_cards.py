"""`helios doctor --card`: what is told of a card is the estimate, and the README's table is what it says today."""

from pathlib import Path

import helios_video as pack
import pytest
from helios_video.helios_core.cli import main
from helios_video.helios_core.commands import cards
from helios_video.helios_core.devices import needs


@pytest.fixture(scope="module")
def published():
    return cards.published()


def test_the_readme_has_todays_table():
    text = (Path(pack.__file__).parent / "README.md").read_text(encoding="utf-8")
    assert cards.table() in text, f"put this into README.md:\n{cards.table()}"


def test_the_parts_are_those_of_the_published_model(published):
    found = cards.estimate(published, "bf16")
    assert found.parts[needs.TRANSFORMER] == pytest.approx(2 * 14.312e9 + 2 * 29.2e6, rel=1e-4)
    assert found.parts[needs.TEXT] == pytest.approx(2 * 5.68e9, rel=0.01)


def test_a_larger_card_is_never_slower(published):
    for kind in cards.FORMATS.values():
        ways = [cards.best(published, kind, size) for size in cards.CARDS]
        ranks = [(not way.whole, way.tiled) for way in ways]
        assert ranks == sorted(ranks, reverse=True) and ways[-1].whole


def test_a_card_is_answered_in_a_few_lines(capsys):
    assert main(["doctor", "--card", "12"]) == 0
    text = capsys.readouterr().out
    assert "Fastest: --weight-dtype int4, all on the card" in text
    assert "Closest to the original: --weight-dtype bf16, with 29.0 GiB of host memory" in text
    assert main(["doctor", "--card", "3"]) == 0 and "None of them fits" in capsys.readouterr().out


@pytest.mark.parametrize("size", ["0", "-4", "nan", "1e9"])
def test_no_card_has_that_size(size, capsys):
    assert main(["doctor", f"--card={size}"]) == 2
    assert "--card" in capsys.readouterr().err
