"""Sessions between two sidecars are resumed where both say so, and not after a change."""

import signal
import socket

from lab import free_port, wait_for
from node import ALLOW_CLIENT, spiffe_id
from servers import TcpServer, echo

ON = "tls: {resumption: on}\nworkers: 1\n"


def ask(node, port):
    """None: reset, which may be as soon as it is made."""
    try:
        with node.inside():
            s = socket.create_connection(("127.0.0.1", port), timeout=20)
        with s:
            s.sendall(b"x")
            return s.recv(10)
    except (ConnectionResetError, BrokenPipeError):
        return None


def resumed(proxy, direction):
    return proxy.status()["handshakes"][direction]["resumed"]


def test_resumed_until_something_changes(node):
    node.start_agent()
    with TcpServer(node.netns, echo) as server:
        tls, port = free_port(), free_port()
        inner = node.server_side(tls, server.port, extra=ON)
        outer = node.client_side(port, tls, extra=ON)
        for _ in range(3):
            assert ask(node, port) == b"x"
        wait_for("both to say so", lambda: resumed(inner, "inbound") == resumed(outer, "outbound") == 2)
        e = wait_for("the log", lambda: inner.events("connection", tls_resumed=True))[-1]
        assert (e["peer_id"], e["rule"], e["tls_version"]) == (spiffe_id("client"), "client-may", "TLSv1.3")
        assert e["tls_group"] in ("X25519", "X25519MLKEM768")
        assert f'postern_handshakes_resumed_total{{direction="inbound"}} 2' in inner.metrics()

        # Another policy: the ticket that the client has is worth nothing, and the policy is asked.
        before = inner.status()["policy"]["generation"]
        inner.policy_path.write_text(ALLOW_CLIENT.format(td="test.example").replace("/client]", "/nobody]"))
        inner.process.send_signal(signal.SIGHUP)
        wait_for("the reload", lambda: inner.status()["policy"]["generation"] > before)
        assert ask(node, port) is None
        assert inner.wait_event("connection", reason="policy_denied")["peer_id"] == spiffe_id("client")
        assert resumed(inner, "inbound") == 2


def test_off_where_one_side_says_nothing(node):
    node.start_agent()
    with TcpServer(node.netns, echo) as server:
        tls, port = free_port(), free_port()
        inner = node.server_side(tls, server.port, extra=ON)
        outer = node.client_side(port, tls)
        for _ in range(3):
            assert ask(node, port) == b"x"
        assert resumed(inner, "inbound") == resumed(outer, "outbound") == 0
        group = sum(inner.status()["handshakes"]["inbound"]["groups"].values())
        assert group == 3
