"""A gateway is exchanged: by taking over, Unix sockets included, and with sockets that the service manager holds."""

import os
import socket
import sys
import threading

import pytest
from gateway import Gateway, connect, start_gateway
from lab import free_port, in_netns, wait_for
from node import ALLOW_CLIENT, UIDS, spiffe_id
from servers import TcpServer, echo
from test_service_manager import ACTIVATE

RESTARTS = 10


@pytest.fixture
def server(node):
    with TcpServer(node.netns, echo) as s:
        yield s


def again(g, identity, argv=("--take-over",), fds=(), names=""):
    """Another process by the same file."""
    node = g.node
    node.proxies += 1
    argv = [node.postern, "gateway", *argv, g.conf]
    if fds:
        argv = [sys.executable, "-c", ACTIVATE, ",".join(str(f.fileno()) for f in fds), names, *argv]
    process = node.lab.start(
        f"{g.name}{node.proxies}", argv, netns=node.netns, uid=UIDS[identity], pass_fds=[f.fileno() for f in fds]
    )
    new = Gateway(node, g.name, process, g.admin, g.conf)
    new.policy_path = g.policy_path
    return new


class Load:
    """New connections all the time; each failure is written down."""

    def __init__(self, node, where, n=3):
        self.node, self.where = node, where
        self.failures, self.done, self.stop = [], 0, threading.Event()
        self.threads = [threading.Thread(target=self._run) for _ in range(n)]
        for t in self.threads:
            t.start()

    def _run(self):
        while not self.stop.is_set():
            try:
                with connect(self.node, self.where) as s:
                    s.sendall(b"abc")
                    got = s.recv(3)
                    assert got == b"abc", got
                self.done += 1
            except (OSError, AssertionError) as e:
                self.failures.append(repr(e))
            self.stop.wait(0.01)

    def more(self, n=10):
        before = self.done
        wait_for("connections", lambda: self.done > before + n or self.failures, timeout=40)
        assert not self.failures, self.failures[:5]

    def end(self):
        self.stop.set()
        for t in self.threads:
            t.join(60)


def pair(node, server, listen, inner_address=None, **kw):
    """(client's gateway, server's gateway), the client's on `listen`."""
    node.start_agent()
    tls = free_port()
    inner = start_gateway(
        node,
        "inner",
        "timeouts: {drain: 10s}\nworkers: 2\nlisteners:\n"
        f"- {{name: web, type: server, address: '{inner_address or f'127.0.0.1:{tls}'}', to: 127.0.0.1:{server.port}}}\n",
        identity="server",
        policy=ALLOW_CLIENT,
        **kw,
    )
    outer = start_gateway(
        node,
        "outer",
        "timeouts: {drain: 10s}\nworkers: 2\nlisteners:\n"
        f"- {{name: out, type: client, address: '{listen}', to: 127.0.0.1:{tls}, identities: [{spiffe_id('server')}]}}\n",
        identity="client",
    )
    return outer, inner, tls


@pytest.mark.parametrize("unix", [False, True], ids=["tcp", "unix"])
def test_take_over_under_load(node, server, unix):
    """Ten exchanges of either gateway; on a Unix socket its file is the newest one's, and goes with that."""
    path = node.lab.private_dir("clients", UIDS["client"]) / "in.sock"
    where = path if unix else free_port()
    outer, inner, _ = pair(node, server, f"unix:{path}" if unix else f"127.0.0.1:{where}")
    load = Load(node, where)
    try:
        load.more()
        for i in range(RESTARTS):
            if i % 2:
                old, inner = inner, again(inner, "server")
                inner.wait_event("took_over")
            else:
                old, outer = outer, again(outer, "client")
                outer.wait_event("took_over")
            old.wait_event("handed_over")
            load.more()
    finally:
        load.end()
    assert not load.failures, load.failures[:5]
    assert outer.process.stop() == 0
    assert not unix or not path.exists()


def test_old_process_leaves_the_sockets_file(node, server):
    path = node.lab.private_dir("clients", UIDS["client"]) / "in.sock"
    outer, _, _ = pair(node, server, f"unix:{path}")
    new = again(outer, "client")
    new.wait_event("took_over")
    outer.wait_event("handed_over")
    wait_for("the old one's end", lambda: not outer.process.alive())
    assert outer.process.p.returncode == 0
    assert path.exists()
    with connect(node, path) as s:
        s.sendall(b"a")
        assert s.recv(1) == b"a"


def test_activation_by_name(node, server, lab):
    """`address: systemd`: the manager's sockets of the listener's name; nobody is refused across ends and starts."""
    tls, plain = free_port(), free_port()
    with in_netns(node.netns):
        web = socket.create_server(("127.0.0.1", tls), backlog=1024)
    with web:
        node.start_agent()
        inner = start_gateway(
            node,
            "inner",
            "timeouts: {drain: 3s}\nworkers: 2\nlisteners:\n"
            f"- {{name: web, type: server, address: systemd, to: 127.0.0.1:{server.port}}}\n",
            identity="server",
            policy=ALLOW_CLIENT,
            wait=False,
        )
        wait_for("its end", lambda: not inner.process.alive())
        assert inner.process.p.returncode == 2
        assert "opened no socket 'web'" in inner.events("start_failed")[0]["error"]
        start_gateway(
            node,
            "outer",
            f"listeners:\n- {{name: out, type: client, address: '127.0.0.1:{plain}', to: 127.0.0.1:{tls}, "
            f"identities: [{spiffe_id('server')}]}}\n",
            identity="client",
        )
        load = Load(node, plain, n=2)
        try:
            for _ in range(5):
                inner = again(inner, "server", (), [web], "web")
                inner.wait_ready()
                load.more(5)
                assert inner.process.stop() == 0
        finally:
            load.stop.set()
            inner = again(inner, "server", (), [web], "web")
            load.end()
        assert not load.failures, load.failures[:5]
        # And from a process that has the manager's socket to the next, without the manager.
        inner.wait_ready()
        new = again(inner, "server")
        new.wait_event("took_over")
        with connect(node, plain) as s:
            s.sendall(b"a")
            assert s.recv(1) == b"a"
        assert new.process.stop() == 0
        assert os.fstat(web.fileno())
