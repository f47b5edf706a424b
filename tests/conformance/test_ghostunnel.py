"""ghostunnel's scenarios, each with one command line: run by the gateway that is made of it, and, where POSTERN_GHOSTUNNEL
names it, by ghostunnel itself. Both have to behave alike; where they deliberately do not, docs/ghostunnel.md says so."""

import http.client
import re
import signal
import socket
import ssl
import threading

import pytest
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from ghosts import REAL, UID, Place, TlsServer, says
from lab import in_netns, run, wait_for
from servers import TcpServer, UnixServer, echo

LOCAL = {"dns": ["localhost"], "ip": ["127.0.0.1"]}


@pytest.fixture(params=["postern", pytest.param("ghostunnel", marks=pytest.mark.skipif(not REAL, reason="POSTERN_GHOSTUNNEL"))])
def place(request, lab, build):
    return Place(lab, build, request.param == "ghostunnel")


def try_tls(place, where, context):
    """Whether a client gets an answer through it."""
    try:
        with place.tls(where, context) as s:
            return says(s)
    except (ssl.SSLError, OSError):
        return False


def try_plain(place, where):
    try:
        with place.connect(where) as s:
            return says(s)
    except OSError:
        return False


# --- who may -------------------------------------------------------------------------------------------


def test_server_allows_by_each_kind_of_name(place):
    at = place.address()
    with TcpServer(place.netns, echo) as backend:
        place.start(
            "server", "--listen", at, "--target", f"127.0.0.1:{backend.port}", *place.pair("server", **LOCAL),
            "--allow-cn", "good", "--allow-ou", "dept", "--allow-dns", "c.example", "--allow-ip", "10.1.2.3",
            "--allow-uri", "spiffe://test/ok/*/x", "--allow-uri", "spiffe://test/all/**",
        )  # fmt: skip
        allowed = [
            {"cn": "good"}, {"cn": "x", "ou": "dept"}, {"dns": ["c.example"]}, {"ip": ["10.1.2.3"]},
            {"uri": ["spiffe://test/ok/1/x"]}, {"uri": ["spiffe://test/all/a/b"]}, {"dns": ["y.example", "c.example"]},
        ]  # fmt: skip
        denied = [
            {"cn": "bad"}, {"cn": "dept", "ou": "good"}, {"dns": ["good"]}, {"dns": ["d.c.example"]}, {"ip": ["10.1.2.4"]},
            {"uri": ["spiffe://test/ok/1/2/x"]}, {"uri": ["spiffe://test/ok/1"]}, {"uri": ["spiffe://other/all/a"]},
        ]  # fmt: skip
        for i, names in enumerate(allowed):
            assert try_tls(place, at, place.client(f"a{i}", **names)), names
        before = backend.accepted
        for i, names in enumerate(denied):
            assert not try_tls(place, at, place.client(f"d{i}", **names)), names
        assert not try_tls(place, at, place.client("o", ca=place.other, cn="good")), "another authority"
        assert not try_tls(place, at, place.context()), "no certificate"
        assert backend.accepted == before


def test_server_without_authentication(place):
    at = place.address()
    with TcpServer(place.netns, echo) as backend:
        place.start("server", "--listen", at, "--target", f"127.0.0.1:{backend.port}", *place.pair("server", **LOCAL), "--disable-authentication")  # fmt: skip
        assert try_tls(place, at, place.context())


