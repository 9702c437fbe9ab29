"""Saved runs: bit for bit through Helios and through the nodes; what is refused; where files may lie."""

import dataclasses
import json
import sys
from pathlib import Path
from types import ModuleType

import helios_video as pack
import numpy as np
import pytest
import torch
from helios_video.helios_core import load
from helios_video.helios_core.drawn import scenes
from helios_video.helios_core.history import saved
from helios_video.helios_core.history.window import History
from helios_video.helios_core.noise import Noise
from helios_video.nodes import host, sockets
from safetensors.numpy import load_file, save_file
from support.nodes import call

NODES = pack.NODE_CLASS_MAPPINGS
QUICK = dict(width=64, height=64, steps=(1, 1, 1), boost_first_chunk=False)


@pytest.fixture(scope="module")
def tiny():
    return load("helios-tiny", weight_dtype="fp32")


@pytest.fixture
def here(tmp_path, monkeypatch):
    """Without ComfyUI and outside a workflow, files lie in the current folder."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def chunks(model, history, count, seed=2**64 - 5):
    """Latents of the next chunks, and the history after them."""
    latents = []
    text = model.text("a red circle moving left")
    for _ in range(count):
        *_, step = model.sample(history, text, seed=seed, **{k: QUICK[k] for k in ("steps", "boost_first_chunk")})
        history = history.append(step.latent)
        latents.append(step.latent)
    return latents, history


STARTS = {
    "text": {},
    "image": {"image": scenes.draw(scenes.scene("red", "circle", "left", "striped"), 1)},
    "no first frame": {"keep_first_frame": False},
    "another anchor": {"skip_first_chunk": True},
    "other sizes": {"sizes": (8, 4, 2)},
}


@pytest.mark.parametrize("start", STARTS.values(), ids=STARTS)
def test_a_resumed_run_is_the_uninterrupted_one(tiny, tmp_path, start):
    """Saved after chunk 1, read by a fresh model: chunks 2 and 3 bit for bit, and so are their histories."""
    history = tiny.history(64, 64, **start)
    (_, *want), end = chunks(tiny, history, 3)
    _, first = chunks(tiny, history, 1)
    file = saved.write(tmp_path / "run.safetensors", first, seed=2**64 - 5, config=tiny.config)
    other = load("helios-tiny", weight_dtype="fp32")
    back = saved.read(file, other.config, other.backend.array)
    assert back.seed == 2**64 - 5 and back.history.chunk == 1
    got, last = chunks(other, back.history, 2, back.seed)
    assert all(torch.equal(a, b) for a, b in zip(got, want, strict=True))
    for field in dataclasses.fields(History):
        a, b = getattr(end, field.name), getattr(last, field.name)
        assert torch.equal(a, b) if isinstance(a, torch.Tensor) else a == b, field.name
    assert [p.name for p in tmp_path.iterdir()] == ["run.safetensors"]


def test_a_resumed_run_through_the_nodes(tiny, here):
    """Save after chunk 1 and load into another loader's model: the same latents and history as without the pause."""
    positive = call("T5Encode", text_encoder=tiny.text, text="a blue square moving up")[0]
    inputs = dict(positive=positive, steps="1,1,1", boost_first_chunk=False)
    memory = call("HistoryMemory", model=tiny, image=torch.rand(1, 80, 64, 3), width=64, height=64, seed=3)[0]
    _, memory = call("DMDPyramidSample", model=tiny, history=memory, seed=11, **inputs)
    want, after = call("DMDPyramidSample", model=tiny, history=memory, seed=11, **inputs)
    (name,) = call("HeliosSaveHistory", model=tiny, history=memory, filename_prefix="runs/a", seed=11)
    assert name == "runs/a_00001_.safetensors" and (here / name).is_file()
    other = load("helios-tiny", weight_dtype="fp32")
    loaded, seed = call("HeliosLoadHistory", model=other, file=name)
    got, later = call("DMDPyramidSample", model=other, history=loaded, seed=seed, **inputs)
    assert seed == 11 and loaded.chunk_frames == 9
    assert torch.equal(got["samples"], want["samples"])
    assert torch.equal(later.history.window, after.history.window) and later.history.chunk == 2
    assert torch.equal(later.history.anchor, after.history.anchor)


def make(helios, chunk_count=1, **options):
    z = torch.from_numpy(Noise(1).normal((1, 16, 9 * chunk_count, 8, 8), chunk=0))
    return helios.history(64, 64, latent=z, **options)


@pytest.fixture
def file(fake_helios, tmp_path):
    return saved.write(tmp_path / "run.safetensors", make(fake_helios), seed=5, config=fake_helios.config)


def read(file, helios):
    return saved.read(file, helios.config, helios.backend.array)


