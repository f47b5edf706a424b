"""Leaf, node authority, root, JWT and key set in the eyes of checkers that are not ours: pkilint, zlint, OpenSSL's
strict mode, `cryptography` and PyJWT; and each rule of X509-SVID.md, JWT-SVID.md and SPIFFE_Trust_Domain_and_Bundle.md.

No failure and no warning. A finding that does not apply stands in NOT_OURS, with the reason.
"""

import base64
import datetime
import json
import re
import subprocess
import sys
import time

import clients
import jwt
import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from cryptography.x509.oid import ExtendedKeyUsageOID, ExtensionOID
from node import TD
from rawgrpc import Raw
from rogue import Authority
from spiffe._proto import workload_pb2

API = "/SpiffeWorkloadAPI/"
IDS = [f"spiffe://{TD}/first", f"spiffe://{TD}/second"]

# (checker's word, why it is none of ours)
NOT_OURS = [
    # Its list of schemes is that of web addresses: it says so of every SPIFFE ID there is.
    (r"pkix\.invalid_uri_syntax.*\"?spiffe://", "pkilint does not know the scheme"),
]


def ask(agent, method, request, response):
    body = request.SerializeToString()
    with Raw(agent.socket) as c:
        s = c.open(API + method, body=b"\0" + len(body).to_bytes(4, "big") + body)
        response.ParseFromString(s.next())
    return response


def split_der(data):
    found = []
    while data:
        n = 4 + int.from_bytes(data[2:4], "big")
        assert data[:2] == b"\x30\x82" and n <= len(data)
        found.append(x509.load_der_x509_certificate(data[:n]))
        data = data[n:]
    return found


class Issued:
    """What one caller with two identities was given."""

    def __init__(self, agent):
        self.agent = agent
        svids = ask(agent, "FetchX509SVID", workload_pb2.X509SVIDRequest(), workload_pb2.X509SVIDResponse()).svids
        self.chains = [split_der(s.x509_svid) for s in svids]
        self.roots = split_der(svids[0].bundle)
        self.leaves = [c[0] for c in self.chains]
        self.nodes = self.chains[0][1:]
        self.authorities = self.nodes + self.roots
        self.all = self.leaves + self.authorities

    def pairs(self):
        for chain in self.chains:
            path = chain + [r for r in self.roots if r.subject == chain[-1].issuer]
            yield from zip(path[1:], path)
        yield from ((r, r) for r in self.roots)


@pytest.fixture
def issued(agent):
    return Issued(agent.start())


def extension(cert, kind):
    return cert.extensions.get_extension_for_class(kind)


def uris(cert):
    return extension(cert, x509.SubjectAlternativeName).value.get_values_for_type(x509.UniformResourceIdentifier)


# --- other people's checkers -------------------------------------------------------------------------
def write(directory, certs, suffix="der", encoding=Encoding.DER):
    paths = []
    for i, cert in enumerate(certs):
        paths.append(directory / f"{i}-{len(paths)}.{suffix}")
        paths[-1].write_bytes(cert.public_bytes(encoding))
    return paths


def findings(tool, *paths):
    """pkilint's, from "notice" on."""
    argv = [sys.executable, "-m", f"pkilint.bin.{tool}", "lint", "-s", "NOTICE", "-f", "JSON", *map(str, paths)]
    p = subprocess.run(argv, capture_output=True, text=True, timeout=60, check=False)
    document = json.loads(p.stdout)
    found = []
    for result in document["results"]:
        for f in result["finding_descriptions"]:
            text = f"{f['severity']} {f['code']} {result['node_path']} {f.get('message') or ''}"
            if not any(re.search(pattern, text) for pattern, _ in NOT_OURS):
                found.append(text)
    return found


def test_pkilint(issued, lab):
    wrong = {}
    for path, cert in zip(write(lab.dir, issued.all), issued.all):
        wrong[str(uris(cert))] = findings("lint_pkix_cert", path)
    assert not any(wrong.values()), wrong
    for issuer, subject in issued.pairs():
        paths = write(lab.private_dir("pair"), [issuer, subject])
        assert not findings("lint_pkix_signer_signee_cert_chain", *paths)


def test_pkilint_would_tell(issued, lab):
    """Under the same root, what must not be: the checker is awake, and what is set aside above hides nothing else."""
    root = Authority.of_agent(issued.agent.node.state)
    bad, _ = root.leaf(IDS[0], cert_sign=True)
    assert findings("lint_pkix_cert", *write(lab.dir, [bad]))
    other = Authority.new(TD)
    assert findings("lint_pkix_signer_signee_cert_chain", *write(lab.dir, [other.cert, root.leaf(IDS[0])[0]]))


