"""`helios generate` on several GPUs: a process for each, of which the first works as one alone does.

The others open the same model and compute with the first, step by step (backends/torch/leading.py). They are started
here, or by torchrun. Whichever ends too early ends the run; what is finished is kept, as in any run.
"""

from __future__ import annotations

import argparse
import io
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterable
from contextlib import redirect_stderr, suppress
from multiprocessing.connection import Listener
from pathlib import Path
from subprocess import PIPE, Popen, TimeoutExpired

from ..config import check_whole
from ..devices import choose, libraries
from . import HOST, PACK, Terminal
from .render import open_model

LEFT = 3  # exit code of a process whose leader, or another, is gone
MOST = 1024
PATIENCE = 30.0  # seconds that the first process has to end by itself once another has ended
STARTED = "HELIOS_STARTED"  # tells a process that its stdin ends when the one that started it does


def inside() -> bool:
    """Whether this is one of several processes, as torchrun starts them."""
    return "RANK" in os.environ and int(os.environ.get("WORLD_SIZE", 1)) > 1


def several(args: argparse.Namespace, work: Callable) -> int:
    """What `work(args)` gives, computed by --gpus processes, or by those of torchrun. ValueError for what cannot be."""
    check(args)
    if not inside() and args.gpus in (None, 1):
        return work(args)
    return take_part(args, work) if inside() else start(args.line, args.gpus)


def check(args: argparse.Namespace) -> None:
    """ValueError for options that do not go together; --shard sets its --offload."""
    if args.gpus is not None:
        check_whole("--gpus", args.gpus, MOST)
    if args.split_guidance:
        check_halves(args)
    if args.shard:
        share(args)
    if not inside() and args.gpus in (None, 1):
        return
    if choose(args.backend) != "torch":
        raise ValueError("several GPUs need backend torch; choose it, or leave --gpus out")
    if args.compile == "on":
        raise ValueError("--compile on is for one GPU; leave it at auto, which compiles nothing on several")


def check_halves(args: argparse.Namespace) -> None:
    """ValueError unless there are halves."""
    count = int(os.environ["WORLD_SIZE"]) if inside() else args.gpus or 1
    if count % 2:
        raise ValueError(f"--split-guidance halves the GPUs of --gpus, a branch for each half; {count} has no halves")


def share(args: argparse.Namespace) -> None:
    """Has the transformer's blocks stream, from all GPUs' memory in place of the host's. ValueError where they cannot
    be shared out."""
    if args.offload not in ("auto", "blocks"):
        raise ValueError(f"--shard keeps the blocks on all GPUs, --offload {args.offload} on each; choose one")
    if not inside() and args.gpus in (None, 1):
        raise ValueError("--shard shares the blocks out to the GPUs of --gpus, 2 or more; name their number")
    args.offload = "blocks"


class Member(Terminal):
    """What one of several processes says to its pipeline. shards: the module that shares blocks out, if they are."""

    def __init__(self, parallel, ranks, leader=None, shards=None):
        self.parallel, self.ranks, self.leader, self.shards = parallel, ranks, leader, shards

    def device(self, own):
        """As Host has it: this process's GPU."""
        return self.parallel.device(own)

    def opened(self, config) -> None:
        """ValueError for a model whose heads cannot be shared out."""
        self.parallel.check_heads(config.transformer.num_attention_heads, self.ranks.count)

    def arrived(self, transformer) -> None:
        """As Host has it."""
        if self.shards is not None and (held := self.shards.share_blocks(transformer, self.ranks)):
            part = f"1/{self.ranks.world} of the transformer's blocks, {held / 2**30:.2f} GiB"
            print(f"each GPU holds {part}, beside what is said above", file=sys.stderr)

    def together(self, name: str, network, size: tuple[int, int, int]):
        """As Host has it."""
        if self.leader is None or name == "text_encoder":
            return network
        return self.leader.of(network, size) if name == "transformer" else self.leader.decoder(network, size)


def take_part(args: argparse.Namespace, work: Callable, follow: Callable | None = None) -> int:
    """This process's work: `work(args)` in the first; in the others follow(args, host, follower), which as a rule
    computes with the first until it ends."""
    from ..backends.torch import leading, parallel, shards

    shards = shards if args.shard else None
    watch_over()
    first = int(os.environ["RANK"]) == 0
    try:
        place = parallel.device(libraries.open_backend("torch").find_device())
        with parallel.joined(place, args.split_guidance) as ranks:
            if not first:
                return (follow or follow_all)(args, Member(parallel, ranks, shards=shards), leading.Follower(ranks))
            host = Member(parallel, ranks, leading.Leader(ranks), shards)
            HOST.set(host)
            code = work(args)
            with suppress(parallel.Lost):  # the work is done
                host.leader.end()
            return code
    except parallel.Lost:
        if first:
            raise
        return LEFT
    except ValueError:
        if first:
            raise
        return 2  # the first is refused the same, and says so


