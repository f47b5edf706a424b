"""Restarts that refuse nobody: one process takes the listening sockets over from another (docs/restart.md)."""

import contextlib
import json
import os
import pathlib
import signal
import socket
import subprocess
import sys
import threading
import time

import pytest
from lab import admin_ask, free_port, wait_for
from node import UIDS, Proxy
from servers import TcpServer, echo, http_one

RESTARTS = 10
KEPT_S = 4  # how long a kept connection is used: less than the drain
MESSAGE = 4 * 6 + 256


def take_over(proxy, wait=True, argv=("--take-over",)):
    """A new process beside the running one, by the same file."""
    node = proxy.node
    node.proxies += 1
    name = f"{proxy.name}{node.proxies}"
    process = node.lab.start(
        name, [node.postern, "proxy", *argv, proxy.conf], netns=node.netns, uid=UIDS[proxy.name]
    )
    new = Proxy(node, proxy.name, process, proxy.admin, proxy.conf)
    new.policy_path = proxy.policy_path
    if wait:
        new.wait_event("took_over")
        assert proxy.wait_event("handed_over")["pid"] == process.pid
    return new


@pytest.fixture
def pair(node):
    """(client's port, {name: proxy}) in front of a server that the test plays."""
    servers = []

    def make(handler=echo, protocol="tcp", extra="timeouts: {drain: 20s}\n"):
        node.start_agent()
        server = TcpServer(node.netns, handler)
        servers.append(server)
        tls, plain = free_port(), free_port()
        proxies = {
            "server": node.server_side(tls, server.port, protocol=protocol, extra=extra),
            "client": node.client_side(plain, tls, extra=extra),
        }
        return plain, proxies

    yield make
    for s in servers:
        s.close()


class Load:
    """New connections all the time, and kept ones; every failure is written down."""

    def __init__(self, node, port, http=False):
        self.node, self.port, self.http = node, port, http
        self.failures, self.done, self.stop = [], {"new": 0, "kept": 0}, threading.Event()
        self.threads = [threading.Thread(target=self._run, args=(f,)) for f in [self._new] * 3 + [self._kept] * 3]
        for t in self.threads:
            t.start()

    def _run(self, one):
        with self.node.inside():
            while not self.stop.is_set():
                try:
                    one()
                except OSError as e:
                    self.failures.append((one.__name__, time.monotonic(), repr(e)))
                except EOFError as e:
                    self.failures.append((one.__name__, time.monotonic(), f"ended: {e}"))

    def _connect(self):
        return socket.create_connection(("127.0.0.1", self.port), timeout=15)

    def _exchange(self, s, f, text):
        """One message and its answer; False: the other side says that it was the last one."""
        if not self.http:
            s.sendall(text)
            if f.read(len(text)) != text:
                raise EOFError(text)
            return True
        s.sendall(b"GET /%s HTTP/1.1\r\nHost: a\r\n\r\n" % text)
        status, last, length = f.readline(), False, 0
        if not status.startswith(b"HTTP/1.1 200"):
            raise EOFError(status)
        while (line := f.readline()) != b"\r\n":
            last = last or line.lower().startswith(b"connection: close")
            if line.lower().startswith(b"content-length:"):
                length = int(line.split(b":")[1])
        if len(f.read(length)) != length:
            raise EOFError("body")
        return not last

    def _new(self):
        with self._connect() as s, s.makefile("rb") as f:
            self._exchange(s, f, b"new")
            self.done["new"] += 1
        self.stop.wait(0.005)

    def _kept(self):
        end = time.monotonic() + KEPT_S
        with self._connect() as s, s.makefile("rb") as f:
            while time.monotonic() < end and not self.stop.is_set():
                if not self._exchange(s, f, b"kept"):
                    break
                self.done["kept"] += 1
                self.stop.wait(0.01)

    def end(self):
        self.stop.set()
        for t in self.threads:
            t.join(30)


@pytest.mark.parametrize("protocol", ["tcp", "http"])
def test_restarts_under_load(node, pair, protocol):
    """No connection, new or kept, fails over ten restarts of either side, one at a time."""
    port, proxies = pair(http_one if protocol == "http" else echo, protocol)
    load = Load(node, port, protocol == "http")
    try:
        for i in range(RESTARTS):
            before = dict(load.done)
            name = ("server", "client")[i % 2]
            proxies[name] = take_over(proxies[name])
            assert proxies[name].status()["pid"] == proxies[name].process.pid
            wait_for("connections by the new one", lambda b=before: load.done["new"] > b["new"] + 20, timeout=30)
            assert not load.failures, load.failures[:5]
    finally:
        load.end()
    assert not load.failures, load.failures[:5]
    assert load.done["kept"] > 100


def test_what_waits_in_the_queue_is_not_lost(node, pair):
    """Connections that the old process had not accepted are accepted by the new one."""
    port, proxies = pair()
    old = proxies["client"]
    with node.inside():
        old.process.send_signal(signal.SIGSTOP)
        waiting = [socket.create_connection(("127.0.0.1", port), timeout=20) for _ in range(50)]
        for s in waiting:
            s.sendall(b"early")
        new = take_over(old, wait=False)
        old.process.send_signal(signal.SIGCONT)
        new.wait_event("took_over")
        for s in waiting:
            assert s.recv(100) == b"early"
            s.close()


