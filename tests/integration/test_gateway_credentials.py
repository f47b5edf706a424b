"""A gateway's own certificates and the authorities it trusts, from files, tokens and second agents."""

import base64
import contextlib
import json
import os
import shutil
import socket
import ssl
import threading

import pytest
from cryptography.x509.oid import ExtendedKeyUsageOID
from lab import free_port, wait_for
from node import UIDS, spiffe_id
from owned_gateway import UID, Gateway, client_context, connected, exchange, server_text, shown, world
from pki import DAY, Ca, now, write
from servers import TcpServer

# --- kinds of credentials --------------------------------------------------------------------------------------------


def kinds(world, leaf):
    """Each kind of file with the same leaf: its text."""
    d = world.dir
    leaf.write(d, "web", UID)
    write(d / "both.pem", leaf.key_pem() + leaf.cert_pem, 0o600, UID)
    write(d / "sealed.pem", leaf.key_pem(b"open sesame"), 0o600, UID)
    write(d / "web.p12", leaf.p12(b"open sesame"), 0o600, UID)
    write(d / "bare.p12", leaf.p12(), 0o600, UID)
    write(d / "pass", b"open sesame\n", 0o600, UID)
    return {
        "pem": "cert: web.pem, key: web-key.pem",
        "combined": "cert: both.pem",
        "encrypted": "cert: web.pem, key: sealed.pem, passphrase_file: pass",
        "pkcs12": "pkcs12: web.p12, passphrase_file: pass",
        "pkcs12_open": "pkcs12: bare.p12",
    }


@pytest.mark.parametrize(
    "kind,key",
    [(k, "ec") for k in ("pem", "combined", "encrypted", "pkcs12", "pkcs12_open")]
    + [(k, t) for k in ("pem", "pkcs12") for t in ("p384", "rsa", "ed25519")],
)
def test_each_kind_serves_and_calls(world, kind, key):
    """A server gateway and a client gateway with the same credential: the client's is what the server lets in."""
    middle = Ca("middle", world.ca)
    text = kinds(world, middle.leaf(dns=["web.example"], kind=key))[kind]
    port, conf = server_text(world, f"  - {{name: web, {text}}}\n", allow="{dns: [web.example]}")
    gateway = Gateway(world.node, conf)
    plain = free_port()
    client = Gateway(
        world.node,
        conf[: conf.index("listeners:")]
        + f"listeners:\n  - name: out\n    type: client\n    address: 127.0.0.1:{plain}\n    to: 127.0.0.1:{port}\n"
        f"    server_name: web.example\n    credentials: [web]\n    trust: partners\n",
        name="gateway-client",
    )
    with world.node.inside():
        s = socket.create_connection(("127.0.0.1", plain), timeout=10)
    with s:
        s.sendall(b"marker")
        assert s.recv(100) == b"marker"
    for g in (gateway, client):
        c = g.credential("web")
        assert c["in_force"] and c["refused"] is None and "dns:web.example" in c["names"]
        assert g.wait_event("connection")["peer_id"] == "dns:web.example"
        assert 'postern_credential_expiry_seconds{credential="web"}' in g.metrics()


def test_workload_api_as_a_credential(world):
    """From another agent than `identity`, which this file does not even have; its bundles come from a file."""
    node = world.node
    node.start_agent()
    bundle = node.lab.private_dir("bundle", uid=UIDS["client"])
    r = node.lab.run_in(
        [node.postern, "svid", "fetch", "--socket", f"unix:{node.socket}", "--write", bundle], netns=node.netns, uid=UIDS["client"]
    )
    assert r.returncode == 0, r.stderr
    pem = (bundle / "bundle.pem").read_bytes()
    der = ssl.PEM_cert_to_DER_cert(pem.decode())
    jwks = {"keys": [{"kty": "EC", "use": "x509-svid", "x5c": [base64.b64encode(der).decode()]}]}
    write(node.conf / "mesh.jwks", json.dumps(jwks).encode(), 0o644)
    port = free_port()
    gateway = Gateway(
        node,
        f"credentials:\n  - {{name: spire, workload_api: {{socket: 'unix:{node.socket}', key: agent}}}}\n"
        f"trust:\n  - name: mesh\n    bundles: [{{trust_domain: test.example, file: mesh.jwks}}]\n"
        f"listeners:\n  - name: in\n    type: server\n    address: 127.0.0.1:{port}\n    to: 127.0.0.1:{world.server.port}\n"
        f"    credentials: [spire]\n    trust: mesh\n    allow: {{uri: ['{spiffe_id('*')}']}}\n",
    )
    wait_for("its SVID", lambda: gateway.credential("spire")["in_force"])
    client = node.client_side(plain := free_port(), port)
    with node.inside():
        s = socket.create_connection(("127.0.0.1", plain), timeout=10)
    with s:
        s.sendall(b"marker")
        assert s.recv(100) == b"marker"
    assert gateway.wait_event("connection")["peer_id"] == spiffe_id("client")
    assert client.wait_event("connection")["peer_id"] == spiffe_id("server")


