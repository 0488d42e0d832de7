"""Which attention nodes TensorRT has no kernel for, read off small graphs."""

import numpy as np
import onnx
import onnxruntime
import pytest

from asap_export.engine.attention import decomposed_attention, spell_out_attention

LOOP = """
  half = Constant <value = int64 {2}> ()
  go = Constant <value = bool {1}> ()
  doubled = Loop (half, go, q) <body = twice (int64 round, bool go_in, T[B,H,S,D] a) => (bool go_out, T[B,H,S,D] b)
    { go_out = Identity (go_in)  b = Add (a, a) }>
"""


def graph(dtype="float16", head_size=64, loop=False) -> onnx.ModelProto:
    """Two attention nodes; between them, a loop on the queries if wanted."""
    between = "doubled = Add (before, before)"
    if loop:
        between = LOOP.replace("T[", f"{dtype}[").replace("go, q)", "go, before)")
    shapes = f"{dtype}[B,4,S,{head_size}] q, {dtype}[B,2,P,{head_size}] k, {dtype}[B,2,P,{head_size}] v"
    return onnx.parser.parse_model(f"""
        <ir_version: 11, opset_import: ["" : 23]>
        attention ({shapes}, bool[B,1,S,P] mask) => ({dtype}[B,4,S,{head_size}] out) {{
          [first] before = Attention (q, k, v, mask)
          {between}
          [second] out = Attention (doubled, k, v, mask)
        }}""")


@pytest.mark.parametrize(
    ("dtype", "head_size", "found"),
    [
        ("float16", 64, ()),
        ("bfloat16", 128, ()),
        ("float16", 72, ()),
        ("float", 64, ("first", "second")),
        ("float16", 60, ("first", "second")),
        ("float16", 8, ("first", "second")),
    ],
)
def test_type_and_head_size_decide(dtype, head_size, found):
    assert decomposed_attention(graph(dtype, head_size)) == found


def test_behind_a_loop_there_is_no_kernel():
    assert decomposed_attention(graph(loop=True)) == ("second",)


def test_a_loop_inside_a_function_counts():
    model = graph()
    model.functions.append(
        onnx.parser.parse_function("""
            <opset_import: ["" : 23], domain: "test"> Inner (q) => (r) {
              half = Constant <value = int64 {2}> ()
              go = Constant <value = bool {1}> ()
              r = Loop (half, go, q) <body = once (int64 i, bool go_in, float16[b] a)
                => (bool go_out, float16[b] c) { go_out = Identity (go_in)  c = Add (a, a) }>
            }""")
    )
    model.functions.insert(
        0,
        onnx.parser.parse_function(
            '<opset_import: ["" : 23, "test" : 1], domain: "test"> Outer (q) => (r) { r = test.Inner (q) }'
        ),
    )
    model.opset_import.append(onnx.helper.make_opsetid("test", 1))
    assert decomposed_attention(model) == ()
    middle = model.graph.node[1]
    middle.CopyFrom(onnx.helper.make_node("Outer", middle.input[:1], middle.output, domain="test"))
    assert decomposed_attention(model) == ("second",)


@pytest.mark.parametrize(("dtype", "loop"), [("float16", False), ("float16", True), ("float", False)])
def test_graphs_that_tensorrt_takes_stay_as_they_are(dtype, loop):
    assert spell_out_attention(graph(dtype, loop=loop)) is None


def test_spelled_out_attention_computes_the_same():
    model = graph("float", loop=True)
    plain = spell_out_attention(model)
    assert not any(node.op_type == "Attention" for node in plain.graph.node)
    random = np.random.default_rng(0)
    inputs = {
        "q": random.standard_normal((2, 4, 3, 64), np.float32),
        "k": random.standard_normal((2, 2, 5, 64), np.float32),
        "v": random.standard_normal((2, 2, 5, 64), np.float32),
        "mask": random.random((2, 1, 3, 5)) < 0.7,
    }
    np.testing.assert_allclose(answer(model, inputs), answer(plain, inputs), atol=1e-6)


def answer(model, inputs):
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(None, inputs)[0]
