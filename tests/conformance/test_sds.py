"""Envoy's secret discovery service v3, as docs/sds.md has it (and SPIRE serves it): by raw gRPC."""

import subprocess
import sys

import pytest
from node import TD
from rawgrpc import Raw, frame
from wirepb import decode, field, message, text

SDS = "/envoy.service.secret.v3.SecretDiscoveryService/"
SECRET = "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.Secret"
VALIDATOR = "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.SPIFFECertValidatorConfig"
INVALID_ARGUMENT, PERMISSION_DENIED, UNIMPLEMENTED = 3, 7, 12
OWN = f"spiffe://{TD}"
FIRST, SECOND = f"{OWN}/first", f"{OWN}/second"


def node(version=None, flag=None):
    out = message(f1="envoy-1", f2="cluster")
    if flag is not None:
        entry = message(f1="disable_spiffe_cert_validation", f2=message(f4=flag))
        out += field(3, message(f1=entry))
    if version is not None:
        out += message(f6="envoy", f8=message(f1=message(f1=version[0], f2=version[1])))
    return out


def request(names=(), nonce="", version="", who=None, error=None, type_url=SECRET):
    out = message(f1=version) if version else b""
    out += field(2, who) if who is not None else b""
    out += message(f3=list(names), f4=type_url, f5=nonce)
    return out + (message(f6=message(f1=13, f2=error)) if error is not None else b"")


class Response:
    def __init__(self, data):
        f = decode(data)
        self.version, self.nonce, self.type_url = text(f, 1), text(f, 5), text(f, 4)
        self.secrets, self.order = {}, []
        for any_ in f.get(2, []):
            a = decode(any_)
            assert text(a, 1) == SECRET
            s = decode(a[2][0])
            name = text(s, 1)
            self.order.append(name)
            assert name not in self.secrets, f"{name} twice"
            self.secrets[name] = s

    def chain(self, name):
        return decode(decode(self.secrets[name][2][0])[1][0])[2][0].decode()

    def key(self, name):
        return decode(decode(self.secrets[name][2][0])[2][0])[2][0].decode()

    def trusted_ca(self, name):
        return decode(decode(self.secrets[name][4][0])[1][0])[2][0].decode()

    def domains(self, name):
        """{trust domain: PEM} of the SPIFFE validator."""
        context = decode(self.secrets[name][4][0])
        assert 1 not in context, "trusted_ca beside the validator"
        ext = decode(context[12][0])
        assert text(ext, 1) == "envoy.tls.cert_validator.spiffe"
        config = decode(ext[2][0])
        assert text(config, 1) == VALIDATOR
        return {text(d, 1): decode(d[2][0])[2][0].decode() for d in map(decode, decode(config[2][0])[1])}


def fetch(socket, *names, **kw):
    with Raw(socket) as c:
        s = c.call(SDS + "FetchSecrets", metadata=(), body=frame(request(names, **kw)))
        assert s.status == 0, f"{s.status}: {s.text}"
        assert len(s.messages) == 1
        return Response(s.messages[0])


def refusal(socket, *names, **kw):
    with Raw(socket) as c:
        return c.call(SDS + "FetchSecrets", metadata=(), body=frame(request(names, **kw)))


class Stream:
    def __init__(self, conn, *names, who=None):
        self.conn = conn
        self.s = conn.open(SDS + "StreamSecrets", metadata=(), body=frame(request(names, who=who)), end=False)

    def send(self, *names, **kw):
        self.conn.h2.send_data(self.s.id, frame(request(names, **kw)))
        self.conn.flush()

    def next(self):
        return Response(self.s.next())


def openssl(*argv, data):
    return subprocess.run(["openssl", *argv], input=data.encode(), capture_output=True, check=True).stdout.decode()


# --- what is not served ---------------------------------------------------------------------------


def test_names_that_cannot_be_met(agent):
    agent.start()
    for name in ("spiffe://other.example", f"{OWN}/away", "nope", "rootca", OWN + "/", "default "):
        s = refusal(agent.socket, name)
        assert s.status == INVALID_ARGUMENT, f"{name}: {s.status} {s.text}"
        s = refusal(agent.socket, FIRST, name)
        assert s.status == INVALID_ARGUMENT and not s.messages, name
    assert '"issued"' not in agent.node.agent.err(), "something was issued for a request that cannot be met"


