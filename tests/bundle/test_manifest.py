import dataclasses
import json
import re
import string
import time
from pathlib import Path
from typing import get_args

import pytest
from bundle_cases import SPEC, example_manifest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from manifest_cases import hostile

import asap_export.bundle.manifest as definition
from asap_export.bundle import (
    BundleError,
    CpuDecoder,
    EngineInfo,
    EnginePart,
    FileInfo,
    GenerationInfo,
    GraphInfo,
    Limits,
    Manifest,
    Profile,
    PromptInfo,
    ShapeRange,
    Source,
    TemplateInfo,
    TensorInfo,
    TurnParts,
)
from asap_export.bundle.document import LARGEST
from asap_export.bundle.manifest import GraphName, schema_text
from asap_export.errors import UserError
from asap_export.pruning.config import Budget, PruningConfig
from asap_export.spec import CpuPass, ModelSpec, Quantization

counts = st.integers(1, 2**31 - 1)
names = st.text(string.ascii_letters + string.digits + "._-äß", min_size=1, max_size=12)
digests = st.text("0123456789abcdef", min_size=64, max_size=64)
ratios = st.floats(0, 1, exclude_min=True)
budgets = st.one_of(
    st.builds(Budget, keep=counts),
    st.builds(Budget, ratio=ratios),
    st.builds(Budget, layer_average=st.floats(1, 1e6)),
)
tensors = st.builds(
    TensorInfo,
    names,
    st.sampled_from(["fp32", "int64", "bool", "uint8"]),
    st.lists(counts | names, max_size=4).map(tuple),
)
graphs = st.builds(GraphInfo, names, st.tuples(tensors), st.tuples(tensors, tensors))
passes = st.lists(st.sampled_from(get_args(CpuPass)), max_size=4).map(tuple)
cpu_decoders = st.builds(CpuDecoder, names, st.tuples(tensors), st.tuples(tensors, tensors), passes)
ranges = st.lists(st.lists(counts, min_size=3, max_size=3).map(sorted), max_size=4).map(
    lambda dims: ShapeRange(*(tuple(dim[bound] for dim in dims) for bound in range(3)))
)
profiles = st.builds(
    Profile, names, st.dictionaries(names, ranges, max_size=3), st.dictionaries(names, ranges)
)
engines = st.builds(
    EngineInfo,
    st.sampled_from(["vision_encoder", "embed_tokens", "decoder"]),
    names,
    st.sampled_from(["tensorrt", "tensorrt_rtx"]),
    names,
    st.lists(names, max_size=2).map(tuple),
    st.tuples(profiles),
    st.lists(names, max_size=2).map(tuple),
    st.none()
    | st.builds(
        EnginePart,
        st.integers(0, 9),
        st.integers(10, 20),
        st.tuples(st.integers(0, 3), st.integers(3, 7)),
        st.tuples(tensors),
        st.tuples(tensors, tensors),
    ),
)
turns = st.builds(TurnParts, st.text(), st.text(), st.text(), st.text())
templates = st.builds(TemplateInfo, st.booleans(), turns, turns)
prompts = st.builds(PromptInfo, names, st.none() | st.text(), st.none() | templates)
generations = st.builds(
    GenerationInfo,
    counts,
    st.integers(0, 99),
    st.floats(0, 1e6),
    st.integers(0, 99),
    ratios,
    st.floats(0, 1),
    st.floats(0, 1e6, exclude_min=True),
    st.integers(0, 9),
    st.lists(names, max_size=3).map(tuple),
    st.lists(names, max_size=3).map(tuple),
)
manifests = st.builds(
    Manifest,
    created=st.datetimes().map(lambda time: time.strftime("2026-%m-%dT%H:%M:%SZ")),
    tools=st.dictionaries(names, names, max_size=2),
    source=st.builds(Source, names, st.none() | names, st.dictionaries(names, digests, max_size=2)),
    model=st.builds(
        dataclasses.replace,
        st.just(SPEC),
        layers=st.integers(8, 4096),
        eos_token_ids=st.lists(counts, max_size=2).map(tuple),
    ),
    dtype=st.sampled_from(["fp32", "fp16", "bf16"]),
    pruning=st.builds(
        PruningConfig,
        method=st.sampled_from(["asap", "none"]),
        lambda_max=ratios,
        threshold=ratios,
        merge=st.booleans(),
    ),
    budget=budgets,
    limits=st.builds(Limits, counts, counts, counts, counts),
    opset=st.integers(23, 30),
    graphs=st.fixed_dictionaries(dict.fromkeys(get_args(GraphName), graphs)),
    cpu_decoder=st.none() | cpu_decoders,
    cuda_decoder=st.none() | graphs,
    prompt=prompts,
    generation=generations,
    engines=st.lists(engines, max_size=2).map(tuple),
    files=st.dictionaries(names, st.builds(FileInfo, digests, counts), max_size=3),
)


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(manifests)
def test_a_manifest_reads_back_as_it_was_written(manifest: Manifest) -> None:
    assert Manifest.parse(manifest.text()) == manifest


