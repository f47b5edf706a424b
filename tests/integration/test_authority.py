"""The authority as a whole: exchanged without a dropped connection, kept, sealed, moved. docs/authority.md."""

import json
import os
import random
import signal
import socket
import threading

import pytest
from lab import free_port, run, wait_for
from servers import TcpServer, echo


def ca(node, *args, status=0):
    """The answer of `postern ca` as JSON; or what it says, where it has to refuse."""
    r = run(node.postern, "ca", *args, "--json", "--control", node.state / "control.sock", check=False)
    assert r.returncode == status, (args, r.returncode, r.stdout, r.stderr)
    return json.loads(r.stdout) if status == 0 else r.stderr


def states(doc, kind="x509"):
    return {a["id"]: a["state"] for a in doc["authorities"] if a["kind"] == kind}


def only(doc, state, kind="x509"):
    found = [a for a in doc["authorities"] if a["kind"] == kind and a["state"] == state]
    assert len(found) == 1, doc
    return found[0]


def serial(proxy):
    return proxy.status()["identity"]["serial"]


class Traffic:
    """A kept connection that is asked all the time, and new ones beside it; every failure is kept."""

    def __init__(self, node, port):
        self.node, self.port = node, port
        self.failures, self.rounds = [], 0
        self.stop = threading.Event()
        self.thread = threading.Thread(target=self.run, daemon=True)

    def talk(self, s, n):
        text = b"%d " % n
        s.sendall(text)
        got = b""
        while len(got) < len(text):
            data = s.recv(100)
            if not data:
                raise OSError("closed")
            got += data
        assert got == text

    def connect(self):
        return socket.create_connection(("127.0.0.1", self.port), timeout=20)

    def run(self):
        with self.node.inside():
            try:
                kept = self.connect()
                while not self.stop.is_set():
                    self.talk(kept, self.rounds)
                    with self.connect() as fresh:
                        self.talk(fresh, self.rounds)
                    self.rounds += 1
                    self.stop.wait(0.02)
                kept.close()
            except Exception as e:  # noqa: BLE001: told by the test, in its own thread
                self.failures.append(repr(e))

    def more(self):
        """Some rounds from now on."""
        before = self.rounds
        wait_for("traffic", lambda: self.failures or self.rounds > before + 5, 20)
        assert not self.failures, self.failures

    def __enter__(self):
        self.thread.start()
        return self

    def __exit__(self, *exc):
        self.stop.set()
        self.thread.join(20)
        assert not self.failures, self.failures


@pytest.mark.parametrize("key", ["csr", "agent"])
def test_exchange_without_a_dropped_connection(node, key):
    """prepare, activate, taint, retire under traffic: nothing ends, and tainting renews at once."""
    node.start_agent(ttl="1h")
    first = only(ca(node, "show"), "active")["id"]
    with TcpServer(node.netns, echo) as workload:
        tls, plain = free_port(), free_port()
        server = node.server_side(tls, workload.port, key=key)
        client = node.client_side(plain, tls, key=key)
        with Traffic(node, plain) as traffic:
            traffic.more()
            doc = ca(node, "prepare")
            assert sorted(states(doc).values()) == ["active", "prepared"]
            second = only(doc, "prepared")["id"]
            for p in (server, client):  # both have learnt it before it signs anything
                wait_for("two roots", lambda p=p: p.status()["identity"]["trust_roots"] == 2, 20)
            traffic.more()

            before = {p: serial(p) for p in (server, client)}
            doc = ca(node, "activate")
            assert states(doc) == {first: "old", second: "active"}
            traffic.more()
            if key == "csr":
                assert before == {p: serial(p) for p in (server, client)}  # nothing is re-issued by that alone
            assert "in use" in ca(node, "retire", status=2)

            before = {p: serial(p) for p in (server, client)}
            doc = ca(node, "taint")
            assert states(doc) == {first: "tainted", second: "active"}
            for p in (server, client):
                wait_for("another SVID at once", lambda p=p: serial(p) != before[p], 20)
            traffic.more()

            doc = ca(node, "show")
            assert only(doc, "tainted")["svids_in_use"] == 0 and only(doc, "active")["svids_in_use"] == 2, doc
        # what was begun under the new one goes on through the last step as well
        with Traffic(node, plain) as traffic:
            traffic.more()
            doc = ca(node, "retire")
            assert states(doc) == {second: "active"}
            for p in (server, client):
                wait_for("one root", lambda p=p: p.status()["identity"]["trust_roots"] == 1, 20)
            traffic.more()


