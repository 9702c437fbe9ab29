"""Thumbnails of the workflows that make a video, from real runs of helios-tiny: four frames each.

    python tests/thumbnails.py [NAME ...]

With --example in place of names: the clips that ship with the pack, drawn anew. With --films: the moving picture of
the README, four videos side by side.

Pictures and videos to start from are drawn. A long video is cut to eight chunks.
"""

import sys
import tempfile
from pathlib import Path

import numpy as np
from helios_video.helios_core.cli import main
from helios_video.helios_core.drawn import draw_track, scenes
from helios_video.helios_core.join import video
from PIL import Image

FOLDER = Path(__file__).parents[1] / "workflows"
START = scenes.scene("yellow", "circle", "down", "striped", starts=((30, 16),), radius=11)
STARTED = ("one_node_image_to_video", "image_to_video", "video_to_video")
VIDEOS = ("one_node_text_to_video", "text_to_video", "composed_chunk", "prompt_schedule", "continue_video")
VIDEOS += ("long_video", "live", *STARTED, "control_video", "unified_latents")
CHANGES = {
    "long_video": ["HeliosLoopStart.chunks=8"],
    **{name: [f"T5Encode.text={START.caption()}"] for name in STARTED},
}
SIDE = 256
FILMS = FOLDER.parent / "web" / "docs" / "films.webp"
PROMPTS = ("a red circle moving left", "a blue square bouncing up and down", "a yellow triangle growing and shrinking")
PROMPTS += ("a white ring and a green circle bouncing up and down",)
EXAMPLES = FOLDER.parent / "web" / "examples"


def draw_inputs(folder: Path) -> None:
    """What Load Image and Load Video of the workflows name."""
    frames = scenes.draw(START, 40)
    Image.fromarray(frames[0]).save(folder / "example.png")
    video.write_video(folder / "helios_example.mp4", frames, fps=24)
    video.write_video(folder / "helios_control.mp4", eight(66), fps=24)


def draw_example() -> None:
    """The clips that video_to_video and control_video begin with, until the user chooses others."""
    EXAMPLES.mkdir(exist_ok=True)
    frames = scenes.draw(scenes.scene("red", "circle", "left", "plain"), 40)
    video.write_video(EXAMPLES / "helios_example.mp4", frames, fps=24)
    video.write_video(EXAMPLES / "helios_control.mp4", eight(66), fps=24)


def eight(frames: int) -> np.ndarray:
    """The track of an object that goes once round a figure of eight, uint8 [t h w 3]."""
    turn = 2 * np.pi * np.arange(frames) / frames
    return draw_track(32 + np.stack([18 * np.sin(turn), 14 * np.sin(2 * turn)], axis=-1))


def render(name: str, folder: Path) -> np.ndarray:
    """The frames of the video that a workflow saves; of several the longest."""
    changes = [part for change in CHANGES.get(name, ()) for part in ("--set", change)]
    places = ["--input-dir", str(folder), "--output-dir", str(folder / name)]
    if code := main(["run", str(FOLDER / f"{name}.json"), *places, *changes]):
        raise SystemExit(code)
    found = [video.read_frames(path) for path in sorted((folder / name).rglob("*.mp4"))]
    if name == "unified_latents":  # the same frame by one decoder, and below by the other
        by_ul, by_vae = found
        return np.stack([by_vae[6], by_vae[25], by_ul[6], by_ul[25]])
    return max(found, key=len)


def sheet(frames: np.ndarray) -> Image.Image:
    """Four frames, evenly over the video, two by two."""
    page = Image.new("RGB", (2 * SIDE, 2 * SIDE))
    places = range(4) if len(frames) == 4 else np.linspace(0.06, 0.94, 4) * (len(frames) - 1)
    for i, k in enumerate(places):
        frame = Image.fromarray(frames[int(k)]).resize((SIDE, SIDE), Image.Resampling.BICUBIC)
        page.paste(frame, (i % 2 * SIDE, i // 2 * SIDE))
    return page


def films(folder: Path) -> None:
    """Videos as `helios generate` makes them, every second frame of 132, twice as large."""
    made = []
    for i, prompt in enumerate(PROMPTS):
        file = folder / f"{i}.mp4"
        if code := main(["generate", "--prompt", prompt, "--seed", "0", "-o", str(file)]):
            raise SystemExit(code)
        made.append(np.pad(video.read_frames(file)[::2], ((0, 0), (0, 0), (1, 1), (0, 0)), constant_values=255))
    strip = np.concatenate(made, axis=2).repeat(2, axis=1).repeat(2, axis=2)
    first, *others = map(Image.fromarray, strip)
    first.save(FILMS, save_all=True, append_images=others, duration=1000 // 12, loop=0, quality=30, method=6)


if __name__ == "__main__" and "--example" in sys.argv:
    draw_example()
elif __name__ == "__main__" and "--films" in sys.argv:
    with tempfile.TemporaryDirectory() as place:
        films(Path(place))
elif __name__ == "__main__":
    with tempfile.TemporaryDirectory() as place:
        draw_inputs(Path(place))
        for chosen in sys.argv[1:] or VIDEOS:
            sheet(render(chosen, Path(place))).save(FOLDER / f"{chosen}.jpg", quality=85)