# --- what is not taken -----------------------------------------------------------------------------------------------


def broken(world):
    leaf, other = world.ca.leaf(dns=["web.example"]), world.ca.leaf(dns=["web.example"])
    d = world.dir
    leaf.write(d, "web", UID)
    write(d / "other-key.pem", other.key_pem(), 0o600, UID)
    write(d / "sealed.pem", leaf.key_pem(b"open sesame"), 0o600, UID)
    write(d / "wrong", b"close sesame", 0o600, UID)
    write(d / "writable.pem", leaf.key_pem(), 0o666, UID)
    write(d / "garbage", b"garbage", 0o644, UID)
    write(d / "leaf-as-ca.pem", leaf.cert_pem, 0o644)
    return {
        "missing": ("cert: nothing.pem", "ca.pem", "nothing.pem"),
        "mismatch": ("cert: web.pem, key: other-key.pem", "ca.pem", "does not fit"),
        "no_passphrase": ("cert: web.pem, key: sealed.pem", "ca.pem", "encrypted"),
        "wrong_passphrase": ("cert: web.pem, key: sealed.pem, passphrase_file: wrong", "ca.pem", "passphrase"),
        "writable": ("cert: web.pem, key: writable.pem", "ca.pem", "others than its owner"),
        "no_pem": ("cert: garbage, key: web-key.pem", "ca.pem", "neither PEM"),
        "no_p12": ("pkcs12: garbage", "ca.pem", "not PKCS#12"),
        "leaf_as_ca": ("cert: web.pem, key: web-key.pem", "leaf-as-ca.pem", "not a CA"),
        "no_ca": ("cert: web.pem, key: web-key.pem", "garbage", "PEM"),
    }


@pytest.mark.parametrize("case", ["missing", "mismatch", "no_passphrase", "wrong_passphrase", "writable", "no_pem", "no_p12", "leaf_as_ca", "no_ca"])
def test_broken_at_the_start(world, case):
    """One error that names the file, and no gateway."""
    text, ca, why = broken(world)[case]
    _, conf = server_text(world, f"  - {{name: web, {text}}}\n")
    gateway = Gateway(world.node, conf.replace("ca: ca.pem", f"ca: {ca}"), wait=False)
    wait_for("its end", lambda: not gateway.process.alive())
    assert gateway.process.p.returncode == 2
    (line,) = gateway.events("start_failed")
    assert why in json.dumps(line) and str(world.dir) in line["where"], line


def test_mismatched_pair_is_kept_out(world):
    """A certificate without its key changes nothing, is told once, and is taken when the key comes."""
    first, second = world.ca.leaf(dns=["web.example"]), world.ca.leaf(dns=["web.example"])
    first.write(world.dir, "web", UID)
    port, conf = server_text(world, "  - {name: web, cert: web.pem, key: web-key.pem}\n")
    gateway, ctx = Gateway(world.node, conf), client_context(world, world.ca.leaf(dns=["caller.example"]))
    assert shown(world, port, ctx) == first.serial
    write(world.dir / "web.pem", second.cert_pem, 0o644)
    refused = gateway.wait_event("credential_refused", credential="web")
    assert "does not fit" in refused["error"] and refused["level"] == "error"
    assert shown(world, port, ctx) == first.serial
    assert "does not fit" in gateway.credential("web")["refused"]
    write(world.dir / "web-key.pem", second.key_pem(), 0o600, UID)
    wait_for("the new one", lambda: shown(world, port, ctx) == second.serial)
    assert gateway.credential("web")["refused"] is None
    assert len(gateway.events("credential_refused")) == 1
    # A reload that names what cannot be loaded leaves everything as it is.
    gateway.conf.write_text(gateway.conf.read_text().replace("web-key.pem", "nothing.pem"))
    gateway.reload()
    assert "nothing.pem" in gateway.wait_event("reload_failed")["where"]
    assert shown(world, port, ctx) == second.serial


