"""URLs that name several Redis servers: sentinels, or nodes of a cluster."""

from __future__ import annotations

import pytest

from orchestrator.stores import open_store
from orchestrator.stores.redis_urls import Kind, RedisUrl, parse_redis_url

A, B = ("a", 1), ("b", 2)


@pytest.mark.parametrize(
    "url, wanted",
    [
        (
            "redis+sentinel://a:1,b/2?master_name=m",
            RedisUrl(Kind.SENTINEL, "redis://a:1/2", (A, ("b", 26379)), "m"),
        ),
        (
            "sentinel://a:1;sentinel://b:2;sentinel://[::1]:3/1?master_name=m",
            RedisUrl(Kind.SENTINEL, "redis://a:1/1", (A, B, ("::1", 3)), "m"),
        ),
        (
            "sentinel://:p%40w@a:1;b:2/1?master_name=m",
            RedisUrl(Kind.SENTINEL, "redis://:p%40w@a:1/1", (A, B), "m"),
        ),
        (
            "sentinel://:pw@a:1/0;sentinel://:pw@b:2/0?master_name=m",
            RedisUrl(Kind.SENTINEL, "redis://:pw@a:1/0", (A, B), "m"),
        ),
        (
            "redis+sentinel://u:pw@a:1/?virtual_host=4&master_name=m&sentinel_username=v&sentinel_password=x%40y",
            RedisUrl(Kind.SENTINEL, "redis://u:pw@a:1/4", (A,), "m", ("v", "x@y")),
        ),
        (
            "rediss+sentinel://a:1/?master_name=m&db=4&ssl_cert_reqs=CERT_NONE",
            RedisUrl(Kind.SENTINEL, "rediss://a:1/4?ssl_cert_reqs=none", (A,), "m"),
        ),
        ("redis+cluster://u:p@a:1,b", RedisUrl(Kind.CLUSTER, "redis://u:p@a:1/0", (A, ("b", 6379)))),
        (
            "rediss+cluster://[::1]:7000/0?max_connections=4",
            RedisUrl(Kind.CLUSTER, "rediss://[::1]:7000/0?max_connections=4", (("::1", 7000),)),
        ),
        ("redis://a:1/2", RedisUrl(Kind.SERVER, "redis://a:1/2")),
    ],
)
def test_urls_may_name_several_servers(url: str, wanted: RedisUrl) -> None:
    assert parse_redis_url(url) == wanted


@pytest.mark.parametrize(
    "url, said",
    [
        ("redis+sentinel://a:1/0", "which primary do the sentinels watch"),
        ("redis+sentinel:///0?master_name=m", "cannot be read"),
        ("redis+sentinel://a:1,/0?master_name=m", "cannot be read"),
        ("redis+sentinel://a:x/0?master_name=m", "cannot be read"),
        ("redis+sentinel://:pw@a:1,:pw@b:2/0?master_name=m", "cannot be read"),
        ("sentinel://:pw@a:1;sentinel://:other@b:2?master_name=m", "more than one login"),
        ("sentinel://a:1/0;sentinel://b:2/1?master_name=m", "more than one database"),
        ("redis+sentinel://a:1/x?master_name=m", "no number"),
        ("redis+cluster://a:1/3", "no databases but 0"),
        ("redis+cluster://a:1?db=3", "no databases but 0"),
        ("redis+cluster://a:1?master_name=m", "no options of sentinels"),
        ("redis+cluster://a:1?sentinel_password=m", "no options of sentinels"),
    ],
)
def test_a_url_of_several_servers_that_cannot_be_meant_is_refused_at_once(url: str, said: str) -> None:
    """Nothing in it is left out in silence."""
    with pytest.raises(ValueError, match=said) as caught:
        open_store(url)
    assert "pw" not in str(caught.value)
