"""A real ztunnel on either side of us: who may, who may not, and bytes. POSTERN_ZTUNNEL names the executable."""

import contextlib
import socket

import pytest
import ztunnel
from hbone_mesh import ALPHA, POSTERN, HboneMesh, pour, sessions, talk
from lab import wait_for
from node import TD
from servers import TcpServer, echo

pytestmark = pytest.mark.skipif(not ztunnel.BINARY, reason="no ztunnel here (POSTERN_ZTUNNEL=PATH)")


@pytest.fixture
def mesh(node):
    m = HboneMesh(node)
    m.start_agent()
    return m


# --- ztunnel calls us -----------------------------------------------------------------------------------
def test_ztunnel_to_us(mesh):
    mesh.start()
    with contextlib.ExitStack() as stack:
        workload = stack.enter_context(TcpServer(mesh.node.netns, echo, 8080, mesh.ip["postern"]))
        alpha = stack.enter_context(contextlib.closing(mesh_ztunnel(mesh, "alpha")))
        beta = stack.enter_context(contextlib.closing(mesh_ztunnel(mesh, "beta")))
        here = mesh.ip["postern"]
        # The right identity, with the policy's rule and the caller's identity in our log.
        assert talk(lambda: alpha.connect(here, 8080), b"from a ztunnel") == b"from a ztunnel"
        line = mesh.proxy.wait_event("connection", reason="done", peer_id=ALPHA, rule="alpha-everything")
        assert line["transport"] == "hbone" and line["port"] == 8080 and line["bytes_up"] == 14
        # Another, and a port that no rule names: 401, and ztunnel says so.
        accepted = workload.accepted
        assert talk(lambda: beta.connect(here, 8080), b"x") in ("reset", b"")
        wait_for("ztunnel's 401", lambda: "401" in beta.log())
        assert talk(lambda: alpha.connect(here, 8079), b"x") in ("reset", b"")
        wait_for("ztunnel's 401", lambda: "401" in alpha.log())
        assert workload.accepted == accepted
        # A closed port: 503.
        assert talk(lambda: alpha.connect(here, 8082), b"x") in ("reset", b"")
        wait_for("ztunnel's 503", lambda: "503" in alpha.log())
        # A hundred at once over one connection of ztunnel's, each with its own bytes.
        many = [alpha.connect(here, 8080) for _ in range(100)]
        for i, s in enumerate(many):
            s.sendall(b"%03d" % i)
        assert [s.recv(3) for s in many] == [b"%03d" % i for i in range(100)]
        assert sessions(mesh, "inbound") <= 4  # alpha's pool, and beta's
        for s in many:
            s.close()
        assert pour(alpha.connect(here, 8080), 64)


def mesh_ztunnel(m, name, policies=()):
    named = [f"default/{p['name']}" for p in policies]
    own = [ztunnel.workload(n, m.ip[n], TD, policies=named if n == name else ()) for n in m.ns]
    return ztunnel.Ztunnel(m.lab, m.root, name, m.ns[name], own, policies)


# --- we call ztunnel ------------------------------------------------------------------------------------
@pytest.mark.parametrize("transport", ["hbone", "auto"])
def test_us_to_ztunnel(mesh, transport):
    may = ztunnel.allow("may", [POSTERN], [8080, 8082])
    proxy = mesh.start(mesh=mesh.services(transport), extra="workers: 1\n")  # a pool each
    with contextlib.ExitStack() as stack:
        stack.enter_context(TcpServer(mesh.ns["beta"], echo, 8080, mesh.ip["beta"]))
        other = stack.enter_context(TcpServer(mesh.ns["beta"], echo, 8081, mesh.ip["beta"]))
        stack.enter_context(contextlib.closing(mesh_ztunnel(mesh, "beta", [may])))
        there = mesh.ip["beta"]

        def connect(port=8080):
            with mesh.at("postern"):
                return socket.create_connection((there, port), 20)

        assert talk(connect, b"to a ztunnel") == b"to a ztunnel"
        line = proxy.wait_event("connection", reason="done", direction="outbound", transport="hbone")
        assert line["peer_id"] == ztunnel.identity("beta", TD)
        assert line["transport_why"] == {"hbone": "declared", "auto": "tried"}[transport]
        # Its policy: a port that it does not give us. No other way is tried.
        assert talk(lambda: connect(8081), b"x") == "reset"
        line = proxy.wait_event("connection", port=8081, direction="outbound")
        assert line["reason"] == "stream_refused" and line["transport"] == "hbone" and "401" in str(line), line
        assert other.accepted == 0
        assert talk(lambda: connect(8082), b"x") == "reset"
        line = proxy.wait_event("connection", port=8082, direction="outbound")
        assert line["reason"] == "stream_refused" and "503" in str(line), line
        if transport == "auto":
            assert talk(connect, b"again") == b"again"
            proxy.wait_event("connection", reason="done", transport="hbone", transport_why="learned")
        many = [connect() for _ in range(100)]
        for i, s in enumerate(many):
            s.sendall(b"%03d" % i)
        assert [s.recv(3) for s in many] == [b"%03d" % i for i in range(100)]
        assert sessions(mesh, "outbound") == 1
        for s in many:
            s.close()
        assert pour(connect(), 64)


def test_a_ztunnel_of_another_identity_is_not_taken(mesh):
    """It stands at beta's address and is alpha: neither way is it beta."""
    proxy = mesh.start(mesh=mesh.services("auto"))
    own = [ztunnel.workload(n, mesh.ip["beta" if n == "alpha" else "alpha" if n == "beta" else n], TD) for n in mesh.ns]
    with contextlib.ExitStack() as stack:
        server = stack.enter_context(TcpServer(mesh.ns["beta"], echo, 8080, mesh.ip["beta"]))
        stack.enter_context(contextlib.closing(ztunnel.Ztunnel(mesh.lab, mesh.root, "alpha", mesh.ns["beta"], own)))

        def connect():
            with mesh.at("postern"):
                return socket.create_connection((mesh.ip["beta"], 8080), 20)

        assert talk(connect, b"x") == "reset"
        line = proxy.wait_event("connection", direction="outbound", port=8080)
        assert line["reason"] != "done" and line["transport"] == "hbone", line
        assert server.accepted == 0