# --- change under load -----------------------------------------------------------------------------------------------


def test_rotation_under_load(world):
    """Thirty rotations by exchanged link and by files in place, with callers all the time: none fails."""
    data = world.dir / "web"
    data.mkdir()

    def exchange_link(i, leaf):
        fresh = data / f"..{i}"
        fresh.mkdir()
        leaf.write(fresh, "web", UID)
        os.symlink(fresh.name, data / "..new")
        os.rename(data / "..new", data / "..data")
        if i > 1:
            shutil.rmtree(data / f"..{i - 2}")

    leaf = world.ca.leaf(dns=["web.example"])
    exchange_link(0, leaf)
    for name in ("web.pem", "web-key.pem"):
        os.symlink(f"..data/{name}", data / name)
    port, conf = server_text(world, "  - {name: web, cert: web/web.pem, key: web/web-key.pem}\n")
    gateway, ctx = Gateway(world.node, conf), client_context(world, world.ca.leaf(dns=["caller.example"]))
    stop, failures, count, serials = threading.Event(), [], [0], set()

    def call():
        while not stop.is_set():
            try:
                with connected(world, port, ctx) as s:
                    s.sendall(b"x")
                    assert s.recv(1) == b"x"
                    serials.add(int(s.getpeercert()["serialNumber"], 16))
                count[0] += 1
            except (OSError, AssertionError) as e:
                failures.append(repr(e))

    with connected(world, port, ctx) as standing:
        threads = [threading.Thread(target=call) for _ in range(4)]
        for t in threads:
            t.start()
        try:
            for i in range(1, 31):
                leaf = world.ca.leaf(dns=["web.example"], kind=["ec", "rsa"][i % 2])
                exchange_link(i, leaf)
                want = f"{leaf.serial:x}"
                wait_for(f"rotation {i}", lambda w=want: gateway.credential("web")["serial"].lstrip("0") == w)
        finally:
            stop.set()
            for t in threads:
                t.join()
        assert not failures, (len(failures), failures[:3])
        assert count[0] > 30 and len(serials) > 5
        standing.sendall(b"still")
        assert standing.recv(10) == b"still"
    assert not gateway.events("credential_refused")


# --- who is let in ---------------------------------------------------------------------------------------------------

ALLOW = {
    "any": ("{any: true}", {}, "dns:caller.example"),
    "dns": ("{dns: [other.example, CALLER.example]}", {}, "dns:caller.example"),
    "uri": ("{uri: ['spiffe://partner/*/web']}", {"uris": ["spiffe://partner/ns/web"]}, "uri:spiffe://partner/ns/web"),
    "uri_rest": ("{uri: ['spiffe://partner/**']}", {"uris": ["spiffe://partner/a/b/c"]}, "uri:spiffe://partner/a/b/c"),
    "cn": ("{cn: [The Caller]}", {"cn": "The Caller"}, "cn:The Caller"),
    "ou": ("{ou: [ops, dev]}", {"cn": "x", "ou": ["web", "dev"]}, "ou:dev"),
}
DENY = {
    "dns": ("{dns: [caller.example.evil]}", {}),
    "dns_of_cn": ("{dns: [caller]}", {"cn": "caller"}),
    "callers_wildcard": ("{dns: [a.b.example]}", {"dns": ["*.b.example"]}),
    "uri_segment": ("{uri: ['spiffe://partner/*']}", {"uris": ["spiffe://partner/a/b"]}),
    "uri_prefix": ("{uri: ['spiffe://partner/web/**']}", {"uris": ["spiffe://partner/website"]}),
    "cn": ("{cn: [the caller]}", {"cn": "The Caller"}),
    "ou": ("{ou: [de]}", {"cn": "x", "ou": ["dev"]}),
}


