"""PROXY protocol in, as a real haproxy sends it: whom the policy and the log speak of, what goes on to the target."""

import shutil
import socket
import ssl

import pytest
from lab import free_port, in_netns, wait_for
from plain_gateway import Gateways
from servers import TcpServer

pytestmark = pytest.mark.skipif(shutil.which("haproxy") is None, reason="no haproxy")

POLICY = "kind: Policy\nlevel: 1\nrules: [{name: near, action: ALLOW, from: [{ip_blocks: [127.0.0.7]}]}]\n"
UNIQUE_ID = "id-of-this-one"


def keep_all(received):
    """A target that notes what comes, and answers each piece with `ok`."""

    def handle(s):
        with s:
            while data := s.recv(65536):
                received.append(data)
                if b"ping" in data:
                    s.sendall(b"ok")

    return handle


def start_haproxy(gw, to, how):
    """A TCP front of the gateway; its port."""
    port = free_port()
    conf = gw.conf / f"haproxy-{port}.cfg"
    conf.write_text(
        f"""global
  maxconn 50
defaults
  mode tcp
  timeout connect 5s
  timeout client 30s
  timeout server 30s
frontend f
  bind 127.0.0.1:{port}
  unique-id-format {UNIQUE_ID}
  default_backend b
backend b
  server g 127.0.0.1:{to} {how}
"""
    )
    p = gw.lab.start(f"haproxy-{port}", ["haproxy", "-db", "-q", "-f", conf], netns=gw.netns)

    def listens():
        assert p.alive(), p.err()[-2000:]
        try:
            connect(gw, port, "127.0.0.9").close()
        except ConnectionRefusedError:
            return False
        return True

    wait_for("haproxy", listens)
    return port


def connect(gw, port, source):
    with in_netns(gw.netns):
        return socket.create_connection(("127.0.0.1", port), timeout=15, source_address=(source, 0))


def ask(gw, port, source):
    """What one round trip by TLS from this address gives: `ok`, the end, or how it fails."""
    context = ssl.create_default_context(cafile=gw.pki.pem)
    context.verify_flags &= ~getattr(ssl, "VERIFY_X509_STRICT", 0)
    context.load_cert_chain(*gw.client)
    try:
        with context.wrap_socket(connect(gw, port, source), server_hostname="web.example") as s:
            s.sendall(b"ping")
            return s.recv(2)
    except (ssl.SSLError, ConnectionError) as e:
        return e


@pytest.fixture
def gw(lab, build):
    g = Gateways(lab, build)
    g.pki.issue("web", cn="web", dns=["web.example"])
    g.client = g.pki.issue("client", cn="client", dns=["client.example"])
    (g.conf / "policy.yaml").write_text(POLICY)
    return g


def start_gateway(gw, target, said_by, extra=""):
    port = free_port()
    g = gw.start(
        "credentials: [{name: web, cert: web.pem, key: web-key.pem}]\ntrust: [{name: ca, ca: ca.pem}]\n"
        f"policy: policy.yaml\nlisteners:\n- {{name: in, type: server, address: 127.0.0.1:{port}, "
        f"to: 127.0.0.1:{target}, credentials: [web], trust: ca, allow: {{any: true}}, "
        f"proxy_protocol_from: [{said_by}]{extra}}}\n"
    )
    return g, port


@pytest.mark.parametrize("how", ["send-proxy", "send-proxy-v2", "send-proxy-v2-ssl-cn"])
def test_haproxy(gw, how):
    """Who connected to haproxy is judged and logged; haproxy itself, and who is not let in, reach nothing."""
    received = []
    with TcpServer(gw.netns, keep_all(received)) as target:
        g, port = start_gateway(gw, target.port, "127.0.0.1")
        front = start_haproxy(gw, port, how)
        assert ask(gw, front, "127.0.0.8") != b"ok"
        e = g.wait_event("connection", reason="policy_denied")
        assert e["source"].startswith("127.0.0.8:") and e["via"].startswith("127.0.0.1:")
        assert ask(gw, front, "127.0.0.7") == b"ok"
        e = g.wait_event("connection", rule="near")
        assert e["source"].startswith("127.0.0.7:") and e["via"].startswith("127.0.0.1:")
        # Straight to the gateway from a named address, and without a header.
        assert ask(gw, port, "127.0.0.1") != b"ok"
        g.wait_event("proxy_header_refused")
    assert received == [b"ping"]


def test_haproxy_tlvs(gw):
    """A connection's id goes on to the target, in the gateway's own header; what haproxy says of TLS does not."""
    received = []
    with TcpServer(gw.netns, keep_all(received)) as target:
        _, port = start_gateway(gw, target.port, "127.0.0.1", ", proxy_protocol: v2, proxy_protocol_pass: [5]")
        front = start_haproxy(gw, port, "send-proxy-v2 proxy-v2-options ssl,cert-cn,unique-id,crc32c,authority")
        assert ask(gw, front, "127.0.0.7") == b"ok"
    header, rest = b"".join(received)[:-4], b"".join(received)[-4:]
    assert rest == b"ping" and header[:13] == b"\r\n\r\n\x00\r\nQUIT\n\x21"
    assert header[16:20] == socket.inet_aton("127.0.0.7")
    tlvs, at = {}, 16 + 12
    while at < len(header):
        n = int.from_bytes(header[at + 1 : at + 3], "big")
        tlvs[header[at]] = header[at + 3 : at + 3 + n]
        at += 3 + n
    assert tlvs[5] == UNIQUE_ID.encode() and 0x20 not in tlvs and 0xD0 not in tlvs


def test_haproxy_is_not_named(gw):
    """Its header is the beginning of a TLS connection that is none."""
    received = []
    with TcpServer(gw.netns, keep_all(received)) as target:
        g, port = start_gateway(gw, target.port, "10.9.9.9")
        for how in ("send-proxy", "send-proxy-v2"):
            assert ask(gw, start_haproxy(gw, port, how), "127.0.0.7") != b"ok"
        g.wait_event("handshake_failed")
        assert target.accepted == 0
    assert not received
