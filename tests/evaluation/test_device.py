"""PyTorch's answers on a device that is not the host: on a stand-in, since no GPU is needed for these tests."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from small_checkpoints import SmallModel, small_model
from stand_in_device import DEVICE, OnDevice, stand_in_device

from asap_export.checkpoint.checkpoint import open_checkpoint
from asap_export.checkpoint.loading import load_model
from asap_export.errors import UserError
from asap_export.evaluation import EvaluationRequest, evaluate
from asap_export.evaluation import device as devices
from asap_export.evaluation.dataset import Picture, Question
from asap_export.evaluation.device import DeviceCapacity, chosen_device, needed_by, rows_in
from asap_export.evaluation.methods import METHODS
from asap_export.evaluation.reading import read_picture
from asap_export.evaluation.torch_answers import TorchAnswers
from asap_export.model.reference import Reference
from asap_export.parity.processor_reader import ProcessorReader
from asap_export.pruning.config import PruningConfig

CPU, CUDA = torch.device("cpu"), torch.device("cuda")


@pytest.mark.parametrize(("dtype", "alike"), [("fp32", 1.0), ("bf16", 0.5)])
def test_answers_on_a_device_are_the_host_s(checkpoint, dtype, alike):
    """Nothing of an answer is left on the host by mistake: an operation between the two would raise. In bf16
    another kernel for attention rounds otherwise, and random weights have near ties."""
    opened = open_checkpoint(checkpoint)
    reader = ProcessorReader(opened.folder, opened.spec)
    pixels = np.random.default_rng(0).integers(0, 256, (30, 90, 3)).astype(np.uint8)
    asked = tuple(Question(str(n), text, ()) for n, text in enumerate(("What?", "What is it?", "Red?")))
    picture = Picture("noise", Image.fromarray(pixels), asked)
    read = read_picture(reader, opened.spec, picture, "", 3)
    methods = [*METHODS.values(), PruningConfig(threshold=0.3), PruningConfig(trim_early_kv=False)]

    def answers(found: TorchAnswers) -> list[int]:
        seen = found.look(read)
        return [token for pruning in methods for row in found.answer(seen, pruning, 9) for token in row]

    expected = answers(TorchAnswers(load_model(opened, dtype), opened.spec, 3, rows=2))
    model = load_model(opened, dtype)
    with stand_in_device():
        model = model.to(DEVICE)
        assert all(type(weight) is OnDevice for weight in model.parameters())
        there = answers(TorchAnswers(model, opened.spec, 3, rows=2))
    same = sum(one == other for one, other in zip(there, expected, strict=True))
    assert same >= alike * len(expected) > 0


def test_a_cut_waits_for_the_device_a_few_times_and_not_for_every_token():
    llava = small_model(SmallModel("llava_next", "llama"))
    tokens, looks = 400, {}
    noise = torch.Generator().manual_seed(0)
    kinds = torch.randn(40, llava.config.text_config.hidden_size, generator=noise)
    embeds = kinds[torch.randint(0, 40, (1, tokens), generator=noise)]
    visual = torch.ones(1, tokens, dtype=torch.bool)
    visual[:, -3:] = False
    with torch.no_grad(), stand_in_device() as device:
        given = embeds.to(DEVICE), torch.ones(1, tokens, dtype=torch.int64).to(DEVICE), visual.to(DEVICE)
        llava = llava.to(DEVICE)
        for keep in (20, 300):
            before = device.looks
            reference = Reference(llava, PruningConfig(threshold=0.5))
            output, _ = reference.advance(*given, keep, reference.empty_context(1))
            looks[keep] = device.looks - before
            assert output.kept_index.shape == (1, keep + 3)
    assert looks[300] <= looks[20] + 10 and looks[300] < 40


def test_the_stand_in_refuses_tensors_of_two_devices():
    with stand_in_device():
        there, here = torch.ones(3).to(DEVICE), torch.ones(3)
        assert (there + torch.tensor(1.0)).sum().item() == 6
        with pytest.raises(RuntimeError, match="tensors on two devices"):
            there + here


def test_a_device_that_pytorch_has_not_is_refused(monkeypatch):
    assert chosen_device("cpu").type == "cpu"
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert [chosen_device(name).index for name in ("cuda", "cuda:0", "cuda:1")] == [None, 0, 1]
    with pytest.raises(
        UserError, match="expected a CUDA device for device cuda:2, found 2 of them with PyTorch"
    ):
        chosen_device("cuda:2")
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    with pytest.raises(UserError, match=r"device cuda, found none with PyTorch .*; use device cpu"):
        chosen_device("cuda")
    for name in ("", "gpu", "meta", "cuda:", "cuda:-1", "cuda:1 "):
        with pytest.raises(UserError, match="expected cpu, cuda or cuda:N for device"):
            chosen_device(name)


def test_as_many_questions_at_once_as_the_device_holds(checkpoint):
    """Vicuna 7B's sizes."""
    spec = replace(
        open_checkpoint(checkpoint).spec, layers=32, hidden_size=4096, intermediate_size=11008, heads=32,
        kv_heads=32, head_dim=128, max_visual_tokens=2928,
    )  # fmt: skip
    weights = 14_100_000_000
    found = {}
    for total in (16, 24, 48, 80, 140):
        needed = needed_by(spec, weights, 2, 16, CUDA)
        rows = rows_in(needed, DeviceCapacity(total * 10**9, 0))
        found[total] = rows, needed.fixed + rows * needed.row <= 0.8 * total * 10**9
    assert found == {16: (1, False), 24: (1, False), 48: (4, True), 80: (9, True), 140: (16, True)}
    on_h200 = needed_by(
        spec, 14_126_862_336, 2, 16, CUDA
    )  # docs/measurements/h200.json: eight questions at once
    assert on_h200.fixed + 8 * on_h200.row > 55_215_501_824
    grouped = needed_by(replace(spec, kv_heads=8), weights, 2, 16, CUDA)
    assert grouped.row * 4 == needed_by(spec, weights, 2, 16, CUDA).row