def names(more):
    return more if "cn" in more or "uris" in more or "dns" in more else {"dns": ["caller.example"]}


@pytest.mark.parametrize("case", ALLOW)
def test_allowed(world, case):
    allow, more, principal = ALLOW[case]
    world.ca.leaf(dns=["web.example"]).write(world.dir, "web", UID)
    port, conf = server_text(world, "  - {name: web, cert: web.pem, key: web-key.pem}\n", allow=allow)
    gateway = Gateway(world.node, conf)
    assert exchange(world, port, client_context(world, world.ca.leaf(**names(more)))) == "marker"
    assert gateway.wait_event("connection")["peer_id"] == principal


@pytest.mark.parametrize("case", DENY)
def test_denied(world, case):
    allow, more = DENY[case]
    world.ca.leaf(dns=["web.example"]).write(world.dir, "web", UID)
    port, conf = server_text(world, "  - {name: web, cert: web.pem, key: web-key.pem}\n", allow=allow)
    gateway = Gateway(world.node, conf)
    assert exchange(world, port, client_context(world, world.ca.leaf(**names(more)))) != "marker"
    e = gateway.refused()
    assert e["step"] == "expected" and e["peer_id"] and "none of its names" in e["error"], e
    # Others' certificates with the right name.
    stranger = Ca().leaf(dns=["caller.example.evil", "caller", "a.b.example"], cn="the caller", ou=["de"])
    assert exchange(world, port, client_context(world, stranger)) != "marker"
    assert gateway.refused(step="bad_chain")


def test_spiffe_id_of_an_ordinary_authority(world):
    """A mesh policy does not match it, though the text is the same."""
    world.ca.leaf(dns=["web.example"]).write(world.dir, "web", UID)
    (world.dir / "policy.yaml").write_text(
        f"kind: Policy\nlevel: 1\nrules:\n  - name: mesh\n    action: ALLOW\n    from:\n      - principals: ['{spiffe_id('client')}']\n"
        f"      - principals: ['uri:{spiffe_id('other')}']\n"
    )
    port, conf = server_text(world, "  - {name: web, cert: web.pem, key: web-key.pem}\n")
    gateway = Gateway(world.node, "policy: policy.yaml\n" + conf)
    assert exchange(world, port, client_context(world, world.ca.leaf(uris=[spiffe_id("client")]))) != "marker"
    e = gateway.wait_event("connection", reason="policy_denied")
    assert e["peer_id"] == f"uri:{spiffe_id('client')}"
    assert exchange(world, port, client_context(world, world.ca.leaf(uris=[spiffe_id("other")]))) == "marker"


VERIFY = {
    # What `verify` says, what the server's certificate shows, and the principal, or the step that says no.
    "address": ("", {"ips": ["127.0.0.1"]}, "ip:127.0.0.1"),
    "address_as_dns": ("", {"dns": ["127.0.0.1"]}, None),
    "other_address": ("", {"ips": ["127.0.0.2"]}, None),
    "name": ("    server_name: db.example\n", {"dns": ["db.example"]}, "dns:db.example"),
    "wildcard": ("    server_name: a.db.example\n", {"dns": ["*.db.example"]}, "dns:a.db.example"),
    "wildcard_of_two": ("    server_name: b.a.db.example\n", {"dns": ["*.db.example"]}, None),
    "wildcard_of_all": ("    server_name: example\n", {"dns": ["*"]}, None),
    "common_name": ("    server_name: db.example\n", {"cn": "db.example"}, None),
    "uri": ("    verify: {uri: ['spiffe://partner/*']}\n", {"uris": ["spiffe://partner/db"]}, "uri:spiffe://partner/db"),
    "cn": ("    verify: {cn: [The Server]}\n", {"cn": "The Server"}, "cn:The Server"),
    "not_the_name_then": ("    server_name: db.example\n    verify: {cn: [The Server]}\n", {"dns": ["db.example"]}, None),
    "for_clients": ("    server_name: db.example\n", {"dns": ["db.example"], "eku": [ExtendedKeyUsageOID.CLIENT_AUTH]}, None),
}


