"""Train the demo checkpoint from scratch, or go on where a run was stopped.

    python tools/train_demo [FOLDER]      (default: out/train_demo; the checkpoint is in FOLDER/checkpoint)

Then its answers to the test split are counted, and its model card is written.
"""

import sys
from pathlib import Path

import torch
from architecture import new_model, write_files, write_weights
from batches import Stage, Writer
from card import write_card
from tokenizers import Tokenizer
from training import SEED, Trainee, train

from asap_export.evaluation import EvaluationRequest, evaluate

# What a patch shows, on many small pictures; questions about small canvases; where things are, which takes longest
# to learn among all else; then canvases of all sizes.
STAGES = [
    Stage("patches", 900, 32, 84, 120, questions=0, rate=1.5e-3, last_rate=2e-4),
    Stage("small", 1300, 12, 84, 112, rate=1.5e-3, last_rate=1e-3, seeing_rate=0.15),
    Stage("places", 400, 24, 84, 224, rate=1e-3, last_rate=1e-3, seeing_rate=0.5, glances=1.0),
    Stage("all", 2400, 12, 84, 224, rate=1e-3, last_rate=2e-5, seeing_rate=0.5, glances=0.2),
]
TEST_QUESTIONS = 4000


def main() -> None:
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else Path("out/train_demo")
    checkpoint = folder / "checkpoint"
    if not (checkpoint / "tokenizer.json").exists():
        write_files(checkpoint)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    model = new_model(SEED)
    trainee = Trainee(model, Writer(Tokenizer.from_file(str(checkpoint / "tokenizer.json"))), device)
    train(trainee, STAGES, folder, on_save=lambda: write_weights(model, checkpoint))
    tested = evaluate(
        EvaluationRequest(
            subject=checkpoint,
            split="test",
            limit=TEST_QUESTIONS,
            methods="dense",
            output=folder / "test",
            overwrite=True,
        )
    )
    parameters = sum(p.numel() for p in model.parameters())
    write_card(checkpoint, folder / "curve.jsonl", tested.facts, parameters)


if __name__ == "__main__":
    main()
