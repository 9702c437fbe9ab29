"""Work on a Ray cluster: an actor for each GPU, or for each few CPU cores. One that is lost, or its machine, is
replaced, and what it was at is done again by another.

Ray is imported here alone, and only where it is asked for.
"""

from __future__ import annotations

import os
import signal
import sys
from collections import Counter, deque
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager, redirect_stdout, suppress
from http.client import HTTPConnection
from typing import Any, NamedTuple

from ..config import check_whole
from . import PACK

LOCAL = "local"  # of --ray: a Ray of this run's own
TRIES = 3  # actors that a unit may take with it
PATIENCE = 60.0  # seconds without a word, after which it is said what is waited for
STORE = 2**28  # bytes of shared memory of a Ray of our own
RAY_HELP = (
    "spread {} over a Ray cluster, an actor per GPU, or per CPU core where there is none: auto or HOST:PORT of one "
    "that runs, else one on this machine that ends with the command; needs helios-video[ray]"
)
ACTORS_HELP = "with --ray: how many actors (one per GPU, or as many as the cores allow)"


class Gone(NamedTuple):
    """In place of a unit's end: its actor is lost. again: another takes it up."""

    why: str
    again: bool


class Unfit(NamedTuple):
    """What an actor says that can do nothing at all: its machine gets no other."""

    why: str


def add_options(group, what: str) -> None:
    """--ray and --actors."""
    group.add_argument("--ray", nargs="?", const=LOCAL, metavar="ADDRESS", help=RAY_HELP.format(what))
    group.add_argument("--actors", type=int, metavar="N", help=ACTORS_HELP)


def check_options(args) -> None:
    """ValueError for --actors that cannot be."""
    if args.actors is not None:
        check_whole("--actors", args.actors, 10_000)
        if args.ray is None:
            raise ValueError("--actors says how many of --ray; give both, or leave it out")


@contextmanager
def cluster(address: str, slots: int) -> Iterator[Any]:
    """Ray, joined to the cluster at the address, or to one of its own with so many CPU slots or more. ValueError where
    there is none. Inside, nothing is printed on stdout, where Ray tells of dead nodes."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")  # else it warns
    try:
        import ray
    except ImportError as error:
        raise ValueError(f"--ray needs Ray ({error}): pip install 'helios-video[ray]'") from error
    check_address(address)
    own = {"num_cpus": max(slots, os.cpu_count() or 1), "include_dashboard": False, "object_store_memory": STORE}
    before = signal.getsignal(signal.SIGTERM)
    try:
        ray.init(address, log_to_driver=False, logging_level="ERROR", **(own if address == LOCAL else {}))
    except (ConnectionError, RuntimeError, ValueError) as error:
        raise ValueError(f"--ray {address}: no Ray cluster answers there: {error}") from error
    try:
        with suppress(ValueError):  # Ray takes SIGTERM for itself; not the main thread's then
            signal.signal(signal.SIGTERM, before)
        with open(os.devnull, "w") as nowhere, redirect_stdout(nowhere):
            yield ray
    finally:
        ray.shutdown()


def check_address(address: str) -> None:
    """ValueError for a HOST:PORT where nothing answers; Ray itself would ask there for minutes."""
    host, colon, port = address.rpartition(":")
    if not colon or "//" in host:
        return
    try:
        with closing(HTTPConnection(host.strip("[]"), int(port), timeout=10)) as there:
            there.connect()
    except (OSError, ValueError) as error:
        raise ValueError(f"--ray {address}: nothing answers there ({error}); wanted HOST:PORT of its head") from error


def needs(ray, threads: int | None, group: int = 1) -> tuple[dict, int]:
    """What an actor takes of the cluster, and how many there is room for. group: GPUs of each, in one machine.

    ValueError where no machine has so many.
    """
    there = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    cores = (threads or 1) * group
    if any(node.get("GPU", 0) >= 1 for node in there):
        room = sum(int(node.get("GPU", 0)) // group for node in there)
        if not room:
            raise ValueError(f"no machine of the cluster has {group} GPUs")
        return {"num_gpus": group, "num_cpus": cores}, room
    return {"num_cpus": cores}, max(1, sum(int(node.get("CPU", 0)) // cores for node in there))


def environment() -> dict:
    """A runtime environment with this process's settings of the pack, and where it lies unless it is installed."""
    from .gpus import search_path

    own = {name: value for name, value in os.environ.items() if name.startswith("HELIOS_")}
    return {"env_vars": {**own, **({"PYTHONPATH": path} if (path := search_path()) else {})}}


