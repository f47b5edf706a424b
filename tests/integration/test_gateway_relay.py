"""Relays: mutual TLS on both sides, the border between two trust domains."""

import hashlib
import http.client
import os
import socket
import ssl
import threading

import pytest
from gateway import Ca, connect, server_context, start_gateway
from lab import free_port, run, wait_for
from node import ALLOW_CLIENT, UIDS, spiffe_id
from servers import TcpServer, echo, http_one

OTHER = "other.example"


def end(s):
    s.shutdown(socket.SHUT_WR)
    got = b""
    while chunk := s.recv(65536):
        got += chunk
    return got


def start_other_agent(node):
    """A second agent, of another trust domain: the relay's user is its `border`, the stranger its `ledger`."""
    run_dir = node.lab.private_dir("other-run")
    conf = node.lab.private_dir("other-conf")
    (conf / "entries.yaml").write_text(
        "kind: Entries\nlevel: 1\nentries:\n"
        + "".join(
            f"- {{id: {n}, spiffe_id: 'spiffe://{OTHER}/{n}', selectors: ['unix:uid:{u}']}}\n"
            for n, u in (("border", UIDS["server"]), ("ledger", UIDS["stranger"]))
        )
    )
    (conf / "agent.yaml").write_text(
        f"kind: Agent\nlevel: 1\ntrust_domain: {OTHER}\nsocket: {run_dir}/agent.sock\nstate_dir: {node.lab.dir}/other-state\n"
        "entries: entries.yaml\nca: {source: self, key_at_rest: plain}\n"
        "users: {keeper: 48111, attestor: 48112, service: 48113, kubelet: 48114, signer: 48115}\n"
    )
    agent = node.lab.start("other-agent", [node.postern, "agent", conf / "agent.yaml"])

    def ready():
        assert agent.alive(), agent.err()[-3000:]
        return '"event":"ready"' in agent.err()

    wait_for("the other agent", ready)
    return run_dir / "agent.sock"


def svid_files(node, sock, uid, name):
    """svid.pem, svid_key.pem and bundle.pem of a user, as `postern svid fetch` writes them."""
    d = node.lab.private_dir(name, uid)
    p = node.lab.run_in([node.postern, "svid", "fetch", "--socket", f"unix:{sock}", "--write", d], uid=uid, with_hosts=False)
    assert p.returncode == 0, p.stderr
    d.chmod(0o755)
    for f in d.iterdir():
        f.chmod(0o644)
    return d


def shake_hands(node, port, d):
    """A TLS client that shows the SVID in `d`, and does not ask who answers."""
    c = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    c.check_hostname, c.verify_mode = False, ssl.CERT_NONE
    c.load_cert_chain(d / "svid.pem", d / "svid_key.pem")
    with c.wrap_socket(connect(node, port)) as s:
        s.sendall(b"x")
        return s.recv(1)


