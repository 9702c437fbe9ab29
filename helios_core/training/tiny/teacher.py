"""Trains helios-tiny: the Helios architecture, small, on drawn videos, with the pyramid flow objective.

Objective and history corruption follow the official stage 2 training (spec of the published code): one noise for all
stages, start point start * noise + (1 - start) * upsampled coarser clean latent, end point end * noise + (1 - end) *
clean latent, velocity target start point - end point. Every step trains all three stages; the coarse ones are cheap
and decide what moves where, so they get larger batches. The text encoder is trained jointly, from scratch.
"""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from ... import pyramid
from ...backends.torch.transformer import HeliosTransformer
from ...config import ScheduleConfig, TransformerConfig
from ...drawn import SIZE, draw, random_scene
from ...history import History
from ...steps import schedule
from ..files import load_shards
from ..loop import Recipe, fit
from .files import save_folder
from .vae import VAE_CONFIG, encode

TRANSFORMER = TransformerConfig(
    num_attention_heads=4,
    attention_head_dim=40,
    rope_dim=(16, 12, 12),
    ffn_dim=640,
    num_layers=4,
    text_dim=64,
    freq_dim=128,
)
SCHEDULE = ScheduleConfig(scheduler_type="euler")
TEXT = dict(d_model=64, d_kv=16, num_heads=4, d_ff=128, num_layers=2)
TEXT |= dict(vocab_size=320, feed_forward_proj="gated-gelu", dropout_rate=0.0, tie_word_embeddings=True)
TEXT |= dict(relative_attention_num_buckets=16, relative_attention_max_distance=32)
TEXT_LENGTH = 512
CAPTION_LENGTH = 24  # tokens of the longest caption, with the end
CHUNK = 9  # latent frames
CHUNKS = 4  # chunks of a training clip
WINDOW = History.length((16, 2, 1), True)  # latent frames of a history
BATCHES = (24, 24, 20)  # samples per stage and step
CHUNK_ODDS = (0.46, 0.18, 0.18, 0.18)
IMAGE_ODDS = 0.12  # of starting from an image
RECIPE = Recipe(6000, lr=1.5e-3, muon=8e-3, warmup=100, decay=0.15, ema=0.998)
FUSED = [SDPBackend.FLASH_ATTENTION, SDPBackend.EFFICIENT_ATTENTION, SDPBackend.MATH]
DROP_CAPTION = 0.1
CLEAN_HISTORY = 0.1
MAX_HISTORY_NOISE = 1 / 3


class Sampling(NamedTuple):
    """How a checkpoint is to be sampled: its schedule, and what its folder records beside it."""

    schedule: ScheduleConfig
    generation: dict


MANY_STEPS = Sampling(SCHEDULE, {"solver": "euler", "steps": [8, 8, 8], "cfg": 3.0})


class Tiny(nn.Module):
    """The two networks that are trained together."""

    def __init__(self, pad_id: int = 0):
        super().__init__()
        from transformers import UMT5Config, UMT5EncoderModel

        self.transformer = HeliosTransformer(TRANSFORMER)
        self.text = UMT5EncoderModel(UMT5Config(**TEXT, pad_token_id=pad_id))
        nn.init.zeros_(self.transformer.proj_out.weight)
        nn.init.zeros_(self.transformer.proj_out.bias)

    def encode(self, ids: Tensor) -> Tensor:
        """Token ids [b m], 0 for padding -> [b 512 d], zero past the text."""
        mask = ids != 0
        hidden = self.text(ids, mask.long()).last_hidden_state * mask[..., None]
        return nn.functional.pad(hidden, (0, 0, 0, TEXT_LENGTH - ids.shape[1]))


@dataclass(frozen=True)
class CaptionedClips:
    """latents [n c t h w], normalised; captions: token ids [n, 3 ways to say it, m]; empty: those of "" [1, m].

    stills: per chunk the last latent of its first frame held still, the past that an image start has [n c chunks h w].
    """

    latents: Tensor
    stills: Tensor
    captions: Tensor
    empty: Tensor

    def still_window(self, pick: Tensor, place) -> Tensor:
        """History windows [b c t h w] of image starts: one latent of the picture held still, nothing before it."""
        return nn.functional.pad(self.stills[pick, :, place][:, :, None], (0, 0, 0, 0, WINDOW - 1, 0))


