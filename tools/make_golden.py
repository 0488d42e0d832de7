"""Make a golden case: the drawn inputs of one cut, and what comes out, in float64 as docs/method.md says.

python tools/make_golden.py --case NAME --layout 6t,54v,12t --keep 12 [--score received] [--seed 3] ...

A loop for each sum of the method and nothing from asap_export: a mistake of the package is not repeated here, and
with docs/method.md beside it one sees that both say the same. A case whose choices hang on rounding is refused.
"""

import argparse
import json
import re
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

GOLDEN = Path(__file__).parents[1] / "tests" / "golden"
SCORES = ("last", "text", "received", "salience")
EPSILON = 1e-6  # of salience (Eq 3), and the least weight under the logarithm (Eq 4)
CLEAR = 1e-5  # two numbers that a choice compares are equal or this far apart: float32 is surely right then

Array = np.ndarray[Any, np.dtype[Any]]


@dataclass(frozen=True)
class Settings:
    """Of the method (docs/method.md), with the names that PruningConfig has for them; ``keep`` visual tokens."""

    keep: int
    score: str = "last"
    lambda_max: float = 0.5
    threshold: float = 0.8
    merge: bool = True


@dataclass(frozen=True)
class Inputs:
    """Of the scoring layer, for one sequence of T tokens. Floats are float32; positions count from 0."""

    query: Array  # [H, T, d] after RoPE
    key: Array  # [Hkv, T, d] after RoPE
    hidden: Array  # [T, D], its output
    visual_mask: Array  # [T] bool
    attention_mask: Array  # [T] bool: False for padding

    @property
    def visual(self) -> list[int]:
        return [j for j, is_visual in enumerate(self.visual_mask) if is_visual]

    def logits(self, i: int, j: int) -> list[float]:
        """Scaled products of query i and key j, one for each head; several heads may share a key."""
        heads, _, size = self.query.shape
        shared = heads // self.key.shape[0]
        products = []
        for head in range(heads):
            query, key = (
                self.query[head, i].astype(np.float64),
                self.key[head // shared, j].astype(np.float64),
            )
            products.append(float(query @ key) / size**0.5)
        return products


class Cut:
    """The steps of docs/method.md. ``margin`` is the closest that two different numbers came in a choice."""

    def __init__(self, inputs: Inputs, settings: Settings) -> None:
        self.inputs, self.settings = inputs, settings
        self.margin = float("inf")
        self.mass = self._mass()
        self.salience = self._salience()
        self.score = self._score()
        ranked = self._ranked(inputs.visual, self.score)
        self.kept = ranked[: settings.keep]
        self._compare_at(ranked, self.score, settings.keep)
        self.absorbed: set[int] = set()
        self.states = {j: inputs.hidden[j].astype(np.float64) for j in range(len(inputs.hidden))}
        survivors = set(self.kept)
        if settings.merge:
            self._consolidate()
            survivors = survivors - self.absorbed | set(self._salvaged())
        text = inputs.attention_mask & ~inputs.visual_mask
        self.index = sorted(survivors | {j for j, is_text in enumerate(text) if is_text})

    def outputs(self) -> dict[str, Array]:
        """As a golden case stores them; mass and score are NaN where no visual token is, salience is 0."""
        length = len(self.inputs.hidden)

        def over_all(values: dict[int, float], elsewhere: float) -> Array:
            return np.array([values.get(j, elsewhere) for j in range(length)], np.float32)

        return {
            "score": over_all(self.score, float("nan")),
            "mass": over_all(self.mass, float("nan")),
            "salience": over_all(self.salience, 0.0),
            "topk": np.array(sorted(self.kept), np.int64),
            "absorbed": np.array(sorted(self.absorbed), np.int64),
            "index": np.array(self.index, np.int64),
            "hidden": np.array([self.states[j] for j in self.index], np.float32),
        }

    def _mass(self) -> dict[int, float]:
        """Step 1."""
        mass = {}
        for j in self.inputs.visual:
            mass[j] = 0.0
            for i in self.inputs.visual:
                products = self.inputs.logits(i, j)
                mass[j] += sum(products) / len(products)
        return mass

    def _salience(self) -> dict[int, float]:
        """Step 2."""
        least, most = min(self.mass.values()), max(self.mass.values())
        return {j: (mass - least) / (most - least + EPSILON) for j, mass in self.mass.items()}

    def _bias(self, i: int, j: int) -> float:
        """Step 3."""
        if not self.inputs.attention_mask[j]:
            return -np.inf
        if j <= i:
            return 0.0
        if self.inputs.visual_mask[i] and self.inputs.visual_mask[j]:
            return float(np.log(max(self.settings.lambda_max * self.salience[j], EPSILON)))
        return -np.inf

    def _attention(self, i: int) -> Array:
        """What row i gives to each token: softmax of the biased logits, averaged over heads. [T]."""
        length = len(self.inputs.hidden)
        bias = np.array([self._bias(i, j) for j in range(length)])
        logits = np.array([self.inputs.logits(i, j) for j in range(length)]).T + bias  # [H, T]
        total = np.zeros(length)
        for row in logits:
            weights = np.exp(row - row.max())
            total += weights / weights.sum()
        return total / len(logits)

    def _score(self) -> dict[int, float]:
        """Step 4."""
        visual = self.inputs.visual
        if self.settings.score == "salience":
            return dict(self.mass)
        valid = [i for i, is_valid in enumerate(self.inputs.attention_mask) if is_valid]
        behind = [i for i in valid if i > visual[-1] and not self.inputs.visual_mask[i]]
        rows = {"last": valid[-1:], "text": behind, "received": visual}[self.settings.score]
        if not rows:
            return dict.fromkeys(visual, 0.0)
        seen = np.mean([self._attention(i) for i in rows], axis=0)
        return {j: float(seen[j]) for j in visual}

    def _consolidate(self) -> None:
        """Step 6. Similarities are those of the states before merging."""
        order = self._ranked(self.kept, self.salience)
        for place in range(1, len(order)):
            self._compare_at(order, self.salience, place)
        for place, i in enumerate(order):
            if i in self.absorbed:
                continue
            group = [j for j in order[place + 1 :] if j not in self.absorbed and self._similar(i, j)]
            self.absorbed.update(group)
            weight = sum(self.salience[j] for j in [i, *group])
            if group and weight > 0:
                weighed = [self.salience[j] * self.inputs.hidden[j].astype(np.float64) for j in [i, *group]]
                self.states[i] = sum(weighed) / weight

    def _similar(self, i: int, j: int) -> bool:
        one, other = self.inputs.hidden[i].astype(np.float64), self.inputs.hidden[j].astype(np.float64)
        cosine = float(one @ other / (np.linalg.norm(one) * np.linalg.norm(other)))
        self._note(cosine, self.settings.threshold)
        return cosine > self.settings.threshold

    def _salvaged(self) -> list[int]:
        """Step 7: as many as were absorbed; where too few were pruned, absorbed ones come back."""
        pruned = self._ranked([j for j in self.inputs.visual if j not in self.kept], self.mass)
        wanted = len(self.absorbed)
        self._compare_at(pruned, self.mass, wanted)
        back = self._ranked(sorted(self.absorbed), self.mass)
        self._compare_at(back, self.mass, wanted - len(pruned))
        return [*pruned, *back][:wanted]

    def _ranked(self, positions: list[int], values: dict[int, float]) -> list[int]:
        """Largest first, equal ones by position (steps 5 to 7)."""
        return sorted(positions, key=lambda j: (-values[j], j))

    def _compare_at(self, ranked: list[int], values: dict[int, float], place: int) -> None:
        if 0 < place < len(ranked):
            self._note(values[ranked[place - 1]], values[ranked[place]])

    def _note(self, one: float, other: float) -> None:
        if one != other:
            self.margin = min(self.margin, abs(one - other) / max(abs(one), abs(other), EPSILON))


def draw(layout: str, heads: int, key_heads: int, head_size: int, width: int, seed: int) -> Inputs:
    """Random inputs for a sequence like "9p,11t,50v,10t": padding, text, visual tokens, text.

    Three visual tokens on average show the same thing and are more or less alike, so that some merge.
    Raises ValueError where the layout is none.
    """
    parts = [re.fullmatch(r"(\d+)([ptv])", part) for part in layout.split(",")]
    kinds = "".join(int(part[1]) * part[2] for part in parts if part)
    if None in parts or not re.fullmatch(r"p*[tv]*v[tv]*", kinds):
        raise ValueError(f"expected a layout like 9p,11t,50v,10t with a visual token, found {layout}")
    generator = np.random.default_rng(seed)
    length, visual = len(kinds), kinds.count("v")

    def normal(*shape: int) -> Array:
        return generator.standard_normal(shape)

    hidden = normal(length, width)
    things = normal(max(1, visual // 3), width)
    for j, kind in enumerate(kinds):
        if kind == "v":
            noise = generator.uniform(0.1, 0.7)
            hidden[j] = things[generator.integers(len(things))] * (1 - noise**2) ** 0.5 + noise * hidden[j]
    return Inputs(
        query=normal(heads, length, head_size).astype(np.float32),
        key=normal(key_heads, length, head_size).astype(np.float32),
        hidden=hidden.astype(np.float32),
        visual_mask=np.array([kind == "v" for kind in kinds]),
        attention_mask=np.array([kind != "p" for kind in kinds]),
    )


def read(file: Path) -> tuple[Inputs, Settings, dict[str, Array]]:
    """A stored case: its inputs and settings, and the outputs that stand there."""
    with np.load(file) as stored:
        arrays = dict(stored)
    inputs = Inputs(**{name[3:]: array for name, array in arrays.items() if name.startswith("in_")})
    outputs = {name[4:]: array for name, array in arrays.items() if name.startswith("out_")}
    return inputs, Settings(**json.loads(str(arrays["config"]))), outputs


def write(file: Path, inputs: Inputs, settings: Settings, outputs: dict[str, Array]) -> None:
    arrays: dict[str, Any] = {"config": np.array(json.dumps(asdict(settings)))}
    arrays |= {f"in_{name}": array for name, array in vars(inputs).items()}
    arrays |= {f"out_{name}": array for name, array in outputs.items()}
    np.savez_compressed(file, **arrays)


def main(arguments: list[str] | None = None) -> None:
    summary, *_ = (__doc__ or "").splitlines()
    parser = argparse.ArgumentParser(description=summary)
    parser.add_argument("--case", required=True, help="name of the case, and of its file")
    parser.add_argument(
        "--layout", default="6t,54v,12t", help="padding p, text t, visual v; default %(default)s"
    )
    parser.add_argument("--heads", type=int, default=4, help="query heads; default %(default)s")
    parser.add_argument("--key-heads", type=int, default=2, help="shared by query heads; default %(default)s")
    parser.add_argument("--head-size", type=int, default=16, help="default %(default)s")
    parser.add_argument("--width", type=int, default=64, help="of hidden states; default %(default)s")
    parser.add_argument("--seed", type=int, default=0, help="default %(default)s")
    parser.add_argument("--keep", type=int, required=True, help="visual tokens that survive")
    parser.add_argument("--score", choices=SCORES, default="last", help="default %(default)s")
    parser.add_argument("--lambda-max", type=float, default=0.5, help="default %(default)s")
    parser.add_argument("--threshold", type=float, default=0.8, help="default %(default)s")
    parser.add_argument("--no-merge", action="store_true")
    parser.add_argument("--folder", type=Path, default=GOLDEN, help="default tests/golden")
    given = parser.parse_args(arguments)

    file = given.folder / f"{given.case}.npz"
    if file.exists():
        parser.error(f"expected a new case, found {file}; remove it or give another name")
    settings = Settings(given.keep, given.score, given.lambda_max, given.threshold, not given.no_merge)
    try:
        inputs = draw(given.layout, given.heads, given.key_heads, given.head_size, given.width, given.seed)
    except ValueError as error:
        parser.error(str(error))
    if given.heads % given.key_heads or not 1 <= given.keep <= len(inputs.visual):
        parser.error(f"expected key heads that divide the heads, and --keep from 1 to {len(inputs.visual)}")
    cut = Cut(inputs, settings)
    if cut.margin < CLEAR:
        parser.error(
            f"expected choices that are {CLEAR:g} apart, found {cut.margin:.1g}; give another --seed"
        )
    write(file, inputs, settings, cut.outputs())
    print(f"{file}: {len(inputs.visual)} visual tokens, {given.keep} kept, {len(cut.absorbed)} absorbed")
    print(f"nearest choice {cut.margin:.1g} apart")


if __name__ == "__main__":
    main()
