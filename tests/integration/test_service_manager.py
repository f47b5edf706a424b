"""The test plays the service manager: what it is told, a watchdog that sees one worker hang, sockets that it opened."""

import ctypes
import json
import os
import re
import signal
import socket
import sys
import threading

import pytest
from lab import admin_ask, free_port, in_netns, wait_for
from node import UIDS, Proxy
from servers import TcpServer, echo

# What a manager does between fork and exec: descriptors from 3 on, and the variables that tell of them.
ACTIVATE = r"""
import os, sys
fds, names, argv = [int(f) for f in sys.argv[1].split(",")], sys.argv[2], sys.argv[3:]
high = [os.dup(f) for f in fds]
while any(f < 3 + len(fds) for f in high):
    high = [os.dup(f) for f in high]
for f in fds:
    os.set_inheritable(f, False)
for i, f in enumerate(high):
    os.dup2(f, 3 + i, inheritable=True)
os.environ.update(LISTEN_PID=str(os.getpid()), LISTEN_FDS=str(len(fds)), LISTEN_FDNAMES=names)
os.execv(argv[0], argv)
"""


class Manager:
    """A notify socket, and what came to it."""

    def __init__(self, lab, name="notify"):
        self.path = lab.dir / name
        self.s = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.s.bind(str(self.path))
        os.chmod(self.path, 0o666)
        self.env = {**os.environ, "NOTIFY_SOCKET": str(self.path)}

    def hear(self, timeout=30):
        self.s.settimeout(timeout)
        return self.s.recv(1000).decode()

    def silent(self, seconds):
        """Whether nothing comes any more, once what is under way has come."""
        n = 0
        while True:
            try:
                self.hear(seconds)
                n += 1
                assert n < 10, "it goes on"
            except TimeoutError:
                return True


@pytest.fixture
def manager(lab):
    m = Manager(lab)
    yield m
    m.s.close()


@pytest.fixture
def server(node):
    with TcpServer(node.netns, echo) as s:
        yield s


def write_proxy(node, name, listeners, extra=""):
    """Its file, and where its admin socket will be."""
    admin = node.lab.private_dir(f"admin-{name}", UIDS[name]) / "admin.sock"
    conf = node.conf / f"{name}-managed.yaml"
    (node.conf / "allow.yaml").write_text(
        "kind: Policy\nlevel: 1\nrules:\n  - {name: all, action: ALLOW, from: [{principals: ['*']}]}\n"
    )
    conf.write_text(
        f"kind: Proxy\nlevel: 1\nname: {name}\nidentity: {{socket: 'unix:{node.socket}'}}\npolicy: allow.yaml\n"
        f"listeners:\n{listeners}admin: {{socket: {admin}, allow_uids: [0, {UIDS[name]}]}}\n{extra}"
    )
    return conf, admin


def start(node, name, conf, admin, fds=(), names="", env=None, tag="managed"):
    argv = [node.postern, "proxy", conf]
    if fds:
        argv = [sys.executable, "-c", ACTIVATE, ",".join(str(f.fileno()) for f in fds), names, *argv]
    process = node.lab.start(
        f"{name}-{tag}", argv, netns=node.netns, uid=UIDS[name], env=env, pass_fds=[f.fileno() for f in fds]
    )
    return Proxy(node, name, process, admin, conf)


def outbound(address, to):
    return (
        f"  - name: out\n    direction: outbound\n    capture: explicit\n    address: {address}\n"
        f"    to: {to}\n    identities: [spiffe://test.example/server]\n"
    )


# --- what is told ---


