"""The whole way, from images to the page."""

import json
import re
import shutil
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest
from bundle_cases import example_manifest, write_files
from installed_command import IMAGES, listing, run
from small_checkpoints import SmallModel, write_checkpoint

from asap_export.bundle import BundleWriter
from asap_export.errors import UserError
from asap_export.explain import ExplainRequest, explain
from asap_export.pruning.config import Budget, PruningConfig

MAT, SIGN = IMAGES / "mat.png", IMAGES / "sign.png"


class Links(HTMLParser):
    """Whatever a page would load."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.found: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag, attributes):
        self.found += [value for name, value in attributes if name in ("src", "href")]


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory) -> str:
    return str(write_checkpoint(tmp_path_factory.mktemp("checkpoint") / "small"))


def test_the_installed_command_explains_a_bundle(pruned_bundle: Path, tmp_path: Path):
    out = tmp_path / "out"
    asked = ("--prompt", "What is on the mat?", "--image", MAT, "--output", out)
    facts = json.loads(run("explain", pruned_bundle, *asked, "--json").stdout)
    assert facts["output"] == str(out) and facts["source"] == str(pruned_bundle)
    (image,) = facts["images"]
    assert image["visual_tokens"] == sum(image["fates"].values())
    kept = image["fates"]["kept"] + image["fates"]["salvaged"]
    assert kept == round(image["visual_tokens"] / 6)  # the bundle's budget
    assert image["without_pixels"].keys() == {"newline"}
    for fate, count in image["fates"].items():
        parts = [view["fates"][fate] for view in image["views"]]
        assert sum(parts) + image["without_pixels"]["newline"][fate] == count
    assert -1 <= facts["shift"]["base view"]["causal"]["mean"] <= 1

    assert json.loads((out / "explanation.json").read_text()) == {
        name: value for name, value in facts.items() if name != "output"
    }
    page = (out / "index.html").read_text()
    links = Links(page).found
    assert len(links) == 8 and all(link.startswith("data:image/png;base64,") for link in links)
    assert "<script" not in page and not re.search(r"url\(|@import", page)
    assert len(listing(out / "pictures")) == 8


def test_one_prompt_may_have_several_images(checkpoint: str, tmp_path: Path):
    request = ExplainRequest(
        "What differs?", checkpoint, images=(MAT, SIGN), output=tmp_path / "out", pictures=1
    )
    facts = explain(request).facts
    mat, sign = (image["visual_tokens"] for image in facts["images"])
    kept = sum(image["fates"]["kept"] + image["fates"]["salvaged"] for image in facts["images"])
    assert kept == round((mat + sign) / 6)  # one pool
    page = (tmp_path / "out/index.html").read_text()
    assert "pictures of the first 1" in page and "sign.png" not in page


def test_a_folder_of_images_is_averaged_over_and_an_old_explanation_replaced(checkpoint: str, tmp_path: Path):
    folder, out = tmp_path / "images", tmp_path / "out"
    folder.mkdir()
    for image in (MAT, SIGN):
        shutil.copy(image, folder)
    (folder / "notes.txt").write_text("no image")
    request = ExplainRequest("What?", checkpoint, folder=folder, output=out, pictures=0)
    shift = explain(request).facts["shift"]["tile grid"]["sg_bimask"]
    assert shift["count"] == 2 and shift["deviation"] >= 0
    with pytest.raises(UserError, match="pass overwrite"):
        explain(request)
    again = ExplainRequest(
        "What?", checkpoint, images=(MAT,), output=out, overwrite=True, pruning={"bidirectional": False}
    )
    facts = explain(again).facts
    assert facts["pruning"]["bidirectional"] is False
    assert facts["shift"]["tile grid"]["causal"] != facts["shift"]["tile grid"]["sg_bimask"]
    assert "under the causal mask (SG-BiMask is there to compare)" in (out / "index.html").read_text()
    assert len(listing(out)) == 2 + 1 + 8 and sorted(listing(tmp_path))[0] == "images"


def test_llava_1_5_has_a_base_view_and_a_class_token(tmp_path: Path):
    model = SmallModel("llava", "llama-with-biases", "class-token")
    source = str(write_checkpoint(tmp_path / "checkpoint", model))
    facts = explain(ExplainRequest("What?", source, images=(MAT,), output=tmp_path / "out")).facts
    (image,) = facts["images"]
    assert [view["name"] for view in image["views"]] == ["base view"]
    assert sum(image["without_pixels"]["class token"].values()) == 1 and image["visual_tokens"] == 65


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({}, "expected image FILE or images FOLDER, found neither"),
        ({"images": (MAT,), "folder": IMAGES}, "found both"),
        ({"folder": IMAGES / "nowhere"}, "expected a folder of images at .*found nothing"),
        ({"images": (IMAGES / "nowhere.png",)}, "expected an image file at"),
        ({"images": (Path(__file__),)}, "found another kind of file"),
        (
            {"images": (MAT,), "pruning": {"prune_after": 3}},
            "expected prune_after below the model's 3 layers",
        ),
        ({"images": (MAT,), "model": "elsewhere"}, "expected model with a bundle"),
        ({"images": (MAT,), "pictures": -1}, "expected pictures of 0 or more"),
    ],
)
def test_what_cannot_be_explained_is_refused_and_leaves_nothing(
    checkpoint: str, tmp_path: Path, changes, reason
):
    with pytest.raises(UserError, match=reason):
        explain(ExplainRequest("What?", checkpoint, output=tmp_path / "out", **changes))
    assert listing(tmp_path) == []


def test_a_dense_bundle_has_no_cut_to_explain(tmp_path: Path):
    manifest = replace(example_manifest(), pruning=PruningConfig(method="none"), budget=Budget(ratio=1.0))
    with BundleWriter(tmp_path / "dense") as writer:
        write_files(writer.path)
        writer.complete(manifest)
    with pytest.raises(UserError, match="found a dense one"):
        explain(ExplainRequest("What?", str(tmp_path / "dense"), images=(MAT,), output=tmp_path / "out"))
