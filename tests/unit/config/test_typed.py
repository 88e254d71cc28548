"""A value of a configuration is typed by its field, in a file as on the command line."""

import codecs
import contextlib
import json
from typing import Any, Literal, get_args, get_origin

import pytest
from examples import examples
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import Field
from refusals import refused

from reid_ray.config import Section, load_config
from reid_ray.config.reference import job_model
from reid_ray.data.ingest.config import IngestJob
from reid_ray.errors import ConfigError
from reid_ray.jobs import JOBS


class Cat(Section):
    kind: Literal["cat"] = "cat"
    lives: int = 9


class Dog(Section):
    kind: Literal["dog"] = "dog"
    weight: float = 1.0


class Box(Section):
    name: str = "box"
    note: str | None = None
    count: int = 1
    rate: float = 0.5
    limit: float | None = None
    open: bool = False
    stage: Literal[0, 1, 2] = 0
    mode: Literal["none", "no"] = "none"
    every: int | Literal["epoch"] = 5
    names: list[str] = Field([])
    numbers: tuple[int, ...] = ()
    pet: Cat | Dog | None = None
    boxes: dict[str, Cat] = Field({})
    extra: dict[str, Any] = Field({})


AS_IT_IS = [
    *("/x/crops #2", "&run1", "*.jpg", "!new", "0012", "{a}", "[2024] crops", "2024-01-01", "12:30", "no", "~/x", "~", "Null", "1e-5"),
    *(
        "a: b",
        "- x",
        "@home",
        "`x`",
        "%x",
        "{[a]: b}",
        " two  spaces ",
        "",
        "C:\\data",
        '"a" or "b"',
        "'a' or 'b'",
        '"C:\\data"',
        "on",
        "a=b",
    ),
]


@pytest.mark.parametrize("text", AS_IT_IS)
def test_a_text_on_the_command_line_is_taken_as_it_is(text):
    box = load_config(Box, None, [f"name={text}", f"note={text}"])
    assert (box.name, box.note) == (text, text)


def test_null_is_no_value_where_a_text_may_be_missing_and_quotes_make_a_text_of_it():
    assert load_config(Box, None, ["note=x", "note=null"]).note is None
    assert load_config(Box, None, ["name=null"]).name == "null"
    assert load_config(Box, None, ["note='null'", 'name="nu\\u006cl"']) == Box(note="null", name="null")
    assert load_config(Box, None, ["note='it''s'"]).note == "it's"


@pytest.mark.parametrize(
    ("override", "value"),
    [
        *(("count=64", 64), ("count=64.0", 64), ("count=1_000", 1000), ("count=-3", -3), ("count=+3", 3), ("count=0", 0)),
        *(("rate=1e-5", 1e-5), ("rate=1E-5", 1e-5), ("rate=.5", 0.5), ("rate=3", 3.0), ("rate='1e-5'", 1e-5), ("rate=-0.25", -0.25)),
        *(("limit=null", None), ("open=true", True), ("open=No", False), ("stage=2", 2), ("mode=no", "no"), ("every=epoch", "epoch")),
        *(("every=7", 7), ("names=[a #2, 0012, no, *.jpg, 2024-01-01]", ["a #2", "0012", "no", "*.jpg", "2024-01-01"])),
        *(("names=[x=[a, b], c [1]]", ["x=[a, b]", "c [1]"]), ("extra={a: f(x)[0], b: {c: d}}", {"a": "f(x)[0]", "b": {"c": "d"}})),
        *(("names=['a, b', \"c]\"]", ["a, b", "c]"]), ("names=[]", []), ("names=[s3://a/b, C:\\d]", ["s3://a/b", "C:\\d"])),
        *(
            ("numbers=[1, 2e0]", ConfigError),
            ("numbers=[1_000, 2]", (1000, 2)),
            ("pet=null", None),
            ("pet={kind: dog, weight: 2}", Dog(weight=2)),
        ),
        *(("pet={lives: 3}", Cat(lives=3)), ("pet.weight=4", Dog(weight=4)), ("boxes.main.lives=2", {"main": Cat(lives=2)})),
        *(
            ("extra={a: 1, b: x y, c: [no, null, 1e-3]}", {"a": 1, "b": "x y", "c": [False, None, 1e-3]}),
            ("extra.tag=0012", {"tag": "0012"}),
        ),
        *(("count=064", ConfigError), ("rate=007", ConfigError), ("count=64.5", ConfigError), ("count=true", ConfigError)),
        *(("count=12:30", ConfigError), ("count=", ConfigError), ("count=٣", ConfigError), ("count=" + "9" * 5000, ConfigError)),
        *(("rate=yes", ConfigError), ("rate=inf", ConfigError), ("rate=.nan", ConfigError), ("rate=1e999", ConfigError)),
        *(
            ("open=2", ConfigError),
            ("open=maybe", ConfigError),
            ("stage=3", ConfigError),
            ("names=a,b", ConfigError),
            ("names=[a", ConfigError),
        ),
        *(("pet=5", ConfigError), ("pet={kind: cow}", ConfigError), ("extra.x=.inf", ConfigError), ("extra={a: 1, a: 2}", ConfigError)),
        *(
            ("pet={[a]: b}", ConfigError),
            ("pet={a}", ConfigError),
            ("names=[a] b", ConfigError),
            ("names=['a]", ConfigError),
            ("names=[a, , b]", ConfigError),
            ('extra={"a": "\\ud800"}', ConfigError),
        ),
        *(("names=['a]", ConfigError), ("names=[a, , b]", ConfigError)),
        *(("name=caf\udce9", ConfigError), ("names=" + "[" * 5000, ConfigError), ("extra." + "a." * 5000 + "b=1", ConfigError)),
    ],
)
def test_an_override_is_read_by_the_field_that_takes_it(override, value):
    if value is ConfigError:
        with pytest.raises(ConfigError) as caught:
            load_config(Box, None, [override])
        assert override.split("=")[0].split(".")[0] in str(caught.value) or "nested" in str(caught.value)
    else:
        assert getattr(load_config(Box, None, [override]), override.split("=")[0].split(".")[0]) == value


