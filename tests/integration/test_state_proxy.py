"""Proxies that take what they decide by from the agent of their node. docs/state-stream.md."""

import contextlib
import json
import signal
import socket
import time

import pytest
from lab import admin_ask, free_port, run, wait_for
from node import ALLOW_CLIENT, TD, UIDS, spiffe_id
from servers import TcpServer, echo

FROM_AGENT = "state:\n  from: agent\n"
STATE = "state:\n  policy: policy.yaml\n"


def connect(node, port):
    with node.inside():
        return socket.create_connection(("127.0.0.1", port), timeout=20)


def talk(s, text=b"a"):
    s.sendall(text)
    return s.recv(10) == text


def works(node, port):
    try:
        with connect(node, port) as s:
            return talk(s)
    except (ConnectionResetError, BrokenPipeError):
        return False


def ended(s, seconds=1.0):
    """The live connection is reset within so long."""
    begun = time.monotonic()
    s.settimeout(10)
    with pytest.raises(ConnectionResetError):
        s.recv(10)
    return time.monotonic() - begun <= seconds


class Mesh:
    def __init__(self, node, tls, plain, client, server):
        self.node, self.tls, self.port, self.client, self.server = node, tls, plain, client, server

    def write_policy(self, text):
        (self.node.conf / "policy.yaml").write_text(text.format(td=TD))

    def quarantine(self, *args):
        return run(self.node.postern, "quarantine", *args, "--config", self.node.conf / "agent.yaml")

    def connect(self):
        return connect(self.node, self.port)

    def works(self):
        return works(self.node, self.port)

    def proxies(self):
        return json.loads(admin_ask(self.node.run / "agent-admin.sock", "proxies"))


@pytest.fixture
def make(node):
    """make(server's local policy, server's extra) -> Mesh; both proxies are told by the agent."""
    with contextlib.ExitStack() as stack:

        def build(policy=None, extra="", agent_state=STATE, agent_policy=ALLOW_CLIENT):
            (node.conf / "policy.yaml").write_text(agent_policy.format(td=TD))
            node.start_agent(extra=agent_state)
            target = stack.enter_context(TcpServer(node.netns, echo))
            tls, plain = free_port(), free_port()
            server = node.server_side(tls, target.port, policy=policy, extra=FROM_AGENT + extra)
            client = node.client_side(plain, tls, policy=None, extra=FROM_AGENT)
            for p in (server, client):
                wait_for("its state", lambda p=p: p.status()["state"]["connected"])
            return Mesh(node, tls, plain, client, server)

        yield build


def test_policy_of_the_agent_decides_and_changes(make):
    mesh = make()
    assert mesh.server.status()["ready"] and mesh.server.status()["state"]["rules"] == 1
    with mesh.connect() as live:
        assert talk(live)
        mesh.write_policy(ALLOW_CLIENT.replace("/client]", "/nobody]"))
        assert ended(live)
    assert mesh.server.wait_event("connection", reason="policy_changed")["peer_id"] == spiffe_id("client")
    assert not mesh.works()
    mesh.write_policy(ALLOW_CLIENT)
    wait_for("the client to be let in again", mesh.works, 3)
    listed = {p["name"]: p for p in mesh.proxies()["proxies"]}
    wait_for("both to run it", lambda: {p["generation"] for p in mesh.proxies()["proxies"]} == {3})
    assert listed["server"]["identity"] == spiffe_id("server") and listed["server"]["uid"] == UIDS["server"]
    assert listed["server"]["policy_sha256"] is not None


def test_broken_file_at_the_agent_changes_nothing(make):
    mesh = make()
    with mesh.connect() as live:
        assert talk(live)
        mesh.write_policy("kind: Policy\nlevel: 1\nrules:\n  - nam: x\n")
        wait_for("the refusal", lambda: '"document_kept"' in mesh.node.agent.err())
        assert talk(live)
    assert mesh.works() and len(mesh.server.events("state_applied")) == 1


