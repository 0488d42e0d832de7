"""From prompts to answers, whole or piece by piece: what models and conversations have in common."""

from collections.abc import Generator, Sequence
from dataclasses import replace

from asap_export.runtime.cache import Cache
from asap_export.runtime.generate import Generation, tokens
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
    streams = [_stream(reader, graphs, request) for request in requests]
    written = tokens(graphs, prompts, requests, cache)
    stopped: bool | None = None
    while True:
        try:
            row, token = written.send(stopped)
        except StopIteration as end:
            done: Generation = end.value
            break
        stopped = streams[row].put(token)
    return [_answer(graphs, done, row, stream, preprocess) for row, stream in enumerate(streams)], done.cache


def pieces(
    reader: PromptReader,
    graphs: Graphs,
    prompt: Prompt,
    request: Request,
    preprocess: float = 0.0,
    cache: Cache | None = None,
) -> Generator[str, None, tuple[Answer, Cache]]:
    """The pieces of one answer; returns what ``answers`` does."""
    stream, written = _stream(reader, graphs, request), tokens(graphs, [prompt], [request], cache)
    stopped: bool | None = None
    while True:
        try:
            _, token = written.send(stopped)
        except StopIteration as end:
            done: Generation = end.value
            break
        stopped = stream.put(token)
        if not stopped and (piece := stream.piece()):
            yield piece
    if piece := stream.rest():
        yield piece
    return _answer(graphs, done, 0, stream, preprocess), done.cache


def _stream(reader: PromptReader, graphs: Graphs, request: Request) -> TextStream:
    return TextStream(reader.text, request.generation(graphs.manifest.generation).stop)


def _answer(graphs: Graphs, done: Generation, row: int, stream: TextStream, preprocess: float) -> Answer:
    token_ids = done.token_ids[row]
    ended = token_ids[-1] in graphs.manifest.model.eos_token_ids
    return Answer(
        stream.text(),
        tuple(token_ids),
        done.visual_tokens[row],
        done.kept_visual_tokens[row],
        tuple(done.kept_index[row]),
        "end" if ended else "stop" if stream.stopped else "length",
        replace(done.timings, preprocess=preprocess),
    )
