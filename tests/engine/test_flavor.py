"""Which TensorRT, and for which GPUs."""

from types import SimpleNamespace

import pytest

from asap_export.engine import find_flavor, target_capabilities
from asap_export.engine import flavor as flavors
from asap_export.errors import UserError


@pytest.fixture
def machine(monkeypatch):
    """Make this machine look like another: what is installed, whether there is a GPU."""

    def looks_like(installed=(), gpu=None):
        monkeypatch.setattr(flavors, "find_spec", lambda name: object() if name in installed else None)
        monkeypatch.setattr(flavors, "compute_capabilities", lambda: (gpu,) if gpu else ())
        capabilities = {f"SM{number}": number for number in (75, 80, 86, 89, 120, 121)} | {"CURRENT": 1}
        known = SimpleNamespace(ComputeCapability=SimpleNamespace(__members__=capabilities))
        monkeypatch.setattr(flavors.importlib, "import_module", lambda name: known)

    return looks_like


@pytest.mark.parametrize(
    ("installed", "gpu", "best"),
    [
        (("tensorrt", "tensorrt_rtx"), "8.9", "tensorrt"),
        (("tensorrt", "tensorrt_rtx"), None, "tensorrt_rtx"),
        (("tensorrt_rtx",), "8.9", "tensorrt_rtx"),
        (("tensorrt",), "8.9", "tensorrt"),
    ],
)
def test_auto_takes_what_can_build_here(machine, installed, gpu, best):
    machine(installed, gpu)
    assert find_flavor("auto") == best


def test_without_tensorrt_the_user_learns_what_to_install(machine):
    machine()
    with pytest.raises(UserError, match=r'found none here; install it with pip install "asap-export\[rtx\]"'):
        find_flavor("auto")
    with pytest.raises(UserError, match=r"asap-export\[gpu\]"):
        find_flavor("tensorrt")


def test_tensorrt_without_a_gpu_points_to_the_other(machine):
    machine(["tensorrt"])
    with pytest.raises(UserError, match="use flavor tensorrt_rtx"):
        find_flavor("tensorrt")
    with pytest.raises(UserError, match="only tensorrt, which needs a GPU"):
        find_flavor("auto")


def test_an_unknown_flavor_is_refused():
    with pytest.raises(UserError, match="expected flavor auto, tensorrt or tensorrt_rtx, found lite"):
        find_flavor("lite")


@pytest.mark.parametrize("value", ["89", "8.9", "SM89", "sm_89", " 8.9 "])
def test_a_capability_may_be_written_in_any_usual_way(machine, value):
    machine(["tensorrt_rtx"])
    assert target_capabilities("tensorrt_rtx", [value]) == ("8.9",)


def test_capabilities_are_sorted_and_said_once(machine):
    machine(["tensorrt_rtx"])
    assert target_capabilities("tensorrt_rtx", ["SM120", "86", "8.6", "121"]) == ("8.6", "12.0", "12.1")


def test_defaults_are_all_from_8_6_up_or_the_gpu_at_hand(machine):
    machine(["tensorrt_rtx"])
    assert target_capabilities("tensorrt_rtx") == ("8.6", "8.9", "12.0", "12.1")
    machine(["tensorrt_rtx", "tensorrt"], gpu="8.9")
    assert target_capabilities("tensorrt_rtx") == ("current",)
    assert target_capabilities("tensorrt_rtx", ["current"]) == ("current",)
    assert target_capabilities("tensorrt") == ("current",)


@pytest.mark.parametrize("gpu", ["7.0", "9.0", "10.0"])
def test_a_gpu_that_tensorrt_rtx_does_not_run_on_gets_no_engine(machine, gpu):
    """It would build one, and refuse to load it: seen on an H200."""
    machine(["tensorrt_rtx", "tensorrt"], gpu)
    with pytest.raises(
        UserError, match=rf"12\.1 or newer\), found compute capability {gpu}; use flavor tensorrt"
    ):
        target_capabilities("tensorrt_rtx")
    assert target_capabilities("tensorrt_rtx", ["8.9"]) == ("8.9",)
    assert target_capabilities("tensorrt") == ("current",)


def test_a_newer_gpu_than_tensorrt_rtx_knows_gets_an_engine(machine):
    machine(["tensorrt_rtx"], "13.0")
    assert target_capabilities("tensorrt_rtx") == ("current",)


@pytest.mark.parametrize("value", ["9.0", "8.65", "ampere", "6", "", "-86"])
def test_an_unknown_capability_is_refused_with_the_known_ones(machine, value):
    machine(["tensorrt_rtx"])
    with pytest.raises(UserError, match=r"of 7\.5, 8\.0, 8\.6, 8\.9, 12\.0, 12\.1, found"):
        target_capabilities("tensorrt_rtx", [value])


def test_capabilities_that_cannot_be_met_are_refused(machine):
    machine(["tensorrt_rtx", "tensorrt"])
    with pytest.raises(UserError, match="expected a CUDA GPU for compute_capability current"):
        target_capabilities("tensorrt_rtx", ["current"])
    with pytest.raises(UserError, match="expected no compute_capability with flavor tensorrt"):
        target_capabilities("tensorrt", ["8.9"])
