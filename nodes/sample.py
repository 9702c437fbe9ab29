"""DMDPyramidSample: one chunk, from noise to latents, up the resolution pyramid."""

from __future__ import annotations

from dataclasses import replace

from . import batches, core, directing, engine, films, kept, live, marks, place, runs, seeds, sockets


class DMDPyramidSample(seeds.SeededNode):
    """A history's next chunk."""

    CATEGORY = "Helios"
    DESCRIPTION = (
        "Samples the next chunk of the video, 9 latent frames or 33 pictures, coarse to fine, and appends it to the "
        "history. Chain one per chunk: history to history. Which chunk it is follows from the history, so the same "
        "seed serves them all, and a finished chunk is not sampled again when a later one changes."
    )
    SEARCH_ALIASES = ["helios sampler", "helios ksampler", "dmd", "text to video"]
    FUNCTION = "sample"
    RETURN_TYPES = ("LATENT", sockets.HISTORY)
    RETURN_NAMES = ("latent", "history")
    OUTPUT_TOOLTIPS = (
        "The chunk's latents in raw VAE space, for ChunkConcat or ComfyUI's VAE Decode.",
        "The history with this chunk appended, for the next chunk.",
    )

    @classmethod
    def INPUT_TYPES(cls):
        """The inputs, as ComfyUI asks for them."""
        return {
            "required": {
                "model": (sockets.MODEL, {"tooltip": "The model of HeliosLoader."}),
                "positive": ("CONDITIONING", {"tooltip": "What the chunk shows: T5Encode or HeliosPromptSchedule."}),
                "history": (sockets.HISTORY, {"tooltip": "HistoryMemory's, or that of the chunk before."}),
                "seed": seeds.widget(SEED_TIP),
                "steps": ("STRING", {"default": "auto", "tooltip": STEPS_TIP}),
            },
            "optional": {
                "negative": ("CONDITIONING", {"tooltip": NEGATIVE_TIP}),
                "latent": ("LATENT", {"tooltip": LATENT_TIP}),
                "cfg": ("FLOAT", {"default": 0.0, "min": 0.0, "max": 30.0, "step": 0.1, "tooltip": CFG_TIP}),
                "solver": (
                    ["auto", *core.config.SOLVERS],
                    {"default": "auto", "advanced": True, "tooltip": SOLVER_TIP},
                ),
                "boost_first_chunk": ("BOOLEAN", {"default": True, "advanced": True, "tooltip": BOOST_TIP}),
                "shift_tokens": (
                    list(core.config.SHIFT_TOKENS),
                    {"default": core.config.SHIFT_TOKENS[0], "advanced": True, "tooltip": SHIFT_TIP},
                ),
                "guidance": (
                    ["auto", *core.config.GUIDANCE],
                    {"default": "auto", "advanced": True, "tooltip": GUIDANCE_TIP},
                ),
                "zero_steps": ("INT", {"default": -1, "min": -1, "max": 100, "advanced": True, "tooltip": ZERO_TIP}),
                "shift_clamp": ("BOOLEAN", {"default": False, "advanced": True, "tooltip": CLAMP_TIP}),
            },
            "hidden": {"extra_pnginfo": "EXTRA_PNGINFO"},
        }

    def sample(
        self, model, positive, history, seed, steps, negative=None, latent=None, cfg=0.0, solver="auto",
        boost_first_chunk=True, shift_tokens="before upsample", guidance="auto", zero_steps=-1, shift_clamp=False,
        extra_pnginfo=None,
    ):  # fmt: skip
        """(LATENT of the chunk, HELIOS_HISTORY with it appended)."""
        vae, model = engine.vae_of(model), engine.pipeline(model)
        index, width = history.history.chunk, model.config.transformer.text_dim
        check_inputs(positive, negative, latent, history)
        place.forget_finished()
        turn = runs.ask(sockets.schedule(positive), index, extra_pnginfo)
        given = directing.direction(turn.schedule, index)
        if given.end:
            return directing.ended(history, given)
        text = sockets.embedding(positive, "positive", width=width, chunk=index, live=turn.schedule)
        core.text.check_prompt(positive[0][1].get("helios_prompt", "unknown"), "positive")
        plan = dict(
            steps=own_steps(steps, model.config.schedule.stages),
            cfg=cfg if given.cfg is None else given.cfg,
            solver=solver,
            boost_first_chunk=boost_first_chunk,
            shift_tokens=shift_tokens,
            guidance=guidance,
            zero_steps=None if zero_steps < 0 else zero_steps,
            shift_clamp=shift_clamp,
        )
        options = dict(
            seed=seed if given.seed is None else given.seed,
            negative=None if negative is None else sockets.embedding(negative, "negative", width=width, chunk=index),
            start=None if latent is None else sockets.samples(latent, "latent"),
        )
        chunk, past = make_chunk(model, vae, history.history, given, text, plan, options)
        turn.done()
        later = replace(history, history=past).append(chunk, given)
        return {"samples": sockets.tensor(model.denormalise(chunk)), films.CHUNK: index}, later


