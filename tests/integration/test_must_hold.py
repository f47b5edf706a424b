"""What has to hold whatever happens around us: an agent away, SIGKILL at any moment, disks that take nothing.

The agent's own ends and files are in test_agent_processes.py; here is the node, and what proxies see of it.
"""

import contextlib
import json
import os
import pathlib
import random
import re
import signal
import socket
import threading

import pytest
from lab import admin_ask, free_port, run, wait_for
from node import TD, UIDS, spiffe_id
from servers import TcpServer, echo


def attempt(node, port, text=b"marker", timeout=20):
    """None, or what went wrong with one new connection."""
    try:
        with node.inside():
            s = socket.create_connection(("127.0.0.1", port), timeout=timeout)
        with s:
            s.sendall(text)
            s.shutdown(socket.SHUT_WR)
            got = b""
            while chunk := s.recv(100):
                got += chunk
            return None if got == text else f"came back as {got!r}"
    except OSError as e:
        return f"{type(e).__name__}: {e}"


def many(node, port, count, until=lambda: True, limit=20000):
    """At least count new connections, and on until the condition holds; returns the failures."""
    failures, done = [], 0

    def one(i):
        e = attempt(node, port, b"n%d" % i)
        if e:
            failures.append((i, e))

    while done < count or not until():
        threads = [threading.Thread(target=one, args=(done + k,)) for k in range(20)]
        for t in threads:
            t.start()
        for t in threads:
            t.join()
        done += 20
        assert done < limit, "the condition is out of sight"
    return failures


@pytest.fixture
def pair(node):
    """make(ttl) -> (client's port, client, server): an agent and a pair of proxies before an echo server."""
    with contextlib.ExitStack() as stack:

        def make(ttl="1h"):
            node.start_agent(ttl=ttl)
            workload = stack.enter_context(TcpServer(node.netns, echo))
            tls, plain = free_port(), free_port()
            server = node.server_side(tls, workload.port)
            return plain, node.client_side(plain, tls), server

        yield make


def kill(process):
    """SIGKILL for the one process that was started; whatever it had started must go by itself."""
    if process.alive():
        os.kill(process.pid, signal.SIGKILL)
    process.p.wait(10)
    wait_for(f"the rest of {process.name} to end", lambda: not session_of(process.pid))


def session_of(sid):
    """The living processes of a session (each of ours leads one)."""
    found = []
    for d in pathlib.Path("/proc").iterdir():
        if d.name.isdigit():
            with contextlib.suppress(OSError):
                fields = (d / "stat").read_text().rpartition(")")[2].split()
                if int(fields[3]) == sid and fields[0] not in "ZX":
                    found.append(int(d.name))
    return found


# --- an agent away ---------------------------------------------------------------------------------------


def test_agent_gone_while_connections_come(node, pair):
    port, client, server = pair("5m")
    before = [p.status()["identity"]["serial"] for p in (client, server)]
    kill(node.agent)
    both_know = lambda: all(p.status()["identity"]["last_error"] for p in (client, server))  # noqa: E731
    failures = many(node, port, 300, both_know)
    assert not failures, failures[:5]
    assert [p.status()["identity"]["serial"] for p in (client, server)] == before
    node.start_agent()
    both_found = lambda: not any(p.status()["identity"]["last_error"] for p in (client, server))  # noqa: E731
    failures = many(node, port, 100, both_found)
    assert not failures, failures[:5]


def test_agent_frozen_while_connections_come(node, pair):
    """It is there and does not answer: nobody on the data path waits for it."""
    port, client, server = pair("5m")
    frozen = session_of(node.agent.pid)
    assert len(frozen) >= 4
    for pid in frozen:
        os.kill(pid, signal.SIGSTOP)
    try:
        failures = many(node, port, 300)
    finally:
        for pid in frozen:
            os.kill(pid, signal.SIGCONT)
    assert not failures, failures[:5]
    assert client.status() and server.status()


def test_agent_away_past_the_end_of_certificates(node, pair):
    """What has expired is not used, and it is said; with an agent again, nobody has to be restarted."""
    port, client, server = pair("10s")
    assert attempt(node, port) is None
    kill(node.agent)
    wait_for("a refusal", lambda: attempt(node, port, timeout=5), 30)
    assert client.status()["identity"]["last_error"]
    node.start_agent()
    wait_for("connections again", lambda: attempt(node, port, timeout=5) is None, 40)


