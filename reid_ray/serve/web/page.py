"""The page of the search service, as package files beside this one: HTML, style sheets and ES modules, served as they are.

There is no build step, and nothing is loaded from elsewhere. The content policy allows no inline script or style and no HTML that is made
of strings, so a caption or a file name of a gallery cannot become code. Knows files and headers; not searches, tokens or roles: the page
holds no data, and asks the service's API as any client does.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

from fastapi import APIRouter, FastAPI, HTTPException, Request, Response

from reid_ray.serve.access.route_table import RouteRule

FOLDER = Path(__file__).parent
TYPES = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob:; connect-src 'self'; base-uri 'none'; "
    "form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types 'none'"
)

PAGE_RULES: dict[tuple[str, str], RouteRule] = {("GET", "/"): RouteRule(None), ("GET", "/page/{name}"): RouteRule(None)}
"""Whoever reaches the service may have the page: it holds no data, and asks for a token itself."""


@dataclass(frozen=True)
class PageFile:
    """A file of the page: its bytes, media type and entity tag (a digest)."""

    data: bytes
    media_type: str
    etag: str


def page_files() -> dict[str, PageFile]:
    """All files of the page by name, read once; "index.html" is the page itself."""
    return read_page_files(FOLDER)


def read_page_files(folder: Path) -> dict[str, PageFile]:
    """The files of a page's folder by name."""
    files = {}
    for path in sorted(folder.iterdir()):
        if path.suffix in TYPES:
            data = path.read_bytes()
            files[path.name] = PageFile(data, TYPES[path.suffix], f'"{hashlib.sha256(data).hexdigest()[:32]}"')
    return files


def add_page(api: FastAPI | APIRouter) -> None:
    """Adds the routes GET / and GET /page/NAME, which need no token: they hold no data."""
    files = page_files()

    def answer(name: str, request: Request) -> Response:
        file = files.get(name)
        if file is None:
            raise HTTPException(404, f"the page has no file {name[:100]}")
        # Modules import each other by name: a browser asks whether its copy is still the one, and gets 304.
        headers = {"ETag": file.etag, "Cache-Control": "no-cache", "Content-Security-Policy": POLICY, "X-Content-Type-Options": "nosniff"}
        if file.etag in request.headers.get("if-none-match", ""):
            return Response(status_code=304, headers=headers)
        return Response(file.data, media_type=file.media_type, headers=headers)

    @api.api_route("/", methods=["GET", "HEAD"], include_in_schema=False)
    async def page(request: Request) -> Response:
        return answer("index.html", request)

    @api.api_route("/page/{name}", methods=["GET", "HEAD"], include_in_schema=False)
    async def page_file(name: str, request: Request) -> Response:
        return answer(name, request)
