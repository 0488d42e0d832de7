"""A contender's process without a model: it answers as a worker does, and writes down when it worked.

``source`` says how it behaves: "fine", "refuses" to start, "crashes" in its second prefill, "exits" at once.
"""

import json
import os
import signal
import sys
import time
from pathlib import Path

first = json.loads(sys.stdin.readline())
contender, folder = first["contender"], first["folder"]
behaviour = contender["source"]


def answer(content: dict) -> None:
    print(json.dumps(content), flush=True)


if behaviour == "refuses":
    answer({"failed": "expected an extra, found none; install it"})
    sys.exit()
if behaviour == "exits":
    print("a library is missing", file=sys.stderr)
    sys.exit(3)
answer({"weights": 1000 * first["threads"]})
prefills = 0
for line in sys.stdin:
    job = json.loads(line)
    began = time.monotonic_ns()
    if job["job"] == "prefill":
        prefills += 1
        if behaviour == "crashes" and prefills == 2:
            os.kill(os.getpid(), signal.SIGSEGV)
        parts = {"preprocess": 0.1, "vision": 0.2, "embed": 0.1, "prefill": 1.0 + prefills}
        said = {
            "seconds": parts,
            "decode": [0.1, 0.2, 0.3],
            "cache_length": 10,
            "kv_bytes": 100,
            "kv_held_bytes": 200,
            "peak_above_weights": 50,
            "peak": 5000,
        }
    elif job["job"] == "decode":
        said = {"decode": [0.01] * job["steps"]}
    elif job["job"] == "rates":
        said = {"rates": {"f32": 1e9, "bf16": None, "int8": 2e9, "memory": 1e10}}
    elif job["job"] == "profile":
        said = {"profile": {"prefill": {}, "decode": None}}
    else:
        said = {}
    time.sleep(0.001)
    with Path(folder, "log").open("a") as log:
        record = [
            contender["name"],
            os.getpid(),
            job["job"],
            began,
            time.monotonic_ns(),
            os.environ["OMP_NUM_THREADS"],
        ]
        log.write(json.dumps(record) + "\n")
    answer(said)
