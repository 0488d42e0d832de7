"""The C++ library as an application finds it: installed, with nothing said but where."""

import os
import subprocess
from pathlib import Path

import pytest
from installed_command import IMAGES

import asap_export
from cpp.programs import BUILD, needs_programs

ROOT = Path(__file__).parents[2]
MINIMAL = ROOT / "engines" / "cpp" / "examples" / "minimal"
HEADERS = sorted(path.name for path in (ROOT / "engines" / "cpp" / "include" / "asap").glob("*.hpp*"))
COMPILER = os.environ.get("CXX", "c++")


def done(*command: str | Path, folder: Path | None = None, text: str = "", status: int = 0) -> str:
    """What ``command`` prints, both streams; it must exit with ``status``."""
    ended = subprocess.run(command, cwd=folder, input=text, capture_output=True, text=True, timeout=300)
    assert ended.returncode == status, f"{ended.returncode}\n{ended.stdout}\n{ended.stderr}"
    return ended.stdout + ended.stderr


@pytest.fixture(scope="module")
def prefix(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Installed, and then moved to another place."""
    folder = tmp_path_factory.mktemp("installed")
    done("cmake", "--install", BUILD, "--prefix", folder / "first")
    return (folder / "first").rename(folder / "second")


@needs_programs
def test_the_minimal_application(demo_bundle: Path, prefix: Path, tmp_path: Path) -> None:
    """It is configured, built and run as the README says, and answers as Python does."""
    done("cmake", "-S", MINIMAL, "-B", "build", f"-DCMAKE_PREFIX_PATH={prefix}", folder=tmp_path)
    done("cmake", "--build", "build", folder=tmp_path)
    (tmp_path / "llava.bundle").symlink_to(demo_bundle)
    (tmp_path / "cat.png").symlink_to(IMAGES / "mat.png")
    expected = asap_export.load(demo_bundle).generate([IMAGES / "mat.png"], "What is on the mat?")
    assert done("build/minimal", folder=tmp_path) == f"{expected.text}\n"


@needs_programs
def test_the_minimal_application_by_pkg_config(demo_bundle: Path, prefix: Path, tmp_path: Path) -> None:
    places = os.environ | {"PKG_CONFIG_PATH": str(next(prefix.rglob("pkgconfig")))}
    command = ["pkg-config", "--cflags", "--libs", "asap_runtime"]
    flags = subprocess.run(command, env=places, capture_output=True, text=True, check=True).stdout.split()
    sanitizers = ("-fsanitize=address,undefined",) if "sanitized" in str(BUILD) else ()
    done(COMPILER, "-std=c++17", *sanitizers, MINIMAL / "main.cpp", "-o", "minimal", *flags, folder=tmp_path)
    (tmp_path / "llava.bundle").symlink_to(demo_bundle)
    (tmp_path / "cat.png").symlink_to(IMAGES / "mat.png")
    expected = asap_export.load(demo_bundle).generate([IMAGES / "mat.png"], "What is on the mat?")
    assert done("./minimal", folder=tmp_path) == f"{expected.text}\n"


@needs_programs
def test_nothing_that_is_installed_needs_the_place_where_it_was_built(prefix: Path) -> None:
    said = done("readelf", "-d", prefix / "bin" / "asap-infer")
    assert [line.split("[")[1] for line in said.splitlines() if "RUNPATH" in line] == ["$ORIGIN/../lib]"]
    texts = [path for path in prefix.rglob("*") if path.suffix in (".cmake", ".pc", ".hpp")]
    assert len(texts) > 10
    for text in texts:
        assert str(ROOT) not in text.read_text() and str(BUILD) not in text.read_text(), text
    said = done("ldd", prefix / "bin" / "asap-infer")
    (line,) = (line for line in said.splitlines() if "libonnxruntime" in line)
    assert str(prefix) in line


@needs_programs
def test_asap_infer_runs_where_it_is_installed(prefix: Path) -> None:
    assert done(prefix / "bin" / "asap-infer", "--version") == f"asap-infer {asap_export.__version__}\n"


@needs_programs
@pytest.mark.parametrize("version", ["0.1", "0.3", "1.0"])
def test_other_versions_are_refused(prefix: Path, tmp_path: Path, version: str) -> None:
    (tmp_path / "CMakeLists.txt").write_text(
        "cmake_minimum_required(VERSION 3.22)\nproject(other LANGUAGES NONE)\n"
        f"find_package(asap_runtime {version} REQUIRED)\n"
    )
    said = done("cmake", "-B", "build", f"-DCMAKE_PREFIX_PATH={prefix}", folder=tmp_path, status=1)
    assert f'compatible with requested version "{version}"' in " ".join(said.split())


def compiles(prefix: Path, source: str) -> None:
    warnings = ("-Wall", "-Wextra", "-Wpedantic", "-Werror")
    command = (COMPILER, "-std=c++17", "-fsyntax-only", *warnings, "-I", prefix / "include", "-x", "c++", "-")
    assert done(*command, text=source) == ""


@needs_programs
@pytest.mark.parametrize("header", [name.removesuffix(".in") for name in HEADERS])
def test_headers_need_nothing_before_them(prefix: Path, header: str) -> None:
    compiles(prefix, f"#include <asap/{header}>\n#include <asap/{header}>\n")


@needs_programs
def test_the_conversation_of_the_documentation_compiles(prefix: Path) -> None:
    shown = cpp_in(ROOT / "engines" / "README.md")
    compiles(prefix, f"#include <iostream>\n#include <asap/asap.hpp>\nint main() {{\n{shown}}}\n")


def cpp_in(document: Path) -> str:
    """The first piece of C++ in a document."""
    return document.read_text().partition("```cpp\n")[2].partition("```")[0]


def test_the_readme_shows_what_is_compiled() -> None:
    assert cpp_in(ROOT / "README.md") == (MINIMAL / "main.cpp").read_text()