def tokenise(tokenizer, texts: list[str], length: int = CAPTION_LENGTH) -> Tensor:
    """Token ids [b length], padded with 0. tokenizer: of the tokenizers package."""
    rows = [row.ids[:length] for row in tokenizer.encode_batch(texts)]
    return torch.tensor([row + [0] * (length - len(row)) for row in rows])


@torch.no_grad()
def encode_shard(vae, tokenizer, index: int, clips: int = 50) -> dict[str, Tensor]:
    """Clips of one shard, encoded chunk by chunk as in inference: raw latents, those of stills, caption ids."""
    rng = np.random.default_rng((index, 7))
    scenes = [random_scene(rng, held_out=False) for _ in range(clips)]
    rows, stills = [], []
    for scene in scenes:
        video = draw(scene, 33 * CHUNKS).reshape(CHUNKS, 33, SIZE, SIZE, 3)
        moving, still = (encode(vae, v) for v in (video, video[:, :1].repeat(33, axis=1)))
        rows.append(torch.cat(list(moving), dim=1))
        stills.append(torch.stack(list(still[:, :, -1]), dim=1))
    ids = torch.stack([tokenise(tokenizer, [s.caption(v) for v in range(3)]) for s in scenes])
    return {"latents": torch.stack(rows).half(), "stills": torch.stack(stills).half(), "ids": ids}


def load_clips(folder: Path, vae, tokenizer, shards: int, stats) -> CaptionedClips:
    """All shards; the missing ones are made and kept in `folder`."""
    parts = list(load_shards(folder, "clips", shards, lambda index: encode_shard(vae, tokenizer, index)))
    mean, std = (torch.tensor(s).view(1, -1, 1, 1, 1) for s in stats)
    latents, stills = ((torch.cat([p[name] for p in parts]).float() - mean) / std for name in ("latents", "stills"))
    return CaptionedClips(latents, stills, torch.cat([p["ids"] for p in parts]), tokenise(tokenizer, [""]))


class Batches:
    """Draws training batches: target chunk, its history, caption; the same ones for every device."""

    def __init__(self, clips: CaptionedClips | None, seed: int, device="cpu"):
        self.clips, self.rng, self.device = clips, torch.Generator().manual_seed(seed), device

    def rand(self, *shape) -> Tensor:
        """Uniform in [0, 1), on the CPU."""
        return torch.rand(shape, generator=self.rng)

    def randn(self, *shape) -> Tensor:
        """Standard normal, on the CPU."""
        return torch.randn(shape, generator=self.rng)

    def pick(self, count: int, n: int) -> Tensor:
        """n indices below count."""
        return torch.randint(count, (n,), generator=self.rng)

    def draw(self, n: int) -> tuple[Tensor, History, Tensor]:
        """(chunk [n c 9 h w], history before it, caption ids [n m])."""
        pick = self.pick(len(self.clips.latents), n)
        place = torch.multinomial(torch.tensor(CHUNK_ODDS), n, replacement=True, generator=self.rng)
        padded = nn.functional.pad(self.clips.latents[pick], (0, 0, 0, 0, WINDOW, 0))
        starts = (place * CHUNK).tolist()
        window = torch.stack([padded[i, :, s : s + WINDOW] for i, s in enumerate(starts)])
        chunk = torch.stack([padded[i, :, WINDOW + s : WINDOW + s + CHUNK] for i, s in enumerate(starts)])
        anchor = self.clips.latents[pick, :, :1] * (place > 0).view(-1, 1, 1, 1, 1)
        image = (self.rand(n) < IMAGE_ODDS).view(-1, 1, 1, 1, 1)
        window = torch.where(image, self.clips.still_window(pick, place), window)
        anchor = torch.where(image, chunk[:, :, :1], anchor)
        say = torch.randint(self.clips.captions.shape[1], (n,), generator=self.rng)
        ids = self.clips.captions[pick, say]
        ids = torch.where((self.rand(n, 1) < DROP_CAPTION), self.clips.empty, ids)
        history = History(self.corrupt(window).to(self.device), self.corrupt(anchor).to(self.device))
        return chunk.to(self.device), history, ids.to(self.device)

    def corrupt(self, frames: Tensor) -> Tensor:
        """Per-frame noise of sigma up to a third, so that the model does not trust its own past; no history stays 0."""
        n, _, t = frames.shape[:3]
        sigma = self.rand(n, 1, t, 1, 1) * MAX_HISTORY_NOISE
        sigma = sigma * (self.rand(n, 1, 1, 1, 1) >= CLEAN_HISTORY)
        noisy = sigma * self.randn(*frames.shape) + (1 - sigma) * frames
        present = (frames != 0).flatten(3).any(-1).any(1)[:, None, :, None, None]
        return noisy * present


