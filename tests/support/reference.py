"""What the parity tests share: each variant as a tiny random checkpoint, once as diffusers' pipeline and once as ours.

`build` makes the pair from the same weights, `run_oracle` and `run_ours` sample both from the same draws, `compare`
holds every step's latents and the frames against each other. Random weights are float32.
"""

import math
from functools import cache
from typing import NamedTuple

import numpy as np
import torch
from einops import rearrange
from helios_video.helios_core import load
from helios_video.helios_core.noise import Noise
from helios_video.helios_core.pipeline import ChunkDone
from support.chunks import whole

PROMPT, NEGATIVE = "a red circle moving left", "grey"
WIDTH, HEIGHT, SEED = 128, 64, 7
TRANSFORMER = dict(num_attention_heads=2, attention_head_dim=24, rope_dim=(8, 8, 8), ffn_dim=64)
TRANSFORMER |= dict(num_layers=2, text_dim=16, freq_dim=32)
TEXT = dict(vocab_size=64, d_model=16, d_kv=4, d_ff=32, num_layers=1, num_heads=4)
VAE = dict(base_dim=4, dim_mult=[1, 2, 2, 2], num_res_blocks=1)
# Rows of the Cholesky factor at gamma 1/3, for the oracle: its own factorisation fails in float32 on a CPU.
ROWS = (
    (1, 0, 0, 0),
    (-1 / 3, 0.94280904, 0, 0),
    (-1 / 3, -0.47140452, 0.81649658, 0),
    (-1 / 3, -0.47140452, -0.81649658, 0),
)


class Variant(NamedTuple):
    """Class names and options of diffusers; call: how the oracle is run; ours: the same for `Helios.generate`."""

    pipeline: str
    scheduler: str
    schedule: dict
    flags: dict
    call: dict
    ours: dict


VARIANTS = {
    "base": Variant(
        "HeliosPipeline",
        "HeliosScheduler",
        dict(stages=1, stage_range=[0, 1], use_dynamic_shifting=True),
        {},
        dict(guidance_scale=5.0, num_inference_steps=6),
        dict(steps=(6,)),
    ),
    "mid": Variant(
        "HeliosPyramidPipeline",
        "HeliosScheduler",
        dict(use_dynamic_shifting=True),
        dict(is_cfg_zero_star=True),
        dict(guidance_scale=5.0, pyramid_num_inference_steps_list=[4, 3, 3]),
        dict(steps=(4, 3, 3)),
    ),
    "distilled": Variant(
        "HeliosPyramidPipeline",
        "HeliosDMDScheduler",
        dict(use_dynamic_shifting=True, time_shift_type="linear"),
        dict(is_distilled=True),
        dict(guidance_scale=1.0, pyramid_num_inference_steps_list=[2, 2, 2], is_amplify_first_chunk=True),
        {},
    ),
}


def make_tokenizer():
    from tokenizers import Tokenizer, models, pre_tokenizers, processors, trainers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.Unigram())
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    special = ["<pad>", "</s>", "<unk>"]
    trainer = trainers.UnigramTrainer(vocab_size=64, special_tokens=special, unk_token="<unk>", show_progress=False)
    tokenizer.train_from_iterator([PROMPT, NEGATIVE] * 4, trainer)
    tokenizer.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    names = dict(eos_token="</s>", pad_token="<pad>", unk_token="<unk>")
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, **names)


@cache
def make_parts() -> dict:
    """Transformer, VAE, text encoder and tokenizer of all variants."""
    from diffusers import AutoencoderKLWan, HeliosTransformer3DModel
    from transformers import UMT5Config, UMT5EncoderModel

    torch.manual_seed(0)
    transformer = HeliosTransformer3DModel(**TRANSFORMER).eval()
    vae, text = AutoencoderKLWan(**VAE).eval(), UMT5EncoderModel(UMT5Config(**TEXT)).eval()
    for p in (*transformer.parameters(), *text.parameters()):
        p.data += 0.1 * torch.randn_like(p)
    return dict(transformer=transformer, vae=vae, text_encoder=text, tokenizer=make_tokenizer())


