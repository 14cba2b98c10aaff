"""Procedural pictures of industrial parts with exact defect masks: what the embedded base learns from."""

from model.pretrain.procedural.captions import CLASSES, DEFECTS, vocabulary
from model.pretrain.procedural.scene import Sample, render

__all__ = ["CLASSES", "DEFECTS", "Sample", "render", "vocabulary"]
