"""llama.cpp as a contender: its own server on a model written as GGUF, dense.

The server is another process, asked over HTTP on this machine; its memory is what is measured. It drops no padding
of an image's tiles, so its number of visual tokens may be another than asked for. It tells the time of image and
prompt in one: "vision" is the time between that its log tells of tiles in the decoder, "prefill" what is left."""

import base64
import json
import re
import socket
import subprocess
from itertools import pairwise
from pathlib import Path
from tempfile import TemporaryFile
from time import sleep
from typing import Any
from urllib.error import HTTPError
from urllib.request import Request, urlopen

from asap_export.bench import resident
from asap_export.bench.records import Contender, Workload

__all__ = ["LlamaRunner"]

_VERBOSITY = "4"  # of its log: sizes of caches, and times of tiles
_CONTEXT = 8192  # tokens
_PATIENCE = 600  # seconds to load, and for a prompt
_SOME_TOKEN = 100
_KV_CACHE = re.compile(rb"KV.{0,20} size = +([\d.]+) MiB \( *(\d+) cells", re.IGNORECASE)
_NOTE = "its visual tokens are those of whole tiles; vision is what its log leaves for it; KV cache in f16"
_STAMP = re.compile(rb"^(\d+)\.(\d+)\.(\d+)\.(\d+) .*(new prompt|decoding image|image decoded)", re.MULTILINE)


class LlamaRunner:
    """Jobs of the worker, like ``StagedRunner``'s. Raises ValueError where the server does not start."""

    def __init__(self, contender: Contender, threads: int) -> None:
        folder = Path(contender.source)
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        self._place = f"http://127.0.0.1:{port}"
        self._log = TemporaryFile()  # noqa: SIM115  lives as long as the server
        command = [
            contender.program or "llama-server", "--host", "127.0.0.1", "--port", str(port),
            "--model", str(folder / "model.gguf"), "--mmproj", str(folder / "mmproj.gguf"),
            "--threads", str(threads), "--threads-batch", str(threads),
            "--ctx-size", str(_CONTEXT), "--cache-ram", "0", "--parallel", "1", "--log-verbosity", _VERBOSITY,
        ]  # fmt: skip
        self._server = subprocess.Popen(command, stdout=self._log, stderr=subprocess.STDOUT)
        self._wait()
        with urlopen(f"{self._place}/props", timeout=_PATIENCE) as answer:
            self._marker = json.load(answer)["media_marker"]  # of an image's place, another one at each start
        self._complete([_SOME_TOKEN] * 4, 2)
        self.weights = resident.in_use(self._server.pid)

    def prefill(self, workload: Workload, decode_steps: int) -> dict[str, Any]:
        """One prompt from image files to logits, then ``decode_steps`` tokens, of which the first is not
        counted."""
        images = [base64.b64encode(Path(file).read_bytes()).decode() for file in workload.images]
        text = f"{self._marker * len(images)}\n{self._filled(workload)}"
        logged = self._logged()
        measurable = resident.reset_peak(self._server.pid)
        steps, timings = self._complete({"prompt_string": text, "multimodal_data": images}, decode_steps + 1)
        highest = resident.peak(self._server.pid)
        vision = _vision_seconds(self._logged()[len(logged) :])
        tokens = timings["prompt_n"]
        return {
            "seconds": {
                "preprocess": 0.0,
                "vision": vision,
                "embed": 0.0,
                "prefill": timings["prompt_ms"] / 1e3 - vision,
            },
            "decode": steps[1:],
            "cache_length": tokens,
            "kv_bytes": self._kv_bytes(tokens),
            "kv_held_bytes": None,
            "peak_above_weights": max(0, highest - self.weights) if measurable else None,
            "peak": highest if measurable else None,
            "note": _NOTE,
        }

    def cache(self, length: int) -> None:
        """Nothing to make beforehand: each call has a prompt of its own."""

    def decode(self, length: int, steps: int) -> list[float]:
        """Seconds of ``steps`` tokens behind ``length`` others, the first one not counted."""
        return self._complete([_SOME_TOKEN] * length, steps + 2)[0][1:]

    def drop(self) -> None:
        """Forget all caches: there are none."""

    def close(self) -> None:
        """End the server; where the worker is ended, it goes with it."""
        self._server.kill()
        self._server.wait()
        self._log.close()

    def _filled(self, workload: Workload) -> str:
        """The question as often as about fills the text tokens."""
        once = len(self._ask("/tokenize", {"content": workload.prompt + " "})["tokens"])
        return " ".join([workload.prompt] * max(1, workload.text_tokens // once))

    def _complete(self, prompt: Any, new_tokens: int) -> tuple[list[float], dict[str, Any]]:
        """Seconds of all tokens but the first, and all of the server's own times, which are in milliseconds."""
        asked = {
            "prompt": prompt, "n_predict": new_tokens, "ignore_eos": True, "cache_prompt": False, "stream": True,
            "temperature": 0.0, "timings_per_token": True,
        }  # fmt: skip
        spent: list[float] = []
        timings: dict[str, Any] = {}
        with self._open("/completion", asked) as lines:
            for line in lines:
                if line.startswith(b"data: {"):
                    timings = json.loads(line.removeprefix(b"data: ")).get("timings", timings)
                    spent.append(timings["predicted_ms"] / 1e3)
        # The last event only says that it is over.
        return [later - earlier for earlier, later in pairwise(spent[:new_tokens])], timings

    def _ask(self, path: str, content: dict[str, Any]) -> Any:
        with self._open(path, content) as answer:
            return json.load(answer)

    def _open(self, path: str, content: dict[str, Any]) -> Any:
        body = json.dumps(content).encode()
        try:
            return urlopen(
                Request(self._place + path, body, {"Content-Type": "application/json"}), timeout=_PATIENCE
            )
        except HTTPError as error:
            raise ValueError(
                f"llama.cpp's server refused: {error.read().decode(errors='replace')}"
            ) from error

    def _wait(self) -> None:
        """Until the model is loaded."""
        for _ in range(_PATIENCE * 5):
            if self._server.poll() is not None:
                said = self._logged().decode(errors="replace").strip().splitlines()
                status, last = self._server.returncode, said[-1] if said else "nothing"
                raise ValueError(f"llama.cpp's server ended with status {status}; its last word: {last}")
            try:
                with urlopen(f"{self._place}/health", timeout=5):
                    return
            except OSError:  # not there yet, or still loading
                sleep(0.2)
        raise ValueError(f"llama.cpp's server did not load the model in {_PATIENCE} s")

    def _kv_bytes(self, tokens: int) -> int | None:
        """Of so many tokens, by what the server said of the cache that it made; None where it did not."""
        found = _KV_CACHE.search(self._logged())
        return found and round(float(found[1]) * 2**20 / int(found[2]) * tokens)

    def _logged(self) -> bytes:
        self._log.seek(0)
        return self._log.read()


def _vision_seconds(log: bytes) -> float:
    """From where a prompt begins, or a tile is in the cache, to where the next tile goes to the decoder."""
    events = [
        (60 * int(minutes) + int(seconds) + int(milli) / 1e3 + int(micro) / 1e6, what)
        for minutes, seconds, milli, micro, what in _STAMP.findall(log)
    ]
    return sum(
        later - earlier for (earlier, _), (later, what) in pairwise(events) if what == b"decoding image"
    )
