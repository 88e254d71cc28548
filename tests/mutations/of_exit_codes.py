"""Configuration and endings: what could be read as something else, or end without a word or under another exit code."""

from __future__ import annotations

from mutation import Mutation

_VALUES = ("tests/unit/config/test_typed.py",)
_PATHS = ("tests/unit/config/test_paths.py",)
_ENDINGS = ("tests/unit/test_exit_codes.py",)
_SYSTEM = ("tests/unit/test_system_errors.py",)
_OUTPUT = ("tests/unit/storage/test_output.py",)

MUTATIONS = (
    Mutation(
        "a text that could be a list is read as one",
        "reid_ray/config/typed.py",
        "        if str not in kinds and is_flow(written.text):",
        "        if is_flow(written.text):",
        _VALUES,
    ),
    Mutation(
        "a leading zero is taken for a number",
        "reid_ray/config/typed.py",
        "int(whole[1] if whole else text, 0)",
        "int(whole[1] if whole else text)",
        _VALUES,
    ),
    Mutation(
        "an infinite number goes on to a library",
        "reid_ray/config/typed.py",
        "        if _NOT_FINITE.fullmatch(text):",
        "        if False:",
        _VALUES,
    ),
    Mutation(
        "a tag of YAML's own is dropped in silence",
        "reid_ray/config/yaml_tree.py",
        "        if node.tag not in _TAGS:",
        "        if False:",
        _VALUES,
    ),
    Mutation(
        "a home that is nobody's is a folder here",
        "reid_ray/config/paths.py",
        '    if place.startswith("~"):',
        '    if place.startswith("~~"):',
        _PATHS,
    ),
    Mutation(
        "an output's links are not resolved",
        "reid_ray/config/common.py",
        "        return os.path.realpath(path)",
        "        return os.path.abspath(path)",
        _PATHS,
    ),
    Mutation(
        "an error that was handled hides a fault of the program",
        "reid_ray/system_errors.py",
        "        if number in _OF_THE_PLACE:\n            return _told",
        "        if number in _SENTENCES:\n            return _told",
        _SYSTEM,
    ),
    Mutation(
        "a missing file of the program is taken for the user's",
        "reid_ray/system_errors.py",
        ".startswith(tuple(user_paths))",
        '.startswith("/")',
        _SYSTEM,
    ),
    Mutation(
        "SIGTERM ends a job without cleaning up",
        "reid_ray/exit_codes.py",
        "for number in (signal.SIGTERM, signal.SIGHUP) if",
        "for number in (signal.SIGHUP,) if",
        _ENDINGS,
    ),
    Mutation(
        "what is printed last is not looked at",
        "reid_ray/exit_codes.py",
        "            work()\n            standard_output().flush()",
        "            work()",
        _ENDINGS,
    ),
    Mutation(
        "another revision of a model counts as the same",
        "reid_ray/storage/output.py",
        '        if self._described(manifest.get("inputs", {})) != self._described(self._inputs):',
        "        if False:",
        _OUTPUT,
    ),
)
