"""All faults of a bundle's decoder."""

from pathlib import Path
from typing import NamedTuple

import onnx
import onnx_ir as ir

from faults.cut_faults import cut_faults
from faults.fault import FORMS, Decoder, Fault, Form
from faults.layer_faults import layer_faults
from faults.observe import cases_of, observe
from faults.replacements import replacements_of
from faults.settings import setting_faults

__all__ = ["Planted", "faults_of"]


class Planted(NamedTuple):
    """``equal`` replacements hold the same values in every case, and were left out."""

    faults: list[Fault]
    equal: int


def faults_of(bundle: Path, forms: tuple[Form, ...] = FORMS) -> Planted:
    """Faults of both forms of a bundle that prunes by ASAP's defaults."""
    cases = cases_of(onnx.load(bundle / "decoder.onnx", load_external_data=False), bundle)
    faults: list[Fault] = []
    equal = 0
    for form in forms:
        model = onnx.load(bundle / form, load_external_data=False)
        replaced = replacements_of(model, form, observe(model, form, bundle, cases))
        decoder = Decoder(ir.from_proto(model), form)
        made = (*cut_faults(decoder), *layer_faults(decoder), *setting_faults(decoder))
        faults += [*replaced.faults, *(Fault(kind, name, form, change) for kind, name, change in made)]
        equal += replaced.equal
    return Planted(faults, equal)
