import dataclasses
import json
import string
from typing import Any, get_args

import pytest
from bundle_cases import SPEC, example_manifest
from hypothesis import given
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from asap_export.bundle import (
    CpuDecoder,
    EngineInfo,
    EnginePart,
    FileInfo,
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
    manifest_schema,
)
from asap_export.bundle.manifest import GraphName
from asap_export.errors import UserError
from asap_export.pruning.config import Budget, PruningConfig
from asap_export.spec import CpuPass, ModelSpec, Quantization

counts = st.integers(1, 2**40)
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
shapes = st.lists(counts, max_size=4).map(tuple)
ranges = st.builds(ShapeRange, shapes, shapes, shapes)
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
        EnginePart, counts, counts, st.tuples(counts, counts), st.tuples(tensors), st.tuples(tensors, tensors)
    ),
)
turns = st.builds(TurnParts, st.text(), st.text(), st.text(), st.text())
templates = st.builds(TemplateInfo, st.booleans(), turns, turns)
prompts = st.builds(PromptInfo, names, st.none() | st.text(), st.none() | templates)
manifests = st.builds(
    Manifest,
    created=st.datetimes().map(lambda time: time.strftime("2026-%m-%dT%H:%M:%SZ")),
    tools=st.dictionaries(names, names, max_size=2),
    source=st.builds(Source, names, st.none() | names, st.dictionaries(names, digests, max_size=2)),
    model=st.builds(
        dataclasses.replace,
        st.just(SPEC),
        layers=counts,
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
    prompt=prompts,
    engines=st.lists(engines, max_size=2).map(tuple),
    files=st.dictionaries(names, st.builds(FileInfo, digests, counts), max_size=3),
)


@given(manifests)
def test_a_manifest_reads_back_as_it_was_written(manifest: Manifest) -> None:
    assert Manifest.parse(manifest.text()) == manifest


def test_the_schema_is_a_valid_schema() -> None:
    Draft202012Validator.check_schema(manifest_schema())


@pytest.mark.parametrize(
    ("record", "place"),
    [
        (Manifest, ()),
        (ModelSpec, ("$defs", "model")),
        (Quantization, ("$defs", "quantization")),
        (PruningConfig, ("$defs", "pruning")),
        (Budget, ("$defs", "budget")),
        (Limits, ("properties", "limits")),
        (Source, ("properties", "source")),
        (GraphInfo, ("$defs", "graph")),
        (CpuDecoder, ("$defs", "cpu_decoder")),
        (PromptInfo, ("$defs", "prompt")),
        (TemplateInfo, ("$defs", "template")),
        (TurnParts, ("$defs", "turn")),
        (TensorInfo, ("$defs", "tensor")),
        (EngineInfo, ("$defs", "engine")),
        (EnginePart, ("$defs", "part")),
        (Profile, ("$defs", "profile")),
        (ShapeRange, ("$defs", "range")),
        (FileInfo, ("properties", "files", "additionalProperties")),
    ],
)
def test_the_schema_names_every_field_and_no_other(record: type, place: tuple[str, ...]) -> None:
    schema: Any = manifest_schema()
    for part in place:
        schema = schema[part]
    fields = {field.name for field in dataclasses.fields(record)}
    assert set(schema["properties"]) == set(schema["required"]) == fields


def test_a_manifest_that_is_not_json_is_refused() -> None:
    for text in ("{", "[" * 100_000, b"\xff"):
        with pytest.raises(UserError, match=r"expected JSON in manifest.json"):
            Manifest.parse(text)


@pytest.mark.parametrize("version", [3, 5])
def test_another_manifest_is_refused_by_its_version_not_by_its_form(version: int) -> None:
    with pytest.raises(UserError, match=rf"expected schema version 4 .*, found {version}"):
        Manifest.parse(f'{{"schema_version": {version}, "something": "else"}}')


def test_the_schema_names_every_graph() -> None:
    graphs = manifest_schema()["properties"]["graphs"]
    assert tuple(graphs["required"]) == tuple(graphs["properties"]) == get_args(GraphName)


def test_the_schema_names_every_pass() -> None:
    passes = manifest_schema()["$defs"]["cpu_decoder"]["properties"]["passes"]
    assert tuple(passes["items"]["enum"]) == get_args(CpuPass)


@pytest.mark.parametrize(
    ("change", "place"),
    [
        ({"dtype": "int8"}, r"\$\.dtype"),
        ({"schema_version": "1"}, r"\$\.schema_version"),
        ({"surprise": 1}, "surprise"),
        ({"model": {}}, r"\$\.model"),
        ({"budget": {"keep": 4, "ratio": 0.5, "layer_average": None}}, r"\$\.budget"),
        ({"files": {"x": {"sha256": "short", "size": 1}}}, r"\$\.files\.x\.sha256"),
    ],
)
def test_a_breach_of_the_schema_is_refused_with_its_place(change: dict[str, Any], place: str) -> None:
    document = json.loads(example_manifest().text()) | change
    with pytest.raises(UserError, match=place) as refusal:
        Manifest.parse(json.dumps(document))
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize("text", ["[]", "3", "null", '"x"'])
def test_json_that_is_no_object_is_refused(text: str) -> None:
    with pytest.raises(UserError, match="breaks its schema"):
        Manifest.parse(text)
