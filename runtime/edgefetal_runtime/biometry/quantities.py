"""What is measured, by which definition, and within which bounds: one table for outlines and for typed figures.

Each lower bound lies below what the smallest fetus with a chart (14 weeks) measures and above what the largest measures
in cm; each upper bound lies above the largest fetus and below ten times the smallest. So a figure in the wrong unit is
outside.
"""

from __future__ import annotations

from edgefetal_runtime.biometry.measurement import Quantity

# HC18 spans 44 to 346 mm.
HC = Quantity("HC", "mm", "perimeter (Ramanujan II) of the ellipse on the outer edge of the skull", 40.0, 400.0)
BPD = Quantity("BPD_outer_outer", "mm", "short axis of that ellipse, outer to outer edge", 11.0, 125.0)
BPD_INNER = Quantity("BPD_outer_inner", "mm", "outer to inner edge, from outer to outer by Wong 2018", 11.0, 125.0)
OFD = Quantity("OFD", "mm", "long axis of that ellipse, outer to outer edge", 14.0, 155.0)
CEPHALIC_INDEX = Quantity(
    "cephalic_index", "1", "BPD over OFD, both outer to outer; without a pixel size for square pixels", 0.6, 1.0
)

AC = Quantity("AC", "mm", "perimeter (Ramanujan II) of the ellipse along the skin line", 45.0, 450.0)
APAD = Quantity("APAD", "mm", "extent of that ellipse from front to back", 14.0, 150.0)
TAD = Quantity("TAD", "mm", "extent of that ellipse across, at right angles to APAD", 14.0, 150.0)

FL = Quantity("FL", "mm", "straight line between the ends of the shaft's centre line", 8.3, 90.0)
