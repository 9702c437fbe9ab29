"""What latents look like in numbers, level by level of a pyramid, and the picture that shows it.

Everything is numpy, [b c t h w], finest level first.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from PIL import Image

from . import plots

PANEL = (400, 240)  # pixels
BINS = 64
FLOOR = 1e-6  # of a power that is drawn on a logarithmic scale


def spectrum(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Power by spatial frequency: frequencies [n] in cycles per latent pixel, up to 0.5, and power [c n].

    Means over rings of the 2D spectrum, over batch and frames; the mean of each frame is taken off. White noise is flat
    at its variance. NaN where a ring holds nothing, as in a latent of one pixel.
    """
    *_, h, w = x.shape
    x = x.astype(np.float64)
    x = x - x.mean(axis=(-2, -1), keepdims=True)
    power = (abs(np.fft.fft2(x)) ** 2).mean(axis=(0, 2)) / (h * w)
    count = max(1, min(max(h, w), BINS) // 2)
    radius = np.hypot(np.fft.fftfreq(h)[:, None], np.fft.fftfreq(w)[None])
    ring = np.ceil(radius * 2 * count - 1e-9).astype(int)
    rings = [power[:, ring == k] for k in range(1, count + 1)]
    means = [r.mean(axis=1) if r.size else np.full(len(power), np.nan) for r in rings]
    return np.arange(1, count + 1) / (2 * count), np.stack(means, axis=1)


def histogram(x: np.ndarray, edges: np.ndarray) -> np.ndarray:
    """Density per bin."""
    counts, _ = np.histogram(x, edges)
    return counts / (x.size * np.diff(edges))


def picture(pyramids: dict[str, Sequence[np.ndarray]]) -> Image.Image:
    """Spread and mean of every level, then each pyramid's histograms and spectra. pyramids: name -> its levels.

    ValueError for values that are not finite.
    """
    for name, levels in pyramids.items():
        if not all(np.isfinite(x).all() for x in levels):
            raise ValueError(
                f"latent plot: {name!r} holds NaN or Inf; the node that made it went wrong, look there first"
            )
    rows = [_bars(pyramids), _histograms(pyramids), _spectra(pyramids)]
    return plots.sheet([row for row in rows if row])


def _sizes(levels: Sequence[np.ndarray]) -> list[str]:
    return [f"{x.shape[-2]}x{x.shape[-1]}" for x in levels]


def _bars(pyramids: dict) -> list[Image.Image]:
    """Groups are named by size, or by depth where the pyramids differ in sizes."""
    deepest = _sizes(max(pyramids.values(), key=len))
    alike = all(_sizes(p) == deepest[: len(p)] for p in pyramids.values())
    groups = deepest if alike else [f"level {i}" for i in range(len(deepest))]
    width = max(PANEL[0], (PANEL[0] + 8) * len(pyramids) // 2 - 8, 40 * len(groups) * len(pyramids) + 80)
    panels = []
    for statistic, title in ((np.std, "standard deviation of each level"), (np.mean, "mean of each level")):
        series = {
            name: [float(statistic(x, dtype=np.float64)) for x in p] + [np.nan] * (len(groups) - len(p))
            for name, p in pyramids.items()
        }
        panels.append(plots.bar_plot(series, groups, title, size=(width, 280)))
    return panels


def _histograms(pyramids: dict) -> list[Image.Image]:
    """A panel per pyramid, all on the same scales: those of the widest and the tallest, unless far off the rest."""
    spreads = [float(x.std()) for p in pyramids.values() for x in p]
    centre = float(np.mean([x.mean() for p in pyramids.values() for x in p]))
    reach = 4 * min(max(spreads), 4 * float(np.median(spreads))) or 1.0
    edges = np.linspace(centre - reach, centre + reach, BINS + 1)
    panels = {n: dict(zip(_sizes(p), (histogram(x, edges) for x in p))) for n, p in pyramids.items()}
    heights = [line.max() for panel in panels.values() for line in panel.values()]
    tallest = min(max(heights), 4 * float(np.median(heights))) or 1.0
    shared = {"x": (edges[1:] + edges[:-1]) / 2, "limits": (0.0, tallest * 1.05), "x_label": "value", "size": PANEL}
    return [plots.line_plot(panel, f"values: {name}", **shared) for name, panel in panels.items()]


def _spectra(pyramids: dict) -> list[Image.Image]:
    """A panel per pyramid: the mean of the channels at each level, and thin, each channel of the coarsest."""
    x = np.arange(1, BINS // 2 + 1) / BINS
    panels, thin = {}, {}
    for name, levels in pyramids.items():
        found = [_on(x, *spectrum(level)) for level in levels]
        if any(np.isfinite(f).any() for f in found):
            panels[name] = dict(zip(_sizes(levels), (np.log10(f.mean(axis=0)) for f in found)))
            thin[name] = [line for line in np.log10(found[-1]) if np.isfinite(line).all()]
    every = [line for name in panels for line in (*panels[name].values(), *thin[name]) if np.isfinite(line).all()]
    if not every:
        return []
    low, high = plots.padded(np.min(every), np.max(every))
    limits = (low, high + 0.5 * (high - low))  # the names stand above the lines
    shared = {"x": x, "limits": limits, "x_label": "cycles per latent pixel (thin: the channels)", "size": PANEL}
    return [
        plots.line_plot(panel, f"log10 power: {name}", faint=thin[name], **shared) for name, panel in panels.items()
    ]


def _on(x: np.ndarray, frequencies: np.ndarray, power: np.ndarray) -> np.ndarray:
    """Power [c n] at the frequencies x, none of it below FLOOR; flat below the lowest frequency there is."""
    return np.stack([np.interp(x, frequencies, np.maximum(line, FLOOR)) for line in power])