def test_what_is_in_the_file(file):
    """Plain names, float32, and metadata that a person can read."""
    from safetensors import safe_open

    assert {k: v.dtype.name for k, v in load_file(file).items()} == {"window": "float32", "anchor": "float32"}
    with safe_open(file, framework="np") as opened:
        metadata = opened.metadata()
    assert (metadata["format"], metadata["version"], metadata["seed"]) == ("helios-history", "1", "5")
    want = {"sizes": [16, 2, 1], "keep_first_frame": True, "chunk": 1, "skip_first_chunk": False}
    assert json.loads(metadata["history"]) == want
    assert file.stat().st_size < 20 * 16 * 8 * 8 * 4 + 2000


def rewrite(file, metadata=(), **tensors):
    """The same file with changes; a value of None is left out."""
    from safetensors import safe_open

    with safe_open(file, framework="np") as opened:
        old = opened.metadata()
    kept = {k: v for k, v in {**load_file(file), **tensors}.items() if v is not None}
    save_file(kept, file, {k: v for k, v in {**old, **dict(metadata)}.items() if v is not None})


def history_json(**changes):
    return json.dumps({"sizes": [16, 2, 1], "keep_first_frame": True, "chunk": 1, "skip_first_chunk": False, **changes})


Z = np.zeros((1, 16, 19, 8, 8), np.float32)
MOMENTS = np.zeros((1, 16, 2), np.float32)


@pytest.mark.parametrize(
    "metadata,tensors,words",
    [
        ({"format": "pt"}, {}, "is no saved run: wanted the format 'helios-history', it holds pt"),
        ({"format": None}, {}, "other tensors, perhaps a model's weights"),
        ({"version": "2"}, {}, r"newer version of this pack \(format 2, this one reads 1\); update it"),
        ({}, {"window": np.zeros((1, 48, 19, 8, 8), np.float32), "anchor": None}, "have 48 channels, wanted 16"),
        ({"latent_space": "{}"}, {}, "a run of another model: its VAE's latents"),
        ({}, {"future": np.zeros(3, np.float32)}, "holds future, which this version of the pack does not know"),
        ({"history": history_json(more=1)}, {}, "holds more, which this version"),
        ({"history": history_json(chunk="1")}, {}, "damaged saved run"),
        ({"history": history_json(chunk=-1)}, {}, "damaged saved run"),
        ({"history": history_json(sizes=[16, 2, "1"])}, {}, "damaged saved run"),
        ({"history": "[1"}, {}, "damaged saved run"),
        ({"history": None}, {}, "damaged saved run .KeyError: 'history'"),
        ({"seed": "-1"}, {}, "damaged saved run .*seed -1"),
        ({"history": history_json(sizes=[16, 2, 2])}, {}, "window of 20 latent frames; it has 19"),
        ({}, {"window": None}, "its window is None"),
        ({}, {"anchor": np.zeros((1, 16, 1, 8, 4), np.float32)}, "damaged"),
        ({}, {"moments": np.zeros((1, 8, 2), np.float32), "first_moments": MOMENTS}, r"its moments .*\(1, 8, 2\)"),
        ({}, {"moments": MOMENTS}, "its moments {'moments': "),
        ({}, {"newest_moments": MOMENTS}, "its moments {'newest_moments': "),
        ({}, {"window": Z.astype(np.float16)}, "wanted float32, it holds window F16"),
        ({}, {"window": Z[..., :5], "anchor": None}, "size 40x64"),
    ],
)
def test_strange_files_are_refused(file, fake_helios, metadata, tensors, words):
    assert read(file, fake_helios).seed == 5
    rewrite(file, metadata, **tensors)
    with pytest.raises(ValueError, match=words) as refused:
        read(file, fake_helios)
    assert str(file) in str(refused.value) or "window of 20" in words or "size 40" in words


def test_files_that_are_no_safetensors_are_refused(file, fake_helios, tmp_path):
    with pytest.raises(ValueError, match="no saved run at"):
        read(tmp_path / "none.safetensors", fake_helios)
    file.write_bytes(file.read_bytes()[:-100])
    with pytest.raises(ValueError, match="no saved run, or a damaged one: .*cut short"):
        read(file, fake_helios)
    file.write_bytes(b"something else altogether, and long enough for a header")
    with pytest.raises(ValueError, match="no saved run, or a damaged one"):
        read(file, fake_helios)
    tiny = Path(pack.__file__).parent / "helios_core" / "assets" / "helios-tiny" / "vae"
    with pytest.raises(ValueError, match="other tensors, perhaps a model's weights|it holds pt"):
        read(next(tiny.glob("*.safetensors")), fake_helios)


def test_a_run_of_another_vae_is_refused(tiny, file):
    """As many channels, other latents: helios-tiny's are not the stand-in's."""
    with pytest.raises(ValueError, match="a run of another model: its VAE's latents"):
        read(file, tiny)


