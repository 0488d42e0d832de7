"""How much accuracy a budget costs: methods against dense, on the synthetic world or on one's own data."""

from asap_export.evaluation.evaluate import EvaluationRequest, Results, evaluate

__all__ = ["EvaluationRequest", "Results", "evaluate"]
