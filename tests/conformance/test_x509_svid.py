"""SPIFFE_Workload_API.md (X.509), X509-SVID.md, and Postern's own request for a certificate."""

import datetime
import json
import os
import signal
import sys

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from lab import admin_ask, wait_for
from node import TD
from rawgrpc import Ended, Raw, frame
from spiffe._proto import workload_pb2

SVID = "/SpiffeWorkloadAPI/FetchX509SVID"
BUNDLES = "/SpiffeWorkloadAPI/FetchX509Bundles"
SIGN = "/postern.v1.Identity/SignX509SVID"
INVALID_ARGUMENT, PERMISSION_DENIED, UNAVAILABLE = 3, 7, 14


def split_der(data):
    certs = []
    while data:
        assert data[0] == 0x30 and data[1] == 0x82, "not a DER certificate"
        n = 4 + int.from_bytes(data[2:4], "big")
        certs.append(x509.load_der_x509_certificate(data[:n]))
        data = data[n:]
    return certs


def response(message):
    r = workload_pb2.X509SVIDResponse()
    r.ParseFromString(message)
    return r


def uris(cert):
    return cert.extensions.get_extension_for_class(x509.SubjectAlternativeName).value.get_values_for_type(
        x509.UniformResourceIdentifier
    )


def check_leaf(cert, spiffe_id):
    """X509-SVID.md sections 2 and 4, for a leaf."""
    assert uris(cert) == [spiffe_id]
    assert not cert.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    usage = cert.extensions.get_extension_for_class(x509.KeyUsage)
    assert usage.critical and usage.value.digital_signature
    assert not usage.value.key_cert_sign and not usage.value.crl_sign
    purposes = set(cert.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value)
    assert {ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH} <= purposes
    if not list(cert.subject):
        assert cert.extensions.get_extension_for_class(x509.SubjectAlternativeName).critical
    assert isinstance(cert.public_key(), ec.EllipticCurvePublicKey)
    assert cert.serial_number.bit_length() > 64


def check_authority(cert):
    """And for a signing certificate."""
    assert cert.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    usage = cert.extensions.get_extension_for_class(x509.KeyUsage)
    assert usage.critical and usage.value.key_cert_sign
    assert uris(cert) == [f"spiffe://{TD}"]


def check_chain(chain, roots):
    """Each signed by the next, the last by a root that is not in the chain; all of them in time."""
    now = datetime.datetime.now(datetime.timezone.utc)
    issuers = chain[1:] + [next(r for r in roots if r.subject == chain[-1].issuer)]
    for cert, issuer in zip(chain, issuers):
        issuer.public_key().verify(
            cert.signature, cert.tbs_certificate_bytes, ec.ECDSA(cert.signature_hash_algorithm)
        )
        assert cert.issuer == issuer.subject
        assert cert.not_valid_before_utc <= now <= cert.not_valid_after_utc
    for cert in chain:
        assert cert not in roots, "the root is in the chain"


def check_svid(svid, name):
    spiffe_id = f"spiffe://{TD}/{name}"
    assert svid.spiffe_id == spiffe_id
    chain, roots = split_der(svid.x509_svid), split_der(svid.bundle)
    check_leaf(chain[0], spiffe_id)
    for c in chain[1:] + roots:
        check_authority(c)
    check_chain(chain, roots)
    key = serialization.load_der_private_key(svid.x509_svid_key, password=None)
    assert svid.x509_svid_key == key.private_bytes(
        serialization.Encoding.DER, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    ), "the key is not plain PKCS#8"
    assert key.public_key().public_numbers() == chain[0].public_key().public_numbers()
    return chain[0]


def test_first_message(agent):
    """Section 5: at once and whole; the default identity first; hints unique; DER forms."""
    agent.start(ids=("first", "second", "third"), hints=("internal", "internal", "external"))
    for _ in range(3):  # the same order each time
        with Raw(agent.socket) as c:
            r = response(c.open(SVID).next(timeout=60))
            assert [s.spiffe_id for s in r.svids] == [f"spiffe://{TD}/{n}" for n in ("first", "second", "third")]
            assert [s.hint for s in r.svids] == ["internal", "", "external"]
            assert not r.federated_bundles and not r.crl
            leaves = [check_svid(s, n) for s, n in zip(r.svids, ("first", "second", "third"))]
            assert len({x.serial_number for x in leaves}) == 3
            dns = leaves[0].extensions.get_extension_for_class(x509.SubjectAlternativeName)
            assert dns.value.get_values_for_type(x509.DNSName) == ["first.test.example"]


