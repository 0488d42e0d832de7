"""Contenders that memory cannot hold: left out one by one, or measured one at a time."""

import pytest

from asap_export.bench import BenchRequest, bench
from asap_export.bench.contenders import bundle_contenders
from asap_export.bench.room import needed_by, needed_together
from asap_export.bundle import Bundle
from asap_export.errors import UserError


@pytest.fixture
def request_(dense_bundle) -> BenchRequest:
    return BenchRequest(
        bundles=(dense_bundle,),
        peers="none",
        visual_tokens=50,
        text_tokens=5,
        cache_lengths=(8,),
        decode_steps=1,
        rounds=1,
        warmup=0,
        threads=1,
    )


def test_more_contenders_and_more_tokens_need_more(dense_bundle):
    bundle = Bundle.open(dense_bundle)
    spec = bundle.manifest.model
    one = bundle_contenders([bundle])
    assert needed_together(one, spec, 100, 50) == needed_by(one[0], spec, 100, 50)
    assert needed_together(one * 3, spec, 100, 50) == 3 * needed_by(one[0], spec, 100, 50)
    assert needed_by(one[0], spec, 1000, 50) > needed_by(one[0], spec, 100, 50)
    assert needed_by(one[0], spec, 100, 5000) > needed_by(one[0], spec, 100, 50)


def test_where_all_do_not_fit_every_round_starts_new_processes_and_says_so(request_, monkeypatch):
    monkeypatch.setattr("asap_export.bench.room.needed_together", lambda *_: 10**15)
    facts = bench(request_)
    assert facts["settings"]["processes"] == "fresh"
    assert facts["note"].startswith("all contenders at once would take about 1000000.0 GB of memory")
    assert len(facts["contenders"][0]["samples"]["prefill"]) == 1


def test_where_none_fits_nothing_starts(request_, monkeypatch):
    monkeypatch.setattr("asap_export.bench.room.available_memory", lambda: 1)
    with pytest.raises(UserError, match="expected a contender that 0 MB of free memory can hold, found none"):
        bench(request_)
