"""HistoryMemory, HeliosSaveHistory, HeliosLoadHistory: what the model remembers, made, kept and taken up again."""

from __future__ import annotations

from ..helios_core.workflow import dates
from . import batches, core, engine, host, managed, marks, seeds, sockets


class HistoryMemory(seeds.SeededNode):
    """The history before a video's first chunk."""

    CATEGORY = "Helios"
    DESCRIPTION = (
        "Starts the memory that carries a video from chunk to chunk. With nothing wired in it is empty, for text to "
        "video. Wire an image to begin with it, a video to go on from its end, or latents to continue them."
    )
    SEARCH_ALIASES = ["helios history", "helios size", "text to video", "image to video", "video to video", "i2v v2v"]
    FUNCTION = "start"
    RETURN_TYPES = (sockets.HISTORY,)
    RETURN_NAMES = ("history",)
    OUTPUT_TOOLTIPS = ("The memory before the first chunk, for HeliosNoise and DMDPyramidSample.",)

    @classmethod
    def INPUT_TYPES(cls):
        """The inputs, as ComfyUI asks for them."""
        size = {"default": 0, "min": 0, "max": 16384, "step": 16}
        sigma = {"min": 0.0, "max": 1.0, "step": 0.001, "round": 0.001, "advanced": True}
        return {
            "required": {
                "model": (sockets.MODEL, {"tooltip": "The model of HeliosLoader."}),
                "width": ("INT", {**size, "tooltip": "Pixels. " + SIZE_TIP}),
                "height": ("INT", {**size, "tooltip": "Pixels. " + SIZE_TIP}),
            },
            "optional": {
                "image": ("IMAGE", {"tooltip": "One picture to begin with: image to video. " + FIT_TIP}),
                "video": ("IMAGE", {"tooltip": "33 frames or more to go on from: video to video. " + FIT_TIP}),
                "latent": ("LATENT", {"tooltip": LATENT_TIP}),
                "vae": ("VAE", {"tooltip": VAE_TIP}),
                "history_sizes": ("STRING", {"default": "16,2,1", "advanced": True, "tooltip": SIZES_TIP}),
                "keep_first_frame": ("BOOLEAN", {"default": True, "advanced": True, "tooltip": KEEP_TIP}),
                "noise_sigma_min": ("FLOAT", {**sigma, "default": 0.111, "tooltip": "Least " + SIGMA_TIP}),
                "noise_sigma_max": ("FLOAT", {**sigma, "default": 0.135, "tooltip": "Most " + SIGMA_TIP}),
                "seed": seeds.widget(SEED_TIP),
                "posterior": (
                    list(core.history.POSTERIORS),
                    {"default": core.history.POSTERIORS[0], "advanced": True, "tooltip": POSTERIOR_TIP},
                ),
                "skip_first_chunk": ("BOOLEAN", {"default": False, "advanced": True, "tooltip": SKIP_TIP}),
                "batch_size": ("INT", {"default": 1, "min": 1, "max": 64, "advanced": True, "tooltip": BATCH_TIP}),
            },
        }

    def start(
        self, model, width, height, image=None, video=None, latent=None, vae=None, history_sizes="16,2,1",
        keep_first_frame=True, noise_sigma_min=0.111, noise_sigma_max=0.135, seed=0, posterior="sample",
        skip_first_chunk=False, batch_size=1,
    ):  # fmt: skip
        """(HELIOS_HISTORY,): empty, or begun by the one input that is wired."""
        batches.check_batch(batch_size, "batch_size")
        vae = engine.vae_of(model) if vae is None else vae
        model = engine.pipeline(model)
        defaults = model.config.defaults
        own = (defaults.width, defaults.height)
        if latent is not None:
            marks.check_latent(latent, "latent")
            raw, scale = sockets.samples(latent, "latent", channels=model.config.vae.z_dim), sockets.scale(model)
            latent, own = model.normalise(model.backend.array(raw)), (raw.shape[4] * scale, raw.shape[3] * scale)
        size = (width or own[0], height or own[1])
        if size != (defaults.width, defaults.height):
            managed.log_needs(model, *size)
        history = model.history(
            *size,
            sizes=core.history.parse_sizes(history_sizes),
            keep_first_frame=keep_first_frame,
            skip_first_chunk=skip_first_chunk,
            batch=batch_size,
            image=image,
            video=video,
            latent=latent,
            encode=sockets.encoder(vae),
            posterior=posterior,
            noise_sigma=(noise_sigma_min, noise_sigma_max),
            seed=seed,
        )
        return (sockets.HistorySocket.of(history, model),)


