"""Outputs and configurations: what could be lost, replaced, kept though it is old, or written before it is on the disk."""

from __future__ import annotations

from mutation import Mutation

_DURABLE = ("tests/unit/storage/test_durability.py",)
_LISTS = ("tests/unit/storage/test_listing.py",)
_PLACE = ("tests/unit/storage/test_place.py",)
_PROVENANCE = ("tests/unit/storage/test_provenance.py",)

_STORE = ("tests/unit/storage/object_store/test_store_place.py",)
_STORE_CLIENT = ("tests/unit/storage/object_store/test_object_client.py",)

MUTATIONS = (
    # --- the life of an output
    Mutation(
        "a durable file has its name before its bytes are on the disk",
        "reid_ray/storage/files.py",
        "        write(hidden)\n        sync(hidden)\n",
        "        write(hidden)\n",
        _DURABLE,
    ),
    Mutation(
        "a durable file's name is not on the disk",
        "reid_ray/storage/files.py",
        "        sync(hidden)\n    sync(path.parent)\n",
        "        sync(hidden)\n",
        _DURABLE,
    ),
    Mutation(
        "a result appears before its files are on the disk",
        "reid_ray/storage/place.py",
        "        sync_tree(self.folder, (name for name, _ in files_below(self.folder)))\n",
        "",
        _DURABLE,
    ),
    Mutation(
        "provenance looks through one parent only",
        "reid_ray/storage/provenance.py",
        "for folder in (here, *here.parents):",
        "for folder in (here, *here.parents[:1]):",
        _PROVENANCE,
    ),
    Mutation(
        "weights are told apart by their size",
        "reid_ray/storage/provenance.py",
        "(file.relative_to(path).as_posix(), _sha256(file)) for",
        "(file.relative_to(path).as_posix(), file.stat().st_size) for",
        _PROVENANCE,
    ),
    Mutation(
        "a result is kept whatever it was made from",
        "reid_ray/storage/output.py",
        "if then.get(name) != now.get(name)]:",
        "if then.get(name) == now.get(name) == 0]:",
        _PROVENANCE,
    ),
    Mutation(
        "inputs are looked at when the work is done",
        "reid_ray/storage/output.py",
        "            self.provenance  # noqa: B018  (what lies there now, before any of it is read)\n",
        "",
        _PROVENANCE,
    ),
    Mutation(
        "a result that lacks a file is kept",
        "reid_ray/storage/output.py",
        'return next((f"its {name} is {kind}" for kind, name in self._place.differences() if kind != "foreign"), None)',
        "return None",
        _LISTS,
    ),
    Mutation(
        "the output's lock is not taken",
        "reid_ray/storage/place.py",
        "        self._lock.acquire()\n",
        "",
        _PLACE,
    ),
    Mutation(
        "what appeared while the job ran is replaced",
        "reid_ray/storage/place.py",
        "            self.check(files=True)\n            self._publish()\n",
        "            self._publish()\n",
        _PLACE,
    ),
    Mutation(
        "a neighbour's hidden folders are cleared away",
        "reid_ray/storage/place.py",
        'match["name"] == self.path.name',
        'match["name"].startswith(self.path.name)',
        _PLACE,
    ),
    Mutation(
        "a file that was edited is removed with the old result",
        "reid_ray/storage/listing.py",
        "if _is_as_listed(file, file.lstat().st_size, listed):",
        "if file.lstat():",
        _LISTS,
    ),
    Mutation(
        "the older result is not restored",
        "reid_ray/storage/place.py",
        'if folder.suffix == ".old" and not os.path.lexists(self.path)',
        'if folder.suffix == ".older" and not os.path.lexists(self.path)',
        ("tests/unit/storage/test_restored.py",),
    ),
    Mutation(
        "a process of the same number is the dead owner",
        "reid_ray/storage/lock.py",
        'owner.get("boot") != _boot_id() or owner.get("started") != _start_time(owner["pid"])',
        '_start_time(owner["pid"]) is None',
        ("tests/unit/storage/test_lock.py",),
    ),
    # --- configuration
    Mutation(
        "a repeated key of a file keeps the last value",
        "reid_ray/config/yaml_tree.py",
        "if key.value in seen:",
        "if key.value in ():",
        ("tests/unit/config/test_base.py",),
    ),
    Mutation(
        "a lock empties the file that a link in its place leads to",
        "reid_ray/storage/lock.py",
        "os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK",
        "os.O_CLOEXEC | os.O_NONBLOCK",
        ("tests/unit/storage/test_place.py",),
    ),
    Mutation(
        "a lock takes anybody's file of its name",
        "reid_ray/storage/lock.py",
        "if there.st_nlink > 1 or (text and _parsed_owner(text) is None):",
        "if there.st_nlink > 1:",
        ("tests/unit/storage/test_place.py",),
    ),
    Mutation(
        "a text mended by one letter goes with the old result",
        "reid_ray/storage/listing.py",
        "return size == listed[1] and (not listed[2] or listed[2] == _digest_of_text(file))",
        "return size == listed[1]",
        ("tests/unit/storage/test_place.py",),
    ),
    # --- at an object store
    Mutation(
        "a lost answer passes for another's write",
        "reid_ray/storage/object_store/object_client.py",
        "if found is not None and found.data == data:",
        "if False:",
        _STORE + _STORE_CLIENT,
    ),
    Mutation(
        "what is refused for a moment is not tried again",
        "reid_ray/storage/object_store/object_client.py",
        "            if not unchanged(found):\n",
        "            if True:\n",
        _STORE_CLIENT,
    ),
    Mutation(
        "a lease is taken from an owner that lives",
        "reid_ray/storage/object_store/lease.py",
        "before.owner is not None and not self._is_dead(before.owner, found)",
        "False",
        _STORE,
    ),
    Mutation(
        "what dead runs left at a store stays",
        "reid_ray/storage/object_store/store_place.py",
        "            if is_run_folder(name) and name != pointer.folder:",
        "            if False:",
        _STORE,
    ),
    Mutation(
        "anybody's folder passes for a run's",
        "reid_ray/storage/object_store/pointer.py",
        "and _RUN.fullmatch(name) is not None",
        'and name.startswith("")',
        _STORE,
    ),
)
