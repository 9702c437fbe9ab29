"""Plots as pictures, with Pillow alone: what the nodes that plot, and the probe's report, are drawn with."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont

COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000", "#8c6d31")
INK, GRID, FAINT, PAPER = "#333333", "#dddddd", "#b8c4cc", "#ffffff"
MARGIN = (58, 30, 14, 34)  # left, top, right, bottom


def font(size: int = 12):
    """Pillow's own font, at a height in pixels."""
    return ImageFont.load_default(size)


def ticks(low: float, high: float, count: int = 5) -> list[float]:
    """About `count` round numbers from low to high."""
    raw = (high - low) / count or 1.0
    power = 10.0 ** math.floor(math.log10(raw))
    step = power * next(m for m in (1, 2, 2.5, 5, 10) if m * power >= raw * 0.999)
    first = math.ceil(low / step - 1e-9)
    return [round(i * step, 12) for i in range(first, math.floor(high / step + 1e-9) + 1)]


def line_plot(
    series: dict[str, Sequence[float]], title: str, *, x: Sequence[float] | None = None, x_label: str = "",
    limits: tuple[float, float] | None = None, size: tuple[int, int] = (420, 260), faint: Sequence = (),
) -> Image.Image:  # fmt: skip
    """Lines of equal length over x (0, 1, 2 ... if left open); NaN leaves a gap. limits: of the y axis.

    faint: further lines, thin and without a name, behind the others.

    ValueError if there is nothing finite to plot.
    """
    values = {name: np.asarray(v, dtype=float) for name, v in series.items()}
    longest = max((len(v) for v in values.values()), default=0)
    x = np.arange(longest, dtype=float) if x is None else np.asarray(x, dtype=float)
    finite = np.concatenate([v[np.isfinite(v)] for v in values.values()]) if values else np.empty(0)
    if not len(finite):
        raise ValueError(f"plot {title!r}: no finite values")
    low, high = limits or padded(finite.min(), finite.max())
    picture = Image.new("RGB", size, PAPER)
    draw = ImageDraw.Draw(picture)
    left, top, right, bottom = MARGIN[0], MARGIN[1], size[0] - MARGIN[2], size[1] - MARGIN[3]
    across = lambda v: left + (v - x[0]) / max(x[-1] - x[0], 1e-12) * (right - left)  # noqa: E731
    up = lambda v: bottom - (v - low) / (high - low) * (bottom - top)  # noqa: E731
    _axes(draw, (left, top, right, bottom), across, up, (x[0], x[-1]), (low, high), title, x_label)
    for line in faint:
        draw.line([(across(a), up(min(max(b, low), high))) for a, b in zip(x, line)], fill=FAINT)
    for (_, line), colour in zip(values.items(), COLOURS * len(values)):
        for part in _runs(line):
            points = [(across(x[i]), up(min(max(line[i], low), high))) for i in part]
            draw.line(points, fill=colour, width=2, joint="curve")
            if len(points) == 1:
                draw.ellipse([points[0][0] - 2, points[0][1] - 2, points[0][0] + 2, points[0][1] + 2], fill=colour)
    if len(values) > 1:
        _legend(draw, list(values), (left + 8, top + 4))
    return picture


def padded(low: float, high: float) -> tuple[float, float]:
    """Limits a little wider than the data."""
    gap = (high - low) * 0.06 or abs(high) * 0.1 or 1.0
    return low - gap, high + gap


def _axes(draw, box, across, up, x_range, y_range, title: str, x_label: str) -> None:
    left, top, right, bottom = box
    for v in ticks(*y_range):
        draw.line([left, up(v), right, up(v)], fill=GRID)
        draw.text((left - 5, up(v)), f"{v:g}", fill=INK, font=font(11), anchor="rm")
    for v in ticks(*x_range) if x_range else ():
        draw.line([across(v), bottom, across(v), bottom + 4], fill=INK)
        draw.text((across(v), bottom + 6), f"{v:g}", fill=INK, font=font(11), anchor="mt")
    draw.line([left, top, left, bottom, right, bottom], fill=INK)
    draw.text((left, top - 8), title, fill=INK, font=font(13), anchor="ls")
    draw.text((right, bottom + 20), x_label, fill=INK, font=font(11), anchor="rt")


def _runs(line: np.ndarray) -> list[list[int]]:
    """Indices of stretches without NaN."""
    runs, part = [], []
    for i, v in enumerate(line):
        if np.isfinite(v):
            part.append(i)
        elif part:
            runs, part = [*runs, part], []
    return [*runs, part] if part else runs


def _legend(draw, names: list[str], corner: tuple[float, float]) -> None:
    x, y = corner
    for name, colour in zip(names, COLOURS * len(names)):
        draw.line([x, y + 6, x + 16, y + 6], fill=colour, width=3)
        draw.text((x + 21, y), name, fill=INK, font=font(11))
        y += 15


def bar_plot(
    series: dict[str, Sequence[float]], groups: Sequence[str], title: str, *, size: tuple[int, int] = (560, 260),
) -> Image.Image:  # fmt: skip
    """A bar per group and series, from zero, with its number on it; NaN leaves a gap. groups: names, one per value.

    ValueError if there is nothing finite to plot.
    """
    values = np.array(list(series.values()), dtype=float)
    if not np.isfinite(values).any():
        raise ValueError(f"plot {title!r}: no finite values")
    low, high = min(0.0, np.nanmin(values) * 1.15), max(0.0, np.nanmax(values) * 1.15)
    high += high == low
    picture = Image.new("RGB", size, PAPER)
    draw = ImageDraw.Draw(picture)
    left, top, right, bottom = MARGIN[0], MARGIN[1] + 16, size[0] - MARGIN[2], size[1] - MARGIN[3]
    up = lambda v: bottom - (v - low) / (high - low) * (bottom - top)  # noqa: E731
    _axes(draw, (left, top, right, bottom), None, up, None, (low, high), "", "")
    draw.text((left, MARGIN[1] - 8), title, fill=INK, font=font(13), anchor="ls")
    step = (right - left) / len(groups)
    width = step * 0.86 / len(series)
    for g, name in enumerate(groups):
        draw.text((left + (g + 0.5) * step, bottom + 6), name, fill=INK, font=font(11), anchor="mt")
        for k, (value, colour) in enumerate(zip(values[:, g], COLOURS * len(series))):
            if not np.isfinite(value):
                continue
            x = left + (g + 0.07) * step + k * width
            draw.rectangle([x + 1, min(up(value), up(0)), x + width - 1, max(up(value), up(0))], fill=colour)
            at, anchor = (up(value) - 2, "ms") if value >= 0 else (up(value) + 3, "mt")
            draw.text((x + width / 2, at), f"{value:.3g}", fill=INK, font=font(10), anchor=anchor)
    x = left
    for name, colour in zip(series, COLOURS * len(series)):
        draw.rectangle([x, top - 16, x + 10, top - 6], fill=colour)
        draw.text((x + 14, top - 18), name, fill=INK, font=font(11))
        x += 26 + draw.textlength(name, font=font(11))
    return picture


def sheet(rows: list[list[Image.Image]], gap: int = 8) -> Image.Image:
    """Rows of pictures on one page."""
    widths = [sum(p.width for p in row) + gap * (len(row) + 1) for row in rows]
    heights = [max(p.height for p in row) + gap for row in rows]
    page = Image.new("RGB", (max(widths), sum(heights) + gap), PAPER)
    y = gap
    for row, height in zip(rows, heights):
        x = gap
        for picture in row:
            page.paste(picture, (x, y))
            x += picture.width + gap
        y += height
    return page
