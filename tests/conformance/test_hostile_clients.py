"""A hostile client of the agent's socket: what it does, another uid's single fetch works meanwhile, in bounded memory.

Attack and victim are processes under uids of their own; the attacker's loop runs until it is told to end.
"""

import json
import os
import pathlib
import subprocess
import sys
import textwrap

import pytest
from lab import admin_ask, wait_for
from node import TD

ATTACKER, VICTIM = 48121, 48122
# Memory is measured under the address sanitizer, which multiplies it: a bound that growth without end would pass.
GROWTH_KB = 160_000

HEAD = """
import socket, sys, time, select, struct
sys.path[:0] = sys.argv[2].split(':')
from rawgrpc import Raw, WORKLOAD, EMPTY, frame
import h2.exceptions
PATH = sys.argv[1]
PREFACE = b'PRI * HTTP/2.0\\r\\n\\r\\nSM\\r\\n\\r\\n'
def h2frame(kind, flags, stream, payload=b''):
    return len(payload).to_bytes(3, 'big') + bytes([kind, flags]) + stream.to_bytes(4, 'big') + payload
SETTINGS = h2frame(4, 0, 0)
def connect():
    s = socket.socket(socket.AF_UNIX)
    s.connect(PATH)
    return s
def lit(name, value):
    return b'\\x00' + bytes([len(name)]) + name + bytes([len(value)]) + value
def head(path=b'/SpiffeWorkloadAPI/FetchX509SVID', more=b''):
    return (lit(b':method', b'POST') + lit(b':scheme', b'http') + lit(b':path', path) + lit(b':authority', b'l')
            + lit(b'te', b'trailers') + lit(b'content-type', b'application/grpc') + lit(b'workload.spiffe.io', b'true') + more)
def say(text):
    print(text, flush=True)
"""

