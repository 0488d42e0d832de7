"""The rates that this machine is held to."""

from asap_export.bench import reference
from asap_export.bench.reference import MachineReference


def test_the_rates_of_this_machine(monkeypatch):
    for name, small in (("SIDE", 64), ("READ_BYTES", 2**20), ("TRIES", 1)):
        monkeypatch.setattr(reference, name, small)
    rates = MachineReference(1).rates()
    assert list(rates) == ["f32", "bf16", "int8", "memory"]
    assert (rates.pop("bf16") is not None) == reference.bf16_instructions()
    assert all(rate > 0 for rate in rates.values())
