"""2,000 seeded mutations of what people bring: an exit code, one message, nothing written outside, nothing left over.

Nothing here computes for long: networks are described and not run, and pictures are drawn by a stand-in.
"""

from __future__ import annotations

import json
import random
import shutil
from importlib import import_module
from pathlib import Path

import helios_video as pack
import numpy as np
import pytest
from helios_video.helios_core import load, pipeline
from helios_video.helios_core.checkpoint import open_part
from helios_video.helios_core.cli import main
from helios_video.helios_core.commands import bench, failures, probe, study
from helios_video.helios_core.generate import ChunkDone
from helios_video.helios_core.history import saved
from helios_video.helios_core.lora import read_lora
from helios_video.helios_core.steps import SampleStep
from helios_video.helios_core.study import ul, ve
from helios_video.helios_core.training.tiny import run as tiny_run
from helios_video.helios_core.training.ul import decoder_run
from helios_video.helios_core.training.ul import run as ul_run
from helios_video.helios_core.training.ve import run as ve_run
from helios_video.helios_core.ul import open_file
from support.fuzz import NUMBERS, TEXTS, faults, listing, mutate_bytes, mutated_header, mutated_text
from support.loras import lora_folder
from support.published import make_published

ROOT = Path(pack.__file__).parent
ROUNDS = 40  # of these tests, each with so many mutations: (8 + 12 + 14 + 6 + 10) x 40


@pytest.fixture(autouse=True)
def quiet(caplog):
    caplog.set_level("CRITICAL")


@pytest.fixture
def here(monkeypatch, tmp_path):
    """A folder in a folder: what is written beside it is seen."""
    folder = tmp_path / "a" / "here"
    folder.mkdir(parents=True)
    monkeypatch.chdir(folder)
    return folder


def check(here, capsys, act, rng_name, *, makes=(".mp4",)) -> None:
    """Runs it. makes: endings of what a finished run leaves."""
    root = here.parents[1]
    before = listing(root)
    try:
        code = act()
    except SystemExit as stop:  # argparse
        code = stop.code or 0
    new = listing(root) - before
    found = faults(code, capsys.readouterr().err)
    found += [f"left {name}" for name in new if not name.startswith("a/here/") or not name.endswith(makes) or code == 2]
    assert not found, f"{rng_name}: {found}"
    for name in sorted(new, reverse=True):
        path = root / name
        path.rmdir() if path.is_dir() else path.unlink()


def told(act) -> int:
    """What `main` makes of what `act` raises."""
    with failures.caught("generate") as found:
        act()
    return failures.tell(found[0], "generate") if found else 0


@pytest.fixture(scope="module")
def headers(tmp_path_factory):
    """Files of every kind with a header, the length of it, and who reads them."""
    folder = tmp_path_factory.mktemp("headers")
    lora = next(lora_folder(folder).rglob("*.safetensors"))
    helios = load()
    shapes = helios.backend.shapes(helios.config.transformer)
    run = saved.write(folder / "run.safetensors", helios.history(64, 64), seed=3, config=helios.config)
    parts = {
        part: next((pipeline.TINY / part).glob("*.safetensors")) for part in ("transformer", "vae", "text_encoder")
    }
    readers = [(file, lambda path, part=part: open_part(path, part)) for part, file in parts.items()]
    readers += [(lora, lambda path: read_lora(path, shapes)), (lora, lambda path: read_lora(path, shapes))]
    readers += [(run, lambda path: saved.read(path, helios.config, helios.backend.array))] * 2
    readers += [(next(ROOT.glob("helios_core/assets/**/*ul*.safetensors"), run), open_file)]
    return [(file.name, file.read_bytes(), read) for file, read in readers]


@pytest.mark.parametrize("round", range(ROUNDS))
def test_headers(headers, here, capsys, round):
    for number, (name, data, read) in enumerate(headers):
        rng = random.Random(f"header {round} {number}")
        path = here / name
        path.write_bytes(mutated_header(data, rng))
        check(here, capsys, lambda path=path, read=read: told(lambda: read(path)), f"{name}, {round} {number}")


@pytest.fixture(scope="module")
def published(tmp_path_factory):
    folder = make_published(tmp_path_factory.mktemp("published") / "p")
    shutil.copy(pipeline.TINY / "tokenizer" / "tokenizer.json", folder / "tokenizer" / "tokenizer.json")
    return folder


def look(folder: Path) -> None:
    """Everything that is done with a checkpoint before its weights are read."""
    helios = load(folder)
    helios.parts.needs(64, 64)
    plan = helios.plan(helios.history(64, 64))
    for stage in range(plan.schedule.stages):
        plan.stage_steps(stage, (1, 16, 9, 2, 2))


@pytest.mark.parametrize("round", range(ROUNDS))
def test_configs(published, here, capsys, round):
    files = [path for path in sorted(published.rglob("*.json")) if path.name != "tokenizer.json"]
    for number in range(12):
        rng = random.Random(f"config {round} {number}")
        file = rng.choice(files)
        good = file.read_bytes()
        try:
            file.write_bytes(mutated_text(json.loads(good), rng))
            check(here, capsys, lambda: told(lambda: look(published)), f"{file.name}, {round} {number}")
        finally:
            file.write_bytes(good)


