"""Proposals: where on a picture an object might be, as Fast R-CNN is given them.

Made once of a dataset and laid beside it as a target of its own: float32 (N, P, 4), row = sample
id, ``x1 y1 x2 y2`` in pixels of the upright picture as it is stored, x2 and y2 behind the box, best
first; unused rows are zeros.
"""
