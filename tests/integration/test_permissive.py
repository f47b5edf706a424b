"""Permissive ports at work: servers whose clients have not joined yet, what `postern readiness` says of them, and a
port that turns strict by itself."""

import json
import socket

import pytest
import tls_servers
from gateway import HOST, start_gateway
from lab import free_port, run
from node import spiffe_id
from servers import TcpServer, http_one

# Whoever is on this machine, with or without an identity; and by requests, reading only.
NEAR = "kind: Policy\nlevel: 1\nrules:\n  - name: near\n    action: ALLOW\n    from:\n      - ip_blocks: [127.0.0.0/8]\n"
READ = "kind: Policy\nlevel: 1\nrules:\n  - name: read\n    action: ALLOW\n    to:\n      - methods: [GET]\n"


@pytest.fixture
def agent(node):
    node.start_agent()
    return node


def readiness(node, proxy, *argv):
    """(exit status, ports by listener)"""
    p = run(node.postern, "readiness", "--socket", proxy.admin, "--json", *argv, check=False)
    ports = json.loads(p.stdout)["workloads"][0]["ports"]
    return p.returncode, {x["listener"]: x for x in ports}


def test_databases(agent):
    """One whose clients speak first, one that speaks first itself, each at a permissive port; and at a strict one."""
    assert tls_servers.missing("postgres", "mariadb") is None
    postgres = tls_servers.Postgres(agent.lab, None)
    mariadb = tls_servers.MariaDB(agent.lab, None)
    run("mariadb", "--no-defaults", f"--socket={mariadb.socket}", "-uroot", "-e", "create user u@'%' identified by 'p'; grant all on *.* to u@'%'")
    pg, my, strict, plain = (free_port() for _ in range(4))
    server = start_gateway(
        agent,
        "server",
        f"listeners:\n  - {{name: pg, type: server, address: '127.0.0.1:{pg}', to: '127.0.0.1:{postgres.port}', mode: permissive}}\n"
        f"  - {{name: my, type: server, address: '127.0.0.1:{my}', to: '127.0.0.1:{mariadb.port}', mode: permissive}}\n"
        f"  - {{name: strict, type: server, address: '127.0.0.1:{strict}', to: '127.0.0.1:{postgres.port}'}}\n",
        identity="server",
        policy=NEAR,
        netns=HOST,
    )
    assert "pg:" in server.wait_event("permissive_ports")["ports"]
    psql = [tls_servers.POSTGRES.parent / "psql", "-U", "postgres", "-At", "-h", "127.0.0.1", "-c", "select 40 + 2"]
    client = ["mariadb", "--no-defaults", "--skip-ssl", "-uu", "-pp", "-N", "-B", "-h", "127.0.0.1", "-e", "select 40 + 2"]
    assert run(*psql, "-p", pg).stdout.strip() == "42"
    assert run(*client, "-P", my).stdout.strip() == "42"
    assert run(*psql, "-p", strict, check=False).returncode != 0
    # Those who have joined come by the same port.
    start_gateway(
        agent,
        "client",
        f"listeners:\n  - {{name: tcp, type: client, address: '127.0.0.1:{plain}', to: '127.0.0.1:{my}', identities: ['{spiffe_id('server')}']}}\n",
        identity="client",
        netns=HOST,
    )
    assert run(*client, "-P", plain).stdout.strip() == "42"
    status, ports = readiness(agent, server)
    assert status == 3 and set(ports) == {"pg", "my"}
    assert [(c["source"], c["class"], c["allowed"]) for c in ports["pg"]["callers"]] == [("127.0.0.1", "postgres", 1)]
    assert [(c["source"], c["class"], c["allowed"]) for c in ports["my"]["callers"]] == [("127.0.0.1", "silence", 1)]
    assert ports["my"]["mtls_connections"] == 1 and ports["pg"]["mtls_connections"] == 0
    assert {p["verdict"] for p in ports.values()} == {"not_ready"}


def test_turns_strict(agent):
    """By requests; and when it was quiet for as long as the file says, the port needs nobody's hand."""
    upstream = TcpServer(agent.netns, http_one)
    tls = free_port()
    server = agent.server_side(tls, upstream.port, protocol="http\n    mode: permissive\n    strict_after: 3s", policy=READ)

    def ask(method, path="/"):
        with agent.inside(), socket.create_connection(("127.0.0.1", tls), timeout=20) as s:
            s.sendall(f"{method} {path} HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\nConnection: close\r\n\r\n".encode())
            got = b""
            while data := s.recv(65536):
                got += data
            return got

    try:
        got = ask("GET")
        assert got.startswith(b"HTTP/1.1 200 ") and b"x-forwarded-proto: http\r\n" in got
        assert b"client-cert" not in got.lower()
        assert ask("POST").startswith(b"HTTP/1.1 403 ")
        status, ports = readiness(agent, server)
        caller = ports["in"]["callers"][0]
        assert status == 3 and (caller["class"], caller["allowed"], caller["denied"]) == ("http1", 1, 1)
        assert 'postern_permissive_decisions{listener="in",port="%d",verdict="allow"} 1' % upstream.port in server.metrics().replace(
            "_total{", "{"
        )
        turned = server.wait_event("port_turned_strict", timeout=20)
        assert turned["listener"] == "in"
        server.wait_event("connection", transport="plaintext")
        assert not ask("GET").startswith(b"HTTP/")
        status, ports = readiness(agent, server)
        assert status == 0 and ports["in"]["mode"] == "strict"
        assert server.status()["permissive"][0]["mode"] == "strict"
    finally:
        upstream.close()
