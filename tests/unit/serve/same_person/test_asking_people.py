"""The labelling page's server and what is written of its answers: over HTTP, by several people and processes at once."""

from __future__ import annotations

import http.client
import json
import subprocess
import sys
from contextlib import closing, contextmanager
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pyarrow.parquet as pq
import pytest
from drawn_crops import PEOPLE, near_duplicate_crops
from refusals import refused

from reid_ray.errors import DataError
from reid_ray.records import EMBEDDINGS, table_of
from reid_ray.serve.process.http_thread import bound_socket, running_server
from reid_ray.serve.same_person.config import LabelledTable
from reid_ray.serve.same_person.decision_log import DecisionLog
from reid_ray.serve.same_person.label_command import label_command
from reid_ray.serve.same_person.label_desk import LabelDesk
from reid_ray.serve.same_person.label_routes import label_application, why_foreign
from reid_ray.serve.same_person.labelled_table import write_labelled
from reid_ray.serve.same_person.look_alikes import look_alikes
from reid_ray.storage import read_manifest


@pytest.fixture
def crops(tmp_path):
    """near_duplicate_crops in a folder; (folder, the table)."""
    return tmp_path, near_duplicate_crops(tmp_path / "images")


def alike(root, **options):
    return look_alikes(str(root / "images"), **{"embeddings": None, "neighbours": 3, "least": 0.5, "most": 100, "tracks": False, **options})


@contextmanager
def served(root, **options):
    with closing(DecisionLog(root / "said.jsonl")) as log, bound_socket("127.0.0.1", 0) as listening:
        desk = LabelDesk(alike(root, **options), log)
        with running_server(label_application(desk), listening):
            port = listening.getsockname()[1]

            def ask(method, path, body=None, **headers):
                connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
                data = None if body is None else json.dumps(body)
                sent = {"Content-Type": "application/json"} if data is not None else {}
                connection.request(method, path, data, {**sent, **{name.replace("_", "-"): value for name, value in headers.items()}})
                answer = connection.getresponse()
                content = answer.read()
                connection.close()
                return answer, json.loads(content) if answer.headers["content-type"] == "application/json" else content

            yield ask, port


@pytest.mark.slow
def test_every_pair_is_asked_once_and_the_answers_are_written_into_a_new_table(crops):
    root, table = crops
    with served(root) as (ask, _):
        asked = []
        while (found := ask("GET", "/label/question?who=anna")[1])["question"]:
            sides = found["question"]["sides"]
            names = [side["pictures"][0]["image_id"] for side in sides]
            asked.append(names)
            assert {name[0] for name in names} == {names[0][0]}  # near duplicates of one person alone look alike
            _, jpeg = ask("GET", f"/label/pictures/{sides[0]['pictures'][0]['row']}")
            assert jpeg[:2] == b"\xff\xd8"
            said = "different" if names[0][0] == "4" else "same"
            assert ask("POST", "/label/decisions", {"says": said, "pictures": found["question"]["pair"], "who": "anna"})[0].status == 200
        assert sorted(name[0] for name, _ in asked) == ["2", "3", "4"]  # the table says who 0 and 1 are
    write_labelled(written(root))
    new = pq.read_table(root / "out" / "images")
    assert new.drop(["person_id"]).equals(table.drop(["person_id"]))
    persons = dict(zip(new["image_id"].to_pylist(), new["person_id"].to_pylist(), strict=True))
    assert persons == {"0a": 0, "0b": 0, "1a": 1, "1b": 1, "2a": 2, "2b": 2, "3a": 3, "3b": 3, "4a": None, "4b": None}
    facts = read_manifest(root / "out")["facts"]
    assert (facts["labelled"], facts["merged"], facts["taken_out"]) == (4, 0, 0)
    assert pq.read_schema(root / "out" / "images" / "part-00000.parquet").metadata == table.schema.metadata


def written(root, **options):
    values = {"images": str(root / "images"), "decisions": str(root / "said.jsonl"), "output": {"path": str(root / "out")}, **options}
    return LabelledTable.model_validate(values)