ATTACKS = {
    # connections that never speak, as many as it gets
    "half-open": """
        held = []
        while True:
            try:
                held.append(connect())
            except OSError:
                time.sleep(0.01)
            if len(held) == 1500: say('on')
            if len(held) > 1500: held.pop(0).close()
    """,
    # connect, and away again
    "storm": """
        n = 0
        while True:
            try:
                connect().close()
            except OSError:
                pass
            n += 1
            if n == 500: say('on')
    """,
    # thousands of streams whose answers are never read
    "never reads": """
        held = []
        while True:
            s = connect()
            s.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            s.settimeout(1)
            try:
                s.sendall(PREFACE + SETTINGS)
                for i in range(200):
                    s.sendall(h2frame(1, 4, 2 * i + 1, head()) + h2frame(0, 1, 2 * i + 1, EMPTY))
            except OSError:
                pass
            held.append(s)
            if len(held) == 20: say('on')
            if len(held) > 40: held.pop(0).close()
    """,
    # requests that are refused, without end, and no answer is read
    "refused and deaf": """
        s, n = connect(), 0
        s.settimeout(0.2)
        s.sendall(PREFACE + SETTINGS)
        while True:
            try:
                s.sendall(h2frame(1, 5, 2 * n + 1, head(b'/nope')))
                n += 1
            except OSError:
                say('on')
                s.close()
                s, n = connect(), 0
                s.settimeout(0.2)
                s.sendall(PREFACE + SETTINGS)
    """,
    # opens and cancels, over and over
    "rapid reset": """
        while True:
            s = connect()
            try:
                s.sendall(PREFACE + SETTINGS)
                for i in range(2000):
                    s.sendall(h2frame(1, 4, 2 * i + 1, head()) + h2frame(0, 1, 2 * i + 1, EMPTY) + h2frame(3, 0, 2 * i + 1, b'\\0\\0\\0\\x08'))
            except OSError:
                say('on')
            s.close()
    """,
    # waits for each answer, then leaves: a certificate each time, as fast as they come
    "fetches without end": """
        c = [Raw(PATH) for _ in range(8)]
        n = 0
        while True:
            streams = [x.open('/SpiffeWorkloadAPI/FetchX509SVID') for x in c]
            for s in streams:
                s.next()
                s.conn.h2.reset_stream(s.id, 8)
                s.conn.flush()
            n += 1
            if n == 20: say('on')
    """,
    "ping": """
        while True:
            s = connect()
            try:
                s.sendall(PREFACE + SETTINGS)
                for i in range(5000):
                    s.sendall(h2frame(6, 0, 0, b'12345678') * 20)
            except OSError:
                say('on')
            s.close()
    """,
    "settings": """
        while True:
            s = connect()
            try:
                s.sendall(PREFACE + SETTINGS)
                for i in range(5000):
                    s.sendall(SETTINGS * 20)
            except OSError:
                say('on')
            s.close()
    """,
    "continuation": """
        while True:
            s = connect()
            try:
                s.sendall(PREFACE + SETTINGS + h2frame(1, 0, 1, head()))
                for i in range(5000):
                    s.sendall(h2frame(9, 0, 1) * 20)
            except OSError:
                say('on')
            s.close()
    """,
    "big headers": """
        while True:
            s = connect()
            try:
                s.sendall(PREFACE + SETTINGS + h2frame(1, 0, 1, head()))
                for i in range(200):
                    s.sendall(h2frame(9, 0, 1, lit(b'a%d' % i, b'x' * 120) * 100))
            except OSError:
                say('on')
            s.close()
    """,
    # half a message on each of many calls
    "half messages": """
        held = []
        while True:
            s = connect()
            s.settimeout(1)
            try:
                s.sendall(PREFACE + SETTINGS)
                for i in range(60):
                    s.sendall(h2frame(1, 4, 2 * i + 1, head()) + h2frame(0, 0, 2 * i + 1, b'\\0\\0\\0\\xff\\0' + b'x' * 1000))
            except OSError:
                pass
            held.append(s)
            if len(held) == 50: say('on')
            if len(held) > 100: held.pop(0).close()
    """,
    # questions to reflection, and no answer is read
    "reflection": """
        while True:
            s = connect()
            s.settimeout(1)
            try:
                s.sendall(PREFACE + SETTINGS + h2frame(8, 0, 0, b'\\x3f\\xff\\0\\0'))
                s.sendall(h2frame(1, 4, 1, head(b'/grpc.reflection.v1.ServerReflection/ServerReflectionInfo')))
                body = frame(bytes([0x22, 17]) + b'SpiffeWorkloadAPI')
                for i in range(2500):
                    s.sendall(h2frame(0, 0, 1, body))
            except OSError:
                pass
            say('on')
            s.close()
    """,
}

FETCH = """
while True:
    line = sys.stdin.readline()
    if not line: break
    begun = time.monotonic()
    with Raw(PATH) as c:
        c.open('/SpiffeWorkloadAPI/FetchX509SVID').next()
    say(time.monotonic() - begun)
"""


def start(agent, uid, code, **kw):
    argv = agent.lab.argv_in(
        [sys.executable, "-c", HEAD + textwrap.dedent(code), agent.socket, ":".join(sys.path)], uid=uid
    )
    return subprocess.Popen(argv, stdout=subprocess.PIPE, text=True, **kw)


def status(agent):
    return json.loads(admin_ask(agent.node.run / "agent-admin.sock", "status"))


def processes(agent):
    return {p["role"]: p for p in status(agent)["processes"]}


def rss_kb(pid):
    for line in pathlib.Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("RssAnon:"):
            return int(line.split()[1])
    return 0


@pytest.fixture
def hosts(agent):
    """An agent with an identity for either uid."""
    agent.write()
    text = (agent.node.conf / "entries.yaml").read_text()
    for name, uid in (("attacker", ATTACKER), ("victim", VICTIM)):
        text += f'  - id: {name}\n    spiffe_id: spiffe://{TD}/{name}\n    selectors: ["unix:uid:{uid}"]\n'
    (agent.node.conf / "entries.yaml").write_text(text)
    # What was freed stays in the sanitizer's quarantine: keep that small, or it is what is measured.
    options = os.environ.get("ASAN_OPTIONS", "") + ":quarantine_size_mb=8"
    agent.node.start_agent(env={**os.environ, "ASAN_OPTIONS": options.lstrip(":")})
    return agent


