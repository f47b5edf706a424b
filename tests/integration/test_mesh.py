"""Kernel redirection, whole: the demo's mesh, tried where it could leak."""

import signal
import socket
import sys

import pytest
from lab import ROOT, in_netns, wait_for

sys.path.insert(0, str(ROOT / "demo"))

from mesh import HTTP_PORT, TICKER_PORT, WORKLOADS, Mesh  # noqa: E402
from steps import talk  # noqa: E402


@pytest.fixture
def mesh(lab, build):
    m = Mesh(build, "1h", lab)
    m.up()
    return m


def outcome(netns, address, port, data=b"x", timeout=10):
    with in_netns(netns):
        try:
            with socket.create_connection((address, port), timeout=timeout) as s:
                s.sendall(data)
                got = s.recv(100)
                return "closed" if not got else got
        except ConnectionResetError:
            return "reset"
        except ConnectionRefusedError:
            return "refused"
        except TimeoutError:
            return "timeout"


def test_redirection_holds(mesh):
    want = f"ticker ready {mesh.marker('orders')}\ntick one\n"
    # Both families, by the address that the kernel remembers.
    assert talk(mesh, "frontend", mesh.ip4["orders"], TICKER_PORT) == want
    assert talk(mesh, "frontend", mesh.ip6["orders"], TICKER_PORT) == want
    # The application's own loopback is not ours to take.
    assert talk(mesh, "orders", "127.0.0.1", TICKER_PORT) == want
    # Not listed in the mesh map: refused, not forwarded.
    with in_netns(mesh.switch):
        plain = socket.create_server(("10.77.0.254", 7777))
    plain.settimeout(1)
    assert outcome(mesh.ns["frontend"], "10.77.0.254", 7777) == "reset"
    with pytest.raises(TimeoutError):
        plain.accept()
    plain.close()


def test_listeners_take_only_what_was_redirected(mesh):
    """The outbound listener lives on loopback and for redirected connections only; own ports are no destination."""
    for w in WORKLOADS:
        assert outcome(mesh.ns[w], "127.0.0.1", 15001) in ("reset", "closed", "refused")
    for port in (15001, 15006):
        assert outcome(mesh.ns["frontend"], mesh.ip4["orders"], port) in ("reset", "closed", "refused")
        got = outcome(mesh.ns["outside"], mesh.ip4["orders"], port)
        assert got in ("reset", "closed", "refused") or got[:1] == b"\x15", got
    got = outcome(mesh.ns["outside"], mesh.ip4["orders"], TICKER_PORT, b"plain text\n")
    assert got in ("reset", "closed") or got[:1] == b"\x15", got
    assert "plain text" not in mesh.sidecar["orders"].err()


def test_sidecar_killed_fails_closed_and_comes_back(mesh):
    mesh.sidecar["orders"].stop(signal.SIGKILL)
    assert outcome(mesh.ns["outside"], mesh.ip4["orders"], TICKER_PORT) in ("refused", "reset")
    assert talk(mesh, "frontend", mesh.ip4["orders"], TICKER_PORT) != f"ticker ready {mesh.marker('orders')}\ntick one\n"
    mesh.start_sidecar("orders")
    wait_for("the identity", lambda: mesh.status("orders")["identity"]["spiffe_id"])
    assert talk(mesh, "frontend", mesh.ip4["orders"], TICKER_PORT).startswith("ticker ready")


def test_agent_killed_and_back(mesh):
    mesh.agent.stop(signal.SIGKILL)
    assert talk(mesh, "frontend", mesh.ip4["orders"], TICKER_PORT).startswith("ticker ready")
    mesh.start_agent()

    def reconnected():
        return all(not mesh.status(w)["identity"].get("last_error") for w in WORKLOADS)

    wait_for("the sidecars to find the new agent", reconnected, timeout=30)
    assert talk(mesh, "frontend", mesh.ip4["orders"], TICKER_PORT).startswith("ticker ready")


def test_http_judged_by_caller(mesh):
    p = mesh.curl("frontend", f"http://orders:{HTTP_PORT}/orders", "-w", "\n%{http_code}")
    assert p.stdout.endswith("\n200") and mesh.marker("orders") in p.stdout
    p = mesh.curl("ledger", f"http://orders:{HTTP_PORT}/orders", "-w", "\n%{http_code}")
    assert p.stdout.endswith("\n403") and mesh.marker("orders") not in p.stdout