def test_proxy_tells_of_its_life(node, server, manager):
    node.start_agent()
    conf, admin = write_proxy(node, "client", outbound(f"127.0.0.1:{free_port()}", f"127.0.0.1:{server.port}"))
    proxy = start(node, "client", conf, admin, env=manager.env)
    assert manager.hear() == "READY=1\nSTATUS=Serving\n"
    assert proxy.status()["ready"]
    proxy.process.send_signal(signal.SIGHUP)
    assert re.fullmatch(r"RELOADING=1\nMONOTONIC_USEC=\d+\n", manager.hear())
    assert manager.hear() == "READY=1\nSTATUS=Serving\n"
    good = conf.read_text()
    conf.write_text(good + "nonsense: 1\n")
    proxy.process.send_signal(signal.SIGHUP)
    assert manager.hear().startswith("RELOADING=1\n")
    assert manager.hear() == "READY=1\nSTATUS=Serving; the last reload failed\n"
    proxy.process.send_signal(signal.SIGTERM)
    assert manager.hear() == "STOPPING=1\nSTATUS=Draining\n"
    assert proxy.process.stop() == 0


def test_ready_only_with_an_identity(node, server, manager):
    """Nothing is told while the agent is away, and readiness when it comes."""
    conf, admin = write_proxy(node, "client", outbound(f"127.0.0.1:{free_port()}", f"127.0.0.1:{server.port}"))
    proxy = start(node, "client", conf, admin, env=manager.env)
    proxy.wait_event("started")
    proxy.process.send_signal(signal.SIGHUP)
    proxy.wait_event("reloaded")
    assert manager.silent(0.5)
    node.start_agent()
    assert manager.hear() == "READY=1\nSTATUS=Serving\n"


def test_without_an_identity_for_too_long(node, server, manager):
    text = outbound(f"127.0.0.1:{free_port()}", f"127.0.0.1:{server.port}")
    conf, admin = write_proxy(node, "client", text)
    conf.write_text(conf.read_text().replace("identity: {", "identity: {wait: 300ms, "))
    start(node, "client", conf, admin, env=manager.env)
    assert manager.hear() == "READY=1\nSTATUS=Accepting, without an identity yet\n"


def test_address_that_is_none(node, server):
    conf, admin = write_proxy(node, "client", outbound(f"127.0.0.1:{free_port()}", f"127.0.0.1:{server.port}"))
    proxy = start(node, "client", conf, admin, env={**os.environ, "NOTIFY_SOCKET": "vsock:2:1"})
    wait_for("its end", lambda: not proxy.process.alive())
    assert proxy.process.p.returncode == 2
    assert "NOTIFY_SOCKET" in proxy.events("start_failed")[0]["error"]


# --- the watchdog ---

PTRACE_DETACH, PTRACE_SEIZE, PTRACE_INTERRUPT, WALL = 17, 0x4206, 0x4207, 0x40000000


class Stopped:
    """One thread of another process stands still; the others go on."""

    def __init__(self, tid):
        self.tid = tid
        self.libc = ctypes.CDLL(None, use_errno=True)
        self.libc.ptrace.argtypes = [ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p]

    def _ptrace(self, request):
        if self.libc.ptrace(request, self.tid, None, None) == -1:
            e = ctypes.get_errno()
            raise OSError(e, os.strerror(e))

    def __enter__(self):
        self._ptrace(PTRACE_SEIZE)
        self._ptrace(PTRACE_INTERRUPT)
        os.waitpid(self.tid, WALL)
        return self

    def __exit__(self, *exc):
        self._ptrace(PTRACE_DETACH)


def test_watchdog_sees_each_thread(node, server, manager):
    """Signs of life while all threads turn; none while any one of them, worker or main, stands still."""
    node.start_agent()
    conf, admin = write_proxy(
        node, "client", outbound(f"127.0.0.1:{free_port()}", f"127.0.0.1:{server.port}"), "workers: 2\n"
    )
    proxy = start(node, "client", conf, admin, env={**manager.env, "WATCHDOG_USEC": "800000"})
    assert manager.hear().startswith("READY=1\n")
    for _ in range(5):
        assert manager.hear() == "WATCHDOG=1\n"
    threads = sorted(int(t) for t in os.listdir(f"/proc/{proxy.process.pid}/task"))
    assert len(threads) == 3
    for tid in threads:
        with Stopped(tid):
            assert manager.silent(0.8), tid
        assert manager.hear() == "WATCHDOG=1\n"
    assert proxy.process.stop() == 0