@pytest.mark.parametrize("attack", ATTACKS)
def test_another_uid_is_served_meanwhile(hosts, attack):
    before = processes(hosts)
    victim = start(hosts, VICTIM, FETCH, stdin=subprocess.PIPE)

    def fetch():
        victim.stdin.write("\n")
        victim.stdin.flush()
        line = victim.stdout.readline()
        assert line, "the victim's fetch failed"
        return float(line)

    fetch()
    base = {r: rss_kb(p["pid"]) for r, p in before.items()}
    attacker = start(hosts, ATTACKER, ATTACKS[attack])
    try:
        assert attacker.stdout.readline() == "on\n", "the attack did not begin"
        took, grown = [], {}
        for _ in range(15):
            took.append(fetch())
            for r, p in before.items():
                grown[r] = max(grown.get(r, 0), rss_kb(p["pid"]) - base[r])
        assert attacker.poll() is None, "the attack ended by itself"
    finally:
        attacker.kill()
        attacker.wait()
        victim.kill()
        victim.wait()
    after = processes(hosts)
    assert {r: p["pid"] for r, p in after.items()} == {r: p["pid"] for r, p in before.items()}, "a process was restarted"
    # No judgement by the clock's speed: but a fetch that waits for all of the attacker's work takes minutes.
    assert max(took) < 20, took
    assert all(kb < GROWTH_KB for kb in grown.values()), grown
    wait_for("the attacker's connections to be gone", lambda: status(hosts)["connections"] == 0, timeout=60)


@pytest.mark.parametrize("connections", [1, 400])
def test_thousands_of_streams_of_one_uid(agent, connections):
    """All of them served, pushed to on a change, cancelled at once without harm, and nothing stays."""
    agent.start()
    n = 2000
    code = f"""
        conns = [Raw(PATH, timeout=120) for _ in range({connections})]
        streams = []
        for c in conns:
            for _ in range({n} // {connections}):
                streams.append(c.open('/SpiffeWorkloadAPI/FetchX509SVID'))
        for s in streams: s.next(120)
        say('all')
        sys.stdin.readline()
        for s in streams: s.next(120)
        say('again')
        for s in streams: s.conn.h2.reset_stream(s.id, 8)
        for c in conns: c.flush()
        for c in conns:
            c.open('/SpiffeWorkloadAPI/FetchX509Bundles').next(120)
        say('alive')
    """
    client = start(agent, 0, code, stdin=subprocess.PIPE)
    try:
        assert client.stdout.readline() == "all\n"
        assert status(agent)["calls"] == n
        agent.reload(ids=("first", "second", "third"))
        client.stdin.write("\n")
        client.stdin.flush()
        assert client.stdout.readline() == "again\n"
        assert client.stdout.readline() == "alive\n"
        wait_for("the cancelled streams to be gone", lambda: status(agent)["calls"] <= connections, timeout=60)
    finally:
        client.kill()
        client.wait()
    wait_for("no call to be left", lambda: status(agent)["calls"] == 0, timeout=60)


def test_a_thousand_identities_of_one_caller(agent):
    """One message, in the entries' order, below the 4 MiB that clients take."""
    ids = [f"id-{i:04d}" for i in range(1000)]
    agent.start(ids=ids, hints=())
    from rawgrpc import Raw
    from wirepb import decode, text

    with Raw(agent.socket, timeout=120) as c:
        m = c.open("/SpiffeWorkloadAPI/FetchX509SVID").next(120)
    assert len(m) < 4 * 1024 * 1024
    svids = [decode(s) for s in decode(m)[1]]
    assert [text(s, 1) for s in svids] == [f"spiffe://{TD}/{i}" for i in ids]
    assert len({s[3][0] for s in svids}) == 1000, "each has a key of its own"
