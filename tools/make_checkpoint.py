"""Write a checkpoint of a public model's shape with random weights, shard by shard.

    python tools/make_checkpoint.py --like llava-v1.6-vicuna-7b --output FOLDER [--dtype fp16] [--scale R]

For trying an export at real size, or a part of it, without a download (asap_export/bench/synthetic.py).
"""

import argparse
import sys
from pathlib import Path

from asap_export.bench.synthetic import write_checkpoint
from asap_export.bundle.presets import find_preset, presets
from asap_export.checkpoint.loading import TORCH_DTYPES
from asap_export.errors import UserError
from asap_export.progress import Progress


def said(stand: Progress) -> None:
    print(stand.detail, flush=True)


def main() -> int:
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    arguments.add_argument("--like", required=True, metavar="NAME", help=", ".join(presets()))
    arguments.add_argument("--output", required=True, type=Path, metavar="FOLDER")
    arguments.add_argument("--dtype", choices=TORCH_DTYPES, default="fp16")
    arguments.add_argument("--scale", type=float, default=1.0, help="of widths and heads, in (0, 1]")
    arguments.add_argument("--layers", type=int, help="decoder layers, by default all")
    arguments.add_argument("--seed", type=int, default=0)
    given = arguments.parse_args()
    preset = find_preset(given.like)
    if preset is None:
        arguments.error(f"expected --like to name one of {', '.join(presets())}, found {given.like}")
    if given.output.exists():
        arguments.error(f"expected a new folder, found {given.output}; remove it or choose another")
    options = {"scale": given.scale, "layers": given.layers, "seed": given.seed, "progress": said}
    try:
        total = write_checkpoint(given.output, preset, given.dtype, **options)
    except UserError as error:
        arguments.error(error.message)
    print(f"{given.output}: {total / 1e9:.2f} GB of weights, {given.dtype}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
