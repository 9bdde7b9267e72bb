"""URLs of Redis servers as the client wants them."""

from __future__ import annotations

import re
from urllib.parse import parse_qsl, urlencode, urlsplit


def client_url(url: str) -> str:
    """Return the URL as the Redis client reads it: Celery's own schemes and options are translated."""
    _require_readable(url)
    parts = urlsplit(url)
    if parts.scheme in ("redis", "rediss") and re.search("[^0-9]", parts.path.strip("/")):
        # The client would take database 0 for a name, and 12 for "1/2".
        raise ValueError("the database in the URL of a Redis store is a number, as in redis://localhost:6379/1")
    options = dict(parse_qsl(parts.query))
    if "virtual_host" in options:
        options["db"] = options.pop("virtual_host")
    if "ssl_cert_reqs" in options:
        options["ssl_cert_reqs"] = options["ssl_cert_reqs"].removeprefix("CERT_").lower()
    scheme = {"redis+socket": "unix", "socket": "unix"}.get(parts.scheme, parts.scheme)
    # Put together by hand: urlunsplit leaves the slashes out for a scheme that it does not know.
    return f"{scheme}://{parts.netloc}{parts.path}" + (f"?{urlencode(options)}" if options else "")


def _require_readable(url: str) -> None:
    """Raise ValueError where a character of the password ends it before its time. The URL is not shown."""
    parts = urlsplit(url)
    readable = True
    try:
        parts.port  # noqa: B018 - it is read here, and refused here
    except ValueError:
        readable = False
    if not readable or "@" in f"{parts.path}{parts.fragment}":
        raise ValueError(
            "the store's URL cannot be read (it is not shown: it may hold a password): write special characters of the "
            "password as %40 for @, for example"
        )
