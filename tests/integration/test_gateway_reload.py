"""Reloads of a gateway: under load, of broken files, and what they end."""

import os
import signal
import socket
import threading

import pytest
from gateway import Ca, client_context, connect, start_gateway
from lab import free_port, run, wait_for
from node import UIDS
from servers import TcpServer, echo


def reload(g):
    before = g.status()["last_reload"]["at"], g.status()["generation"]
    done = len(g.events("reloaded")) + len(g.events("reload_failed"))
    g.process.send_signal(signal.SIGHUP)
    wait_for("the reload", lambda: len(g.events("reloaded")) + len(g.events("reload_failed")) > done)
    return before


@pytest.fixture
def web(node):
    """make(allow) -> (gateway, port, context of a client that is a.example): no agent is there at all."""
    server = TcpServer(node.netns, echo)
    ca = Ca(node.conf, "ca", UIDS["stranger"])
    cert, key = ca.issue("web", dns=["web.example"])
    port = free_port()
    g = start_gateway(
        node,
        "web",
        f"credentials: [{{name: web, cert: {cert}, key: {key}}}]\ntrust: [{{name: partners, ca: {ca.pem}}}]\n"
        f"listeners:\n- {{name: in, type: server, address: 127.0.0.1:{port}, to: 127.0.0.1:{server.port}, "
        "credentials: [web], trust: partners, allow: {dns: [a.example, b.example]}}\n",
    )
    yield g, port, client_context(ca, *ca.issue("a", dns=["a.example"])), server
    server.close()


def tls(node, port, context):
    return context.wrap_socket(connect(node, port), server_hostname="web.example")


def plain(s):
    """The socket below TLS: Python's own takes a reset there for an end."""
    return socket.socket(fileno=os.dup(s.fileno()))


def test_reload_under_load(node, web):
    """Twenty reloads that change what is allowed while connections come and go: none fails that is allowed."""
    g, port, context, _ = web
    stop, failed, done = threading.Event(), [], [0]
    kept = tls(node, port, context)

    def load():
        while not stop.is_set():
            try:
                with tls(node, port, context) as s:
                    s.sendall(b"abc")
                    if s.recv(3) != b"abc":
                        failed.append("short")
                done[0] += 1
            except OSError as e:
                failed.append(str(e))

    threads = [threading.Thread(target=load) for _ in range(3)]
    for t in threads:
        t.start()
    for i in range(20):
        g.rewrite(lambda text, i=i: text.replace("b.example" if i == 0 else f"n{i - 1}.example", f"n{i}.example"))
        at = done[0]
        reload(g)
        wait_for("connections after it", lambda: done[0] > at + 3 or failed)
        kept.sendall(b"k")
        assert kept.recv(1) == b"k"
    stop.set()
    for t in threads:
        t.join()
    assert not failed, failed[:5]
    assert not g.events("reload_failed") and g.status()["last_reload"]["ok"]
    kept.close()


def test_reload_ends_what_is_no_longer_allowed(node, web):
    """By its name, by its target; the one that may stay stays."""
    g, port, context, server = web
    with tls(node, port, context) as s:
        s.sendall(b"a")
        assert s.recv(1) == b"a"
        g.rewrite(lambda text: text.replace("dns: [a.example, b.example]", "dns: [b.example]"))
        reload(g)
        with pytest.raises(ConnectionResetError):
            plain(s).recv(1)
    assert g.wait_event("connection", reason="trust_changed")["peer_id"] == "dns:a.example"
    g.rewrite(lambda text: text.replace("dns: [b.example]", "dns: [a.example]"))
    reload(g)
    with TcpServer(node.netns, echo) as another, tls(node, port, context) as s:
        s.sendall(b"a")
        assert s.recv(1) == b"a"
        g.rewrite(lambda text: text.replace(f"to: 127.0.0.1:{server.port}", f"to: 127.0.0.1:{another.port}"))
        reload(g)
        if g.events("reload_failed"):  # the sandbox lets it reach its ports of the start, where the kernel can say so
            assert "restart" in g.events("reload_failed")[-1]["advice"]
            s.sendall(b"b")
            assert s.recv(1) == b"b"
        else:
            with pytest.raises(ConnectionResetError):
                plain(s).recv(1)
            assert g.wait_event("connection", reason="route_changed")


BROKEN = [
    # what becomes of the file, the place and the words of the first error
    (lambda t: t.replace("type: server", "type: sever"), "no such value, expected server, client or relay"),
    (lambda t: t.replace("trust: partners, allow", "trust: parters, allow"), "no trust 'parters' in this file"),
    (lambda t: t.replace("credentials: [web]", "credentials: [wep]"), "no credential 'wep' in this file"),
    (lambda t: t.replace("allow:", "alow:"), "unknown key 'alow'"),
    (lambda t: t.replace(", allow: {dns: [a.example, b.example]}", ""), "missing key 'allow' in a file without 'policy'"),
    (lambda t: t.replace("type: server", "type: client"), "a client listener has no 'allow'"),
    (lambda t: t.replace("to: 127", "tls: {min: '1.1'}, to: 127"), "expected 1.2 or 1.3"),
    (lambda t: t + "policy: none.yaml\n", "none.yaml"),
    (lambda t: t.replace("level: 1", "level: 9"), "needs feature level 9"),
    (lambda t: t[: len(t) // 2], "not valid YAML"),
]


@pytest.mark.parametrize("number", range(len(BROKEN)))
def test_broken_files(node, web, number):
    """At a reload each is one clear error with its place, and the gateway goes on as it was; a start says the same
    and runs nothing."""
    g, port, context, _ = web
    change, words = BROKEN[number]
    good = g.conf.read_text()
    g.conf.write_text(change(good))
    with tls(node, port, context) as s:
        reload(g)
        e = g.wait_event("reload_failed")
        said = e["error"] + (", expected " + e["expected"] if e.get("expected") else "")
        assert words in said + e.get("where", ""), e
        assert e["where"].startswith(str(node.conf)), e
        s.sendall(b"a")
        assert s.recv(1) == b"a"
        st = g.status()["last_reload"]
        assert not st["ok"] and st["error"]
        for command in ("check", "gateway"):
            p = run(node.postern, command, g.conf, check=False)
            assert (p.returncode, p.stdout) == (2, ""), p.stderr
            assert any(line.startswith(e["where"]) and words in line for line in p.stderr.splitlines()), p.stderr
        g.conf.write_text(good)
        reload(g)
        assert g.status()["last_reload"]["ok"]


def test_bad_reload(node, web):
    """What would need a restart, and a certificate that is none, are refused whole."""
    g, port, context, _ = web
    good = g.conf.read_text()
    for change, words in (
        (lambda t: t.replace(f"address: 127.0.0.1:{port}", f"address: 127.0.0.1:{free_port()}"), "`listeners` cannot be changed"),
        (lambda t: t.replace("type: server", "type: relay").replace("allow:", "upstream: {credentials: none, trust: partners, server_name: x}, allow:"), "`listeners` cannot be changed"),
        (lambda t: t.replace("cert: ", "cert: /nonexistent"), "web"),
    ):
        g.conf.write_text(change(good))
        n = len(g.events("reload_failed"))
        reload(g)
        wait_for("the refusal", lambda n=n: len(g.events("reload_failed")) > n)
        assert words in str(g.events("reload_failed")[-1])
        with tls(node, port, context) as s:
            s.sendall(b"a")
            assert s.recv(1) == b"a"
