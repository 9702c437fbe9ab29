"""HeliosLatentPlot: what latents look like in numbers, as a picture."""

from __future__ import annotations

from . import sockets

PLACES = ("latent", "latent_2", "latent_3", "latent_4")


class HeliosLatentPlot:
    """Statistics of latents, drawn."""

    CATEGORY = "Helios"
    DESCRIPTION = (
        "Draws latents, or the levels of up to four pyramids side by side: standard deviation and mean per level, "
        "histograms, and power by spatial frequency. Shows at a glance what a variance policy does to your latents."
    )
    SEARCH_ALIASES = ["latent statistics", "histogram", "spectrum", "variance plot", "latent std", "compare latents"]
    FUNCTION = "draw"
    RETURN_TYPES = ("IMAGE",)
    RETURN_NAMES = ("image",)
    OUTPUT_TOOLTIPS = ("The plots on one sheet, for Preview Image or Save Image.",)

    @classmethod
    def INPUT_TYPES(cls):
        """The inputs, as ComfyUI asks for them."""
        more = (sockets.PLOTTED, {"tooltip": "Another one to set beside the first, on the same scales."})
        return {
            "required": {"latent": (sockets.PLOTTED, {"tooltip": LATENT_TIP})},
            "optional": {
                **dict.fromkeys(PLACES[1:], more),
                "names": ("STRING", {"default": "", "tooltip": NAMES_TIP}),
            },
        }

    def draw(self, latent, latent_2=None, latent_3=None, latent_4=None, names=""):
        """(IMAGE,): the sheet of all latents that are wired."""
        import numpy as np
        import torch

        from ..helios_core.measure import picture

        wired = {p: v for p, v in zip(PLACES, (latent, latent_2, latent_3, latent_4)) if v is not None}
        levels = {
            title: [x.cpu().numpy() for x in sockets.levels(value, place)]
            for title, (place, value) in zip(titles(wired, names), wired.items(), strict=True)
        }
        sheet = np.asarray(picture(levels), dtype=np.float32) / 255
        return (torch.from_numpy(sheet)[None],)


def titles(wired: dict, names: str) -> list[str]:
    """A name for each input that is wired: the given ones, then a pyramid's own or the input's; no two alike.

    ValueError for more names than latents.
    """
    given = [name.strip() for name in names.split(",")] if names.strip() else []
    if len(given) > len(wired):
        raise ValueError(f"names {names!r}: {len(given)} for {len(wired)} latents; wanted one each, at most")
    found = given + [getattr(value, "label", place) for place, value in list(wired.items())[len(given) :]]
    return [name if name and found.count(name) == 1 else f"{i + 1} {name}".strip() for i, name in enumerate(found)]


LATENT_TIP = "A latent, or the levels of Pyramid Downsample: those are shown from the finest to the coarsest."
NAMES_TIP = "Names for the plots, separated by commas, in the order of the inputs. Left open, they name themselves."
