"""``asap-export``: the commands, and how each of them ends."""

import logging
import os
import sys
import warnings
from collections.abc import Sequence

import typer

from asap_export.cli.bench import bench_command
from asap_export.cli.evaluate import eval_command
from asap_export.cli.explain import explain_command
from asap_export.cli.export import export_command
from asap_export.cli.reports import env_command, flops_command, inspect_command, verify_command
from asap_export.cli.run import run_command
from asap_export.errors import UserError

__all__ = ["app", "exit_status", "main"]

# Typer carries its own click from some version on; this is the way to the class in all of them.
UsageError: type[Exception] = typer.BadParameter.__bases__[0]
WRONG_INPUT = 2
INTERRUPTED = 130  # 128 + SIGINT, as shells count
NO_READER = 141  # 128 + SIGPIPE

app = typer.Typer(
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.callback(invoke_without_command=True)(export_command)
app.command("run")(run_command)
app.command("explain")(explain_command)
app.command("verify")(verify_command)
app.command("eval")(eval_command)
app.command("bench")(bench_command)
app.command("inspect")(inspect_command)
app.command("flops")(flops_command)
app.command("env")(env_command)


def main() -> None:
    """Run the command line and exit."""
    _quiet_libraries()
    try:
        sys.exit(exit_status(sys.argv[1:]))
    except BrokenPipeError:  # `| head` has read enough; what is left to flush goes nowhere
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(NO_READER)


def exit_status(arguments: Sequence[str]) -> int:
    """Run the command line: 0, 1 where a verification fails or a bench measures nothing, 2 after wrong input, 130
    interrupted.

    Wrong input gets one line on stderr. Any other exception is a fault of ours and keeps its traceback.
    """
    command = typer.main.get_command(app)
    try:
        with command.make_context("asap-export", list(arguments)) as context:
            command.invoke(context)
        sys.stdout.flush()
    except typer.Exit as end:
        return end.exit_code
    except UserError as error:
        return _refuse(error.message)
    except UsageError as error:
        return _refuse(_usage(error))
    except (KeyboardInterrupt, typer.Abort):
        print("interrupted", file=sys.stderr)
        return INTERRUPTED
    return 0


def _refuse(message: str) -> int:
    print(f"error: {' '.join(message.split())}", file=sys.stderr)
    return WRONG_INPUT


def _usage(error: Exception) -> str:
    """Click's complaint in the form of ours: "invalid value for '--engine': ...; see asap-export --help"."""
    context = getattr(error, "ctx", None)
    path = context.command_path if context else "asap-export"
    message: str = error.format_message()  # type: ignore[attr-defined]
    return f"{message[:1].lower()}{message[1:].rstrip('.')}; see {path} --help"


def _quiet_libraries() -> None:
    """Keep the notes of libraries to programmers away from users; python -W brings them back."""
    if sys.warnoptions:
        return
    warnings.simplefilter("ignore")
    logging.disable(logging.WARNING)
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
