"""An actor of several GPUs: it leads, and processes that it starts compute along, as with `helios generate --gpus`."""

from __future__ import annotations

import argparse
import os
import threading
import time

from ..devices import libraries
from . import gpus

PATIENCE = 5.0  # seconds that an actor has to say what is wrong once one of its processes has ended


class GpuGroup:
    """The processes of an actor, for as long as it lives. host: what its pipeline talks to."""

    def __init__(self, args: argparse.Namespace):
        from ..backends.torch import leading, parallel, shards

        given, self.others = gpus.environment(args.gpus), []
        gpus.begin(args.line, range(1, args.gpus), given, self.others)
        threading.Thread(target=self._watch, daemon=True).start()
        os.environ.update(given | {"RANK": "0", "LOCAL_RANK": "0"})
        place = parallel.device(libraries.open_backend("torch").find_device())
        self.joined = parallel.joined(place, args.split_guidance)
        ranks = self.joined.__enter__()
        self.host = gpus.Member(parallel, ranks, leading.Leader(ranks), shards if args.shard else None)

    def _watch(self) -> None:
        while all(process.poll() is None for process in self.others):
            time.sleep(0.5)
        time.sleep(PATIENCE)
        self.give_up()

    def give_up(self) -> None:
        """Ends this process, and the others with it."""
        os._exit(gpus.LEFT)
