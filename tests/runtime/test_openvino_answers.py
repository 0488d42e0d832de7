"""Answers in OpenVINO: in f32 those of ONNX Runtime, token for token; caches stay inside, and one can return."""

import threading
from pathlib import Path

import numpy as np
import pytest

import asap_export
from asap_export.errors import UserError
from asap_export.runtime import openvino_session, providers
from asap_export.runtime.openvino_session import choose_precision
from asap_export.runtime.request import Request

openvino = pytest.importorskip(
    "openvino", reason="OpenVINO is not installed: pip install 'asap-export[openvino]'"
)

IMAGES = Path(__file__).parents[2] / "examples" / "images"
MAT, SIGN, TOWER = IMAGES / "mat.png", IMAGES / "sign.png", IMAGES / "tower.png"
pytestmark = pytest.mark.slow  # bundles come by way of a fixture of this file
BUNDLES = ["pruned_bundle", "dense_bundle", "untrimmed_bundle"]


@pytest.fixture(scope="module")
def loaded(request, shared):
    """A bundle in OpenVINO in f32, and on the CPU in ONNX Runtime."""
    path = request.getfixturevalue(getattr(request, "param", "pruned_bundle"))
    return asap_export.load(path, "openvino", 1, "f32"), asap_export.load(path, "cpu", 1)


@pytest.mark.parametrize("loaded", BUNDLES, indirect=True)
def test_conversations_go_as_on_the_cpu(loaded) -> None:
    spoken = []
    for model in loaded:
        chat = model.chat()
        spoken.append(
            [
                chat.ask([MAT], "What is it?", max_new_tokens=6).token_ids,
                chat.ask([TOWER], "And this?", max_new_tokens=6, keep=100_000).token_ids,
                chat.ask([], "Which was larger?", max_new_tokens=6).token_ids,
            ]
        )
    assert spoken[0] == spoken[1]


@pytest.mark.parametrize("loaded", BUNDLES, indirect=True)
def test_rows_of_a_batch_go_as_on_the_cpu(loaded) -> None:
    rows = [
        Request((MAT,), "What is it?", 6),
        Request((TOWER,), "Is this a tower or is it not?", 9),
        Request((), "Is there nothing to be seen at all?", 3),
    ]
    inside, outside = ([answer.token_ids for answer in model.generate_batch(rows)] for model in loaded)
    assert inside == outside


def test_several_go_on_from_one_place(loaded) -> None:
    """The first of them in place, the others from copies."""
    told = []
    for model in loaded:
        read = model.reader.read("What is it?", [MAT], True)
        request = Request((MAT,), "What is it?", 4)
        _, cache = model.answer([read], [request])
        branches = []
        for question in ("Is it red?", "Is it blue, or green, or of no colour?", "Is it red?"):
            more = model.reader.read(question, [], True)
            (answer,), _ = model.answer([more], [Request((), question, 4)], cache=cache)
            branches.append(answer.token_ids)
        told.append(branches)
    assert told[0] == told[1]
    assert told[0][0] == told[0][2]


def test_a_run_that_is_broken_off_leaves_no_trace(loaded, monkeypatch) -> None:
    """Ctrl-C comes when OpenVINO returns: it has added to its caches, and nobody has taken note."""
    run, left = openvino_session._run, [0]

    def broken_off(request, *given):
        left[0] -= 1
        outputs = run(request, *given)
        if not left[0]:
            raise KeyboardInterrupt
        return outputs

    said = []
    for model in loaded:
        chat = model.chat()
        chat.ask([MAT], "What is it?", max_new_tokens=3)
        if model.provider == "openvino":
            for moment in (2, 3, 6):  # of the prompt, before the cut and behind it; of a step, behind it
                left[0] = moment
                with monkeypatch.context() as patched:
                    patched.setattr(openvino_session, "_run", broken_off)
                    with pytest.raises(KeyboardInterrupt):
                        chat.ask([], "Is it red?", max_new_tokens=5)
        said.append(chat.ask([], "Is it red?", max_new_tokens=5).token_ids)
    assert said[0] == said[1]