def test_retiring_ends_what_stands_under_it(node):
    """A connection that was begun under an authority which is gone is judged again, and ended: a key that
    was stolen must not live on in what it opened."""
    node.start_agent(ttl="1h")
    with TcpServer(node.netns, echo) as workload:
        tls, plain = free_port(), free_port()
        proxies = node.server_side(tls, workload.port), node.client_side(plain, tls)
        with node.inside(), socket.create_connection(("127.0.0.1", plain), timeout=20) as kept:
            kept.sendall(b"a")
            assert kept.recv(10) == b"a"
            before = [serial(p) for p in proxies]
            for order in ("prepare", "activate", "taint"):
                ca(node, order)
            for p, old in zip(proxies, before):
                wait_for("another SVID at once", lambda p=p, old=old: serial(p) != old, 20)
            kept.sendall(b"b")
            assert kept.recv(10) == b"b"
            ca(node, "retire")
            with pytest.raises(ConnectionResetError):
                assert kept.recv(10) != b"", "an orderly end, of a connection that is cut"


def test_orders_that_are_refused(node):
    node.start_agent()
    before = ca(node, "show")
    assert "no x509 authority is prepared" in ca(node, "activate", status=2)
    assert "none is old" in ca(node, "taint", status=2)
    active = only(before, "active")["id"]
    assert "is active" in ca(node, "taint", active, status=2)
    assert "is active" in ca(node, "retire", active, "--force", status=2)
    assert "no x509 authority 'nobody'" in ca(node, "retire", "nobody", status=2)
    assert ca(node, "show") == before
    ca(node, "prepare")
    assert "prepared already" in ca(node, "prepare", status=2)
    prepared = only(ca(node, "show"), "prepared")["id"]
    assert "never active" in ca(node, "retire", prepared, status=2)
    assert states(ca(node, "retire", prepared, "--force")) == {active: "active"}


def test_state_is_kept_and_what_came_before_counts(node):
    """After a restart the states are as they were, and what was signed before it may still be in use."""
    node.start_agent()
    ca(node, "prepare")
    doc = ca(node, "activate")
    assert node.agent.stop() == 0
    node.start_agent()
    again = ca(node, "show")
    assert states(again) == states(doc)
    assert "before this agent's start" in ca(node, "retire", status=2)
    assert len(states(ca(node, "retire", "--force"))) == 1


def test_killed_between_any_two_steps(node):
    """kill -9 anywhere in a change leaves the old state or the new one, and the next start works."""
    rng = random.Random(11)
    node.start_agent()
    for i in range(10):
        before = states(ca(node, "show"))
        order = "prepare" if "prepared" not in before.values() else "activate"
        argv = [node.postern, "ca", order, "--control", node.state / "control.sock"]
        asked = node.lab.start(f"order{i}", argv)
        # a moment in the change, by what it has done: nothing yet, a new file there, or all of it
        moment = rng.choice(["at once", "file", "done"])
        if moment == "file":
            new = node.state / "ca" / "state.new"
            wait_for("the new file, or the end", lambda: new.exists() or not asked.alive())
        elif moment == "done":
            asked.p.wait(20)
        os.kill(node.agent.p.pid, signal.SIGKILL)
        node.agent.p.wait(20)
        asked.p.wait(20)
        node.start_agent()
        after = states(ca(node, "show"))
        assert list(after.values()).count("active") == 1, after
        assert set(before) <= set(after), (before, after)
        if moment == "done":
            assert after != before
        assert sorted(p.name for p in (node.state / "ca").iterdir()) == ["state"]


