"""A gateway and the network: routes by server name, what the target is told, names as targets.

Real clients (curl, openssl) and receivers (nginx, and ones that the test plays); certificates from files.
"""

import pathlib
import re
import socket
import struct
import threading

import pytest
from lab import children_of, free_port, in_netns, run, wait_for
from named_gateway import connect, ends, gw, server_listener, tls_connect, web
from servers import TcpServer, echo, http_one

# --- server names ---------------------------------------------------------------------------------


def test_routes(gw, web):
    """Each name to its target with its certificate; others are refused; one goes through untouched."""
    gw.pki.issue("old", cn="old", dns=["old.example"])
    tls_cert, tls_key = gw.pki.issue("inner", cn="inner", dns=["inner.example"])
    port, inner = free_port(), free_port()
    serve = [
        "openssl", "s_server", "-accept", f"127.0.0.1:{inner}", "-cert", tls_cert, "-key", tls_key, "-www", "-naccept", "2",
    ]  # fmt: skip
    gw.lab.start("inner", serve, netns=gw.netns)
    with TcpServer(gw.netns, http_one) as a, TcpServer(gw.netns, http_one) as b:
        gateway = gw.start(
            web.replace("]\n", ", {name: old, cert: old.pem, key: old-key.pem}]\n", 1)
            + f"""listeners:
  - name: in
    type: server
    address: 127.0.0.1:{port}
    credentials: [web]
    trust: ca
    allow: {{any: true}}
    sni:
      - {{names: [web.example, "*.web.example"], to: "127.0.0.1:{a.port}"}}
      - {{names: [old.example], to: "127.0.0.1:{b.port}", credentials: [old]}}
      - {{names: [inner.example], to: "127.0.0.1:{inner}", passthrough: true}}
"""
        )
        for name, server in (("web.example", a), ("a.web.example", a), ("old.example", b)):
            before = server.accepted
            r = gw.curl(*gw.client, "--resolve", f"{name}:{port}:127.0.0.1", f"https://{name}:{port}/x")
            assert r.returncode == 0 and f"Host: {name}:{port}" in r.stdout, r.stderr
            assert server.accepted == before + 1
        # Without a certificate a route that terminates lets nobody in.
        r = gw.curl("--cacert", gw.pki.pem, "--resolve", f"web.example:{port}:127.0.0.1", f"https://web.example:{port}/")
        assert r.returncode != 0
        gateway.wait_event("handshake_failed", step="no_certificate", server_name="web.example")
        # What goes through is between client and target: no certificate of the client's, theirs is the target's own.
        r = wait_for(
            "the target behind",
            lambda: (
                p := gw.curl(
                    "--cacert", gw.pki.pem, "--resolve", f"inner.example:{port}:127.0.0.1", f"https://inner.example:{port}/"
                )
            ).returncode
            == 0
            and p,
        )
        assert "s_server" in r.stdout
        line = gateway.wait_event("connection", transport="passthrough", reason="done")
        assert line["server_name"] == "inner.example" and "peer_id" not in line
        # Another name, and none at all.
        for args in (["-servername", "other.example"], ["-noservername"]):
            r = gw.run("openssl", "s_client", "-connect", f"127.0.0.1:{port}", *args)
            assert r.returncode != 0 and "BEGIN CERTIFICATE" not in r.stdout
        wait_for("both in the log", lambda: len(gateway.events("connection", reason="no_sni_route")) >= 2)
        metrics = gateway.metrics()
        assert re.search(r'postern_plaintext_connections_total\{by="sni_passthrough"\} [1-9]', metrics), metrics


def test_slow_hello(gw, web):
    """Who sends its first message a byte at a time has the handshake's time, and others go on meanwhile."""
    port = free_port()
    with TcpServer(gw.netns, http_one) as server:
        gateway = gw.start(
            web
            + f"""timeouts: {{handshake: 1s}}
listeners:
{server_listener(port, server.port)}    sni: [{{names: [x.example], passthrough: true}}]
"""
        )
        slow = [connect(gw, port) for _ in range(20)]
        for s in slow:
            s.sendall(b"\x16\x03\x01\x02\x00\x01")
        url = f"https://web.example:{port}/"
        r = gw.curl(*gw.client, "--resolve", f"web.example:{port}:127.0.0.1", url)
        assert r.returncode == 0, r.stderr
        assert [ends(s) for s in slow] == ["reset"] * 20
        wait_for("all in the log", lambda: len(gateway.events("connection", reason="handshake_timeout")) == 20)


# --- what the target is told ----------------------------------------------------------------------

SIGNATURE = b"\r\n\r\n\0\r\nQUIT\n"


