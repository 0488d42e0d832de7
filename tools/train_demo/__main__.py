"""Train the demo checkpoint from scratch: python tools/train_demo [FOLDER]."""

import sys
from pathlib import Path

import torch
from tokenizers import Tokenizer

from architecture import new_model, write_files
from batches import Stage, Writer
from training import SEED, Trainee, train

STAGES = [
    Stage("patches", 2500, 32, 84, 120, questions=0, rate=1.5e-3, last_rate=2e-4),
    Stage("small", 1500, 16, 84, 112, rate=1e-3, last_rate=1e-3),
    Stage("all", 3000, 16, 84, 224, rate=1e-3, last_rate=2e-5),
]


def main() -> None:
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else Path("out/train_demo")
    checkpoint = folder / "checkpoint"
    if not (checkpoint / "tokenizer.json").exists():
        write_files(checkpoint)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    writer = Writer(Tokenizer.from_file(str(checkpoint / "tokenizer.json")))
    train(Trainee(new_model(SEED), writer, device), STAGES, folder)


if __name__ == "__main__":
    main()
