"""reid_ray: person re-identification with (multimodal) LLMs on Ray.

Nothing happens at import: no Ray, no torch, no files; only reports of use are switched off (see telemetry.py). See README.md for one
line per module.
"""

from reid_ray.telemetry import report_nothing

__version__ = "0.1.0"

report_nothing()
