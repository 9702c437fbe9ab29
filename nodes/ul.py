"""Unified Latents: HeliosULLoader, HeliosULEncode and ULDecoder."""

from __future__ import annotations

import logging

import numpy as np

from . import core, decoders, host, live, managed, seeds, sockets

DECODER = "UL_DECODER"
logger = logging.getLogger(__name__)


class ULCodec:
    """UL_DECODER: the core's model, the VAE whose frames it looks at, and what ChunkConcat asks of a decoder."""

    def __init__(self, model, vae=None):
        self.model, self.vae, self.latent_channels = model, vae, model.config.latent_channels

    def decode(self, raw):
        """Raw latents [b c t h w] of one chunk -> images [b f h w 3] in [0, 1], in one step."""
        raw = sockets.tensor(raw)
        return images(self.model.decode(raw.numpy(), pixels=self.frames(raw)))

    @property
    def identity(self) -> tuple | None:
        """What decoded frames depend on beside the latents; None beside a VAE that does not say what it is."""
        beside = None if self.vae is None else decoders.identity(self.vae)
        return None if self.vae is not None and beside is None else (self.model.identity, beside)

    def blocks(self, raw, first: int = 0):
        """For a file: blocks of uint8 frames [f h w 3] of raw latents [b c t h w], in one step, the batch's first only.

        first: number of the first latent in the whole video, by which the noise goes.
        """
        raw = sockets.tensor(raw)[:1]
        clip = core.unified.CLIP if self.model.config.causal else raw.shape[2]
        for i in range(0, raw.shape[2], clip):
            part = raw[:, :, i : i + clip]
            yield from self.model.blocks(part.numpy(), pixels=self.frames(part), first=first + i)

    def frames(self, raw, vae=None, clip: int = 9) -> np.ndarray | None:
        """The VAE's of raw latents, [b 3 f h w] in [-1, 1]; None without one."""
        vae, config = vae or self.vae, self.model.config
        if vae is not None:
            check_vae(vae, config)
            return other_frames(vae, raw, clip if clip and config.causal else raw.shape[2])
        if config.with_pixels:
            logger.warning("this decoder of %r is better where it sees the frames of that VAE: wire it", config.space)
        return None


def images(frames: np.ndarray):
    """[b 3 f h w] in [-1, 1] -> torch [b f h w 3] in [0, 1]."""
    return sockets.tensor((np.moveaxis(frames, 1, -1) + 1) / 2).clamp(0, 1)


class HeliosULLoader:
    """A diffusion decoder."""

    CATEGORY = "Helios"
    DESCRIPTION = (
        "Loads a diffusion decoder: of Unified Latents, or of another VAE's latents that it was trained for. Two "
        "come with the pack; helios train ul and ul-decoder make others."
    )
    SEARCH_ALIASES = ["unified latents", "diffusion decoder", "load ul", "ul model", "load decoder"]
    FUNCTION = "load"
    RETURN_TYPES = (DECODER,)
    RETURN_NAMES = ("decoder",)
    OUTPUT_TOOLTIPS = ("The trained decoder, and encoder if the file has one, for ULDecoder and Helios UL Encode.",)

    @classmethod
    def INPUT_TYPES(cls):
        """The inputs, as ComfyUI asks for them."""
        names = list(dict.fromkeys([*core.unified.SHIPPED, *host.file_names("vae")]))
        return {
            "required": {"file": (names, {"default": names[0], "tooltip": FILE_TIP})},
            "optional": {
                "backend": (list(core.devices.BACKENDS), {"tooltip": BACKEND_TIP}),
                "vae": ("VAE", {"tooltip": LOOKED_AT_TIP}),
            },
        }

    @classmethod
    def IS_CHANGED(cls, file, **_):
        """The file's size and date: a file that was written anew is read anew."""
        place = core.unified.SHIPPED.get(file) or host.part_path("vae", file)
        return host.file_stamp(place) if place.is_file() else ""

    def load(self, file, backend="auto", vae=None):
        """(UL_DECODER,); its weights load when it is first used."""
        place = file if file in core.unified.SHIPPED else host.part_path("vae", file)
        model = core.unified.Unified.load(place, backend=backend)
        managed.adopt_codec(model)
        if vae is not None:
            check_vae(vae, model.config)
        return (ULCodec(model, vae),)