def build(name: str, folder, *, flags=None, **schedule):
    """(our model, diffusers pipeline) of a variant, saved into `folder` as published, in several shards.

    flags: replace those of model_index.json. schedule: changes to the scheduler's options.
    """
    import diffusers

    variant = VARIANTS[name]
    scheduler = getattr(diffusers, variant.scheduler)(**{**variant.schedule, **schedule})
    flags = variant.flags if flags is None else flags
    oracle = getattr(diffusers, variant.pipeline)(**make_parts(), scheduler=scheduler, **flags)
    oracle.save_pretrained(folder, max_shard_size="200KB")
    return load(folder), oracle


class Draws:
    """Puts our draws into a diffusers pipeline, in its own layout."""

    def __init__(self, monkeypatch, oracle, seed):
        self.noise, self.chunk, self.stage, self.latents = Noise(seed), -1, 0, []
        monkeypatch.setattr(oracle, "prepare_latents", self.prepare_latents)
        monkeypatch.setattr(oracle, "sample_block_noise", self.sample_block_noise, raising=False)
        oracle.set_progress_bar_config(disable=True)

    def prepare_latents(self, b, c, height, width, num_frames, **_):
        self.chunk, self.stage = self.chunk + 1, 0
        shape = (b, c, (num_frames - 1) // 4 + 1, height // 8, width // 8)
        return torch.from_numpy(self.noise.normal(shape, chunk=self.chunk))

    def sample_block_noise(self, b, c, t, h, w, *_):
        self.stage += 1
        white = torch.from_numpy(self.noise.normal((b, c, t, h, w), chunk=self.chunk, stage=self.stage, use="block"))
        z = rearrange(white, "b c t (h fh) (w fw) -> (b c t h w) (fh fw)", fh=2, fw=2)
        n = (z @ torch.tensor(ROWS).T).view(b, c, t, h // 2, w // 2, 2, 2)
        return n.permute(0, 1, 2, 3, 5, 4, 6).reshape(b, c, t, h, w)

    def on_step(self, pipe, i, t, values):
        self.latents.append((self.chunk, values["latents"]))
        return values


def run_oracle(monkeypatch, oracle, chunks, *, seed=SEED, **options):
    """Latents after every step per chunk, and frames [f h w 3] in [0, 1]. options: of the diffusers pipeline's call."""
    draws = Draws(monkeypatch, oracle, seed)
    frames = oracle(
        PROMPT,
        NEGATIVE,
        height=HEIGHT,
        width=WIDTH,
        num_frames=33 * chunks,
        callback_on_step_end=draws.on_step,
        **options,
    ).frames[0]
    return [[z for chunk, z in draws.latents if chunk == k] for k in range(chunks)], frames


def run_ours(model, chunks, **options):
    """Steps per chunk, and the finished chunks. options: of `Helios.generate`."""
    options = {"width": WIDTH, "height": HEIGHT, "seed": SEED, "frames": 33 * chunks, "negative": NEGATIVE, **options}
    events = list(whole(model.generate(PROMPT, **options)))
    done = [e for e in events if isinstance(e, ChunkDone)]
    steps = [[e for e in events if not isinstance(e, ChunkDone) and e.chunk == d.chunk] for d in done]
    return steps, done


def error(got, want) -> float:
    """Relative error in the L2 norm."""
    return float((got - want).norm() / want.norm())


def psnr(got, want) -> float:
    return -10 * math.log10(float(np.mean((got - want) ** 2)))


def compare(model, want_steps, want_frames, steps, done, tolerance=1e-4) -> float:
    """Every step's latents, then the frames as floats and as bytes. Gives the largest relative error of a latent."""
    errors = []
    for wants, gots in zip(want_steps, steps, strict=True):
        for want, got in zip(wants, gots, strict=True):
            assert got.latent.dtype == torch.float32
            errors.append(error(got.latent, want))
    assert max(errors) <= tolerance
    with torch.inference_mode():
        ours = torch.cat([model.parts.vae.decode(model.denormalise(d.latent)) for d in done], dim=2)[0]
    ours = rearrange(ours, "c f h w -> f h w c").numpy()[: len(want_frames)] / 2 + 0.5
    assert 0.1 < want_frames.std() < 0.3
    assert psnr(ours, want_frames) >= 60
    pixels = np.concatenate([d.frames for d in done])[: len(want_frames)]
    assert np.abs(pixels.astype(int) - np.round(want_frames * 255)).max() <= 1
    return max(errors)
