"""ChunkConcat: a chunk decoded to disk and joined to the video so far."""

from __future__ import annotations

from ..helios_core.join import FRAMES
from . import core, decoders, directing, films, host, kept, live, sockets, watch
from .clip_video import check_whole, video


class ChunkConcat:
    """A chunk, decoded or as frames, onto the clip so far."""

    CATEGORY = "Helios"
    DESCRIPTION = (
        "Adds a chunk to a video. Wire latent and decoder: the chunk is decoded straight into a file, so that a "
        "minute of video takes no more memory than a second, and finished chunks survive a Stop. Or wire images, "
        "for short clips and for other decoders. Chain clip to clip; give the last one's video to Save Video."
    )
    SEARCH_ALIASES = ["helios video", "join chunks", "append video", "video combine", "helios decode"]
    FUNCTION = "append"
    OUTPUT_NODE = host.present()  # so that ComfyUI decodes and shows a chunk before it samples the next
    RETURN_TYPES = (sockets.CLIP, "VIDEO")
    RETURN_NAMES = ("clip", "video")
    OUTPUT_TOOLTIPS = (
        "The video so far as a small handle, for the next chunk's ChunkConcat.",
        "The video so far, for Save Video. Its chunks are joined without encoding again.",
    )

    @classmethod
    def INPUT_TYPES(cls):
        """The inputs, as ComfyUI asks for them."""
        return {
            "required": {
                "fps": ("FLOAT", {"default": 24.0, "min": 1.0, "max": 240.0, "step": 0.001, "tooltip": FPS_TIP}),
            },
            "optional": {
                "clip": (sockets.CLIP, {"tooltip": "The video so far. Left open, a new one begins."}),
                "images": ("IMAGE", {"tooltip": "The chunk's frames. Wire this, or latent and decoder: not both."}),
                "latent": ("LATENT", {"tooltip": "The chunk's latents in raw VAE space. Needs decoder."}),
                "decoder": (sockets.DECODER, {"tooltip": "Decodes latent: the VAE of HeliosLoader or ComfyUI's own."}),
                "boundary": (list(core.join.POLICIES), {"default": "none", "tooltip": BOUNDARY_TIP}),
                "drop_first_frame": ("BOOLEAN", {"default": False, "advanced": True, "tooltip": DROP_TIP}),
                "num_frames": ("INT", {"default": 0, "min": 0, "max": 1_000_000, "tooltip": FRAMES_TIP}),
                "length": (["exact", "published"], {"default": "exact", "advanced": True, "tooltip": LENGTH_TIP}),
                "boundary_frames": (
                    "INT",
                    {"default": FRAMES, "min": 1, "max": 33, "advanced": True, "tooltip": RAMP_TIP},
                ),
            },
        }

    def append(
        self, fps, clip=None, images=None, latent=None, decoder=None, boundary="none", drop_first_frame=False,
        num_frames=0, length="exact", boundary_frames=FRAMES,
    ):  # fmt: skip
        """(HELIOS_CLIP, VIDEO) with the chunk.

        ValueError for frame rates that differ, for a clip whose files are gone, and unless just one way is wired.
        """
        check_way(images, latent, decoder)
        policy = core.join.Boundary(boundary, boundary_frames, drop_first_frame)
        if latent is not None and latent.get(directing.ENDED):
            if clip is None:
                raise ValueError("the score ends the video before its first chunk; let it end later")
            return clip, video(clip, num_frames)
        if clip is not None and clip.fps != core.join.frame_rate(fps):
            raise ValueError(f"fps: the clip so far has {float(clip.fps):g}, this chunk {fps:g}; give both the same")
        if clip is None:
            clip = core.join.Clip.new(host.clip_folder(), fps)
        else:
            check_whole(clip)
        first = CHUNK * len(clip.segments)
        if images is not None:
            clip = clip.append(sockets.image_blocks(images), policy)
            show(clip)
        for made_of, blocks in () if images is not None else decode(latent, decoder, first):
            clip = core.join.append_kept(clip, blocks, policy, made_of=made_of, store=kept.store())
            show(clip, latent.get(films.CHUNK))
        if length == "published":
            num_frames = core.join.published_length(num_frames or clip.num_frames)
        return live.with_chunk(clip, (clip, video(clip, num_frames)))


def show(clip, chunk: int | None = None) -> None:
    """Tells pages of a clip's newest chunk: first that it may be played. chunk: its number in the video, if known."""
    films.grew(clip, chunk)
    watch.show_chunk(clip)


def check_way(images, latent, decoder) -> None:
    """ValueError unless exactly one way in is wired: images, or latent with decoder."""
    wired = [n for n, v in (("images", images), ("latent", latent), ("decoder", decoder)) if v is not None]
    if wired not in (["images"], ["latent", "decoder"]):
        raise ValueError(
            "ChunkConcat: wire either images, or latent and decoder together; wired are " + (", ".join(wired) or "none")
        )


def decode(latent, decoder, first: int = 0):
    """What the frames of each chunk of 9 latent frames depend on, and an iterator over them in uint8 blocks.

    Chunks are encoded and decoded on their own. A decoder that does not say what it is gives None. first: number of the
    first latent in the whole video, by which a decoder that draws noise draws it. ValueError for a batch.
    """
    raw = sockets.samples(latent, "latent", channels=decoder.latent_channels)
    if raw.shape[0] != 1:
        raise ValueError(f"latent: one video at a time, got a batch of {raw.shape[0]}; pick with Latent From Batch")
    bar, known = live.NodeProgress([1] * raw.shape[2]), decoders.identity(decoder)
    for i in range(0, raw.shape[2], CHUNK):
        part = raw[:, :, i : i + CHUNK]
        made_of = known and (known, part, first + i)
        yield made_of, _decode_chunk(part, decoder, bar, i, first)
        bar.update(i + part.shape[2])


def _decode_chunk(raw, decoder, bar, done, first):
    if hasattr(decoder, "blocks"):
        blocks = decoder.blocks(raw, first + done)
    else:
        decode = decoder.decode_tiled if getattr(decoder, "tiled", False) else decoder.decode
        blocks = sockets.image_blocks(decode(raw).flatten(0, 1))
    frames = 0
    for block in blocks:
        frames += len(block)
        # Without a picture: the frontend would go on showing it in place of the chunk that is played.
        bar.update(done + min(raw.shape[2], 1 + (frames - 1) // 4))
        yield block


CHUNK = 9  # latent frames
FPS_TIP = "Pictures per second of the video. Helios was trained at 24. Every chunk of one video must have the same."
BOUNDARY_TIP = (
    "What to do where two chunks meet. none: nothing, frames stay exactly as decoded. match: where brightness or "
    "contrast jumps, the new chunk's first frames are drawn to the frame before. crossfade: the frame before fades out "
    "over them, which blurs what moves. A scene cut is left alone."
)
RAMP_TIP = "How many frames match and crossfade may change, at the start of the new chunk. 6 are a quarter second."
DROP_TIP = "Leaves out a chunk's first frame where it follows another one: 32 frames instead of 33."
LENGTH_TIP = (
    "exact: num_frames. published: what the published pipelines make of it, whole chunks less up to 3 frames, "
    "(33 K - 1) / 4 rounded down, times 4, plus 1."
)
FRAMES_TIP = "Cuts the video output after so many frames. 0 keeps all; the clip output always keeps all."
