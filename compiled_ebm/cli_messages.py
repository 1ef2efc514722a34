"""What the command line says on stderr: one line for each mistake and each warning."""

from __future__ import annotations

import os
import re
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NoReturn

import torch
import typer
from rich.console import Console
from rich.text import Text
from typer.core import TyperGroup

from compiled_ebm import sourcelines
from compiled_ebm.draws.save import check_directory
from compiled_ebm.errors import BackendUnavailableError, NonFiniteChainWarning
from compiled_ebm.json_files import as_json

__all__ = ["INTERRUPTED", "OneLineErrors", "check_json", "fail", "in_option", "say", "write_json", "writing"]

INTERRUPTED = 130
"""The exit code after Ctrl-C: 128 + SIGINT, as shells have it."""
_TRACEBACKS = "COMPILED_EBM_TRACEBACK"
_OPTIONS = {"n_chains": "chains", "n_steps": "steps", "dtypes": "dtype"}
"""Library arguments whose option has another name."""
_USAGE_ERROR: Any = typer.BadParameter.__mro__[1]
"""Click's, which typer either imports or carries a copy of."""


def say(style: str, label: str, message: object) -> None:
    """One line on stderr, whatever the message's own line breaks."""
    line = Text.assemble((f"{label}: ", style), " ".join(str(message).split()))
    Console(stderr=True).print(line, soft_wrap=True)


def fail(message: object) -> NoReturn:
    """Say what is wrong, in the option's name where the library gave the argument's, and leave with code 2."""
    text = re.sub(
        r"^(n_chains|n_steps|step_size|noise_scale|thin|seed|device|dtype|dtypes|backend|event_shape|rounds|seconds|min_speedup)\b",
        lambda found: "--" + _OPTIONS.get(found[1], found[1]).replace("_", "-"),
        str(message),
    )
    say("bold red", "error", text)
    raise typer.Exit(2)


class OneLineErrors(TyperGroup):
    """Commands whose mistakes are told in one line, without a traceback."""

    def main(
        self,
        args: Sequence[str] | None = None,
        prog_name: str | None = None,
        complete_var: str | None = None,
        standalone_mode: bool = True,
        windows_expand_args: bool = True,
        **extra: Any,
    ) -> Any:
        """As the command's own, with usage errors in one line too."""
        names = (args, prog_name, complete_var)
        if not standalone_mode:
            return super().main(*names, standalone_mode=False, windows_expand_args=windows_expand_args, **extra)
        try:
            code = super().main(*names, standalone_mode=False, windows_expand_args=windows_expand_args, **extra)
        except _USAGE_ERROR as error:
            say("bold red", "error", error.format_message())
            code = 2
        sys.exit(code if isinstance(code, int) else 0)

    def invoke(self, ctx: Any) -> Any:
        """Run the command; what the library raises about a bad value becomes a line."""
        try:
            with _warnings_as_lines():
                return super().invoke(ctx)
        except KeyboardInterrupt:
            say("yellow", "interrupted", "no unfinished file is left")
            raise typer.Exit(INTERRUPTED) from None
        except torch.OutOfMemoryError as error:
            fail(f"{error}; use fewer --chains or a larger --thin")
        except (ValueError, TypeError, MemoryError, ImportError, BackendUnavailableError) as error:
            fail(error if str(error) else type(error).__name__)
        except (typer.Exit, typer.Abort, _USAGE_ERROR):
            raise
        except (Exception, SystemExit) as error:
            if os.environ.get(_TRACEBACKS):
                raise
            where = sourcelines.line_of_error(error)
            fail(f"{type(error).__name__} at {where}: {error} ({_TRACEBACKS}=1 shows the traceback)")


@contextmanager
def _warnings_as_lines() -> Iterator[None]:
    def show(message: Warning | str, *_: object, **__: object) -> None:
        say("yellow", "warning", message)

    with warnings.catch_warnings():
        warnings.simplefilter("always", NonFiniteChainWarning)
        warnings.showwarning = show
        yield


def in_option(option: str, check: Callable[[Path], None], path: Path) -> None:
    """Check a path that an option gives."""
    try:
        check(path)
    except (ValueError, ImportError) as error:
        fail(f"{option}: {error}")


def check_json(json_to: str | None) -> None:
    """Check the file that ``--json`` names, if it names one."""
    if json_to not in (None, "-"):
        in_option("--json", check_directory, Path(str(json_to)))


def write_json(json_to: str, report: Mapping[str, Any]) -> None:
    """A report into the file that ``--json`` names, or on stdout."""
    if json_to == "-":
        print(as_json(report, None))
        return
    with writing(Path(json_to)):
        as_json(report, json_to)


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """What the file system refuses is a line, and exit code 1."""
    try:
        yield
    except OSError as error:
        say("bold red", "error", f"{path}: not written: {error.strerror or error}")
        raise typer.Exit(1) from error