def test_stream_ends_with_a_name_that_cannot_be_met(agent):
    agent.start()
    with Raw(agent.socket) as c:
        st = Stream(c, FIRST)
        first = st.next()
        st.send("nope", nonce=first.nonce, version=first.version)
        st.s.wait_end()
        assert st.s.status == INVALID_ARGUMENT, st.s.text


def test_bad_requests(agent):
    agent.start()
    with Raw(agent.socket) as c:
        for body in (b"\xff\xff\xff", b"\x1a\x05ab", request(type_url="type.googleapis.com/envoy.config.cluster.v3.Cluster")):
            for method in ("FetchSecrets", "StreamSecrets"):
                s = c.call(SDS + method, metadata=(), body=frame(body))
                assert s.status == INVALID_ARGUMENT, f"{method} {body}: {s.status} {s.text}"
        assert c.call(SDS + "DeltaSecrets", metadata=()).status == UNIMPLEMENTED
        assert c.call(SDS + "DeltaSecrets", metadata=(), body=b"").status == UNIMPLEMENTED
        assert c.call(SDS + "StreamSecrets", metadata=(), body=b"").status == 0  # it asked for nothing


def test_caller_without_identity(agent):
    agent.start()
    code = (
        "import sys; sys.path[:0] = sys.argv[2].split(':')\n"
        "from rawgrpc import Raw\n"
        "with Raw(sys.argv[1]) as c:\n"
        "    for m in ('FetchSecrets', 'StreamSecrets'):\n"
        "        print(c.call('/envoy.service.secret.v3.SecretDiscoveryService/' + m, metadata=()).status)\n"
    )
    out = agent.lab.run_in(
        [sys.executable, "-c", code, agent.socket, ":".join(sys.path)], uid=agent.nobody, with_hosts=False
    )
    assert out.stdout.split() == ["7", "7"], out.stdout + out.stderr


@pytest.mark.parametrize("depth", [10, 20000])
def test_metadata_that_nests(agent, depth):
    """It is read without recursion: a stack overflow would end the service."""
    agent.start()
    value = b""
    for _ in range(depth):
        if len(value) > 60000:
            break
        value = field(5, field(1, field(2, value)))
    who = message(f1="x") + field(3, field(1, message(f1="k", f2=value)))
    with Raw(agent.socket) as c:
        s = c.call(SDS + "FetchSecrets", metadata=(), body=frame(request(["ROOTCA"], who=who)))
        assert s.status == 0, s.text
    assert agent.node.agent.alive()


# --- names and forms ------------------------------------------------------------------------------


def test_everything(agent):
    """Without names: bundle first, then the identities in the entries' order, under their own names."""
    agent.start()
    r = fetch(agent.socket)
    assert r.order == [OWN, FIRST, SECOND]
    assert r.version == "" and r.nonce == "" and r.type_url == SECRET
    assert list(r.domains(OWN)) == [TD]
    for name in (FIRST, SECOND):
        chain, key = r.chain(name), r.key(name)
        assert chain.count("BEGIN CERTIFICATE") == 2, "leaf and intermediate"
        assert key.startswith("-----BEGIN PRIVATE KEY-----\n")
        assert f"URI:{name}" in openssl("x509", "-noout", "-ext", "subjectAltName", data=chain)
        assert openssl("x509", "-noout", "-pubkey", data=chain) == openssl("pkey", "-pubout", data=key)
    assert all(len(line) <= 64 for line in r.chain(FIRST).splitlines())


def test_names(agent):
    agent.start()
    r = fetch(agent.socket, "default")
    assert r.order == ["default"]
    assert f"URI:{FIRST}" in openssl("x509", "-noout", "-ext", "subjectAltName", data=r.chain("default"))
    assert fetch(agent.socket, SECOND).order == [SECOND]
    assert fetch(agent.socket, SECOND, "").order == [SECOND]
    r = fetch(agent.socket, "default", FIRST, FIRST, "ROOTCA", OWN, "ALL")
    assert sorted(r.order) == sorted(["default", FIRST, "ROOTCA", OWN, "ALL"])
    assert r.domains("ROOTCA") == r.domains(OWN) == r.domains("ALL")
    assert openssl("x509", "-noout", "-subject", data=r.domains("ALL")[TD])


