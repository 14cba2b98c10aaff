"""Renders procedural images of industrial parts with exact defect masks, to train the embedded base on."""

from model.pretrain.procedural.captions import CLASSES, DEFECTS, vocabulary
from model.pretrain.procedural.scene import Sample, render

__all__ = ["CLASSES", "DEFECTS", "Sample", "render", "vocabulary"]
