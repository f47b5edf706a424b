"""How long connections go on, in whole processes: docs/lifetimes.md. What time says is tests/handles/revoke's to judge."""

import json
import pathlib
import socket
import subprocess
import sys

import pytest
from lab import free_port, in_netns
from plain_gateway import Gateways
from servers import TcpServer, echo

HANDLE = pathlib.Path(__file__).resolve().parents[1] / "handles" / "revoke"


def test_the_revoked_go_and_nobody_else_is_looked_at(build):
    """Of 200 connections on two workers 40 are of the identity that a reload denies."""
    p = subprocess.run(
        [sys.executable, HANDLE, "--build", build, "--connections", "200", "--revoked", "40", "--seconds", "0.5"],
        capture_output=True, text=True, timeout=120, check=False,
    )
    assert p.stdout, p.stderr
    result = json.loads(p.stdout)
    assert p.returncode == 0 and result["ok"], (result, p.stderr)
    assert result["cut"] == 40 and result["others_alive"] == 160
    assert result["judged"] == 40, result


@pytest.fixture
def gateways(lab, build):
    return Gateways(lab, build)


def test_status_and_metrics_tell_when(gateways):
    """A certificate of a day; connections end up to the spread before it does."""
    tls, plain = free_port(), free_port()
    cert, key = gateways.pki.issue("both.example", dns=["both.example"])
    own = f"trust: [{{name: ca, ca: {gateways.pki.pem}}}]\ncredentials: [{{name: own, cert: {cert}, key: {key}}}]\nlisteners:\n"
    with TcpServer(gateways.netns, echo) as target:
        server = gateways.start(
            f"{own}  - {{name: in, type: server, address: '127.0.0.1:{tls}', to: '127.0.0.1:{target.port}', credentials: [own],"
            " trust: ca, allow: {any: true}, expiry_grace: 1h, expiry_spread: 1h}\n"
        )
        gateways.start(
            f"{own}  - {{name: out, type: client, address: '127.0.0.1:{plain}', to: '127.0.0.1:{tls}', credentials: [own],"
            " trust: ca, server_name: both.example}\n"
        )
        assert server.status()["lifetimes"] == {"expiring": 0, "next_s": None, "drained": 0, "outlived": 0}
        with in_netns(gateways.netns):
            c = socket.create_connection(("127.0.0.1", plain), timeout=20)
        with c:
            c.sendall(b"x")
            assert c.recv(1) == b"x"
            told = server.status()["lifetimes"]
        assert told["expiring"] == 1 and 21.5 * 3600 < told["next_s"] <= 23 * 3600, told