@pytest.mark.parametrize("subject", ["identity", "serial"])
def test_quarantine_ends_it_within_a_second(make, subject):
    mesh = make()
    what = spiffe_id("client") if subject == "identity" else "serial:" + mesh.client.status()["identity"]["serial"]
    with mesh.connect() as live:
        assert talk(live)
        mesh.quarantine("add", what)
        assert ended(live)
    # Whichever of the two was quicker: the other one saw its reset.
    wait_for("the reason", lambda: [p for p in (mesh.server, mesh.client) if p.events("connection", reason="quarantined")])
    assert not mesh.works()
    mesh.client.wait_event("connection", reason="quarantined")
    assert mesh.server.status()["state"]["denied"] == 1
    assert mesh.client.status()["state"]["own_quarantined"]
    assert not mesh.server.status()["state"]["own_quarantined"]
    mesh.quarantine("remove", what)
    wait_for("it to be let in again", mesh.works, 20)
    assert not mesh.client.status()["state"]["own_quarantined"]


def test_quarantined_peer_is_refused_in_the_handshake(make):
    """By a proxy that is told, to one that is not: a client with files of its own goes on trying."""
    mesh = make()
    plain = free_port()
    client = mesh.node.client_side(plain, mesh.tls, name="client")
    assert works(mesh.node, plain)
    mesh.quarantine("add", "serial:" + client.status()["identity"]["serial"])
    wait_for("the deny list", lambda: mesh.server.status()["state"]["denied"] == 1)
    assert not works(mesh.node, plain)
    failed = mesh.server.wait_event("handshake_failed", step="quarantined")
    assert failed["peer_id"] == spiffe_id("client") and failed["alert_sent"] == "certificate revoked", failed
    # Its alert may be overtaken by the reset; what the client says then is its own business.
    assert mesh.works()  # another certificate of the same identity
    mesh.quarantine("add", "serial:" + mesh.server.status()["identity"]["serial"])
    wait_for("the deny list", lambda: mesh.client.status()["state"]["denied"] == 2)
    assert not mesh.works()


def test_agent_away_and_back(make):
    mesh = make(extra="")
    with mesh.connect() as live:
        assert talk(live)
        generation = mesh.server.status()["state"]["generation"]
        mesh.node.agent.send_signal(signal.SIGKILL)
        wait_for("it to be away", lambda: not mesh.server.status()["state"]["connected"])
        mesh.server.wait_event("state", notice="agent_away")
        assert talk(live) and mesh.works()
        s = mesh.server.status()
        assert s["ready"] and s["state"]["generation"] == generation and s["state"]["rules"] == 1
        wait_for("its age to show", lambda: mesh.server.status()["state"]["age_s"] >= 1)
        assert "postern_state_connected 0" in mesh.server.metrics()
        mesh.node.start_agent()
        wait_for("it to be back", lambda: mesh.server.status()["state"]["connected"])
        mesh.server.wait_event("state", notice="agent_back")
        assert mesh.server.status()["state"]["generation"] == generation
        assert mesh.server.status()["state"]["age_s"] == 0
        # The same content: nothing was applied anew, nobody was judged again for it.
        assert talk(live) and len(mesh.server.events("state_applied")) == 1
    mesh.write_policy(ALLOW_CLIENT.replace("/client]", "/nobody]"))
    wait_for("the new agent's word", lambda: not mesh.works())


def test_too_old_is_not_ready(make):
    mesh = make(extra="")
    path = mesh.server.conf
    path.write_text(path.read_text().replace("from: agent", "from: agent\n  max_age: 1s"))
    mesh.server.process.send_signal(signal.SIGHUP)
    mesh.server.wait_event("reloaded")
    assert mesh.server.status()["ready"]
    mesh.node.agent.send_signal(signal.SIGKILL)
    wait_for("it to be too old", lambda: not mesh.server.status()["ready"])
    assert "ready" not in admin_ask(mesh.server.admin, "ready")
    assert mesh.works()  # what was told last goes on
    mesh.node.start_agent()
    wait_for("it to be ready", lambda: mesh.server.status()["ready"])


