"""Loading transformers on torch. Named: M12."""

import torch
from helios_video.helios_core.backends.torch.load import load_transformer
from helios_video.helios_core.checkpoint.sources import open_part
from safetensors.torch import save_file
from support.parts import CONFIG, make_states


def test_m12_nothing_is_computed_before_the_weights_are_there(tmp_path):
    """What depends on weights is made from the loaded ones: two files loaded in turn do not share anything."""
    states = make_states()
    other = {name: value + 1 for name, value in states["transformer"].items()}
    save_file(states["transformer"], tmp_path / "a.safetensors")
    save_file(other, tmp_path / "b.safetensors")

    def tables(name):
        source = open_part(tmp_path / f"{name}.safetensors", "transformer")
        model = load_transformer(source, CONFIG, dtype="fp32", device="cpu")
        _, vectors = model.condition_embedder(torch.zeros(1))
        return model.modulations(vectors)[0][0].shift

    first, second, again = tables("a"), tables("b"), tables("a")
    assert torch.equal(first, again) and not torch.equal(first, second)
