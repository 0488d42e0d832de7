"""``asap-export serve``, as somebody starts and stops it."""

import json
import signal
import socket
import subprocess
import time
import urllib.error
import urllib.request
from pathlib import Path

import openai
from chat_server import asked
from installed_command import COMMAND, ENVIRONMENT, refused


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port: int = found.getsockname()[1]
        return port


def wait_until_ready(port: int, process: subprocess.Popen[str]) -> None:
    for _ in range(600):
        try:
            urllib.request.urlopen(f"http://127.0.0.1:{port}/health/ready")
            return
        except urllib.error.URLError:
            assert process.poll() is None, process.communicate()
            time.sleep(0.1)
    raise AssertionError("the server did not become ready")


def test_it_answers_logs_and_lets_answers_end_when_it_is_told_to_stop(pruned_bundle: Path) -> None:
    port = free_port()
    command = [COMMAND, "serve", pruned_bundle, "--port", str(port), "--rows", "2", "--model-name", "tiny"]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=ENVIRONMENT)
    try:
        wait_until_ready(port, process)
        client = openai.OpenAI(base_url=f"http://127.0.0.1:{port}/v1", api_key="none", max_retries=0)
        stream = client.chat.completions.create(
            model="tiny",
            messages=asked("mat.png", "What is it?"),  # type: ignore[arg-type]
            max_tokens=200,
            stream=True,
            extra_body={"min_tokens": 200},
            extra_headers={"X-Request-ID": "mine"},
        )
        next(iter(stream))
        process.send_signal(signal.SIGTERM)
        *_, last = list(stream)
        assert last.choices[0].finish_reason == "length"
        _, said = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == 0
    first, *log = said.splitlines()
    assert first.startswith(f"serving tiny at http://127.0.0.1:{port}/v1: 2 rows, ")
    requests = [json.loads(line) for line in log]
    mine = next(each for each in requests if each["id"] == "mine")
    assert (mine["path"], mine["status"]) == ("/v1/chat/completions", 200)


def test_what_cannot_be_served_is_said_in_a_line(pruned_bundle: Path, tmp_path: Path) -> None:
    assert "give the folder of a bundle" in refused("serve", tmp_path)
    said = refused("serve", pruned_bundle, "--allow-local-images", tmp_path / "none")
    assert said.startswith("error: expected a folder for --allow-local-images, found none at ")
    said = refused("serve", pruned_bundle, "--rows", "8", "--places", "1000000000")
    assert said.startswith("error: expected ") and said.endswith("; lower --rows or --places")
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        said = refused("serve", pruned_bundle, "--port", str(taken.getsockname()[1]))
        assert said.startswith("error: expected a free port, found ") and "--port" in said
