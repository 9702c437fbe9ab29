"""Commands in processes of their own without the wait for their imports: a server has them, and forks for each."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from pathlib import Path
from typing import NamedTuple


class Ended(NamedTuple):
    """How a command ended: its exit code, or minus the signal; seconds; what it said on stdout and stderr."""

    code: int
    seconds: float
    out: str
    err: str


class Commands:
    """`with Commands() as run: run(argv, folder)`."""

    def __enter__(self) -> Commands:
        path = os.pathsep.join([str(Path(__file__).parents[1]), *sys.path])
        line = [sys.executable, "-c", "from support.forked import serve; serve()"]
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
        self._server = subprocess.Popen(line, env={**os.environ, "PYTHONPATH": path}, **pipes)
        assert self._server.stdout.readline() == "ready\n"
        return self

    def __exit__(self, *_) -> None:
        self._server.stdin.close()
        self._server.wait()

    def __call__(self, argv, folder, *, after=None, until="", how=signal.SIGKILL, largest=None) -> Ended:
        """A command in a folder. after: seconds until it is sent the signal `how`, counted from when a journal there
        has the text `until`; largest: bytes that a file may have."""
        ask = {"argv": [*map(str, argv)], "folder": str(folder), "after": after, "how": int(how), "largest": largest}
        ask["until"] = until
        self._server.stdin.write(json.dumps(ask) + "\n")
        self._server.stdin.flush()
        return Ended(*json.loads(self._server.stdout.readline()))


def serve() -> None:
    """Answers until there is nothing more to read."""
    import helios_video.helios_core.cli as cli  # all that commands import is there before the first of them
    import helios_video.helios_core.commands.generate
    import helios_video.helios_core.commands.run
    import helios_video.nodes.loader
    from helios_video.helios_core import load

    assert helios_video.NODE_CLASS_MAPPINGS
    load()
    print("ready", flush=True)
    for line in sys.stdin:
        print(json.dumps(_answer(cli, **json.loads(line))), flush=True)


def _answer(cli, argv, folder, after, until, how, largest):
    begun, said = time.monotonic(), [tempfile.mkstemp()[1] for _ in "oe"]
    pid = os.fork()
    if not pid:
        _become(cli, argv, folder, said, largest)
    code = None
    while code is None:
        found, status = os.waitpid(pid, os.WNOHANG)
        code = os.waitstatus_to_exitcode(status) if found else None
        if until and _says(folder, until):
            after, until = time.monotonic() - begun + (after or 0), ""
        if not found and not until and after is not None and time.monotonic() - begun >= after:
            os.kill(pid, how)
            after = None
        time.sleep(0.002)
    texts = [Path(path).read_text(errors="replace") for path in said]
    for path in said:
        os.unlink(path)
    return code, time.monotonic() - begun, *texts


def _says(folder, text) -> bool:
    return any(text in path.read_text() for path in Path(folder).glob("*_chunks/journal.jsonl"))


def _become(cli, argv, folder, said, largest) -> None:
    os.chdir(folder)
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a job in the background is deaf to it
    for number, path in enumerate(said, 1):
        os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), number)
    if largest is not None:
        import resource

        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (largest, largest))
    sys.argv = ["helios", *argv]
    try:
        cli.entry()
    except SystemExit as ended:
        code = ended.code
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code if isinstance(code, int) else 0 if code is None else 1)
    finally:  # what is wrong is read off the process
        if sys.exc_info()[0] is not None:
            traceback.print_exc()
        sys.stderr.flush()
        os._exit(99)
