"""The identity's key in a process of its own: docs/key-holder.md, case by case."""

import os
import pathlib
import signal
import socket

import pytest
from gateway import start_gateway
from lab import free_port, wait_for
from node import ALLOW_CLIENT
from servers import TcpServer, echo

ISOLATED = "auto\n  key_isolation: process"


@pytest.fixture
def pair(node):
    """(client's port, client, server), both with a holder of their own."""
    node.start_agent()
    with TcpServer(node.netns, echo) as server:
        tls, plain = free_port(), free_port()
        there = node.server_side(tls, server.port, key=ISOLATED, extra="workers: 2\n")
        yield plain, node.client_side(plain, tls, key=ISOLATED), there


def says(node, port):
    with node.inside(), socket.create_connection(("127.0.0.1", port), timeout=20) as s:
        s.settimeout(20)
        s.sendall(b"hello")
        try:
            return s.recv(5) == b"hello"
        except ConnectionResetError:
            return False


def of(proxy):
    return proxy.status()["hardening"]["key_holder"]


def parent(pid):
    return int(pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


def fields(pid):
    return dict(line.split(":\t", 1) for line in pathlib.Path(f"/proc/{pid}/status").read_text().splitlines())


def test_handshakes(node, pair):
    """Both sides' keys are elsewhere; each handshake is one signature of each."""
    port, client, server = pair
    before = of(client)["signatures"], of(server)["signatures"]
    for _ in range(5):
        assert says(node, port)
    for proxy, n in zip((client, server), before):
        assert proxy.status()["ready"]
        h = of(proxy)
        assert h["signatures"] == n + 5
        assert h["refused"] == h["timeouts"] == 0
        assert h["keys"] == 1
        assert proxy.status()["identity"]["key"] == "csr"
        assert "postern_key_holder_up 1" in proxy.metrics()


def test_processes_are_shut(node, pair):
    """Watcher and holder: no file, no socket, no capability, no filter missing; the status says what the kernel says."""
    _, client, _ = pair
    h = of(client)
    holder, watcher = h["pid"], parent(h["pid"])
    assert parent(watcher) == client.process.pid
    assert h["no_new_privs"] and h["seccomp"] == "key_holder" and not h["dumpable"] and not h["core_dumps"]
    assert h["capabilities"] == "0x0"
    assert h["landlock"]["files"] and h["landlock_abi"] >= 1
    for pid in (holder, watcher):
        f = fields(pid)
        assert f["NoNewPrivs"] == "1" and f["Seccomp"] == "2"
        assert all(int(f[c], 16) == 0 for c in ("CapInh", "CapPrm", "CapEff", "CapAmb"))
        assert pathlib.Path(f"/proc/{pid}/environ").stat().st_uid == 0, "not dumpable: root's"
        fds = [os.readlink(f"/proc/{pid}/fd/{n}") for n in os.listdir(f"/proc/{pid}/fd") if int(n) > 2]
        assert all(fd.startswith(("socket:", "anon_inode:[pidfd]", "pidfd:")) for fd in fds), fds
        assert pathlib.Path(f"/proc/{pid}/exe").resolve().name.startswith("postern-key-holder")
    assert h["keys_locked"] and int(fields(holder)["VmLck"].split()[0]) > 0


def test_rotations(node):
    """Every few seconds a new certificate with a new key, under traffic; the holder does not fill up."""
    node.start_agent(ttl="10s")
    with TcpServer(node.netns, echo) as server:
        tls, plain = free_port(), free_port()
        there = node.server_side(tls, server.port, key=ISOLATED)
        here = node.client_side(plain, tls, key=ISOLATED)
        first = there.status()["identity"]["serial"], here.status()["identity"]["serial"]

        def renewed():
            assert says(node, plain)
            now = there.status()["identity"]["serial"], here.status()["identity"]["serial"]
            return all(a not in (None, b) for a, b in zip(now, first))

        wait_for("renewals", renewed, timeout=30)
        for p in (there, here):
            wait_for("old keys to go", lambda p=p: of(p)["keys"] == 1)
            assert of(p)["refused"] == 0 and of(p)["started"] == 1


def test_holder_killed(node, pair):
    """Not ready, a new holder, key and certificate; connections that are open go on."""
    port, client, server = pair
    with node.inside(), socket.create_connection(("127.0.0.1", port), timeout=20) as live:
        live.sendall(b"a")
        assert live.recv(1) == b"a"
        serial, before = server.status()["identity"]["serial"], of(server)["pid"]
        os.kill(before, signal.SIGKILL)
        assert "signal 9" in server.wait_event("key_holder", notice="ended")["error"]
        wait_for("another certificate", lambda: server.status()["identity"]["serial"] not in (None, serial))
        assert of(server)["pid"] not in (None, before)
        assert server.events("identity_withdrawn")
        wait_for("ready", lambda: server.status()["ready"])
        live.sendall(b"b")
        assert live.recv(1) == b"b"
        assert says(node, port)
        # Again and again: after a pause that grows, never without one.
        for _ in range(3):
            pid = wait_for("a holder", lambda: of(server)["pid"])
            os.kill(pid, signal.SIGKILL)
            wait_for("the next", lambda p=pid: of(server)["pid"] not in (None, p))
        assert "the next comes in 0 ms" not in server.events("key_holder", notice="ended")[-1]["error"]
        live.sendall(b"c")
        assert live.recv(1) == b"c"


def test_holder_hangs(node, pair):
    """Handshakes fail after the deadline, it is told and counted, and another holder comes by itself."""
    port, _, server = pair
    before = of(server)["pid"]
    os.kill(before, signal.SIGSTOP)
    assert not says(node, port)
    server.wait_event("key_holder_timeout")
    assert not server.status()["ready"]
    server.wait_event("key_holder", notice="stuck", timeout=20)
    wait_for("another", lambda: of(server)["answers"] and of(server)["pid"] != before)
    assert of(server)["timeouts"] >= 1
    wait_for("it to serve", lambda: server.status()["ready"] and says(node, port))


def test_watcher_killed(node, pair):
    """Nobody can start another: what is open has its time, and the process ends for its manager to see."""
    port, _, server = pair
    h = of(server)
    os.kill(parent(h["pid"]), signal.SIGKILL)
    server.wait_event("key_holder", notice="lost")
    server.wait_event("draining")
    wait_for("its end", lambda: not server.process.alive(), timeout=20)
    assert server.process.p.returncode == 1
    wait_for("the holder's end", lambda: not pathlib.Path(f"/proc/{h['pid']}").exists())


def test_ends_with_its_proxy(node, pair):
    _, client, server = pair
    for proxy, how in ((client, signal.SIGTERM), (server, signal.SIGKILL)):
        pids = of(proxy)["pid"], parent(of(proxy)["pid"])
        proxy.process.stop(how)
        for pid in pids:
            wait_for("its end", lambda p=pid: not pathlib.Path(f"/proc/{p}").exists() or fields(p)["State"][0] == "Z")


def test_gateway(node):
    """The same for a gateway's identity, and in the one role that it has."""
    node.start_agent()
    with TcpServer(node.netns, echo) as server:
        tls, plain = free_port(), free_port()
        g = start_gateway(
            node,
            "server",
            f"listeners:\n  - {{name: in, type: server, address: '127.0.0.1:{tls}', to: '127.0.0.1:{server.port}'}}\n",
            identity="server",
            policy=ALLOW_CLIENT,
            isolation="process",
        )
        node.client_side(plain, tls, key=ISOLATED)
        assert says(node, plain)
        assert g.status()["hardening"]["key_holder"]["signatures"] >= 1
