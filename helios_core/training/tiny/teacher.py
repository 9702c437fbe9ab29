"""Trains helios-tiny: the Helios architecture, small, on drawn videos, with the pyramid flow objective.

Objective and history corruption follow the official stage 2 training (objective/). Every step trains all three stages;
the coarse ones are cheap and decide what moves where, so they get larger batches. The text encoder is trained jointly,
from scratch.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from ...backends.torch.transformer import HeliosTransformer
from ...config import ScheduleConfig, TransformerConfig
from ...drawn import SIZE, draw, random_scene
from ...history import History
from ...steps import schedule
from ..files import load_shards
from ..loop import Recipe, fit
from ..objective import WINDOW, SeededDraws, chunks_and_pasts, flow_loss
from ..precision import mixed_precision
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
BATCHES = (24, 24, 20)  # samples per stage and step
CHUNK_ODDS = (0.46, 0.18, 0.18, 0.18)
IMAGE_ODDS = 0.12  # of starting from an image
RECIPE = Recipe(6000, lr=1.5e-3, muon=8e-3, warmup=100, decay=0.15, ema=0.998)
DROP_CAPTION = 0.1


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


class Batches(SeededDraws):
    """SeededDraws training batches: target chunk, its history, caption; the same ones for every device."""

    def __init__(self, clips: CaptionedClips | None, seed: int, device="cpu"):
        super().__init__(seed)
        self.clips, self.device = clips, device

    def draw(self, n: int) -> tuple[Tensor, History, Tensor]:
        """(chunk [n c 9 h w], history before it, caption ids [n m])."""
        pick = self.pick(len(self.clips.latents), n)
        place = self.choose(CHUNK_ODDS, n)
        image = self.rand(n) < IMAGE_ODDS
        chunk, window, anchor = chunks_and_pasts(self.clips.latents[pick], self.clips.stills[pick], place, image, CHUNK)
        say = torch.randint(self.clips.captions.shape[1], (n,), generator=self.rng)
        ids = self.clips.captions[pick, say]
        ids = torch.where((self.rand(n, 1) < DROP_CAPTION), self.clips.empty, ids)
        history = History(self.corrupt(window).to(self.device), self.corrupt(anchor).to(self.device))
        return chunk.to(self.device), history, ids.to(self.device)


def stage_loss(model: Tiny, batches: Batches, stage: schedule.Stage, n: int) -> Tensor:
    """`flow_loss` of n samples."""
    chunk, history, ids = batches.draw(n)
    text = model.transformer.text_context(model.encode(ids))
    context = model.transformer.history_context(history.parts(CHUNK))
    return flow_loss(lambda x, t: model.transformer(x, t, text, context), SCHEDULE, stage.index, chunk, batches)


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