def test_local_policy_only_narrows(make):
    """Both have to allow: the file allows a stranger too, whom the agent does not."""
    local = "kind: Policy\nlevel: 1\nrules:\n  - name: local\n    action: ALLOW\n"
    mesh = make(policy=local)
    assert mesh.works()
    plain = free_port()
    mesh.node.client_side(plain, mesh.tls, name="stranger", policy=None)
    assert not works(mesh.node, plain)
    denied = mesh.server.wait_event("connection", reason="policy_denied")
    assert denied["peer_id"] == spiffe_id("stranger")
    mesh.server.policy_path.write_text("kind: Policy\nlevel: 1\nrules: []\n")
    mesh.server.process.send_signal(signal.SIGHUP)
    mesh.server.wait_event("reloaded")
    assert not mesh.works()


def test_agent_without_a_policy_leaves_it_to_the_file(make):
    mesh = make(policy=ALLOW_CLIENT, agent_state="")
    assert mesh.works() and mesh.server.status()["state"]["rules"] is None
    mesh.quarantine("add", spiffe_id("client"))
    wait_for("quarantine without a policy", lambda: not mesh.works())


def test_neither_has_a_policy(make):
    mesh = make(agent_state="")
    assert not mesh.works()
    assert "every inbound connection is denied" in mesh.server.events("state_applied")[0]["message"]


def test_agent_that_others_could_stand_in_for(node):
    """The socket lies where others could put theirs: neither identity nor state is taken from it."""
    (node.conf / "policy.yaml").write_text(ALLOW_CLIENT.format(td=TD))
    node.start_agent(extra=STATE)
    node.run.chmod(0o777)
    with TcpServer(node.netns, echo) as target:
        tls, plain = free_port(), free_port()
        server = node.server_side(tls, target.port, policy=None, extra=FROM_AGENT, wait=False)
        e = server.wait_event("state", notice="agent_not_trusted")
        assert "mode 0777" in e["error"], e
        assert "mode 0777" in server.wait_event("identity")["error"]
        assert server.status()["identity"]["spiffe_id"] is None and not server.status()["ready"]
        node.run.chmod(0o755)
        wait_for("it to be believed", lambda: server.status()["ready"])
        node.client_side(plain, tls)
        assert works(node, plain)


def test_no_state_denies_and_is_not_ready(node):
    """The agent has read nothing good yet: there is an identity, and nothing is allowed."""
    (node.conf / "policy.yaml").write_text("kind: Policy\n")
    node.start_agent(extra=STATE)
    with TcpServer(node.netns, echo) as target:
        tls, plain = free_port(), free_port()
        server = node.server_side(tls, target.port, policy=None, extra=FROM_AGENT)
        server.wait_event("state", notice="agent_away")
        assert not server.status()["ready"] and "ready" not in admin_ask(server.admin, "ready")
        assert server.status()["state"]["age_s"] is None
        conf = server.conf.read_text()
        server.conf.write_text(conf.replace("  key: auto", "  key: auto\n  wait: 100ms"))
        server.process.send_signal(signal.SIGHUP)
        server.wait_event("reloaded")
        node.client_side(plain, tls)
        assert not works(node, plain)
        server.wait_event("connection", reason="no_state")
        server.conf.write_text(conf)
        server.process.send_signal(signal.SIGHUP)
        wait_for("a longer wait", lambda: len(server.events("reloaded")) == 2)
        with connect(node, plain) as held:
            held.sendall(b"a")
            wait_for("it to be held", lambda: server.status()["connections"]["inbound"]["held"] == 1)
            (node.conf / "policy.yaml").write_text(ALLOW_CLIENT.format(td=TD))
            assert held.recv(10) == b"a"
        assert server.status()["ready"]