def follow_all(args: argparse.Namespace, host: Member, follower) -> int:
    """Computes with the first process until it ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the first is stopped, and then this one
    HOST.set(host)
    with redirect_stderr(io.StringIO()):
        parts = open_model(args).parts
        _ = parts.transformer  # loads while the first encodes prompts
        follower.follow(parts.ready)
    return 0


def watch_over() -> None:
    """Ends this process some time after the one that started it."""

    def watch() -> None:
        while os.read(0, 1):  # not sys.stdin, whose lock would be held as Python ends
            pass
        if os.environ["RANK"] == "0":
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(PATIENCE)
        os._exit(LEFT)

    if STARTED in os.environ:
        threading.Thread(target=watch, daemon=True).start()


def start(line: list[str], count: int) -> int:
    """Runs `helios` with these arguments in so many processes on this machine; the first one's exit code. What they
    print comes out here."""
    processes = []
    try:
        begin(line, range(count), environment(count), processes)
        return attend(processes)
    finally:
        for process in processes:
            process.kill()
            process.wait()


def environment(count: int) -> dict[str, str]:
    """What so many processes of this machine have in common, as torchrun has it."""
    given = {"WORLD_SIZE": count, "LOCAL_WORLD_SIZE": count, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": free_port()}
    threads = os.environ.get("OMP_NUM_THREADS") or max(1, (os.cpu_count() or 1) // count)
    given |= {STARTED: 1, "OMP_NUM_THREADS": threads, "PYTHONPATH": search_path()}
    return {name: str(value) for name, value in given.items()}


def begin(line: list[str], ranks: Iterable[int], given: dict[str, str], processes: list[Popen]) -> None:
    """Adds those of these ranks to the processes. They end when this one does."""
    for rank in ranks:
        own = {**os.environ, **given, "RANK": str(rank), "LOCAL_RANK": str(rank)}
        command = [sys.executable, "-m", f"{PACK}.helios_core.cli", *line]
        processes.append(Popen(command, env=own, stdin=PIPE, start_new_session=True))


def attend(processes: list[Popen]) -> int:
    """Waits for the first process; its exit code. Says which of the others ended too early."""
    first, *others = processes
    while True:
        try:
            return _attend(first, others)
        except KeyboardInterrupt as stop:
            first.send_signal(signal.SIGINT if type(stop) is KeyboardInterrupt else signal.SIGTERM)


def _attend(first: Popen, others: list[Popen]) -> int:
    while first.poll() is None and not (gone := _gone(others)):
        time.sleep(0.1)
    if first.poll() is None:
        with suppress(TimeoutExpired):
            first.wait(PATIENCE)
    code = _end(first)
    gone = _gone(others)
    if code == 0:
        for process in others:
            with suppress(TimeoutExpired):
                process.wait(PATIENCE)
    elif gone and (code != 2 or set(gone.values()) != {2}):
        told = "; ".join(f"process {rank} of {len(others) + 1} {_how(it)}" for rank, it in gone.items())
        print(f"helios: {told}, and the run with it; chunks that were finished are kept", file=sys.stderr)
    return code if code >= 0 else 1


def _gone(others: list[Popen]) -> dict[int, int]:
    """Of those that ended by a fault of their own: rank -> exit code."""
    found = {rank: process.poll() for rank, process in enumerate(others, 1)}
    return {rank: code for rank, code in found.items() if code not in (None, 0, LEFT)}


def _end(process: Popen) -> int:
    """Has it end in good order, or ends it."""
    for ask in (process.terminate, process.kill):
        if process.poll() is None:
            ask()
            with suppress(TimeoutExpired):
                process.wait(PATIENCE)
    return process.wait()


def _how(code: int) -> str:
    return f"ended with exit code {code}" if code >= 0 else f"was killed by {signal.Signals(-code).name}"


def free_port() -> int:
    """A port of this machine that nobody listens on."""
    with Listener(("127.0.0.1", 0)) as found:
        return found.address[1]


def search_path() -> str:
    """PYTHONPATH with the folder that this package lies in, under its name."""
    above = Path(__file__).resolve().parents[3]
    own = [str(above)] if (above / PACK).is_dir() else []
    return os.pathsep.join([*own, *filter(None, [os.environ.get("PYTHONPATH")])])
