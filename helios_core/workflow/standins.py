"""Small stand-ins for the few core ComfyUI nodes that this pack's workflows use.

Ids, inputs, their order and their outputs are ComfyUI's, so the same workflow file runs in both.
"""

from __future__ import annotations

import re
from pathlib import Path

from .. import media
from ..disk import check_folder, inside, replacing
from ..join import check_encoder, video
from . import dates, standins_values
from .context import current
from .files import VideoFile, read_audio, to_image

COUNT = "_00001_"  # what is put behind a prefix
EXAMPLES = Path(__file__).parents[2] / "web" / "examples"  # what the pack's workflows begin with


def find_input(name: str) -> Path:
    """A file of the input folder, or any file by its path, or an example of the pack. Outside a run, of this folder.

    "NAME [output]" is a file of the output folder, "NAME [input]" of the input folder, as ComfyUI writes them.
    """
    run = current()
    folder = run.input_dir if run else Path.cwd()
    if name.endswith(" [output]"):
        return (run.output_dir if run else folder) / name.removesuffix(" [output]")
    name = name.removesuffix(" [input]")
    file, example = folder / name, EXAMPLES / Path(name).name
    return example if name == example.name and example.is_file() and not file.exists() else file


class LoadImage:
    """A picture of the input folder; of an animation the first."""

    FUNCTION = "load"
    RETURN_TYPES = ("IMAGE", "MASK")

    @classmethod
    def INPUT_TYPES(cls):
        """The inputs, as ComfyUI asks for them."""
        return {"required": {"image": ("COMBO", {"image_upload": True})}}

    @classmethod
    def VALIDATE_INPUTS(cls, image):
        """True, or that there is no such file."""
        return find_input(image).is_file() or f"no picture at {find_input(image)}; name one with --set"

    def load(self, image):
        """(IMAGE [1 h w 3], MASK [1 h w]): as in ComfyUI, transparent pixels keep their colour; the mask is 1 there."""
        import torch

        path = find_input(image)
        pixels, alpha = media.read_layers(path) if media.is_picture(path) else (media.read_picture(path), None)
        mask = torch.zeros(1, *pixels.shape[:2]) if alpha is None else 1 - torch.from_numpy(alpha)[None].float() / 255
        return to_image(pixels[None]), mask


class LoadVideo:
    """A video of the input folder."""

    FUNCTION = "load"
    RETURN_TYPES = ("VIDEO",)

    @classmethod
    def INPUT_TYPES(cls):
        """The inputs, as ComfyUI asks for them."""
        return {"required": {"file": ("COMBO", {"video_upload": True})}}

    @classmethod
    def VALIDATE_INPUTS(cls, file):
        """True, or that there is no such file."""
        return find_input(file).is_file() or f"no video at {find_input(file)}; name one with --set"

    def load(self, file):
        """(VIDEO,): the file, not yet read."""
        return (VideoFile(find_input(file)),)


class LoadAudio:
    """The sound of a file in the input folder."""

    FUNCTION = "load"
    RETURN_TYPES = ("AUDIO",)

    @classmethod
    def INPUT_TYPES(cls):
        """The inputs, as ComfyUI asks for them."""
        return {"required": {"audio": ("COMBO", {"audio_upload": True})}}

    @classmethod
    def VALIDATE_INPUTS(cls, audio):
        """True, or that there is no such file."""
        return find_input(audio).is_file() or f"no sound at {find_input(audio)}; name one with --set"

    def load(self, audio):
        """(AUDIO,). ValueError for a file without sound."""
        path = find_input(audio)
        if (sound := read_audio(path)) is None:
            raise ValueError(f"{path} has no sound that can be heard; name another file with --set")
        return (sound,)


class GetVideoComponents:
    """A video's frames, sound and frame rate; frames are read in 8 bits, as sRGB."""

    FUNCTION = "split"
    RETURN_TYPES = ("IMAGE", "AUDIO", "FLOAT", "INT", "COMBO")

    @classmethod
    def INPUT_TYPES(cls):
        """The inputs, as ComfyUI asks for them."""
        return {"required": {"video": ("VIDEO", {})}}

    def split(self, video):
        """(IMAGE [f h w 3], AUDIO or None, frames per second, bits, colour space)."""
        parts = video.get_components()
        return parts.images, parts.audio, float(parts.frame_rate), 8, "sRGB"


class CreateVideo:
    """Frames as a video."""

    FUNCTION = "create"
    RETURN_TYPES = ("VIDEO",)
    LATER = {"bit_depth": (8,)}  # inputs of newer versions of the node, and which values run here

    @classmethod
    def INPUT_TYPES(cls):
        """The inputs, as ComfyUI asks for them."""
        fps = {"default": 30.0, "min": 1.0, "max": 120.0, "step": 1.0}
        return {"required": {"images": ("IMAGE", {}), "fps": ("FLOAT", fps)}, "optional": {"audio": ("AUDIO", {})}}

    def create(self, images, fps, audio=None):
        """(VIDEO,): a file in the run's own folder."""
        run = current()
        path = run.folder / f"created_{run.node}.mp4"
        sound = None if audio is None else media.Sound(audio["waveform"][0].float().cpu().numpy(), audio["sample_rate"])
        video.write_video(path, video.to_uint8(images[..., :3]), fps=fps, sound=sound)
        return (VideoFile(path),)


