"""A pipeline under ComfyUI's model management, with a stand-in that keeps books; the real one: comfyui/test_live.py.

There is one kind of memory here: moves between devices are written down, not made.
"""

import gc
import sys
import weakref
from pathlib import Path
from types import ModuleType

import helios_video as pack
import numpy as np
import pytest
import torch
from helios_video.helios_core import load
from helios_video.helios_core.backends.torch import offload
from helios_video.helios_core.training.files import save_ul
from helios_video.helios_core.unified import Unified
from helios_video.nodes import managed
from support.ul import VIDEO, build

CPU, AWAY = torch.device("cpu"), torch.device("meta")


class Patcher:
    """What of ComfyUI's ModelPatcher the components lean on."""

    def __init__(self, model, load_device, offload_device):
        self.size, self.model = 0, model
        self.load_device, self.offload_device, self.parent = load_device, offload_device, None
        self.model_size()


class Management(ModuleType):
    """ComfyUI's list of loaded models and its calls; `room` is the memory it has for a load."""

    def __init__(self, away):
        super().__init__("comfy.model_management")
        self.loaded, self.freed, self.asked, self.room, self.stop = [], [], [], 1e32, False
        self.places = weakref.WeakKeyDictionary()  # network -> where it is said to be
        self.get_torch_device = self.vae_device = self.text_encoder_device = lambda: CPU
        self.unet_offload_device = self.vae_offload_device = self.text_encoder_offload_device = lambda: away
        self.soft_empty_cache = lambda: None

    def free_memory(self, nbytes, device):
        self.freed.append(nbytes)

    def throw_exception_if_processing_interrupted(self):
        if self.stop:
            raise KeyboardInterrupt

    def load_models_gpu(self, models, memory_required):
        for patcher in models:
            self.asked.append((type(patcher.model).__name__, memory_required))
            self.loaded = [p for p in self.loaded if p is not patcher] + [patcher]
            patcher.partially_load(patcher.load_device, self.room)

    def place(self, model, device, *, streamed=False):
        self.places[model] = torch.device(device)
        offload.place(model, CPU, streamed=streamed)

    same = staticmethod(offload.same)

    def size(self, model, device=None):
        return offload.size(model) if device in (None, self.places.get(model, CPU)) else 0

    def occupied(self, model, device):
        return offload.occupied(model, CPU) if self.places.get(model, CPU) == device else 0

    def evict(self):
        """What another model's load does."""
        while self.loaded:
            self.loaded.pop().detach(True)


@pytest.fixture
def comfyui(monkeypatch):
    """A function that puts ComfyUI in place; away: where it puts models that are not in use."""

    def start(away=AWAY):
        management = Management(away)
        patcher = ModuleType("comfy.model_patcher")
        patcher.ModelPatcher = Patcher
        monkeypatch.setattr(managed, "_offload", lambda: management)
        for module in (management, patcher, ModuleType("folder_paths"), ModuleType("comfy")):
            monkeypatch.setitem(sys.modules, module.__name__, module)
        return management

    return start


def opened(**choices):
    """As HeliosLoader does."""
    helios = load(host=managed.host_of("auto"), **choices)
    managed.announce(helios)
    return helios


def sample(helios, chunks=1):
    history = helios.history(64, 64)
    for _ in range(chunks):
        *_, step = helios.sample(history, helios.text("a red circle"), seed=3, steps=(1, 1, 1))
        history = history.append(step.latent)
    return step.latent


def test_components_are_registered_as_they_compute(comfyui):
    management, helios = comfyui(), opened()
    needs = helios.parts.estimate()
    helios.decode(sample(helios))
    sized = helios.parts.estimate(64, 64).work
    assert list(dict.fromkeys(management.asked)) == [  # the encoder for the empty prompt too
        ("UMT5EncoderModel", needs.work["text_encoder"]),
        ("WanVAE", sized["vae"]),
    ]
    assert management.freed == [needs.part(name, "none") for name in ("text_encoder", "transformer", "vae")]
    for patcher in management.loaded:
        assert patcher.loaded_size() == patcher.model_size() > 0 and patcher.current_loaded_device() == CPU
    helios.decode(sample(helios))
    assert len(management.loaded) == 2, "the same patchers again"


def test_a_diffusion_decoder_is_registered_as_it_computes(comfyui, tmp_path):
    management, file = comfyui(), tmp_path / "ul.safetensors"
    save_ul(build(VIDEO, ("encoder", "decoder")), file, steps=1)
    codec = Unified.load(file, backend="torch")
    managed.adopt_codec(codec)
    codec.decode(codec.encode(np.zeros((1, 3, 9, 32, 32), dtype=np.float32)))
    assert [name for name, _ in management.asked] == ["UL", "UL"] and len(management.loaded) == 2
    assert all(work > 0 for _, work in management.asked)
    patchers = list(management.loaded)
    management.evict()
    assert all(patcher.current_loaded_device() == AWAY for patcher in patchers)
    codec.decode(np.zeros((1, 4, 3, 4, 4), dtype=np.float32))
    assert [patcher.current_loaded_device() for patcher in management.loaded] == [CPU]


