"""The authority as a whole: exchanged without a dropped connection, kept, sealed, moved. docs/authority.md."""

import json
import os
import random
import re
import signal
import socket
import threading

import pytest
from lab import admin_ask, free_port, run, wait_for
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


def test_passphrase_that_others_can_read(node):
    """The error named the state directory, whose mode is not what is wrong."""
    path = passphrase(node, "open", "for all\n")
    path.chmod(0o644)
    write_agent(node, f"ca:\n  key_at_rest: {{passphrase_file: {path}}}")
    failed(node, 2, "mode 0644", '"where": "ca.key_at_rest"')
    assert not (node.state / "ca").exists()


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


# --- an authority from files --------------------------------------------------------------------------
class Files:
    """A root and authorities below it, made with openssl as an operator would."""

    def __init__(self, node, td="test.example"):
        self.dir, self.td, self.n = node.conf, td, 0 if td == "test.example" else 50
        self.root = self.make("root", None, ["basicConstraints=critical,CA:true"])

    def make(self, name, above, ext, days=30, uri=True):
        self.n += 1
        key, cert = self.dir / f"{name}{self.n}.key", self.dir / f"{name}{self.n}.pem"
        ext = [*ext, "keyUsage=critical,keyCertSign,cRLSign", "subjectKeyIdentifier=hash"]
        if uri:
            ext.append(f"subjectAltName=URI:spiffe://{self.td}")
        run("openssl", "ecparam", "-name", "prime256v1", "-genkey", "-noout", "-out", key)
        key.chmod(0o600)
        req = ["openssl", "req", "-x509", "-new", "-key", key, "-subj", f"/CN={name}{self.n}", "-days", days, "-out", cert]
        req += [a for e in ext for a in ("-addext", e)]
        if above is not None:  # signed by another: through a request
            csr, exts = self.dir / "r.csr", self.dir / "r.ext"
            exts.write_text("".join(e + "\n" for e in [*ext, "authorityKeyIdentifier=keyid"]))
            run("openssl", "req", "-new", "-key", key, "-subj", f"/CN={name}{self.n}", "-out", csr)
            req = ["openssl", "x509", "-req", "-in", csr, "-CA", above[1], "-CAkey", above[0], "-days", days]
            req += ["-set_serial", self.n + 100, "-extfile", exts, "-out", cert]
        run(*req)
        return key, cert

    def put(self, authority, *above, roots=None):
        """Exchanges all three files; each is whole at every moment."""
        chain = "".join(a[1].read_text() for a in (authority, *above))
        for name, text in (
            ("ca.pem", chain),
            ("ca.key", authority[0].read_text()),
            ("bundle.pem", "".join(r[1].read_text() for r in roots or [self.root])),
        ):
            new = self.dir / (name + ".new")
            new.write_text(text)
            new.chmod(0o600)
            new.rename(self.dir / name)


DISK = "ca:\n  source: disk\n  disk: {cert_file: ca.pem, key_file: ca.key, bundle_file: bundle.pem}\n  key_at_rest: plain\n"
ADMIN = "admin:\n  socket: {}\n  allow_uids: [0]\n"
ROOM, NO_ROOM = ["basicConstraints=critical,CA:true,pathlen:1"], ["basicConstraints=critical,CA:true,pathlen:0"]


def chain_of(node):
    """How many certificates come with an SVID that this process is given, and the names of their issuers."""
    out = node.lab.dir / "svid"
    out.mkdir(exist_ok=True)
    run(node.postern, "svid", "fetch", "--socket", f"unix:{node.socket}", "--write", out)
    pem = (out / "svid.pem").read_text()
    certs = ["-----BEGIN" + p for p in pem.split("-----BEGIN")[1:]]
    issuers = [run("openssl", "x509", "-noout", "-issuer", input=c).stdout for c in certs]
    last = [re.split("CN ?= ?", i.strip())[-1] for i in issuers]  # newer versions write no blanks
    return len(certs), last


@pytest.fixture
def files(node):
    f = Files(node)
    write_agent(node, DISK + ADMIN.format(node.run / "agent-admin.sock"))
    node.write_entries(extra='  - id: me\n    spiffe_id: spiffe://test.example/me\n    selectors: ["unix:uid:0"]\n')
    return f


