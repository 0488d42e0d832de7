"""What runs a bundle against the PyTorch reference: operator by operator, graph by graph, answer by answer."""

from asap_export.parity.verify import Report, verify

__all__ = ["Report", "verify"]
