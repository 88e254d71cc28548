"""Make PyPI's torchvision importable beside a CPU build of torch, in every process of an environment.

PyPI ships torchvision as a CUDA build. Beside torch+cpu its compiled operators cannot load, and then `import torchvision` fails
only because two operator schemas are undeclared; vLLM and transformers import torchvision, so everything fails with it. `install`
writes a .pth hook into site-packages that declares the two schemas just before torchvision registers them. It must be a .pth file:
vLLM and Ray spawn processes of their own that import torchvision before any code of this package runs. Where the compiled
operators load (GPU machines), the hook does nothing. `reid-ray setup` installs it.
"""

from __future__ import annotations

import importlib
import sys
import sysconfig
from pathlib import Path

HOOK_NAME = "_reid_ray_torchvision_cpu"

_HOOK = '''"""Declares torchvision's operator schemas where its operators cannot load. Written by reid_ray.setup.torchvision_cpu."""

import importlib.abc
import importlib.machinery
import sys

_kept_alive = []


class _DeclaringLoader(importlib.abc.Loader):
    def __init__(self, wrapped):
        self._wrapped = wrapped

    def create_module(self, spec):
        return self._wrapped.create_module(spec)

    def exec_module(self, module):
        self._wrapped.exec_module(module)
        if module._has_ops():
            return
        import torch

        library = torch.library.Library("torchvision", "DEF")
        for name in ("nms", "qnms"):
            library.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        _kept_alive.append(library)


class _ExtensionFinder(importlib.abc.MetaPathFinder):
    def find_spec(self, fullname, path=None, target=None):
        if fullname != "torchvision.extension":
            return None
        spec = importlib.machinery.PathFinder.find_spec(fullname, path)
        if spec is not None:
            spec.loader = _DeclaringLoader(spec.loader)
        return spec


sys.meta_path.insert(0, _ExtensionFinder())
'''


def install(site_packages: Path | None = None) -> Path:
    """Write the hook and its .pth file into `site_packages`; it is at work in this process, too, which started without it.

    Args:
        site_packages: default: this interpreter's.

    Returns:
        The hook's file.
    """
    folder = site_packages or Path(sysconfig.get_paths()["purelib"])
    hook = folder / f"{HOOK_NAME}.py"
    hook.write_text(_HOOK, encoding="utf-8")
    (folder / f"{HOOK_NAME}.pth").write_text(f"import {HOOK_NAME}\n", encoding="utf-8")
    importlib.invalidate_caches()  # the folder was listed before the file was there
    if str(folder) in sys.path:
        importlib.import_module(HOOK_NAME)
    return hook
