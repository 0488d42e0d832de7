"""From prompts to answers, whole or piece by piece: what models and conversations have in common."""

from collections.abc import Generator, Sequence
from dataclasses import replace

from asap_export.runtime.cache import Cache
from asap_export.runtime.generate import Generation, generate, tokens
from asap_export.runtime.graphs import Graphs
from asap_export.runtime.prompt import Prompt, PromptReader
from asap_export.runtime.request import Answer, Request
from asap_export.runtime.streaming import TextStream

__all__ = ["answers", "pieces"]


def answers(
    reader: PromptReader,
    graphs: Graphs,
    prompts: Sequence[Prompt],
    requests: Sequence[Request],
    preprocess: float = 0.0,
    cache: Cache | None = None,
) -> tuple[list[Answer], Cache]:
    """Answers to prompts that took ``preprocess`` seconds to read, on top of ``cache``; and the cache that then
    holds everything but each row's last token."""
    done = generate(graphs, prompts, requests, cache)
    texts = [reader.text(row).lstrip() for row in done.token_ids]
    return [_answer(graphs, done, row, text, preprocess) for row, text in enumerate(texts)], done.cache


def pieces(
    reader: PromptReader,
    graphs: Graphs,
    prompt: Prompt,
    request: Request,
    preprocess: float = 0.0,
    cache: Cache | None = None,
) -> Generator[str, None, tuple[Answer, Cache]]:
    """The pieces of one answer; returns what ``answers`` does."""
    stream, written = TextStream(reader.text), tokens(graphs, [prompt], [request], cache)
    while True:
        try:
            _, token = next(written)
        except StopIteration as end:
            done: Generation = end.value
            break
        if piece := stream.put(token):
            yield piece
    if piece := stream.rest():
        yield piece
    return _answer(graphs, done, 0, stream.text(), preprocess), done.cache


def _answer(graphs: Graphs, done: Generation, row: int, text: str, preprocess: float) -> Answer:
    token_ids = done.token_ids[row]
    return Answer(
        text,
        tuple(token_ids),
        done.visual_tokens[row],
        done.kept_visual_tokens[row],
        tuple(done.kept_index[row]),
        "end" if token_ids[-1] in graphs.manifest.model.eos_token_ids else "length",
        replace(done.timings, preprocess=preprocess),
    )