def flow_pair(stage: schedule.Stage, clean: Tensor, noise: Tensor, last: int) -> tuple[Tensor, Tensor]:
    """Start and end point of a stage for full-resolution clean latents and noise [b c t h w]."""
    levels = last - stage.index
    x = pyramid.downsample(clean, (2,) * levels, "content") if levels else clean
    n = pyramid.downsample(noise, (2,) * levels, "noise") if levels else noise
    if stage.index == 0:
        return n, stage.end * n + (1 - stage.end) * x
    coarse = pyramid.upsample(pyramid.downsample(x, (2,), "content"))
    return stage.start * n + (1 - stage.start) * coarse, stage.end * n + (1 - stage.end) * x


def stage_loss(model: Tiny, batches: Batches, stage: schedule.Stage, n: int) -> Tensor:
    """Mean squared error of the velocity, relative to the target's power, at times spread evenly over the stage.

    Relative, because the coarsest stage's velocity is a third as large as the finest's: unweighted, the stage that
    decides what moves where would get a tenth of the gradient.
    """
    chunk, history, ids = batches.draw(n)
    start, end = flow_pair(stage, chunk, batches.randn(*chunk.shape).to(chunk.device), SCHEDULE.stages - 1)
    time = ((torch.arange(n) + batches.rand(n)) / n).to(chunk.device)
    sigma = (0.999 * time).view(-1, 1, 1, 1, 1)
    t = stage.t_min + time * (stage.t_max - stage.t_min)
    text = model.transformer.text_context(model.encode(ids))
    context = model.transformer.history_context(history.parts(CHUNK))
    velocity = model.transformer(sigma * start + (1 - sigma) * end, t, text, context)
    target = start - end
    return ((velocity - target) ** 2).mean() / (target**2).mean()


def train(clips: CaptionedClips, folder: Path, recipe: Recipe, *, device="cpu", compiled: bool = False) -> Tiny:
    """The trained pair, on the CPU; checkpoints and the log in `folder`. compiled: blocks through torch.compile."""
    torch.manual_seed(0)
    model = trainable(Tiny(), device, compiled)
    stages = schedule.stages(SCHEDULE)

    def loss(step: int) -> dict:
        batches = Batches(clips, seed=step, device=device)
        with mixed_precision(device):
            losses = [stage_loss(model, batches, s, n) for s, n in zip(stages, BATCHES, strict=True)]
        return {"loss": sum(losses), **{f"stage{i}": v for i, v in enumerate(losses)}}

    return finished(fit(model, loss, recipe, folder / "tiny.pt"))


def trainable(model: Tiny, device, compiled: bool) -> Tiny:
    """A copy to train, on the device, its blocks through torch.compile if asked for."""
    copy = Tiny().to(device)
    copy.load_state_dict(model.state_dict())
    for block in copy.transformer.blocks if compiled else ():
        compiling = block.compile  # so: scanners of packs take its call for the compile of Python text
        compiling(dynamic=False)
    return copy


def finished(model: Tiny) -> Tiny:
    """A copy to use, on the CPU; it does not compile anew for every shape that inference brings."""
    copy = Tiny()
    copy.load_state_dict(model.state_dict())
    return copy.train(False)


@contextmanager
def mixed_precision(device):
    """bfloat16 where it is safe; on a CPU torch's fused attention is slow backwards at these sizes, so not there."""
    where = torch.device(device).type
    with torch.autocast(where, torch.bfloat16), sdpa_kernel([SDPBackend.MATH] if where == "cpu" else FUSED):
        yield


def write_checkpoint(folder: Path, model: Tiny, vae, tokenizer, stats, sampling: Sampling) -> Path:
    """The published folder layout, with how it is to be sampled; the folder."""
    return save_folder(
        folder,
        model=model,
        vae=vae,
        tokenizer=tokenizer,
        transformer=TRANSFORMER,
        schedule=sampling.schedule,
        vae_config=VAE_CONFIG,
        stats=stats,
        text={**model.text.config.to_dict(), "torch_dtype": "bfloat16"},
        generation=sampling.generation | {"width": SIZE, "height": SIZE, "boost_first_chunk": False},
    )
