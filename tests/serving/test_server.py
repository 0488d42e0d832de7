"""Over HTTP as OpenAI's clients talk: their own package, unmodified, against a server of this project."""

import json
import re
import socket
import threading
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import openai
import pytest
from chat_server import IMAGES, Served, asked, image, serving

GREEDY = {"temperature": 0, "extra_body": {"repetition_penalty": 1.0}}


@pytest.fixture(scope="module")
def served(pruned_bundle: Path) -> Iterator[Served]:
    with serving(pruned_bundle) as found:
        yield found


def greedy(served: Served, images: list[str], text: str, tokens: int, **settings: Any) -> Any:
    """What the model answers without a server."""
    files = [IMAGES / name for name in images]
    return served.model.generate(files, text, tokens, temperature=0.0, repetition_penalty=1.0, **settings)


def refused(served: Served, messages: Any, **settings: Any) -> dict[str, Any]:
    """The error that a request is answered with."""
    with pytest.raises(openai.BadRequestError) as error:
        served.ask(messages, **settings)
    assert isinstance(error.value.body, dict)
    return error.value.body


def test_an_answer_is_the_model_s_own_and_says_what_it_took(served: Served) -> None:
    answer = served.ask(asked("mat.png", "What is it?"), max_tokens=6, **GREEDY)
    expected = greedy(served, ["mat.png"], "What is it?", 6)
    choice = answer.choices[0]
    assert (choice.message.role, choice.message.content) == ("assistant", expected.text)
    assert choice.finish_reason == {"length": "length", "end": "stop"}[expected.stopped_by]
    usage = answer.usage
    assert usage.completion_tokens == len(expected.token_ids)
    assert usage.total_tokens == usage.prompt_tokens + usage.completion_tokens
    assert usage.prompt_tokens_details.visual_tokens == expected.visual_tokens
    assert (
        usage.prompt_tokens_details.kept_visual_tokens == expected.kept_visual_tokens < expected.visual_tokens
    )


def test_a_stream_begins_with_the_role_and_ends_with_reason_and_usage(served: Served) -> None:
    stream = served.ask(
        asked("sign.png", "What is it?"),
        max_tokens=7,
        stream=True,
        stream_options={"include_usage": True},
        **GREEDY,
    )
    first, *rest = list(stream)
    assert (first.choices[0].delta.role, first.choices[0].delta.content) == ("assistant", "")
    *pieces, last, usage = rest
    assert last.choices[0].finish_reason in ("length", "stop") and last.choices[0].delta.content is None
    assert not usage.choices and usage.usage.completion_tokens <= 7
    assert {each.choices[0].finish_reason for each in pieces} <= {None}
    said = "".join(each.choices[0].delta.content for each in pieces)
    assert said == greedy(served, ["sign.png"], "What is it?", 7).text
    assert len({each.id for each in (first, *rest)}) == 1


@pytest.mark.parametrize("budget", [{"keep": 11}, {"keep_ratio": 0.5}, {"budget": 100.0}])
def test_a_request_brings_its_own_budget(served: Served, budget: dict[str, Any]) -> None:
    answer = served.ask(asked("mat.png", "What is it?"), max_tokens=2, temperature=0, extra_body=budget)
    kept = answer.usage.prompt_tokens_details.kept_visual_tokens
    assert kept == served.model.generate([IMAGES / "mat.png"], "What is it?", 2, **budget).kept_visual_tokens


def test_many_at_once_are_answered_as_one_after_the_other(served: Served) -> None:
    """More than there are rows, of different lengths, budgets and pictures."""
    names = ["mat.png", "sign.png", "tower.png", "things.png"]
    cases = [(names[n % 4], f"Question {n}?", 3 + 2 * n % 9, 20 + 15 * n) for n in range(7)]

    def ask(case: tuple[str, str, int, int]) -> str:
        name, text, tokens, keep = case
        body = {"extra_body": {"repetition_penalty": 1.0, "keep": keep}, "temperature": 0}
        return served.ask(asked(name, text), max_tokens=tokens, **body).choices[0].message.content

    with ThreadPoolExecutor(7) as pool:
        found = list(pool.map(ask, cases))
    assert found == [
        greedy(served, [name], text, tokens, keep=keep).text for name, text, tokens, keep in cases
    ]


