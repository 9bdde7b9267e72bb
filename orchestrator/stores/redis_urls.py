"""URLs of Redis servers: as the client wants them, and as they may be shown."""

from __future__ import annotations

from urllib.parse import parse_qsl, urlencode, urlsplit


def client_url(url: str) -> str:
    """Return the URL as the Redis client reads it: Celery's own schemes and options are translated."""
    parts = urlsplit(url)
    options = dict(parse_qsl(parts.query))
    if "virtual_host" in options:
        options["db"] = options.pop("virtual_host")
    if "ssl_cert_reqs" in options:
        options["ssl_cert_reqs"] = options["ssl_cert_reqs"].removeprefix("CERT_").lower()
    scheme = {"redis+socket": "unix", "socket": "unix"}.get(parts.scheme, parts.scheme)
    # Put together by hand: urlunsplit leaves the slashes out for a scheme that it does not know.
    return f"{scheme}://{parts.netloc}{parts.path}" + (f"?{urlencode(options)}" if options else "")


def shown_url(url: str) -> str:
    """Return the URL as it may be shown: without its password."""
    parts = urlsplit(url)
    options = [(name, "***" if "password" in name else value) for name, value in parse_qsl(parts.query)]
    user, at, place = parts.netloc.rpartition("@")
    login = f"{user.partition(':')[0]}:***@" if at and ":" in user else user + at
    return f"{parts.scheme}://{login}{place}{parts.path}" + (f"?{urlencode(options, safe='*/')}" if options else "")