def test_bundles(agent):
    """Section 6: the own trust domain under its ID, and the same that stands in an SVID."""
    agent.start()
    with Raw(agent.socket) as c:
        s = c.open(BUNDLES)
        r = workload_pb2.X509BundlesResponse()
        r.ParseFromString(s.next(timeout=60))
        assert list(r.bundles) == [f"spiffe://{TD}"]
        assert r.bundles[f"spiffe://{TD}"] == response(c.open(SVID).next()).svids[0].bundle
        for cert in split_der(r.bundles[f"spiffe://{TD}"]):
            check_authority(cert)


def test_rotation(agent):
    """Before an SVID ends the next one is there, with another key; the message is whole again."""
    agent.start(ttl="10s")
    with Raw(agent.socket) as c:
        s = c.open(SVID)
        seen = []
        for _ in range(3):
            r = response(s.next())
            assert len(r.svids) == 2
            leaf = check_svid(r.svids[0], "first")
            if seen:
                assert datetime.datetime.now(datetime.timezone.utc) < seen[-1].not_valid_after_utc
                assert leaf.public_key().public_numbers() not in [x.public_key().public_numbers() for x in seen]
            seen.append(leaf)
        assert len({x.serial_number for x in seen}) == 3


def test_entries_change_under_a_stream(agent):
    agent.start()
    with Raw(agent.socket) as c:
        svids, bundles = c.open(SVID), c.open(BUNDLES)
        before = response(svids.next())
        bundles.next()
        agent.reload()  # the same again: nothing is told
        wait_for("the reload", lambda: agent.node.agent.err().count('"entries_loaded"') == 2)
        assert svids.quiet(1.0) and bundles.quiet(0.1)
        agent.reload(ids=("first",))  # one was withdrawn: an absent entry means that
        r = response(svids.next())
        assert [s.spiffe_id for s in r.svids] == [f"spiffe://{TD}/first"]
        assert r.svids[0].bundle == before.svids[0].bundle
        agent.reload(ids=("first",), dns="other.example")  # the same identity, other names
        leaf = check_svid(response(svids.next()).svids[0], "first")
        names = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        assert names.get_values_for_type(x509.DNSName) == ["first.other.example"]
        agent.reload(ids=())  # the last one: the stream ends, and so does the other
        assert svids.wait_end().status == PERMISSION_DENIED
        assert bundles.wait_end().status == PERMISSION_DENIED
        assert c.call(SVID).status == PERMISSION_DENIED
        agent.reload()
        wait_for("the reload", lambda: agent.node.agent.err().count('"entries_loaded"') == 6)
        assert response(c.open(SVID).next()).svids[0].spiffe_id == f"spiffe://{TD}/first"


def test_bad_entries_change_nothing(agent):
    agent.start()
    with Raw(agent.socket) as c:
        s = c.open(SVID)
        s.next()
        (agent.node.conf / "entries.yaml").write_text("kind: Entries\nlevel: 1\nentries:\n  - idd: x\n")
        agent.node.agent.send_signal(signal.SIGHUP)
        assert s.quiet(1.0) and not s.ended
        assert response(c.open(SVID).next()).svids[0].spiffe_id == f"spiffe://{TD}/first"


def test_agent_restarts(agent):
    """Streams end with Unavailable (or the connection); afterwards the roots are the same."""
    agent.start()
    with Raw(agent.socket) as c:
        s = c.open(SVID)
        roots = response(s.next()).svids[0].bundle
        agent.node.agent.send_signal(signal.SIGTERM)
        try:
            assert s.wait_end().status == UNAVAILABLE
        except Ended:
            pass
    agent.node.agent.stop()
    agent.node.start_agent()
    with Raw(agent.socket) as c:
        assert response(c.open(SVID).next()).svids[0].bundle == roots


def test_service_is_killed(agent):
    """`kill -9` of the process that speaks gRPC: it is started again, and serves."""
    agent.start()
    status = json.loads(admin_ask(agent.node.run / "agent-admin.sock", "status"))
    pid = next(p["pid"] for p in status["processes"] if p["role"] == "service")
    with Raw(agent.socket) as c:
        s = c.open(SVID)
        s.next()
        os.kill(pid, signal.SIGKILL)
        try:
            s.wait_end()
        except Ended:
            pass

    def back():
        try:
            with Raw(agent.socket, timeout=60) as c:
                return response(c.open(SVID).next(timeout=60)).svids
        except (Ended, OSError, AssertionError):
            return None

    assert wait_for("the service again", back)
    status = json.loads(admin_ask(agent.node.run / "agent-admin.sock", "status"))
    service = next(p for p in status["processes"] if p["role"] == "service")
    assert service["pid"] != pid and service["restarts"] == 1


# --- postern.v1.Identity/SignX509SVID ---