def test_relay_is_a_border(node):
    """Clients of one trust domain reach a server of another through the relay, and by no other way."""
    node.start_agent()
    other = start_other_agent(node)
    theirs = svid_files(node, other, UIDS["stranger"], "ledger-files")
    ours = svid_files(node, node.socket, UIDS["client"], "client-files")
    inner_port, border_port, plain = free_port(), free_port(), free_port()
    with TcpServer(node.netns, echo) as server:
        inner = start_gateway(
            node,
            "inner",
            f"identity: {{socket: 'unix:{other}'}}\nlisteners:\n"
            f"- {{name: ledger, type: server, address: 127.0.0.1:{inner_port}, to: 127.0.0.1:{server.port}, "
            f"allow: {{uri: ['spiffe://{OTHER}/border']}}}}\n",
            uid=UIDS["stranger"],
        )
        border = start_gateway(
            node,
            "border",
            f"credentials: [{{name: there, workload_api: {{socket: 'unix:{other}'}}}}]\n"
            f"trust: [{{name: other, bundles: [{{trust_domain: {OTHER}, file: {theirs}/bundle.pem}}]}}]\n"
            f"listeners:\n- {{name: border, type: relay, address: 127.0.0.1:{border_port}, to: 127.0.0.1:{inner_port}, "
            f"upstream: {{credentials: [there], trust: other, identities: ['spiffe://{OTHER}/ledger']}}}}\n",
            identity="server",
            policy=ALLOW_CLIENT,
        )
        start_gateway(
            node,
            "outer",
            f"listeners:\n- {{name: out, type: client, address: 127.0.0.1:{plain}, to: 127.0.0.1:{border_port}, "
            f"identities: [{spiffe_id('server')}]}}\n",
            identity="client",
        )
        blob = os.urandom(1 << 20) * 8
        with connect(node, plain) as s:
            sender = threading.Thread(target=lambda: (s.sendall(blob), s.shutdown(socket.SHUT_WR)))
            sender.start()
            h = hashlib.sha256()
            while chunk := s.recv(1 << 16):
                h.update(chunk)
            sender.join()
        assert h.digest() == hashlib.sha256(blob).digest()
        e = border.wait_event("connection", reason="done")
        assert (e["peer_id"], e["upstream_id"]) == (spiffe_id("client"), f"spiffe://{OTHER}/ledger")
        assert inner.wait_event("connection", reason="done")["peer_id"] == f"spiffe://{OTHER}/border"
        accepted = server.accepted
        # Theirs are not ours, on this side of the border; and ours are nobody on theirs.
        with pytest.raises((ssl.SSLError, ConnectionResetError)):
            shake_hands(node, border_port, theirs)
        assert border.wait_event("handshake_failed", side="downstream")["step"] == "unknown_trust_domain"
        with pytest.raises((ssl.SSLError, ConnectionResetError)):
            shake_hands(node, inner_port, ours)
        assert inner.wait_event("handshake_failed")["step"] == "unknown_trust_domain"
        assert server.accepted == accepted


# --- towards an ordinary server: the relay's upstream is in the test's own hands ----------------------


def tls_server(ca, handle, name="up.example", client_ca=None):
    context = server_context(client_ca or ca, *ca.issue(f"server-{name}", dns=[name]))

    def one(conn):
        with context.wrap_socket(conn, server_side=True) as s:
            handle(s)
            s.unwrap()

    return one


def relay(node, ca, to, protocol="tcp", extra="", policy=ALLOW_CLIENT):
    """(port of a plain client of it, the relay): identity upstream is an ordinary certificate."""
    cert, key = ca.issue("relay", cn="relay")
    tls, plain = free_port(), free_port()
    g = start_gateway(
        node,
        "relay",
        f"credentials: [{{name: me, cert: {cert}, key: {key}}}]\ntrust: [{{name: ca, ca: {ca.pem}}}]\n"
        f"listeners:\n- {{name: relay, type: relay, address: 127.0.0.1:{tls}, to: 127.0.0.1:{to}, protocol: {protocol}, "
        f"upstream: {{credentials: [me], trust: ca, server_name: up.example}}}}\n{extra}",
        identity="server",
        policy=policy,
    )
    start_gateway(
        node,
        "outer",
        f"listeners:\n- {{name: out, type: client, address: 127.0.0.1:{plain}, to: 127.0.0.1:{tls}, "
        f"identities: [{spiffe_id('server')}]}}\n",
        identity="client",
    )
    return plain, g


def test_relay_judges_before_it_dials(node):
    node.start_agent()
    ca = Ca(node.conf, "ca", UIDS["server"])
    with TcpServer(node.netns, echo) as server:
        plain, g = relay(node, ca, server.port, policy=ALLOW_CLIENT.replace("/client", "/nobody"))
        with connect(node, plain) as s:
            with pytest.raises(ConnectionResetError):
                s.recv(1)
        assert g.wait_event("connection")["reason"] == "policy_denied"
        assert server.accepted == 0


