"""The three variants, Base, Mid and Distilled: how their noise is scheduled, and how they are meant to be sampled.

Sources: scheduler/scheduler_config.json, model_index.json and generation_config.json of a published Helios folder.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace

from .limits import SCALE, SIDE, STEPS, check_number, check_whole
from .published import FromDict

SOLVERS = ("dmd", "unipc", "euler")
GUIDANCE = ("cfg", "cfg_zero_star")
SHIFT_TOKENS = ("before upsample", "after upsample")


@dataclass(frozen=True)
class ScheduleConfig(FromDict):
    """The noise schedule and solver, as scheduler_config.json states them.

    ValueError for what this pack does not sample with.
    """

    kind = "scheduler"
    num_train_timesteps: int = 1000
    shift: float = 1.0
    stages: int = 3
    stage_range: tuple[float, ...] = (0, 1 / 3, 2 / 3, 1)
    gamma: float = 1 / 3
    scheduler_type: str = "unipc"
    use_dynamic_shifting: bool = False
    time_shift_type: str = "exponential"
    base_image_seq_len: int = 256
    max_image_seq_len: int = 4096
    base_shift: float = 0.5
    max_shift: float = 1.15

    def __post_init__(self):
        check_whole("scheduler config: num_train_timesteps", self.num_train_timesteps, 100_000, least=10)
        check_whole("scheduler config: stages", self.stages, 8)
        for name in ("shift", "gamma", "base_shift", "max_shift"):
            least = 1e-3 if name in ("shift", "gamma") else 0
            check_number(f"scheduler config: {name}", getattr(self, name), 100.0, least=least)
        if self.max_image_seq_len <= self.base_image_seq_len:
            raise ValueError("scheduler config: max_image_seq_len must be above base_image_seq_len")
        if len(self.stage_range) != self.stages + 1:
            raise ValueError(f"scheduler config: {self.stages} stages need {self.stages + 1} numbers in stage_range")
        marks = [int(mark * self.num_train_timesteps) for mark in self.stage_range]
        if marks[0] != 0 or marks[-1] != self.num_train_timesteps or any(b <= a for a, b in zip(marks, marks[1:])):
            raise ValueError(f"scheduler config: stage_range {self.stage_range} must ascend from 0 to 1")
        if self.time_shift_type not in ("linear", "exponential"):
            raise ValueError(f"scheduler config: time_shift_type {self.time_shift_type!r} is not linear or exponential")
        if self.scheduler_type not in SOLVERS:
            raise ValueError(f"scheduler config: scheduler_type {self.scheduler_type!r} is not {', '.join(SOLVERS)}")
        if self.use_dynamic_shifting and self.shift != 1.0:
            raise ValueError("scheduler config: dynamic shifting needs shift 1.0")

    @property
    def solver(self) -> str:
        """dmd, unipc or euler."""
        return self.scheduler_type

    @classmethod
    def from_dict(cls, raw: dict):
        """Of a scheduler_config.json; its class decides too. ValueError for another class, and as FromDict has it."""
        name = raw.get("_class_name", "HeliosScheduler")
        if name not in ("HeliosScheduler", "HeliosDMDScheduler"):
            raise ValueError(f"scheduler config: class {name!r} is not HeliosScheduler or HeliosDMDScheduler")
        dmd = {"scheduler_type": "dmd"} if name == "HeliosDMDScheduler" else {}
        shift = {"time_shift_type": raw.get("time_shift_type", "linear")} if dmd else {}
        return super().from_dict({**raw, **dmd, **shift})


@dataclass(frozen=True)
class SamplingDefaults(FromDict):
    """What the checkpoint was made to be sampled with. Sizes in pixels.

    cfg: guidance scale, none up to 1. zero_steps: first steps of stage 0 whose velocity is zero under CFG-Zero*.
    ValueError for an unknown guidance.
    """

    kind = "generation"
    steps: tuple[int, ...] = (2, 2, 2)
    solver: str = "dmd"
    cfg: float = 1.0
    width: int = 640
    height: int = 384
    boost_first_chunk: bool = True
    chunk_latent_frames: int = 9
    max_text_length: int = 512
    guidance: str = "cfg"
    zero_steps: int = 2

    def __post_init__(self):
        if self.guidance not in GUIDANCE:
            raise ValueError(f"generation config: guidance {self.guidance!r} is not one of {', '.join(GUIDANCE)}")
        if self.solver not in SOLVERS:
            raise ValueError(f"generation config: solver {self.solver!r} is not one of {', '.join(SOLVERS)}")
        for name, most in (("width", SIDE), ("height", SIDE), ("chunk_latent_frames", 1000), ("max_text_length", 8192)):
            check_whole(f"generation config: {name}", getattr(self, name), most)
        for count in self.steps:
            check_whole("generation config: steps", count, STEPS)
        check_number("generation config: cfg", self.cfg, SCALE)


# What the official command line uses for each published variant.
PRESETS = {
    "base": SamplingDefaults(steps=(50,), solver="unipc", cfg=5.0, boost_first_chunk=False),
    "mid": SamplingDefaults(
        steps=(20, 20, 20), solver="unipc", cfg=5.0, boost_first_chunk=False, guidance="cfg_zero_star"
    ),
    "distilled": SamplingDefaults(),
}
PIPELINES = ("HeliosPipeline", "HeliosPyramidPipeline")


def check_pipeline(index: dict) -> str:
    """The pipeline class that model_index.json names; ValueError for another model's."""
    name = index.get("_class_name")
    if name not in PIPELINES:
        raise ValueError(f"model_index.json names the pipeline {name!r}; wanted {' or '.join(PIPELINES)}")
    return name


def find_variant(index: dict, schedule: ScheduleConfig) -> str:
    """base, mid or distilled: by the schedule, and by the flag is_distilled of model_index.json (`index`).

    Older files name HeliosPipeline whatever the variant, and HeliosScheduler with scheduler_type dmd for Distilled.
    ValueError where pipeline and schedule contradict each other.
    """
    name = check_pipeline(index)
    distilled = bool(index.get("is_distilled")) or schedule.solver == "dmd"
    if schedule.stages == 1 and (distilled or name == "HeliosPyramidPipeline"):
        raise ValueError(
            f"the scheduler has one stage, as Base has, and {'solver dmd or is_distilled' if distilled else name} says "
            "it is not Base; take model_index.json and scheduler_config.json from the same checkpoint"
        )
    if schedule.stages == 1:
        return "base"
    return "distilled" if distilled else "mid"


def find_defaults(index: dict, schedule: ScheduleConfig, generation: dict) -> SamplingDefaults:
    """The variant's preset with what the published files say otherwise, then what generation_config.json says."""
    variant = find_variant(index, schedule)
    preset = PRESETS[variant] if variant == "distilled" else replace(PRESETS[variant], solver=schedule.solver)
    if "is_cfg_zero_star" in index:
        preset = replace(preset, guidance=GUIDANCE[bool(index["is_cfg_zero_star"])])
    given = SamplingDefaults.from_dict(generation)
    return replace(preset, **{f.name: getattr(given, f.name) for f in fields(given) if f.name in generation})
