import dataclasses
import json
from pathlib import Path
from typing import Any

from bundle_cases import write_bundle
from rich.console import Console

from asap_export.bundle import Bundle, EngineInfo, EnginePart, Profile, ShapeRange, TensorInfo
from asap_export.pruning.config import Budget, PruningConfig
from asap_export.report.inspect import bundle_facts, bundle_tables


def rendering(facts: dict[str, Any]) -> str:
    console = Console(width=160)
    with console.capture() as capture:
        console.print(bundle_tables(facts))
    return capture.get()


def with_caches_and_engine(bundle: Bundle) -> Bundle:
    """The bundle as its manifest would be with eight layers of caches and an engine."""
    names = [f"past_key_values.{layer}.{kind}" for layer in range(8) for kind in ("key", "value")]
    caches = tuple(TensorInfo(name, "fp32", ("batch", 2, "past_sequence", 64)) for name in names)
    decoder = bundle.manifest.graphs["decoder"]
    decoder = dataclasses.replace(decoder, inputs=decoder.inputs + caches)
    shape = ShapeRange((1, 2, 0, 64), (1, 2, 10, 64), (1, 2, 20, 64))
    length = ShapeRange((1,), (9,), (30,))
    profile = Profile("context", dict.fromkeys(names, shape), {"kept_length": length})
    engine = EngineInfo(
        "decoder",
        "engines/decoder.engine",
        "tensorrt_rtx",
        "1.7.1",
        ("8.6", "12.0"),
        (profile,),
        ("attention_3",),
    )
    manifest = dataclasses.replace(
        bundle.manifest, graphs={**bundle.manifest.graphs, "decoder": decoder}, engines=(engine,)
    )
    return Bundle(bundle.path, manifest)


def test_facts_are_the_manifest_and_what_follows_from_it(tmp_path: Path) -> None:
    bundle = write_bundle(tmp_path / "out")
    facts = json.loads(json.dumps(bundle_facts(bundle)))
    written = json.loads((bundle.path / "manifest.json").read_text())
    assert facts["files"] == written["files"] and facts["graphs"] == written["graphs"]
    assert (
        facts["total_size"]
        == sum(path.stat().st_size for path in bundle.path.rglob("*") if path.is_file())
        - (bundle.path / "manifest.json").stat().st_size
    )
    assert facts["budget"] == {
        "keep": 40, "ratio": None, "layer_average": None,
        "visual_tokens": 336, "keep_at_most": 40, "layer_average_at_most": 114.0,
    }  # fmt: skip


def test_the_rendering_says_what_a_user_asks_for(tmp_path: Path) -> None:
    text = rendering(bundle_facts(write_bundle(tmp_path / "out")))
    for said in [
        "fp32, opset 23",
        "asap, after 2 layers",
        "40 of an image's at most 336 visual tokens, 114.0 on average over 8 layers",
        "tiles × 3 × 56 × 56",
        "scalar",
        "none; export with --engine trt to build them",
        "weights/model.safetensors",
    ]:
        assert said in text


def test_layers_share_a_line(tmp_path: Path) -> None:
    text = rendering(bundle_facts(with_caches_and_engine(write_bundle(tmp_path / "out"))))
    assert "past_key_values.{0..7}.key " in text and "past_key_values.3" not in text
    assert "engines/decoder.engine, tensorrt_rtx 1.7.1, compute 8.6, 12.0" in text
    assert "1×2×0×64" in text and "kept_length (value)" in text
    assert "attention layers without a dedicated kernel: 1" in text


def test_parts_of_a_decoder_say_what_they_hold_and_take(tmp_path: Path) -> None:
    bundle = with_caches_and_engine(write_bundle(tmp_path / "out"))
    (whole,) = bundle.manifest.engines
    hidden = TensorInfo("hidden_states.4", "fp32", ("batch", "sequence", 256))
    mask = TensorInfo("attention_mask", "int64", ("batch", "total_sequence"))
    logits = TensorInfo("logits", "fp32", ("batch", 1, 1000))
    parts = (
        EnginePart(0, 2, (0, 3), (mask,), (hidden,)),
        EnginePart(1, 2, (4, 7), (hidden, mask), (logits,)),
    )
    engines = tuple(dataclasses.replace(whole, part=part) for part in parts)
    text = rendering(bundle_facts(Bundle(bundle.path, dataclasses.replace(bundle.manifest, engines=engines))))
    assert "part 1 of 2, layers 0 to 3\n" in "\n".join(line.rstrip() for line in text.splitlines()) + "\n"
    assert "part 2 of 2, layers 4 to 7, takes hidden_states.4" in text


def test_a_dense_bundle_says_so(tmp_path: Path) -> None:
    bundle = write_bundle(tmp_path / "out")
    dense = dataclasses.replace(
        bundle.manifest, pruning=PruningConfig(method="none"), budget=Budget(ratio=1.0)
    )
    text = rendering(bundle_facts(Bundle(bundle.path, dense)))
    assert "none, every token stays" in text and "all of at most 336 visual tokens" in text