def test_relay_half_close_and_back_pressure(node):
    """Ends travel through both TLS legs; a reader that does not read stops the writer."""
    node.start_agent()
    ca = Ca(node.conf, "ca", UIDS["server"])
    gate = threading.Event()

    def count(s):
        gate.wait(60)
        total = 0
        while data := s.recv(65536):
            total += len(data)
        s.sendall(b"%d" % total)

    with TcpServer(node.netns, tls_server(ca, count)) as server:
        plain, g = relay(node, ca, server.port)
        with connect(node, plain) as s:
            s.setblocking(False)
            sent, full = 0, 0

            def fill():
                nonlocal sent, full
                try:
                    sent += s.send(b"z" * 65536)
                    full = 0
                except BlockingIOError:
                    full += 1
                return full > 50 or sent > 256 << 20

            wait_for("the writer to be stopped", fill, timeout=60, interval=0.002)
            assert sent < 256 << 20, "nothing stopped the writer"
            gate.set()
            s.setblocking(True)
            s.settimeout(60)
            assert end(s) == b"%d" % sent
    e = g.wait_event("connection")
    assert (e["reason"], e["upstream_id"], e["bytes_up"]) == ("done", "dns:up.example", sent)


def test_relay_http(node):
    """Requests are judged one by one, and go on over one upstream connection; who the client is, is said by us."""
    node.start_agent()
    ca = Ca(node.conf, "ca", UIDS["server"])
    policy = """kind: Policy
level: 1
rules:
  - {{name: r, action: ALLOW, from: [{{principals: ["spiffe://{td}/client"]}}], to: [{{paths: ["/open*"]}}]}}
"""
    with TcpServer(node.netns, tls_server(ca, http_one)) as server:
        plain, g = relay(node, ca, server.port, "http", policy=policy)
        c = http.client.HTTPConnection("a")
        c.sock = connect(node, plain)
        c.request("GET", "/shut")
        r = c.getresponse()
        assert r.status == 403 and r.read() and server.accepted == 0
        for i in range(3):
            body = os.urandom(100_000 * i)
            c.request("POST", f"/open/{i}", body=body, headers={"X-Forwarded-Client-Cert": "URI=spiffe://forged"})
            r = c.getresponse()
            seen = r.read()
            assert r.status == 200 and seen.endswith(body)
            head = seen[: len(seen) - len(body)].decode().lower()
            assert f"uri={spiffe_id('client')}" in head and "forged" not in head
            assert f"by={spiffe_id('server')}" in head
        assert server.accepted == 1
        c.close()
    assert g.wait_event("request", status=403)["peer_id"] == spiffe_id("client")


@pytest.mark.parametrize("protocol", ["tcp", "http"])
@pytest.mark.parametrize("why", ["name", "refuses", "hangs", "plain"])
def test_relay_upstream_refused(node, why, protocol):
    """The next hop is somebody else, refuses us, says nothing, or is no TLS: nothing of the client reaches it."""
    node.start_agent()
    ca = Ca(node.conf, "ca", UIDS["server"])
    strange = Ca(node.conf, "strange", UIDS["server"])
    heard = []

    def hear(s):
        heard.append(s.recv(1))

    stop = threading.Event()
    handle = {
        "name": tls_server(ca, hear, "else.example"),
        "refuses": tls_server(ca, hear, client_ca=strange),
        "hangs": lambda conn: stop.wait(60),
        "plain": lambda conn: conn.sendall(b"220 hello\r\n" * 100),
    }[why]
    with TcpServer(node.netns, handle) as server:
        plain, g = relay(node, ca, server.port, protocol, "timeouts: {handshake: 700ms}\n")
        reason = "upstream_handshake_timeout" if why == "hangs" else "upstream_handshake_failed"
        with connect(node, plain) as s:
            if protocol == "http":
                s.sendall(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
                answer = s.recv(4096)
                if why == "refuses" and b"x-postern-reason: upstream_closed" in answer:
                    return  # its reset was there before its alert was read, which then is lost
                assert answer.startswith(b"HTTP/1.1 504 " if why == "hangs" else b"HTTP/1.1 503 "), answer
                assert b"x-postern-reason: " + reason.encode() in answer
            else:
                with pytest.raises(ConnectionResetError):
                    s.recv(1)
        stop.set()
        assert g.wait_event("handshake_failed", side="upstream")
        if protocol == "tcp":
            assert g.wait_event("connection", reason=reason)
        assert not any(heard)
