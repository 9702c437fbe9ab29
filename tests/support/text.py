"""A tiny random UMT5 and a tokenizer trained on three prompts."""

import json

import torch
from helios_video.helios_core.text import prompt_clean
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors, trainers

PROMPTS = ["a red circle moving left", "", "A blue  square &amp;amp; a TRIANGLE, moving right on stripes"]
CONFIG = dict(vocab_size=96, d_model=32, d_kv=8, d_ff=64, num_layers=3, num_heads=4, relative_attention_num_buckets=8)


def make_tokenizer(folder):
    tokenizer = Tokenizer(models.Unigram())
    tokenizer.normalizer = normalizers.Sequence([normalizers.NFKC(), normalizers.Lowercase()])
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="always")
    special = ["<pad>", "</s>", "<unk>"]
    tokenizer.train_from_iterator(
        PROMPTS * 4,
        trainers.UnigramTrainer(vocab_size=96, special_tokens=special, unk_token="<unk>", show_progress=False),
    )
    tokenizer.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    folder.mkdir()
    tokenizer.save(str(folder / "tokenizer.json"))
    names = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "eos_token": "</s>",
        "pad_token": "<pad>",
        "unk_token": "<unk>",
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(names))


def make_checkpoint(folder):
    """(folder, model), saved as the published folders are: shared.weight alone, tie_word_embeddings False."""
    from transformers import UMT5Config, UMT5EncoderModel

    torch.manual_seed(0)
    model = UMT5EncoderModel(UMT5Config(**CONFIG)).eval()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    model.encoder.embed_tokens.weight = model.shared.weight
    model.save_pretrained(folder / "text_encoder")
    weights = load_file(folder / "text_encoder" / "model.safetensors")
    weights["shared.weight"] = model.shared.weight.detach().clone()
    weights.pop("encoder.embed_tokens.weight", None)
    save_file(weights, folder / "text_encoder" / "model.safetensors", metadata={"format": "pt"})
    config = json.loads((folder / "text_encoder" / "config.json").read_text())
    (folder / "text_encoder" / "config.json").write_text(json.dumps(config | {"tie_word_embeddings": False}))
    make_tokenizer(folder / "tokenizer")
    return folder, model


class Padded:
    """A text encoder as the oracle is: prompts as they come -> embeddings [b length d]."""

    def __init__(self, encoder):
        self.encoder = encoder

    def __call__(self, prompts):
        return self.encoder(
            [prompt_clean(text) for text in ([prompts] if isinstance(prompts, str) else prompts)]
        ).padded

    def __getattr__(self, name):
        return getattr(self.encoder, name)