def read_v2(conn):
    """(source, {type: value}) of a PROXY header, as a receiver that is not ours reads it."""

    def take(n):
        data = b""
        while len(data) < n:
            piece = conn.recv(n - len(data))
            assert piece
            data += piece
        return data

    head = take(16)
    assert head[:12] == SIGNATURE and head[12] == 0x21
    body = take(struct.unpack(">H", head[14:])[0])
    size = {0x11: 12, 0x21: 36, 0x31: 216}[head[13]]
    source = socket.inet_ntop(socket.AF_INET, body[:4]) if head[13] == 0x11 else head[13]
    tlvs = {}
    rest = body[size:]
    while rest:
        kind, n = struct.unpack(">BH", rest[:3])
        tlvs[kind] = rest[3 : 3 + n]
        rest = rest[3 + n :]
    return source, tlvs


def tls_tlvs(value):
    found, rest = {}, value[5:]
    while rest:
        kind, n = struct.unpack(">BH", rest[:3])
        found[kind] = rest[3 : 3 + n]
        rest = rest[3 + n :]
    return value[0], found


@pytest.mark.parametrize("mode", ["v2", "v2-tls", "v2-tls-full"])
def test_proxy_protocol(gw, web, mode):
    port = free_port()
    seen = []

    def receiver(conn):
        seen.append(read_v2(conn))
        http_one(conn)

    with TcpServer(gw.netns, receiver) as server:
        gw.start(
            web
            + f"""listeners:
  - name: in
    type: server
    address: 127.0.0.1:{port}
    to: 127.0.0.1:{server.port}
    protocol: http
    credentials: [web]
    trust: ca
    allow: {{dns: [client.example]}}
    proxy_protocol: {mode}
"""
        )
        url = f"https://web.example:{port}/"
        # Two requests on one connection: one header.
        r = gw.curl(*gw.client, "--resolve", f"web.example:{port}:127.0.0.1", url + "1", url + "2")
        assert r.returncode == 0 and r.stdout.count("HTTP/1.1") == 2, r.stderr + r.stdout
        assert len(seen) == 1
        source, tlvs = seen[0]
        assert source == "127.0.0.1"
        assert 0xD0 not in tlvs  # an ordinary CA vouches for no SPIFFE ID
        assert len(tlvs[3]) == 4
        assert (2 in tlvs) == (mode != "v2") and (0x20 in tlvs) == (mode != "v2")
        if mode != "v2":
            assert tlvs[2] == b"web.example"
            flags, sub = tls_tlvs(tlvs[0x20])
            assert sub[0x21] == b"TLSv1.3" and sub[0x23].startswith(b"TLS_AES")
            assert flags == (7 if mode == "v2-tls-full" else 1)
            assert (0x28 in sub) == (mode == "v2-tls-full")
            if mode == "v2-tls-full":
                der = run("openssl", "x509", "-in", gw.conf / "client.pem", "-outform", "DER", "-out", gw.conf / "c.der")
                assert der.returncode == 0 and sub[0x28] == (gw.conf / "c.der").read_bytes()
                assert sub[0x22] == b"client"


@pytest.mark.parametrize("mode", ["v1", "v2-tls-full"])
def test_proxy_protocol_nginx(gw, web, mode):
    """nginx takes the header, and knows the client's address by it."""
    port, backend = free_port(), free_port()
    directory = gw.lab.private_dir("nginx")
    conf = directory / "nginx.conf"
    conf.write_text(
        f"""daemon off; master_process off; pid {directory}/pid; error_log {directory}/error.log;
events {{}}
http {{ access_log off;
  client_body_temp_path {directory}/b; proxy_temp_path {directory}/p; fastcgi_temp_path {directory}/f;
  uwsgi_temp_path {directory}/u; scgi_temp_path {directory}/s;
  server {{ listen 127.0.0.1:{backend} proxy_protocol; location / {{ return 200 "$proxy_protocol_addr\\n"; }} }} }}
"""
    )
    gw.lab.start("nginx", ["/usr/sbin/nginx", "-c", conf, "-e", directory / "error.log"], netns=gw.netns)
    run("ip", "-n", gw.netns, "addr", "add", "10.9.8.7/32", "dev", "lo")

    def listens():
        connect(gw, backend).close()
        return True

    wait_for("nginx", listens)
    gw.start(
        web
        + f"""listeners:
{server_listener(port, backend)}    proxy_protocol: {mode}
"""
    )
    args = ["--interface", "10.9.8.7", "--resolve", f"web.example:{port}:127.0.0.1", f"https://web.example:{port}/"]
    r = gw.curl(*gw.client, *args)
    assert r.returncode == 0 and r.stdout == "10.9.8.7\n", r.stdout + r.stderr