# --- SIGKILL at any moment -------------------------------------------------------------------------------


def test_killed_at_any_moment_and_started_again(node, pair):
    """Agent or proxy, in its start, at rest, or under load: the next start of the same files works."""
    port, client, server = pair("1h")
    rng = random.Random(11)
    proxies = {"client": client, "server": server}
    for i in range(12):
        victim = rng.choice(["client", "server", "agent"])
        moment = rng.choice(["at once", "listening", "in use"])
        process = node.agent if victim == "agent" else proxies[victim].process
        if moment == "in use":
            assert attempt(node, port) is None
            load = threading.Thread(target=many, args=(node, port, 40))
            load.start()
            kill(process)
            load.join()
        else:
            kill(process)
            again = node.lab.start(f"{victim}-brief{i}", process.argv)
            if moment == "listening":
                path = node.run / "agent-admin.sock" if victim == "agent" else proxies[victim].admin
                wait_for("its answer", lambda a=again, p=path: not a.alive() or admin_ask(p, "status"))
            assert again.alive(), (i, victim, again.err()[-2000:])
            kill(again)
        if victim == "agent":
            node.start_agent()
        else:
            proxies[victim].process = node.lab.start(f"{victim}-again{i}", process.argv)
            proxies[victim].wait_identity()
        wait_for(f"a connection after {victim} was killed {moment}", lambda: attempt(node, port) is None, 30)


# --- disks that take nothing -----------------------------------------------------------------------------


@contextlib.contextmanager
def tmpfs(path, options):
    path.mkdir()
    run("mount", "-t", "tmpfs", "-o", options, "none", path)
    try:
        yield path
    finally:
        run("umount", "-l", path)


def fill(directory):
    with open(directory / "filler", "wb", buffering=0) as f, pytest.raises(OSError, match="No space"):
        while True:
            f.write(b"x" * 4096)


def failed_with(process, status, event):
    """It ended with this status and one such line, which says what to do."""
    assert process.p.wait(30) == status, process.err()[-3000:]
    lines = [json.loads(line) for line in process.err().splitlines() if line.startswith("{")]
    found = [o for o in lines if o["event"] == event]
    assert len(found) == 1, process.err()[-3000:]
    return found[0]


def test_disk_fills_under_the_agent(node):
    """Rotations need no disk, and what was there before is enough for the next start."""
    with tmpfs(node.lab.dir / "disk", "size=256k,mode=0755") as disk:
        node.state = disk / "state"
        node.start_agent(ttl="10s")
        with TcpServer(node.netns, echo) as workload:
            proxy = node.server_side(free_port(), workload.port)
            fill(disk)
            first = proxy.status()["identity"]["serial"]
            wait_for("a rotation", lambda: proxy.status()["identity"]["serial"] != first, 30)
            kill(node.agent)
            node.start_agent()
            last = proxy.status()["identity"]["serial"]
            wait_for("an identity of the new agent", lambda: proxy.status()["identity"]["serial"] != last, 30)


def test_disk_is_read_only_at_the_next_start(node):
    """A root that is there and a directory that takes nothing: one error, and no change to what is there."""
    with tmpfs(node.lab.dir / "disk", "size=256k,mode=0755") as disk:
        node.state = disk / "state"
        node.start_agent()
        kill(node.agent)
        run("mount", "-o", "remount,ro", disk)
        root = (node.state / "ca" / "state").read_bytes()
        node.start_agent(wait=False)
        e = failed_with(node.agent, 1, "agent_failed")
        assert str(node.state) in json.dumps(e) and "Read-only file system" in json.dumps(e) and e["advice"], e
        run("mount", "-o", "remount,rw", disk)
        node.start_agent()
        assert (node.state / "ca" / "state").read_bytes() == root


