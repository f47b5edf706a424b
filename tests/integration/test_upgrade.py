"""Another executable in the old one's place, and the process exchanged for one that runs it: under load nothing is lost."""

import os
import pathlib
import shutil
import signal
import socket
import threading

import pytest
from lab import free_port, wait_for
from node import spiffe_id
from servers import TcpServer
from test_restart import ANY, Load, take_over

CHUNK = 16 * 1024
UPGRADES = 3


def install(node, place):
    """A new file under the same name, as a package manager puts it there."""
    new = place.with_suffix(".new")
    shutil.copy2(node.build / "proxy" / "postern", new)
    new.rename(place)


@pytest.fixture
def upgradable(node):
    """The node's executable stands at a place of its own, where it can be replaced."""
    place = node.lab.private_dir("bin") / "postern"
    place.parent.chmod(0o755)
    os.environ["POSTERN_LIBEXEC"] = str(node.build / "libexec")
    install(node, place)
    node.postern = place
    yield place
    del os.environ["POSTERN_LIBEXEC"]


def answer(conn):
    """Says every line back, and streams without end whoever asks for it."""
    with conn, conn.makefile("rb") as f:
        for line in f:
            if line != b"stream\n":
                conn.sendall(line)
                continue
            n = 0
            while True:
                try:
                    conn.sendall(n.to_bytes(8, "big") * (CHUNK // 8))
                except OSError:
                    return
                n += 1


class Lines(Load):
    """Requests of a line each."""

    def _exchange(self, s, f, text):
        s.sendall(text + b"\n")
        if f.readline() != text + b"\n":
            raise EOFError(text)
        return True


class Stream(threading.Thread):
    """One long answer, every byte of which is looked at."""

    def __init__(self, node, port):
        super().__init__()
        self.node, self.port, self.chunks, self.failed, self.stop = node, port, 0, None, threading.Event()
        self.start()

    def run(self):
        try:
            with self.node.inside(), socket.create_connection(("127.0.0.1", self.port), timeout=20) as s:
                s.sendall(b"stream\n")
                with s.makefile("rb") as f:
                    while not self.stop.is_set():
                        if f.read(CHUNK) != self.chunks.to_bytes(8, "big") * (CHUNK // 8):
                            raise EOFError(f"chunk {self.chunks}")
                        self.chunks += 1
                        self.stop.wait(0.002)
        except (OSError, EOFError) as e:
            self.failed = repr(e)


def start_pair(node, server, client_extra=""):
    tls, plain = free_port(), free_port()
    extra = "timeouts: {drain: 120s}\n"
    return plain, {
        "server": node.server_side(tls, server.port, extra=extra),
        "client": node.client_side(plain, tls, extra=client_extra + extra),
    }


def start_hbone_pair(node, server):
    """The same, with every connection a stream of one session."""
    tls, plain = free_port(), free_port()
    extra = "timeouts: {drain: 120s}\n"
    return plain, {
        "server": node.start_proxy(
            "server",
            f"  - name: in\n    direction: inbound\n    capture: hbone\n    address: 127.0.0.1:{tls}\n"
            f"    ports:\n      - {{port: {server.port}, protocol: tcp}}\n",
            extra=extra,
        ),
        "client": node.start_proxy(
            "client",
            f"  - name: out\n    direction: outbound\n    capture: explicit\n    address: 127.0.0.1:{plain}\n"
            f"    to: 127.0.0.1:{server.port}\n    identities: [{spiffe_id('server')}]\n    protocol: tcp\n"
            f"    transport: hbone\n    hbone_port: {tls}\n",
            extra=extra,
        ),
    }


@pytest.mark.parametrize("start", [start_pair, start_hbone_pair])
def test_upgrades_under_load(node, upgradable, start):
    """Three new executables in a row, on either side: no connection is refused, no request and not a byte of a long
    answer is lost; each process knows the next one by the place that it was started from."""
    node.start_agent()
    with TcpServer(node.netns, answer) as server:
        port, proxies = start(node, server)
        load, stream = Lines(node, port), Stream(node, port)
        try:
            serials = set()
            for i in range(UPGRADES * 2):
                name = ("server", "client")[i % 2]
                old, before = proxies[name], dict(load.done)
                if name == "server":
                    install(node, upgradable)
                    assert os.readlink(f"/proc/{old.process.pid}/exe").endswith(" (deleted)")
                proxies[name] = take_over(old)
                asked = old.events("take_over_asked")[-1]
                assert (asked["same"], asked["executable"]) == ("place", str(upgradable)), asked
                assert old.events("handed_over")[-1]["build"] == asked["build"]
                serials.add(proxies[name].status()["identity"]["serial"])
                wait_for("connections by the new one", lambda b=before: load.done["new"] > b["new"] + 10, timeout=30)
                assert not load.failures, load.failures[:5]
                assert stream.failed is None
            assert len(serials) == UPGRADES * 2
            at = stream.chunks
            wait_for("the stream to go on", lambda: stream.chunks > at)
        finally:
            stream.stop.set()
            load.end()
            stream.join(30)
    assert not load.failures, load.failures[:5]
    assert stream.failed is None


def test_upgrade_while_certificates_rotate(node):
    """Old and new process renew each their own; requests go on."""
    node.start_agent(ttl="10s")
    with TcpServer(node.netns, answer) as server:
        port, proxies = start_pair(node, server)
        load = Lines(node, port)

        def renewed():
            return not load.failures and len(proxies["server"].events("identity_renewed")) > 0

        try:
            wait_for("a renewal before", renewed, timeout=30)
            proxies["server"] = take_over(proxies["server"])
            wait_for("a renewal behind", renewed, timeout=30)
        finally:
            load.end()
    assert not load.failures, load.failures[:5]


def test_another_file_beside(node, upgradable):
    """The same bytes at another place are another executable, unless the file says that the uid is enough."""
    node.start_agent()
    with TcpServer(node.netns, answer) as server:
        _, proxies = start_pair(node, server, ANY)
        beside = upgradable.with_name("postern-2")
        shutil.copy2(upgradable, beside)
        node.postern = beside
        old = proxies["server"]
        new = take_over(old, wait=False)
        wait_for("its end", lambda: not new.process.alive())
        assert "only the same executable" in new.events("start_failed")[-1]["error"]
        assert old.wait_event("take_over_refused")["executable"] == str(beside)
        take_over(proxies["client"])
        assert "same" not in proxies["client"].events("take_over_asked")[-1]


def test_helper_is_gone(node):
    """Whoever has ended the helper has ended taking over; the process goes on."""
    node.start_agent()
    with TcpServer(node.netns, answer) as server:
        port, proxies = start_pair(node, server)
        old = proxies["client"]
        children = [int(p) for p in pathlib.Path(f"/proc/{old.process.pid}/task/{old.process.pid}/children").read_text().split()]
        helper = next(p for p in children if pathlib.Path(f"/proc/{p}/comm").read_text() == "postern-heir\n")
        os.kill(helper, signal.SIGKILL)
        new = take_over(old, wait=False)
        wait_for("its end", lambda: not new.process.alive())
        assert "which executable" in new.events("start_failed")[-1]["error"]
        with node.inside(), socket.create_connection(("127.0.0.1", port), timeout=20) as s:
            s.sendall(b"a\n")
            assert s.recv(2) == b"a\n"
        assert old.status()["ready"]