class Pool:
    """Actors of a class, whose `work(unit, shared)` is a generator of what it has to say of a unit.

    worker: the class; given: what it is made of; count: how many; takes: resources of each.
    """

    def __init__(self, ray, worker: type, given: tuple, count: int, takes: dict):
        kind = ray.remote(worker).options(**takes, runtime_env=environment(), max_restarts=0)
        self.ray, self.count, self._begin = ray, count, lambda: kind.remote(*given)
        self.starting: dict[Any, Any] = {}  # an answer -> the actor that will give it once it is there
        self.free: list[Any] = []
        self.busy: dict[Any, tuple[Any, int]] = {}  # what it says -> the actor, the unit's number
        self.failed = 0  # starts in a row
        self.fit = False  # whether any can do anything

    def run(self, units: Sequence, shared=None) -> Iterator[tuple[int, Any]]:
        """(a unit's number, what is said of it), as it comes; `Gone` where its actor is lost. shared: for all of them.

        ValueError where no actor can do anything, or the first that says something cannot.
        """
        waiting, tries = deque(range(len(units))), Counter()
        while waiting or self.busy:
            self._start(len(waiting))
            while waiting and self.free:
                actor, i = self.free.pop(), waiting.popleft()
                said = actor.work.options(num_returns="streaming").remote(units[i], shared)
                self.busy[said] = (actor, i)
            for i, event in self._hear(len(waiting)):
                if isinstance(event, (Gone, Unfit)):
                    tries[i] += isinstance(event, Gone)
                    again = tries[i] < TRIES
                    if again:
                        waiting.appendleft(i)
                    event = Gone(event.why, again)
                yield i, event

    def _start(self, waiting: int) -> None:
        """As many actors as are wanted and not there."""
        here = len(self.starting) + len(self.free) + len(self.busy)
        for _ in range(min(self.count, len(self.busy) + waiting) - here):
            actor = self._begin()
            self.starting[actor.ready.remote()] = actor

    def _hear(self, waiting: int) -> Iterator[tuple[int, Any]]:
        ready, _ = self.ray.wait([*self.starting, *self.busy], timeout=PATIENCE, fetch_local=False)
        if not ready:
            room = f", {waiting} wait for room in the cluster" if waiting else ""
            print(f"nothing new in a minute: {len(self.busy)} at work{room}", file=sys.stderr)
        for said in ready:
            if said in self.starting:
                self._started(said)
            else:
                yield from self._next(said)

    def _started(self, answer) -> None:
        actor = self.starting.pop(answer)
        try:
            self.ray.get(answer)
        except self.ray.exceptions.RayError as error:
            self.failed += 1
            if self.failed >= TRIES * self.count:
                raise ValueError(f"no actor can be started: {last_line(error)}") from error
        else:
            self.failed = 0
            self.free.append(actor)

    def _next(self, said) -> Iterator[tuple[int, Any]]:
        """What comes next of a unit; nothing at its end."""
        actor, i = self.busy[said]
        try:
            event = self.ray.get(next(said))
        except StopIteration:
            del self.busy[said]
            self.free.append(actor)
            return
        except self.ray.exceptions.RayError as error:
            del self.busy[said]
            self.ray.kill(actor)
            event = Gone(last_line(error), True)
        if isinstance(event, Unfit):
            del self.busy[said]
            self.ray.kill(actor)
            self.count -= 1
            if self.count == 0 or not self.fit:
                raise ValueError(event.why)
        self.fit = True
        yield i, event

    def close(self) -> None:
        """Ends all actors, whatever they are at."""
        for actor in (*self.starting.values(), *self.free, *(actor for actor, _ in self.busy.values())):
            self.ray.kill(actor)


def last_line(error) -> str:
    """What a message of Ray comes to."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    named = [line for line in lines if "Error" in line.partition(":")[0]]
    return (named or lines or [type(error).__name__])[-1][:300].replace(PACK, "helios")