def test_proxy_whose_log_takes_nothing(node):
    """Every line is refused by a full disk: the data path neither waits nor ends."""
    node.start_agent()
    with TcpServer(node.netns, echo) as workload:
        tls, plain = free_port(), free_port()
        server = node.server_side(tls, workload.port)
        client = node.client_side(plain, tls)
        for proxy in (server, client):
            proxy.process.stop()
            argv = ["sh", "-c", 'exec "$@" >/dev/full 2>&1', "sh", *proxy.process.argv]
            proxy.process = node.lab.start(f"{proxy.name}-mute", argv)
        for proxy in (server, client):
            proxy.wait_identity()
        failures = many(node, plain, 100)
        assert not failures, failures[:5]


def test_proxy_without_room_for_its_socket(node):
    """An admin socket that cannot be made: one error that names it, and no proxy that nobody can ask."""
    node.start_agent()
    with TcpServer(node.netns, echo) as workload, tmpfs(node.lab.dir / "ro", "ro,mode=0755") as disk:
        proxy = node.server_side(free_port(), workload.port)
        proxy.process.stop()
        proxy.conf.write_text(re.sub(r"socket: \S*/admin.sock", f"socket: {disk}/admin.sock", proxy.conf.read_text()))
        process = node.lab.start("server-no-admin", proxy.process.argv)
        e = json.dumps(failed_with(process, 1, "start_failed"))
        assert f"{disk}/admin.sock" in e and "Read-only file system" in e, e


def test_svid_written_to_a_full_disk(node):
    node.start_agent()
    with tmpfs(node.lab.dir / "disk", f"size=64k,mode=0755,uid={UIDS['client']}") as disk:
        fill(disk)
        argv = [node.postern, "svid", "fetch", "--write", disk / "out", "--socket", f"unix:{node.socket}"]
        p = node.lab.run_in(argv, netns=node.netns, uid=UIDS["client"])
        assert p.returncode == 1 and "No space left" in p.stderr and str(disk / "out") in p.stderr, p.stderr
        (disk / "filler").unlink()
        p = node.lab.run_in(argv, netns=node.netns, uid=UIDS["client"])
        assert p.returncode == 0, p.stderr
        assert sorted(f.name for f in (disk / "out").iterdir()) == ["bundle.pem", "svid.pem", "svid_key.pem"]


# --- entries that are wrong ------------------------------------------------------------------------------

GOOD = f'  - id: a\n    spiffe_id: {spiffe_id("a")}\n    selectors: ["unix:uid:48101"]\n'
# Text after three lines of the header, and where the mistake stands.
WRONG = {
    "unknown key": (GOOD + "    tll: 1h\n", "7:5", "ttl"),
    "no selectors": (f"  - id: a\n    spiffe_id: {spiffe_id('a')}\n", "4:5", "selectors"),
    "selector": (GOOD.replace("48101", "root"), "6:17", "unix:uid:"),
    "same id twice": (GOOD + GOOD, "7:9", "a"),
    "other domain": (GOOD.replace(TD, "other.example"), "4", 'entry \\"a\\"'),
    "no SPIFFE ID": (GOOD.replace("spiffe://", "https://"), "5:16", "spiffe://"),
    "ttl": (GOOD + "    ttl: soon\n", "7:10", "soon"),
    "not YAML": ("  - {id: a\n", r"\d+:\d+", ""),
}


@pytest.mark.parametrize("name", WRONG)
def test_wrong_entries(node, name):
    """At the start: exit 2 and the place. Under a running agent: the place, and the old entries stay."""
    text, where, hint = WRONG[name]
    text = "kind: Entries\nlevel: 1\nentries:\n" + text
    path = node.conf / "entries.yaml"

    def place(process):
        for line in process.err().splitlines():
            if re.search(rf"entries\.yaml:{where}\b", line) and hint in line:
                return True
        return False

    path.write_text(text)
    node.start_agent(wait=False)
    assert node.agent.p.wait(30) == 2, node.agent.err()[-2000:]
    assert place(node.agent), node.agent.err()[-2000:]
    assert not node.socket.exists()

    node.write_entries()
    node.start_agent()
    path.write_text(text)
    node.agent.send_signal(signal.SIGHUP)
    wait_for("the refusal and its place", lambda: place(node.agent))
    argv = [node.postern, "svid", "fetch", "--socket", f"unix:{node.socket}"]
    p = node.lab.run_in(argv, netns=node.netns, uid=UIDS["client"])
    assert p.returncode == 0 and spiffe_id("client") in p.stdout, p.stderr
