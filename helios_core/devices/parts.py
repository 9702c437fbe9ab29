"""The networks of a checkpoint: on which library and device, in which number format, and which are there right now.

Each loads when it is first used. Handles with different LoRAs share what they have in common: the VAE, the text encoder
and the transformer's own weights are there once.
"""

from __future__ import annotations

from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any
from weakref import WeakKeyDictionary

from ..checkpoint import WEIGHT_DTYPES, Checkpoint, telling
from ..disk import fingerprint
from . import libraries, needs, residency, ways
from .host_memory import host_free
from .kept_weights import KeptWeights


@dataclass(frozen=True)
class Choices:
    """What the user chose of number formats and memory. ValueError for what is no choice."""

    weight_dtype: str = "auto"
    offload: str = "auto"
    vae_dtype: str = "auto"
    vae_tiling: str = "auto"
    attention: str = "auto"
    products: str = "auto"
    compile: str = "auto"

    def __post_init__(self):
        known = {"weight_dtype": WEIGHT_DTYPES, "offload": needs.OFFLOAD, "vae_dtype": ways.VAE_DTYPES}
        known |= {"vae_tiling": needs.TILING, **ways.TRANSFORMER}
        for name, values in known.items():
            if getattr(self, name) not in values:
                raise ValueError(f"{name} {getattr(self, name)!r}: wanted one of {', '.join(values)}")


class Host:
    """What the program around a pipeline has to say. This one says nothing; ComfyUI's is in nodes/managed.py.

    manages: whether it moves parts away from the device by itself.
    """

    manages = False

    def device(self, own):
        """Where to compute; own: what the backend would choose."""
        return own

    def place(self, name: str, device):
        """Where one part (transformer, vae, text_encoder) is to be, if not on the device."""
        return device

    def loading(self, nbytes: int) -> None:
        """A part is about to take so many bytes of the device."""

    def reading(self, what: str, total: int):
        """A context in which so many bytes are read: it gives what is called with done and total, and may raise."""
        return nullcontext(lambda done, total: None)

    def using(self, name: str, network, work: int) -> None:
        """A network is about to compute, in so many bytes: it may have been moved away since."""

    def stop(self) -> None:
        """Called before every block or layer; raises where the user wants to stop."""

    def arrived(self, transformer) -> None:
        """A transformer is there, and nothing yet decided of where its blocks stay."""

    def together(self, name: str, network, size: tuple[int, int, int]):
        """What is called in a network's place, for videos of that width, height and batch."""
        return network


@dataclass
class Loaded:
    """What is there. networks: by part; adapted: transformers with LoRAs, each for as long as its LoRAs are held.

    away: the parts that lie in host memory until they are used again. kept: where quantised weights are, if anywhere.
    """

    networks: dict[str, Any] = field(default_factory=dict)
    adapted: WeakKeyDictionary = field(default_factory=WeakKeyDictionary)
    away: set[str] = field(default_factory=set)
    mode: str = ""
    kept: KeptWeights | None = None


