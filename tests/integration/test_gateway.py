"""Gateways: each type of listener, over TCP and HTTP, on addresses and Unix sockets; who is let in."""

import http.client
import os
import signal
import socket
import ssl
import stat
import sys
import threading

import pytest
from gateway import Ca, client_context, connect, server_context, start_gateway
from lab import free_port, run, wait_for
from node import ALLOW_CLIENT, UIDS, spiffe_id
from servers import TcpServer, UnixServer, echo, greet_then_echo, http_one

ALLOW_GET = """kind: Policy
level: 1
rules:
  - name: read
    action: ALLOW
    from:
      - principals: [spiffe://{td}/client]
    to:
      - methods: [GET]
        paths: ["/open*"]
"""


@pytest.fixture
def place(node):
    """Where sockets of both sides may be: (a directory of the gateway's user, one of the workload's)."""
    return node.lab.private_dir("sockets", UIDS["server"]), node.lab.private_dir("workload")


def serve(node, handle, to_unix, place):
    if to_unix:
        server = UnixServer(place[1] / "app.sock", handle)
        return server, f"unix:{server.path}"
    server = TcpServer(node.netns, handle)
    return server, f"127.0.0.1:{server.port}"


def end(s):
    s.shutdown(socket.SHUT_WR)
    got = b""
    while chunk := s.recv(65536):
        got += chunk
    return got


# --- server and client --------------------------------------------------------------------------------


@pytest.mark.parametrize("to_unix", [False, True], ids=["tcp", "unix"])
@pytest.mark.parametrize("from_unix", [False, True], ids=["tcp", "unix"])
def test_client_and_server(node, place, from_unix, to_unix):
    """Plain in, mTLS between two gateways with the agent's identities, plain out; both ends' ends pass."""
    node.start_agent()
    server, to = serve(node, greet_then_echo, to_unix, place)
    client_dir = node.lab.private_dir("clients", UIDS["client"])
    tls, plain = free_port(), client_dir / "in.sock" if from_unix else free_port()
    listen = f"unix:{plain}" if from_unix else f"127.0.0.1:{plain}"
    with server:
        inner = start_gateway(
            node,
            "inner",
            f"listeners:\n- {{name: db, type: server, address: 127.0.0.1:{tls}, to: '{to}'}}\n",
            identity="server",
            policy=ALLOW_CLIENT,
        )
        outer = start_gateway(
            node,
            "outer",
            f"listeners:\n- {{name: out, type: client, address: '{listen}', to: 127.0.0.1:{tls}, "
            f"identities: [{spiffe_id('server')}]}}\n",
            identity="client",
        )
        with connect(node, plain) as s:
            assert s.recv(100) == b"220 ready\r\n"
            s.sendall(b"x" * 300_000)
            assert end(s) == b"x" * 300_000
    shown = run(node.postern, "status", "--config", inner.conf).stdout
    assert "gateway" in shown and "server" in shown and spiffe_id("server") in shown
    e = outer.wait_event("connection", listener="out")
    assert (e["reason"], e["peer_id"], e["own_id"]) == ("done", spiffe_id("server"), spiffe_id("client"))
    if from_unix:
        assert e["source"] == f"unix:uid={os.geteuid()},gid={os.getegid()},pid={os.getpid()}"
    e = inner.wait_event("connection", listener="db")
    assert (e["reason"], e["peer_id"], e["rule"], e["destination"]) == ("done", spiffe_id("client"), "client-may", to)
    assert e["port"] == (tls if to_unix else server.port) if "port" in e else to_unix
    db = inner.listener("db")
    assert (db["type"], db["to"], db["accepted"], db["denied"]) == ("server", to, 1, 0)
    assert db["downstream"] == {"credentials": "identity", "trust": "identity"}
    wait_for("the count to fall", lambda: inner.listener("db")["open"] == 0)
    assert 'postern_listener_accepted_total{listener="db"} 1' in inner.metrics()


