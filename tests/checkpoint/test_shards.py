"""Headers of safetensors files, sound and planted, in files of 5 GB of which no tensor is read."""

import json
import resource
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asap_export.checkpoint.shards import read_shard
from asap_export.errors import UserError

HALF = 5 << 29  # bytes of one tensor: two make 5 GB


def entry(first: int, last: int, nbytes: int | None = None, dtype: str = "F16") -> str:
    shape = [(last - first if nbytes is None else nbytes) // 2]
    return json.dumps({"dtype": dtype, "shape": shape, "data_offsets": [first, last]})


ONE, TWO = entry(0, HALF), entry(HALF, 2 * HALF)
SOUND = f'{{"__metadata__": {{"format": "pt"}}, "one": {ONE}, "two": {TWO}}}'


def shard(folder: Path, header: str | bytes, *, length: int | None = None, data: int = 2 * HALF) -> Path:
    """A file with this header and ``data`` bytes behind it, which take no place on disk."""
    file = folder / "model.safetensors"
    content = header.encode() if isinstance(header, str) else header
    with file.open("wb") as stream:
        stream.write((len(content) if length is None else length).to_bytes(8, "little") + content)
        stream.truncate(stream.tell() + data)
    return file


@contextmanager
def reading_less_than(limit: int) -> Iterator[None]:
    """Bytes that come by read(), or as pages of a mapped file (a fault brings up to 16)."""

    def read() -> int:
        counted = Path("/proc/self/io").read_text().split()
        return int(counted[1]) + resource.getrusage(resource.RUSAGE_SELF).ru_minflt * 16 * 4096

    before = read()
    yield
    assert read() - before < limit


def test_places_are_read_and_no_data(tmp_path):
    file = shard(tmp_path, SOUND)
    with reading_less_than(HALF // 2):
        one, two = read_shard(file)
    assert (one.name, one.nbytes, one.dtype, one.shape) == ("one", HALF, "fp16", (HALF // 2,))
    assert (one.offset, two.offset) == (8 + len(SOUND), 8 + len(SOUND) + HALF)
    assert two.offset + two.nbytes == file.stat().st_size


@pytest.mark.parametrize(
    ("header", "options", "reason"),
    [
        (f'{{"one": {ONE}, "two": {entry(HALF - 2, 2 * HALF)}}}', {}, "invalid offset for tensor `two`"),
        (f'{{"one": {ONE}, "two": {ONE}}}', {"data": HALF}, "invalid offset"),
        (f'{{"one": {ONE}, "two": {entry(HALF + 2, 2 * HALF)}}}', {}, "invalid offset for tensor `two`"),
        (f'{{"one": {entry(-HALF, 0)}}}', {"data": 0}, "invalid value: integer `-2684354560`"),
        (SOUND, {"data": 2 * HALF - 1}, "file not fully covered"),
        (SOUND, {"data": 2 * HALF + 1}, "file not fully covered"),
        (f'{{"one": {ONE}, "one": {TWO}}}', {}, "invalid offset for tensor `one`"),
        (f'{{"one": {ONE}, "one": {ONE}}}', {"data": HALF}, "found 'one' twice"),
        (f'{{"one": {entry(0, HALF, HALF - 2)}}}', {"data": HALF}, "invalid shape, data type, or offset"),
        (f'{{"one": {entry(0, HALF, -HALF)}}}', {"data": HALF}, "invalid value: integer `-1342177280`"),
        (f'{{"one": {entry(0, HALF, dtype="Q3")}}}', {"data": HALF}, "unknown variant `Q3`"),
        (SOUND, {"length": 1 << 63}, "header too large"),
        (SOUND, {"length": HALF}, "header too large"),
        (SOUND, {"length": 50_000_000, "data": 0}, "invalid header length"),
        (SOUND.encode().replace(b"two", b"\xff\xff\xff"), {}, "invalid UTF-8 in header"),
        ("[]", {}, "invalid type: sequence"),
        ("", {}, "EOF while parsing"),
        (f'{{"\\n\\u001b[1m": {entry(2, HALF)}}}', {"data": HALF}, "invalid offset for tensor `\\n\\x1b[1m`"),
    ],
)
def test_a_planted_header_is_refused_in_one_line(header, options, reason, tmp_path):
    file = shard(tmp_path, header, **options)
    with reading_less_than(HALF // 2), pytest.raises(UserError) as caught:
        list(read_shard(file))
    message = str(caught.value)
    assert message.isprintable() and str(file) in message and reason in message


def test_what_is_no_file(tmp_path):
    with pytest.raises(UserError, match="found no such file"):
        list(read_shard(tmp_path / "missing.safetensors"))
    with pytest.raises(UserError, match="expected a whole safetensors file"):
        list(read_shard(tmp_path))


SMALL = (
    b'{"one": {"dtype": "F16", "shape": [2], "data_offsets": [0, 4]}, '
    b'"two": {"dtype": "F32", "shape": [1, 1], "data_offsets": [4, 8]}}'
)
ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=6,
)
FIELDS = st.sampled_from(["dtype", "shape", "data_offsets"])


def mutated(changes: list[tuple[int, int]]) -> bytes:
    """The small header with other bytes at some places."""
    header = bytearray(SMALL)
    for place, byte in changes:
        header[place % len(header)] = byte
    return bytes(header)


def with_another_field(name: str, field: str, value: object) -> bytes:
    header = json.loads(SMALL)
    header[name][field] = value
    return json.dumps(header).encode()


def assert_read_or_refused(content: bytes) -> None:
    with tempfile.NamedTemporaryFile(suffix=".safetensors") as stream:
        stream.write(content)
        stream.flush()
        try:
            places = list(read_shard(Path(stream.name)))
        except UserError as error:
            assert error.message.startswith("expected ") and error.message.isprintable()
        else:
            assert all(8 <= place.offset <= place.offset + place.nbytes <= len(content) for place in places)


@given(st.binary(max_size=200))
def test_any_bytes_are_read_or_refused(content):
    assert_read_or_refused(content)
    assert_read_or_refused(len(content).to_bytes(8, "little") + content + bytes(8))


@given(st.lists(st.tuples(st.integers(0, 1 << 16), st.integers(0, 255)), max_size=4), st.binary(max_size=12))
def test_a_mutated_header_is_read_or_refused(changes, data):
    assert_read_or_refused(len(SMALL).to_bytes(8, "little") + mutated(changes) + data)


@given(st.sampled_from(["one", "two"]), FIELDS, ANYTHING)
def test_a_header_with_another_value_is_read_or_refused(name, field, value):
    header = with_another_field(name, field, value)
    assert_read_or_refused(len(header).to_bytes(8, "little") + header + bytes(8))
