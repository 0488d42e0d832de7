"""llama-server as far as the benchmark asks it: it knows no model, answers at once, and logs as llama.cpp does."""

import json
import sys
from http.server import BaseHTTPRequestHandler, HTTPServer

PORT = int(sys.argv[sys.argv.index("--port") + 1])
print("0.00.000.001 I llama_kv_cache: size =   32.00 MiB (  8192 cells,   4 layers,  1/1 seqs)", flush=True)


class Handler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.answer({"status": "ok", "media_marker": "<__7__>"})

    def do_POST(self) -> None:
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if self.path == "/tokenize":
            self.answer({"tokens": list(range(len(asked["content"].split())))})
            return
        if isinstance(asked["prompt"], dict):
            assert asked["prompt"]["prompt_string"].startswith("<__7__>\n")
            print("0.01.000.000 I slot: new prompt, n_ctx_slot = 4096")
            print("0.03.500.000 I decoding image batch 1/1, n_tokens_batch = 576")
            print("0.04.000.000 I image decoded (batch 1/1) in 500 ms")
            print("0.06.250.500 I decoding image batch 1/1, n_tokens_batch = 576", flush=True)
        self.send_response(200)
        self.end_headers()
        for number in range(1, asked["n_predict"] + 1):
            timings = {"prompt_n": 1160, "prompt_ms": 6000.0, "predicted_ms": 100.0 * number**2}
            self.wfile.write(b"data: " + json.dumps({"timings": timings}).encode() + b"\n\n")
        self.wfile.write(b"data: " + json.dumps({"stop": True}).encode() + b"\n\ndata: [DONE]\n\n")

    def answer(self, content: dict) -> None:
        self.send_response(200)
        self.end_headers()
        self.wfile.write(json.dumps(content).encode())

    def log_message(self, *_) -> None:
        pass


HTTPServer(("127.0.0.1", PORT), Handler).serve_forever()