def test_json_is_taken_exactly():
    given_ = {"names": ["null", "no", 'q"uote\\', "é😀\n", "[a]"], "extra": {"x": "1", "y": [1, 2.5, None, True], "z": {"no": "yes"}}}
    box = load_config(Box, None, [f"{key}={json.dumps(value)}" for key, value in given_.items()])
    assert (box.names, box.extra) == (given_["names"], given_["extra"])


def test_a_section_given_whole_takes_single_values_after_it():
    assert load_config(Box, None, ['pet={"kind": "dog", "weight": 3}', "pet.weight=4"]).pet == Dog(weight=4)


@pytest.mark.parametrize(
    ("yaml", "expected"),
    [
        ("name: 0012\nnote: no\nnames: [2024-01-01, 12:30, 1e-5, on, 0x1F]", ("0012", "no", ["2024-01-01", "12:30", "1e-5", "on", "0x1F"])),
        ("name: 'null'\nnote: ~\nnames: ['~', '']", ("null", None, ["~", ""])),
        ("name: |-\n  two\n  lines\nnote:\nnames: &n [a]", ("two\nlines", None, ["a"])),
        ("name: !!str 0012\nnote: ~/x", ("0012", "~/x", [])),
    ],
)
def test_a_text_in_a_file_keeps_its_characters(tmp_path, yaml, expected):
    (tmp_path / "box.yaml").write_text(yaml)
    box = load_config(Box, tmp_path / "box.yaml")
    assert (box.name, box.note, box.names) == expected


def test_numbers_anchors_and_merged_sections_work_in_a_file(tmp_path):
    (tmp_path / "box.yaml").write_text(
        "rate: 1e-5\nlimit: 3\ncount: 1_000\nopen: yes\n"
        "boxes:\n  a: &a {lives: 1}\n  b: *a\n  c: {<<: *a, lives: 2}\n  no: {}\nextra: {a: no, b: 1e-3}"
    )
    box = load_config(Box, tmp_path / "box.yaml")
    assert (box.rate, box.limit, box.count, box.open) == (1e-5, 3.0, 1000, True)
    assert {name: cat.lives for name, cat in box.boxes.items()} == {"a": 1, "b": 1, "c": 2, "no": 9}
    assert box.extra == {"a": False, "b": 1e-3}


@pytest.mark.parametrize(
    "yaml",
    [
        *(
            "count: 064",
            "rate: .inf",
            "rate: .nan",
            "rate: yes",
            "count: 12:30",
            "{[a]: b}",
            "? {a: b}\n: c",
            "name: null",
            "name:",
            "name: {a: b}",
        ),
        *(
            "a: &a [*a]",
            "name: *a",
            "name: !new x",
            "extra: !!python/object:os.system {}",
            "extra: {x: .inf}",
            "name: a\n---\nname: b",
            "\tname: a",
        ),
        *("extra: " + "[" * 1500, "extra:\n  a: {b: 1, b: 2}", "- a", "text", "<<: 5", "extra: {? [a] : b}", "count: !!int x", "name: a\0"),
        "extra:\n  a: &a [x,x,x,x,x,x,x,x,x,x]\n"
        + "".join(f"  a{n}: &a{n} [{','.join([f'*a{n - 1}' if n else '*a'] * 10)}]\n" for n in range(8)),
    ],
)
@pytest.mark.slow
def test_what_a_file_cannot_say_is_one_sentence_that_names_it(tmp_path, yaml):
    (tmp_path / "box.yaml").write_text(yaml)
    with pytest.raises(ConfigError, match=r"box\.yaml: ") as caught:
        load_config(Box, tmp_path / "box.yaml")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32"])