def test_a_failing_disk_leaves_the_old_file(file, fake_helios, monkeypatch):
    before = file.read_bytes()

    def full(self, data):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(OSError, match="No space"):
        saved.write(file, make(fake_helios, 2), seed=6, config=fake_helios.config)
    assert file.read_bytes() == before and [p.name for p in file.parent.iterdir()] == [file.name]


BAD = [
    "../run",
    "a/../../run",
    "/elsewhere/run",
    "",
    ".",
    "..",
    "C:\\runs\\run",
    "\\\\server\\run",
    "a\\..\\..\\run",
    "C:run",
]


@pytest.mark.parametrize("name", BAD)
def test_names_that_lead_out_of_the_folder_are_refused(fake_helios, here, name):
    """By the nodes, before and while they run, for saving and for loading."""
    memory = sockets.HistorySocket.of(make(fake_helios), fake_helios)
    assert "wanted one inside" in NODES["HeliosSaveHistory"].VALIDATE_INPUTS(name)
    assert "wanted one inside" in NODES["HeliosLoadHistory"].VALIDATE_INPUTS(name)
    with pytest.raises(ValueError, match="without '..' and not absolute"):
        call("HeliosSaveHistory", model=fake_helios, history=memory, filename_prefix=name)
    with pytest.raises(ValueError, match="without '..' and not absolute"):
        call("HeliosLoadHistory", model=fake_helios, file=name)
    assert not list(here.iterdir())


def test_a_name_that_is_not_there_is_answered_with_those_that_are(fake_helios, here):
    memory = sockets.HistorySocket.of(make(fake_helios), fake_helios)
    names = [call("HeliosSaveHistory", model=fake_helios, history=memory)[0] for _ in range(2)]
    assert names == ["helios/run_00001_.safetensors", "helios/run_00002_.safetensors"]
    answer = NODES["HeliosLoadHistory"].VALIDATE_INPUTS("helios/run_3")
    assert "no saved run 'helios/run_3'" in answer and all(name in answer for name in names)
    assert NODES["HeliosLoadHistory"].VALIDATE_INPUTS(names[0]) is True
    assert NODES["HeliosLoadHistory"].VALIDATE_INPUTS() is True, "wired, so not known yet"
    before = NODES["HeliosLoadHistory"].IS_CHANGED(model=None, file=names[0])
    saved.write(here / names[0], make(fake_helios, 3), seed=1, config=fake_helios.config)
    assert NODES["HeliosLoadHistory"].IS_CHANGED(model=None, file=names[0]) != before


def test_comfyuis_folders_are_used_output_first(fake_helios, tmp_path, monkeypatch):
    for name in ("output", "input"):
        (tmp_path / name).mkdir()
    paths = ModuleType("folder_paths")
    paths.get_output_directory, paths.get_input_directory = (lambda n=n: str(tmp_path / n) for n in ("output", "input"))
    monkeypatch.setitem(sys.modules, "folder_paths", paths)
    memory = sockets.HistorySocket.of(make(fake_helios), fake_helios)
    (name,) = call("HeliosSaveHistory", model=fake_helios, history=memory, seed=8)
    assert (tmp_path / "output" / name).is_file()
    (tmp_path / "output" / name).rename(tmp_path / "input" / "mine.safetensors")
    assert host.find_saved("mine.safetensors") == tmp_path / "input" / "mine.safetensors"
    memory, seed = call("HeliosLoadHistory", model=fake_helios, file="mine.safetensors")
    assert seed == 8 and torch.equal(memory.history.window, make(fake_helios).window)


def test_fields_to_come_are_kept_too(fake_helios, tmp_path, monkeypatch):
    """Another array or number of History needs no change here."""

    @dataclasses.dataclass(frozen=True, eq=False)
    class Longer(History):
        further: object = None
        count: int = 0

    monkeypatch.setattr(saved, "History", Longer)
    plain = make(fake_helios)
    values = {f.name: getattr(plain, f.name) for f in dataclasses.fields(plain)}
    further = torch.rand(1, 16, 2)
    file = saved.write(tmp_path / "a", Longer(**values, further=further, count=4), seed=0, config=fake_helios.config)
    back = read(file, fake_helios).history
    assert torch.equal(back.further, further) and back.count == 4


def test_numbers_that_are_none_are_refused(fake_helios, tmp_path):
    history = make(fake_helios)
    history.window[0, 0, -1, 0, 0] = float("nan")
    path = saved.write(tmp_path / "run.safetensors", history, seed=1, config=fake_helios.config)
    with pytest.raises(ValueError, match="run.safetensors is a damaged saved run: its window holds NaN"):
        saved.read(path, fake_helios.config, fake_helios.backend.array)