def test_sizes_count_tied_tensors_once(comfyui):
    management, helios = comfyui(), opened()
    helios.text("a red circle")
    (patcher,) = management.loaded
    found = {t.data_ptr(): t.nbytes for t in patcher.model.state_dict().values()}
    assert patcher.model_size() == sum(found.values()) < sum(t.nbytes for t in patcher.model.state_dict().values())


def test_another_model_moves_ours_away_and_a_part_on_its_device_stays(comfyui):
    management, helios = comfyui(), opened()
    helios.decode(sample(helios))
    patchers = list(management.loaded)
    patchers[0].detach(unpatch_all=False)
    assert patchers[0].loaded_size(), "forgotten, not moved"
    management.evict()
    for patcher in patchers:
        assert patcher.loaded_size() == 0 < patcher.model_size() and patcher.current_loaded_device() == AWAY
        assert patcher.model_size() == offload.size(patcher.model)
    wanted = helios.decode(sample(helios))
    assert [p.current_loaded_device() for p in patchers] == [AWAY, CPU], "the prompt is known, its encoder not needed"
    assert np.array_equal(wanted, load().decode(sample(load())))


def test_two_names_of_one_device():
    assert offload.same(torch.device("mps"), torch.device("mps:0"))
    assert not offload.same(torch.device("cuda:1"), torch.device("cuda"))


def test_a_vae_is_moved_whole(comfyui):
    management, helios = comfyui(), opened()
    helios.decode(sample(helios))
    patcher = next(p for p in management.loaded if p.model is helios.parts.vae)
    assert patcher.partially_unload(AWAY, 1) == 0 and patcher.loaded_size() == patcher.model_size()


def test_where_there_is_one_memory_nothing_moves(comfyui):
    management, helios = comfyui(away=CPU), opened()
    wanted = helios.decode(sample(helios))
    management.evict()
    assert np.array_equal(wanted, helios.decode(sample(helios))) and not management.places


def test_nothing_outlives_the_pipeline(comfyui):
    management, helios = comfyui(), opened()
    helios.decode(sample(helios))
    parts = [
        weakref.ref(part) for part in (helios.parts.transformer, helios.parts.vae, helios.parts.text_encoder, helios)
    ]
    gc.collect()
    gc.disable()
    try:
        del helios
        assert [part() for part in parts] == [None] * 4
    finally:
        gc.enable()
    assert all(patcher.model is None for patcher in management.loaded)


def test_a_released_component_is_let_go(comfyui):
    management, helios = comfyui(), opened()
    helios.text("a red circle")
    (patcher,) = management.loaded
    helios.parts.release("text_encoder")
    gc.collect()
    assert patcher.model is None and patcher.detach() is None


def test_nothing_is_dropped_where_comfyui_moves_things_unless_the_user_chose_so(comfyui):
    for choice, kept in (("auto", True), ("sequential", False)):
        comfyui()
        helios = opened(offload=choice)
        helios.parts.loaded.mode = "sequential"  # as auto finds it where memory is short
        helios.decode(sample(helios))
        assert ("transformer" in helios.parts.loaded.networks) == kept


def test_a_part_goes_where_comfyuis_settings_want_it(comfyui, monkeypatch):
    management = comfyui()
    management.vae_device = lambda: AWAY
    around = managed.host_of("torch")
    assert around.place("vae", CPU) == AWAY and around.place("transformer", CPU) == CPU


@pytest.mark.parametrize("part", ["text_encoder", "vae", "transformer"])
def test_stop_is_honoured_between_layers(comfyui, part):
    management, helios = comfyui(), opened()
    latent = sample(helios)
    assert helios.parts.vae is not None
    management.stop = True
    work = {
        "text_encoder": lambda: helios.text("another prompt"),
        "vae": lambda: helios.decode(latent),
        "transformer": lambda: sample(helios),
    }
    with pytest.raises(KeyboardInterrupt):
        work[part]()
    management.stop = False
    work[part]()


def test_without_comfyui_nothing_is_registered():
    helios, _, _ = pack.NODE_CLASS_MAPPINGS["HeliosLoader"]().load("helios-tiny")
    assert type(helios.parts.host) is managed.Runner and not helios.parts.host.manages


def test_nodes_name_no_device():
    """Devices are ComfyUI's to choose."""
    for path in sorted((Path(pack.__file__).parent / "nodes").glob("*.py")):
        source = path.read_text()
        assert not any(word in source for word in (".cuda", '"cuda', '"cpu"', '"mps"', "empty_cache()")) or (
            path.stem == "managed" and "management.soft_empty_cache()" in source
        ), path.name
