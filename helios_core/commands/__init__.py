"""What the `helios` command does, one module per subcommand."""

import argparse
import logging
import os
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from difflib import get_close_matches

from ..config import check_whole
from ..devices import Host, bar, choose

PACK = __package__.rpartition(".helios_core")[0]  # the name that the package goes by here
MOST = 300  # characters of a message about an argument


class Parser(argparse.ArgumentParser):
    """Whose errors are one line, with the nearest word that it knows: the usage is what --help is for."""

    given: tuple[str, ...] = ()

    def parse_known_args(self, args=None, namespace=None):
        """As argparse has it."""
        self.given = tuple(sys.argv[1:] if args is None else args)
        return super().parse_known_args(args, namespace)

    def named(self, command: str) -> "Parser":
        """The parser of a subcommand."""
        return next(action.choices[command] for action in self._actions if isinstance(action.choices, dict))

    def error(self, message: str):
        """Ends the process with exit code 2."""
        message = self._misspelt() or _nearest_choice(message)
        message = message if len(message) <= MOST else f"{message[:MOST]} ..."
        self.exit(2, f"{self.prog}: {' '.join(message.split())}; see {self.prog} --help\n")

    def _misspelt(self) -> str:
        """Of the first option that was given and is none: what it may have been; else nothing."""
        known = [option for option in self._option_string_actions if option.startswith("--")]
        for word in (given.partition("=")[0] for given in self.given if given.startswith("--")):
            if len(word) > 2 and known and not any(option.startswith(word) for option in known):
                near = get_close_matches(word, known, 1)
                return f"there is no option {word}{f'; the nearest is {near[0]}' if near else ''}"
        return ""


class Above(logging.Handler):
    """Messages on stderr, each on a line of its own above a progress bar."""

    def emit(self, record: logging.LogRecord) -> None:
        """Prints one."""
        from tqdm import tqdm

        tqdm.write(record.getMessage(), file=sys.stderr)


@contextmanager
def messages() -> Iterator[None]:
    """Inside, what the package logs, warnings as a rule, comes out that way."""
    log, handler = logging.getLogger(PACK), Above()
    if any(isinstance(there, Above) for there in log.handlers):  # a command within a command
        yield
        return
    log.addHandler(handler)
    try:
        yield
    finally:
        log.removeHandler(handler)


def _nearest_choice(message: str) -> str:
    """argparse's "invalid choice" with the nearest of the choices in place of the list."""
    found = re.match(r"(.*invalid choice: '(.*)') \(choose from (.*)\)$", message, re.DOTALL)
    near = get_close_matches(found[2], re.findall(r"[\w.-]+", found[3]), 1) if found else []
    return f"{found[1]}; the nearest is {near[0]}" if near else message


class Terminal(Host):
    """What a command says of a pipeline's loading: a progress bar on stderr where it takes a while."""

    def reading(self, what: str, total: int):
        """As Host has it."""
        return bar(what, total)

    def opened(self, config) -> None:
        """A model of that configuration was opened; nothing of it is loaded yet. ValueError for one it cannot run."""


HOST: ContextVar[Terminal | None] = ContextVar("HOST", default=None)  # of the pipelines that commands open


def set_threads(count: int | None, backend: str = "torch") -> None:
    """CPU threads of the torch backend; None leaves torch's choice. ValueError below 1, and for another backend."""
    if count is None:
        return
    check_whole("--threads", count, max(16, 2 * (os.cpu_count() or 1)))
    if choose(backend) != "torch":
        raise ValueError("--threads sets torch's CPU threads; leave it out with backend mlx")
    import torch

    torch.set_num_threads(count)
