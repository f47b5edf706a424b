"""A gateway's targets: checks and health, limits, tunnels through an HTTP proxy."""

import contextlib
import json
import os
import re
import signal
import socket
import threading
import time

import pytest
from lab import free_port, in_netns, wait_for
from named_gateway import TRUST, connect, ends, gw, server_listener, web
from servers import TcpServer, echo, http_one

# --- checks, health -------------------------------------------------------------------------------


def health(gw, port, path):
    r = gw.curl("-o", "-", "-w", "\\n%{http_code}", f"http://127.0.0.1:{port}{path}")
    body, code = r.stdout.rsplit("\n", 1)
    return int(code), json.loads(body) if body.startswith("{") else body


def test_health(gw, web):
    """/readyz follows the targets; /healthz does not; metrics and status say the same."""
    port, hport, tport = free_port(), free_port(), free_port()
    status = [b"200 OK"]

    def answer(conn):
        while b"\r\n\r\n" not in conn.recv(4096):
            pass
        conn.sendall(b"HTTP/1.1 " + status[0] + b"\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")

    gateway = gw.start(
        web
        + f"""health: {{address: "127.0.0.1:{hport}"}}
targets: {{interval: 100ms, timeout: 1s}}
listeners:
{server_listener(port, tport)}    check: {{kind: http, path: /ok, host: web.example}}
"""
    )
    down = gateway.wait_event("target", notice="down")
    assert down["target"] == f"127.0.0.1:{tport}" and "refused" in down["error"]
    code, body = health(gw, hport, "/readyz")
    assert code == 503 and not body["ready"] and body["identity"] and body["targets"][0]["state"] == "down"
    code, body = health(gw, hport, "/healthz")
    assert code == 200 and body["workers_turn"]
    assert health(gw, hport, "/metrics")[0] == 404 and health(gw, hport, "/status")[0] == 404
    with TcpServer(gw.netns, answer, port=tport):
        gateway.wait_event("target", notice="up")
        code, body = wait_for("ready", lambda: (r := health(gw, hport, "/readyz"))[0] == 200 and r)
        assert body["ready"] and body["targets"][0]["error"] is None
        assert 'postern_target_up{listener="in",target="127.0.0.1:%d"} 1' % tport in gateway.metrics()
        status[0] = b"500 No"
        wait_for("not ready", lambda: health(gw, hport, "/readyz")[0] == 503)
        assert "status is 500" in gateway.status()["targets"][0]["error"]


def test_check_tls(gw, web):
    """A client's target is up when the handshake finds whom it must; its own traffic is judged the same."""
    port, out = free_port(), free_port()
    client = """credentials: [{{name: me, cert: client.pem, key: client-key.pem}}]
trust: [{{name: ca, ca: ca.pem}}]
targets: {{check: tls, interval: 100ms}}
listeners:
  - name: out
    type: client
    address: 127.0.0.1:{out}
    to: 127.0.0.1:{port}
    server_name: {name}
    credentials: [me]
    trust: ca
"""
    with TcpServer(gw.netns, echo) as server:
        gw.start(
            web
            + f"""listeners:
{server_listener(port, server.port)}"""
        )
        good = gw.start(client.format(out=out, port=port, name="web.example"))
        good.wait_event("target", notice="up")
        good.process.stop()
        wrong = gw.start(client.format(out=out, port=port, name="other.example"))
        assert "other.example" in str(wrong.wait_event("target", notice="down"))
        assert not wrong.status()["ready"]
        assert server.accepted >= 1  # a check reaches the target behind, and says nothing there


def test_rate(gw, web):
    """What comes faster than the listener takes it is reset and counted; others are carried."""
    port = free_port()
    with TcpServer(gw.netns, http_one) as server:
        gateway = gw.start(
            web
            + f"""listeners:
{server_listener(port, server.port)}    limits: {{connect_rate: 1, connect_burst: 3}}
"""
        )
        began = time.monotonic()
        all_of_them, refused = [], 0
        for _ in range(20):
            try:
                all_of_them.append(connect(gw, port))
            except ConnectionResetError:  # before we had looked at it
                refused += 1
        took = time.monotonic() - began
        for s in all_of_them:
            s.settimeout(0.3)
            try:
                refused += ends(s) == "reset"
            except TimeoutError:
                pass
            s.close()
        assert 20 - 3 - (took + 7) <= refused <= 17, refused
        n = int(re.search(r'postern_connect_rate_refused_total\{listener="in"\} (\d+)', gateway.metrics())[1])
        assert n == refused


# --- tunnels --------------------------------------------------------------------------------------