def test_no_certificate_for_a_bundle(agent):
    """Who asks for the bundle costs no signature."""
    agent.start()
    fetch(agent.socket, "ROOTCA")
    fetch(agent.socket, "ALL", OWN)
    assert '"issued"' not in agent.node.agent.err()


def test_form_of_bundles(agent):
    """SPIFFE validator from Envoy 1.18 on, or if it is not said; else, and if switched off, trusted_ca."""
    agent.start()
    for who in (None, node(), node((1, 18)), node((2, 0)), node((1, 40), False)):
        assert list(fetch(agent.socket, "ROOTCA", who=who).domains("ROOTCA")) == [TD]
        assert fetch(agent.socket, "ALL", who=who).order == ["ALL"]
    for who in (node((1, 17)), node((0, 99)), node((1, 40), True), node(None, True)):
        ca = fetch(agent.socket, "ROOTCA", who=who).trusted_ca("ROOTCA")
        assert ca.count("BEGIN CERTIFICATE") == 1
        assert refusal(agent.socket, "ALL", who=who).status == INVALID_ARGUMENT


# --- streams --------------------------------------------------------------------------------------


def test_versions_and_nonces(agent):
    agent.start()
    with Raw(agent.socket) as c:
        st = Stream(c, FIRST, who=node((1, 17)))
        first = st.next()
        assert first.version == "1" and len(first.nonce) == 16 and first.order == [FIRST]
        # the same names once more: an acknowledgement, then a rejection
        st.send(FIRST, nonce=first.nonce, version="1")
        st.send(FIRST, nonce=first.nonce, version="", error="bad \x01 certificate")
        assert st.s.quiet(0.3)
        # stale: it knows another nonce
        st.send(SECOND, nonce="00" * 8, version="1")
        st.send(SECOND, nonce="", version="")
        assert st.s.quiet(0.3)
        # other names are answered, also by one that rejects; the node of the first request holds
        st.send("ROOTCA", FIRST, nonce=first.nonce, version="", error="still bad")
        second = st.next()
        assert second.version == "2" and second.nonce != first.nonce
        assert second.order == ["ROOTCA", FIRST] and second.trusted_ca("ROOTCA")
        # the order and doubles of names are no difference
        st.send(FIRST, "ROOTCA", FIRST, nonce=second.nonce, version="2")
        assert st.s.quiet(0.3)
        c.h2.end_stream(st.s.id)
        c.flush()
        st.s.wait_end()
        assert st.s.status == 0
    assert "secrets_rejected" in agent.node.agent.err()


def test_a_request_that_is_also_the_last(agent):
    agent.start()
    with Raw(agent.socket) as c:
        s = c.call(SDS + "StreamSecrets", metadata=(), body=frame(request([FIRST])))
        assert s.status == 0 and len(s.messages) == 1


def test_pushes(agent):
    """On a renewal, on a change of what was asked for, and the end when it is taken away."""
    agent.start(ttl="10s")
    with Raw(agent.socket) as c:
        a, b, roots = Stream(c, FIRST), Stream(c, SECOND), Stream(c, "ROOTCA")
        first = a.next()
        assert b.next().order == [SECOND] and roots.next().order == ["ROOTCA"]
        a.send(FIRST, nonce=first.nonce, version="1")
        renewed = a.next()
        assert renewed.version == "2" and renewed.chain(FIRST) != first.chain(FIRST)
        assert renewed.key(FIRST) != first.key(FIRST)
        assert roots.s.quiet(0.1), "a bundle that did not change was sent"
        agent.reload(ids=("first",), ttl="1h")
        b.s.wait_end()
        assert b.s.status == INVALID_ARGUMENT, b.s.text
        agent.reload(ids=())
        a.s.wait_end()
        assert a.s.status == PERMISSION_DENIED
        roots.s.wait_end()
        assert roots.s.status == PERMISSION_DENIED