def test_a_file_that_an_editor_saved_with_a_byte_order_mark_is_read(tmp_path, encoding):
    (tmp_path / "box.yaml").write_bytes("name: rue-café 穿\n".encode(encoding))
    assert load_config(Box, tmp_path / "box.yaml").name == "rue-café 穿"


@pytest.mark.parametrize(
    "data", ["name: café".encode("cp1252"), codecs.BOM_UTF16_LE + b"a", b"\xff\xfe\x00", "name: x".encode("utf-16-le")]
)
def test_another_encoding_is_refused_by_the_files_name(tmp_path, data):
    (tmp_path / "box.yaml").write_bytes(data)
    with pytest.raises(ConfigError, match=r"box\.yaml: .*(UTF-8|YAML)"):
        load_config(Box, tmp_path / "box.yaml")


def test_every_problem_is_named_at_once():
    with pytest.raises(ConfigError) as caught:
        load_config(Box, None, ["count=064", "rate=-inf", "stage=9", "speed=1", "pet.lives=x"])
    for dotted in ("count", "rate", "stage", "speed", "pet.lives"):
        assert f"{dotted}: " in str(caught.value)


@pytest.mark.parametrize("value", ["null", "sometimes", "[1]", "{a: 1}", "1.5"])
def test_what_no_member_of_a_union_takes_is_one_sentence(value):
    with pytest.raises(ConfigError, match=r"^the command line: every: must be a whole number or `epoch`, but is [^;]*$"):
        load_config(Box, None, [f"every={value}"])


LINES = st.one_of(st.text(max_size=30), st.text("[]{},:'\"&*!#-~0123456789.enull \\\n", max_size=30))


@pytest.mark.slow
@settings(max_examples=examples(300), deadline=None)
@given(st.sampled_from(sorted(Box.model_fields)), st.sampled_from(["", ".a", ".lives", ".main.lives"]), LINES)
def test_no_override_raises_anything_but_a_config_error(field, rest, text):
    with contextlib.suppress(ConfigError):
        load_config(Box, None, [f"{field}{rest}={text}"])


@settings(max_examples=examples(300), deadline=None)
@given(st.one_of(LINES.map(str.encode), LINES.map(lambda text: f"extra: {text}".encode(errors="surrogatepass")), st.binary(max_size=40)))
@pytest.mark.slow
def test_no_file_raises_anything_but_a_config_error(tmp_path_factory, data):
    path = tmp_path_factory.getbasetemp() / "any.yaml"
    path.write_bytes(data)
    with contextlib.suppress(ConfigError):
        load_config(Box, path)


@pytest.mark.parametrize("job", JOBS)
def test_no_float_of_any_job_may_be_endless(job):
    sections, seen = [job_model(job)], set()
    while sections:
        section = sections.pop()
        assert section.model_config["allow_inf_nan"] is False
        seen.add(section)
        for field in section.model_fields.values():
            sections += [
                c for c in (field.annotation, *getattr(field.annotation, "__args__", ())) if hasattr(c, "model_fields") and c not in seen
            ]


def _leaves(section, prefix="", inside=()):
    """Dotted names of every field of a job, those of a mapping's sections under the name x."""
    for name, field in section.model_fields.items():
        yield prefix + name
        kinds = [field.annotation]
        while kinds:
            kind = kinds.pop()
            if isinstance(kind, type) and issubclass(kind, Section):
                if kind not in inside:
                    below = ".x." if get_origin(field.annotation) is dict else "."
                    yield from _leaves(kind, f"{prefix}{name}{below}", (*inside, kind))
            else:
                kinds += [each for each in get_args(kind) if not isinstance(each, str)]


@pytest.mark.parametrize("job", JOBS)
@pytest.mark.slow
def test_whatever_a_field_of_a_job_is_given_is_taken_or_refused_in_one_line(job):
    for name in _leaves(job_model(job)):
        for text in ("", "[[1]]", "{a: 1}", "nan", "\0", "s3://a@b/"):
            try:
                load_config(job_model(job), None, [f"{name}={text}"])
            except ConfigError as error:
                said = str(error)
            else:
                said = ""
            assert "\n" not in said


@pytest.mark.parametrize("number", ["99999999999999999999", str(1 << 63), "0x" + "f" * 5000, "9" * 5000, "-" + "9" * 30])
def test_a_whole_number_that_no_library_can_count_is_refused_by_its_key(number):
    with refused(ConfigError, "limit"):
        load_config(IngestJob, None, ["source.format=folder", "source.path=x", "output.path=o", f"limit={number}"])
