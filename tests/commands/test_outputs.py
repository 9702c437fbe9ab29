"""What the commands write: never over what they read, over other files only if asked, tried before any work."""

import os
import shutil

import numpy as np
import pytest
from helios_video.helios_core import cli, pipeline
from helios_video.helios_core.cli import main
from helios_video.helios_core.commands import batch, bench, probe, render
from helios_video.helios_core.commands.outputs import check_report
from helios_video.helios_core.convert import convert
from helios_video.helios_core.history import saved
from helios_video.helios_core.join import video
from safetensors.numpy import save_file


def generate(*options):
    return main(["generate", "--prompt", "a", "--frames", "1", *options])


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_an_existing_file_stays_and_the_next_free_name_is_said(fake, tmp_path, capsys):
    (tmp_path / "out.mp4").write_bytes(b"mine")
    for name in ("out_2.mp4", "out_3.mp4"):
        assert generate("-o", "out.mp4") == 0
        printed = capsys.readouterr()
        assert printed.out == f"{name}\n" and f"out.mp4 is there already; this video becomes {name}" in printed.err
        assert "--overwrite" in printed.err and video.probe(name).frames == 1
    assert (tmp_path / "out.mp4").read_bytes() == b"mine" and names(tmp_path) == ["out.mp4", "out_2.mp4", "out_3.mp4"]


def test_overwrite_replaces_it(fake, tmp_path, capsys):
    (tmp_path / "out.mp4").write_bytes(b"mine")
    assert generate("-o", "out.mp4", "--overwrite") == 0
    printed = capsys.readouterr()
    assert printed.out == "out.mp4\n" and "already" not in printed.err
    assert video.probe("out.mp4").frames == 1 and names(tmp_path) == ["out.mp4"]


def test_a_run_that_fails_leaves_the_file_that_it_was_to_replace(fake, tmp_path):
    (tmp_path / "out.mp4").write_bytes(b"mine")
    fake.fails = ValueError("NaN")
    assert main(["generate", "--prompt", "a", "--frames", "99", "-o", "out.mp4", "--overwrite"]) == 2
    assert (tmp_path / "out.mp4").read_bytes() == b"mine"


def test_of_two_runs_with_one_output_the_second_is_refused_by_name(fake, tmp_path, capsys):
    """It begins while the first is in its second chunk."""
    inner, begun = fake.generate, []

    def generate_within(prompt, **settings):
        for event in inner(prompt, **settings):
            if event.index == 1 and not begun:
                begun.append(1)
                for prompt in "ab":
                    assert main(["generate", "--prompt", prompt, "--frames", "66", "-o", "out.mp4"]) == 2
                assert main(["generate", "--prompt", "b", "--frames", "66", "-o", "other.mp4"]) == 0
            yield event

    fake.generate = generate_within
    assert main(["generate", "--prompt", "a", "--frames", "66", "-o", "out.mp4"]) == 0
    said = capsys.readouterr()
    assert said.err.count("another run is at work in out_chunks; wait for it, or name another output") == 2
    assert said.out.split() == ["other.mp4", "out.mp4"] and names(tmp_path) == ["other.mp4", "out.mp4"]
    assert [video.read_metadata(name)["helios"]["prompt"] for name in names(tmp_path)] == ["b", "a"]
    assert [video.probe(name).frames for name in names(tmp_path)] == [66, 66]


PATHS = {
    "same": lambda source: source,
    "spelling": lambda source: source.parent / ".." / source.parent.name / source.name,
    "hard link": lambda source: link(os.link, source),
    "link": lambda source: link(os.symlink, source),
}


def link(make, source):
    make(source, other := source.with_name("other.mp4"))
    return other


@pytest.mark.parametrize("option", ["--video", "--image", "--resume"])
@pytest.mark.parametrize("path", PATHS)
def test_a_run_never_writes_over_what_it_reads(fake, tmp_path, capsys, monkeypatch, option, path):
    """By none of its names."""
    source = tmp_path / "mine.mp4"
    source.write_bytes(b"mine")
    out = PATHS[path](source)
    monkeypatch.setattr(saved, "read_seed", lambda path: 0)
    assert generate(option, str(source), "-o", str(out), "--overwrite") == 2
    said = capsys.readouterr().err
    assert f"is what {option} reads; name another output" in said and said.count("\n") == 1
    assert source.read_bytes() == b"mine" and fake.asked is None


def test_without_overwrite_it_gets_a_name_of_its_own(fake, tmp_path, monkeypatch):
    video.write_video("mine.mp4", np.zeros((1, 64, 64, 3), np.uint8))
    before = (tmp_path / "mine.mp4").read_bytes()
    monkeypatch.setattr(render.start, "begin", lambda model, args, journal: None)
    assert generate("--video", "mine.mp4", "-o", "mine.mp4") == 0
    assert (tmp_path / "mine.mp4").read_bytes() == before and names(tmp_path) == ["mine.mp4", "mine_2.mp4"]