def http_proxy(gw, port):
    """(what it was asked, whether it may, what handles a connection) of a proxy that leads to a port of the namespace,
    whatever it is asked for."""
    allow, asked = [True], []

    def proxy(conn):
        head = b""
        while b"\r\n\r\n" not in head:
            head += conn.recv(1)
        asked.append(head.decode())
        if not allow[0]:
            conn.sendall(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 2\r\n\r\nno")
            return
        with in_netns(gw.netns):
            far = socket.create_connection(("127.0.0.1", port))
        conn.sendall(b"HTTP/1.1 200 Connection established\r\nX: y\r\n\r\n")

        def back():
            with contextlib.suppress(OSError):  # the other side went away first
                while data := far.recv(65536):
                    conn.sendall(data)
                conn.shutdown(socket.SHUT_WR)

        t = threading.Thread(target=back, daemon=True)
        t.start()
        while data := conn.recv(65536):
            far.sendall(data)
        far.shutdown(socket.SHUT_WR)
        t.join(10)
        far.close()

    return asked, allow, proxy


def test_connect_proxy(gw, web):
    """A client gateway reaches its server through an HTTP proxy; a proxy that says no is in the log."""
    port, out = free_port(), free_port()
    asked, allow, proxy = http_proxy(gw, port)
    with TcpServer(gw.netns, echo) as server, TcpServer(gw.netns, proxy) as relay:
        gw.start(
            web
            + f"""listeners:
{server_listener(port, server.port, 'dns: [client.example]')}"""
        )
        client = gw.start(
            "credentials: [{name: me, cert: client.pem, key: client-key.pem}]\n"
            + TRUST
            + f"""listeners:
  - name: out
    type: client
    address: 127.0.0.1:{out}
    to: web.example:{port}
    credentials: [me]
    trust: ca
    connect_proxy: "http://user:word@127.0.0.1:{relay.port}"
"""
        )
        s = connect(gw, out)
        s.sendall(b"through")
        got = b""
        while len(got) < 7:
            got += s.recv(7)
        assert got == b"through"
        s.close()
        assert asked[0].startswith(f"CONNECT web.example:{port} HTTP/1.1\r\n")
        assert "\r\nProxy-Authorization: Basic dXNlcjp3b3Jk\r\n" in asked[0]
        allow[0] = False
        s = connect(gw, out)
        assert ends(s) == "reset"
        assert client.wait_event("tunnel_refused", step="status")["status"] == 403
        assert "word" not in client.process.err()
        os.kill(client.process.pid, signal.SIGHUP)
        client.wait_event("reloaded")


@pytest.mark.parametrize("protocol", ["tcp", "http"])
def test_relay_through_proxy(gw, web, protocol):
    """A relay finds its next hop through the proxy: for a connection, and for a request."""
    port, border = free_port(), free_port()
    asked, allow, proxy = http_proxy(gw, port)
    with TcpServer(gw.netns, http_one) as server, TcpServer(gw.netns, proxy) as between:
        gateway = gw.start(
            web.replace("]\n", ", {name: me, cert: client.pem, key: client-key.pem}]\n", 1)
            + f"""listeners:
{server_listener(port, server.port, 'dns: [client.example]')}  - name: border
    type: relay
    address: 127.0.0.1:{border}
    to: web.example:{port}
    protocol: {protocol}
    credentials: [web]
    trust: ca
    allow: {{any: true}}
    upstream: {{credentials: [me], trust: ca, connect_proxy: "http://127.0.0.1:{between.port}"}}
"""
        )
        url = f"https://web.example:{border}/"
        ask = [*gw.client, "-w", " %{http_code}", "--resolve", f"web.example:{border}:127.0.0.1", url]
        r = gw.curl(*ask)
        assert r.returncode == 0 and r.stdout.endswith(" 200"), r.stderr + r.stdout
        assert asked == [f"CONNECT web.example:{port} HTTP/1.1\r\nHost: web.example:{port}\r\n\r\n"]
        allow[0] = False
        r = gw.curl(*ask)
        assert r.returncode != 0 if protocol == "tcp" else r.stdout.endswith(" 503")
        gateway.wait_event("tunnel_refused", listener="border", step="status", status=403)


def test_first_name_needs_a_restart(gw, web):
    """What looks names up is started with the gateway or not at all: a reload says so, and all stays as it was."""
    port = free_port()
    with TcpServer(gw.netns, http_one) as server:
        gateway = gw.start(
            web
            + f"""listeners:
{server_listener(port, server.port)}"""
        )
        before = gateway.conf.read_text()
        gateway.conf.write_text(before.replace(f"to: 127.0.0.1:{server.port}", f"to: db.test:{server.port}"))
        os.kill(gateway.process.pid, signal.SIGHUP)
        assert "'db.test' is a name" in gateway.wait_event("reload_failed")["error"]
        r = gw.curl(*gw.client, "--resolve", f"web.example:{port}:127.0.0.1", f"https://web.example:{port}/")
        assert r.returncode == 0, r.stderr


def test_health_over_a_take_over(gw, web):
    """The process that takes over has the health address too; no question is refused in between."""
    port, hport = free_port(), free_port()
    text = (
        web
        + f"""health: {{address: "127.0.0.1:{hport}"}}
listeners:
{server_listener(port, 9)}"""
    )
    first = gw.start(text)
    assert health(gw, hport, "/readyz")[0] == 200
    argv = [gw.build / "proxy" / "postern", "gateway", "--take-over", first.conf]
    second = gw.lab.start("second", argv, netns=gw.netns)
    wait_for("the second serves", lambda: '"took_over"' in second.err() and health(gw, hport, "/readyz")[0] == 200)
    wait_for("the first ended", lambda: not first.process.alive())
    assert health(gw, hport, "/readyz")[0] == 200 and second.alive()