@pytest.fixture
def made_up_gpu(monkeypatch) -> dict[str, DeviceCapacity]:
    """PyTorch's word that there are two GPUs, whose work the host does."""
    memory = {"host": DeviceCapacity(10**11, 10**11), "cuda": DeviceCapacity(10**11, 10**11)}
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: f"GPU of cuda:{device.index or 0}")
    monkeypatch.setattr(
        "asap_export.evaluation.evaluated.memory_of",
        lambda device: memory["host" if device == CPU else "cuda"],
    )
    monkeypatch.setattr(
        "asap_export.evaluation.evaluated.EvaluatedModel.torch_answers",
        lambda subject, new: TorchAnswers(
            load_model(subject.checkpoint(), subject.dtype), subject.spec, new, subject.rows(new)
        ),
    )
    return memory


def test_results_say_where_they_come_from_and_are_not_mixed(made_up_gpu, checkpoint, data, tmp_path):
    request = EvaluationRequest(
        checkpoint, data, methods="dense", max_new_tokens=1, output=tmp_path, device="cuda"
    )
    facts = evaluate(request).facts
    settings = json.loads((tmp_path / "settings.json").read_text())
    stored = open_checkpoint(checkpoint).spec.dtype
    for said in (facts["settings"], settings):
        assert (said["device"], said["dtype"]) == ("cuda, GPU of cuda:0", stored)
    assert f"PyTorch answered in {stored} on cuda, GPU of cuda:0." in (tmp_path / "results.md").read_text()
    assert evaluate(replace(request, device="cuda:0")).facts == facts
    with pytest.raises(
        UserError, match="found another device: cuda, GPU of cuda:1 instead of cuda, GPU of cuda:0"
    ):
        evaluate(replace(request, device="cuda:1"))
    with pytest.raises(UserError, match="found another"):
        evaluate(replace(request, device="cpu"))
    with pytest.raises(UserError, match="expected runtime torch or both with device cuda, found ort"):
        evaluate(replace(request, runtime="ort"))


def test_a_device_without_room_is_refused_before_anything_is_written(
    made_up_gpu, checkpoint, data, tmp_path: Path
):
    request = EvaluationRequest(checkpoint, data, methods="dense", output=tmp_path / "out", device="cuda")
    for where, said in (("cuda", "on cuda, GPU of cuda:0"), ("host", "on the host to load")):
        held = made_up_gpu[where]
        made_up_gpu[where] = DeviceCapacity(10**11, 1000)
        with pytest.raises(UserError, match=f"of free memory {said} for the model in .*, found 0 MB"):
            evaluate(request)
        made_up_gpu[where] = held
    assert not (tmp_path / "out").exists()


def test_a_gpu_s_memory_is_asked_of_pytorch(monkeypatch):
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (3, 7))
    assert devices.memory_of(CUDA) == DeviceCapacity(total=7, free=3)
    host = devices.memory_of(CPU)
    assert 0 < host.free <= host.total
