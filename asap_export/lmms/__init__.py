"""Bundles as a model of lmms-eval: ``lmms-eval --model asap_export --model_args bundle=out/ --tasks ...``.

lmms-eval finds ``manifest`` by the package's entry point of the group ``lmms_eval.models``. It is an extra:
nothing else in the package imports this room, and ``requests.py`` works without it.
"""

from typing import Any

__all__ = ["manifest"]


def manifest() -> Any:
    """What lmms-eval is told of the model: its name, and the class that is loaded when it is asked for."""
    from lmms_eval.models.registry_v2 import ModelManifest

    return ModelManifest("asap_export", simple_class_path="asap_export.lmms.adapter.AsapExport")
