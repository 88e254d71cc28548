"""What transformers reads from a thousand files at each import, kept between the processes of the tests: 0.7 s of CPU in each of them.

It reads the source of every model, twice, for the list of what it offers, and the record of every installed package, for the list of their
modules. Both lists are kept beside the compiled code of this file, for what is installed now, and read from there by later processes.
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
        import functools
        import importlib.metadata

        read = importlib.metadata.packages_distributions
        importlib.metadata.packages_distributions = lambda: _kept("packages", _installed(), lambda: dict(read()))
        try:
            self.loader.exec_module(module)
        finally:
            importlib.metadata.packages_distributions = read
        module.create_import_structure_from_path = functools.partial(_structure, read=module.create_import_structure_from_path)


def _installed():
    """Every place of packages, and those that are there."""
    for folder in sys.path:
        try:
            names = [name for name in os.listdir(folder or ".") if name.endswith((".dist-info", ".egg-info"))]
        except OSError:
            continue
        if names:
            yield folder, sorted(names)


def _structure(path, *, read):
    """What `read` gives for a path; of the folder of all models from what is kept."""
    folder = os.fspath(path).removesuffix(os.sep + "__init__.py")
    if not folder.endswith(os.path.join("transformers", "models")):
        return read(path)
    return _kept("models", [folder, os.stat(folder).st_mtime_ns], lambda: read(path))


def _kept(name, of, make):
    """What an earlier process made of the same, else what `make` makes."""
    from hashlib import sha256

    kept = os.path.join(os.path.dirname(__file__), "__pycache__", f"{name}-{sha256(repr(list(of)).encode()).hexdigest()}.marshal")
    try:
        with open(kept, "rb") as file:
            return marshal.load(file)
    except OSError:
        made = make()
    if sys.dont_write_bytecode:
        return made
    own = f"{kept}.{os.getpid()}"
    try:
        os.makedirs(os.path.dirname(kept), exist_ok=True)
        with open(own, "wb") as file:
            marshal.dump(made, file)
        os.replace(own, kept)
    except OSError:
        pass  # a checkout that nobody writes to
    return made


sys.meta_path.insert(0, _Finder)