def own_steps(text: str, stages: int) -> tuple[int, ...] | None:
    """The steps widget; None where it leaves them to the checkpoint."""
    return None if text.strip() in ("", "auto") else core.steps.parse_steps(text, stages)


def check_inputs(positive, negative, latent, history) -> None:
    """ValueError for what would be ignored, and for a batch that is too large."""
    marks.check_conditioning(positive, "positive")
    marks.check_conditioning(negative, "negative")
    marks.check_latent(latent, "latent")
    directing.refuse_settings(negative)
    batches.check_batch(history.history.shape[0], "history")


def make_chunk(model, vae, history, given, text, plan: dict, options: dict):
    """(Latents of the history's next chunk, sampled or found again; the history that it is put behind)."""
    past, seen = core.generate.directed(
        model, history, given, seed=options["seed"], picture=directing.read_picture, encode=sockets.encoder(vae)
    )
    costs, later = (core.steps.plan_chunk(model.config, past.chunk + k, past.began, **plan).costs for k in (0, 1))
    bar = live.NodeProgress(costs, sum(later))

    def run():
        return follow(model.sample(seen, text, **options, **plan), bar, live.previewer(model))

    def show(chunk):
        preview = live.previewer(model)
        bar.whole(preview and preview(chunk))

    key = core.generate.chunk_key(model, seen, text, **options, **plan)
    return kept.recall(key, run, model.backend.array, show), past


def follow(events, bar, preview):
    """Runs a chunk's steps to the end and shows them; the last step's latent."""
    step = None
    for step in events:
        bar.update(step.index + 1, preview and preview(step.x0))
    return step.latent


SEED_TIP = "0 to 2^64 - 1. Each chunk draws its own noise from it, so every chunk of a video may share one seed."
STEPS_TIP = "Steps per stage of the pyramid, coarse to fine, such as 2,2,2. auto: what the checkpoint was made for."
NEGATIVE_TIP = "What to keep away from. Used only with guidance (cfg above 1); left open, an empty prompt is used."
LATENT_TIP = "The coarsest start, HeliosNoise through PyramidDownsample, used as it is. Left open: drawn from the seed."
CFG_TIP = "Strength of the prompt; above 1 each step costs two passes. 0 takes the checkpoint's own, 1 is no guidance."
SOLVER_TIP = "auto: the checkpoint's own. dmd is for distilled checkpoints, unipc and euler for the others."
BOOST_TIP = "Twice the steps for the very first chunk, where distilled checkpoints need them. Others take no notice."
SHIFT_TIP = "Which size counts when a stage's steps are laid out. The published pipelines count before the upsample."
GUIDANCE_TIP = "How cfg steers: plainly, or by CFG-Zero*. auto: the checkpoint's own; Base has cfg, Mid cfg_zero_star."
ZERO_TIP = "For cfg_zero_star: how many first steps keep the start as it is, at no cost. -1: the checkpoint's own, 2."
CLAMP_TIP = "Bounds the exponential shift of the steps at 7, as in training. Only matters above 384x640."
