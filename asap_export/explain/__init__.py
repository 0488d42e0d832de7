"""What pruning does to a prompt, on the image's own pixels, and the attention shift as a number."""

from asap_export.explain.explanation import ExplainRequest, Explanation, explain

__all__ = ["ExplainRequest", "Explanation", "explain"]