def test_earlier_turns_system_prompts_and_images_between_words_come_into_the_prompt(served: Served) -> None:
    chat = served.model.chat()
    kinds: dict[str, Any] = {"temperature": 0.0, "repetition_penalty": 1.0}
    first = chat.ask([IMAGES / "mat.png"], "What is it?", 5, **kinds)
    turns = [
        *asked("mat.png", "What is it?"),
        {"role": "assistant", "content": first.text},
        *asked("sign.png", "And this?"),
    ]
    answer = served.ask(turns, max_tokens=5, **GREEDY)
    reader = served.model.reader
    whole = (
        reader.template.first("What is it?", 1)
        + first.text
        + reader.template.later(chat.turns, "And this?", 1)
    )
    expected = served.model.generate(
        [IMAGES / "mat.png", IMAGES / "sign.png"], whole, 5, template=False, **kinds
    )
    assert answer.choices[0].message.content == expected.text
    brief = [{"role": "system", "content": "Be brief."}, *asked("What is it?")]
    longer = served.ask(brief, max_tokens=1).usage.prompt_tokens
    assert longer > served.ask(asked("What is it?"), max_tokens=1).usage.prompt_tokens
    assert served.ask(asked("Is", "mat.png", "like", "sign.png", "?"), max_tokens=1).usage.prompt_tokens > 100


def test_the_same_seed_draws_the_same_tokens(served: Served) -> None:
    settings: dict[str, Any] = {"max_tokens": 8, "temperature": 1.3, "top_p": 0.9, "seed": 7}
    first, second = (served.ask(asked("mat.png", "What is it?"), **settings) for _ in range(2))
    assert first.choices[0].message.content == second.choices[0].message.content


REFUSED: list[tuple[dict[str, Any], str]] = [
    (
        {"tools": [{"type": "function", "function": {"name": "f"}}]},
        r"^tools: this server does not support it",
    ),
    ({"n": 2}, r"^n: "),
    ({"logprobs": True}, r"^logprobs: "),
    ({"presence_penalty": 0.5}, r"^presence_penalty: "),
    ({"max_tokens": 0}, r"^max_tokens: .* greater than or equal to 1"),
    ({"max_tokens": 3, "max_completion_tokens": 4}, r"^max_tokens and max_completion_tokens differ"),
    ({"max_tokens": 10**6}, r"^expected at most .* tokens, .*; lower max_tokens to \d+$"),
    ({"extra_body": {"keep": 3, "budget": 4.0}}, r"^give at most one of keep, keep_ratio and budget"),
    ({"extra_body": {"colour": "red"}}, r"^colour: this server does not support it; leave it out"),
    ({"stream_options": {"include_usage": True}}, r"^stream_options needs stream: true"),
]


@pytest.mark.parametrize(("settings", "said"), REFUSED)
def test_what_is_not_supported_is_named(served: Served, settings: dict[str, Any], said: str) -> None:
    """As an answer of its own, also where a stream was asked for."""
    for stream in {False, "stream_options" not in settings}:
        error = refused(served, asked("mat.png", "What is it?"), stream=stream, **settings)
        assert error["type"] == "invalid_request_error"
        assert re.search(said, error["message"])


def url(place: str) -> list[dict[str, Any]]:
    return [{"type": "image_url", "image_url": {"url": place}}]


CONTENTS: list[tuple[Any, str]] = [
    (url("http://127.0.0.1/x.png"), r"start the server with --allow-remote-images$"),
    (url("file:///etc/passwd"), r"--allow-local-images FOLDER$"),
    (url("data:image/png;base64,bm8="), r"^expected an image in what was given"),
    (url("data:image/png;base64,?"), r"^expected base64 in a data URI"),
    ([{"type": "input_audio", "input_audio": {}}], r"input_audio"),
    ("Look: <image>", r"^expected images as parts of a message, found the mark <image> in its text; leave"),
]


@pytest.mark.parametrize(("content", "said"), CONTENTS)
def test_contents_that_cannot_be_read_are_refused(served: Served, content: Any, said: str) -> None:
    text = [{"type": "text", "text": "What is it?"}]
    messages = [{"role": "user", "content": content if isinstance(content, str) else content + text}]
    assert re.search(said, refused(served, messages)["message"])


@pytest.mark.parametrize(
    ("roles", "said"),
    [
        (["user", "user"], "in turn"),
        (["assistant"], "in turn"),
        (["user", "assistant"], "found none; ask something"),
        (["user", "assistant", "system", "user"], "found one behind"),
        (["system"], "found none; ask something"),
    ],
)
def test_an_order_of_roles_that_is_no_conversation_is_refused(
    served: Served, roles: list[str], said: str
) -> None:
    with pytest.raises(openai.BadRequestError, match=said):
        served.ask([{"role": role, "content": "x"} for role in roles])