def test_old_process_drains_and_ends(node, pair):
    port, proxies = pair(extra="timeouts: {drain: 60s}\n")
    with node.inside(), socket.create_connection(("127.0.0.1", port), timeout=20) as kept:
        kept.sendall(b"a")
        assert kept.recv(1) == b"a"
        old = proxies["client"]
        take_over(old)
        assert old.process.alive()
        kept.sendall(b"b")
        assert kept.recv(1) == b"b"
    wait_for("the old one's end", lambda: not old.process.alive())
    assert old.process.p.returncode == 0
    assert json.loads(admin_ask(old.admin, "status"))["ready"], "the socket's file is the new one's"


def test_start_that_fails_changes_nothing(node, pair):
    """A new process that cannot be: the old one goes on, and can be asked again."""
    port, proxies = pair()
    old = proxies["server"]
    good = old.conf.read_text()
    taken = free_port()
    with node.inside(), socket.create_server(("127.0.0.1", taken)):
        old.conf.write_text(good + f"metrics: {{address: 127.0.0.1:{taken}}}\n")
        new = take_over(old, wait=False)
        wait_for("its end", lambda: not new.process.alive())
    assert new.process.p.returncode == 1
    assert new.events("start_failed")
    old.wait_event("take_over_failed", pid=new.process.pid)
    old.conf.write_text(good)
    with node.inside(), socket.create_connection(("127.0.0.1", port), timeout=20) as s:
        s.sendall(b"a")
        assert s.recv(1) == b"a"
    take_over(old)


def test_not_ready_is_not_in_charge(node, pair):
    """While the new one has no identity the old one serves; and it serves on if that one ends."""
    port, proxies = pair()
    old = proxies["client"]
    good = old.conf.read_text()
    old.conf.write_text(good.replace(str(node.socket), str(node.socket) + ".none"))
    new = take_over(old, wait=False)
    new.wait_event("take_over")
    new.wait_event("started")
    with node.inside():
        for _ in range(20):
            with socket.create_connection(("127.0.0.1", port), timeout=5) as s:
                s.sendall(b"a")
                assert s.recv(1) == b"a"
    assert json.loads(admin_ask(old.admin, "status"))["pid"] == old.process.pid
    assert new.process.stop() == 0
    old.wait_event("take_over_failed")
    assert json.loads(admin_ask(old.admin, "status"))["pid"] == old.process.pid
    old.conf.write_text(good)
    take_over(old)


def test_old_process_dies_meanwhile(node, pair):
    """Killed while the new one waits for its identity: its sockets live on, and nothing is refused."""
    port, proxies = pair()
    old = proxies["client"]
    node.agent.send_signal(signal.SIGSTOP)
    for_all = [int(p) for p in subprocess.run(["pgrep", "-P", str(node.agent.pid)], capture_output=True, text=True, check=False).stdout.split()]
    for p in for_all:
        os.kill(p, signal.SIGSTOP)
    new = take_over(old, wait=False)
    new.wait_event("started")
    old.process.stop(signal.SIGKILL)
    with node.inside(), socket.create_connection(("127.0.0.1", port), timeout=20) as s:
        s.sendall(b"a")
        for p in for_all:
            os.kill(p, signal.SIGCONT)
        node.agent.send_signal(signal.SIGCONT)
        assert s.recv(1) == b"a"
    new.wait_event("took_over")


def test_nobody_there_is_an_ordinary_start(node, pair):
    port, proxies = pair()
    proxies["client"].process.stop()
    new = take_over(proxies["client"], wait=False)
    assert "ordinary" in new.wait_event("take_over")["message"]
    new.wait_identity()
    with node.inside(), socket.create_connection(("127.0.0.1", port), timeout=20) as s:
        s.sendall(b"a")
        assert s.recv(1) == b"a"


def test_listeners_may_be_others(node, pair):
    """One that is gone from the file is closed with the old process, a new one is opened."""
    port, proxies = pair(extra="timeouts: {drain: 0s}\n")
    old, other = proxies["client"], free_port()
    old.conf.write_text(old.conf.read_text().replace(f"127.0.0.1:{port}", f"127.0.0.1:{other}"))
    take_over(old)
    wait_for("the old one's end", lambda: not old.process.alive())
    with node.inside():
        with socket.create_connection(("127.0.0.1", other), timeout=20) as s:
            s.sendall(b"a")
            assert s.recv(1) == b"a"
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", port), timeout=20)


def test_needs_an_admin_socket(node, pair):
    _, proxies = pair()
    conf = node.conf / "bare.yaml"
    conf.write_text(proxies["client"].conf.read_text().split("admin:")[0])
    p = node.lab.run_in([node.postern, "proxy", "--take-over", conf], netns=node.netns, with_hosts=False)
    assert p.returncode == 2
    assert "--take-over needs an admin socket" in p.stderr