@pytest.mark.parametrize("more", [(), ("--overwrite",)])
@pytest.mark.parametrize(
    ("file", "text", "options", "says"),
    [
        ("out_0002.mp4", "a\nb\n", (), "line 2 (b) is left out: out_0002.mp4 is what --prompts-file reads"),
        ("p.csv", "prompt,output\na,b.mp4\n", ("--video", "b.mp4"), "line 2: b.mp4 is what --video reads"),
        ("p.csv", "prompt,output,image\na,b.mp4,b.mp4\n", (), "line 2: b.mp4 is what --image reads"),
        ("p.csv", "prompt,output,image\na,b.mp4,\nc,c.mp4,b.mp4\n", (), "b.mp4 is the picture that line 3 begins with"),
        ("p.csv", "prompt,output\na,c.mp4\nb,./c.mp4\n", (), "lines 2 and 3 both write c.mp4"),
    ],
)
def test_nor_does_a_row_of_prompts(fake, tmp_path, capsys, monkeypatch, file, text, options, says, more):
    (tmp_path / "in").mkdir()
    (tmp_path / "b.mp4").write_bytes(b"mine")
    (tmp_path / file).write_text(text)
    monkeypatch.setattr(render.start, "begin", lambda model, args, journal: None)
    monkeypatch.setattr(batch, "announce", lambda model, args: None)
    assert main(["generate", "--prompts-file", file, "-o", "out.mp4", *options, *more]) in (1, 2)
    assert says in capsys.readouterr().err
    assert (tmp_path / "b.mp4").read_bytes() == b"mine" and (tmp_path / file).read_text() == text


@pytest.fixture
def untouched(monkeypatch):
    """Nothing is loaded: every output was tried before."""

    def load(*_, **__):
        raise AssertionError("the work began")

    for module in (render, bench, probe):
        monkeypatch.setattr(module, "load", load)


WEIGHTS = {"a": np.ones(2, np.float32)}


@pytest.mark.parametrize("what", ["weights", "a model's", "text", "nothing"])
def test_a_history_never_replaces_another_file(untouched, tmp_path, monkeypatch, capsys, what):
    """Nor does one that is named as the VAE at the same time."""
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "wan_vae.safetensors"
    if what == "a model's":
        shutil.copy(next((pipeline.TINY / "vae").glob("*.safetensors")), path)
    elif what == "weights":
        save_file(WEIGHTS, path)
    else:
        path.write_bytes(b"" if what == "nothing" else b"some words of text, of more than eight bytes")
    before = path.read_bytes()
    for options in ((), ("--vae", path.name), ("--overwrite",)):
        assert generate("--save-history", path.name, *options) == 2
        assert "is no saved run, so it is not replaced" in capsys.readouterr().err
    assert path.read_bytes() == before and names(tmp_path) == [path.name]


def test_a_history_replaces_one(fake, tmp_path, fake_helios):
    """Another day's or another model's: that is what the file is for."""
    saved.write("run.safetensors", fake_helios.history(64, 64), seed=3, config=fake_helios.config)
    args = cli.parser().parse_args(["generate", "--prompt", "a", "--save-history", "run.safetensors"])
    render.start.check(args)
    saved.write("run.safetensors", fake_helios.history(64, 64), seed=4, config=fake_helios.config)
    assert saved.read_seed("run.safetensors") == 4
    save_file(WEIGHTS, "other.safetensors")
    with pytest.raises(ValueError, match="is no saved run, so it is not replaced"):
        saved.write("other.safetensors", fake_helios.history(64, 64), seed=4, config=fake_helios.config)


def test_folders_for_reports_are_tried_before_the_work(untouched, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").write_text("mine")
    picture(tmp_path / "a.png")
    for command in (["bench", "tiny"], ["probe-vae", "a.png"]):
        for folder in ("file", "file/in"):
            assert main([*command, "-o", folder]) == 2
            assert f"cannot write into {folder}: " in capsys.readouterr().err
    assert names(tmp_path) == ["a.png", "file"] and (tmp_path / "file").read_text() == "mine"


def picture(path):
    from PIL import Image

    Image.fromarray(np.zeros((16, 16, 3), np.uint8)).save(path)


@pytest.mark.parametrize("name", probe.FIGURES)
def test_figures_never_replace_the_pictures(untouched, tmp_path, capsys, name):
    picture(tmp_path / name)
    before = (tmp_path / name).read_bytes()
    assert main(["probe-vae", str(tmp_path), "-o", str(tmp_path)]) == 2
    assert f"{name} is what the list of pictures reads" in capsys.readouterr().err
    assert (tmp_path / name).read_bytes() == before and names(tmp_path) == [name]


def test_convert_tries_its_folder_too(tmp_path):
    (tmp_path / "file").write_text("mine")
    for name in ("file/out", "file/out.safetensors"):
        with pytest.raises(ValueError, match="cannot write into .*file: "):
            convert(pipeline.TINY, tmp_path / name)
    assert names(tmp_path) == ["file"]


def test_help_tells_of_it(capsys):
    with pytest.raises(SystemExit):
        main(["generate", "--help"])
    said = " ".join(capsys.readouterr().out.split())
    assert "the next free name, such as helios_2.mp4" in said and "replace --output if it is there already" in said
    assert "a file that is no saved run is not replaced" in said


def test_reports_replace_earlier_reports_and_nothing_else(untouched, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    picture(tmp_path / "a.png")
    (tmp_path / "results.json").write_text("mine")
    (tmp_path / "probe.txt").write_text("mine")
    (tmp_path / "README.md").write_text("mine")
    for line in (["bench", "tiny", "-o", "."], ["probe-vae", "a.png", "-o", "."], [*STUDY, "--page", "README.md"]):
        assert main(line) == 2
        assert "is there already and is no" in capsys.readouterr().err
    for name in probe.FIGURES + probe.TEXTS:
        (tmp_path / name).write_text("an earlier report's")
    check_report(tmp_path, (*probe.TEXTS, *probe.FIGURES))


STUDY = ["study", "ul", "--quick", "-o", "study"]
