"""llama.cpp's server as a contender, on a stand-in that answers and logs as it does."""

import sys
from dataclasses import replace
from pathlib import Path

import pytest
from made_up import WORKLOAD, contender

from asap_export.bench.llama_runner import LlamaRunner

SERVER = Path(__file__).with_name("stand_in_server.py")


def program(folder: Path, *command: str) -> str:
    script = folder / "llama-server"
    script.write_text(f'#!/bin/sh\nexec {" ".join(command)} "$@"\n')
    script.chmod(0o755)
    return str(script)


def test_what_a_server_says_of_its_times_and_its_cache(tmp_path):
    server = program(tmp_path, sys.executable, str(SERVER))
    runner = LlamaRunner(replace(contender("llama", str(tmp_path), kind="llama.cpp"), program=server), 1)
    try:
        image = tmp_path / "a.png"
        image.touch()
        sample = runner.prefill(replace(WORKLOAD, images=(str(image),)), 4)
        vision = 2.5 + 2.2505  # before each of the two tiles
        assert sample["seconds"]["vision"] == pytest.approx(vision)
        assert sample["seconds"]["prefill"] == pytest.approx(6.0 - vision)
        assert sample["decode"] == pytest.approx([0.5, 0.7, 0.9])  # 0.1, 0.4, 0.9, 1.6, 2.5 s in sum
        assert sample["cache_length"] == 1160
        assert sample["kv_bytes"] == 1160 * 32 * 2**20 // 8192
        assert runner.weights > 0 and sample["peak"] >= sample["peak_above_weights"] >= 0
        assert len(runner.decode(542, 2)) == 2
    finally:
        runner.close()


def test_a_server_that_ends_is_a_reason(tmp_path):
    server = program(tmp_path, "sh -c 'echo no such model; exit 3'")
    with pytest.raises(ValueError, match="ended with status 3; its last word: no such model"):
        LlamaRunner(replace(contender("llama", str(tmp_path), kind="llama.cpp"), program=server), 1)
