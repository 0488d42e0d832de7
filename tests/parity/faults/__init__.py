"""Wiring faults, planted by program in both forms of the decoder, to see whether ``verify`` finds them."""

from faults.fault import FORMS, Decoder, Fault, Form
from faults.generate import Planted, faults_of
from faults.plant import plant

__all__ = ["FORMS", "Decoder", "Fault", "Form", "Planted", "faults_of", "plant"]