def test_policy_denies(node, place):
    node.start_agent()
    with TcpServer(node.netns, echo) as server:
        tls, plain = free_port(), free_port()
        inner = start_gateway(
            node,
            "inner",
            f"listeners:\n- {{name: db, type: server, address: 127.0.0.1:{tls}, to: 127.0.0.1:{server.port}}}\n",
            identity="server",
            policy=ALLOW_CLIENT,
        )
        start_gateway(
            node,
            "outer",
            f"listeners:\n- {{name: out, type: client, address: 127.0.0.1:{plain}, to: 127.0.0.1:{tls}, "
            f"identities: [{spiffe_id('server')}]}}\n",
            identity="stranger",
        )
        with connect(node, plain) as s:
            with pytest.raises(ConnectionResetError):
                s.recv(1)
        assert server.accepted == 0
    e = inner.wait_event("connection", reason="policy_denied")
    assert e["peer_id"] == spiffe_id("stranger") and e["decision"]
    wait_for("the count", lambda: inner.listener("db")["denied"] == 1)


def test_server_is_not_who_it_has_to_be(node):
    node.start_agent()
    with TcpServer(node.netns, echo) as server:
        tls, plain = free_port(), free_port()
        start_gateway(
            node,
            "inner",
            f"listeners:\n- {{name: db, type: server, address: 127.0.0.1:{tls}, to: 127.0.0.1:{server.port}}}\n",
            identity="server",
            policy=ALLOW_CLIENT,
        )
        outer = start_gateway(
            node,
            "outer",
            f"listeners:\n- {{name: out, type: client, address: 127.0.0.1:{plain}, to: 127.0.0.1:{tls}, "
            f"identities: [{spiffe_id('other')}]}}\n",
            identity="client",
        )
        with connect(node, plain) as s:
            with pytest.raises(ConnectionResetError):
                s.recv(1)
        assert server.accepted == 0
    assert outer.wait_event("handshake_failed", step="expected")["peer_id"] == spiffe_id("server")


@pytest.mark.parametrize("to_unix", [False, True], ids=["tcp", "unix"])
def test_http_server(node, place, to_unix):
    """Each request is judged; the workload learns who called, and cannot be told otherwise."""
    node.start_agent()
    server, to = serve(node, http_one, to_unix, place)
    tls, plain = free_port(), free_port()
    with server:
        inner = start_gateway(
            node,
            "inner",
            f"listeners:\n- {{name: web, type: server, address: 127.0.0.1:{tls}, to: '{to}', protocol: http}}\n",
            identity="server",
            policy=ALLOW_GET,
        )
        start_gateway(
            node,
            "outer",
            f"listeners:\n- {{name: out, type: client, address: 127.0.0.1:{plain}, to: 127.0.0.1:{tls}, "
            f"identities: [{spiffe_id('server')}]}}\n",
            identity="client",
        )
        c = http.client.HTTPConnection("a")
        c.sock = connect(node, plain)
        c.request("GET", "/shut", headers={"X-Forwarded-Client-Cert": "URI=spiffe://forged"})
        r = c.getresponse()
        assert r.status == 403 and r.read() and r.headers["x-postern-decision"]
        c.request("GET", "/open/1", headers={"X-Forwarded-Client-Cert": "URI=spiffe://forged"})
        r = c.getresponse()
        seen = r.read().decode().lower()
        assert r.status == 200 and f"uri={spiffe_id('client')}" in seen and "forged" not in seen
        assert f"by={spiffe_id('server')}" in seen
        c.close()
    assert inner.wait_event("request", status=403)["near_miss"]


# --- peers of an ordinary CA --------------------------------------------------------------------------


def ordinary(node, allow, extra="", to="h", **kw):
    """A server gateway without any agent, for clients of an ordinary CA. (gateway, ca, port)"""
    ca = Ca(node.conf, "ca", UIDS["stranger"])
    cert, key = ca.issue("web", dns=["web.example"])
    port = free_port()
    g = start_gateway(
        node,
        "web",
        f"credentials: [{{name: web, cert: {cert}, key: {key}}}]\ntrust: [{{name: partners, ca: {ca.pem}}}]\n"
        f"listeners:\n- {{name: in, type: server, address: 127.0.0.1:{port}, to: '{to}', credentials: [web], "
        f"trust: partners, allow: {allow}{extra}}}\n",
        **kw,
    )
    return g, ca, port


def tls_connect(node, port, context, name="web.example"):
    return context.wrap_socket(connect(node, port), server_hostname=name)