def test_identities_are_merged_and_split_and_a_contradiction_changes_nothing(crops):
    root, _ = crops
    with closing(DecisionLog(root / "said.jsonl")) as log:
        log.add("same", "0a", "1a")  # persons 0 and 1 of the table are one
        log.add("out", "1b")  # but this picture is not of them
        for pair in (("2a", "2b"), ("2b", "3a")):
            log.add("same", *pair)
        log.add("different", "2a", "3a")
    write_labelled(written(root))
    new = pq.read_table(root / "out" / "images")
    persons = dict(zip(new["image_id"].to_pylist(), new["person_id"].to_pylist(), strict=True))
    assert persons == {"0a": 0, "0b": 0, "1a": 0, "1b": None, **{f"{n}{side}": None for n in (2, 3, 4) for side in "ab"}}
    facts = read_manifest(root / "out")["facts"]
    assert {name: facts[name] for name in ("labelled", "merged", "taken_out", "contradicted")} == {
        "labelled": 0,
        "merged": 1,
        "taken_out": 1,
        "contradicted": 3,
    }


def test_two_people_are_not_asked_the_same_and_each_takes_back_what_was_said_last(crops):
    root, _ = crops
    with served(root) as (ask, _):
        anna, ben = (ask("GET", f"/label/question?who={who}")[1]["question"]["pair"] for who in ("anna", "ben"))
        assert anna != ben
        assert ask("GET", "/label/question?who=anna")[1]["question"]["pair"] == anna  # after a reload
        for who, pair in (("anna", anna), ("ben", ben)):
            ask("POST", "/label/decisions", {"says": "same", "pictures": pair, "who": who})
        assert ask("POST", "/label/undo", {"who": "anna"})[1] == {"number": 1}
        assert ask("POST", "/label/undo", {"who": "anna"})[1] == {"number": None}
        found = ask("GET", "/label/question?who=ben")[1]
        assert (found["open"], found["decided"]) == (2, 1)  # what was taken back is none
        assert ask("GET", "/label/question?who=anna")[1]["question"]["pair"] != found["question"]["pair"]


def test_what_is_skipped_comes_last(crops):
    root, _ = crops
    with served(root) as (ask, _):
        seen = []
        for _ in range(4):
            pair = ask("GET", "/label/question?who=anna")[1]["question"]["pair"]
            seen.append(tuple(pair))
            ask("POST", "/label/decisions", {"says": "skip", "pictures": pair, "who": "anna"})
        assert len(set(seen[:3])) == 3
        assert seen[3] in seen[:3]


@pytest.mark.slow
def test_what_was_said_stands_after_a_restart_and_what_a_crash_cut_off_does_not(crops):
    root, _ = crops
    with served(root) as (ask, _):
        pair = ask("GET", "/label/question?who=anna")[1]["question"]["pair"]
        ask("POST", "/label/decisions", {"says": "same", "pictures": pair, "who": "anna"})
    with (root / "said.jsonl").open("ab") as file:
        file.write(b'{"says": "same", "ima')
    with served(root) as (ask, _):
        assert ask("GET", "/label/question?who=anna")[1]["decided"] == 1
        pair = ask("GET", "/label/question?who=anna")[1]["question"]["pair"]
        ask("POST", "/label/decisions", {"says": "same", "pictures": pair, "who": "anna"})
        assert ask("GET", "/label/question?who=anna")[1]["decided"] == 2


ADDS = """
import sys
from reid_ray.serve.same_person.decision_log import DecisionLog
log = DecisionLog(sys.argv[1])
for number in range(60):
    assert log.add("same", f"{sys.argv[2]}{number}", "x", who=sys.argv[2]).images[0] == f"{sys.argv[2]}{number}"
"""


def test_answers_that_were_taken_back_are_counted_neither_by_the_page_nor_at_the_end(crops, capsys, monkeypatch):
    root, _ = crops

    class Stopped:
        def wait(self):
            with closing(DecisionLog(root / "said.jsonl")) as other:
                other.add("skip", "2a", "2b")
                other.add("same", "2a", "2b")
                other.add("same", "3a", "3b")
                other.add("undo", of=2)
            raise KeyboardInterrupt

    monkeypatch.setattr("reid_ray.serve.same_person.label_command.threading", SimpleNamespace(Event=Stopped))
    assert label_command(["ask", str(root / "images"), str(root / "said.jsonl"), "--port", "0"]) == 0
    assert f"label: 1 decision in {root / 'said.jsonl'}" in capsys.readouterr().out