# --- names as targets -----------------------------------------------------------------------------


class Dns:
    """A name server on 127.0.0.1:53 of a namespace: answers what `records` says, and counts."""

    def __init__(self, netns):
        self.records, self.asked, self.ttl = {}, [], 1
        with in_netns(netns):
            self.sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            self.sock.bind(("127.0.0.1", 53))
        self.thread = threading.Thread(target=self._run, daemon=True)
        self.thread.start()

    def _run(self):
        while True:
            try:
                data, peer = self.sock.recvfrom(4096)
            except OSError:
                return
            at, labels = 12, []
            while data[at]:
                labels.append(data[at + 1 : at + 1 + data[at]].decode())
                at += 1 + data[at]
            name, kind = ".".join(labels).lower(), struct.unpack(">H", data[at + 1 : at + 3])[0]
            self.asked.append((name, kind))
            question = data[12 : at + 5]
            addresses = self.records.get(name) if kind == 1 else [] if name in self.records else None
            flags = 0x8183 if addresses is None else 0x8180
            answers = b"".join(
                b"\xc0\x0c" + struct.pack(">HHIH", 1, 1, self.ttl, 4) + socket.inet_aton(a) for a in addresses or []
            )
            head = data[:2] + struct.pack(">HHHHH", flags, 1, len(addresses or []), 0, 0)
            self.sock.sendto(head + question + answers, peer)

    def close(self):
        self.sock.close()


@pytest.fixture
def dns(lab, gw):
    etc = pathlib.Path("/etc/netns") / gw.netns
    etc.mkdir(parents=True)
    lab.etc_dirs.append(etc)
    (etc / "resolv.conf").write_text("nameserver 127.0.0.1\noptions timeout:1 attempts:1\n")
    (etc / "hosts").write_text("127.0.0.1 localhost\n")
    server = Dns(gw.netns)
    yield server
    server.close()


def test_name(gw, web, dns):
    """Held until the first answer, then carried; the last good addresses outlive the name server's failure; a change
    is followed; the helper dies with the gateway."""
    port = free_port()
    with TcpServer(gw.netns, echo) as one, TcpServer(gw.netns, echo, port=0, host="127.0.0.5") as two:
        gateway = gw.start(
            web
            + f"""timeouts: {{connect: 5s}}
listeners:
  - name: in
    type: server
    address: 127.0.0.1:{port}
    to: db.test:{one.port}
    credentials: [web]
    client_certificate: none
    allow: {{any: true}}
""",
            with_hosts=True,
        )
        failed = gateway.wait_event("resolver", notice="failed", host="db.test")
        assert "no such name" in failed["error"]
        status = gateway.status()
        assert not status["ready"] and status["names"]["helper"] and status["names"]["hosts"][0]["addresses"] == []
        held = connect(gw, port)
        wait_for("it is held", lambda: gateway.status()["connections"]["inbound"]["held"] == 1)
        dns.records["db.test"] = ["127.0.0.1", "127.0.0.9"]
        gateway.wait_event("resolver", notice="recovered", host="db.test")
        wait_for("what was held went on", lambda: gateway.status()["connections"]["inbound"]["handshake"] == 1)
        wait_for("ready", lambda: gateway.status()["ready"])
        held.close()
        # The server is away: the addresses stay.
        n = len(dns.asked)
        dns.records.clear()
        wait_for("it asked again", lambda: len(dns.asked) >= n + 2)
        wait_for("that failed", lambda: len(gateway.events("resolver", notice="failed")) == 2)
        hosts = gateway.status()["names"]["hosts"][0]
        assert sorted(hosts["addresses"]) == ["127.0.0.1", "127.0.0.9"] and hosts["failures_in_row"] >= 1
        assert re.search(r'postern_resolver_addresses\{host="db.test"\} 2', gateway.metrics())
        # 127.0.0.9 refuses, 127.0.0.1 does not: every connection gets through.
        for _ in range(4):
            with tls_connect(gw, port, "web.example") as s:
                s.sendall(b"ping")
                assert s.recv(4) == b"ping"
        # Another address.
        dns.records["db.test"] = ["127.0.0.5"]
        wait_for("the change", lambda: gateway.status()["names"]["hosts"][0]["addresses"] == ["127.0.0.5"], timeout=40)
        helpers = children_of(gateway.process.pid)
        assert "postern-resolver" in helpers and two.port
        gateway.process.stop()
        for h in helpers.values():
            wait_for("the helper ended", lambda h=h: not pathlib.Path(f"/proc/{h}").exists())
