"""The portable function bodies reproduce every golden case, in ONNX Runtime and in onnx's own evaluator."""

import golden_cases
import numpy as np
import pytest
from operator_models import RUNTIMES, run_operator

from asap_export.pruning.scores import row_weight


@pytest.mark.parametrize("runtime", RUNTIMES)
@pytest.mark.parametrize("path", golden_cases.FILES, ids=lambda path: path.stem)
def test_functions_reproduce_the_golden_case(path, runtime):
    case = golden_cases.load(path)
    given = {name: value[None] for name, value in case.inputs.items()}
    masks = {name: given[name] for name in ("visual_mask", "attention_mask")}
    config = case.config

    def run(name, inputs, **attributes):
        return run_operator(runtime, name, inputs, **attributes)

    vectors = {"query": given["query"], "key": given["key"]}
    seen = run("AsapMask", vectors | masks, lambda_max=config.lambda_max, scale=case.scale)
    score = seen["mass"]
    if config.score != "salience":
        weight = row_weight(config.score, case.batch("visual_mask"), case.batch("attention_mask")).numpy()
        rows = {"bias": seen["bias"], "row_weight": weight}
        score = run("AsapScore", vectors | rows, scale=case.scale)["score"]
    topk = run("AsapTopK", masks | {"score": score, "kept_length": np.array(case.kept_length)})["index"]
    index, hidden, absorbed = (
        topk,
        np.take_along_axis(given["hidden"], topk[..., None], 1),
        np.zeros(topk.shape, bool),
    )
    if config.merge:
        inputs = {"hidden": given["hidden"], "index": topk, "visual_mask": given["visual_mask"]}
        inputs |= {"salience": seen["salience"], "mass": seen["mass"]}
        merged = run("AsapMerge", inputs, threshold=config.threshold)
        hidden, index, absorbed = merged["merged"], merged["kept_index"], merged["absorbed"]

    case.check(
        {
            "mass": seen["mass"][0],
            "salience": seen["salience"][0],
            "score": score[0],
            "topk": topk[0][case.inputs["visual_mask"][topk[0]]],
            "absorbed": np.sort(topk[absorbed]),
            "index": index[0],
            "hidden": hidden[0],
        }
    )