# --- sockets that the manager opened ---


@pytest.fixture
def sides(node, server):
    """(address of the client's listener, the client's file and admin socket) with the server's side running."""
    node.start_agent()
    tls, plain = free_port(), free_port()
    node.server_side(tls, server.port)
    return plain, *write_proxy(
        node, "client", outbound(f"127.0.0.1:{plain}", f"127.0.0.1:{tls}"), "workers: 2\ntimeouts: {drain: 3s}\n"
    )


def listening(node, port):
    with in_netns(node.netns):
        return socket.create_server(("127.0.0.1", port), backlog=1024)


def echoes(node, port):
    with node.inside(), socket.create_connection(("127.0.0.1", port), timeout=30) as s:
        s.sendall(b"abc")
        return s.recv(3) == b"abc"


def test_activation_across_restarts(node, sides, manager):
    """Nobody is refused over ten ends and starts, also while no process is there at all."""
    port, conf, admin = sides
    failures, done, stop = [], [0], threading.Event()

    def load():
        while not stop.is_set():
            try:
                done[0] += echoes(node, port)
            except OSError as e:
                failures.append(repr(e))
            stop.wait(0.01)

    with listening(node, port) as s:
        thread = threading.Thread(target=load)
        thread.start()
        try:
            for i in range(10):
                proxy = start(node, "client", conf, admin, [s], "web", manager.env, tag=f"managed{i}")
                while not manager.hear().startswith("READY=1"):
                    pass
                before = done[0]
                wait_for("connections", lambda b=before: done[0] > b + 3)
                assert proxy.process.stop() == 0
                assert not failures, failures
        finally:
            stop.set()
            # The last connection waits in the queue: somebody has to answer it.
            last = start(node, "client", conf, admin, [s], "web", tag="last")
            thread.join(40)
        last.process.stop()
    assert not failures, failures
    assert done[0] > 30


def test_activation_by_workers(node, sides):
    """One socket is shared by the workers; of two, each worker has one. Connections are served by either."""
    port, conf, admin = sides
    with in_netns(node.netns):
        many = [socket.socket() for _ in range(2)]
        for s in many:
            s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            s.bind(("127.0.0.1", port))
            s.listen(128)
    proxy = start(node, "client", conf, admin, many, "a:a")
    proxy.wait_identity()
    inodes = {os.fstat(s.fileno()).st_ino for s in many}
    for s in many:
        s.close()
    held = [os.stat(p).st_ino for p in fds_of(proxy.process.pid)]
    assert sorted(i for i in held if i in inodes) == sorted(inodes), "each once"
    assert all(echoes(node, port) for _ in range(50))


def fds_of(pid):
    return [f"/proc/{pid}/fd/{fd}" for fd in os.listdir(f"/proc/{pid}/fd")]


def test_activated_admin_and_metrics(node, sides):
    """By address, too; the socket's file stays when the process ends, since it is the manager's."""
    port, conf, admin = sides
    metrics = free_port()
    conf.write_text(conf.read_text() + f"metrics: {{address: '127.0.0.1:{metrics}'}}\n")
    with listening(node, port) as web, listening(node, metrics) as m, socket.socket(socket.AF_UNIX) as a:
        a.bind(str(admin))
        a.listen(5)
        proxy = start(node, "client", conf, admin, [web, m, a], "web:m:a")
        proxy.wait_identity()
        with node.inside(), socket.create_connection(("127.0.0.1", metrics), timeout=10) as s:
            s.sendall(b"GET /ready HTTP/1.1\r\n\r\n")
            assert s.recv(100).startswith(b"HTTP/1.1 200")
        assert echoes(node, port)
        assert proxy.process.stop() == 0
        assert admin.exists()
        again = start(node, "client", conf, admin, [web, m, a], "web:m:a", tag="again")
        again.wait_identity()
        assert again.status()["pid"] == again.process.pid


