"""HeliosTrainLora: a checkpoint learns from a folder of clips or pictures with captions."""

from __future__ import annotations

import hashlib
from pathlib import Path

from . import core, host, live, managed, seeds

NOTHING = "none"
PREVIEW = 512  # pixels, the longer side of a preview


class HeliosTrainLora(seeds.SeededNode):
    """Teaches a checkpoint from captioned clips or pictures; a LoRA file comes out."""

    CATEGORY = "Helios"
    DESCRIPTION = (
        "Trains a LoRA on a folder of ComfyUI's input folder: clips or pictures, each with a .txt file of the same "
        "name that says what it shows. Stop keeps what was learnt, and the same settings go on from there. The file "
        "is written into models/loras, for Helios LoRA. On torch only."
    )
    SEARCH_ALIASES = ["train lora", "helios training", "teach", "fine-tune", "dreambooth"]
    FUNCTION = "train"
    OUTPUT_NODE = True
    RETURN_TYPES = ("STRING", "IMAGE", "STRING")
    RETURN_NAMES = ("lora", "samples", "report")
    OUTPUT_TOOLTIPS = (
        "The file's name in models/loras.",
        "The last sheet of samples: a row per prompt, frames from left to right.",
        "What was trained on and where the state, curves and samples lie.",
    )

    @classmethod
    def INPUT_TYPES(cls):
        """The inputs, as ComfyUI asks for them."""
        steps = {"default": 0, "min": 0, "max": 1_000_000, "tooltip": STEPS_TIP}
        rank = {"default": 16, "min": 1, "max": 1024, "tooltip": RANK_TIP}
        rate = {"default": 0.0, "min": 0.0, "max": 1.0, "step": 1e-6, "round": False, "tooltip": RATE_TIP}
        every = {"default": 50, "min": 0, "max": 1_000_000, "tooltip": EVERY_TIP}
        return {
            "required": {
                "model": (host.model_names(), {"default": "helios-tiny", "tooltip": MODEL_TIP}),
                "folder": ([NOTHING, *host.input_folders()], {"default": NOTHING, "tooltip": FOLDER_TIP}),
                "steps": ("INT", steps),
                "rank": ("INT", rank),
                "output_name": ("STRING", {"default": "my_lora", "tooltip": NAME_TIP}),
            },
            "optional": {
                "text_encoder": ([host.FROM_MODEL, *host.file_names("text_encoders")], {"tooltip": PART_TIP}),
                "vae": ([host.FROM_MODEL, *host.file_names("vae")], {"tooltip": PART_TIP}),
                "weight_dtype": (list(core.checkpoint.WEIGHT_DTYPES), {"tooltip": DTYPE_TIP}),
                "learning_rate": ("FLOAT", rate),
                "sample_every": ("INT", every),
                "seed": seeds.widget(SEED_TIP),
            },
        }

    @classmethod
    def IS_CHANGED(cls, folder=NOTHING, **_):
        """Sizes and dates of the folder's files: a folder that was added to is trained on anew."""
        return [] if folder == NOTHING else [host.file_stamp(path) for path in _files(host.input_place(folder))]

    def train(
        self, model, folder, steps, rank, output_name, text_encoder=host.FROM_MODEL, vae=host.FROM_MODEL,
        weight_dtype="auto", learning_rate=0.0, sample_every=50, seed=0,
    ):  # fmt: skip
        """(STRING the file's name, IMAGE the last samples, STRING report). ValueError for what cannot be trained on."""
        from ..helios_core.training.lora import LoraOptions, run

        if folder == NOTHING:
            raise ValueError("folder: put one with clips or pictures and their .txt files into ComfyUI's input folder")
        data, output = host.input_place(folder), host.new_lora(output_name)
        parts = {"text_encoder": host.part_path("text_encoders", text_encoder), "vae": host.part_path("vae", vae)}
        asked = {"rank": rank, "steps": steps, "lr": learning_rate, "sample_every": sample_every, "seed": seed}
        settings = LoraOptions(**asked)
        helios = open_base(host.model_path(model), weight_dtype, parts)
        settled = run.settle(settings, helios)
        files = run.find_files(helios, data, settled)
        state = state_folder(output_name, [model, weight_dtype, repr(settings), *map(host.file_stamp, _files(data))])
        watch = NodeWatch(len(files), settled)
        run.run(settings, helios, data, state, output, watch=watch)
        report = f"{len(files)} files, {settled.steps} steps, rank {rank}: {output}\ncurves and samples: {state}"
        return {
            "ui": {"text": [report]},
            "result": (output.name, watch.picture(), report),
        }


def open_base(path, weight_dtype: str, parts: dict):
    """A checkpoint of this run alone, on torch, as a training wants it."""
    from ..helios_core import load

    cache = host.cache_folder()
    around = managed.host_of("torch")
    how = {"weight_dtype": weight_dtype, "compile": "off", "attention": "sdpa"}
    helios = load(path, backend="torch", host=around, cache_folder=cache, weights_folder=cache, **parts, **how)
    helios.parts.host.loading(helios.parts.estimate().device("none"))
    return helios


def state_folder(name: str, about: list[str]) -> Path:
    """Where a training of these settings and files keeps its state: the same ones go on there."""
    digest = hashlib.sha256(repr(about).encode()).hexdigest()[:8]
    return core.disk.inside(host.output_folder() / "helios-training", f"{name}-{digest}")


def _files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())


class NodeWatch:
    """The node's bar over all parts of a training, with the last samples as its preview; Stop is heard at each step."""

    def __init__(self, files: int, settings):
        second = settings.first_steps if settings.few_steps == "on" else 0
        self.before, self.here = 0, 0
        self.bar, self.shown = live.NodeProgress([1] * (files + settings.steps + second)), None

    def part(self, name: str, total: int) -> None:
        """The bar goes on from what is behind it."""
        self.before, self.here = self.before + self.here, total

    def step(self, done: int, total: int) -> None:
        """One more."""
        picture, self.fresh = (self.fresh, None) if getattr(self, "fresh", None) else (None, None)
        self.bar.update(self.before + done, picture)

    def sample(self, file: Path) -> None:
        """The next step shows it."""
        from PIL import Image

        self.shown = Image.fromarray(core.media.read_picture(file))
        self.fresh = ("JPEG", self.shown, PREVIEW)

    def picture(self):
        """The last samples as IMAGE; a grey pixel where none were asked for."""
        import numpy as np
        import torch

        if self.shown is None:
            return torch.full((1, 1, 1, 3), 0.5)
        return torch.from_numpy(np.asarray(self.shown, dtype=np.float32) / 255)[None]


MODEL_TIP = "The checkpoint to teach, as in Helios Loader. A LoRA of Base or Mid serves Distilled too."
FOLDER_TIP = (
    "A folder in ComfyUI's input folder: clips of 33 frames or more, or pictures, each with a .txt file of the same "
    "name that says what it shows; or one captions.csv with the columns file and caption."
)
STEPS_TIP = "Optimiser steps. 0: 1000, of small models 600."
RANK_TIP = "Of the LoRA: more learns more, and makes a larger file."
NAME_TIP = "Of the file in models/loras; if it is there already, the next free name, such as my_lora_2."
PART_TIP = "from model: the checkpoint's own; a model that is a file without this part needs one."
DTYPE_TIP = "Of the frozen base: int4 and int8 take the least memory. auto: as stored."
RATE_TIP = "Learning rate. 0: 0.0001, of small models 0.008."
EVERY_TIP = "Steps between samples, which are shown on the node. 0: none."
SEED_TIP = "Of all draws: the same seed, files and settings give the same LoRA on one device."
