"""Figures of pages, reports and logs, through matplotlib: lines with bands, dots with intervals, film strips.

A figure is rows of panels. A panel is what one plot shows, and draws itself on given axes; `render` gives all of them
one style. Names are told apart by colour (Okabe and Ito's, which colour-blind people can tell), and by marks as well.
Nodes draw with plots.py instead, which needs Pillow alone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib.util import find_spec
from io import BytesIO
from itertools import groupby

import numpy as np
from PIL import Image

from .plots import COLOURS, GRID, INK

MARKS = "os^Dv*XP"
FEW = 12  # points: so many get marks
DPI = 110
LEGEND = 0.3  # inches
STYLE = {
    "font.size": 8, "axes.titlesize": 9, "axes.titleweight": "bold", "axes.titlelocation": "left", "legend.fontsize": 8,
    "axes.spines.top": False, "axes.spines.right": False, "axes.edgecolor": INK, "axes.labelcolor": INK,
    "text.color": INK, "xtick.color": INK, "ytick.color": INK, "axes.grid": True, "grid.color": GRID,
    "grid.linewidth": 0.6, "axes.axisbelow": True, "lines.linewidth": 1.4, "lines.markersize": 4,
    "legend.frameon": False,
}  # fmt: skip


def there() -> bool:
    """Whether figures can be drawn: by matplotlib."""
    return find_spec("matplotlib") is not None


def require() -> None:
    """ValueError unless matplotlib is there. To be asked before the work whose figures are drawn at its end."""
    if not there():
        raise ValueError("figures are drawn with matplotlib, which is not installed: pip install 'matplotlib>=3.8'")


@dataclass(frozen=True)
class Lines:
    """Lines over x. series: name -> values [n], or [repeats n], drawn as their mean with a band over their range.

    x: 0, 1, 2 ... if left open. logarithmic: of the x axis, with a tick at every x. limits: of the y axis. NaN leaves a
    gap.
    """

    series: Mapping[str, Sequence]
    title: str
    x: Sequence[float] | None = None
    x_label: str = ""
    y_label: str = ""
    limits: tuple[float, float] | None = None
    logarithmic: bool = False
    size: tuple[float, float] = (4.2, 2.6)  # inches

    def names(self) -> tuple[str, ...]:
        """Those that a legend tells."""
        return tuple(self.series) if len(self.series) > 1 else ()

    def draw(self, axes) -> None:
        """Draws on matplotlib's axes."""
        for i, (name, values) in enumerate(self.series.items()):
            rows = np.atleast_2d(np.asarray(values, dtype=float))
            x = np.arange(rows.shape[1]) if self.x is None else np.asarray(self.x, dtype=float)
            colour, mark = COLOURS[i % len(COLOURS)], MARKS[i % len(MARKS)]
            x = x[: rows.shape[1]]
            axes.plot(x, rows.mean(axis=0), label=name, color=colour, marker=mark if len(x) <= FEW else "")
            if len(rows) > 1:
                axes.fill_between(x, rows.min(axis=0), rows.max(axis=0), color=colour, alpha=0.18, linewidth=0)
        if self.logarithmic:
            axes.set_xscale("log")
            axes.set_xticks(self.x, [f"{v:g}" for v in self.x])
            axes.minorticks_off()
        else:
            whole = self.x is None or np.array_equal(self.x, np.round(self.x))
            axes.locator_params(axis="x", nbins=6, integer=whole)
        axes.set(title=self.title, xlabel=self.x_label, ylabel=self.y_label)
        if self.limits:
            axes.set_ylim(self.limits)