def test_files_that_are_refused(node, files):
    """Each alone keeps the agent from starting; and while it runs, what is in force stays."""
    good = files.make("good", files.root, ROOM)
    other = files.make("other", None, ROOM)
    foreign = Files(node, "other.example")
    cases = [
        ("another key", lambda: (files.put(good), (node.conf / "ca.key").write_text(other[0].read_text())), "not that of"),
        ("no certificate", lambda: (files.put(good), (node.conf / "ca.pem").write_text("nothing")), "PEM"),
        ("a torn key", lambda: (files.put(good), (node.conf / "ca.key").write_text("-----BEGIN")), "private key"),
        ("a key for all to read", lambda: (files.put(good), (node.conf / "ca.key").chmod(0o644)), "mode 0644"),
        ("under another root", lambda: files.put(other), "is refused"),
        ("of another trust domain", lambda: files.put(foreign.make("f", foreign.root, ROOM), roots=[foreign.root]), "is refused"),
        ("no authority", lambda: files.put(files.make("leaf", files.root, ["basicConstraints=critical,CA:false"])), "is refused"),
    ]
    for what, spoil, says in cases:
        spoil()
        failed(node, 2, says)
    files.put(good)
    node.start_agent()
    n, issuers = chain_of(node)
    assert n == 3 and issuers[-1] == files.root[1].stem, issuers
    assert list(states(ca(node, "show")).values()) == ["active"]  # it was in no list
    for what, spoil, says in cases:
        refused, loaded = (len(events(node.agent, e)) for e in ("ca_files_refused", "ca_files_loaded"))
        spoil()
        wait_for(
            f"{what}: a line",
            lambda n=refused, says=says: says in json.dumps(events(node.agent, "ca_files_refused")[n:]),
            20,
        )
        assert chain_of(node)[1] == issuers, what
        files.put(good)
        wait_for(f"good ones after {what}", lambda n=loaded: len(events(node.agent, "ca_files_loaded")) > n, 20)


def test_files_change_under_traffic(node, files):
    """From one authority to another under another root: both roots in the bundle first, then the new
    authority, then the old root goes."""
    first = files.make("first", files.root, ROOM)
    files.put(first)
    node.start_agent(ttl="1h")
    assert "does not make" in ca(node, "prepare", status=2)
    shown = ca(node, "show")
    of_the_files = list(states(shown))  # what is in the files, and nothing that the agent made
    assert states(shown) == {of_the_files[0]: "active"} and len(states(shown, "jwt")) == 1
    ca(node, "prepare", "--jwt")
    second_root = files.make("root", None, ["basicConstraints=critical,CA:true"])
    second = files.make("second", second_root, NO_ROOM)
    with TcpServer(node.netns, echo) as workload:
        tls, plain = free_port(), free_port()
        proxies = node.server_side(tls, workload.port), node.client_side(plain, tls)
        with Traffic(node, plain) as traffic:
            files.put(first, roots=[files.root, second_root])
            for p in proxies:
                wait_for("two roots", lambda p=p: p.status()["identity"]["trust_roots"] == 2, 20)
            files.put(second, roots=[files.root, second_root])
            wait_for("the new authority", lambda: chain_of(node) == (2, ["second" + second[1].stem[6:], second_root[1].stem]), 20)
            traffic.more()
    then = states(ca(node, "show"))
    assert list(then.values()) == ["active"] and list(then) != of_the_files


def test_outage_budget(node, files):
    """What ends first is told, in status, metrics, and once in the log."""
    files.put(files.make("short", files.root, ROOM, days=1))
    node.start_agent()
    status = json.loads(admin_ask(node.run / "agent-admin.sock", "status"))
    assert status["outage"]["ends_first"] == "authority" and 80000 < status["outage"]["budget_seconds"] <= 86400
    metrics = admin_ask(node.run / "agent-admin.sock", "metrics")
    value = [line.split()[-1] for line in metrics.splitlines() if line.startswith("postern_agent_outage_budget_seconds ")]
    assert len(value) == 1 and 80000 < float(value[0]) <= 86400
    assert not events(node.agent, "outage_budget_low")
    assert node.agent.stop() == 0
    # a root that ends before what is below it, and an operator who wants to know two days before
    files.root = files.make("root", None, ["basicConstraints=critical,CA:true"], days=1)
    files.put(files.make("longer", files.root, ROOM))
    write_agent(node, DISK + "  outage_warn: 48h\n")
    node.start_agent()
    low = wait_for("the warning", lambda: events(node.agent, "outage_budget_low"), 20)
    assert len(low) == 1 and low[0]["ends_first"] == "bundle" and low[0]["seconds"] <= 86400
