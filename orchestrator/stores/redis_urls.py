"""URLs of Redis servers as the client wants them."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from enum import Enum
from urllib.parse import parse_qsl, urlencode, urlsplit

Address = tuple[str, int]  # host and port

_NO_NUMBER = "the database in the store's URL is no number: write it as in redis://localhost:6379/1"
_SENTINEL_PORT, _CLUSTER_PORT = 26379, 6379
# Celery writes several sentinels as URLs of their own, one behind the other.
_NEXT_URL = re.compile(r";\s*(?:[a-zA-Z][\w+.-]*://)?")


class Kind(Enum):
    """The kinds of URLs: of a server, of the sentinels of a primary, of nodes of a cluster."""

    SERVER = "redis"
    SENTINEL = "sentinel"
    CLUSTER = "cluster"


_KINDS = {
    "redis+sentinel": Kind.SENTINEL,
    "rediss+sentinel": Kind.SENTINEL,
    "sentinel": Kind.SENTINEL,
    "redis+cluster": Kind.CLUSTER,
    "rediss+cluster": Kind.CLUSTER,
}


@dataclass(frozen=True, slots=True)
class RedisUrl:
    """A store's URL, taken apart."""

    kind: Kind
    # Of one server, with login and options, as the client reads it. Host and port are those of the first address.
    server: str = field(repr=False)
    addresses: tuple[Address, ...] = ()  # of the sentinels, or of nodes of the cluster
    master_name: str = ""  # by which the sentinels know the primary
    sentinel_login: tuple[str, str] = field(default=("", ""), repr=False)  # username and password of the sentinels


def parse_redis_url(url: str) -> RedisUrl:
    """Read a store's URL. Raise ValueError, which never shows the URL, where something in it does not fit."""
    kind = _KINDS.get(url.partition("://")[0], Kind.SERVER)
    if kind is Kind.SERVER:
        return RedisUrl(kind, client_url(url))
    return _parse_several(url, kind)


def client_url(url: str) -> str:
    """Return the URL of a server as the Redis client reads it: Celery's own schemes and options are translated."""
    _require_readable(url)
    parts = urlsplit(url)
    if parts.scheme in ("redis", "rediss"):
        # The client would take database 0 for a name, and 12 for "1/2".
        _require(not re.search("[^0-9]", parts.path.strip("/")), _NO_NUMBER)
    options = _options(parts.query)
    scheme = {"redis+socket": "unix", "socket": "unix"}.get(parts.scheme, parts.scheme)
    return _write(scheme, parts.netloc, parts.path, options)


def _parse_several(url: str, kind: Kind) -> RedisUrl:
    scheme, _, rest = url.partition("://")
    places = [urlsplit(f"//{place}") for place in _NEXT_URL.split(rest)]
    # Of a login that is not escaped, parts are where no login can be.
    _require(not any(place.fragment or "@" in place.path + place.query for place in places), _UNREADABLE)
    login = _only("login", {place.netloc.rpartition("@")[0] for place in places})
    _require(not re.search(r"[@,]", login), _UNREADABLE)
    options = {name: text for place in places for name, text in _options(place.query).items()}
    database = options.pop("db", _only("database", {place.path.strip("/") for place in places}) or "0")
    _require(database.isdecimal(), _NO_NUMBER)
    default = _SENTINEL_PORT if kind is Kind.SENTINEL else _CLUSTER_PORT
    hosts = (host for place in places for host in place.netloc.rpartition("@")[2].split(","))
    addresses = tuple(_address(host, default) for host in hosts)
    if kind is Kind.CLUSTER:
        _require(int(database) == 0, "a Redis Cluster has no databases but 0: keep stores apart by their prefixes")
    master_name = options.pop("master_name", "")
    sentinel_login = options.pop("sentinel_username", ""), options.pop("sentinel_password", "")
    if kind is Kind.SENTINEL:
        _require(master_name != "", f"which primary do the sentinels watch? Add ?master_name=… to the {scheme}:// URL")
    else:
        _require(not master_name and not any(sentinel_login), f"a {scheme}:// URL has no options of sentinels")
    host, port = addresses[0]
    netloc = f"{login}@" if login else ""
    netloc += f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    server = _write("rediss" if scheme.startswith("rediss") else "redis", netloc, f"/{database}", options)
    return RedisUrl(kind, server, addresses, master_name, sentinel_login)


def _only(what: str, texts: set[str]) -> str:
    """Return the one of these texts that is not empty, if there is one."""
    given = texts - {""}
    _require(len(given) < 2, f"the store's URL has more than one {what}: write it once")
    return given.pop() if given else ""


def _address(text: str, default: int) -> Address:
    parts = urlsplit(f"//{text.strip()}")
    try:
        port = parts.port
    except ValueError:
        port = -1
    _require(bool(parts.hostname) and port != -1, _UNREADABLE)
    return str(parts.hostname), port or default


def _options(query: str) -> dict[str, str]:
    options = dict(parse_qsl(query))
    if "virtual_host" in options:
        options["db"] = options.pop("virtual_host")
    if "ssl_cert_reqs" in options:
        options["ssl_cert_reqs"] = options["ssl_cert_reqs"].removeprefix("CERT_").lower()
    return options


def _write(scheme: str, netloc: str, path: str, options: dict[str, str]) -> str:
    # Put together by hand: urlunsplit leaves the slashes out for a scheme that it does not know.
    return f"{scheme}://{netloc}{path}" + (f"?{urlencode(options)}" if options else "")


_UNREADABLE = (
    "the store's URL cannot be read (it is not shown: it may hold a password): write special characters of the "
    "password as %40 for @, for example"
)


def _require(holds: bool, otherwise: str) -> None:
    if not holds:
        raise ValueError(otherwise)


def _require_readable(url: str) -> None:
    """Raise ValueError where a character of the password ends it before its time. The URL is not shown."""
    parts = urlsplit(url)
    readable = True
    try:
        parts.port  # noqa: B018 - it is read here, and refused here
    except ValueError:
        readable = False
    _require(readable and "@" not in f"{parts.path}{parts.fragment}", _UNREADABLE)
