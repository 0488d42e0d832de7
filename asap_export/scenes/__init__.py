"""A synthetic world of drawn scenes and questions about them: what the demo checkpoint was trained on.

Every scene of every split is made on demand from its name alone, so a data set is a range of numbers.
"""

from asap_export.scenes.questions import KINDS, SceneQuestion
from asap_export.scenes.scene import SPLITS, Scene, Split, scene

__all__ = ["KINDS", "SPLITS", "Scene", "SceneQuestion", "Split", "scene"]
