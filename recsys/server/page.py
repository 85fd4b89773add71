"""The page of a server, and the headers that keep it from running anything but its own script."""

from __future__ import annotations

import base64
import hashlib
import re
from pathlib import Path


def read_page() -> tuple[bytes, dict[str, str]]:
    """The page's bytes, and its headers."""
    page = Path(__file__).with_name("page.html").read_bytes()
    script, style = (_source(page, name) for name in (b"script", b"style"))
    policy = (
        f"default-src 'none'; script-src {script}; style-src {style}; img-src data:; connect-src 'self'; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )
    return page, {"Content-Security-Policy": policy, "Cache-Control": "no-cache"}


def _source(page: bytes, name: bytes) -> str:
    """How a policy names the page's only element of this ``name``."""
    (content,) = re.findall(b"<%b>(.*?)</%b>" % (name, name), page, re.DOTALL)
    return f"'sha256-{base64.b64encode(hashlib.sha256(content).digest()).decode()}'"
