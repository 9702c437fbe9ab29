"""`helios generate --prompts-file --ray`: a cluster of three nodes on a CPU, one of them killed in the middle; what
needs no Ray is tested without. Named: G22."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import helios_video as pack
import numpy as np
import pytest
from helios_video.helios_core.cli import main
from helios_video.helios_core.commands import renderer
from helios_video.helios_core.commands.events import Encoded, Failed, Made, Opened, Said, Share
from helios_video.helios_core.disk import journal
from helios_video.helios_core.join import video

SHORT = ["--frames", "198", "--steps", "1,1,1"]


def rows(folder, *prompts):
    (folder / "p.csv").write_text("prompt,seed\n" + "".join(f"{p},{i}\n" for i, p in enumerate(prompts)))


@pytest.fixture
def there(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HELIOS_CACHE", "off")
    rows(tmp_path, "a red circle", "a blue square")
    return tmp_path


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--prompt", "a", "--ray"], "--ray spreads the videos of --prompts-file"),
        (["--prompts-file", "p.csv", "--ray", "--gpus", "0"], "--gpus must be at least 1"),
        (["--prompts-file", "p.csv", "--ray", "--shard"], "--shard shares the blocks out"),
        (["--prompts-file", "p.csv", "--ray", "--live"], "--live shows one video"),
        (["--prompts-file", "p.csv", "--actors", "2"], "--actors says how many of --ray"),
        (["--prompts-file", "p.csv", "--ray", "--actors", "0"], "--actors must be at least 1"),
        (["--prompts-file", "p.csv", "--ray", "-o", "nowhere://a/b.mp4"], "nowhere://a/b_0001.mp4 cannot be opened"),
    ],
)
def test_what_cannot_be_is_refused_before_anything_starts(there, capsys, options, says):
    assert main(["generate", *options]) == 2
    assert says in capsys.readouterr().err and [p.name for p in there.iterdir()] == ["p.csv"]


def test_without_ray_it_says_what_to_install(there, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    assert main(["generate", "--prompts-file", "p.csv", "--ray"]) == 2
    assert "pip install 'helios-video[ray]'" in capsys.readouterr().err


def an_actor(folder, output, *options):
    """A renderer as an actor has it, and its films."""
    from helios_video.helios_core.cli import parser
    from helios_video.helios_core.commands import batch, cluster

    args = parser().parse_args(["generate", "--prompts-file", "p.csv", *SHORT, "-o", output, "--ray", *options])
    args.line, args.seed = [], 0
    with cluster.place(args) as url:
        jobs, _ = batch.read_jobs(Path("p.csv"), args)
    films = [renderer.FilmTask(job.args, url and f"{url}/{job.out.name}") for job in jobs]
    return renderer.Renderer(args, str(folder)), films


def test_an_actor_says_what_it_does_and_a_film_that_fails_does_not_end_it(there, monkeypatch):
    actor, films = an_actor(there, "out.mp4")
    opened, encoded = actor.work(renderer.Texts(["a red circle"], ["grey"]))
    assert isinstance(opened, Opened) and "needed with offload" in opened.text
    assert isinstance(encoded, Encoded) and list(encoded.rows) == ["a red circle"]
    films[1].args.prompt = "a blue square"
    monkeypatch.setattr(actor.model.embeddings, "encode", lambda text: 1 / 0)
    *events, made = actor.work(films[0], encoded.rows)
    shares = [event.done for event in events if isinstance(event, Share)]
    assert made == Made() and shares == sorted(shares) and shares[-1] == 1 and (there / "out_0001.mp4").is_file()
    assert [event.text[:13] for event in events if isinstance(event, Said)] == ["198 frames in"]
    (failed,) = actor.work(films[1], encoded.rows)
    assert isinstance(failed, Failed) and "ZeroDivisionError" in failed.text
    assert [*actor.work(films[0], encoded.rows)] == [Made()], "it is there already"
    assert sorted(p.name for p in there.iterdir()) == ["out_0001.mp4", "p.csv"]


def test_at_a_url_a_film_goes_on_from_what_another_left_there(there, monkeypatch):
    import fsspec
    from helios_video.helios_core.disk import mirror

    monkeypatch.setattr(mirror, "EVERY", 0.01)
    files = fsspec.filesystem("memory")
    actor, (film, _) = an_actor(there, "memory://bucket/some/film.mp4")
    alone, (own, _) = an_actor(there, "film.mp4")
    assert [*alone.work(own)][-1] == Made()
    for event in actor.work(film):
        if isinstance(event, Share) and event.text.startswith("chunk 4"):
            monkeypatch.setattr(renderer, "render", stopped)
            monkeypatch.setattr(actor.model.parts, "ready", stopped)
    left = files.find("/bucket/some")
    assert isinstance(event, Failed) and len([path for path in left if path.endswith(".mp4")]) >= 2, left
    assert "/bucket/some/film_0001_chunks/journal.jsonl" in left
    monkeypatch.undo()
    monkeypatch.chdir(there)
    monkeypatch.setenv("HELIOS_CACHE", "off")
    other, (film, _) = an_actor(there, "memory://bucket/some/film.mp4")
    *events, made = other.work(film)
    assert made == Made() and any("going on in" in event.text for event in events if isinstance(event, Said))
    assert files.find("/bucket/some") == ["/bucket/some/film_0001.mp4"]
    assert files.cat_file("/bucket/some/film_0001.mp4") == (there / "film_0001.mp4").read_bytes()
    files.rm("/bucket", recursive=True)


def stopped(*_, **__):
    raise RuntimeError("stopped")


def begin(folder, *line):
    path = os.pathsep.join([str(Path(pack.__file__).parents[1]), *sys.path])
    command = [sys.executable, "-m", "helios_video.helios_core.cli", "generate", "--prompts-file", "p.csv", *line]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    own = {"PYTHONPATH": path, "HELIOS_CACHE": "off", "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(command, cwd=folder, env={**os.environ, **own}, **pipes)


def ended(process, seconds=400):
    out, err = process.communicate(timeout=seconds)
    return process.returncode, out.split(), err


@pytest.fixture
def nodes():
    pytest.importorskip("ray")
    from ray.cluster_utils import Cluster

    own = {"num_cpus": 1, "object_store_memory": 2**27, "include_dashboard": False}
    made = Cluster(initialize_head=True, head_node_args=own)
    made.others = [made.add_node(**own) for _ in range(2)]
    yield made
    made.shutdown()


@pytest.mark.slow
def test_a_node_that_is_killed_costs_no_video_and_makes_none_twice(tmp_path, nodes):
    rows(tmp_path, *(f"a red circle {i}" for i in range(12)))
    run = begin(tmp_path, *SHORT, "-o", "out.mp4", "--ray", nodes.address)
    end = time.monotonic() + 300
    while time.monotonic() < end and run.poll() is None:  # until every actor has finished a chunk of its video
        begun = [*tmp_path.glob("out_*_chunks")]
        if len(begun) == 3 and all(map(journal.playable, begun)):
            break
        time.sleep(0.01)
    nodes.remove_node(nodes.others[0], allow_graceful=False)
    code, out, err = ended(run)
    names = [f"out_{i:04d}.mp4" for i in range(1, 13)]
    assert code == 0 and sorted(out) == names, err
    assert err.count("its actor is lost") == 1 and "going on in" in err, err
    assert sorted(p.name for p in tmp_path.iterdir()) == [*names, "p.csv"]
    assert ended(begin(tmp_path, *SHORT, "-o", "one.mp4"))[0] == 0
    for name in names:
        assert (tmp_path / name).read_bytes() == (tmp_path / name.replace("out", "one")).read_bytes()


@pytest.mark.slow
def test_a_local_ray_reports_what_fails_and_the_same_command_makes_what_is_missing(tmp_path):
    pytest.importorskip("ray")
    rows(tmp_path, "a red circle", "", "a blue square")
    (tmp_path / "p.csv").write_text("prompt,output\na red circle,a.mp4\n,b.mp4\na blue square,c.mp4\n")
    (tmp_path / "c_chunks").mkdir()
    (tmp_path / "c_chunks" / "journal.jsonl").write_text('{"format": "another"}\n')
    url = f"file://{tmp_path}/out/film.mp4"
    line = [*SHORT, "--frames", "33", "--ray", "--actors", "2"]
    code, out, err = ended(begin(tmp_path, *line))
    assert code == 1 and out == ["a.mp4"], err
    assert "2 of 3 failed" in err and "line 3 (): prompt: the prompt is empty" in err.replace("  ", " "), err
    assert "c_chunks/journal.jsonl is no journal" in err
    (tmp_path / "c_chunks" / "journal.jsonl").unlink()
    code, out, err = ended(begin(tmp_path, *line))
    assert code == 1 and out == ["c.mp4"] and "a.mp4 is there already" in err, err
    code, out, err = ended(begin(tmp_path, *line, "-o", url))
    assert out == [f"file://{tmp_path}/out/a.mp4", f"file://{tmp_path}/out/c.mp4"] and code == 1, err
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == ["a.mp4", "c.mp4"]
    assert (tmp_path / "out" / "a.mp4").read_bytes() == (tmp_path / "a.mp4").read_bytes()


@pytest.mark.slow
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
def test_an_actor_of_two_processes_makes_what_one_makes_and_is_replaced_when_one_dies(tmp_path):
    pytest.importorskip("ray")
    rows(tmp_path, "a red circle", "a blue square")
    line = [*SHORT, "--weight-dtype", "fp32", "--cfg", "2"]
    run = begin(tmp_path, *line, "-o", "two.mp4", "--ray", "--gpus", "2", "--split-guidance", "--actors", "1")
    end = time.monotonic() + 200
    while time.monotonic() < end and run.poll() is None and not all_playable(tmp_path, 2):
        time.sleep(0.02)
    followers = [pid for pid in processes() if environ_of(pid, "RANK") == "1" and str(tmp_path) in working_at(pid)]
    assert len(followers) == 1
    os.kill(followers[0], signal.SIGKILL)
    code, out, err = ended(run)
    assert code == 0 and sorted(out) == ["two_0001.mp4", "two_0002.mp4"], err
    assert "on 1 actor of 2 GPUs each" in err and err.count("its actor is lost") == 1 and "going on in" in err, err
    assert ended(begin(tmp_path, *line, "-o", "one.mp4"))[0] == 0
    for name in ("0001.mp4", "0002.mp4"):
        one, two = (video.read_frames(tmp_path / f"{n}_{name}").astype(np.float32) for n in ("one", "two"))
        assert one.shape == two.shape and float(np.abs(one - two).mean()) < 2.0
    assert not [pid for pid in processes() if environ_of(pid, "RANK") == "1" and str(tmp_path) in working_at(pid)]


def all_playable(folder, count):
    return any(len(journal.playable(root)) >= count for root in folder.glob("*_chunks"))


def processes():
    return [int(path.name) for path in Path("/proc").iterdir() if path.name.isdigit()]


def environ_of(pid, name):
    try:
        words = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
    except OSError:
        return None
    return next((word.decode().partition("=")[2] for word in words if word.startswith(f"{name}=".encode())), None)


def working_at(pid):
    try:
        return os.readlink(f"/proc/{pid}/cwd")
    except OSError:
        return ""