# --- the key at rest ----------------------------------------------------------------------------------
AGENT = """kind: Agent
level: 1
trust_domain: test.example
socket: {socket}
state_dir: {state}
entries: entries.yaml
{rest}
"""


def write_agent(node, rest, state=None):
    (node.conf / "agent.yaml").write_text(AGENT.format(socket=node.socket, state=state or node.state, rest=rest))


def passphrase(node, name, text):
    path = node.conf / name
    path.write_text(text)
    path.chmod(0o600)
    return path


def failed(node, status, *words):
    node.start_agent(wait=False)
    assert node.agent.p.wait(30) == status, node.agent.err()
    lines = [json.loads(line) for line in node.agent.err().splitlines() if line.startswith("{")]
    e = [o for o in lines if o["event"] == "agent_failed"]
    assert len(e) == 1 and e[0]["advice"] and all(w in json.dumps(e[0]) for w in words), node.agent.err()
    assert not any(o["event"] == "root_made" for o in lines)


def events(process, name):
    return [o for o in map(json.loads, process.err().splitlines()) if o["event"] == name]


def test_nothing_said_of_the_key(node):
    """Without a `ca` section: as before, and each start warns. With one that is silent: no new state."""
    write_agent(node, "ca:\n  root_ttl: 1000h")
    failed(node, 2, "key_at_rest")
    assert not (node.state / "ca").exists()
    write_agent(node, "")
    for _ in range(2):
        node.start_agent()
        assert events(node.agent, "key_unprotected")
        assert node.agent.stop() == 0
    write_agent(node, "ca:\n  root_ttl: 1000h")  # what is there goes on
    node.start_agent()
    assert events(node.agent, "key_unprotected")
    assert node.agent.stop() == 0
    write_agent(node, "ca:\n  key_at_rest: plain")
    node.start_agent()
    assert not events(node.agent, "key_unprotected")


def test_backup_is_restored_on_another_machine(node):
    """The state directory and the passphrase are all of it; there it gets a passphrase of its own."""
    here = passphrase(node, "here", "of this machine\n")
    write_agent(node, f"ca:\n  key_at_rest: {{passphrase_file: {here}}}")
    node.start_agent()
    ca(node, "prepare")
    before = ca(node, "show")
    assert node.agent.stop() == 0
    backup = (node.state / "ca" / "state").read_bytes()
    assert b"test.example" not in backup

    there = node.lab.dir / "there"
    (there / "ca").mkdir(parents=True)
    there.chmod(0o700)
    (there / "ca" / "state").write_bytes(backup)
    (there / "ca" / "state").chmod(0o600)
    node.state = there
    write_agent(node, "ca:\n  key_at_rest: plain")
    failed(node, 2, "sealed", str(there))
    new = passphrase(node, "there", "of the other")
    write_agent(node, f"ca:\n  key_at_rest: {{passphrase_file: {new}}}")
    failed(node, 2, "passphrase", "changed", str(there))
    assert (there / "ca" / "state").read_bytes() == backup  # never written over
    write_agent(node, f"ca:\n  key_at_rest: {{passphrase_file: {new}, old_passphrase_file: {here}}}")
    node.start_agent()
    assert states(ca(node, "show")) == states(before)
    assert node.agent.stop() == 0
    write_agent(node, f"ca:\n  key_at_rest: {{passphrase_file: {new}}}")
    node.start_agent()
    assert states(ca(node, "show")) == states(before)


def test_credential_of_the_service_manager(node):
    creds = node.lab.private_dir("credentials", mode=0o700)
    (creds / "ca-key").write_text("sealed by the manager")
    (creds / "ca-key").chmod(0o400)
    write_agent(node, "ca:\n  key_at_rest: {credential: ca-key}")
    failed(node, 2, "CREDENTIALS_DIRECTORY")
    for _ in range(2):
        node.start_agent(env={**os.environ, "CREDENTIALS_DIRECTORY": str(creds)})
        assert node.agent.stop() == 0
    assert b"test.example" not in (node.state / "ca" / "state").read_bytes()
