"""The one file that touches ComfyUI: folders, devices, progress, Stop, previews, VIDEO. Each has a way without it.

ComfyUI is present when its `folder_paths` is loaded; nothing of it is imported otherwise, whatever lies on sys.path.
"""

from __future__ import annotations

import hashlib
import importlib
import sys
import tempfile
import time
import uuid
from contextlib import contextmanager
from pathlib import Path

from ..helios_core import folders

API = "comfy_api.v0_0_2"  # pinned: comfy_api.latest may change without warning
CATEGORY = "helios"  # the key in folder_paths and in extra_model_paths.yaml


def _comfy(name: str):
    """A module of ComfyUI, or None without ComfyUI."""
    return importlib.import_module(name) if "folder_paths" in sys.modules else None


def model_folders() -> list[Path]:
    """Folders that hold checkpoints; tells ComfyUI of models/helios, and makes no folder."""
    paths = _comfy("folder_paths")
    if paths is None:
        return folders.search_folders()
    paths.add_model_folder_path(CATEGORY, str(Path(paths.models_dir) / CATEGORY))
    return [Path(p) for p in paths.get_folder_paths(CATEGORY)]


def model_names() -> list[str]:
    """What HeliosLoader offers: helios-tiny, which ships with the pack, then the folders found. Read anew each call."""
    return [folders.TINY, *folders.list_models(model_folders())]


def model_path(name: str) -> Path | str:
    """The folder of a listed name. ValueError names the folders searched."""
    return folders.find_model(name, model_folders())


def fingerprint(name: str) -> str:
    """A short text that changes when a checkpoint's files change on disk."""
    path = folders.list_models(model_folders()).get(name)
    files = sorted(p for p in path.rglob("*") if p.is_file()) if path else []
    facts = [name, *((p.name, p.stat().st_size, p.stat().st_mtime_ns) for p in files)]
    return hashlib.sha256(repr(facts).encode()).hexdigest()[:16]


def device():
    """The torch device ComfyUI computes on, or None to leave the choice to the core."""
    management = _comfy("comfy.model_management")
    return management and management.get_torch_device()


def make_room(path: Path | str) -> None:
    """Asks ComfyUI to move its own models away until a checkpoint's weights fit on the device."""
    management = _comfy("comfy.model_management")
    if management is not None and isinstance(path, Path):
        management.free_memory(sum(p.stat().st_size for p in path.rglob("*.safetensors")), device())
        management.soft_empty_cache()


def stop_check():
    """A function that raises if the user pressed Stop; None without ComfyUI, where Ctrl-C raises by itself."""
    management = _comfy("comfy.model_management")
    return management and management.throw_exception_if_processing_interrupted


@contextmanager
def stoppable(helios):
    """While inside, Stop is honoured between any two transformer blocks."""
    before, helios.interrupt = helios.interrupt, stop_check()
    try:
        yield
    finally:
        helios.interrupt = before


class Progress:
    """A bar of `total` steps: ComfyUI's, or the workflow runner's. Each update is a cancel point."""

    def __init__(self, total: int):
        utils = _comfy("comfy.utils")
        self._total, self._bar, self._stop = total, utils and utils.ProgressBar(total), stop_check()

    def update(self, value: int, preview=None) -> None:
        """`value` of the total is done. preview: what `previewer` gave."""
        from ..helios_core.workflow import current

        if self._stop:
            self._stop()
        if self._bar:
            self._bar.update_absolute(value, self._total, preview)
        elif run := current():
            run.report(value, self._total)


def previewer(helios):
    """A function from a normalised latent [b c t h w] to ComfyUI's preview of its first frame; None if they are off.

    With the published VAE it is ComfyUI's own Wan 2.1 approximation, which other packs animate. For another latent
    space that means nothing; such a VAE (helios-tiny's) is small enough to decode the frame itself.
    """
    previews = _comfy("latent_preview")
    if previews is None:
        return None
    wan = _comfy("comfy.latent_formats").Wan21()
    approximate = previews.get_previewer(device(), wan)
    if approximate is None:
        return None
    published = tuple(round(v, 4) for v in wan.latents_mean.flatten().tolist())
    if tuple(helios.config.vae.latents_mean) == published:
        return lambda latent: approximate.decode_latent_to_preview_image("JPEG", latent.float().cpu())

    def decode(latent):
        import torch

        frame = torch.from_numpy(helios.decode(latent[:1, :, :1])[0]) / 127.5 - 1
        return "JPEG", previews.preview_to_image(frame), previews.MAX_PREVIEW_RESOLUTION

    return decode


def clip_folder() -> Path:
    """A new name for the folder of one video's chunks: in ComfyUI's temp, or where the workflow runner wants it."""
    from ..helios_core.workflow import current

    paths, run = _comfy("folder_paths"), current()
    if paths:
        root = Path(paths.get_temp_directory()) / "helios"
    else:
        root = run.folder if run else Path(tempfile.gettempdir()) / "helios"
    return root / f"{time.strftime('%Y%m%d-%H%M%S')}-{uuid.uuid4().hex[:6]}"


class ClipVideo:
    """VIDEO of a clip. The chunks are joined into one file when somebody asks for it, not at every chunk.

    Everything asked of it goes to ComfyUI's VideoFromFile, so it follows that class wherever it grows.
    """

    def __init__(self, clip, num_frames: int = 0):
        self._clip, self._num_frames, self._video = clip, num_frames, None

    def _joined(self) -> Path:
        from ..helios_core import chunks

        last = self._clip.segments[-1].path.stem
        path = self._clip.folder / f"joined_{last}_{self._num_frames or 'all'}.mp4"
        if not path.exists():
            chunks.join(self._clip, path, num_frames=min(self._num_frames, self._clip.num_frames))
        return path

    def __getattr__(self, name: str):
        if name.startswith("_"):
            raise AttributeError(name)
        if self._video is None:
            from ..helios_core.standins import VideoFile

            api = _comfy(API)
            self._video = (api.InputImpl.VideoFromFile if api else VideoFile)(str(self._joined()))
        return getattr(self._video, name)


def video(clip, num_frames: int = 0):
    """A VIDEO of a clip, cut after num_frames (0 = all, as is a number beyond the clip's length)."""
    if api := _comfy(API):
        api.Input.Video.register(ClipVideo)
    return ClipVideo(clip, num_frames)
