"""URLs of Redis servers: as the client wants them, and as they may be shown."""

from __future__ import annotations

import re
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
    # By hand: `urlsplit` takes a slash, a question mark or a hash in a password for the end of the server's name. All
    # up to the last `@` may be the login.
    scheme, _, rest = url.partition("://")
    login, at, place = rest.rpartition("@")
    user = f"{login.partition(':')[0]}:***@" if ":" in login else login + at
    return f"{scheme}://{user}" + _PASSWORD_OPTION.sub(r"\1***", place)


_PASSWORD_OPTION = re.compile(r"([?&][^=&]*password[^=&]*=)[^&]*")
