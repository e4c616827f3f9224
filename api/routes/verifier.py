"""Hand out the verifier for people without Python: the file that stands in each bundle."""

from __future__ import annotations

import re
from base64 import b64encode
from functools import cache
from hashlib import sha256
from importlib.resources import files
from typing import Final

from fastapi import APIRouter, Response

from api.answers import text_of

router = APIRouter(tags=["exports"])

MEDIA_TYPE: Final = "text/html; charset=utf-8"
_PAGE: Final = files("projections.exports").joinpath("verifier.html")


@router.get(
    "/verifier.html",
    summary="A page that verifies evidence bundles in a browser",
    response_class=Response,
    responses={
        200: text_of("text/html", "One file; it works as well when it was saved and is opened."),
    },
)
async def get_verifier() -> Response:
    """Give the page. Open to anybody: there is no data in it, and it asks for none.

    Whoever doubts this service takes the page from elsewhere, and compares its SHA-256.
    """
    page, headers = _load()
    return Response(page, media_type=MEDIA_TYPE, headers=headers)


@cache
def _load() -> tuple[bytes, dict[str, str]]:
    page = _PAGE.read_bytes()
    headers = {
        "Content-Security-Policy": policy(page.decode()),
        "X-Content-Type-Options": "nosniff",
        "Referrer-Policy": "no-referrer",
        "Cross-Origin-Opener-Policy": "same-origin",
        "Cache-Control": "no-cache",
    }
    return page, headers


def policy(page: str) -> str:
    """Give the policy that lets this page's own script and style run, and nothing leave it.

    The sandbox gives the page an origin of its own: it is as far from the service's data
    as when it is opened from a disk.
    """
    return (
        f"default-src 'none'; script-src {_digest(page, 'script')}; "
        f"style-src {_digest(page, 'style')}; worker-src blob:; img-src data:; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'; "
        "trusted-types worker; require-trusted-types-for 'script'; "
        "sandbox allow-scripts allow-downloads allow-modals"
    )


def _digest(page: str, element: str) -> str:
    """Name the one inline script or style by its SHA-256 (CSP 3 §2.3.1)."""
    (inline,) = re.findall(f"<{element}>(.*?)</{element}>", page, re.DOTALL)
    return f"'sha256-{b64encode(sha256(inline.encode()).digest()).decode()}'"
