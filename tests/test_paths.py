"""No name that a user, or a workflow file of somebody else's, gives leads out of the folders it belongs to."""

from __future__ import annotations

import helios_video as pack
import pytest
from helios_video.helios_core.workflow.format import inputs_of

NODES = pack.NODE_CLASS_MAPPINGS
TEXTS = {  # strings that name no file
    *("T5Encode.text", "HeliosPromptSchedule.text", "HistoryMemory.history_sizes", "DMDPyramidSample.steps"),
    *("PyramidDownsample.factors", "HeliosLatentPlot.names", "HeliosLora.blocks"),
}
TYPED = {"HeliosSaveHistory.filename_prefix", "HeliosLoadHistory.file", "HeliosTrainLora.output_name"}
CHOSEN = ["HeliosLoader.model", "HeliosLoader.text_encoder", "HeliosLoader.vae"]
CHOSEN += ["HeliosLora.lora", "HeliosLora.companion", "HeliosControl.adapter"]
CHOSEN += [f"HeliosTrainLora.{name}" for name in ("model", "folder", "text_encoder", "vae")]
OUTSIDE = ["../secret.safetensors", "a/../../secret.safetensors", "..\\secret.safetensors", "C:\\secret.safetensors"]
OUTSIDE += ["\\\\server\\secret.safetensors", "../secret", ".."]


@pytest.fixture
def secret(tmp_path, monkeypatch):
    """A file that lies beside the folder that everything is to stay in."""
    inside = tmp_path / "work" / "here"
    inside.mkdir(parents=True)
    for place in (tmp_path, tmp_path / "work"):
        (place / "secret.safetensors").write_bytes(b"secret")
        (place / "secret").mkdir()
        (place / "secret" / "model_index.json").write_text("{}")
    monkeypatch.chdir(inside)
    return tmp_path / "work" / "secret.safetensors"


def test_every_input_that_takes_text_is_known():
    """A new one that names a file belongs to TYPED, and into the tests of names in test_saved.py."""
    found = [(name, field, what) for name, kind in NODES.items() for field, (what, _) in inputs_of(kind).items()]
    texts = {f"{name}.{field}" for name, field, what in found if what == "STRING"}
    assert texts == TEXTS | TYPED


@pytest.mark.parametrize("name", [*OUTSIDE, "/absolute"])
@pytest.mark.parametrize("where", CHOSEN)
def test_chosen_names_are_those_on_the_list(where, name, secret, fake_helios):
    """A prompt that is posted by hand may hold anything in place of a choice."""
    node, field = where.split(".")
    name = str(secret) if name == "/absolute" else name
    lora = {"model": fake_helios, "lora": "none", "strength": 1.0}
    control = {"model": fake_helios, "strength": 1.0, "start_chunk": 0, "end_chunk": -1, "policy": "from adapter"}
    (secret.parent / "here" / "clips").mkdir()
    training = {"model": "helios-tiny", "folder": "clips", "steps": 1, "rank": 1, "output_name": "a"}
    inputs = {"HeliosLoader": {"model": "helios-tiny"}, "HeliosLora": lora, "HeliosControl": control}
    inputs = (inputs | {"HeliosTrainLora": training})[node]
    assert name not in inputs_of(NODES[node])[field][1]["options"]
    with pytest.raises(ValueError, match="no (checkpoint|file|LoRA file|folder) named"):
        getattr(NODES[node](), NODES[node].FUNCTION)(**{**inputs, field: name})
