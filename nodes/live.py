"""What is seen of a run while it goes: one bar with the time left, pictures of the latents, and of finished chunks."""

from __future__ import annotations

import math
import time
from contextlib import contextmanager

from einops import rearrange

from . import core, host, sockets

READING_DELAY = 2  # seconds
_TABLES: dict[str, list] = {}  # what tells a VAE from others -> the colours fitted to it


class NodeProgress:
    """The bar of a node, of ComfyUI's or the workflow runner's. Each update is a cancel point.

    In ComfyUI it goes on from node to node, over all chunks of a video, and the node says how long that will take.
    costs: what each unit of the node's work takes beside the others; later: what the node's whole work on a later
    chunk takes, if not the same.
    """

    def __init__(self, costs, later: float = 0):
        from .place import RunPlace

        utils = host.comfy("comfy.utils")
        self._costs, self._later, self._done = list(costs), later or sum(costs), 0
        self._bar = utils and utils.ProgressBar(len(self._costs))
        self._run, self._stop, self._then = RunPlace.current(), host.stop_check(), time.monotonic()

    def update(self, value: int, picture=None) -> None:
        """`value` units are done. picture: what `previewer` gave."""
        from ..helios_core.workflow import current

        if self._stop:
            self._stop()
        if self._run:
            self._advance(value, picture)
        elif self._bar:
            self._bar.update_absolute(value, len(self._costs), picture)
        elif run := current():
            run.report(value, len(self._costs))

    def whole(self, picture=None) -> None:
        """All of the work was found done; no pace is learnt from that."""
        self._done, self._then = len(self._costs), time.monotonic()
        self.update(self._done, picture)

    def _advance(self, value: int, picture) -> None:
        now = time.monotonic()
        spent, self._then = now - self._then, now
        done, total, text = self._run.advance(self._costs, self._done, value, self._later, spent)
        self._done = value
        self._bar.update_absolute(done, total, picture)
        if record := host.optional("comfy_execution.progress", "get_progress_state"):
            for parent in self._run.parents:  # or the end of a loop stands at 0 % all the while
                record().update_progress(parent, done, total)
        server = host.optional("server", "PromptServer")
        if hasattr(server and server.instance, "send_progress_text"):
            server.instance.send_progress_text(text, self._run.shown, server.instance.client_id)


@contextmanager
def reading(what: str, total: int):
    """A bar of a node that reads so many bytes, and one on the console with the time left; both appear where it takes
    longer than a moment. Gives what is called with done and total."""
    made, start, bars = host.optional("comfy.utils", "ProgressBar"), time.monotonic(), []
    with core.devices.bar(what, total) as on_console:

        def report(done: int, total: int) -> None:
            on_console(done, total)
            if made and not bars and time.monotonic() - start > READING_DELAY:
                bars.append(made(total))
            for bar in bars:
                bar.update_absolute(done, total)

        yield report


def previewer(helios):
    """A function from a normalised latent [b c t h w] to ComfyUI's preview of all its frames; None if they are off.

    ComfyUI's own previewers are given the frames side by side. One that another pack put in their place, to animate
    them, is given them one after another. The published VAE's colours are ComfyUI's own; others are fitted.
    """
    from ..helios_core.decode import preview

    if not host.present():
        return None
    import latent_preview as previews
    from comfy.latent_formats import Wan21

    found = Wan21()
    if previews.get_previewer(_device(), found) is None:
        return None
    published = tuple(round(v, 4) for v in found.latents_mean.flatten().tolist())
    if tuple(helios.config.vae.latents_mean) != published:
        kind = repr(helios.parts.vae_identity)
        table = _TABLES.get(kind)
        if table is None:
            table = _TABLES[kind] = preview.fit(helios).tolist()
        found.latent_rgb_factors, found.latent_rgb_factors_bias = table[:-1], table[-1]
        found.taesd_decoder_name = None
    approximate = previews.get_previewer(_device(), found)
    own = type(approximate).__module__ == previews.__name__

    def show(latent):
        return approximate.decode_latent_to_preview_image("JPEG", sheet(latent) if own else latent)

    linear = own and type(approximate).__name__ == "Latent2RGBPreviewer"  # it computes wherever the latent is
    later = Later(show)
    return lambda latent: (later if linear and getattr(latent, "is_cuda", False) else show)(sockets.tensor(latent))


class Later:
    """show(latent) of the step before, as soon as its latent has come to the host: no step waits for its picture."""

    def __init__(self, show):
        self.show, self.waiting = show, None

    def __call__(self, latent):
        """The picture, or None if there is none yet."""
        from ..helios_core.backends.torch.transfer import Arrival

        before, self.waiting = self.waiting, Arrival(latent)
        return self.show(before.wait()) if before is not None and before.arrived else None


def _device():
    import comfy.model_management as management

    return management.get_torch_device()


def sheet(z):
    """The frames of the first of latents [b c t h w] as one, [1 c 1 rows*h columns*w], about as wide as high."""
    columns = max(1, min(z.shape[2], round(math.sqrt(z.shape[2] * z.shape[3] / z.shape[4]))))
    rows = math.ceil(z.shape[2] / columns)
    grid = z.new_zeros(1, z.shape[1], rows * columns, *z.shape[3:])
    grid[:, :, : z.shape[2]] = z[:1]
    return rearrange(grid, "b c (r q) h w -> b c 1 (r h) (q w)", q=columns)


def with_chunk(clip, result: tuple):
    """The result of a node that also plays the clip's newest chunk in ComfyUI; the chunks lie in its temp folder."""
    paths = host.comfy("folder_paths")
    path = clip.segments[-1].path
    if paths is None or not path.is_relative_to(paths.get_temp_directory()):
        return result
    place = path.relative_to(paths.get_temp_directory())
    shown = {"filename": place.name, "subfolder": place.parent.as_posix(), "type": "temp"}
    return {"ui": {"images": [shown], "animated": (True,)}, "result": result}
