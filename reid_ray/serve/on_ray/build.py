"""Application builder for `serve run` and `serve deploy`, Ray Serve's own command line.

serve run reid_ray.serve.on_ray.build:build index=runs/index          # on this machine
serve deploy --address http://HEAD:8265 cluster/serve.yaml     # on a cluster; its args are the fields of ServeJob

`serve build` takes applications, not builders: it has no way to give one arguments.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from reid_ray.config.base import load_config
from reid_ray.errors import ConfigError
from reid_ray.serve.config import ServeJob
from reid_ray.serve.on_ray.deployment import application, checked


def build(args: Mapping[str, Any]) -> Any:
    """A Ray Serve application from the fields of ServeJob, nested or dotted: {"index": "runs/index", "searcher.replicas": 2}.

    serve.host and serve.port have no effect here: Ray Serve's own http_options decide where to bind, and its proxy hands requests on.
    Without access.tokens only this machine is answered, wherever that is.

    Raises:
        ConfigError: a field is unknown or wrong, certificate and key cannot be used, or replicas are to listen by themselves.
        DataError: index and encoder do not belong together.
    """
    # An override takes JSON, so a nested value keeps its shape; a date that YAML saw in a text is that text again.
    given = {"runs_on": "ray", **args}
    config = load_config(ServeJob, None, [f"{key}={json.dumps(value, default=str)}" for key, value in given.items()])
    if config.serve.ingress == "direct":
        raise ConfigError("serve.ingress is direct, but whom Ray Serve's own tools start is asked through its proxy; leave it out")
    return application(checked(config))