@pytest.mark.parametrize("case", VERIFY)
def test_who_the_server_has_to_be(world, case):
    """A client gateway before a server of plain TLS that shows the certificate of the case."""
    text, more, principal = VERIFY[case]
    leaf = world.ca.leaf(**more)
    path = world.node.lab.dir / "server.pem"
    path.write_bytes(leaf.key_pem() + leaf.cert_pem)
    ctx = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    ctx.load_cert_chain(path)

    def serve(conn):
        with contextlib.suppress(ssl.SSLError), ctx.wrap_socket(conn, server_side=True) as s:
            s.sendall(s.recv(100))

    write(world.dir / "ca.pem", world.ca.pem, 0o644)
    plain = free_port()
    with TcpServer(world.node.netns, serve) as server:
        gateway = Gateway(
            world.node,
            f"trust:\n  - {{name: partners, ca: ca.pem}}\nlisteners:\n  - name: out\n    type: client\n"
            f"    address: 127.0.0.1:{plain}\n    to: 127.0.0.1:{server.port}\n    credentials: none\n    trust: partners\n{text}",
        )
        answer = b""
        with contextlib.suppress(ConnectionError):  # which may come before connect() has returned
            with world.node.inside():
                s = socket.create_connection(("127.0.0.1", plain), timeout=10)
            with s:
                s.sendall(b"marker")
                answer = s.recv(100)
        assert answer == (b"marker" if principal else b"")
    if principal:
        assert gateway.wait_event("connection")["peer_id"] == principal
    else:
        e = gateway.refused()
        assert e["step"] in ("expected", "bad_chain") and e["error"], e


# --- lists -----------------------------------------------------------------------------------------------------------


def test_list_cuts_a_live_connection(world):
    world.ca.leaf(dns=["web.example"]).write(world.dir, "web", UID)
    write(world.dir / "list.crl", world.ca.crl(), 0o644)
    port, conf = server_text(world, "  - {name: web, cert: web.pem, key: web-key.pem}\n", crl=", crl: list.crl")
    gateway = Gateway(world.node, conf)
    good, bad = world.ca.leaf(dns=["good.example"]), world.ca.leaf(dns=["bad.example"])
    with connected(world, port, client_context(world, good)) as g, connected(world, port, client_context(world, bad)) as b:
        for s in (g, b):
            s.sendall(b"marker")
            assert s.recv(100) == b"marker"
        write(world.dir / "list.crl", world.ca.crl(bad), 0o644)
        with pytest.raises((ConnectionError, ssl.SSLError, AssertionError)):
            assert b.recv(100)
        assert gateway.wait_event("connection", reason="trust_changed")["peer_id"] == "dns:bad.example"
        g.sendall(b"still")
        assert g.recv(100) == b"still"
    assert exchange(world, port, client_context(world, bad)) != "marker"
    assert gateway.refused(step="revoked")["alert_sent"] == "certificate revoked"
    # An outdated list refuses everybody, loudly; a broken one changes nothing.
    write(world.dir / "list.crl", b"garbage", 0o644)
    assert gateway.wait_event("trust_refused", trust="partners")
    assert exchange(world, port, client_context(world, good)) == "marker"
    write(world.dir / "list.crl", world.ca.crl(last=now() - 2 * DAY, next_=now() - DAY), 0o644)
    wait_for("the outdated list", lambda: exchange(world, port, client_context(world, good)) != "marker")
    e = gateway.refused(step="no_crl")
    assert "outdated" in e["error"] and e["advice"]
    write(world.dir / "list.crl", world.ca.crl(bad), 0o644)
    wait_for("the newest list", lambda: exchange(world, port, client_context(world, good)) == "marker")
    assert gateway.credential("partners", "trust")["revocation_lists"] == 1