@dataclass(frozen=True)
class Dots:
    """A row per name: a ring per value, and a line from the low to the high end of its interval; a line at zero.

    rows: name -> values; intervals: name -> (low, high). marked: names drawn in the second colour, filled. x_label: the
    unit. NaN is left out.
    """

    rows: Mapping[str, Sequence[float]]
    intervals: Mapping[str, tuple[float, float]]
    title: str
    x_label: str = ""
    marked: Sequence[str] = ()
    width: float = 4.6  # inches

    @property
    def size(self) -> tuple[float, float]:
        """Inches."""
        return self.width, 0.75 + 0.19 * len(self.rows)

    def names(self) -> tuple[str, ...]:
        """None: they stand at the rows."""
        return ()

    def draw(self, axes) -> None:
        """Draws on matplotlib's axes."""
        axes.axvline(0, color=INK, linewidth=0.8)
        for y, (name, values) in enumerate(self.rows.items()):
            chosen = name in self.marked
            colour = COLOURS[chosen]
            axes.plot(self.intervals[name], [y, y], color=colour, linewidth=2)
            face = colour if chosen else "white"
            axes.plot(values, [y] * len(values), "o", color=colour, markerfacecolor=face, markersize=4.5)
        axes.set_yticks(range(len(self.rows)), list(self.rows))
        axes.set_ylim(len(self.rows) - 0.4, -0.6)
        axes.grid(visible=False, axis="y")
        axes.locator_params(axis="x", nbins=5)
        axes.set(title=self.title, xlabel=self.x_label)


@dataclass(frozen=True)
class Strip:
    """A film strip: `count` frames of uint8 [t h w 3], evenly from first to last, side by side under a caption."""

    frames: np.ndarray = field(repr=False)
    caption: str
    count: int
    pixels: int = 128  # of a frame's height on the page, about

    @property
    def size(self) -> tuple[float, float]:
        """Inches."""
        h, w = self.frames.shape[1:3]
        high = self.pixels / DPI
        return high * w / h * min(self.count, len(self.frames)), high + 0.25

    def names(self) -> tuple[str, ...]:
        """None: it has a caption."""
        return ()

    def draw(self, axes) -> None:
        """Draws on matplotlib's axes."""
        picks = np.linspace(0, len(self.frames) - 1, min(self.count, len(self.frames))).round().astype(int)
        axes.imshow(np.concatenate(list(self.frames[picks]), axis=1), interpolation="nearest")
        axes.set_axis_off()
        axes.set_title(self.caption, fontsize=8, fontweight="normal")


Panel = Lines | Dots | Strip


def render(rows: Sequence[Sequence[Panel]]) -> Image.Image:
    """The panels on one page. Rows of one kind of panel stand in columns, with one legend above them where all have the
    same names, else with a legend in every panel.

    ValueError where matplotlib is missing.
    """
    require()
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    blocks = [list(block) for _, block in groupby((row for row in rows if row), key=lambda row: type(row[0]))]
    heights = [sum(_height(row) for row in block) + LEGEND * bool(_shared_names(block)) for block in blocks]
    width = max(sum(panel.size[0] for panel in row) for block in blocks for row in block)
    with rc_context(STYLE):
        page = Figure(figsize=(width, sum(heights)), dpi=DPI, layout="constrained", facecolor="white")
        for part, block in zip(np.atleast_1d(page.subfigures(len(blocks), 1, height_ratios=heights)), blocks):
            _draw_block(part, block, width)
        buffer = BytesIO()
        page.savefig(buffer, format="png")
    return Image.open(buffer).convert("RGB")


def _height(row: Sequence[Panel]) -> float:
    return max(panel.size[1] for panel in row)


def _shared_names(block: Sequence[Sequence[Panel]]) -> tuple[str, ...]:
    """The names of all of a block's panels, where they are the same."""
    found = {panel.names() for row in block for panel in row}
    return found.pop() if len(found) == 1 else ()


def _draw_block(part, block: Sequence[Sequence[Panel]], width: float) -> None:
    """Rows of panels in columns as wide as the longest row's; what is left of the page stays empty."""
    widths = [panel.size[0] for panel in max(block, key=len)]
    rest = width - sum(widths)
    ratios = {"width_ratios": [*widths, rest] if rest > 0.01 else widths, "height_ratios": list(map(_height, block))}
    grid = part.subplots(len(block), len(ratios["width_ratios"]), squeeze=False, **ratios)
    shared = _shared_names(block)
    for all_axes, row in zip(grid, block):
        for axes, panel in zip(all_axes, row):
            panel.draw(axes)
            if panel.names() and not shared:
                axes.legend()
        for axes in all_axes[len(row) :]:
            axes.set_axis_off()
    if shared:
        handles, labels = grid[0, 0].get_legend_handles_labels()
        part.legend(handles, labels, loc="outside upper left", ncols=max(1, round(width / 1.7)))