# --- who may, and what a hostile one gets --------------------------------------------------------


THIEF = r'''
import json, os, socket, sys
s = socket.socket(socket.AF_UNIX)
s.connect(sys.argv[1])
try:
    s.sendall(b"GET take-over\n")
except BrokenPipeError:
    pass  # refused already, and why can be read
fds, data = [], b""
while True:
    piece, new, _, _ = socket.recv_fds(s, 280, 8)
    fds += new
    data += piece
    if not piece or data.startswith(b"{") or (len(data) % 280 == 0 and data[-272:-268] == b"\x02\0\0\0"):
        break
print(json.dumps({"sockets": len(fds), "text": data[:200].decode("latin-1")}), flush=True)
for line in sys.stdin:
    s.sendall(bytes.fromhex(line.strip()))
    print(json.dumps({"end": len(s.recv(1000))}), flush=True)
'''


@contextlib.contextmanager
def asking(proxy, uid):
    """A process of that uid that asks; yields what it says: lines of JSON."""
    p = subprocess.Popen(
        ["setpriv", f"--reuid={uid}", f"--regid={uid}", "--clear-groups", sys.executable, "-c", THIEF, str(proxy.admin)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        yield p, json.loads(p.stdout.readline())
    finally:
        p.stdin.close()
        p.wait(20)
        p.stdout.close()



ANY = "  take_over: uid\n"  # under `admin:`, which is the last section: a thief is no postern


def serves(node, port):
    with node.inside(), socket.create_connection(("127.0.0.1", port), timeout=20) as s:
        s.sendall(b"a")
        return s.recv(1) == b"a"


def test_take_over_by_another_uid(node, pair):
    port, proxies = pair()
    os.chmod(proxies["client"].admin, 0o666)  # not the file's mode alone
    with asking(proxies["client"], UIDS["stranger"]) as (_, said):
        assert said["sockets"] == 0
        assert "this uid may not ask" in said["text"]
    # Root may ask for documents here, and not for the sockets.
    with asking(proxies["client"], 0) as (_, said):
        assert said["sockets"] == 0
        assert "only a process of the same uid" in said["text"]
    assert serves(node, port)


def test_take_over_by_another_executable(node, pair):
    """The same user is not enough: what asks has to be what runs."""
    port, proxies = pair()
    with asking(proxies["client"], UIDS["client"]) as (p, said):
        assert said["sockets"] == 0
        assert "only the same executable" in said["text"]
        refused = proxies["client"].wait_event("take_over_refused", pid=p.pid)
        assert refused["same"] == "other" and refused["uid"] == UIDS["client"]
        assert pathlib.Path(refused["executable"]).name.startswith("python")
    assert serves(node, port)
    take_over(proxies["client"])
    assert proxies["client"].events("take_over_asked")[-1]["same"] == "file"
    assert proxies["client"].events("handed_over")[-1]["build"]


def test_take_over_by_nobody(node, pair):
    port, proxies = pair(extra="  take_over: nobody\n")
    new = take_over(proxies["client"], wait=False)
    wait_for("its end", lambda: not new.process.alive())
    assert "this process is not taken over" in new.events("start_failed")[-1]["error"]
    assert serves(node, port)


@pytest.mark.parametrize("bytes_", ["00" * MESSAGE, "00", "50534854" + "02000000" + "03000000" + "ff" * (MESSAGE - 12)])
def test_take_over_protocol_broken(node, pair, bytes_):
    port, proxies = pair(extra=ANY)
    with asking(proxies["client"], UIDS["client"]) as (p, said):
        assert said["sockets"] >= 2
        p.stdin.write(bytes_ + "\n")
        p.stdin.flush()
        assert json.loads(p.stdout.readline())["end"] == 0
    proxies["client"].wait_event("take_over_failed", message="the other process broke the protocol")
    assert serves(node, port)
    take_over(proxies["client"])


def test_take_over_abandoned(node, pair):
    port, proxies = pair(extra=ANY)
    with asking(proxies["client"], UIDS["client"]) as (_, said):
        assert said["sockets"] >= 2
    proxies["client"].wait_event("take_over_failed", message="the other process ended before it was ready")
    assert serves(node, port)
    take_over(proxies["client"])


def test_take_over_only_one(node, pair):
    _, proxies = pair(extra=ANY)
    with asking(proxies["client"], UIDS["client"]) as (_, said):
        assert said["sockets"] >= 2
        with asking(proxies["client"], UIDS["client"]) as (_, second):
            assert second["sockets"] == 0
            assert "another process is taking over" in second["text"]


def test_take_over_from_a_stranger(node, pair):
    """Somebody else's socket where ours should be is not asked."""
    _, proxies = pair()
    proxy = proxies["client"]
    proxy.process.stop()
    with socket.socket(socket.AF_UNIX) as s:
        s.bind(str(proxy.admin))
        os.chmod(proxy.admin, 0o666)
        s.listen(5)
        new = take_over(proxy, wait=False)
        wait_for("its end", lambda: not new.process.alive())
        assert "has uid 0" in new.events("start_failed")[-1]["error"]
        os.unlink(proxy.admin)