class Parts:
    """A checkpoint's networks by name. loras: what changes the transformer, as with_loras.Loras does; None: nothing."""

    def __init__(self, checkpoint: Checkpoint, library: str, choices: Choices, host: Host, loras=None, loaded=None):
        self.checkpoint, self.library, self.choices, self.host = checkpoint, library, choices, host
        self.loras, self.loaded = loras, loaded or Loaded()

    def with_loras(self, loras) -> Parts:
        """The same networks with other LoRAs."""
        return Parts(self.checkpoint, self.library, self.choices, self.host, loras, self.loaded)

    @cached_property
    def backend(self):
        """The package that loads and runs networks (backends/interface.py)."""
        return libraries.open_backend(self.library)

    @cached_property
    def device(self):
        """Where torch or MLX computes: the host's choice, else the library's."""
        return self.host.device(self.backend.find_device())

    @property
    def offload_mode(self) -> str:
        """none, blocks or sequential: what was chosen, or what fits the memory that is free when first asked."""
        self.loaded.mode = self.loaded.mode or residency.choose(self)
        return self.loaded.mode

    def check_ways(self) -> None:
        """ValueError for an attention or products that were chosen and are not there; before anything loads."""
        how = {name: getattr(self.choices, name) for name in ways.TRANSFORMER} | {"dtype": self.choices.weight_dtype}
        self.backend.check_ways(self.checkpoint.sources["transformer"], self.checkpoint.config, self.device, **how)

    def estimate(self, width: int = 0, height: int = 0, batch: int = 1) -> needs.Estimate:
        """What videos of that size need of device and host memory, `batch` at once; 0 is the checkpoint's own size.
        Loads nothing."""
        config = self.checkpoint.config
        return needs.estimate(
            self.checkpoint.sources,
            config,
            width=width or config.defaults.width,
            height=height or config.defaults.height,
            batch=batch,
            weight_dtype=self.choices.weight_dtype,
            vae_dtype=self.vae_dtype,
            vae_tiling=self.choices.vae_tiling,
            device=self.backend.kind(self.device),
            fast_bf16=self.backend.fast_bf16(self.device),
            backend=self.library,
            keeps=self.host.manages and self.choices.offload == "auto",
        )

    @property
    def vae_dtype(self) -> str:
        """The number format of the VAE: fp32, bf16 or fp16."""
        place = residency.place(self, "vae")
        return ways.vae_numbers(self.choices.vae_dtype, self.backend.kind(place), self.backend.fast_bf16(place))

    def needs(self, width: int = 0, height: int = 0) -> list[str]:
        """The estimate and what does not fit, as lines for people."""
        return residency.report(self, width, height)

    @cached_property
    def identity(self) -> tuple:
        """What its sampled latents depend on beside the arguments: files, their configuration, number format, library,
        device, LoRAs. The files as they were when first asked: a file that is written anew while a run goes on is not
        what the run computes with."""
        files, config = self.checkpoint.sources["transformer"].files, self.checkpoint.config
        choices, kind = self.choices, self.backend.kind(self.device)
        place = (self.library, kind, choices.weight_dtype, choices.attention, choices.products, choices.compile)
        return fingerprint(*files), config, *place, None if self.loras is None else self.loras.identity

    @cached_property
    def vae_identity(self) -> tuple:
        """The same of decoded frames."""
        kind, choices = self.backend.kind(residency.place(self, "vae")), self.choices
        place = (self.library, kind, self.vae_dtype, choices.vae_tiling)
        return fingerprint(*self.checkpoint.sources["vae"].files), self.checkpoint.config.vae, *place

    def ready(self, name: str, width: int = 0, height: int = 0, batch: int = 1):
        """A network (transformer, vae, text_encoder) about to compute `batch` videos of that size, on its device."""
        network, needs = getattr(self, name), self.estimate(width, height, batch)
        if name == "transformer":
            residency.keep_blocks(self, network, needs)
        work = needs.work[name]
        self.host.using(name, network, work * batch if name == "vae" else work)
        return self.host.together(name, network, (width, height, batch))

    def release(self, *names: str) -> None:
        """Forgets loaded networks, those of other handles too; they load again when used."""
        found = [self.loaded.networks.pop(name, None) is not None for name in names]
        self.loaded.away.difference_update(names)
        if "transformer" in names:
            found.append(bool(self.loaded.adapted))
            self.loaded.adapted.clear()
        if any(found):
            self.backend.empty_cache()

    def evict(self, *names: str) -> None:
        """Takes networks off the device: into host memory where that suffices, so that they come back without being
        read and quantised again; else they are forgotten."""
        there = [name for name in names if self._held(name) and name not in self.loaded.away]
        stay = self.estimate().keeps_in_host(host_free(), self.offload_mode) if there else ()
        for name in there:
            if name in stay:
                self._move(name, self.backend.CPU)
                self.loaded.away.add(name)
            else:
                self.release(name)
        if stay:
            self.backend.empty_cache()

    def _held(self, name: str) -> list:
        """The networks there are of a part."""
        adapted = list(self.loaded.adapted.values()) if name == "transformer" else []
        return [*([self.loaded.networks[name]] if name in self.loaded.networks else []), *adapted]

    def _move(self, name: str, device) -> None:
        for network in self._held(name):
            self.backend.place(getattr(network, "model", network), device)

    def _fetch(self, name: str) -> None:
        """Brings a part back that lies in host memory."""
        if name in self.loaded.away:
            residency.make_room(self, name)
            self._move(name, residency.place(self, name))
            self.loaded.away.discard(name)

    @property
    def transformer(self):
        """The video model, with the LoRAs."""
        self._fetch("transformer")
        if self.loras is None:
            return self._network("transformer", self._load_transformer)
        if self.loras not in self.loaded.adapted:
            self.loaded.adapted[self.loras] = self._adapted()
        return self.loaded.adapted[self.loras]

    @property
    def vae(self):
        """The VAE; it loads when it is first asked for."""
        return self._network("vae", self._load_vae)

    @property
    def text_encoder(self):
        """Cleaned prompts (str or list of str) -> their text.Embedding."""
        return self._network("text_encoder", self._load_text_encoder)

    def _network(self, name: str, load):
        self._fetch(name)
        if name not in self.loaded.networks:
            residency.make_room(self, name)
            self.loaded.networks[name] = load()
        return self.loaded.networks[name]

    def _adapted(self):
        """Merged into a transformer that nobody else has, or beside the one that is there for all."""
        alone = self.loras.merged and "transformer" not in self.loaded.networks
        if alone:
            residency.make_room(self, "transformer")
        base = self._load_transformer() if alone else self._network("transformer", self._load_transformer)
        model = self.loras.adapt(base, self.backend, shared=not alone)
        model.on_block = self.host.stop
        return model

    @contextmanager
    def reading(self, name: str, total: int = 0, what: str = "reading"):
        """While a part is read, the host is told how far that is; total: bytes, 0 is all of its files'."""
        total = total or self.checkpoint.sources[name].nbytes
        with self.host.reading(f"{what} {name.replace('_', ' ')}", total) as report, telling(report, total):
            yield

    def read_transformer(self, read):
        """What `read` makes of the transformer's source: of the files, or of the quantised weights kept of them."""
        own, kept, kind = self.checkpoint.sources["transformer"], self.loaded.kept, self.choices.weight_dtype
        if kept is None or self.library != "torch":
            with self.reading("transformer"):
                return read(own)
        with self.reading("transformer", kept.work(own), f"quantising to {kind}:"):
            found = kept.find(own, kind, self.backend.quantised_bytes)
        try:
            with self.reading("transformer", found.nbytes):
                return read(found)
        except (OSError, ValueError) as error:  # OSError: another process made room meanwhile
            if not kept.blamed(error, found, own):
                raise
        return self.read_transformer(read)

    def _load_transformer(self):
        how = {name: getattr(self.choices, name) for name in ways.TRANSFORMER}
        how |= {"dtype": self.choices.weight_dtype, "device": self.device, "streamed": self.offload_mode == "blocks"}
        model = self.read_transformer(lambda s: self.backend.load_transformer(s, self.checkpoint.config, **how))
        model.on_block = self.host.stop
        return model

    def _load_vae(self):
        how = {"dtype": self.vae_dtype, "tiling": self.choices.vae_tiling, "device": residency.place(self, "vae")}
        with self.reading("vae"):
            vae = self.backend.load_vae(self.checkpoint.sources["vae"], self.checkpoint.config, **how)
        self.backend.watch(vae, self.host.stop)
        return vae

    def _load_text_encoder(self):
        length, place = self.checkpoint.config.defaults.max_text_length, residency.place(self, "text_encoder")
        source = self.checkpoint.sources["text_encoder"]
        with self.reading("text_encoder"):
            encoder = self.backend.load_text_encoder(source, device=place, max_length=length)
        self.backend.watch(encoder, self.host.stop)
        return encoder
