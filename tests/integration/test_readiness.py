"""What an agent keeps of its proxies' permissive ports: over restarts of either, and from nobody but the identity that it
is about. docs/permissive.md, The agent's history."""

import json
import signal
import socket

import pytest
from lab import admin_ask, free_port, run, wait_for
from node import UIDS, spiffe_id
from rawgrpc import Raw, frame
from servers import TcpServer, http_one
from wirepb import field, message

READ = "kind: Policy\nlevel: 1\nrules:\n  - name: read\n    action: ALLOW\n    to:\n      - methods: [GET]\n"
FROM_AGENT = "state:\n  from: agent\n"


@pytest.fixture
def agent(node):
    (node.conf / "policy.yaml").write_text(READ)
    node.write_entries(uids={**UIDS, "root": 0})
    node.start_agent(extra="state:\n  policy: policy.yaml\n")
    return node


def told(node):
    """(exit status, ports by identity and listener) of the agent's own word."""
    p = run(node.postern, "agent", "readiness", "--config", node.conf / "agent.yaml", "--json", check=False)
    workloads = json.loads(p.stdout)["workloads"]
    return p.returncode, {(w["identity"], x["listener"]): x for w in workloads for x in w["ports"]}


def get(node, port):
    """The answer's first bytes; nothing, where the port is strict."""
    with node.inside(), socket.create_connection(("127.0.0.1", port), timeout=20) as s:
        s.sendall(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
        try:
            return s.recv(9)
        except ConnectionResetError:
            return b""


def test_outlives_proxy_and_agent(agent):
    upstream = TcpServer(agent.netns, http_one)
    tls = free_port()
    key = (spiffe_id("server"), "in")

    def serve():
        return agent.server_side(
            tls, upstream.port, protocol="http\n    mode: permissive\n    strict_after: 3s", policy=None, extra=FROM_AGENT
        )

    def caller():
        return next(iter(told(agent)[1].get(key, {}).get("callers", [])), None)

    try:
        server = serve()
        assert get(agent, tls) == b"HTTP/1.1 "
        wait_for("the agent to hear of it", caller)
        ports = told(agent)[1]
        c = ports[key]["callers"][0]
        assert ports[key]["port"] == upstream.port
        assert (c["source"], c["class"], c["connections"], c["allowed"]) == ("127.0.0.1", "http1", 1, 1)
        server.wait_event("port_turned_strict", timeout=20)
        wait_for("the agent to hear that it is strict", lambda: told(agent)[1][key]["mode"] == "strict")
        wait_for("it to be kept", lambda: (agent.state / "plaintext").exists())
        # Another process begins strict.
        server.process.stop(signal.SIGKILL)
        server = serve()
        assert "before this process" in server.wait_event("port_turned_strict")["message"]
        assert get(agent, tls) == b""
        assert server.process.stop() == 0
        assert agent.agent.stop() == 0
        agent.start_agent()
        status, ports = told(agent)
        assert status == 0 and ports[key]["mode"] == "strict" and ports[key]["callers"][0]["connections"] == 1
        server = serve()
        server.wait_event("port_turned_strict")
        assert get(agent, tls) == b""
        # Whoever takes `strict_after` away has it open again, by the name of the port in the file.
        server.process.stop()
        server = agent.server_side(tls, upstream.port, protocol="http\n    mode: permissive", policy=None, extra=FROM_AGENT)
        wait_for("its state", lambda: server.status()["state"]["connected"])
        assert get(agent, tls) == b"HTTP/1.1 "
        wait_for("the agent to hear of it", lambda: told(agent)[1][key]["mode"] == "permissive")
    finally:
        upstream.close()


def report(identity, *ports):
    return field(10, message(f1=identity, f2=list(ports)))


def port(listener, number=8080, **more):
    return message(f1=listener, f2=number, f3=101, **more)


def test_only_of_the_callers_identity(agent):
    """Root by hand: of another's ports nothing is taken, nor what comes too often, nor what is no word."""
    raw = Raw(agent.socket)
    stream = raw.open("/postern.v1.State/Subscribe", body=frame(field(1, "by hand") + report(spiffe_id("root"), port("early"))), end=False)
    stream.next()

    def say(*args):
        raw.h2.send_data(stream.id, frame(field(1, "by \x1b[2J hand") + report(*args)))
        raw.flush()

    def ports():
        return set(told(agent)[1])

    caller = message(f1=b"\x0a\x00\x00\x01", f2="http1", f3=7, f4=7, f6=2, f7=1, f8=1)
    say(spiffe_id("server"), port("in", f10=[caller]))
    say("", port("none"))
    say(spiffe_id("root"), port("mine", f10=[caller], f8=1), port("not a name"))
    say(spiffe_id("root"), port("too-soon"))
    wait_for("the root's port", lambda: ports() == {(spiffe_id("root"), "mine")})
    text = admin_ask(agent.run / "agent-admin.sock", "readiness")
    assert "\x1b" not in text and json.loads(text)["not_kept"] == 1
    metrics = admin_ask(agent.run / "agent-admin.sock", "metrics")
    assert "postern_agent_permissive_ports_known 1" in metrics
    # A message that is none ends the stream and leaves what there was.
    raw.h2.send_data(stream.id, frame(b"\x52\x05\x0a"))
    raw.flush()
    stream.wait_end(5)
    assert stream.status == 3 and ports() == {(spiffe_id("root"), "mine")}
    shown = run(agent.postern, "readiness", "--config", agent.conf / "agent.yaml", check=False)
    assert shown.returncode == 3 and "NOT READY" in shown.stdout and "10.0.0.1" in shown.stdout
    # It was not written yet: the service's last words are.
    assert not (agent.state / "plaintext").exists()
    assert agent.agent.stop() == 0
    agent.start_agent()
    assert ports() == {(spiffe_id("root"), "mine")}
    # What is damaged is said, and not taken for something else.
    assert agent.agent.stop() == 0
    (agent.state / "plaintext").write_bytes(b"\x08\x01\x12")
    agent.start_agent()
    assert ports() == set() and '"plaintext_history_damaged"' in agent.agent.err()
