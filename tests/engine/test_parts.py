"""Which layers each of the decoder's engines holds."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asap_export.engine.parts import decoder_parts


@pytest.mark.parametrize(
    ("cut", "settings", "expected"),
    [
        (2, {}, [("decoder.early", 0, 1), ("decoder.late", 2, 7)]),
        (2, {"single": True}, [("decoder", 0, 7)]),
        (None, {}, [("decoder", 0, 7)]),
        (None, {"layers_per_engine": 5}, [("decoder.0", 0, 4), ("decoder.1", 5, 7)]),
        (3, {"layers_per_engine": 6}, [("decoder.early", 0, 2), ("decoder.late", 3, 7)]),
        (
            3,
            {"layers_per_engine": 2},
            [
                ("decoder.early.0", 0, 1),
                ("decoder.early.1", 2, 2),
                ("decoder.late.0", 3, 4),
                ("decoder.late.1", 5, 6),
                ("decoder.late.2", 7, 7),
            ],
        ),
    ],
)
def test_the_decoder_is_cut_where_the_method_cuts(cut, settings, expected) -> None:
    assert list(decoder_parts(8, cut, **settings)) == expected


@given(st.integers(2, 80), st.data())
def test_every_layer_is_in_one_part(layers, data) -> None:
    cut = data.draw(st.none() | st.integers(1, layers - 1))
    most = data.draw(st.none() | st.integers(1, layers - 1))
    parts = decoder_parts(layers, cut, most)
    assert [layer for part in parts for layer in range(part.first, part.last + 1)] == [*range(layers)]
    assert all(part.last - part.first < (most or layers) for part in parts)
    assert cut is None or cut in [part.first for part in parts]
    assert len({part.title for part in parts}) == len(parts)