class VAEDecode:
    """Latents as frames."""

    FUNCTION = "decode"
    RETURN_TYPES = ("IMAGE",)

    @classmethod
    def INPUT_TYPES(cls):
        """The inputs, as ComfyUI asks for them."""
        return {"required": {"samples": ("LATENT", {}), "vae": ("VAE", {})}}

    def decode(self, samples, vae):
        """(IMAGE [f h w 3],), the batch's frames one after another."""
        images = vae.decode(samples["samples"])
        return (images.flatten(0, 1) if images.ndim == 5 else images,)


class SaveVideo:
    """A video as an MP4 of the output folder."""

    FUNCTION = "save"
    RETURN_TYPES = ("VIDEO",)
    OUTPUT_NODE = True
    ALSO_CALLED = {"format.codec": "codec"}  # newer versions of the node
    LATER = {"format.codec.encoding": ("auto",), "codec.encoding": ("auto",)}

    @classmethod
    def INPUT_TYPES(cls):
        """The inputs, as ComfyUI asks for them."""
        return {
            "required": {
                "video": ("VIDEO", {}),
                "filename_prefix": ("STRING", {"default": "video/ComfyUI"}),
                "format": (["auto", "mp4"], {"default": "auto"}),
            },
            "optional": {"codec": (["auto", "h264"], {"default": "auto"})},
            "hidden": {"prompt": "PROMPT", "extra_pnginfo": "EXTRA_PNGINFO"},
        }

    @classmethod
    def VALIDATE_INPUTS(cls, filename_prefix):
        """True, or why no file of that name can be written."""
        return refusal(filename_prefix) or True

    def save(self, video, filename_prefix, format="auto", codec="auto", prompt=None, extra_pnginfo=None):
        """Writes the file, with the workflow inside; the run tells its name."""
        run = current()
        path = run.new_file(lambda: free_name(run.output_dir, dates.fill(filename_prefix)))
        video.save_to(str(path), format=format, codec=codec, metadata={**(extra_pnginfo or {}), "prompt": prompt})
        run.made(path)
        return (video,)


class SaveImage:
    """Pictures as PNG files of the output folder."""

    FUNCTION = "save"
    RETURN_TYPES = ("IMAGE",)
    OUTPUT_NODE = True

    @classmethod
    def INPUT_TYPES(cls):
        """The inputs, as ComfyUI asks for them."""
        prefix = {"default": "ComfyUI"}
        return {"required": {"images": ("IMAGE", {}), "filename_prefix": ("STRING", prefix)}}

    @classmethod
    def VALIDATE_INPUTS(cls, filename_prefix):
        """True, or why no file of that name can be written."""
        return refusal(filename_prefix, ".png") or True

    def save(self, images, filename_prefix):
        """Writes a file per picture; the run tells their names."""
        from PIL import Image

        run = current()
        for frame in video.to_uint8(images[..., :3]):
            path = run.new_file(lambda: free_name(run.output_dir, dates.fill(filename_prefix), ".png"))
            with replacing(path) as part:
                Image.fromarray(frame).save(part, format="PNG")
            run.made(path)
        return (images,)


def refusal(prefix: str, suffix: str = ".mp4") -> str:
    """Why no file of a prefix can be written into the run's output folder; nothing where one can."""
    run = current()
    try:
        if suffix == ".mp4":
            check_encoder()
        check_folder(inside(run.output_dir if run else Path.cwd(), dates.fill(prefix), ending=COUNT + suffix).parent)
    except ValueError as error:
        return f"filename_prefix: {error}"
    return ""


def free_name(folder: Path, prefix: str, suffix: str = ".mp4") -> Path:
    """folder/prefix_00001_.mp4, counted as ComfyUI counts; makes the folder. ValueError for a name that cannot be."""
    base = inside(folder, prefix, ending=COUNT + suffix)
    base.parent.mkdir(parents=True, exist_ok=True)
    pattern = re.escape(base.name) + r"_(\d+)_?\.\w+"
    used = [int(m[1]) for p in base.parent.iterdir() if (m := re.fullmatch(pattern, p.name))]
    return base.parent / f"{base.name}_{max(used, default=0) + 1:05}_{suffix}"


class PreviewAny:
    """Anything, as text."""

    FUNCTION = "show"
    RETURN_TYPES = ("STRING",)
    OUTPUT_NODE = True

    @classmethod
    def INPUT_TYPES(cls):
        """The inputs, as ComfyUI asks for them."""
        return {"required": {"source": ("*", {})}}

    def show(self, source):
        """Notes the text under the node's title; the run tells it."""
        run = current()
        run.texts[run.title] = str(source)
        return (run.texts[run.title],)


class PreviewImage:
    """Pictures that are shown and not kept."""

    FUNCTION = "show"
    RETURN_TYPES = ("IMAGE",)
    OUTPUT_NODE = True

    @classmethod
    def INPUT_TYPES(cls):
        """The inputs, as ComfyUI asks for them."""
        return {"required": {"images": ("IMAGE", {})}}

    def show(self, images):
        """Notes how many there are under the node's title; the run tells it."""
        run, (count, height, width) = current(), images.shape[:3]
        run.texts[run.title] = f"{count} pictures, {width}x{height}, shown only in ComfyUI; Save Image writes them"
        return (images,)


NODES = {
    kind.__name__: kind
    for kind in (
        *(LoadImage, LoadVideo, LoadAudio, GetVideoComponents, CreateVideo, VAEDecode),
        *(SaveVideo, SaveImage, PreviewAny, PreviewImage),
    )
} | standins_values.NODES
