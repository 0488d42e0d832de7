"""A weight without a part in any graph is an error, unless LLaVA never reads it."""

import pytest
from short_checkpoint import write_short_checkpoint

from asap_export.checkpoint.checkpoint import Checkpoint, open_checkpoint
from asap_export.checkpoint.unread import unread_weights
from asap_export.errors import UserError
from asap_export.graph import write
from asap_export.pruning.config import PruningConfig


@pytest.fixture(scope="module")
def checkpoint(random_checkpoint) -> Checkpoint:
    return open_checkpoint(random_checkpoint)


def unread_by(checkpoint: Checkpoint, vision_feature_layer: int | list[int]) -> set[int]:
    """Numbers of the tower's layers that an export would miss if it read no weight of the tower."""
    checkpoint.config.vision_feature_layer = vision_feature_layer
    read = [place for name, place in checkpoint.tensors.items() if "vision_tower" not in name]
    names = unread_weights(checkpoint.tensors, read, checkpoint.config)
    return {int(name.split("layers.")[1].split(".")[0]) for name in names if "layers." in name}


@pytest.mark.parametrize(
    ("vision_feature_layer", "needed"),
    [(-2, {0, 1}), (-1, {0, 1, 2}), (1, {0}), (0, set()), ([-3, 2], {0, 1}), ([-1, 0], {0, 1, 2})],
)
def test_the_tower_is_needed_up_to_the_last_features(random_checkpoint, vision_feature_layer, needed) -> None:
    assert unread_by(open_checkpoint(random_checkpoint), vision_feature_layer) == needed


def test_nothing_else_stays_behind(checkpoint: Checkpoint) -> None:
    unread = unread_weights(checkpoint.tensors, [], checkpoint.config)
    behind = set(checkpoint.tensors) - set(unread)
    tower = "model.vision_tower."
    assert {name for name in behind if "layers.2." not in name} == {
        f"{tower}post_layernorm.weight",
        f"{tower}post_layernorm.bias",
    }
    top = {name for name in checkpoint.tensors if name.startswith(f"{tower}encoder.layers.2.")}
    assert top and behind > top


def test_tied_parameters_are_read_as_one(checkpoint: Checkpoint) -> None:
    head, embedding = "lm_head.weight", "model.language_model.embed_tokens.weight"
    tied = {**checkpoint.tensors, head: checkpoint.tensors[embedding]}
    read = [place for name, place in tied.items() if name != head]
    assert unread_weights(tied, read, checkpoint.config) == []


def test_a_weight_that_no_graph_reads_is_named(tmp_path, monkeypatch) -> None:
    """A model whose projector has lost a bias stands for an export that forgets a part."""
    whole = write.weightless_model

    def forgetful(*arguments):
        model = whole(*arguments)
        model.model.multi_modal_projector.linear_2.bias = None
        return model

    checkpoint = open_checkpoint(write_short_checkpoint(tmp_path / "short"))
    monkeypatch.setattr(write, "weightless_model", forgetful)
    with pytest.raises(
        UserError, match=r"found none that reads model\.multi_modal_projector\.linear_2\.bias; "
    ):
        write.write_graphs(
            checkpoint, PruningConfig(method="none"), "fp16", tmp_path, lambda source, relative: None
        )
