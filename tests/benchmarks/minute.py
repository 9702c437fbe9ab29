"""One minute of helios-tiny, 44 chunks streamed to a file: seconds in all, and resident memory after each chunk.

    python tests/benchmarks/minute.py [--chunks 44] [--model helios-tiny] [--threads 2]

Prints the memory's growth after the third chunk, as a share of what the process held then.
"""

import argparse
import tempfile
import time
from pathlib import Path

import torch
from helios_video.helios_core import load
from helios_video.helios_core.generate import ChunkDone
from helios_video.helios_core.join.clip import Clip, join
from timing import resident


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--chunks", type=int, default=44)
    parser.add_argument("--model", default="helios-tiny")
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    helios, held = load(args.model), []
    with tempfile.TemporaryDirectory() as folder:
        clip, start = Clip.new(folder, 24), time.perf_counter()
        frames = args.chunks * helios.config.frames_per_chunk
        for done in helios.generate("a red circle moving left on a plain background", frames=frames, seed=0):
            if not isinstance(done, ChunkDone):
                continue
            clip = clip.append(done.frames)
            held.append(resident("VmRSS"))
            print(f"chunk {len(held)}: {time.perf_counter() - start:.1f} s, {held[-1]:.0f} MiB", flush=True)
        size = join(clip, Path(folder) / "minute.mp4").stat().st_size
    third = held[min(2, len(held) - 1)]
    print(f"{time.perf_counter() - start:.0f} s for {33 * args.chunks} frames, {size / 1e6:.1f} MB")
    print(f"memory after the third chunk {third:.0f} MiB, most since {max(held[2:] or held):.0f} MiB")
    print(f"growth {100 * (max(held[2:] or held) / third - 1):.1f} %")


if __name__ == "__main__":
    main()