def test_zlint(issued, lab):
    argv = clients.argv("zlint", *write(lab.dir, issued.all))
    p = lab.run_in(argv, with_hosts=False, timeout=60)
    *wrong, last = p.stdout.splitlines()
    assert p.returncode == 0 and not wrong, p.stdout + p.stderr
    assert int(last.removeprefix("applied ")) >= 25 * len(issued.all), "most of its lints did not apply"


@pytest.mark.parametrize("purpose", ["sslserver", "sslclient"])
def test_openssl_strict(issued, lab, purpose):
    for chain in issued.chains:
        leaf, *nodes = write(lab.private_dir("chain"), chain, "pem", Encoding.PEM)
        roots = write(lab.private_dir("roots"), issued.roots, "pem", Encoding.PEM)
        argv = ["openssl", "verify", "-x509_strict", "-check_ss_sig", "-policy_check", "-purpose", purpose]
        argv += ["-CAfile", roots[0], "-no-CApath", *[a for n in nodes for a in ("-untrusted", n)], leaf]
        p = lab.run_in(argv, with_hosts=False)
        assert p.returncode == 0, p.stdout + p.stderr


# --- X509-SVID.md ------------------------------------------------------------------------------------
def test_leaf(issued):
    for leaf, spiffe_id in zip(issued.leaves, IDS):
        assert uris(leaf) == [spiffe_id]  # 2: exactly one, with a path (5.2)
        constraints = extension(leaf, x509.BasicConstraints)
        assert not constraints.value.ca and constraints.value.path_length is None
        usage = extension(leaf, x509.KeyUsage)
        assert usage.critical and usage.value.digital_signature
        assert not usage.value.key_cert_sign and not usage.value.crl_sign
        eku = extension(leaf, x509.ExtendedKeyUsage)
        assert {ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH} == set(eku.value) and not eku.critical
        san = extension(leaf, x509.SubjectAlternativeName)
        assert san.critical == (len(list(leaf.subject)) == 0)


def test_authorities(issued):
    assert issued.nodes and issued.roots
    for ca in issued.authorities:
        constraints, usage = extension(ca, x509.BasicConstraints), extension(ca, x509.KeyUsage)
        assert constraints.critical and constraints.value.ca
        assert usage.critical and usage.value.key_cert_sign
        assert not usage.value.digital_signature, "what signs certificates shows itself to nobody"
        assert uris(ca) == [f"spiffe://{TD}"]  # without a path, of its own trust domain
        assert list(ca.subject), "RFC 5280 4.1.2.6: an authority has a name"
        for oid in (ExtensionOID.EXTENDED_KEY_USAGE, ExtensionOID.NAME_CONSTRAINTS):  # libraries differ on these
            with pytest.raises(x509.ExtensionNotFound):
                ca.extensions.get_extension_for_oid(oid)
    assert issued.nodes[0].subject != issued.roots[0].subject
    assert extension(issued.nodes[0], x509.BasicConstraints).value.path_length == 0


def test_path(issued):
    for issuer, subject in issued.pairs():
        subject.verify_directly_issued_by(issuer)
        key_id = extension(issuer, x509.SubjectKeyIdentifier).value
        if issuer is not subject:
            assert extension(subject, x509.AuthorityKeyIdentifier).value.key_identifier == key_id.digest
        # no leaf outlives what it hangs from
        assert issuer.not_valid_before_utc <= subject.not_valid_before_utc or subject in issued.leaves
        assert subject.not_valid_after_utc <= issuer.not_valid_after_utc
    for chain in issued.chains:
        assert not set(chain) & set(issued.roots), "the root is in the chain"


