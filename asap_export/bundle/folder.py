"""A bundle that has been checked: nothing missing, nothing altered, nothing outside its folder."""

import errno
import os
import stat
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from asap_export.bundle.document import LARGEST
from asap_export.bundle.errors import BundleError, Code, manifest_error
from asap_export.bundle.hashing import sha256_of_each
from asap_export.bundle.manifest import EngineGraph, EngineInfo, Flavor, GraphName, Manifest
from asap_export.progress import ProgressCallback, no_progress

__all__ = [
    "CHAT_TEMPLATE",
    "INLINED_PARTS",
    "INLINED_STEP",
    "INLINED_WHOLE",
    "MANIFEST",
    "PARITY",
    "PARTIAL",
    "TOKENIZER",
    "WEIGHTS",
    "Bundle",
    "inside",
    "manifest_bytes",
    "read_manifest",
]

MANIFEST = "manifest.json"
PARITY = "parity.json"
TOKENIZER = "tokenizer.json"
CHAT_TEMPLATE = "chat_template.jinja"
WEIGHTS = "weights/"
# The decoder without functions of its own, in two graphs where tokens are pruned: before and behind the cut. The
# first one has another form for steps, in which nothing is cut.
INLINED_WHOLE = "decoder.inlined.onnx"
INLINED_PARTS = "decoder.early.inlined.onnx", "decoder.late.inlined.onnx"
INLINED_STEP = "decoder.early.step.inlined.onnx"
PARTIAL = ".partial-"  # in the name of a folder that is still being written

_State = tuple[int, ...] | None  # which file it is, and since when; None for none


@dataclass(frozen=True)
class Bundle:
    """A validated bundle; made by ``Bundle.open``."""

    path: Path
    manifest: Manifest
    # By file, when it was opened.
    seen: Mapping[str, _State] = field(default_factory=dict, repr=False, compare=False)

    @classmethod
    def open(
        cls, path: str | Path, *, hash_all: bool = False, progress: ProgressCallback = no_progress
    ) -> "Bundle":
        """The bundle in the folder ``path``: all sizes are checked, and the hashes of all but weights and
        engines, which may be larger than memory.

        ``hash_all`` checks theirs too. Raises BundleError where anything is missing, altered, outside the folder,
        or written by a release with another manifest.
        """
        path = Path(path)
        if not path.is_dir():
            found = "a file" if path.exists() else "nothing"
            raise BundleError(
                "no_bundle",
                "",
                f"expected a bundle folder at {path}, found {found}; make one with asap-export --output",
            )
        if PARTIAL in path.resolve().name:
            raise BundleError(
                "unfinished",
                "",
                f"expected a finished bundle, found an interrupted export at {path}; export again",
            )
        seen = {MANIFEST: _state(path / MANIFEST)}
        bundle = cls(path, read_manifest(path), seen)
        bundle._check_listing()
        try:
            seen |= {name: _state(path / name) for name in bundle.manifest.files}
            bundle._check_files(progress)
            if hash_all:
                bundle.check_large_files(progress)
        except OSError as error:
            raise BundleError(
                "unreadable",
                "",
                f"expected readable files in {path}, found {error.strerror}: {error.filename}",
            ) from error
        return bundle

    def check_unchanged(self) -> None:
        """Raise BundleError where a file is another than when the bundle was opened, as after its folder was
        replaced: what has been read since is then of two bundles."""
        for name, state in self.seen.items():
            if _state(self.path / name) != state:
                raise BundleError(
                    "changed",
                    name,
                    f"expected {self.path} to stay as it is while it is loaded, found another {name}; "
                    "load it again",
                )

    def check_large_files(self, progress: ProgressCallback = no_progress) -> None:
        """Check the hashes of weights and engines, which opening leaves out. Raises BundleError where one is
        altered."""
        self._check_hashes(self._large_files(), progress)

    def graph_path(self, name: GraphName) -> Path:
        """The ONNX file of ``preprocess``, ``vision_encoder``, ``embed_tokens`` or ``decoder``."""
        return self.path / self.manifest.graphs[name].file

    def decoder_path_for(self, provider: str) -> Path:
        """The decoder's ONNX file for ONNX Runtime's provider "cpu" or "cuda": its own, or ``decoder.onnx``."""
        own = {"cpu": self.manifest.cpu_decoder, "cuda": self.manifest.cuda_decoder}.get(provider)
        return self.graph_path("decoder") if own is None else self.path / own.file

    @property
    def inlined_decoder(self) -> tuple[Path, ...]:
        """The decoder's ONNX files for runtimes that expand no functions, in the order in which they run; none in
        bundles of versions that wrote none."""
        for files in ((INLINED_WHOLE,), INLINED_PARTS):
            if all(name in self.manifest.files for name in files):
                return tuple(self.path / name for name in files)
        return ()

    @property
    def inlined_step(self) -> Path | None:
        """The first of ``inlined_decoder`` for steps, with the same inputs and outputs; None where none is."""
        return self.path / INLINED_STEP if INLINED_STEP in self.manifest.files else None

    def engines(self, graph: EngineGraph, flavor: Flavor) -> tuple[EngineInfo, ...]:
        """The engine of a graph, or the engines of all its parts in the order in which they run.

        Empty where the bundle has none of this flavor, or not every part.
        """
        found = [each for each in self.manifest.engines if (each.graph, each.flavor) == (graph, flavor)]
        whole = tuple(engine for engine in found if engine.part is None)
        parts = {engine.part.number: engine for engine in found if engine.part is not None}
        of = {engine.part.of for engine in parts.values() if engine.part is not None}
        if whole or of != {len(parts)}:
            return whole[:1]
        return tuple(parts[number] for number in sorted(parts))

    @property
    def config_path(self) -> Path:
        """The checkpoint's own config.json."""
        return self.path / "config.json"

    @property
    def processor_path(self) -> Path:
        """The folder of tokenizer, image processor and chat template, for transformers.

        It looks for more files than the bundle lists. Raises BundleError where the folder has one of those.
        """
        for file in sorted((self.path / "processor").glob("**/*")):
            name = file.relative_to(self.path).as_posix()
            if name not in self.manifest.files and not file.is_dir():
                words = f"expected in processor/ only files that manifest.json lists, found {name}; remove it"
                raise BundleError("unlisted_file", name, words)
        return self.path / "processor"

    @property
    def tokenizer_path(self) -> Path:
        """The tokenizer in one file, for programs without transformers."""
        return self.path / TOKENIZER

    @property
    def chat_template_path(self) -> Path | None:
        """The chat template in Jinja, where there is one; the manifest may have it in parts too."""
        return self.path / CHAT_TEMPLATE if CHAT_TEMPLATE in self.manifest.files else None

    @property
    def has_chat_template(self) -> bool:
        """Whether a question is put into a template; without one, a prompt is written whole."""
        return self.manifest.prompt.template is not None or self.chat_template_path is not None

    @property
    def parity_path(self) -> Path:
        """Where ``verify`` leaves its report; the file need not exist."""
        return self.path / PARITY

    def _check_listing(self) -> None:
        named = [graph.file for graph in self.manifest.graphs.values()]
        named += [
            own.file for own in (self.manifest.cpu_decoder, self.manifest.cuda_decoder) if own is not None
        ]
        named += [TOKENIZER, *(engine.file for engine in self.manifest.engines)]
        for name in named:
            if name not in self.manifest.files:
                raise _refused("unlisted_file", name, f"{name} among the files of manifest.json", "no entry")

    def _check_files(self, progress: ProgressCallback) -> None:
        files = self.manifest.files
        for name in files:
            path = inside(self.path, name)
            if not path.is_file():
                raise _refused("missing_file", name, f"{name} in {self.path}", "no such file")
            size = path.stat().st_size
            if size != files[name].size:
                raise _refused("wrong_size", name, f"{files[name].size} bytes in {name}", str(size))
        large = set(self._large_files())
        self._check_hashes([name for name in files if name not in large], progress)

    def _large_files(self) -> list[str]:
        """Weights and engines: gigabytes, where all else comes to a few megabytes."""
        engines = {engine.file for engine in self.manifest.engines}
        return [name for name in self.manifest.files if name.startswith(WEIGHTS) or name in engines]

    def _check_hashes(self, names: list[str], progress: ProgressCallback) -> None:
        paths = {name: inside(self.path, name) for name in names}
        for name, digest in sha256_of_each(paths, "Check bundle", progress).items():
            if digest != self.manifest.files[name].sha256:
                expected = self.manifest.files[name].sha256[:12]
                raise _refused("wrong_hash", name, f"sha256 {expected}... of {name}", f"{digest[:12]}...")


