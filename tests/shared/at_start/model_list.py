"""Transformers' list of its models, kept between the processes of the tests: half a second of CPU in each that imports it.

An import of transformers reads the source of every model, a thousand files, twice. The list that it makes of them is kept beside the
compiled code of this file, for one release at one place, and read from there by later processes.
"""

import marshal
import os
import sys
from importlib.machinery import PathFinder

READER = "transformers.utils.import_utils"


class _Finder:
    """Finds one module, where Python finds it; its loader changes one function of it."""

    @staticmethod
    def find_spec(fullname, path=None, target=None):
        spec = PathFinder.find_spec(fullname, path, target) if fullname == READER else None
        if spec is not None:
            spec.loader = _Loader(spec.loader)
        return spec


class _Loader:
    def __init__(self, loader):
        self.loader = loader

    def __getattr__(self, name):
        return getattr(self.loader, name)

    def create_module(self, spec):
        return self.loader.create_module(spec)

    def exec_module(self, module):
        self.loader.exec_module(module)
        read = module.create_import_structure_from_path
        module.create_import_structure_from_path = lambda path: _structure(os.fspath(path), read)


def _structure(path, read):
    """What `read` gives for a path; of all models from the file where an earlier process kept it."""
    folder = path.removesuffix(os.sep + "__init__.py")
    if not folder.endswith(os.path.join("transformers", "models")):
        return read(path)
    release = f"{folder}-{os.stat(folder).st_mtime_ns}".replace(os.sep, "-")
    kept = os.path.join(os.path.dirname(__file__), "__pycache__", f"models{release}.marshal")
    try:
        with open(kept, "rb") as file:
            return marshal.load(file)
    except OSError:
        found = read(path)
    if sys.dont_write_bytecode:
        return found
    own = f"{kept}.{os.getpid()}"
    try:
        os.makedirs(os.path.dirname(kept), exist_ok=True)
        with open(own, "wb") as file:
            marshal.dump(found, file)
        os.replace(own, kept)
    except OSError:
        pass  # a checkout that nobody writes to
    return found


sys.meta_path.insert(0, _Finder)