class HeliosSaveHistory:
    """A history as a file, to go on from later."""

    CATEGORY = "Helios"
    DESCRIPTION = (
        "Keeps a run in a file of ComfyUI's output folder: what the model remembers after a chunk, and the seed. "
        "HeliosLoadHistory takes it up again, another day or on another machine, exactly as if it had never stopped."
    )
    SEARCH_ALIASES = ["helios save", "save run", "checkpoint video", "continue later"]
    FUNCTION = "save"
    OUTPUT_NODE = True
    RETURN_TYPES = ("STRING",)
    RETURN_NAMES = ("file",)
    OUTPUT_TOOLTIPS = ("The file's name in the output folder, for HeliosLoadHistory.",)

    @classmethod
    def INPUT_TYPES(cls):
        """The inputs, as ComfyUI asks for them."""
        return {
            "required": {
                "model": (sockets.MODEL, {"tooltip": "The model that made the history."}),
                "history": (sockets.HISTORY, {"tooltip": "DMDPyramidSample's, after the last chunk to keep."}),
                "filename_prefix": ("STRING", {"default": "helios/run", "tooltip": PREFIX_TIP}),
            },
            "optional": {
                "seed": seeds.widget(KEPT_SEED_TIP),
            },
        }

    @classmethod
    def VALIDATE_INPUTS(cls, filename_prefix="helios/run", seed=0):
        """True, or why no file can have that name, or the seed is refused."""
        named = filename_prefix is not None  # else it comes over a wire
        return (named and _refusal(dates.fill(filename_prefix))) or seeds.refusal(seed) or True

    def save(self, model, history, filename_prefix, seed=0):
        """(The file's name,), written. ValueError for a name that no file can have."""
        filename_prefix = dates.fill(filename_prefix)
        if refusal := _refusal(filename_prefix):
            raise ValueError(refusal)
        model = engine.pipeline(model)
        path, name = host.new_output(filename_prefix, core.history.saved.SUFFIX)
        core.history.saved.write(path, history.history, seed=seed, config=model.config)
        host.made(path)
        return {"ui": {"text": [name]}, "result": (name,)}


class HeliosLoadHistory:
    """A saved history."""

    CATEGORY = "Helios"
    DESCRIPTION = (
        "Takes up a run that HeliosSaveHistory kept. The next chunk comes out as it would have without the pause, bit "
        "for bit with the same model, prompt and settings."
    )
    SEARCH_ALIASES = ["helios load", "load run", "resume", "continue video"]
    FUNCTION = "load"
    RETURN_TYPES = (sockets.HISTORY, "INT")
    RETURN_NAMES = ("history", "seed")
    OUTPUT_TOOLTIPS = ("The memory to go on with, for DMDPyramidSample.", "The run's seed, for DMDPyramidSample.")

    @classmethod
    def INPUT_TYPES(cls):
        """The inputs, as ComfyUI asks for them."""
        return {
            "required": {
                "model": (sockets.MODEL, {"tooltip": "The model the run was made with; another's is refused."}),
                "file": ("STRING", {"default": "helios/run_00001_.safetensors", "tooltip": FILE_TIP}),
            },
        }

    @classmethod
    def VALIDATE_INPUTS(cls, file=None):
        """True, or that there is no such file."""
        try:
            return bool(file is None or host.find_saved(file))
        except ValueError as error:
            return str(error)

    @classmethod
    def IS_CHANGED(cls, file=None, **_):
        """The file's size and date: a file that was written anew is read anew."""
        facts = host.find_saved(file).stat() if file else None
        return facts and f"{facts.st_size} {facts.st_mtime_ns}"

    def load(self, model, file):
        """(HELIOS_HISTORY, INT seed) of the file."""
        model = engine.pipeline(model)
        history, seed = core.history.saved.read(host.find_saved(file), model.config, model.backend.array)
        return sockets.HistorySocket.of(history, model), seed


def _refusal(prefix: str) -> str:
    """Why a prefix is refused, or nothing."""
    try:
        core.history.saved.inside(host.output_folder(), prefix)
    except ValueError as error:
        return str(error)
    return ""


SIZE_TIP = (
    "0 takes the latent's size where one is wired, else the size the checkpoint was made for. A size that the pyramid "
    "cannot halve is refused, not rounded."
)
FIT_TIP = "Another size is cropped about the centre to the video's proportions and resized. Wire one of the three."
LATENT_TIP = (
    "Latents to continue, in raw VAE space: whole chunks of 9 frames, as DMDPyramidSample gives them. Needs no noise."
)
VAE_TIP = "Encodes image or video. Left open: the model's own VAE. ComfyUI's own gives the posterior's mean only."
SIZES_TIP = "Latent frames remembered, far to near: long, mid and short term. The published checkpoints know 16,2,1."
KEEP_TIP = "Keeps the video's first frame in sight of every chunk, which holds colours and subject together."
SIGMA_TIP = "noise mixed into an image or video to start from; text and latents need none. 0 and 0 mixes in none."
SEED_TIP = "Seed of that noise. Text to video does not use it."
POSTERIOR_TIP = "What is taken of the VAE's answer to an image or video: a draw, as published, or the mean."
SKIP_TIP = "Lets the second chunk's first frame take the place of the first frame kept. Helps a still start."
BATCH_TIP = "Videos at once from the same start. Of seed s they are what the seeds s, s + 1, s + 2 ... give alone."
PREFIX_TIP = "Where in the output folder, and the beginning of the file's name; a number is added."
KEPT_SEED_TIP = "The run's seed, kept in the file: wire in what DMDPyramidSample has."
FILE_TIP = "A file of HeliosSaveHistory, in ComfyUI's output folder or else its input folder, such as the default."