def test_every_manifest_is_taken_or_refused_as_the_table_says() -> None:
    """The same table that the C++ tests read."""
    wrong = []
    for case in hostile():
        code, place, message = _judged(case.content)
        assert message.isascii() and message.isprintable() and len(message) < 500, case.name
        if (code, place) != (case.code, case.place):
            wrong.append((case.name, code, place, message))
    assert wrong == []


def _judged(content: bytes) -> tuple[str, str, str]:
    try:
        Manifest.parse(content)
    except BundleError as error:
        return error.code, error.place, str(error)
    return "", "", ""


def test_the_table_has_each_field_of_the_definition_missing_and_of_another_type() -> None:
    """So a field that one of the runtimes does not read fails in its own test of the table."""
    cases = hostile()
    for code in ("missing_field", "wrong_type"):
        places = {re.sub(r"\[.*?\]", "[]", case.place) for case in cases if case.code == code}
        for record, prefix in RECORDS.items():
            for field in dataclasses.fields(record):
                assert f"{prefix}.{field.name}" in places, (code, record, field.name)


# Where each record stands first.
RECORDS: dict[type, str] = {
    Manifest: "$",
    Source: "$.source",
    ModelSpec: "$.model",
    PruningConfig: "$.pruning",
    Budget: "$.budget",
    Limits: "$.limits",
    GraphInfo: "$.graphs.decoder",
    TensorInfo: "$.graphs.decoder.inputs[]",
    PromptInfo: "$.prompt",
    TemplateInfo: "$.prompt.template",
    TurnParts: "$.prompt.template.first",
    GenerationInfo: "$.generation",
    CpuDecoder: "$.cpu_decoder",
    Quantization: "$.quantization",
    EngineInfo: "$.engines[]",
    Profile: "$.engines[].profiles[]",
    ShapeRange: "$.engines[].profiles[].shapes.inputs_embeds",
    EnginePart: "$.engines[].part",
    FileInfo: "$.files[]",
}


def test_the_published_schema_is_that_of_the_definition() -> None:
    published = Path(definition.__file__).with_name("manifest.schema.json").read_text()
    assert published == schema_text(), "run: python tools/manifest_schema.py"


def test_the_published_schema_names_every_field_and_no_other() -> None:
    schema = json.loads(schema_text())
    assert set(schema["$defs"]) == {record.__name__ for record in RECORDS}
    for record in RECORDS:
        about = schema["$defs"][record.__name__]
        names = [field.name for field in dataclasses.fields(record)]
        assert list(about["properties"]) == about["required"] == names
        assert about["additionalProperties"] is False and about["description"]
    assert schema["$defs"]["Manifest"]["properties"]["graphs"]["required"] == list(get_args(GraphName))


def test_another_version_is_refused_by_its_number_not_by_its_form() -> None:
    with pytest.raises(BundleError, match=r"expected schema version 6 .*, found 3; use the asap-export"):
        Manifest.parse('{"schema_version": 3, "something": "else"}')


def test_a_refusal_says_what_was_expected_where_and_what_to_do() -> None:
    document = json.loads(example_manifest().text())
    document["model"]["layers"] = 4097
    with pytest.raises(UserError) as refusal:
        Manifest.parse(json.dumps(document))
    assert str(refusal.value) == (
        "expected a number from 1 to 4096 at $.model.layers of manifest.json, found 4097 (out_of_range); "
        "export the bundle again"
    )


@pytest.mark.parametrize("repeated", ["[", '{"a":', '"', "\\", "[],{}", "[[[]]]", '"",', "1,"])
def test_no_manifest_takes_long(repeated: str) -> None:
    content = (repeated * (LARGEST // len(repeated))).encode()
    for each in (content, b'["' + content[:-4] + b'"]', b"[" + content[:-4] + b"1]"):
        started = time.process_time()
        with pytest.raises(BundleError):
            Manifest.parse(each)
        assert time.process_time() - started < 10