@pytest.mark.slow
def test_processes_that_decide_at_once_lose_nothing_of_each_other(tmp_path):
    path = tmp_path / "said.jsonl"
    names = ("anna", "ben", "carl")
    running = [subprocess.Popen([sys.executable, "-c", ADDS, str(path), name]) for name in names]
    assert [process.wait(60) for process in running] == [0, 0, 0]
    with closing(DecisionLog(path)) as log:
        assert [each.number for each in log.decisions] == list(range(1, 181))
        for name in names:
            assert [each.images[0] for each in log.decisions if each.who == name] == [f"{name}{number}" for number in range(60)]


def test_only_this_machine_and_this_page_are_answered(crops):
    root, _ = crops
    with served(root) as (ask, port):
        answer, _ = ask("GET", "/")
        assert (answer.status, answer.headers["x-frame-options"]) == (200, "DENY")
        assert "default-src 'none'" in answer.headers["content-security-policy"]
        decision = {"says": "same", "pictures": [0, 1], "who": "anna"}
        for headers in (
            {"Host": "evil.example"},
            {"X_Forwarded_For": "10.0.0.7"},
            {"Origin": "http://evil.example"},
            {"Origin": f"http://127.0.0.1:{port + 1}"},
            {"Sec_Fetch_Site": "cross-site"},
            {"Content_Type": "text/plain"},
        ):
            assert ask("POST", "/label/decisions", decision, **headers)[0].status == 403
        assert ask("GET", "/label/question?who=anna", Host="evil.example")[0].status == 403
        assert ask("POST", "/label/decisions", {**decision, "who": "x" * 20_000})[0].status == 413
        for wrong in ({"says": "undo"}, {"pictures": [0, 99]}, {"pictures": [0, 0]}, {"pictures": [0]}, {"who": "a b"}, {"more": 1}):
            assert ask("POST", "/label/decisions", {**decision, **wrong})[0].status == 422
        assert ask("GET", "/label/pictures/99")[0].status == 404
        assert ask("GET", "/page/decision_log.py")[0].status == 404
        assert ask("GET", "/label/question?who=anna")[1]["decided"] == 0
        assert ask("POST", "/label/decisions", decision, Origin=f"http://127.0.0.1:{port}", Sec_Fetch_Site="same-origin")[0].status == 200
    assert why_foreign("GET", {}) is None


def test_vectors_find_people_that_no_hash_does_and_leave_out_what_is_unlike(crops):
    root, _ = crops
    vectors = {
        f"{person}{side}": np.eye(PEOPLE + 1)[person] + (0.2 * np.eye(PEOPLE + 1)[PEOPLE]) * (side == "b")
        for person in range(PEOPLE)
        for side in "ab"
    }
    rows = [
        {"item_id": name, "image_id": name, "kind": "image", "status": "ok", "embedding": (vector / np.linalg.norm(vector)).tolist()}
        for name, vector in vectors.items()
    ]
    pq.write_table(table_of(EMBEDDINGS, rows), root / "vectors.parquet")
    found = alike(root, embeddings=str(root / "vectors.parquet"), least=0.9)
    pairs = {tuple(sorted(found.images[row].image_id for row in pair)) for pair in found.pair_P2.tolist()}
    assert pairs == {(f"{person}a", f"{person}b") for person in range(PEOPLE)}
    assert found.score_P == pytest.approx(np.full(PEOPLE, 1 / np.sqrt(1.04)), abs=1e-5)
    with refused(DataError, "images", "--least"):
        alike(root, embeddings=str(root / "vectors.parquet"), least=0.999)


