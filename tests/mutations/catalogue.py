"""The mutations that the quick tests must kill: places where a mistake would lose, double, age or leak something without a word."""

from __future__ import annotations

import of_captions
import of_data
import of_editing
import of_exit_codes
import of_outputs
import of_privacy
import of_scores
import of_search
import of_training
import of_versions

_AREAS = (of_outputs, of_captions, of_data, of_editing, of_training, of_search, of_scores, of_privacy, of_versions, of_exit_codes)
MUTATIONS = tuple(mutation for area in _AREAS for mutation in area.MUTATIONS)