@pytest.mark.parametrize(
    "allow, names, principal",
    [
        ("{dns: [a.example]}", {"dns": ["b.example", "a.example"]}, "dns:a.example"),
        ("{cn: [Anna]}", {"cn": "Anna"}, "cn:Anna"),
        ("{ou: [ops, dev]}", {"cn": "x", "ou": "dev"}, "ou:dev"),
        ("{uri: ['spiffe://td/a/*']}", {"uri": ["spiffe://td/a/b"]}, "uri:spiffe://td/a/b"),
    ],
    ids=["dns", "cn", "ou", "uri"],
)
def test_ordinary_peer_by_name(node, allow, names, principal):
    """Let in by its name, which is its principal; another name of the same CA is not."""
    with TcpServer(node.netns, echo) as server:
        g, ca, port = ordinary(node, allow, to=f"127.0.0.1:{server.port}")
        with tls_connect(node, port, client_context(ca, *ca.issue("friend", **names))) as s:
            s.sendall(b"hello")
            assert s.recv(10) == b"hello"
        assert g.wait_event("connection")["peer_id"] == principal
        other = client_context(ca, *ca.issue("other", cn="Bob", ou="no", dns=["c.example"], uri=["spiffe://td/b/b"]))
        with pytest.raises((ssl.SSLError, ConnectionResetError)):
            with tls_connect(node, port, other) as s:
                s.recv(1)
        g.wait_event("handshake_failed", step="expected")
        with pytest.raises((ssl.SSLError, ConnectionResetError)):
            with tls_connect(node, port, client_context(ca)) as s:
                s.recv(1)
        assert server.accepted == 1


def test_ordinary_uri_is_no_spiffe_principal(node):
    """A SPIFFE ID that an ordinary CA has signed opens nothing that the policy opens to that SPIFFE ID,
    and reaches no application as one."""
    seen = []

    def keep(conn):
        seen.append(conn.recv(65536))
        conn.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")

    policy = """kind: Policy
level: 1
rules:
  - {{name: mesh, action: ALLOW, from: [{{principals: ["spiffe://{td}/client"]}}], to: [{{paths: ["/mesh"]}}]}}
  - {{name: both, action: ALLOW, from: [{{principals: ["uri:spiffe://{td}/client"]}}], to: [{{paths: ["/both"]}}]}}
"""
    with TcpServer(node.netns, keep) as server:
        g, ca, port = ordinary(
            node, f"{{uri: ['{spiffe_id('client')}']}}", ", protocol: http", f"127.0.0.1:{server.port}", policy=policy
        )
        context = client_context(ca, *ca.issue("liar", uri=[spiffe_id("client")]))
        with tls_connect(node, port, context) as s:
            s.sendall(b"GET /mesh HTTP/1.1\r\nHost: a\r\n\r\n")
            assert b" 403 " in s.recv(4096)
            s.sendall(b"GET /both HTTP/1.1\r\nHost: a\r\n\r\n")
            assert b" 200 " in s.recv(4096)
    head = seen[0].lower()
    assert b"hash=" in head and b"uri=" not in head and b"spiffe://" not in head
    assert g.wait_event("request", path="/both")["rule"] == "both"


def test_no_certificate_wanted(node):
    """client_certificate: none lets anybody in who is allowed so by name, and policy sees nobody."""
    with TcpServer(node.netns, echo) as server:
        ca = Ca(node.conf, "ca", UIDS["stranger"])
        cert, key = ca.issue("web", dns=["web.example"])
        port = free_port()
        g = start_gateway(
            node,
            "web",
            f"credentials: [{{name: web, cert: {cert}, key: {key}}}]\n"
            f"listeners:\n- {{name: in, type: server, address: 127.0.0.1:{port}, to: 127.0.0.1:{server.port}, "
            "credentials: [web], client_certificate: none, allow: {any: true}}\n",
        )
        with tls_connect(node, port, client_context(ca)) as s:
            s.sendall(b"hello")
            assert s.recv(10) == b"hello"
    assert "peer_id" not in g.wait_event("connection")
    assert g.listener("in")["client_certificate"] == "none"
    assert g.wait_event("anonymous_clients")["listener"] == "in"


