"""Seeds: what a widget offers, and what a node takes.

A browser's numbers are exact up to 2^53 - 1, so that is all a widget offers; a workflow file, the API and the command
line may give more, and a file from before that limit does.
"""

from __future__ import annotations

from . import core

WIDGET_MAX = 2**53 - 1


def widget(tooltip: str) -> tuple[str, dict]:
    """The input of a seed. That it stays as it is from run to run is said in web/js/defaults.js: frontends up to 1.49
    take a word in control_after_generate for the control's name."""
    return "INT", {"default": 0, "min": 0, "max": WIDGET_MAX, "tooltip": tooltip}


class SeededNode:
    """A node with a seed that may be larger than its widget offers: ComfyUI leaves the range to VALIDATE_INPUTS."""

    @classmethod
    def VALIDATE_INPUTS(cls, seed=0):
        """True, or why the seed is refused."""
        return refusal(seed) or True


def refusal(seed) -> str:
    """Why a seed is refused, or nothing. None comes over a wire, and is not known yet."""
    largest = core.noise.MAX_SEED
    fine = seed is None or (isinstance(seed, int) and 0 <= seed <= largest)
    return "" if fine else f"seed {seed!r}: wanted a whole number from 0 to {largest}"
