"""``asap-export run``: one answer, or a conversation."""

import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass
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
)
from asap_export.cli.tables import print_json
from asap_export.cli.verbosity import note
from asap_export.errors import UserError

if TYPE_CHECKING:
    from asap_export.runtime.request import Answer

__all__ = ["run_command"]

_SAMPLING = "Sampling"
_CHAT_HELP = "A line is a question; /image FILE brings an image to the next one, /quit ends."

Ask = Callable[[str, list[Path]], None]


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
        int, typer.Option("--max-new-tokens", metavar="N", help="Where an answer is cut at the latest.")
    ] = 256,
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
        int, typer.Option("--seed", help="The same one draws the same tokens.", rich_help_panel=_SAMPLING)
    ] = 0,
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
        "keep": keep,
        "keep_ratio": keep_ratio,
        "budget": budget,
        "on_text": _print_piece if stream and not as_json else None,
    }

    from asap_export.runtime.model import load  # ONNX Runtime and transformers: seconds to import

    model = load(bundle, provider)
    if model.note:
        note(f"note: {model.note}")
    shown = _Shown(model.bundle.manifest.pruning.prunes, stream, as_json)
    if not chat:
        assert prompt is not None
        shown.answer(model.generate(image or [], prompt, **settings))
        return
    conversation = model.chat()

    def ask(text: str, images: list[Path]) -> None:
        shown.answer(conversation.ask(text, images, **settings))

    _chat(ask, prompt, image or [])


def _chat(ask: Ask, prompt: str | None, images: list[Path]) -> None:
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
            ask(line, images)
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


@dataclass(frozen=True)
class _Shown:
    """How answers are shown: ``streamed`` ones are on stdout already, but for the end of the line."""

    prunes: bool
    streamed: bool
    as_json: bool

    def answer(self, answer: "Answer") -> None:
        if self.as_json:
            print_json(asdict(answer))
            return
        print("" if self.streamed else answer.text, flush=True)
        note(self._summary(answer))

    def _summary(self, answer: "Answer") -> str:
        """One line: "45 of 268 visual tokens kept; images and text 0.04 s, prefill 0.03 s, ..."."""
        timings = answer.timings
        read = timings.preprocess + timings.vision + timings.embed
        cut = " (cut at --max-new-tokens)" if answer.stopped_by == "length" else ""
        return (
            f"{self._kept(answer)}; images and text {read:.2f} s, prefill {timings.prefill:.2f} s, "
            f"decode {sum(timings.decode):.2f} s, tokens {len(answer.token_ids)}{cut}"
        )

    def _kept(self, answer: "Answer") -> str:
        visual, kept = answer.visual_tokens, answer.kept_visual_tokens
        if not visual:
            return "no image"
        if kept < visual:
            return f"{kept:,} of {visual:,} visual tokens kept"
        why = "the budget has room for them" if self.prunes else "this bundle does not prune"
        return f"all {visual:,} visual tokens kept ({why})"