def test_socket_that_nothing_takes(node, sides):
    port, conf, admin = sides
    with listening(node, port) as web, listening(node, free_port()) as other:
        proxy = start(node, "client", conf, admin, [web, other], "web:other")
        wait_for("its end", lambda: not proxy.process.alive())
    assert proxy.process.p.returncode == 2
    assert "nothing here takes: 'other'" in proxy.events("start_failed")[0]["error"]


def test_descriptor_that_is_no_listener(node, sides):
    port, conf, admin = sides
    with listening(node, port) as web, socket.socket() as other:
        proxy = start(node, "client", conf, admin, [web, other], "web:other")
        wait_for("its end", lambda: not proxy.process.alive())
    assert proxy.process.p.returncode == 2
    assert "socket 'other'" in proxy.events("start_failed")[0]["error"]


def test_agent_sockets(node, lab):
    """The Workload API's socket is the manager's: callers wait while there is no agent, and none is refused.

    Who comes while the agent starts may be told to try again, as at any time (the service is not there yet)."""
    node.write_entries()
    node.write_agent()
    tries = [0]

    def fetch(name):
        tries[0] += 1
        p = lab.start(f"{name}-{tries[0]}", [node.postern, "svid", "fetch", "--socket", node.socket, "--timeout", "30"], uid=UIDS["client"])
        return p

    with socket.socket(socket.AF_UNIX) as api:
        api.bind(str(node.socket))
        os.chmod(node.socket, 0o666)
        api.listen(128)
        argv = [sys.executable, "-c", ACTIVATE, str(api.fileno()), "api", node.postern, "agent", node.conf / "agent.yaml"]
        for i in range(2):
            waiting = fetch("early")
            agent = lab.start(f"agent{i}", argv, pass_fds=[api.fileno()])
            while waiting.p.wait(40) != 0:
                assert "try again" in waiting.err(), waiting.err()
                waiting = fetch("again")
            assert "spiffe://test.example/client" in waiting.out()
            assert agent.stop() == 0
            assert node.socket.exists()


# A machine of its own: its first process, an agent in a copy of that one's mount namespace, and two callers.
MACHINE = r"""
postern=$1 conf=$2 log=$3 socket=$4
unshare --mount --propagation slave sh -c 'mount -t tmpfs none /mnt && exec "$@"' sh \
    "$postern" agent "$conf" 2>"$log" &
until grep -q '"event": *"ready"' "$log"; do kill -0 $! || exit 9; sleep 0.05; done
[ "$(readlink /proc/$!/ns/mnt)" != "$(readlink /proc/1/ns/mnt)" ] || exit 8
setpriv --reuid=48109 --regid=48109 --clear-groups "$postern" svid fetch --socket "$socket" || exit 7
! unshare --mount "$postern" svid fetch --socket "$socket" || exit 6
kill $! && wait $!
"""


def test_agent_in_a_copy_of_the_mount_namespace(node, lab):
    """As a hardened unit runs: paths and user names still mean what they mean to everybody on the machine; a caller
    in a namespace of its own, where the path may be anything, has none.

    Regression: they held for nobody, since the agent took its own copy for the only namespace that counts."""
    exe = node.postern.resolve()
    node.write_entries(
        extra=f'  - id: by-path\n    spiffe_id: spiffe://test.example/by-path\n    selectors: ["unix:path:{exe}"]\n'
    )
    node.write_agent()
    p = lab.run_in(
        ["unshare", "--pid", "--fork", "--kill-child", "--mount-proc", "sh", "-c", MACHINE, "sh",
         exe, node.conf / "agent.yaml", lab.dir / "agent.log", node.socket], timeout=60,
    )  # fmt: skip
    assert p.returncode == 0, (p.stdout, p.stderr, (lab.dir / "agent.log").read_text()[-2000:])
    assert "spiffe://test.example/by-path" in p.stdout


def test_documents_of_one_that_was_activated(node, sides):
    port, conf, admin = sides
    with listening(node, port) as web:
        proxy = start(node, "client", conf, admin, [web], "web")
        proxy.wait_identity()
        assert json.loads(admin_ask(admin, "status"))["listeners"][0]["address"] == f"127.0.0.1:{port}"
