"""Strength per block as text: what is read, what is refused."""

from __future__ import annotations

import pytest
from helios_video.helios_core.lora.strength import Strength, read_strength


def test_factors_of_blocks_others_and_the_rest():
    strength = read_strength(0.5, "0-1=2, 3=0 other=-1;rest=0.5", 5)
    assert [strength.of(f"blocks.{i}.attn1.to_q") for i in range(5)] == [1.0, 1.0, 0.25, 0.0, 0.25]
    assert strength.of("proj_out") == -0.5 and str(strength) == "0.5 (0-1=2, 3=0 other=-1;rest=0.5)"
    plain = read_strength(0.5)
    assert plain == Strength(0.5) and str(plain) == "0.5" and plain.of("blocks.7.ffn.net.2") == plain.of("x") == 0.5
    assert read_strength(1, "3-=0", 5).of("blocks.4.norm2.weight") == 0 == read_strength(1, "rest=0", 5).of("proj_out")


@pytest.mark.parametrize(
    "text,words",
    [
        ("0", "'0': wanted such as"),
        ("0=much", "'0=much': wanted such as"),
        ("0=nan", "wanted such as"),
        ("a=1", "'a=1': wanted such as"),
        ("0-9=1", "this model has blocks 0 to 4"),
        ("7=1", "this model has blocks 0 to 4"),
        ("3-1=1", "this model has blocks 0 to 4"),
        ("0-2=1, 2=0", "2 is named twice"),
        ("rest=1 rest=0", "rest is named twice"),
    ],
)
def test_texts_that_are_refused(text, words):
    with pytest.raises(ValueError, match=words):
        read_strength(1.0, text, 5)


def test_a_bad_strength_is_refused():
    for value in (float("nan"), float("inf"), 1e4):
        with pytest.raises(ValueError, match="LoRA strength .*: wanted a number"):
            read_strength(value)