class HeliosULEncode:
    """Frames as Unified Latents."""

    CATEGORY = "Helios"
    DESCRIPTION = (
        "Encodes images or a video into Unified Latents, with the encoder that was trained together with the decoder. "
        "Nothing is drawn: the latents are clean, and ULDecoder adds the noise that its decoder expects."
    )
    SEARCH_ALIASES = ["unified latents", "ul encode", "encode latent"]
    FUNCTION = "encode"
    RETURN_TYPES = ("LATENT",)
    RETURN_NAMES = ("latent",)
    OUTPUT_TOOLTIPS = ("The clean latents, for ULDecoder with the same decoder.",)

    @classmethod
    def INPUT_TYPES(cls):
        """The inputs, as ComfyUI asks for them."""
        return {
            "required": {
                "images": ("IMAGE", {"tooltip": ENCODE_TIP}),
                "decoder": (DECODER, {"tooltip": "From Helios UL Loader; its file must hold an encoder."}),
            },
        }

    def encode(self, images, decoder):
        """(LATENT,), clean. ValueError for fewer frames or pixels than a latent has."""
        config = decoder.model.config
        time, space = config.stride
        frames = sockets.tensor(images[..., :3]).numpy()
        count = (len(frames) - 1) // time * time + 1 if config.causal else len(frames) // time * time
        h, w = (size // space * space for size in frames.shape[1:3])
        if not count or not h or not w:
            size = f"{len(frames)} frames of {frames.shape[2]}x{frames.shape[1]}"
            raise ValueError(f"images: {size} are too few or too small; {time} frames of {space}x{space} are the least")
        top, left = (frames.shape[1] - h) // 2, (frames.shape[2] - w) // 2
        part = np.moveaxis(frames[None, :count, top : top + h, left : left + w] * 2 - 1, -1, 1)
        return ({"samples": sockets.tensor(decoder.model.encode(part)), "ul_space": config.space},)


class ULDecoder(seeds.SeededNode):
    """Latents as frames, by diffusion."""

    CATEGORY = "Helios"
    DESCRIPTION = (
        "Decodes latents by diffusion (Unified Latents): what the latents do not say is invented, not averaged. One "
        "step gives the most faithful picture, more steps more detail. Wire the ordinary VAE too, and decoding starts "
        "from its picture. In chunks, in tiles or whole, the same seed gives the same frames."
    )
    SEARCH_ALIASES = ["unified latents", "ul decode", "diffusion decoder", "vae decode", "latent to image", "detail"]
    FUNCTION = "decode"
    RETURN_TYPES = ("IMAGE",)
    RETURN_NAMES = ("image",)
    OUTPUT_TOOLTIPS = ("The frames, for ChunkConcat, Save Image or Create Video.",)

    @classmethod
    def INPUT_TYPES(cls):
        """The inputs, as ComfyUI asks for them."""
        from ..helios_core.ul import MAX_STEPS

        clip = {"default": core.unified.CLIP, "min": 0, "max": 4096, "advanced": True, "tooltip": CLIP_TIP}
        return {
            "required": {
                "latent": ("LATENT", {"tooltip": "Of the latent space that the decoder was trained for, in raw form."}),
                "decoder": (DECODER, {"tooltip": "From Helios UL Loader."}),
                "seed": seeds.widget(SEED_TIP),
                "steps": ("INT", {"default": 1, "min": 1, "max": MAX_STEPS, "tooltip": STEPS_TIP}),
            },
            "optional": {
                "vae": ("VAE", {"tooltip": VAE_TIP}),
                "latent_noise": ("FLOAT", {"default": 5.0, "min": 0.0, "max": 12.0, "step": 0.1, "tooltip": NOISE_TIP}),
                "start": ("FLOAT", {"default": -1.0, "min": -10.0, "max": 8.0, "step": 0.1, "tooltip": START_TIP}),
                "clip_latents": ("INT", clip),
                "tile": ("INT", {"default": 0, "min": 0, "max": 512, "advanced": True, "tooltip": TILE_TIP}),
                "first_latent": ("INT", {"default": 0, "min": 0, "max": 1_000_000, "tooltip": FIRST_TIP}),
            },
        }

    def decode(
        self, latent, decoder, seed, steps, vae=None, latent_noise=5.0, start=-1.0, clip_latents=9, tile=0,
        first_latent=0,
    ):  # fmt: skip
        """(IMAGE [f h w 3],)."""
        model = decoder.model
        z = sockets.samples(latent, "latent", channels=model.config.latent_channels)
        check_space(latent, model.config)
        pixels = decoder.frames(z, vae, clip_latents)
        plan = core.unified.DecodePlan(steps, latent_noise, None if pixels is None else start, tile)
        bar, made = None, []
        for step in model.stream(z.numpy(), plan, seed=seed, pixels=pixels, clip=clip_latents, first=first_latent):
            bar = bar or live.NodeProgress([1] * step.total)
            bar.update(step.done)
            if step.frames is not None:
                made.append(images(np.asarray(model.backend.to_cpu(step.frames))))
        import torch

        return (torch.cat(made, dim=1).flatten(0, 1),)


def other_frames(vae, z, clip: int) -> np.ndarray:
    """A VAE's frames of raw latents, [b 3 f h w] in [-1, 1], every clip decoded on its own."""
    return np.concatenate([clip_frames(vae, z[:, :, i : i + clip]) for i in range(0, z.shape[2], clip)], axis=2)


def clip_frames(vae, z) -> np.ndarray:
    """One clip's frames [b 3 f h w] in [-1, 1]: the pack's own VAE makes them so, ComfyUI's gives images."""
    if not isinstance(vae, sockets.VAESocket):
        return np.moveaxis(sockets.tensor(vae.decode(z)).numpy(), -1, 1) * 2 - 1
    helios, backend = vae.helios, vae.helios.backend
    blocks = backend.decode_blocks(vae.ready(*helios.pixels(z)), z)
    return np.concatenate([np.asarray(backend.to_cpu(block)) for block in blocks], axis=2)


def check_space(latent, config) -> None:
    """ValueError where latent and decoder are seen to be of different latent spaces."""
    space = latent.get("ul_space")
    if space not in (None, config.space):
        raise ValueError(f"latent: of the latent space {space!r}, the decoder is of {config.space!r}; take its own")


def check_vae(vae, config) -> None:
    """ValueError where VAE and decoder are seen to be of different latent spaces."""
    if isinstance(vae, sockets.VAESocket) and not same_space(vae.helios.config.vae.latents_mean, config.latents_mean):
        raise ValueError(
            f"vae: its latents are not those of {config.space!r} that the decoder was trained for; take the VAE of "
            "that model, or leave the input open"
        )


def same_space(ours, theirs) -> bool:
    """Whether the latents' means per channel are the same numbers; of a decoder that names none, never."""
    return len(ours) == len(theirs) and all(abs(a - b) < 1e-3 for a, b in zip(ours, theirs))


FILE_TIP = (
    "helios-tiny decodes its latents; photos encodes and decodes pictures. Or a file in models/vae that helios train "
    "ul or ul-decoder wrote."
)
BACKEND_TIP = "What computes: torch, or MLX on a Mac with Apple silicon. The same seed gives the same noise on both."
ENCODE_TIP = "Cropped about the centre to whole latents; of a video the last frames that fill none are left out."
SEED_TIP = "Of the noise that the frames grow from; keyed by frame, so that chunks and tiles do not change it."
STEPS_TIP = "1: the mean of all pictures that fit, the most faithful and quickest. 4 to 20: one of them, with detail."
VAE_TIP = (
    "The ordinary VAE of these latents: decoding starts from its picture, and a decoder that can looks at it. Open: "
    "the loader's, if one is wired there."
)
LOOKED_AT_TIP = "The VAE of these latents, for a decoder that adds to what that one shows, as helios-tiny's does."
NOISE_TIP = (
    "How cleanly the decoder takes the latents, as log signal-to-noise: 5 as trained; lower invents more and hides "
    "faults of the sampler; 7 and more is faithful."
)
START_TIP = "With a VAE wired: how much of its picture is kept. -10: none, -1: its layout, 2: all but fine detail."
CLIP_TIP = "Latents that were encoded together: 9 for a chunk of Helios, 0 for one long clip, such as Wan's."
FIRST_TIP = "Where this latent begins in the whole video, in latents: 9 for the second chunk. The noise goes by it."
TILE_TIP = "Latents to a side of the tiles that are decoded one by one, for less memory and the same picture. 0: whole."
