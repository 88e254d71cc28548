"""The page's files as they are served: types, entity tags, the content policy; nothing in them is inline, foreign or HTML from strings.

What the page does is tried in a browser: tests/soak/test_browser.py.
"""

import asyncio
import re
from html.parser import HTMLParser

import httpx
import pytest
from fastapi import FastAPI

from reid_ray.serve.web.page import FOLDER, POLICY, TYPES, add_page

FILES = sorted(path for path in FOLDER.iterdir() if path.suffix in TYPES)
SCRIPTS = [path for path in FILES if path.suffix == ".js"]


def _get(path, *, method="GET", **headers):
    api = FastAPI()
    add_page(api)

    async def call():
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app=api), base_url="http://localhost") as http:
            return await http.request(method, path, headers=headers)

    return asyncio.run(call())


@pytest.mark.parametrize("file", [*FILES, FOLDER / ""], ids=lambda file: file.name)
def test_every_file_is_served_with_its_type_and_the_policy(file):
    path = "/" if file == FOLDER else f"/page/{file.name}"
    file = FOLDER / "index.html" if file == FOLDER else file
    reply = _get(path)
    assert reply.content == file.read_bytes()
    assert reply.headers["content-type"] == TYPES[file.suffix]
    assert reply.headers["content-security-policy"] == POLICY
    assert _get(path, method="HEAD").headers["etag"] == reply.headers["etag"]


def test_a_browser_that_has_a_file_is_not_sent_it_again():
    tag = _get("/page/main.js").headers["etag"]
    again = _get("/page/main.js", **{"If-None-Match": tag})
    assert (again.status_code, again.content, again.headers["etag"]) == (304, b"", tag)
    assert _get("/page/main.js", **{"If-None-Match": '"another"'}).status_code == 200


@pytest.mark.parametrize("name", ["page.py", "__init__.py", "..%2Fpage.py", "missing.js"])
def test_nothing_but_the_pages_files_is_served(name):
    assert _get(f"/page/{name}").status_code == 404


def test_the_policy_allows_nothing_inline_and_nothing_from_elsewhere():
    allowed = dict(part.strip().split(" ", 1) for part in POLICY.split(";"))
    assert {name: allowed[name] for name in ("default-src", "script-src", "style-src", "img-src", "connect-src", "frame-ancestors")} == {
        "default-src": "'none'",
        "script-src": "'self'",
        "style-src": "'self'",
        "img-src": "'self' blob:",
        "connect-src": "'self'",
        "frame-ancestors": "'none'",
    }
    assert "unsafe" not in POLICY


class _Tags(HTMLParser):
    def __init__(self):
        super().__init__()
        self.found, self.text_in = [], []

    def handle_starttag(self, tag, attrs):
        self.found.append((tag, dict(attrs)))

    def handle_data(self, data):
        if self.found and self.found[-1][0] in ("script", "style") and data.strip():
            self.text_in.append(data)


def test_the_html_has_no_inline_script_or_style_and_loads_its_own_files():
    tags = _Tags()
    tags.feed((FOLDER / "index.html").read_text())
    assert tags.text_in == []
    assert [(tag, name) for tag, names in tags.found for name in names if name == "style" or name.startswith("on")] == []
    loaded = [names.get("src") or names.get("href") for tag, names in tags.found if tag in ("script", "link", "img")]
    assert len(loaded) >= 4
    assert [path for path in loaded if not (FOLDER / path.removeprefix("page/")).is_file()] == []


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_a_script_imports_what_is_there_and_makes_no_html_of_strings(script):
    text = script.read_text()
    imported = re.findall(r"""(?:from|import\()\s*["']\./([\w.]+)["']""", text)
    assert [name for name in imported if not (FOLDER / name).is_file()] == []
    named = {name for line in re.findall(r"import \{([^}]*)\} from", text) for name in re.split(r",\s*", line.strip()) if name}
    assert {name for name in named if len(re.findall(rf"\b{name}\b", text)) < 2} == set(), "imported and not used"
    assert (
        re.findall(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\(|new Function|srcdoc|setAttribute\([\"']style", text)
        == []
    )


def test_no_file_names_another_host():
    hosts = [(path.name, host) for path in FILES for host in re.findall(r"https?://[\w.-]+|[\"'(]//[\w.-]+", path.read_text())]
    assert hosts == [("icon.svg", "http://www.w3.org")]  # the name of SVG's namespace, which nothing loads