@pytest.mark.parametrize("round", range(ROUNDS))
def test_workflows(here, capsys, monkeypatch, round):
    monkeypatch.setattr(import_module("helios_video.helios_core.workflow.run"), "execute", lambda *_: None)
    files = sorted((ROOT / "workflows").rglob("*.json"))
    for number in range(14):
        rng = random.Random(f"workflow {round} {number}")
        source = rng.choice(files)
        Path("w.json").write_bytes(mutated_text(json.loads(source.read_bytes()), rng))
        check(here, capsys, lambda: main(["run", "w.json", "--output-dir", "."]), f"{source.name}, {round} {number}")


@pytest.fixture
def drawn(monkeypatch):
    """The real pipeline up to its first step; then a step and a frame that nobody computed."""

    def chunks(helios, schedule, negative, history, total, *_):
        width, height = helios.pixels(history)
        for chunk in range(min(total, 2)):
            yield SampleStep(chunk, 0, 0, 1, None, None)
            frames = iter([np.broadcast_to(np.uint8(40), (33, height, width, 3))])
            yield ChunkDone(chunk, min(total, 2), None, frames, history)

    monkeypatch.setattr(import_module("helios_video.helios_core.generate"), "_chunks", chunks)
    monkeypatch.setattr(pipeline.Helios, "encode_ahead", lambda *_, **__: None)


SMALL = ("--width", "64", "--height", "64")
TABLE = 'prompt,negative,seed,frames,output,image\n"a, b",grey,7,1,one.mp4,\nc,,,,,\nd,,5,2,sub/two.mp4,x.png\n'


@pytest.mark.parametrize("round", range(ROUNDS))
def test_tables(here, capsys, drawn, round):
    for number in range(6):
        rng = random.Random(f"table {round} {number}")
        text = TABLE
        for _ in range(rng.randint(1, 3)):
            old = rng.choice(("grey", "one.mp4", "7", "5", "sub/two.mp4", "x.png", "c", "seed", ",", "\n"))
            text = text.replace(old, rng.choice((*TEXTS, *map(str, NUMBERS[:12]), '"', ",", "\r")), 1)
        data = text.encode("utf-8", "surrogatepass")
        Path("p.csv").write_bytes(mutate_bytes(data, rng) if rng.random() < 0.3 else data)
        check(
            here,
            capsys,
            lambda: main(["generate", "--prompts-file", "p.csv", "--frames", "1", *SMALL]),
            f"{round} {number}",
        )


COMMANDS = {
    "generate": (
        *("--prompt", "--prompts-at", "--prompts-file", "-o", "--negative", "--model", "--text-encoder", "--vae"),
        *("--lora", "--lora-mode", "--lora-companion", "--width", "--height", "--frames", "--length", "--seed"),
        *("--steps", "--cfg", "--solver", "--guidance", "--zero-steps", "--anti-drift", "--boundary", "--fps"),
        *("--boundary-frames", "--image", "--video", "--resume", "--save-history", "--start-noise", "--threads"),
    ),
    "run": ("--set", "--input-dir", "--output-dir", "--threads"),
    "convert": ("--format", "--quantize", "--parts", "--text-encoder", "--vae"),
    "bench": ("--model", "-o", "--prompts", "--seeds", "--chunks", "--batch", "--setting", "--anti-drift", "--threads"),
    "probe-vae": ("--model", "--vae", "-o", "--probes", "--weight", "--tile", "--pieces", "--seed", "--threads"),
    "study": ("--model", "--vae", "-o", "--page", "--prompts", "--seeds", "--chunks", "--part", "--data", "--steps"),
    "train": ("--config", "--folder", "-o", "--steps", "--lr", "--data", "--vae", "--size", "--device", "--threads"),
}
WORDS = (*TEXTS, *map(str, NUMBERS), "a", "w.json", "x.png", ".", "a:1", "match", "1,1", "0: a; 1: b", "p.csv")
PLAIN = ("0", "-1", "1", "2", "3", "5", "100000000", "100000000000000000000", "1e30", "nan", "0.0001", "0.5")
FIRST = {"bench": ["tiny"], "run": ["w.json"], "convert": ["helios-tiny", "out"], "probe-vae": ["x.png"]}
WORK = ((bench, "load"), (probe, "load"), (study, "load"), (tiny_run, "run"), (ul_run, "run"), (decoder_run, "run"))


@pytest.mark.parametrize("round", range(ROUNDS))
def test_command_lines(here, capsys, monkeypatch, drawn, round):
    def began(*_, **__):
        raise ValueError("the work began")

    for module, name in (*WORK, (ve_run, "run"), (ve, "cut_patches"), (ul, "study")):
        monkeypatch.setattr(module, name, began)
    monkeypatch.setattr("helios_video.helios_core.commands.convert.convert", began)
    Path("w.json").write_text("{}")
    Path("p.csv").write_text(TABLE)
    Path("x.png").write_bytes(b"no picture")
    for number in range(10):
        rng = random.Random(f"line {round} {number}")
        command = rng.choice(["generate", *COMMANDS])
        line = [command, *FIRST.get(command, [])]
        line += [rng.choice(("policies", "ul", "ve"))] if command == "study" else []
        line += [rng.choice(("tiny", "ve", "ul", "ul-decoder"))] if command == "train" else []
        line += ["--prompt", "a", "--frames", "1", *SMALL] if command == "generate" else []
        for option in rng.sample(COMMANDS[command], rng.randint(1, 3)):
            line += [option, rng.choice(rng.choice((WORDS, PLAIN)))]
        check(here, capsys, lambda line=line: main(line), f"{line}, {round} {number}"[:400], makes=(".mp4", "_chunks"))