def test_caches_may_be_arrays_too(loaded) -> None:
    inside, outside = loaded
    rng, width = np.random.default_rng(2), inside.spec.hidden_size
    inputs = {
        "inputs_embeds": rng.standard_normal((1, 7, width)).astype(np.float32),
        "attention_mask": np.ones((1, 7), np.int64),
        "position_ids": np.arange(7)[None],
        "visual_mask": np.zeros((1, 7), bool),
        "kept_length": np.array(7, np.int64),
    }
    first = inside.decoder_step(inputs)
    step = {
        "inputs_embeds": rng.standard_normal((1, 1, width)).astype(np.float32),
        "attention_mask": np.ones((1, 8), np.int64),
        "position_ids": np.array([[7]]),
        "visual_mask": np.zeros((1, 1), bool),
        "kept_length": np.array(1, np.int64),
        **{
            name.replace("present", "past_key_values"): first[name]
            for name in first
            if name.startswith("present")
        },
    }
    found, expected = inside.decoder_step(step), outside.decoder_step(step)
    for name, value in expected.items():
        np.testing.assert_allclose(found[name], value, atol=2e-5, err_msg=name)


def test_threads_may_share_a_model(loaded) -> None:
    model, _ = loaded
    alone = [model.generate(image, "What is it?", 5).token_ids for image in (MAT, SIGN, TOWER)]
    found: dict[int, object] = {}

    def ask(number: int, image: Path) -> None:
        found[number] = model.generate(image, "What is it?", 5).token_ids

    threads = [threading.Thread(target=ask, args=each) for each in enumerate((MAT, SIGN, TOWER))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [found[number] for number in range(3)] == alone


@pytest.mark.parametrize("precision", ["auto", "f32"])
def test_the_trained_demo_answers(demo_bundle, precision) -> None:
    model = asap_export.load(demo_bundle, "openvino", precision=precision)
    answer = model.generate(IMAGES / "things.png", "What number is in the red box?")
    assert (answer.text, answer.kept_visual_tokens) == ("2", 154)


def test_bf16_is_chosen_where_the_cpu_is_fast_in_it_and_refused_where_it_has_none(monkeypatch) -> None:
    class Core:
        able = ("FP32", "BF16")

        def get_property(self, device: str, name: str) -> tuple[str, ...]:
            return self.able

    core, threads = Core(), [2]
    monkeypatch.setattr(openvino_session, "_core", lambda: core)
    monkeypatch.setattr(openvino_session, "_threads_taken", lambda given: given or threads[0])
    assert choose_precision() == choose_precision("bf16") == "bf16"
    assert choose_precision("auto", 1) == "f32"
    with pytest.raises(
        UserError, match=r"^expected at least 2 threads for bf16 in OpenVINO, found 1; use precision"
    ):
        choose_precision("bf16", 1)
    core.able = ("FP32",)
    assert choose_precision() == choose_precision("f32") == "f32"
    with pytest.raises(
        UserError, match=r"^expected a CPU with instructions for bf16, found none; use precision f32$"
    ):
        choose_precision("bf16")
    with pytest.raises(UserError, match=r"^expected a precision among auto, f32, bf16, found fp8$"):
        choose_precision("fp8")


def test_one_thread_computes_in_f32(pruned_bundle) -> None:
    assert openvino_session._threads_taken(1) == 1
    assert asap_export.load(pruned_bundle, "openvino", 1).runs_on == "openvino f32"


def test_what_cannot_run_says_what_to_do(pruned_bundle, monkeypatch, tmp_path) -> None:
    with pytest.raises(UserError, match=r"^expected precision with provider openvino, found it with cpu;"):
        asap_export.load(pruned_bundle, "cpu", precision="bf16")
    with pytest.raises(UserError, match=r"^expected threads of at least 1, found 0;"):
        asap_export.load(pruned_bundle, "openvino", 0)
    damaged = tmp_path / "graph.onnx"
    damaged.write_bytes(b"no graph")
    with pytest.raises(UserError, match=r"^expected a graph for OpenVINO [\d.]+ in .*graph\.onnx, found: "):
        openvino_session.OpenVinoSession(damaged, "f32")
    monkeypatch.setattr(providers, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"^expected the Python package openvino, found none; pip install"):
        asap_export.load(pruned_bundle, "openvino")
