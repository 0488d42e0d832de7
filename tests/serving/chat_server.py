"""A server on a port of its own, and OpenAI's own client for it."""

import base64
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import openai
import uvicorn

import asap_export
from asap_export.runtime.rows import open_rows
from asap_export.serving.batcher import Batcher
from asap_export.serving.server import ServerSettings, create_app

IMAGES = Path(__file__).parents[2] / "examples" / "images"


def image(name: str) -> dict[str, Any]:
    """A drawn picture as a part of a message."""
    data = base64.b64encode((IMAGES / name).read_bytes()).decode()
    return {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{data}"}}


def asked(*content: Any) -> list[dict[str, Any]]:
    """One question of the user: texts, and images by name."""
    parts = [
        image(each) if str(each).endswith(".png") else {"type": "text", "text": each} for each in content
    ]
    return [{"role": "user", "content": parts}]


@contextmanager
def serving(bundle: Path, rows: int = 3, waiting: int = 8, **settings: Any) -> Iterator["Served"]:
    """A server of a bundle, in this process."""
    model = asap_export.load(bundle, "cpu", 1)
    batcher = Batcher(model, open_rows(model.graphs, rows, 1500), waiting)
    app = create_app(model, batcher, ServerSettings("tiny", **settings))
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        server = uvicorn.Server(uvicorn.Config(app, log_config=None, access_log=False))
        thread = threading.Thread(target=server.run, args=([listening],), daemon=True)
        thread.start()
        while not server.started:
            time.sleep(0.01)
        try:
            yield Served(model, batcher, listening.getsockname()[1], settings.get("key") or "none")
        finally:
            server.should_exit = True
            thread.join(60)


class Served:
    """What a test needs of it."""

    def __init__(self, model: Any, batcher: Batcher, port: int, key: str) -> None:
        self.model, self.batcher, self.port = model, batcher, port
        self.url = f"http://127.0.0.1:{port}"
        self.client = openai.OpenAI(base_url=f"{self.url}/v1", api_key=key, max_retries=0)

    def ask(self, messages: list[dict[str, Any]], **settings: Any) -> Any:
        return self.client.chat.completions.create(model="tiny", messages=messages, **settings)

    def idle(self, seconds: float = 20.0) -> bool:
        """Whether no row is taken any more, soon."""
        end = time.monotonic() + seconds
        while self.batcher.running or self.batcher.waiting:
            if time.monotonic() > end:
                return False
            time.sleep(0.02)
        return True
