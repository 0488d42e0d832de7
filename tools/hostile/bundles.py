"""Damaged bundles, and images and prompts that cannot be answered, for Python and C++."""

import os
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path

import manifest_cases
from case import Case, copied, replaced
from damaged_bundles import rewrite_manifest

__all__ = ["bundle_cases", "request_cases"]

_EVERY = 8  # of the manifests, which the test suite gives to both readers one and all


def bundle_cases(bundle: Path, infer: bool) -> Iterator[Case]:
    """Manifests of any content; each file of a bundle damaged, its manifest made to fit or not."""
    refused = [case for case in manifest_cases.hostile() if case.code]
    for manifest in refused[::_EVERY]:

        def inspected(folder: Path, content: bytes = manifest.content) -> list[str | Path]:
            (folder / "in.bundle").mkdir()
            replaced(folder / "in.bundle" / "manifest.json", content)
            return ["inspect", folder / "in.bundle"]

        yield Case("manifest", f"{manifest.code} {manifest.name}", inspected)
    files = [path.relative_to(bundle) for path in sorted(bundle.rglob("*")) if path.is_file()]
    read = [file for file in files if file.parts[0] != "processor" and file.name != "config.json"]
    for file in read:
        for name in ("missing", "empty", "cut", "other bytes", "a link to itself"):
            yield from _asked(bundle, file, name, fits=False, infer=infer)
        if file.name != "manifest.json" and file.parts[0] != "weights":
            for name in ("empty", "cut", "other bytes"):
                yield from _asked(bundle, file, name, fits=True, infer=infer)


def _asked(bundle: Path, file: Path, name: str, fits: bool, infer: bool) -> Iterator[Case]:
    def damaged(folder: Path) -> list[str | Path]:
        made = copied(bundle, folder / "in.bundle")
        place, content = made / file, (bundle / file).read_bytes()
        replaced(made / "manifest.json", (made / "manifest.json").read_bytes())
        place.unlink()
        if name == "a link to itself":
            place.symlink_to(place.name)
        elif name != "missing":
            place.write_bytes(
                {"empty": b"", "cut": content[: len(content) // 2]}.get(name, b"\x08\xff" * 500)
            )
        if fits:
            rewrite_manifest(made, file.as_posix())
        return [made, "--prompt", "What?", "--max-new-tokens", "1", "--provider", "cpu"]

    kind, said = "file of a bundle", f"{file} {name}{', with a manifest that fits' if fits else ''}"
    unread = fits and file.name == "decoder.onnx"  # on CPUs the other form runs
    yield Case(kind, said, lambda folder: ["run", *damaged(folder)], harmless=unread)
    if infer:
        yield Case(f"{kind}, C++", said, damaged, harmless=unread, program="asap-infer")


def request_cases(bundle: Path, images: Path, infer: bool) -> Iterator[Case]:
    """Files that are no picture, and prompts and options that cannot be answered."""
    picture = (images / "mat.png").read_bytes()
    pictures = {
        "empty": b"", "text": b"a cat", "zeros": bytes(10_000), "a PNG cut": picture[: len(picture) // 2],
        "a header alone": picture[:33], "a bomb": _bomb(60_000, 60_000), "no pixels": _bomb(0, 0),
        "the widest": _bomb(2**31 - 1, 1),
        "a GIF's name": b"GIF89a" + b"\xff" * 100, "a JPEG's start": b"\xff\xd8\xff\xe0" + b"\0" * 50,
        "a WebP's start": b"RIFF\xff\xff\xff\xffWEBPVP8 " + b"\xff" * 30, "SVG": b"<svg xmlns='a'/>",
        "a TIFF's start": b"II*\0\xff\xff\xff\xff",
        "other bytes inside": picture[:60] + b"\xff" * 500 + picture[60:],
    }  # fmt: skip
    requests: dict[str, list[str | Path]] = {
        "marks without images": ["--prompt", "what is <image>?"],
        "a thousand marks": ["--prompt", "<image>" * 1000, "--image", images / "mat.png"],
        "bytes that are no text": ["--prompt", os.fsdecode(b"What is \xff?")],
        "longer than the positions": ["--prompt", "how many? " * 12_000],
        "a folder as image": ["--prompt", "What?", "--image", images],
        "no such image": ["--prompt", "What?", "--image", "/nowhere/a\nb.png"],
        "a device as image": ["--prompt", "What?", "--image", "/dev/zero"],
        "no new tokens": ["--prompt", "What?", "--max-new-tokens", "0"],
        "many new tokens": ["--prompt", "What?", "--max-new-tokens", str(2**63 - 1)],
        "more new tokens than numbers": ["--prompt", "What?", "--max-new-tokens", str(10**30)],
        "an unknown provider": ["--prompt", "What?", "--provider", "quantum"],
        "no prompt and no input": ["--image", images / "mat.png"],
        "an unknown option": ["--prompt", "What?", "--no-such-option"],
    }
    programs = [("", ["run"])] + ([(", C++", [])] if infer else [])
    for suffix, front in programs:
        program = "asap-infer" if suffix else "asap-export"
        for name, content in pictures.items():

            def shown(folder: Path, content: bytes = content, front: list[str] = front) -> list[str | Path]:
                (folder / "picture.png").write_bytes(content)
                options = ["--image", folder / "picture.png", "--prompt", "What?", "--max-new-tokens", "1"]
                return [*front, bundle, *options, "--provider", "cpu"]

            yield Case(f"image{suffix}", name, shown, program=program)
        for name, options in requests.items():
            cpu = [] if "--provider" in options else ["--provider", "cpu"]
            made = [*front, bundle, *options, *cpu]
            yield Case(f"request{suffix}", name, lambda folder, made=made: made, program=program)


def _bomb(width: int, height: int) -> bytes:
    """A small PNG that says it is large."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return (
            struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))
        )

    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", head)
        + chunk(b"IDAT", zlib.compress(b"\0" * 99))
        + chunk(b"IEND", b"")
    )