def field(number, data):
    assert len(data) < 1 << 14
    n = len(data)
    size = bytes([n]) if n < 128 else bytes([n & 0x7F | 0x80, n >> 7])
    return bytes([number << 3 | 2]) + size + data


def fields(message):
    """Decodes length-delimited and varint fields, flat."""
    out, at = {}, 0

    def varint():
        nonlocal at
        value = shift = 0
        while True:
            b = message[at]
            at += 1
            value |= (b & 0x7F) << shift
            shift += 7
            if b < 128:
                return value

    while at < len(message):
        tag = varint()
        value = varint()
        if tag & 7 == 2:
            value, at = message[at : at + value], at + value
        out[tag >> 3] = value
    return out


def request_for(key, subject="someone else", san=None):
    b = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, subject)]))
    if san:
        b = b.add_extension(x509.SubjectAlternativeName([x509.UniformResourceIdentifier(san)]), critical=False)
    return b.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.DER)


def test_sign(agent):
    agent.start()
    key = ec.generate_private_key(ec.SECP256R1())
    good = request_for(key, san=f"spiffe://{TD}/away")  # what it says beside the key is not heard
    torn = good[:-3] + bytes([good[-3] ^ 1]) + good[-2:]
    p384 = request_for(ec.generate_private_key(ec.SECP384R1()))
    with Raw(agent.socket) as c:
        bundle = response(c.open(SVID).next()).svids[0].bundle
        for what, body, status in (
            ("no request", b"", INVALID_ARGUMENT),
            ("garbage", field(1, b"hello"), INVALID_ARGUMENT),
            ("signature", field(1, torn), INVALID_ARGUMENT),
            ("curve", field(1, p384), INVALID_ARGUMENT),
            ("not protobuf", b"\x0a\x7f", INVALID_ARGUMENT),
            ("ID", field(1, good) + field(2, b"spiffe://Upper/x"), INVALID_ARGUMENT),
            ("not entitled", field(1, good) + field(2, f"spiffe://{TD}/away".encode()), PERMISSION_DENIED),
        ):
            s = c.call(SIGN, body=frame(body))
            assert s.status == status, f"{what}: {s.status} {s.text}"
            assert not s.messages
        for asked, name in ((b"", "first"), (f"spiffe://{TD}/second".encode(), "second")):
            s = c.call(SIGN, body=frame(field(1, good) + (field(2, asked) if asked else b"")))
            assert s.status == 0, s.text
            r = fields(s.messages[0])
            chain = split_der(r[2])
            check_leaf(chain[0], f"spiffe://{TD}/{name}")
            check_chain(chain, split_der(bundle))
            assert r[1].decode() == f"spiffe://{TD}/{name}"
            assert chain[0].public_key().public_numbers() == key.public_key().public_numbers()
            assert "someone else" not in chain[0].subject.rfc4514_string()
            end = min(x.not_valid_after_utc for x in chain)
            assert r[4] == int(end.timestamp())


# --- a client library as it is ---


def test_pypi_spiffe(agent):
    """PyPI `spiffe` (grpc-core): fetches, and follows a rotation."""
    agent.start(ttl="10s")
    code = (
        "import sys, threading\n"
        "from spiffe import X509Source, WorkloadApiClient\n"
        "where = 'unix://' + sys.argv[1]\n"
        "with WorkloadApiClient(where) as c:\n"
        "    print(c.fetch_x509_svid().spiffe_id)\n"
        "    print(len(c.fetch_x509_context().x509_svids))\n"
        "    print([str(b.trust_domain) for b in c.fetch_x509_bundles().bundles])\n"
        "turned = threading.Event()\n"
        "with X509Source(socket_path=where) as source:\n"
        "    first = source.svid.leaf.serial_number\n"
        "    source.subscribe_for_updates(lambda: source.svid.leaf.serial_number != first and turned.set())\n"
        "    print(turned.wait(30))\n"
    )
    out = agent.lab.run_in([sys.executable, "-c", code, agent.socket], timeout=60, with_hosts=False)
    assert out.stdout.splitlines() == [f"spiffe://{TD}/first", "2", f"['{TD}']", "True"], out.stdout + out.stderr


def test_pypi_spiffe_is_denied(agent):
    agent.start()
    code = (
        "import sys\n"
        "from spiffe import WorkloadApiClient\n"
        "with WorkloadApiClient('unix://' + sys.argv[1]) as c:\n"
        "    try:\n"
        "        c.fetch_x509_svid()\n"
        "    except Exception as e:\n"
        "        print('PERMISSION_DENIED' in str(e))\n"
    )
    out = agent.lab.run_in([sys.executable, "-c", code, agent.socket], uid=agent.nobody, timeout=60, with_hosts=False)
    assert out.stdout.splitlines() == ["True"], out.stdout + out.stderr
