"""reid_ray: person re-identification with (multimodal) LLMs on Ray.

Nothing happens at import: no Ray, no torch, no files. See README.md for one line per module.
"""

__version__ = "0.1.0"
