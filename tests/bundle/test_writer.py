import errno
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from bundle_cases import FILES, example_engine, example_manifest, write_bundle, write_files

from asap_export.bundle import Bundle, BundleWriter, add_engine, staged
from asap_export.bundle.refusals import require_space
from asap_export.errors import UserError

KILLED_MID_WAY = """
import sys
from pathlib import Path
from bundle_cases import write_files
from asap_export.bundle import BundleWriter
with BundleWriter(Path(sys.argv[1]), overwrite=True) as writer:
    write_files(writer.path)
    print("written", flush=True)
    sys.stdin.read()
"""


def entries(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_complete_bundle_is_all_that_is_left(tmp_path: Path) -> None:
    bundle = write_bundle(tmp_path / "new/out")
    assert entries(tmp_path / "new") == ["out"]
    assert Bundle.open(tmp_path / "new/out", hash_all=True) == bundle


@pytest.mark.parametrize("failure", [RuntimeError, KeyboardInterrupt, SystemExit])
def test_nothing_is_left_of_a_failed_export(tmp_path: Path, failure: type[BaseException]) -> None:
    with pytest.raises(failure), BundleWriter(tmp_path / "out") as writer:
        write_files(writer.path)
        raise failure
    assert entries(tmp_path) == []


def test_nothing_is_left_of_an_export_that_was_not_completed(tmp_path: Path) -> None:
    with BundleWriter(tmp_path / "out") as writer:
        write_files(writer.path)
    assert entries(tmp_path) == []


def test_what_exists_is_refused_before_any_work(tmp_path: Path) -> None:
    write_bundle(tmp_path / "out")
    (tmp_path / "file").write_text("")
    for name in ("out", "file"):
        with (
            pytest.raises(UserError, match="choose another output or pass overwrite"),
            BundleWriter(tmp_path / name),
        ):
            raise AssertionError("work began")


def test_overwrite_replaces_a_bundle(tmp_path: Path) -> None:
    old = write_bundle(tmp_path / "out")
    old.parity_path.write_text("{}")
    (old.path / "decoder.onnx").write_text("damaged")
    write_bundle(tmp_path / "out", overwrite=True)
    assert not Bundle.open(tmp_path / "out").parity_path.exists()
    assert entries(tmp_path) == ["out"]


@pytest.mark.parametrize("exchanges", [True, False])
def test_an_overwritten_bundle_is_gone_from_the_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, exchanges: bool
) -> None:
    """In one step where the system can, else by two renames."""
    if not exchanges:
        monkeypatch.setattr(staged, "_exchanged", lambda one, other: False)
    before = write_bundle(tmp_path / "out").path.stat().st_ino
    write_bundle(tmp_path / "out", overwrite=True)
    assert entries(tmp_path) == ["out"] and (tmp_path / "out").stat().st_ino != before


def test_folders_take_each_other_s_names_in_one_step(tmp_path: Path) -> None:
    one, other = tmp_path / "one", tmp_path / "other"
    (one / "first").mkdir(parents=True)
    assert not staged._exchanged(one, other) and entries(one) == [
        "first"
    ]  # there is nothing to exchange with
    (other / "second").mkdir(parents=True)
    assert staged._exchanged(one, other)
    assert (entries(one), entries(other)) == (["second"], ["first"])


def test_overwrite_keeps_the_old_bundle_where_the_new_one_fails(tmp_path: Path) -> None:
    write_bundle(tmp_path / "out")
    with pytest.raises(RuntimeError), BundleWriter(tmp_path / "out", overwrite=True) as writer:
        write_files(writer.path)
        raise RuntimeError
    assert Bundle.open(tmp_path / "out", hash_all=True)


def test_what_came_to_be_there_in_the_meantime_is_not_replaced(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="pass overwrite"), BundleWriter(tmp_path / "out") as writer:
        write_files(writer.path)
        (tmp_path / "out").mkdir()
        writer.complete(example_manifest())
    assert entries(tmp_path) == ["out"] and entries(tmp_path / "out") == []


def test_the_old_bundle_is_put_back_where_the_new_one_cannot_take_its_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_bundle(tmp_path / "out")
    original = Path.rename

    def rename(source: Path, target: Path) -> Path:
        if ".partial-" in source.name:
            raise KeyboardInterrupt
        return original(source, target)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(staged, "_exchanged", lambda one, other: False)  # as on a file system that cannot
        patch.setattr(Path, "rename", rename)
        write_bundle(tmp_path / "out", overwrite=True)
    assert entries(tmp_path) == ["out"] and Bundle.open(tmp_path / "out")


def test_overwrite_takes_an_empty_folder_but_no_other_files(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    write_bundle(tmp_path / "empty", overwrite=True)
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis/chapter-1.tex").write_text("")
    (tmp_path / "thesis/manifest.json").write_text('{"name": "a web extension"}')
    with pytest.raises(UserError, match=r"expected a bundle to overwrite .*, found other files"):
        write_bundle(tmp_path / "thesis", overwrite=True)
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"expected a bundle to overwrite .*, found a file"):
        write_bundle(tmp_path / "file", overwrite=True)


def killed_mid_way(output: Path) -> None:
    """Start an export of ``output`` in a process of its own and kill it while it writes."""
    path = os.pathsep.join(sys.path)
    export = subprocess.Popen(
        [sys.executable, "-c", KILLED_MID_WAY, output],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, env={**os.environ, "PYTHONPATH": path},
    )  # fmt: skip
    assert export.stdin and export.stdout
    with export.stdin, export.stdout:
        assert export.stdout.readline() == b"written\n"
        # a run beside it is refused before any work, and does not disturb it
        with pytest.raises(UserError, match="found another export that does; wait"), BundleWriter(output):
            raise AssertionError("work began")
        assert len(entries(output.parent)) == 1
        export.send_signal(signal.SIGKILL)
        export.wait(10)


