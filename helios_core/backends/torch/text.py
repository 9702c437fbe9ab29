"""UMT5, the text encoder, through transformers.

Two traps. The published config says tie_word_embeddings=False while the file stores only shared.weight; loaders that
believe it leave the encoder's own embedding empty, and the video grey: here both names are always one tensor. And
transformers 5 rebuilds a T5 tokenizer without the normalizer of its tokenizer.json: that file is read as it stands.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from ...config import read_json
from ...text import prompt_clean
from ...weights import check_keys, find_files, read_headers

EMBEDDINGS = ("shared.weight", "encoder.embed_tokens.weight")
logger = logging.getLogger(__name__)


class TextEncoder:
    """Prompts -> embeddings [b, max_length, d_model], float32 on the CPU, exactly zero past each prompt's end.

    tokenize: prompts -> token ids per prompt, end token included, at most max_length.
    """

    def __init__(self, model, tokenize: Callable[[list[str]], list[list[int]]], *, max_length: int = 512):
        self.model, self.tokenize, self.max_length = model, tokenize, max_length

    @torch.inference_mode()
    def __call__(self, prompt: str | list[str]) -> Tensor:
        """One prompt or several, cleaned as `prompt_clean` does. An empty prompt is its end token alone."""
        rows = self.tokenize([prompt_clean(text) for text in ([prompt] if isinstance(prompt, str) else prompt)])
        # Padded only to the longest prompt: masked positions change nothing, and encoding 512 of them is slow.
        longest = max(map(len, rows))
        if longest == self.max_length:
            logger.warning("a prompt fills all %d tokens; anything after them was cut off", self.max_length)
        ids = torch.tensor([row + [0] * (longest - len(row)) for row in rows], device=self.model.device)
        mask = torch.tensor([[1] * len(row) + [0] * (longest - len(row)) for row in rows], device=self.model.device)
        embeddings = torch.zeros(len(rows), self.max_length, self.model.config.d_model)
        states = self.model(ids, mask).last_hidden_state.float() * mask[..., None]
        embeddings[:, :longest] = states.cpu()
        return embeddings


def load_tokenizer(folder: Path, max_length: int) -> Callable[[list[str]], list[list[int]]]:
    """`tokenize` of TextEncoder, from tokenizer.json as it stands, else from the sentencepiece model."""
    if (folder / "tokenizer.json").is_file():
        from tokenizers import Tokenizer

        tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        tokenizer.no_padding()
        tokenizer.enable_truncation(max_length)
        return lambda prompts: [row.ids for row in tokenizer.encode_batch(prompts)]
    if (folder / "spiece.model").is_file():
        from transformers import AutoTokenizer

        tokenizer = AutoTokenizer.from_pretrained(str(folder), local_files_only=True)
        return lambda prompts: tokenizer(prompts, truncation=True, max_length=max_length).input_ids
    raise ValueError(f"{folder} must hold tokenizer.json or spiece.model; take it from the checkpoint")


def load_text_encoder(
    folder: str | os.PathLike, *, device="cpu", dtype: torch.dtype | None = None, max_length: int = 512
) -> TextEncoder:
    """From a checkpoint folder that holds text_encoder/ and tokenizer/.

    dtype: of the weights; None keeps the file's. ValueError names missing files, and missing, unexpected or
    misshapen keys.
    """
    from transformers import UMT5Config, UMT5EncoderModel

    folder = Path(folder)
    tokenize = load_tokenizer(folder / "tokenizer", max_length)
    with torch.device("meta"):
        model = UMT5EncoderModel(UMT5Config(**read_json(folder / "text_encoder" / "config.json")))
    weights = _read(folder / "text_encoder", model, device)
    if dtype is not None:
        weights = {name: tensor.to(_kept(name, dtype)) for name, tensor in weights.items()}
    weights |= dict.fromkeys(EMBEDDINGS, next(weights[name] for name in EMBEDDINGS if name in weights))
    model.load_state_dict(weights, assign=True)
    return TextEncoder(model.eval().requires_grad_(False), tokenize, max_length=max_length)


def _kept(name: str, dtype: torch.dtype) -> torch.dtype:
    """UMT5's feed-forward output overflows in half precision; transformers keeps it in float32 too."""
    return torch.float32 if dtype == torch.float16 and name.endswith(".wo.weight") else dtype


def _read(folder: Path, model, device) -> dict[str, Tensor]:
    """The folder's tensors, checked against the model; of the embedding's two names, one is enough."""
    from safetensors.torch import load_file

    wanted, found = {name: tuple(value.shape) for name, value in model.state_dict().items()}, read_headers(folder)
    stored = [name for name in EMBEDDINGS if name in found]
    check_keys(
        f"text encoder {folder}",
        {name: shape for name, shape in wanted.items() if name not in EMBEDDINGS or name in (stored or EMBEDDINGS[:1])},
        found,
    )
    weights: dict[str, Tensor] = {}
    for file in find_files(folder):
        weights |= load_file(file, device=str(device))
    if len(stored) == 2 and not torch.equal(*(weights[name] for name in EMBEDDINGS)):
        raise ValueError(f"text encoder {folder}: {EMBEDDINGS[0]} and {EMBEDDINGS[1]} differ; a UMT5 file ties them")
    return weights
