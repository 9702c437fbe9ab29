"""helios-tiny on disk: its tokenizer, and the published folder layout it is shipped in."""

from __future__ import annotations

import json
import string
from dataclasses import asdict, replace
from itertools import product
from pathlib import Path

import torch

from ...backends.torch.transformer import FLOAT32
from ...config import ScheduleConfig, TransformerConfig, VAEConfig
from ...disk import replacing, write
from ...drawn.scenes import BACKGROUNDS, COLOURS, MOTIONS, SHAPES, scene
from ..files import save

PAD, END, UNKNOWN = "<pad>", "</s>", "<unk>"


def build_tokenizer(vocab_size: int):
    """A byte-pair tokenizer of the captions' words; other words fall into letters. Ids 0, 1, 2: pad, end, unknown."""
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

    tokenizer = Tokenizer(models.BPE(unk_token=UNKNOWN))
    tokenizer.normalizer = normalizers.Sequence([normalizers.NFKC(), normalizers.Lowercase()])
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Metaspace()
    alphabet = list(string.ascii_lowercase + string.digits + string.punctuation)
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size, special_tokens=[PAD, END, UNKNOWN], initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator(all_captions(), trainer)
    tokenizer.post_processor = processors.TemplateProcessing(single=f"$A {END}", special_tokens=[(END, 1)])
    return tokenizer


def all_captions() -> list[str]:
    """Every caption of one object in every way to say it, and some of two."""
    scenes = [scene(*what) for what in product(COLOURS, SHAPES, MOTIONS, BACKGROUNDS)]
    scenes += [replace(s, things=s.things + t.things) for s, t in zip(scenes[::7], scenes[::-7])]
    return [s.caption(variant) for s in scenes for variant in range(3)]


def save_folder(
    folder: Path, *, model, vae, tokenizer, transformer: TransformerConfig, schedule: ScheduleConfig,
    vae_config: VAEConfig, stats, text: dict, generation: dict,
) -> Path:  # fmt: skip
    """Writes the published layout: bfloat16 transformer and text encoder (float32 islands kept), float16 VAE."""
    mean, std = stats
    vae_config = replace(vae_config, latents_mean=tuple(mean), latents_std=tuple(std))
    unet = {k: _cast(k, v, torch.bfloat16) for k, v in model.transformer.state_dict().items()}
    words = {k: v for k, v in model.text.state_dict().items() if k != "encoder.embed_tokens.weight"}
    words = {k: v.to(torch.bfloat16).contiguous() for k, v in words.items()}
    codec = {k: v.to(torch.float16).contiguous() for k, v in vae.state_dict().items()}
    save_part(folder / "transformer", "diffusion_pytorch_model", unet, asdict(transformer), "HeliosTransformer3DModel")
    save_part(folder / "vae", "diffusion_pytorch_model", codec, asdict(vae_config), "AutoencoderKLWan")
    save_part(folder / "text_encoder", "model", words, {**text, "architectures": ["UMT5EncoderModel"]}, None)
    (folder / "tokenizer").mkdir(exist_ok=True)
    with replacing(folder / "tokenizer" / "tokenizer.json") as part:
        tokenizer.save(str(part))
    special = {"pad_token": PAD, "eos_token": END, "unk_token": UNKNOWN}
    write_json(
        folder / "tokenizer" / "tokenizer_config.json", {"tokenizer_class": "PreTrainedTokenizerFast", **special}
    )
    distilled = schedule.solver == "dmd"
    name = "HeliosDMDScheduler" if distilled else "HeliosScheduler"
    write_json(folder / "scheduler" / "scheduler_config.json", {"_class_name": name, **asdict(schedule)})
    write_json(folder / "generation_config.json", generation)
    index = {**INDEX, "is_distilled": distilled, "scheduler": ["diffusers", name]}
    write_json(folder / "model_index.json", index)
    return folder


INDEX = {
    "_class_name": "HeliosPyramidPipeline",
    "is_cfg_zero_star": False,
    "text_encoder": ["transformers", "UMT5EncoderModel"],
    "tokenizer": ["transformers", "PreTrainedTokenizerFast"],
    "transformer": ["diffusers", "HeliosTransformer3DModel"],
    "vae": ["diffusers", "AutoencoderKLWan"],
}


def _cast(name: str, value, dtype):
    return (value.float() if any(part in name for part in FLOAT32) else value.to(dtype)).contiguous()


def save_part(folder: Path, stem: str, state: dict, config: dict, class_name: str | None) -> None:
    """One network of the layout: its weights and its config.json. class_name: that diffusers reads it by."""
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / f"{stem}.safetensors"
    save(state, file)
    write_json(folder / "config.json", {"_class_name": class_name, **config} if class_name else config)


def write_json(file: Path, value: dict) -> None:
    """A document of the layout, with its folder."""
    file.parent.mkdir(parents=True, exist_ok=True)
    write(file, json.dumps(value, indent=2) + "\n")