def test_every_certificate(issued):
    now = datetime.datetime.now(datetime.timezone.utc)
    for cert in issued.all:
        assert cert.version is x509.Version.v3
        assert isinstance(cert.public_key(), ec.EllipticCurvePublicKey) and cert.public_key().curve.name == "secp256r1"
        assert cert.not_valid_before_utc <= now < cert.not_valid_after_utc
        assert 64 <= cert.serial_number.bit_length() <= 159  # RFC 5280 4.1.2.2; unpredictable
        oids = [e.oid for e in cert.extensions]
        assert len(set(oids)) == len(oids)
        critical = {e.oid for e in cert.extensions if e.critical}
        assert critical <= {ExtensionOID.BASIC_CONSTRAINTS, ExtensionOID.KEY_USAGE, ExtensionOID.SUBJECT_ALTERNATIVE_NAME}
        assert ExtensionOID.CRL_DISTRIBUTION_POINTS not in oids and ExtensionOID.AUTHORITY_INFORMATION_ACCESS not in oids
    assert len({c.serial_number for c in issued.all}) == len(issued.all)
    keys = {c.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo) for c in issued.all}
    assert len(keys) == len(issued.all), "a key serves twice"


# --- JWT-SVID.md, and the keys -----------------------------------------------------------------------
def decode(part):
    assert re.fullmatch(r"[A-Za-z0-9_-]+", part), "padding, or another alphabet"
    return base64.urlsafe_b64decode(part + "=" * (-len(part) % 4))


@pytest.fixture
def tokens(agent):
    agent.start()
    request = workload_pb2.JWTSVIDRequest(audience=["one", "two"])
    svids = ask(agent, "FetchJWTSVID", request, workload_pb2.JWTSVIDResponse()).svids
    bundles = ask(agent, "FetchJWTBundles", workload_pb2.JWTBundlesRequest(), workload_pb2.JWTBundlesResponse()).bundles
    return svids, dict(bundles)


def test_jwt_svid(tokens):
    svids, bundles = tokens
    keys = {k["kid"]: k for k in json.loads(bundles[f"spiffe://{TD}"])["keys"]}
    assert [s.spiffe_id for s in svids] == IDS
    for svid in svids:
        assert svid.svid.count(".") == 2  # compact serialization and no other
        head, body, signature = svid.svid.split(".")
        header, claims = json.loads(decode(head)), json.loads(decode(body))
        assert set(header) <= {"alg", "kid", "typ"} and header.get("typ", "JWT") in ("JWT", "JOSE")
        assert header["alg"] == "ES256" and header["kid"] in keys
        assert len(decode(signature)) == 64  # r and s as they are, not DER
        assert claims["sub"] == svid.spiffe_id
        assert claims["aud"] == ["one", "two"] or set(claims["aud"]) == {"one", "two"}
        now = time.time()
        assert now < claims["exp"] <= now + 3600 and claims["iat"] <= now + 1
        # judged by a library, by the key that the bundle has under that name
        key = jwt.PyJWK(keys[header["kid"]] | {"alg": "ES256"})
        for audience in ("one", "two"):
            assert jwt.decode(svid.svid, key, algorithms=["ES256"], audience=audience)["sub"] == svid.spiffe_id
        with pytest.raises(jwt.InvalidAudienceError):
            jwt.decode(svid.svid, key, algorithms=["ES256"], audience="three")
        broken = f"{head}.{body}.{'B' if signature[0] != 'B' else 'C'}{signature[1:]}"
        with pytest.raises(jwt.InvalidSignatureError):
            jwt.decode(broken, key, algorithms=["ES256"], audience="one")


def test_key_set(tokens):
    """SPIFFE_Trust_Domain_and_Bundle.md 4; RFC 7517, RFC 7518 6.2: nothing private, fixed width, names unique."""
    _, bundles = tokens
    assert list(bundles) == [f"spiffe://{TD}"]
    document = json.loads(bundles[f"spiffe://{TD}"], object_pairs_hook=unique)
    assert set(document) <= {"keys", "spiffe_sequence", "spiffe_refresh_hint"} and document["keys"]
    for key in document["keys"]:
        assert key["kty"] == "EC" and key["crv"] == "P-256"
        assert len(decode(key["x"])) == len(decode(key["y"])) == 32
        assert key["kid"] and key.get("use", "jwt-svid") == "jwt-svid" and key.get("alg", "ES256") == "ES256"
        assert set(key) <= {"kty", "crv", "x", "y", "kid", "use", "alg"}, "more than a public key"
        ec.EllipticCurvePublicNumbers(
            int.from_bytes(decode(key["x"]), "big"), int.from_bytes(decode(key["y"]), "big"), ec.SECP256R1()
        ).public_key()  # raises if the point is not on the curve
    kids = [k["kid"] for k in document["keys"]]
    assert len(set(kids)) == len(kids)


def unique(pairs):
    assert len({k for k, _ in pairs}) == len(pairs), f"a name twice: {pairs}"
    return dict(pairs)