def test_client_verifies_host_and_names(place):
    """--verify-* are asked for besides the host, not in its place."""
    cases = [
        (LOCAL | {"cn": "db"}, ["--verify-cn", "db"], True),
        (LOCAL | {"cn": "no"}, ["--verify-cn", "db"], False),
        ({"dns": ["elsewhere"], "cn": "db"}, ["--verify-cn", "db"], False),
        (LOCAL | {"uri": ["spiffe://t/db"]}, ["--verify-cn", "db", "--verify-uri", "spiffe://t/*"], True),
        (LOCAL | {"ou": "x"}, ["--verify-ou", "y"], False),
        (LOCAL, [], True),
        ({"dns": ["elsewhere"]}, [], False),
        ({"dns": ["elsewhere"]}, ["--override-server-name", "elsewhere"], True),
        (LOCAL, ["--override-server-name", "elsewhere"], False),
        (LOCAL, ["--verify-dns", "127.example"], False),
        (LOCAL, ["--verify-dns", "localhost"], True),
    ]
    own = place.pair("own", cn="own")
    for i, (names, flags, good) in enumerate(cases):
        with TlsServer(place, *place.ca.issue(f"server{i}", **names), place.ca) as server:
            at = place.address()
            p = place.start("client", "--listen", at, "--target", f"127.0.0.1:{server.port}", *own, *flags)
            assert try_plain(place, at) == good, (names, flags)
            p.stop()


def test_client_rejects_another_authority(place):
    with TlsServer(place, *place.other.issue("server", **LOCAL)) as server:
        at = place.address()
        place.start("client", "--listen", at, "--target", f"127.0.0.1:{server.port}", *place.pair("own", cn="own"))
        assert not try_plain(place, at)


def test_client_without_certificate(place):
    with TlsServer(place, *place.ca.issue("server", **LOCAL)) as server:
        at = place.address()
        place.start("client", "--listen", at, "--target", f"127.0.0.1:{server.port}", "--cacert", place.ca.pem, "--disable-authentication")  # fmt: skip
        assert try_plain(place, at)
        assert server.peers[-1] in (None, {})


# --- certificates ---------------------------------------------------------------------------------------


def served(place, at, context):
    """The serial number of what is shown to a client."""
    with place.tls(at, context) as s:
        assert says(s)
        return s.getpeercert()["serialNumber"]


def test_reload_under_load_and_broken_files(place):
    """A new certificate at SIGHUP, while connections go on; of a broken one nothing comes."""
    at = place.address()
    client = place.client("client", cn="client")
    with TcpServer(place.netns, echo) as backend:
        flags = place.pair("server", **LOCAL)
        p = place.start("server", "--listen", at, "--target", f"127.0.0.1:{backend.port}", *flags, "--allow-cn", "client")
        first = served(place, at, client)
        with place.tls(at, client) as live:
            assert says(live)
            failed, end = [], threading.Event()

            def load():
                while not end.is_set():
                    if not try_tls(place, at, client):
                        failed.append(1)

            thread = threading.Thread(target=load)
            thread.start()
            try:
                place.pair("new", **LOCAL)
                for name in ("server.pem", "server-key.pem"):
                    (place.dir / name.replace("server", "new")).rename(place.dir / name)
                p.send_signal(signal.SIGHUP)
                wait_for("the new certificate", lambda: served(place, at, client) != first)
            finally:
                end.set()
                thread.join()
            assert not failed and says(live)
        second = served(place, at, client)
        (place.dir / "server.pem").write_text("-----BEGIN CERTIFICATE-----\nno\n")
        (place.dir / "ca.pem").write_text("nothing")
        p.send_signal(signal.SIGHUP)
        wait_for("the complaint", lambda: re.search("credential_refused|trust_refused|error", p.err() + p.out()))
        client = ssl.create_default_context(cadata=place.ca.cert.public_bytes(Encoding.PEM).decode())
        client.load_cert_chain(place.dir / "client.pem", place.dir / "client-key.pem")
        assert served(place, at, client) == second and p.alive()


