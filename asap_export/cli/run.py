"""``asap-export run``: one answer, or a conversation."""

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Annotated, Any

import typer

from asap_export.cli.options import (
    AsJson,
    BundlePath,
    Keep,
    KeepRatio,
    LayerAverage,
    PrecisionOption,
    ProviderOption,
)
from asap_export.cli.tables import print_json
from asap_export.cli.verbosity import note
from asap_export.errors import UserError

if TYPE_CHECKING:
    from asap_export.runtime.request import Answer, Settings
    from asap_export.runtime.streaming import AnswerStream

__all__ = ["answer_line", "run_command"]

_CHOOSING = "How tokens are chosen, where not as the bundle has it"


def _sampling(name: str, metavar: str, said: str) -> Any:
    return typer.Option(name, metavar=metavar, help=said, rich_help_panel=_CHOOSING)


def run_command(
    bundle: BundlePath,
    image: Annotated[
        list[str] | None,  # a Path would take the slashes out of a URL, which is told
        typer.Option(
            "--image", metavar="FILE", help="Image that the question is about; repeat it for several."
        ),
    ] = None,
    prompt: Annotated[
        str | None,
        typer.Option(
            "--prompt",
            metavar="TEXT",
            help="The question. Images come first, or where <image> marks stand in it.",
        ),
    ] = None,
    template: Annotated[
        bool,
        typer.Option(
            "--template/--no-template",
            metavar=" ",
            help="Put the question into the chat template, or take the prompt as it is, with an <image> mark for "
            "each image.",
            show_default="on where the bundle has one",
        ),
    ] = True,
    max_new_tokens: Annotated[
        int | None,
        typer.Option(
            "--max-new-tokens",
            metavar="N",
            help="Longest answer, in tokens.",
            show_default="the bundle's own",
        ),
    ] = None,
    keep: Keep = None,
    keep_ratio: KeepRatio = None,
    budget: LayerAverage = None,
    temperature: Annotated[
        float | None,
        _sampling(
            "--temperature",
            "T",
            "0 takes the likeliest token each time; above 0 tokens are drawn, the more freely the higher.",
        ),
    ] = None,
    top_k: Annotated[
        int | None, _sampling("--top-k", "K", "Draw from the K likeliest tokens; 0 takes all.")
    ] = None,
    top_p: Annotated[
        float | None,
        _sampling(
            "--top-p", "P", "Draw from the fewest tokens whose probabilities add up to this, in (0, 1]."
        ),
    ] = None,
    min_p: Annotated[
        float | None,
        _sampling("--min-p", "P", "Draw from tokens at least P times as likely as the likeliest, in [0, 1]."),
    ] = None,
    seed: Annotated[
        int,
        typer.Option(
            "--seed",
            metavar="N",
            help="Tokens drawn with one seed are the same again.",
            rich_help_panel=_CHOOSING,
        ),
    ] = 0,
    repetition_penalty: Annotated[
        float | None,
        _sampling(
            "--repetition-penalty",
            "R",
            "Above 1, tokens that prompt or answer have already become less likely; 1 is none.",
        ),
    ] = None,
    no_repeat_ngram_size: Annotated[
        int | None,
        _sampling("--no-repeat-ngram-size", "N", "No N tokens in a row come twice; 0 forbids nothing."),
    ] = None,
    min_new_tokens: Annotated[
        int | None, _sampling("--min-new-tokens", "N", "Shortest answer, in tokens.")
    ] = None,
    stop: Annotated[
        list[str] | None,
        _sampling("--stop", "TEXT", "End the answer in front of this text; repeat it for several."),
    ] = None,
    provider: ProviderOption = "auto",
    precision: PrecisionOption = "auto",
    chat: Annotated[
        bool,
        typer.Option(
            "--chat", metavar=" ", help="Ask several questions, one a line; /help lists the commands."
        ),
    ] = False,
    stream: Annotated[
        bool,
        typer.Option(
            "--stream/--no-stream", metavar=" ", help="Print the words as they come, or the whole answer."
        ),
    ] = True,
    as_json: AsJson = False,
) -> None:
    """Answer a question about images from a bundle.

    The answer goes to stdout; what it took, in one line, to stderr.
    """
    if prompt is None and not chat:
        raise UserError("expected --prompt TEXT, found none; give one, or --chat for a conversation")
    if chat and not template:
        raise UserError("expected --chat or --no-template, found both; a conversation needs the template")
    settings: Settings = {
        "min_new_tokens": min_new_tokens,
        "temperature": temperature,
        "top_k": top_k,
        "top_p": top_p,
        "min_p": min_p,
        "repetition_penalty": repetition_penalty,
        "no_repeat_ngram_size": no_repeat_ngram_size,
        "stop": stop or None,
        "seed": seed,
        "keep": keep,
        "keep_ratio": keep_ratio,
        "budget": budget,
    }

    from asap_export.cli.chat import Chat
    from asap_export.runtime.images import read_image
    from asap_export.runtime.model import load  # ONNX Runtime takes a moment to import

    images = [read_image(file) for file in image or ()]  # a wrong one is told before a large bundle is loaded
    model = load(bundle, provider, precision=precision)
    if model.note:
        note(f"note: {model.note}")
    shown = _Shown(model.runs_on, model.bundle.manifest.pruning.prunes, stream, as_json)
    if chat:
        conversation = model.chat()
        asked = Chat(
            lambda images, text: shown.answer(conversation.stream(images, text, max_new_tokens, **settings)),
            images,
        )
        asked.run(prompt)
    elif prompt is not None:
        if template and not model.bundle.has_chat_template:
            note("note: the bundle has no chat template; the prompt is taken as it is")
            template = False
        shown.answer(model.stream(images, prompt, max_new_tokens, template, **settings))


@dataclass(frozen=True)
class _Shown:
    """How answers are shown: the words as they come, or an answer at once, and a line on what it took."""

    runs_on: str
    prunes: bool
    streamed: bool
    as_json: bool

    def answer(self, stream: "AnswerStream") -> None:
        if self.as_json:
            print_json(asdict(stream.answer))
            return
        for piece in stream if self.streamed else (stream.answer.text,):
            print(piece, end="", flush=True)
        print(flush=True)
        answer = stream.answer
        if answer.stopped_by == "length":
            note(f"note: cut at --max-new-tokens {len(answer.token_ids)}; raise it for more")
        note(answer_line(answer, self.runs_on, self.prunes))


def answer_line(answer: "Answer", runs_on: str, prunes: bool) -> str:
    """What an answer took, in 80 columns: "154 of 922 visual tokens, first token 0.06 s, 31 tokens/s, cpu"."""
    timings = answer.timings
    parts = [
        _tokens(answer, prunes),
        f"first token {_rounded(timings.first_token, 2 if timings.first_token < 1 else 1)} s",
    ]
    if timings.decode:
        parts.append(f"{_rounded(1 / timings.decode_per_token, 1)} tokens/s")
    return ", ".join([*parts, runs_on])


def _tokens(answer: "Answer", prunes: bool) -> str:
    visual, kept = answer.visual_tokens, answer.kept_visual_tokens
    if not visual:
        return "no image"
    if kept < visual:
        return f"{kept:,} of {visual:,} visual tokens"
    return f"all {visual:,} visual tokens fit" if prunes else f"{visual:,} visual tokens (dense)"


def _rounded(value: float, places: int) -> str:
    """Decimals where they say something."""
    return f"{value:.{places}f}" if value < 10 else f"{value:,.0f}"
