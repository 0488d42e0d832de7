"""``asap-export``: the commands, and how each of them ends."""

import errno
import logging
import os
import sys
import warnings
from collections.abc import Callable, Sequence

import typer

from asap_export.cli.bench import bench_command
from asap_export.cli.evaluate import eval_command
from asap_export.cli.explain import explain_command
from asap_export.cli.export import export_command, program
from asap_export.cli.interruption import interrupted_status, raise_if_interrupted
from asap_export.cli.reports import env_command, flops_command, inspect_command, verify_command
from asap_export.cli.run import run_command
from asap_export.cli.serve import serve_command
from asap_export.cli.verbosity import reset_verbosity, with_verbosity
from asap_export.errors import UserError

__all__ = ["app", "exit_status", "run"]

WRONG_INPUT = 2
INTERRUPTED = 130  # 128 + SIGINT, as shells count, where nobody noted the signal
_NAME = "asap-export"
_COMPLETION = "_ASAP_EXPORT_COMPLETE"  # set by the script that --install-completion installs
NO_READER = 141  # 128 + SIGPIPE

# What the extra "export" installs, by the names that are imported.
EXPORT_PACKAGES = frozenset(
    {"torch", "transformers", "onnx", "onnxscript", "onnx_ir", "polygraphy", "safetensors", "huggingface_hub"}
)

_COMMANDS: dict[str, Callable[..., None]] = {
    "export": export_command,
    "run": run_command,
    "serve": serve_command,
    "verify": verify_command,
    "explain": explain_command,
    "eval": eval_command,
    "bench": bench_command,
    "inspect": inspect_command,
    "flops": flops_command,
    "env": env_command,
}

_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO)

app = typer.Typer(
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.callback(invoke_without_command=True)(with_verbosity(program))
for _name, _command in _COMMANDS.items():
    app.command(_name)(with_verbosity(_command))


def run(arguments: Sequence[str]) -> int:
    """``exit_status`` in a process that has nothing else to do, completion and a closed pipe included."""
    _quiet_libraries()
    if _COMPLETION in os.environ:  # a shell asks what may come next
        app(prog_name=_NAME)
    try:
        return exit_status(arguments)
    except BrokenPipeError:  # `| head` has read enough
        _drop_output()
        return NO_READER


def exit_status(arguments: Sequence[str]) -> int:
    """Run the command line: 0, 1 where a verification fails or a bench measures nothing, 2 after wrong input, 128
    and the signal's number interrupted.

    Wrong input gets one line on stderr. Any other exception is a fault of ours and keeps its traceback.
    """
    command = typer.main.get_command(app)
    try:
        with command.make_context(_NAME, list(arguments)) as context:
            command.invoke(context)
        sys.stdout.flush()
        raise_if_interrupted()
    except typer.Exit as end:
        return end.exit_code
    except UserError as error:
        return _refuse(error.message)
    except typer.TyperException as error:
        return _refuse(_usage(error))
    except ModuleNotFoundError as error:
        package = (error.name or "").partition(".")[0]
        if package not in EXPORT_PACKAGES:
            raise
        return _refuse(
            f"expected the Python package {package} for this command, found none; "
            "pip install 'asap-export[export]'"
        )
    except OSError as error:
        if error.errno not in _NO_ROOM or error.filename is not None:
            raise
        place = "all that was asked for" if _output_is_taken() else "to standard output"
        return _refuse(f"expected to write {place}, found: {error.strerror}; free space or write elsewhere")
    except (KeyboardInterrupt, typer.Abort):
        print("interrupted", file=sys.stderr)
        return interrupted_status() or INTERRUPTED
    except Exception:
        if not interrupted_status():
            raise
        print("interrupted", file=sys.stderr)  # what a library made of the interruption says nothing
        return interrupted_status()
    finally:
        reset_verbosity()  # what one command line asked for is not the next one's
    return 0


def _drop_output() -> None:
    """What is left to flush goes nowhere."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _output_is_taken() -> bool:
    """Whether standard output takes what is written to it; where it does not, nothing more is."""
    try:
        sys.stdout.flush()
    except OSError:
        _drop_output()
        return False
    return True


def _refuse(message: str) -> int:
    print(f"error: {' '.join(message.split())}", file=sys.stderr)
    return WRONG_INPUT


def _usage(error: typer.TyperException) -> str:
    """Click's complaint in the form of ours: "invalid value for '--engine': ...; see asap-export --help"."""
    context = getattr(error, "ctx", None)
    path = context.command_path if context else _NAME
    message = error.format_message()
    return f"{message[:1].lower()}{message[1:].rstrip('.')}; see {path} --help"


def _quiet_libraries() -> None:
    """Keep the notes of libraries to programmers away from users; python -W brings them back."""
    if sys.warnoptions:
        return
    warnings.simplefilter("ignore")
    logging.disable(logging.ERROR)  # what is an error comes as an exception, too
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