def test_reload_of_allow_cuts_a_live_connection(world):
    world.ca.leaf(dns=["web.example"]).write(world.dir, "web", UID)
    port, conf = server_text(world, "  - {name: web, cert: web.pem, key: web-key.pem}\n", allow="{dns: [a.example, b.example]}")
    gateway = Gateway(world.node, conf)
    a, b = (client_context(world, world.ca.leaf(dns=[f"{n}.example"])) for n in "ab")
    with connected(world, port, a) as sa, connected(world, port, b) as sb:
        for s in (sa, sb):
            s.sendall(b"marker")
            assert s.recv(100) == b"marker"
        gateway.conf.write_text(gateway.conf.read_text().replace("a.example, b.example", "b.example"))
        gateway.reload()
        with pytest.raises((ConnectionError, ssl.SSLError, AssertionError)):
            assert sa.recv(100)
        sb.sendall(b"still")
        assert sb.recv(100) == b"still"


# --- what is shown ---------------------------------------------------------------------------------------------------


def test_server_names_choose(world):
    leaves = {n: world.ca.leaf(dns=[d]) for n, d in {"web": "web.example", "wild": "*.b.example", "exact": "a.b.example"}.items()}
    text = ""
    for n, leaf in leaves.items():
        leaf.write(world.dir, n, UID)
        text += f"  - {{name: {n}, cert: {n}.pem, key: {n}-key.pem}}\n"
    port, conf = server_text(world, text, names=leaves)
    Gateway(world.node, conf)
    ctx = client_context(world, world.ca.leaf(dns=["caller.example"]))
    assert shown(world, port, ctx, "web.example") == leaves["web"].serial
    assert shown(world, port, ctx, "a.b.example") == leaves["exact"].serial
    assert shown(world, port, ctx, "x.b.example") == leaves["wild"].serial
    ctx.check_hostname = False
    assert shown(world, port, ctx, "unknown.example") == leaves["web"].serial


def test_old_tls_only_where_it_is_said(world):
    """Two listeners, of which one says so; openssl and curl as peers."""
    world.ca.leaf(dns=["web.example"], kind="rsa").write(world.dir, "web", UID)
    caller = world.ca.leaf(dns=["caller.example"])
    caller.write(world.dir, "caller")
    port, conf = server_text(world, "  - {name: web, cert: web.pem, key: web-key.pem}\n")
    old = free_port()
    conf += conf[conf.index("  - name: in") :].replace("name: in", "name: old").replace(f":{port}\n", f":{old}\n") + '    tls: {min: "1.2"}\n'
    Gateway(world.node, conf)
    ctx = client_context(world, caller, maximum_version=ssl.TLSVersion.TLSv1_2)
    assert "alert" in exchange(world, port, ctx)
    assert exchange(world, old, ctx) == "marker"
    with connected(world, old, ctx) as s:
        assert s.version() == "TLSv1.2" and s.cipher()[0].startswith("ECDHE-RSA-AES") and "GCM" in s.cipher()[0]
    ctx.set_ciphers("ECDHE-RSA-AES128-SHA256:AES128-GCM-SHA256")
    assert "alert" in exchange(world, old, ctx)
    r = world.node.lab.run_in(
        ["openssl", "s_client", "-connect", f"127.0.0.1:{old}", "-servername", "web.example", "-CAfile", world.dir / "ca.pem",
         "-cert", world.dir / "caller.pem", "-key", world.dir / "caller-key.pem", "-tls1_2", "-brief"],
        netns=world.node.netns, input="marker\n",
    )
    assert "Verification: OK" in r.stderr, r.stderr


def test_nobody_is_asked(world):
    """`client_certificate: none`: anybody comes in, with no name, and curl does."""
    world.ca.leaf(dns=["web.example"]).write(world.dir, "web", UID)
    port, conf = server_text(world, "  - {name: web, cert: web.pem, key: web-key.pem}\n")
    conf = conf.replace("    trust: partners\n    allow: {any: true}\n", "    client_certificate: none\n    allow: {any: true}\n")
    gateway = Gateway(world.node, conf)
    assert exchange(world, port, client_context(world)) == "marker"
    assert "peer_id" not in gateway.wait_event("connection")