def _state(path: Path) -> _State:
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns


def read_manifest(folder: Path) -> Manifest:
    """The manifest of ``folder``, its own form checked but none of the files it lists. Raises BundleError."""
    return Manifest.parse(manifest_bytes(folder))


def manifest_bytes(folder: Path) -> bytes:
    """The manifest of ``folder`` as it lies there. Raises BundleError where it is no file, or too large."""
    path = folder / MANIFEST
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):  # a pipe would wait for its writer
            number = errno.EISDIR if stat.S_ISDIR(status.st_mode) else errno.EINVAL
            raise OSError(number, os.strerror(number))
        if status.st_size > LARGEST:
            raise manifest_error("too_large", "$", f"at most {LARGEST} bytes", f"{status.st_size}")
        return path.read_bytes()
    except FileNotFoundError as error:
        raise BundleError(
            "missing_file",
            MANIFEST,
            f"expected {MANIFEST} in {folder}, found none; give the folder of a bundle",
        ) from error
    except OSError as error:
        raise BundleError(
            "unreadable", MANIFEST, f"expected a readable {MANIFEST} in {folder}, found: {error.strerror}"
        ) from error


def inside(folder: Path, relative: str) -> Path:
    """``folder / relative``, refused where that is or leads (through a link) outside ``folder``.

    Hugging Face's cache is one place: there a revision's files are links to its blobs.
    """
    parts = relative.replace("\\", "/").split("/")
    if (
        PurePosixPath(relative).is_absolute()
        or ":" in parts[0]
        or any(part in ("", ".", "..") for part in parts)
    ):
        raise BundleError(
            "outside",
            relative,
            f"expected a path inside the bundle, found {relative!r}; do not trust this bundle",
        )
    path = folder / relative
    try:
        target, home = path.resolve(), folder.resolve()
    except RuntimeError as error:  # Python's word for a link to itself, before 3.13
        raise BundleError(
            "unreadable",
            "",
            f"expected readable files in {folder}, found {os.strerror(errno.ELOOP)}: {path}",
        ) from error
    if not target.is_relative_to(home) and target.parent not in _blobs(home):
        raise BundleError(
            "outside",
            relative,
            f"expected {relative} inside the bundle, found a link to {target}; copy it with links followed",
        )
    return path


def _blobs(home: Path) -> list[Path]:
    """models--org--name/blobs, where ``home`` is models--org--name/snapshots/REVISION or below."""
    return [place.parents[1] / "blobs" for place in (home, *home.parents) if place.parent.name == "snapshots"]


def _refused(code: Code, name: str, expected: str, found: str) -> BundleError:
    return BundleError(code, name, f"expected {expected}, found {found}; export or copy the bundle again")
