"""How many there are, in words."""

from reid_ray.terminal.counted import counted


def test_one_is_one_and_others_are_several():
    assert [counted(number, "row") for number in (0, 1, 2, 1200)] == ["0 rows", "1 row", "2 rows", "1,200 rows"]
    assert [counted(number, "identity", "identities") for number in (1, 7)] == ["1 identity", "7 identities"]
