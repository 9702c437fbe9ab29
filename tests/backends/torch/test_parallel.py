"""One transformer on 2 and 4 processes over gloo: the same numbers as on one, equal in all, and the bytes that the docs
say. The oracle is the same model alone, which other tests hold to diffusers'. Named: G21."""

import re
import subprocess
import sys
from pathlib import Path

import helios_video as pack
import pytest
import torch
from helios_video.helios_core import load
from helios_video.helios_core.backends.torch import parallel
from support import ranks
from support.loras import tiny_lora

COUNTS = [2, pytest.param(4, marks=pytest.mark.slow)]
CASES = [(form, grid) for form in ranks.FORMS for grid in ranks.GRIDS]
MOST = {"bf16": 2e-2}  # relative error; the others compute in float32
QUICK = ["halves", "picture", "shared, with a lora", "lora"]
DRIFTS = {"int8": 2e-2}  # the same of two chunks: it computes in bf16
DOCS = Path(pack.__file__).parent / "web" / "docs" / "many_gpus.md"


@pytest.fixture(scope="module", params=COUNTS)
def networks(request, tmp_path_factory):
    return ranks.run(ranks.networks, request.param, tmp_path_factory.mktemp("networks"))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    made = tmp_path_factory.mktemp("videos")
    tiny_lora(made, load())
    return made


@pytest.mark.parametrize("case", CASES, ids=", ".join)
def test_they_compute_what_one_does(networks, case):
    first, *others = (found[case] for found in networks)
    assert first["error"] <= MOST.get(case[0], 1e-6)
    assert all(torch.equal(first["got"], other["got"]) for other in others)


def sent(number, count, current, history, *, layers, width, out, nbytes, branches=1):
    """Bytes that process `number` of `count` sends for one step, by the formula of web/docs/many_gpus.md."""

    def share(n, k):
        return n // count + (k < n % count)

    c, n = share(current, number), share(current, number) + share(history, number)
    there = (layers * 3 * n - (n - c)) * (count - 1)
    back = (layers - 1) * (current + history - n) + current - c
    gathered = (count - 1) * share(current, 0) * out * nbytes
    return branches * ((there + back) * width // count * nbytes + gathered)


@pytest.mark.parametrize("case", CASES, ids=", ".join)
def test_they_send_what_the_docs_say(networks, case):
    for number, found in enumerate(each[case] for each in networks):
        (height, width), history = found["size"], found["history"]
        nbytes = 2 if case[0] == "bf16" else 4
        branches = found.get("texts", 1) * found.get("batch", 1)
        sizes = {"layers": 3, "width": 96, "out": 64, "nbytes": nbytes, "branches": branches}
        current, count = 9 * height * width // 4, len(networks)
        if "halves" in case[0]:  # a branch in each, and its velocity to the other
            half = count // 2
            wanted = sent(number % half, half, current, history, **{**sizes, "branches": 1}) + current * 64 * 4
        else:
            wanted = sent(number, count, current, history, **sizes)
        assert found["counted"] == found["sent"] == wanted


@pytest.mark.parametrize("case", [case for case in CASES if "shared" in case[0]], ids=", ".join)
def test_shared_weights_come_once_a_step(networks, case):
    for found in (each[case] for each in networks):
        counted, wanted = found["weights"]
        assert counted == wanted > 0


def test_halves_need_an_even_number():
    with pytest.raises(ValueError, match="3 have no halves"):
        parallel._halves(0, 3)


def test_the_docs_table_is_that_formula():
    """Of 14B at 640x384 in bf16, the first process: a step at the finest size, and a chunk of two at each of three."""
    history = 4 * 6 * 10 + 12 * 20 + 2 * 24 * 40  # latents 48 high and 80 wide: of 16, 2, and 1 with the first frame
    text = DOCS.read_text(encoding="utf-8").partition("With guidance")[0]
    rows = re.findall(r"^\| (\d+) \| ([\d.]+) GB \| ([\d.]+) GB \|", text, re.M)
    assert [int(row[0]) for row in rows] == [2, 4, 8]
    for count, step, chunk in rows:
        sizes = {"layers": 40, "width": 5120, "out": 64, "nbytes": 2}
        each = [sent(0, int(count), 9 * h * w, history, **sizes) for h, w in ((6, 10), (12, 20), (24, 40))]
        assert (step, chunk) == (f"{each[-1] / 1e9:.1f}", f"{2 * sum(each) / 1e9:.1f}")


def test_the_docs_table_of_halves_is_that_formula():
    text, history = DOCS.read_text(encoding="utf-8"), 4 * 6 * 10 + 12 * 20 + 2 * 24 * 40
    rows = re.findall(r"^\| (\d+) \| ([\d.]+) GB \| ([\d.]+) GB \|$", text[text.index("guided step") :], re.M)
    current, sizes = 9 * 24 * 40, {"layers": 40, "width": 5120, "out": 64, "nbytes": 2}
    assert [int(row[0]) for row in rows[:3]] == [2, 4, 8]
    for count, whole, halves in rows[:3]:
        together = sent(0, int(count), current, history, branches=2, **sizes) / 1e9
        apart = (sent(0, int(count) // 2, current, history, **sizes) + 4 * current * 64) / 1e9
        assert (whole, halves) == (f"{together:.1f}", f"{apart:.1f}" if int(count) > 2 else f"{apart:.3f}")


@pytest.mark.parametrize(("count", "names"), [(2, QUICK), pytest.param(4, list(ranks.VIDEOS), marks=pytest.mark.slow)])
def test_the_first_leads_whole_chunks(count, names, folder):
    found = ranks.run(ranks.videos, count, folder, names)[0]
    assert [name for name in found if isinstance(name, str)] == names
    for name, made in [(name, found[name]) for name in names]:
        for size in ranks.DECODED:
            alone, together = found[name, size]
            assert torch.allclose(together, alone, rtol=0, atol=1e-5), size
        assert float((made["together"] - made["alone"]).norm() / made["alone"].norm()) < DRIFTS.get(name, 1e-4), name


def test_heads_that_cannot_be_shared_are_refused_with_what_can():
    with pytest.raises(ValueError, match="40 attention heads, which 6 GPUs cannot share; 1, 2, 4, 5, 8, 10, 20, 40"):
        parallel.check_heads(40, 6)


def test_nothing_of_it_is_imported_where_it_is_not_asked_for():
    code = f"""
import sys
sys.path[:0] = {sys.path}
import helios_video.helios_core.commands.generate
from helios_video.helios_core import load
assert load().parts.transformer.ranks is None
found = [name for name in sys.modules if name.endswith(("torch.parallel", "leading", "bands", "commands.gpus"))]
assert not found, found
"""
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)
