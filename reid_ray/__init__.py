"""reid_ray: person re-identification with (multimodal) LLMs on Ray.

Nothing happens at import: no Ray, no torch, no files; only reports of use are switched off (see telemetry.py), and a platform that it
does not run on is refused (see setup/platforms.py). See docs/architecture.md for the map of the package.
"""

from reid_ray.setup.platforms import refuse_other_platforms
from reid_ray.telemetry import opt_out_of_telemetry

__version__ = "0.1.0"

refuse_other_platforms()
opt_out_of_telemetry()