def test_client_of_an_ordinary_server(node):
    """A client gateway with a certificate of files meets an ordinary server, by its name."""
    ca = Ca(node.conf, "ca", UIDS["stranger"])
    mine = ca.issue("me", cn="gateway")
    right = server_context(ca, *ca.issue("right", dns=["db.example"]))
    wrong = server_context(ca, *ca.issue("wrong", dns=["other.example"]))

    def tls(context):
        def handle(conn):
            with context.wrap_socket(conn, server_side=True) as s:
                names = dict(x[0] for x in s.getpeercert()["subject"])
                s.sendall(names["commonName"].encode() + b"\n")
                while data := s.recv(65536):
                    s.sendall(data)
                s.unwrap()

        return handle

    with TcpServer(node.netns, tls(right)) as server, TcpServer(node.netns, tls(wrong)) as impostor:
        port, bad = free_port(), free_port()
        g = start_gateway(
            node,
            "out",
            f"credentials: [{{name: me, cert: {mine[0]}, key: {mine[1]}}}]\ntrust: [{{name: ca, ca: {ca.pem}}}]\nlisteners:\n"
            + "".join(
                f"- {{name: {n}, type: client, address: 127.0.0.1:{p}, to: 127.0.0.1:{t}, server_name: db.example, "
                "credentials: [me], trust: ca}\n"
                for n, p, t in (("good", port, server.port), ("bad", bad, impostor.port))
            ),
        )
        with connect(node, port) as s, s.makefile("rb") as f:
            assert f.readline() == b"gateway\n"
            s.sendall(b"abc\n")
            assert f.readline() == b"abc\n"
        assert g.wait_event("connection", listener="good")["peer_id"] == "dns:db.example"
        with connect(node, bad) as s:
            with pytest.raises(ConnectionResetError):
                s.recv(1)
    assert g.wait_event("handshake_failed", listener="bad")


# --- Unix sockets -------------------------------------------------------------------------------------


def unix_gateway(node, path, extra="", **kw):
    return start_gateway(
        node,
        "outer",
        f"listeners:\n- {{name: out, type: client, address: 'unix:{path}', to: 127.0.0.1:1, "
        f"identities: [{spiffe_id('server')}]{extra}}}\n",
        identity="client",
        **kw,
    )


def test_unix_socket_file(node):
    """Its mode; replaced after a kill; not taken from somebody who listens; not if it is no socket; gone at the end."""
    node.start_agent()
    path = node.lab.private_dir("clients", UIDS["client"]) / "in.sock"
    g = unix_gateway(node, path, ", socket: {mode: '0660'}")
    st = path.lstat()
    assert stat.S_ISSOCK(st.st_mode) and stat.S_IMODE(st.st_mode) == 0o660 and st.st_uid == UIDS["client"]
    second = unix_gateway(node, path, wait=False)
    assert second.process.p.wait(20) == 1
    assert "another process listens there" in second.process.err()
    assert path.is_socket()
    g.process.stop(signal.SIGKILL)
    assert path.is_socket()
    g = unix_gateway(node, path)
    assert stat.S_IMODE(path.lstat().st_mode) == 0o600
    assert g.process.stop() == 0
    assert not path.exists()
    path.write_text("mine")
    g = unix_gateway(node, path, wait=False)
    assert g.process.p.wait(20) == 2
    assert "is no socket" in g.process.err()
    assert path.read_text() == "mine"


def test_unix_target_that_is_not_there(node, place):
    node.start_agent()
    tls, plain = free_port(), free_port()
    inner = start_gateway(
        node,
        "inner",
        f"listeners:\n- {{name: db, type: server, address: 127.0.0.1:{tls}, to: 'unix:{place[1]}/none.sock'}}\n",
        identity="server",
        policy=ALLOW_CLIENT,
    )
    start_gateway(
        node,
        "outer",
        f"listeners:\n- {{name: out, type: client, address: 127.0.0.1:{plain}, to: 127.0.0.1:{tls}, "
        f"identities: [{spiffe_id('server')}]}}\n",
        identity="client",
    )
    with connect(node, plain) as s:
        with pytest.raises(ConnectionResetError):
            s.recv(1)
    e = inner.wait_event("connection", reason="connect_failed")
    assert e["error"] == "No such file or directory"


# --- limits -------------------------------------------------------------------------------------------