def test_the_command_writes_a_table_and_refuses_what_is_no_file_of_decisions(crops, capsys):
    root, _ = crops
    with closing(DecisionLog(root / "said.jsonl")) as log:
        log.add("same", "2a", "2b")
    assert label_command(["write", str(root / "images"), str(root / "said.jsonl"), str(root / "table")]) == 0
    said = capsys.readouterr().out
    assert "labelled 2" in said
    assert "; 4 pictures of nobody known" in said  # six had no person_id
    assert label_command(["write", str(root / "images"), str(root / "said.jsonl"), str(root / "table")]) == 2
    remedy = capsys.readouterr().err
    assert "set --if-exists to replace" in remedy
    assert "choose another OUTPUT" in remedy
    assert "output." not in remedy.replace(str(root), "")
    assert label_command(["write", str(root / "images"), str(root / "said.jsonl"), "s3://bucket/labels"]) == 2
    assert "OUTPUT: is the address s3://bucket/labels" in capsys.readouterr().err
    assert label_command(["write", str(root / "images"), str(root / "said.jsonl"), str(root / "table"), "--if-exists", "replace"]) == 0
    (root / "notes.txt").write_text("no decisions\n")
    with refused(DataError, "notes.txt"):
        DecisionLog(root / "notes.txt")
    with refused(DataError, "missing.jsonl", "no such file"):
        write_labelled(written(root, decisions=str(root / "missing.jsonl")))
    assert not (root / "missing.jsonl").exists()
    DecisionLog(root / "empty.jsonl").close()
    with refused(DataError, "empty.jsonl", "reid-ray label ask"):
        write_labelled(written(root, decisions=str(root / "empty.jsonl")))


def test_the_page_does_not_go_on_with_decisions_about_another_table_and_says_which_are_partly(crops, capsys, monkeypatch):
    root, _ = crops

    class Stopped:
        def wait(self):
            raise KeyboardInterrupt

    monkeypatch.setattr("reid_ray.serve.same_person.label_command.threading", SimpleNamespace(Event=Stopped))
    words = ["ask", str(root / "images"), str(root / "said.jsonl"), "--port", "0"]
    with closing(DecisionLog(root / "said.jsonl")) as log:
        log.add("same", "elsewhere", "yonder")
    assert label_command(words) == 2
    problem = capsys.readouterr().err
    assert all(part in problem for part in (str(root / "said.jsonl"), str(root / "images"), "elsewhere"))
    with closing(DecisionLog(root / "said.jsonl")) as log:
        log.add("same", "2a", "2b")
    assert label_command(words) == 0
    assert "label: 2 pictures that decisions name, such as elsewhere, not in the table" in capsys.readouterr().out


def test_decisions_about_another_table_are_refused_and_those_partly_about_it_say_so(crops, capsys):
    root, _ = crops
    with closing(DecisionLog(root / "said.jsonl")) as log:
        log.add("same", "elsewhere", "yonder")
    with refused(DataError, str(root / "said.jsonl"), str(root / "images"), "elsewhere"):
        write_labelled(written(root))
    assert not (root / "out").exists()
    with closing(DecisionLog(root / "said.jsonl")) as log:
        log.add("same", "2a", "2b")
        log.add("undo", of=log.add("same", "3a", "3b").number)
    write_labelled(written(root))
    assert read_manifest(root / "out")["facts"]["decisions"] == 2
    assert "2 pictures that decisions name, such as elsewhere, not in the table" in capsys.readouterr().out


def test_the_page_loads_nothing_from_elsewhere_and_names_its_keys():
    folder = Path(label_command.__code__.co_filename).parent / "web"
    texts = {path.name: path.read_text() for path in folder.iterdir()}
    assert set(texts) == {"label.html", "label.css", "label.js"}
    assert not [name for name, text in texts.items() if "http" in text.replace("http-equiv", "")]
    assert "innerHTML" not in texts["label.js"]
    for key in "sdku":
        assert f'aria-keyshortcuts="{key}"' in texts["label.html"]


def test_decisions_of_a_newer_version_are_refused_by_their_file(tmp_path):
    (tmp_path / "decisions.jsonl").write_text(json.dumps({"format": 99}) + "\n")
    with refused(DataError, str(tmp_path / "decisions.jsonl"), "99", "upgrade reid_ray"):
        DecisionLog(tmp_path / "decisions.jsonl")