def test_other_models_and_paths_are_not_found(served: Served) -> None:
    assert [each.id for each in served.client.models.list()] == ["tiny"]
    assert served.client.models.retrieve("tiny").owned_by == "asap-export"
    with pytest.raises(openai.NotFoundError, match="expected the model tiny, found gpt-4o"):
        served.client.chat.completions.create(model="gpt-4o", messages=asked("Hello?"))  # type: ignore[arg-type]


def test_a_client_that_leaves_gives_its_row_back(served: Served) -> None:
    """In the midst of a stream, and before an answer that comes whole."""
    for stream in (True, False):
        body = {
            "model": "tiny",
            "messages": asked("mat.png", "What is it?"),
            "max_tokens": 1300,
            "stream": stream,
        }
        body |= {"min_tokens": 1300}
        content = json.dumps(body).encode()
        with socket.create_connection(("127.0.0.1", served.port)) as connection:
            head = (
                "POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
                f"Content-Length: {len(content)}\r\n\r\n"
            )
            connection.sendall(head.encode() + content)
            while not served.batcher.running:
                pass
            if stream:
                connection.recv(4000)
        assert served.idle()


def test_too_many_requests_are_told_when_to_come_again(pruned_bundle: Path) -> None:
    with serving(pruned_bundle, rows=1, waiting=1) as served:
        running = [
            served.ask(
                asked("mat.png", "What is it?"), max_tokens=900, stream=True, extra_body={"min_tokens": 900}
            )
        ]
        next(iter(running[0]))
        waiting = threading.Thread(target=lambda: served.ask(asked("Hello?"), max_tokens=1))
        waiting.start()
        while not served.batcher.waiting:
            pass
        with pytest.raises(
            openai.RateLimitError, match="1 requests are waiting already; try again in 5 s"
        ) as busy:
            served.ask(asked("Hello?"))
        assert busy.value.response.headers["retry-after"] == "5"
        running[0].close()
        waiting.join(60)
        assert served.idle()


def test_keys_sizes_and_times_are_limited(pruned_bundle: Path) -> None:
    with serving(pruned_bundle, key="secret", most_bytes=20_000, seconds=0.4) as served:
        assert served.ask(asked("Hello?"), max_tokens=1).choices
        with pytest.raises(openai.APIStatusError, match="at most 20,000 bytes") as large:
            served.ask([{"role": "user", "content": "x" * 30_000}])
        assert large.value.status_code == 413
        with pytest.raises(openai.APIStatusError, match=r"no answer within 0\.4 s") as late:
            served.ask(asked("Hello?"), max_tokens=1400, extra_body={"min_tokens": 1400})
        assert late.value.status_code == 504
        stranger = openai.OpenAI(base_url=f"{served.url}/v1", api_key="guess", max_retries=0)
        with pytest.raises(openai.AuthenticationError, match="expected the server's key"):
            stranger.models.list()
        assert urllib.request.urlopen(f"{served.url}/health/live").status == 200


def test_health_and_metrics_say_how_it_is(served: Served) -> None:
    served.ask(asked("mat.png", "What is it?"), max_tokens=3)
    assert json.load(urllib.request.urlopen(f"{served.url}/health/ready")) == {"status": "ready"}
    text = urllib.request.urlopen(f"{served.url}/metrics").read().decode()
    found = dict(line.rsplit(" ", 1) for line in text.splitlines() if not line.startswith("#"))
    assert float(found["asap_visual_tokens_total"]) > float(found["asap_kept_visual_tokens_total"]) > 0
    assert found["asap_rows"] == "3.0" and found["asap_rows_at_once"] == "1.0"
    assert float(found["asap_time_to_first_token_seconds_count"]) >= 1
    assert float(found['asap_requests_total{status="200"}']) >= 1


def test_images_of_a_folder_may_be_read_and_no_others(pruned_bundle: Path, tmp_path: Path) -> None:
    from asap_export.serving.images import ImagePolicy

    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "mat.png").write_bytes((IMAGES / "mat.png").read_bytes())
    (tmp_path / "out.png").write_bytes((IMAGES / "mat.png").read_bytes())
    (tmp_path / "in" / "link.png").symlink_to(tmp_path / "out.png")
    policy = ImagePolicy(local=tmp_path / "in")
    assert policy.read(f"file://{tmp_path}/in/mat.png").size
    for path in ("out.png", "in/../out.png", "in/link.png", "in/none.png"):
        with pytest.raises(
            Exception, match="expected a file in the folder that the server allows, found none"
        ):
            policy.read(f"file://{tmp_path}/{path}")
    assert image("mat.png")["image_url"]["url"].startswith("data:image/png;base64,")