def test_connections_of_a_listener(node):
    """One listener is full: its next client waits, and is served when there is room; others go on."""
    ca = Ca(node.conf, "ca", UIDS["stranger"])
    cert, key = ca.issue("web", dns=["web.example"])
    small, large = free_port(), free_port()
    with TcpServer(node.netns, echo) as server:
        g = start_gateway(
            node,
            "web",
            f"workers: 1\ncredentials: [{{name: web, cert: {cert}, key: {key}}}]\nlisteners:\n"
            + "".join(
                f"- {{name: {n}, type: server, address: 127.0.0.1:{p}, to: 127.0.0.1:{server.port}, credentials: [web], "
                f"client_certificate: none, allow: {{any: true}}{x}}}\n"
                for n, p, x in (("small", small, ", limits: {connections: 2}"), ("large", large, ""))
            ),
        )
        context = client_context(ca)
        a, b = (tls_connect(node, small, context) for _ in range(2))
        waiting = connect(node, small)
        served = threading.Event()

        def third():
            with context.wrap_socket(waiting, server_hostname="web.example") as s:
                s.sendall(b"x")
                assert s.recv(1) == b"x"
                served.set()

        t = threading.Thread(target=third)
        t.start()
        with tls_connect(node, large, context) as s:
            s.sendall(b"y")
            assert s.recv(1) == b"y"
        assert not served.is_set() and g.listener("small")["open"] == 2
        a.close()
        assert served.wait(20)
        t.join()
        b.close()


# --- the command --------------------------------------------------------------------------------------


def test_check_and_refusals(node):
    """`postern check` and `postern gateway` say the same of a bad file, with its place, and nothing runs."""
    bad = node.conf / "bad.yaml"
    bad.write_text("kind: Gateway\nlevel: 1\nlisteners:\n- {name: s, type: server, address: '0.0.0.0:1', to: 'h:1'}\n")
    p = run(node.postern, "check", bad, check=False)
    assert p.returncode == 2
    assert p.stderr.splitlines()[0].startswith(f"{bad}:4:3: missing key 'credentials' in a file without 'identity'")
    q = run(node.postern, "gateway", bad, check=False)
    assert q.returncode == 2 and q.stderr == p.stderr
    assert run(node.postern, "gateway", check=False).returncode == 2
    good = node.conf / "good.yaml"
    good.write_text(
        "kind: Gateway\nlevel: 1\nidentity: {}\npolicy: p.yaml\n"
        "listeners:\n- {name: s, type: server, address: '127.0.0.1:1', to: 'h:1'}\n"
    )
    (node.conf / "p.yaml").write_text("kind: Policy\nlevel: 1\nrules: []\n")
    assert "ok (Gateway, level 2)" in run(node.postern, "check", good).stdout
    r = run(node.postern, "proxy", good, check=False)
    assert r.returncode == 2 and "a file of kind Gateway, expected Proxy" in r.stderr


ACTIVATE = """
import os, sys
fd, argv = int(sys.argv[1]), sys.argv[2:]
os.dup2(fd, 3)
os.set_inheritable(3, True)
os.environ.update(LISTEN_PID=str(os.getpid()), LISTEN_FDS="1", LISTEN_FDNAMES="out")
os.execv(argv[0], argv)
"""


@pytest.mark.parametrize("host, reached", [("0.0.0.0", True), ("127.0.0.1", False)])
def test_client_on_the_managers_socket(node, host, reached):
    """A client listener that others reach is refused, also where the service manager opened its socket."""
    conf = node.conf / "out.yaml"
    conf.write_text(
        f"kind: Gateway\nlevel: 1\nidentity: {{socket: 'unix:{node.run}/none.sock'}}\nlisteners:\n"
        f"- {{name: out, type: client, address: systemd, to: 127.0.0.1:1, identities: [{spiffe_id('server')}]}}\n"
    )
    with node.inside():
        sock = socket.create_server((host, 0))
    with sock:
        p = node.lab.start(
            "out", [sys.executable, "-c", ACTIVATE, sock.fileno(), node.postern, "gateway", conf], pass_fds=[sock.fileno()]
        )
        if reached:
            assert p.p.wait(20) == 2
            assert "other machines can reach 0.0.0.0" in p.err() and "allow_remote_clients" in p.err()
        else:
            wait_for("the start", lambda: '"event":"started"' in p.err())
