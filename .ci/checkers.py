"""What others' checkers of ComfyUI packs say of this one, as the registry ships it: python .ci/checkers.py

Runs comfy-test (syntax, javascript, coverage, hazards), nodesafe and comfy-import-guard in an environment of their own.
What cannot be had is named and left out. Fails for what is not in ALLOWED; web/docs/developing.md gives the reasons.
comfy-test's validation and comfy-lint ask a running ComfyUI: tests/comfyui/test_checkers.py.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import venv
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
COMFYUI = "https://github.com/comfyanonymous/ComfyUI"
PATIENCE = 180  # seconds, for what comes over the network

TORCH_ALONE = ("helios_core/backends", "helios_core/training")  # networks without ComfyUI, and what trains them
ALLOWED = {
    "javascript": {
        ("js/panel.js", "shared-dom-injection"),
        ("js/run.js", "shared-object-monkeypatch"),
        ("js/templates.js", "shared-object-monkeypatch"),
    },
    "coverage": {"HeliosLora", "HeliosTrainLora", "HeliosULEncode"},
    "hazards": {"hardcoded-precision"},
    "import_guard": {"comfy.model_patcher.CoreModelPatcher", "comfy.ops.mixed_precision_ops"},
}
HAZARDS = """
import json, sys
from pathlib import Path
from comfy_test.orchestration.levels.hazards import CHECKS
print(json.dumps({name: found for _, name, _, check in CHECKS if (found := check(Path(sys.argv[1])))}))
"""


def main() -> int:
    """The exit status: 0 also where nothing could be had."""
    with tempfile.TemporaryDirectory() as work:
        place, bad = Path(work), []
        tools, pack = install(place / "venv"), shipped(place / "helios-video")
        for check, tool in CHECKS.items():
            if any(tools.glob(f"{tool}*")):
                bad += check(tools, pack, place)
    print(*bad, sep="\n", end="\n" if bad else "", file=sys.stderr)
    return bool(bad)


def install(place: Path) -> Path:
    """The folder of the tools' commands; names those that cannot be had."""
    venv.create(place, with_pip=True)
    tools = place / ("Scripts" if os.name == "nt" else "bin")
    for wanted in (ROOT / ".ci" / "checkers.txt").read_text().split():
        try:
            run([tools / "python", "-m", "pip", "install", "-q", wanted], timeout=PATIENCE, check=True)
        except (subprocess.SubprocessError, OSError) as error:
            why = (getattr(error, "stderr", "") or str(error)).strip().split("\n")[-1]
            print(f"{wanted}: not run, it cannot be had here: {why}")
    return tools


def shipped(place: Path) -> Path:
    """A copy of the files that the registry's package has."""
    out = (ROOT / ".comfyignore").read_text().split()
    names = run(["git", "ls-files"], cwd=ROOT, check=True).stdout.split("\n")
    for name in filter(None, names):
        if not any(name == path or name.startswith(path.rstrip("/") + "/") for path in out) and (ROOT / name).is_file():
            target = place / name
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(ROOT / name, target)
    shutil.copyfile(ROOT / "comfy-test.toml", place / "comfy-test.toml")
    return place


def run(command: list, **options) -> subprocess.CompletedProcess:
    """With its output as text."""
    return subprocess.run([str(part) for part in command], capture_output=True, encoding="utf-8", **options)


def lint(tools: Path, pack: Path, check: str) -> dict:
    """comfy-test's own words about a check that reads source."""
    return json.loads(run([tools / "comfy-test", "lint", "--check", check, "--json", pack]).stdout)["results"][check]


def syntax(tools, pack, work):
    """comfy-test over all but what computes without ComfyUI."""
    part = work / "syntax"
    shutil.copytree(pack, part)
    for name in TORCH_ALONE:
        shutil.rmtree(part / name)
    found = lint(tools, part, "syntax")
    print("comfy-test syntax:", "passed" if found["passed"] else "failed")
    return [] if found["passed"] else [f"comfy-test syntax: {found['error']}\n{found['details']}"]