@pytest.mark.parametrize("kind", ["pem", "pkcs12", "ed25519"])
def test_keystores(place, kind):
    at = place.address()
    cert, key = place.ca.issue("server", **LOCAL)
    options = ()
    store = place.dir / ("store.pem" if kind != "pkcs12" else "store.p12")
    flags = ["--keystore", store]
    if kind == "ed25519":
        run("openssl", "genpkey", "-algorithm", "ed25519", "-out", key)
        (place.dir / "ext").write_text("subjectAltName=DNS:localhost\nextendedKeyUsage=serverAuth\n")
        ca_key = place.dir / "ca-key"
        ca_key.write_bytes(place.ca.key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
        run("openssl", "req", "-new", "-key", key, "-subj", "/CN=x", "-out", place.dir / "csr")
        run("openssl", "x509", "-req", "-in", place.dir / "csr", "-CA", place.ca.pem, "-CAkey", ca_key, "-days", "1",
            "-extfile", place.dir / "ext", "-out", cert)  # fmt: skip
    if kind == "pkcs12":
        run("openssl", "pkcs12", "-export", "-in", cert, "-inkey", key, "-passout", "pass:secret", "-out", store)
        (place.dir / "pass").write_text("secret\n")
        flags += ["--storepass", "secret"]
        options = ("--passphrase-file", place.dir / "pass")
    else:
        store.write_bytes(cert.read_bytes() + key.read_bytes())
    run("chown", f"{UID}:{UID}", store, *options[1:])
    store.chmod(0o600)
    with TcpServer(place.netns, echo) as backend:
        place.start("server", "--listen", at, "--target", f"127.0.0.1:{backend.port}", *flags, "--cacert", place.ca.pem, "--allow-all", options=options)  # fmt: skip
        assert try_tls(place, at, place.client("client", cn="x"))


# --- sockets and connections -----------------------------------------------------------------------------


def test_unix_sockets_on_both_plain_sides(place):
    with UnixServer(place.dir / "backend.sock", echo) as backend:
        tls, plain = place.address(), f"unix:{place.dir}/in.sock"
        place.start("server", "--listen", tls, "--target", f"unix:{backend.path}", *place.pair("server", **LOCAL), "--allow-cn", "own")
        place.start("client", "--listen", plain, "--target", tls, *place.pair("own", cn="own"))
        assert try_plain(place, plain)


@pytest.mark.parametrize("who", ["client", "backend"])
def test_half_close(place, who):
    """Either side ends first; what the other then says still arrives."""
    if place.real:
        pytest.skip("through a pair of ghostunnels it is lost: a deliberate difference")

    def handle(conn):
        if who == "backend":
            conn.sendall(b"first")
            conn.shutdown(socket.SHUT_WR)
            heard.append(conn.recv(100))
        else:
            got = b""
            while chunk := conn.recv(100):
                got += chunk
            conn.sendall(b"after " + got)

    heard = []
    with TcpServer(place.netns, handle) as backend:
        tls, plain = place.address(), place.address()
        place.start("server", "--listen", tls, "--target", f"127.0.0.1:{backend.port}", *place.pair("server", **LOCAL), "--allow-all")
        place.start("client", "--listen", plain, "--target", tls, *place.pair("own", cn="own"))
        with place.connect(plain) as s:
            if who == "client":
                s.sendall(b"question")
                s.shutdown(socket.SHUT_WR)
                got = b""
                while chunk := s.recv(100):
                    got += chunk
                assert got == b"after question"
            else:
                got = b""
                while chunk := s.recv(100):
                    got += chunk
                assert got == b"first"
                s.sendall(b"late")
                wait_for("what came late", lambda: b"late" in heard)


def test_nobody_behind_and_then_somebody(place):
    at, behind = place.address(), place.address()
    p = place.start("server", "--listen", at, "--target", behind, *place.pair("server", **LOCAL), "--allow-all")
    client = place.client("client", cn="x")
    assert not try_tls(place, at, client) and p.alive()
    with TcpServer(place.netns, echo, port=int(behind.rsplit(":", 1)[1])):
        assert try_tls(place, at, client)


def test_connections_at_once_and_at_most(place):
    """Twenty at once; where there may be two, the third waits for its turn."""
    client = place.client("client", cn="x")
    with TcpServer(place.netns, echo) as backend:
        pair = place.pair("server", **LOCAL)
        many, few = place.address(), place.address()
        place.start("server", "--listen", many, "--target", f"127.0.0.1:{backend.port}", *pair, "--allow-all")
        place.start("server", "--listen", few, "--target", f"127.0.0.1:{backend.port}", *pair, "--allow-all", "--max-concurrent-conns", "2")
        open_ = [place.tls(many, client) for _ in range(20)]
        assert all(says(s) for s in open_)
        for s in open_:
            s.close()
        wait_for("a first turn", lambda: try_tls(place, few, client))
        a, b = place.tls(few, client), place.tls(few, client)
        assert says(a) and says(b)
        done = threading.Event()
        third = threading.Thread(target=lambda: try_tls(place, few, client) and done.set())
        third.start()
        assert says(a) and not done.is_set()
        b.close()
        third.join()
        assert done.is_set()
        a.close()


@pytest.mark.parametrize("mode", ["conn", "tls", "tls-full"])
def test_proxy_protocol(place, mode):
    heard = []

    def handle(conn):
        head = conn.recv(16, socket.MSG_WAITALL)
        heard.append((head, conn.recv(int.from_bytes(head[14:16], "big"), socket.MSG_WAITALL)))
        echo(conn)

    at = place.address()
    cert, key = place.ca.issue("client", cn="who")
    with TcpServer(place.netns, handle) as backend:
        place.start("server", "--listen", at, "--target", f"127.0.0.1:{backend.port}", *place.pair("server", **LOCAL), "--allow-all", "--proxy-protocol-mode", mode)  # fmt: skip
        with place.tls(at, place.context(cert, key)) as s:
            assert says(s)
            mine = s.getsockname()
    (head, body) = heard[-1]
    assert head[:14] == b"\r\n\r\n\0\r\nQUIT\n\x21\x11"
    assert body[:4] == body[4:8] == socket.inet_aton("127.0.0.1")
    assert int.from_bytes(body[8:10], "big") == mine[1] and int.from_bytes(body[10:12], "big") == int(at.rsplit(":", 1)[1])
    tlvs, rest = {}, body[12:]
    while rest:
        n = int.from_bytes(rest[1:3], "big")
        tlvs[rest[0]], rest = rest[3 : 3 + n], rest[3 + n :]
    assert (0x20 in tlvs) == (mode != "conn")
    if mode != "conn":
        assert tlvs[0x02] == b"localhost" and b"TLSv1.3" in tlvs[0x20].replace(b"TLS 1.3", b"TLSv1.3")
        der = ssl.PEM_cert_to_DER_cert(cert.read_text())
        assert (der in b"".join(tlvs.values())) == (mode == "tls-full")


def test_connect_proxy(place):
    asked = []

    def handle(conn):
        head = b""
        while b"\r\n\r\n" not in head:
            head += conn.recv(1)
        asked.append(head)
        host, port = head.split()[1].decode().rsplit(":", 1)
        with in_netns(place.netns):
            there = socket.create_connection((host, int(port)))
        conn.sendall(b"HTTP/1.1 200 OK\r\n\r\n")

        def copy(a, b):
            try:
                while data := a.recv(65536):
                    b.sendall(data)
                b.shutdown(socket.SHUT_WR)
            except OSError:
                pass

        threading.Thread(target=copy, args=(there, conn), daemon=True).start()
        copy(conn, there)

    with TcpServer(place.netns, handle) as proxy, TlsServer(place, *place.ca.issue("server", **LOCAL), place.ca) as server:
        at = place.address()
        place.start("client", "--listen", at, "--target", f"127.0.0.1:{server.port}", *place.pair("own", cn="own"), "--proxy", f"http://127.0.0.1:{proxy.port}")  # fmt: skip
        assert try_plain(place, at)
        assert asked[-1].startswith(b"CONNECT 127.0.0.1:%d HTTP/1.1\r\n" % server.port)


# --- the process ------------------------------------------------------------------------------------------


def test_systemd_socket(place):
    with in_netns(place.netns):
        listener = socket.create_server(("127.0.0.1", 0))
    at = f"127.0.0.1:{listener.getsockname()[1]}"
    with listener, TcpServer(place.netns, echo) as backend:
        place.start("server", "--listen", "systemd:web", "--target", f"127.0.0.1:{backend.port}", *place.pair("server", **LOCAL), "--allow-all", activated=(listener.fileno(), "web"))  # fmt: skip
        assert try_tls(place, at, place.client("client", cn="x"))


def test_status(place):
    """Good while the backend answers, 503 when not."""
    at, status = place.address(), place.address()
    path = "/_status" if place.real else "/readyz"

    def code():
        with in_netns(place.netns):
            c = http.client.HTTPConnection("127.0.0.1", int(status.rsplit(":", 1)[1]), timeout=10)
            c.connect()
        c.request("GET", path)
        return c.getresponse().status

    with TcpServer(place.netns, echo) as backend:
        place.start("server", "--listen", at, "--target", f"127.0.0.1:{backend.port}", *place.pair("server", **LOCAL), "--allow-all", "--status", f"http://{status}")  # fmt: skip
        wait_for("health", lambda: code() == 200)
    wait_for("the end of it", lambda: code() == 503)


def test_shutdown_drains(place):
    at = place.address()
    client = place.client("client", cn="x")
    with TcpServer(place.netns, echo) as backend:
        p = place.start("server", "--listen", at, "--target", f"127.0.0.1:{backend.port}", *place.pair("server", **LOCAL), "--allow-all")
        with place.tls(at, client) as s:
            assert says(s)
            p.send_signal(signal.SIGTERM)

            def closed():
                try:
                    place.connect(at).close()
                except ConnectionRefusedError:
                    return True
                return False

            wait_for("the listener's end", closed)
            assert says(s) and p.alive()
        p.p.wait(20)
        assert p.p.returncode == 0


def test_shutdown_has_an_end(place):
    at = place.address()
    with TcpServer(place.netns, echo) as backend:
        p = place.start("server", "--listen", at, "--target", f"127.0.0.1:{backend.port}", *place.pair("server", **LOCAL), "--allow-all", "--shutdown-timeout", "300ms")  # fmt: skip
        with place.tls(at, place.client("client", cn="x")) as s:
            assert says(s)
            p.send_signal(signal.SIGTERM)
            p.p.wait(20)
            assert p.p.returncode == (1 if place.real else 0)


def test_port_is_taken(place):
    with TcpServer(place.netns, echo) as backend:
        p = place.start("server", "--listen", f"127.0.0.1:{backend.port}", "--target", "127.0.0.1:1", *place.pair("server", **LOCAL), "--allow-all", wait=False)  # fmt: skip
        assert p.p.wait(20) != 0
        assert "in use" in (p.err() + p.out()).lower()


def test_what_is_refused(place):
    """One word of what is wrong, and no process."""
    pair = place.pair("server", **LOCAL)
    base = ["server", "--listen", "127.0.0.1:1", "--target", "127.0.0.1:2"]
    client = ["client", "--listen", "127.0.0.1:1", "--target", "127.0.0.1:2"]
    for flags, word in (
        ([*base, *pair], "allow"),
        ([*base, *pair, "--allow-all", "--allow-cn", "x"], "allow-all"),
        ([*base, *pair, "--allow-all", "--disable-authentication"], "disable-authentication"),
        ([*base, "--allow-all"], "keystore"),
        ([*base, *pair, "--keystore", "x.pem", "--allow-all"], "keystore"),
        ([*base, *pair, "--allow-all", "--proxy-protocol", "--proxy-protocol-mode", "tls"], "proxy-protocol"),
        ([*base[:4], "10.0.0.1:5", *pair, "--allow-all"], "target"),
        ([*base, *pair, "--allow-all", "--verify-cn", "x"], "verify-cn"),
        ([*base, *pair, "--allow-uri", "spiffe://x/a*"], "wildcard"),
        ([*base, *pair, "--allow-all", "--connect-timeout", "0s"], "connect-timeout"),
        (["client", "--listen", "0.0.0.0:1", "--target", "127.0.0.1:2", *pair], "listen"),
        ([*client, *pair, "--disable-authentication"], "disable-authentication"),
        ([*client[:4], "unix:/x", *pair], "target"),
        (["listen"], ""),
    ):
        if place.real:
            p = place.lab.run_in([REAL, *flags], netns=place.netns, timeout=30)
        else:
            p = place.convert(*flags)
        assert p.returncode != 0 and word in p.stderr + p.stdout, (flags, p.stderr)