@pytest.mark.parametrize("name", ["out", "out[1]"])
def test_a_killed_export_leaves_no_bundle_and_the_next_run_cleans_up(tmp_path: Path, name: str) -> None:
    killed_mid_way(tmp_path / name)
    (left,) = tmp_path.iterdir()
    with pytest.raises(UserError):
        Bundle.open(left)
    write_bundle(tmp_path / name)
    assert entries(tmp_path) == [name]


def test_a_bundle_on_its_way_out_comes_back_where_the_run_was_killed_between_two_renames(
    tmp_path: Path,
) -> None:
    write_bundle(tmp_path / "out").path.rename(tmp_path / ".out.replaced-1-00")
    with pytest.raises(UserError, match="found one"), BundleWriter(tmp_path / "out"):
        pass
    assert Bundle.open(tmp_path / "out")
    shutil.copytree(tmp_path / "out", tmp_path / ".out.replaced-1-00")
    write_bundle(tmp_path / "out", overwrite=True)
    assert entries(tmp_path) == ["out"]


def test_files_are_linked_and_their_known_hashes_kept(tmp_path: Path) -> None:
    shard = tmp_path / "shard"
    shard.write_text("numbers")
    (tmp_path / "cache").symlink_to(shard)
    with BundleWriter(tmp_path / "out") as writer:
        write_files(writer.path)
        assert writer.place_file(tmp_path / "cache", "weights/linked", sha256="a" * 64) == "linked"
        with pytest.raises(FileExistsError):
            writer.place_file(Path(__file__), "weights/linked")
        bundle = writer.complete(example_manifest())
    assert (bundle.path / "weights/linked").samefile(shard)
    assert bundle.manifest.files["weights/linked"].sha256 == "a" * 64
    assert shard.read_text() == "numbers"


def test_files_are_copied_where_links_are_impossible(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.EXDEV, "Invalid cross-device link")

    monkeypatch.setattr(os, "link", refuse)
    with BundleWriter(tmp_path / "out") as writer:
        assert writer.place_file(Path(__file__), "copy") == "copied"
        assert (writer.path / "copy").read_bytes() == Path(__file__).read_bytes()


def test_space_is_asked_for_in_advance(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"disk full: needed 1000000000\.00 GB, free"):  # noqa: SIM117
        with BundleWriter(tmp_path / "out") as writer:
            require_space(10**18, writer.output)
    assert entries(tmp_path) == []


@pytest.mark.parametrize(
    "failure",
    [
        OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "weights/x"),
        RuntimeError("protobuf: cannot write: No space left on device"),
    ],
)
def test_a_full_disk_is_one_line(tmp_path: Path, failure: Exception) -> None:
    with pytest.raises(UserError, match=r"disk full: .*; free space or choose another output"):  # noqa: SIM117
        with BundleWriter(tmp_path / "out"):
            raise RuntimeError("graph could not be saved") from failure
    assert entries(tmp_path) == []


def test_a_really_full_disk_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="disk full"), BundleWriter(tmp_path / "out"):  # noqa: SIM117
        with Path("/dev/full").open("w") as disk:
            disk.write("weights")
    assert entries(tmp_path) == []


def test_other_system_errors_say_which_file(tmp_path: Path) -> None:
    with (
        pytest.raises(UserError, match=r"found No such file or directory: .*gone"),
        BundleWriter(tmp_path / "out") as writer,
    ):
        writer.place_file(tmp_path / "gone", "weights/gone")
    (tmp_path / "file").write_text("")
    with (
        pytest.raises(UserError, match=r"found (Not a directory|File exists)"),
        BundleWriter(tmp_path / "file/out"),
    ):
        pass


def test_engines_join_a_bundle_and_replace_older_ones(tmp_path: Path) -> None:
    bundle = write_bundle(tmp_path / "out")
    for version in ("1.6", "1.7"):
        built = tmp_path / "built"
        built.write_text(f"plan {version}")
        bundle = add_engine(bundle, example_engine(version), built)
        assert Bundle.open(tmp_path / "out") == bundle
        assert [each.tensorrt_version for each in bundle.engines("decoder", "tensorrt_rtx")] == [version]
    assert len(bundle.manifest.engines) == 1
    assert entries(tmp_path) == ["out"]
    assert set(FILES) | {"engines/decoder.tensorrt_rtx.engine"} == set(bundle.manifest.files)


@pytest.mark.parametrize("survivors", [0, 1, 2])
def test_a_bundle_is_valid_wherever_the_addition_of_an_engine_stops(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, survivors: int
) -> None:
    """Of the three replacements (manifest, engine, manifest) the first ``survivors`` succeed."""
    bundle = write_bundle(tmp_path / "out")
    (tmp_path / "built").write_text("plan 1.6")
    bundle = add_engine(bundle, example_engine("1.6"), tmp_path / "built")
    (tmp_path / "built").write_text("plan 1.7")
    calls = iter(range(3))
    original = Path.replace

    def replace(source: Path, target: Path) -> Path:
        if next(calls) >= survivors:
            raise OSError(errno.EIO, "Input/output error")
        return original(source, target)

    with monkeypatch.context() as patch, pytest.raises(UserError, match="Input/output error"):
        patch.setattr(Path, "replace", replace)
        add_engine(bundle, example_engine("1.7"), tmp_path / "built")
    assert len(Bundle.open(tmp_path / "out").manifest.engines) == (survivors == 0)
