"""The audit log of a real proxy: what it says of requests and connections, rotation under its sandbox, a reader that stops, and
that an id leads from the peer's answer to the line. docs/audit.md."""

import http.client
import json
import signal
import socket

import pytest
from lab import free_port, run, wait_for
from node import TD, UIDS, spiffe_id
from servers import TcpServer, http_one
from test_http import POLICY, request


def lines_of(path):
    return [json.loads(x) for x in path.read_text().splitlines()] if path.exists() else []


def decisions(path):
    return [x for x in lines_of(path) if x["event"] not in ("begin", "lost")]


@pytest.fixture
def sides(node):
    """Starts both sides with an `audit` section; gives the client's port and the server's proxy."""
    node.start_agent()
    with TcpServer(node.netns, http_one) as server:

        def start(audit, workers=1, policy=POLICY):
            tls, plain = free_port(), free_port()
            extra = f"workers: {workers}\naudit:\n" + "".join(f"  {k}: {v}\n" for k, v in audit.items())
            proxy = node.server_side(tls, server.port, protocol="http", policy=policy, extra=extra)
            node.client_side(plain, tls)
            return plain, proxy

        yield node, start


def private(node):
    return node.lab.private_dir("audit", UIDS["server"])


def test_requests_rotation_and_reload(sides):
    node, start = sides
    path = private(node) / "audit.jsonl"
    port, proxy = start({"to": "file", "path": path, "max_size": 65536, "keep": 20, "chain": "on"})
    assert request(node, port, "GET", "/pub/a")[0].status == 200
    denied, _ = request(node, port, "GET", "/pub/secret")
    assert denied.status == 403
    wait_for("two decisions", lambda: len(decisions(path)) == 2)
    allow, deny = decisions(path)
    assert (allow["event"], allow["verdict"], allow["rule"], allow["reason"]) == ("request", "allow", "client-reads", "allowed")
    assert (allow["method"], allow["path"], allow["protocol"]) == ("GET", "/pub/a", "http1")
    assert (allow["peer_id"], allow["own_id"]) == (spiffe_id("client"), spiffe_id("server"))
    assert (deny["verdict"], deny["rule"], deny["path"]) == ("deny", "not-the-secret", "/pub/secret")
    assert deny["decision"] == denied.headers["x-postern-decision"]
    # A connection that is open when its rule goes is ended, and that is a decision, too.
    with node.inside():
        s = socket.create_connection(("127.0.0.1", port), timeout=10)
    s.sendall(b"POST /pub/a HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\nabc")
    wait_for("the open request", lambda: len(decisions(path)) == 3)
    proxy.policy_path.write_text(POLICY.format(td=TD).replace("/client", "/nobody"))
    proxy.process.send_signal(signal.SIGHUP)
    wait_for("the end of it", lambda: decisions(path)[-1]["event"] == "ended")
    assert (decisions(path)[-1]["reason"], decisions(path)[-1]["verdict"]) == ("policy_changed", "deny")
    s.close()
    # Full files are put aside, inside the sandbox (whose list ends a process in tests).
    while not path.with_name(path.name + ".00000001").exists():
        request(node, port, "GET", "/pub/" + "x" * 2000)
    done = run(node.postern, "audit", "verify", path.with_name(path.name + ".00000001"), path)
    assert done.stdout.startswith("good:")
    status = proxy.status()["audit"]
    assert status["writing"] and status["lost"] == 0 and status["rotations"] >= 1
    head = status["head"]
    assert run(node.postern, "audit", "verify", "--head", head, path.with_name(path.name + ".00000001"), path).returncode == 0
    changed = path.with_name("changed")
    changed.write_bytes(path.with_name(path.name + ".00000001").read_bytes().replace(b'"deny"', b'"den1"', 1))
    found = run(node.postern, "audit", "verify", changed, check=False)
    assert found.returncode == 1 and "changed" in found.stdout
    # Where it goes cannot be changed while it runs.
    proxy.conf.write_text(proxy.conf.read_text().replace("keep: 20", "keep: 3"))
    proxy.process.send_signal(signal.SIGHUP)
    assert "audit" in proxy.wait_event("reload_failed")["error"]


def test_stopped_reader_stops_nobody(sides):
    node, start = sides
    path = private(node) / "audit.sock"
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(path))
        path.chmod(0o666)
        listening.listen(1)
        port, proxy = start({"to": "unix", "path": path, "allows": "none"})
        reader, _ = listening.accept()
        with node.inside():
            c = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
            c.connect()
        path_2k = "/pub/secret" + "x" * 2000
        n = 0
        while n < 600:  # more than the socket, the lines' buffer and the ring have room for; each is answered
            c.request("GET", path_2k)
            assert c.getresponse().read() is not None
            n += 1
        c.request("GET", "/pub/fine")
        r = c.getresponse()
        assert (r.status, r.read() is not None) == (200, True)
        assert proxy.status()["audit"]["skipped"] >= 1
        c.close()
        # Who reads again has all, and in its order; what is missing is said.
        with reader, reader.makefile() as text:
            seq, decided, lost = 0, 0, 0
            while decided + lost < n:
                line = json.loads(text.readline())
                seq += 1
                assert line["seq"] == seq
                decided += line["event"] == "request"
                lost += line["count"] if line["event"] == "lost" else 0
        assert decided + lost == n


def test_what_is_marked_is_there_whatever_is_sampled(sides):
    node, start = sides
    path = private(node) / "marked.jsonl"
    policy = POLICY.replace("level: 1", "level: 2") + (
        "  - {{name: watched, action: AUDIT, reason: of interest, to: [{{paths: [/pub/watched]}}]}}\n"
        "  - {{name: soon, action: DENY, mode: dry-run, to: [{{paths: [/pub/soon]}}]}}\n"
    )
    port, _ = start({"to": "file", "path": path, "allows": "none"}, policy=policy)
    for what in ("plain", "watched", "soon"):
        assert request(node, port, "GET", "/pub/" + what)[0].status == 200
    assert request(node, port, "GET", "/pub/secret")[0].status == 403
    wait_for("three of four", lambda: len(decisions(path)) == 3)
    watched, soon, secret = decisions(path)
    assert (watched["path"], watched["verdict"], watched["audit_rule"]) == ("/pub/watched", "allow", "watched")
    assert (soon["verdict"], soon["shadow"], soon["shadow_rule"]) == ("allow", "deny", "soon")
    assert secret["verdict"] == "deny" and "audit_rule" not in secret
    assert run(node.postern, "audit", "verify", path).stdout.splitlines()[1].startswith("not chained")