def javascript(tools, pack, work):
    """comfy-test over web/."""
    found = lint(tools, pack, "javascript")["findings"]
    bad = [f for f in found if f["level"] == "error" and (f["file"], f["rule"]) not in ALLOWED["javascript"]]
    print(f"comfy-test javascript: {len(found)} found, {len(found) - len(bad)} of them known")
    return [f"comfy-test javascript: {f['file']}:{f['line']} {f['message']}" for f in bad]


def coverage(tools, pack, work):
    """Nodes that no workflow uses."""
    found = json.loads(run([tools / "comfy-test", "coverage", "--json", pack]).stdout)["untested"]
    print(f"comfy-test coverage: in no workflow: {', '.join(found) or 'none'}")
    return [f"comfy-test coverage: no workflow uses {name}" for name in sorted(set(found) - ALLOWED["coverage"])]


def hazards(tools, pack, work):
    """comfy-test's list of habits that hurt other packs."""
    found = json.loads(run([tools / "python", "-c", HAZARDS, pack], check=True).stdout)
    print(f"comfy-test hazards: {', '.join(found) or 'none'}")
    return [f"comfy-test hazards: {name}: {found[name]}" for name in sorted(set(found) - ALLOWED["hazards"])]


def nodesafe(tools, pack, work):
    """Its verdict: "malicious" is a fault of the pack, "suspicious" is what it says of any pack of some size."""
    report = json.loads(run([tools / "nodesafe", "scan", pack, "--format", "json", "--fail-on", "none"]).stdout)
    print(f"nodesafe: {report['verdict']['label']}, {len(report['findings'])} found")
    worst = [f for f in report["findings"] if f["severity"] in ("high", "critical")]
    return [f"nodesafe: {f['file']}:{f['line']} {f['title']}: {f['snippet']}" for f in worst]


def import_guard(tools, pack, work):
    """Whether what the pack imports of ComfyUI is there, in the one at COMFYUI_PATH, else in today's."""
    clone = comfyui(work / "guard" / "ComfyUI")
    if clone is None:
        print("comfy-import-guard: not run, no ComfyUI to be had")
        return []
    packs = work / "install" / "custom_nodes"
    packs.mkdir(parents=True)
    shutil.copytree(pack, packs / "helios-video")
    where = ["--offline", "--cache-dir", clone.parent, "--comfy-dir", packs.parent, "--target", "HEAD"]
    (found,) = json.loads(run([tools / "comfy-import-guard", "check", "--json", *where]).stdout)["packs"]
    bad = [f for f in found["breaking"] if f["dotted"] not in ALLOWED["import_guard"]] + found["signature_drift"]
    print(f"comfy-import-guard: {found['references']} references, {len(found['breaking'])} missing, {len(bad)} unknown")
    return [f"comfy-import-guard: {f['dotted']} {f}" for f in bad]


def comfyui(place: Path) -> Path | None:
    """A git repository of ComfyUI's source, which the guard asks for."""
    given = os.environ.get("COMFYUI_PATH")
    place.parent.mkdir(parents=True)
    try:
        if not given:
            run(["git", "clone", "-q", "--depth", "1", COMFYUI, place], timeout=PATIENCE, check=True)
            return place
        for file in Path(given).rglob("*.py"):
            name = file.relative_to(given)
            if name.parts[0] != "custom_nodes":
                (place / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(file, place / name)
        who = ["-c", "user.name=checkers", "-c", "user.email=checkers@localhost"]
        for command in (["init", "-q"], ["add", "-A"], [*who, "commit", "-qm", "ComfyUI"]):
            run(["git", *command], cwd=place, check=True)
        return place
    except (subprocess.SubprocessError, OSError):
        return None


CHECKS = dict.fromkeys((syntax, javascript, coverage, hazards), "comfy-test")
CHECKS |= {nodesafe: "nodesafe", import_guard: "comfy-import-guard"}

if __name__ == "__main__":
    sys.exit(main())
