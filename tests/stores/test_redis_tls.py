"""The Redis store over TLS, on a cluster and behind a sentinel: what finds the servers goes over TLS as well."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
import redis

from orchestrator.errors import StoreUnavailable
from orchestrator.ports import RunQuery
from orchestrator.rules.model import RunHeader
from orchestrator.stores.redis import RedisStore
from tests.stores.topologies import SLOTS, wait_for
from tests.vendor import LocalProcess, child_environment, free_port, missing, redis_command


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A certificate for 127.0.0.1, with its key beside it."""
    openssl = shutil.which("openssl") or missing("TLS: openssl is not on the path")
    folder = tmp_path_factory.mktemp("tls")
    command = [openssl, "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=127.0.0.1"]
    command += ["-addext", "subjectAltName=IP:127.0.0.1", "-keyout", f"{folder}/key.pem", "-out", f"{folder}/cert.pem"]
    subprocess.run(command, check=True, capture_output=True)
    return folder / "cert.pem"


def secured(folder: Path, certificate: Path, port: int, *options: str, config: Sequence[str] = ()) -> LocalProcess:
    """Start a server that speaks nothing but TLS."""
    folder.mkdir(parents=True)
    lines = [
        f"dir {folder}",
        "port 0",
        f"tls-port {port}",
        "bind 127.0.0.1",
        f"tls-cert-file {certificate}",
        f"tls-key-file {certificate.with_name('key.pem')}",
        f"tls-ca-cert-file {certificate}",
        "tls-auth-clients no",
        "tls-cluster yes",
        "tls-replication yes",
        *config,
    ]
    (folder / "redis.conf").write_text("\n".join(lines) + "\n")
    command = [redis_command(), str(folder / "redis.conf"), *options]
    process = LocalProcess("redis-server", command, cwd=folder, env=child_environment({}), log=folder / "log")
    process.start()
    wait_for(lambda: process.status == "exited" or _answers(port, certificate))
    if process.status == "exited":
        missing(f"Redis over TLS: {process.tail(3)}")
    return process


def client_of(port: int, certificate: Path) -> redis.Redis:
    """Return a client of a server on this port."""
    return redis.Redis("127.0.0.1", port, ssl=True, ssl_ca_certs=str(certificate), socket_timeout=5)


def _answers(port: int, certificate: Path) -> bool:
    with client_of(port, certificate) as client:
        return bool(client.ping())


@pytest.fixture(params=["rediss+cluster", "rediss+sentinel"])
def url(request: pytest.FixtureRequest, tmp_path: Path, certificate: Path) -> Iterator[str]:
    """Give the URL of a store, without the certificate."""
    port, other = free_port(), free_port()
    config = ["save 3600 1", "cluster-enabled yes", f"cluster-port {other}"] if "cluster" in request.param else []
    processes = [secured(tmp_path / "server", certificate, port, config=config)]
    try:
        if request.param == "rediss+cluster":
            with client_of(port, certificate) as client:
                client.execute_command("CLUSTER", "ADDSLOTS", *range(SLOTS))
                wait_for(lambda: b"cluster_state:ok" in _raw(client.execute_command("CLUSTER", "INFO")))
            yield f"rediss+cluster://127.0.0.1:{port}/0?"
        else:
            watch = f"sentinel monitor mymaster 127.0.0.1 {port} 1"
            processes.append(secured(tmp_path / "sentinel", certificate, other, "--sentinel", config=[watch]))
            yield f"rediss+sentinel://127.0.0.1:{other}/0?master_name=mymaster&"
    finally:
        for process in processes:
            process.remove()


def _raw(found: object) -> bytes:
    if isinstance(found, dict):
        return "\n".join(f"{name}:{text}" for name, text in found.items()).encode()
    return found if isinstance(found, bytes) else str(found).encode()


def test_a_store_over_tls(url: str, certificate: Path) -> None:
    """The certificate of each server is looked at."""
    store = RedisStore(f"{url}ssl_ca_certs={certificate}")
    store.create(RunHeader(run_id="run", workflow_id="w"))
    assert [header.run_id for header in store.runs(RunQuery())] == ["run"]
    assert store.wait_for_events("run", "", 0.2) == []
    store.close()
    distrustful = RedisStore(url.rstrip("?&"), retries=0)
    with pytest.raises(StoreUnavailable, match="CERTIFICATE_VERIFY_FAILED|certificate verify failed|No master found"):
        distrustful.header("run")
    distrustful.close()
