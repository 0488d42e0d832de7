"""From a checkpoint to a bundle: what is asked for, a plan with everything checked and decided, and its doing."""

from typing import TYPE_CHECKING, Any

from asap_export.exporter.request import ExportRequest

if TYPE_CHECKING:
    from asap_export.exporter.plan import ExportPlan, plan_export
    from asap_export.exporter.write import Exported, carry_out, export

__all__ = ["ExportPlan", "ExportRequest", "Exported", "carry_out", "export", "plan_export"]


def __getattr__(name: str) -> Any:
    # Looked up late: the request needs no torch, and the command line builds its options from it.
    if name in ("ExportPlan", "plan_export"):
        from asap_export.exporter import plan

        return getattr(plan, name)
    if name in ("Exported", "carry_out", "export"):
        from asap_export.exporter import write

        return getattr(write, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
