"""SPIFFE_Workload_API.md (JWT), JWT-SVID.md: tokens judged by somebody else's libraries."""

import base64
import hmac
import json
import re
import sys
import time

import clients
import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from node import TD
from rawgrpc import Raw, frame
from spiffe import JwtSvid, TrustDomain, WorkloadApiClient
from spiffe._proto import workload_pb2

API = "/SpiffeWorkloadAPI/"
FETCH, BUNDLES, VALIDATE = API + "FetchJWTSVID", API + "FetchJWTBundles", API + "ValidateJWTSVID"
OK, INVALID_ARGUMENT, PERMISSION_DENIED = 0, 3, 7
FIRST = f"spiffe://{TD}/first"


def ask(conn, audience=("orders",), spiffe_id=""):
    body = workload_pb2.JWTSVIDRequest(audience=list(audience), spiffe_id=spiffe_id).SerializeToString()
    return conn.call(FETCH, body=frame(body))


def tokens(stream):
    assert stream.status == OK, f"{stream.status} {stream.text}"
    r = workload_pb2.JWTSVIDResponse()
    r.ParseFromString(stream.next())
    return r.svids


def token(conn, **kw):
    return tokens(ask(conn, **kw))[0].svid


def key_set(conn):
    r = workload_pb2.JWTBundlesResponse()
    r.ParseFromString(conn.open(BUNDLES).next())
    assert list(r.bundles) == [f"spiffe://{TD}"], "own trust domain under its ID"
    return json.loads(r.bundles[f"spiffe://{TD}"])


def validate(conn, svid, audience="orders"):
    body = workload_pb2.ValidateJWTSVIDRequest(audience=audience, svid=svid).SerializeToString()
    return conn.call(VALIDATE, body=frame(body))


def validated(stream):
    assert stream.status == OK, f"{stream.status} {stream.text}"
    r = workload_pb2.ValidateJWTSVIDResponse()
    r.ParseFromString(stream.next())
    return r


def part(text):
    assert re.fullmatch(r"[A-Za-z0-9_-]+", text), "not base64url without padding"
    return json.loads(base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)))


def judge(svid, keys, audience="orders"):
    """By PyJWT, with the key that kid names."""
    header = jwt.get_unverified_header(svid)
    key = next(k for k in keys["keys"] if k["kid"] == header["kid"])
    return jwt.decode(
        svid,
        jwt.PyJWK(key, algorithm=header["alg"]).key,
        algorithms=[header["alg"]],
        audience=audience,
        options={"require": ["exp", "sub", "aud"]},
    )


def start(agent, extra):
    agent.write()
    agent.node.start_agent(extra=extra)


def b64(data):
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def hmac_token(claims, secret, kid):
    text = ".".join(b64(json.dumps(x).encode()) for x in ({"alg": "HS256", "kid": kid}, claims))
    return f"{text}.{b64(hmac.digest(secret, text.encode(), 'sha256'))}"


# --- tokens -----------------------------------------------------------------------------------------------------------


def test_header_and_claims(agent):
    """JWT-SVID.md sections 2 and 3: alg, kid, typ and nothing else; sub, aud, exp."""
    agent.start()
    with Raw(agent.socket) as c:
        svid = token(c)
        head, claims, sig = svid.split(".")
        head, claims = part(head), part(claims)
        assert set(head) == {"alg", "kid", "typ"} and head["alg"] == "ES256" and head["typ"] == "JWT"
        assert set(claims) == {"sub", "aud", "exp", "iat", "jti"}
        assert claims["sub"] == FIRST and claims["aud"] == ["orders"]
        assert claims["exp"] - claims["iat"] == 300 and abs(claims["iat"] - time.time()) < 20
        assert len(base64.urlsafe_b64decode(sig + "==")) == 64, "r and s, not DER"
        assert judge(svid, key_set(c))["sub"] == FIRST
        assert part(token(c).split(".")[1])["jti"] != claims["jti"]


def test_one_token_for_each_identity(agent):
    """Workload API section 6.2.1: all identities in order, or the one that is asked for; hints."""
    agent.start(ids=("first", "second", "third"), hints=("internal", "internal", "external"))
    with Raw(agent.socket) as c:
        all_of_them = tokens(ask(c))
        assert [s.spiffe_id for s in all_of_them] == [f"spiffe://{TD}/{n}" for n in ("first", "second", "third")]
        assert [s.hint for s in all_of_them] == ["internal", "", "external"]
        keys = key_set(c)
        for s in all_of_them:
            assert judge(s.svid, keys)["sub"] == s.spiffe_id
        one = tokens(ask(c, spiffe_id=f"spiffe://{TD}/second"))
        assert [s.spiffe_id for s in one] == [f"spiffe://{TD}/second"]


def test_audiences_go_in_unchanged(agent):
    agent.start(ids=("first",))
    several = ["b", 'a "quoted\\" one', "https://e.org/?x=1&y=2", "\u00e4\U0001f600", "b"]
    with Raw(agent.socket) as c:
        svid = token(c, audience=several)
        assert judge(svid, key_set(c), "b")["aud"] == several


@pytest.mark.parametrize(
    "request_, status, says",
    [
        ({"audience": ()}, INVALID_ARGUMENT, "audience"),
        ({"audience": ("",)}, INVALID_ARGUMENT, "audience"),
        ({"audience": ("a\nb",)}, INVALID_ARGUMENT, "audience"),
        ({"audience": ("a\0b",)}, INVALID_ARGUMENT, "audience"),
        ({"audience": ("a" * 1025,)}, INVALID_ARGUMENT, "audience"),
        ({"audience": ("a",) * 17}, INVALID_ARGUMENT, "audience"),
        ({"audience": ("a" * 1000,) * 5}, INVALID_ARGUMENT, "audience"),
        ({"spiffe_id": "first"}, INVALID_ARGUMENT, "spiffe_id"),
        ({"spiffe_id": "spiffe://UPPER/first"}, INVALID_ARGUMENT, "spiffe_id"),
        ({"spiffe_id": f"spiffe://{TD}/away"}, PERMISSION_DENIED, "not the caller's"),
        ({"spiffe_id": "spiffe://other.org/first"}, PERMISSION_DENIED, "not the caller's"),
    ],
)
def test_requests_that_are_refused(agent, request_, status, says):
    """Workload API section 6.2.1 and the endpoint's status codes."""
    agent.start()
    with Raw(agent.socket) as c:
        s = ask(c, **request_)
        assert s.status == status and says in s.text and not s.messages, f"{s.status} {s.text}"
        assert c.call(FETCH, body=frame(b"\x0a\xff")).status == INVALID_ARGUMENT
        assert token(c), "the connection goes on"


def test_caller_without_identity(agent):
    """None of the three, with a sound request."""
    agent.start()
    code = (
        "import sys; sys.path[:0] = sys.argv[2].split(':')\n"
        "from rawgrpc import Raw, frame\n"
        "with Raw(sys.argv[1]) as c:\n"
        "    print(c.call('/SpiffeWorkloadAPI/FetchJWTSVID', body=frame(b'\\x0a\\x01a')).status)\n"
        "    print(c.call('/SpiffeWorkloadAPI/FetchJWTBundles').status)\n"
        "    print(c.call('/SpiffeWorkloadAPI/ValidateJWTSVID', body=frame(b'\\x0a\\x01a\\x12\\x01b')).status)\n"
    )
    out = agent.lab.run_in(
        [sys.executable, "-c", code, agent.socket, ":".join(sys.path)], uid=agent.nobody, with_hosts=False
    )
    assert out.stdout.split() == ["7", "7", "7"], out.stdout + out.stderr
    assert '"jwt_issued"' not in agent.node.agent.err()


def test_every_token_is_logged(agent):
    agent.start(ids=("first", "second"))
    with Raw(agent.socket) as c:
        tokens(ask(c, audience=("orders", "b")))
        lines = [json.loads(x) for x in agent.node.agent.err().splitlines() if '"jwt_issued"' in x]
        assert [x["entry"] for x in lines] == ["first", "second"]
        assert lines[0]["audience"] == "orders" and lines[0]["audiences"] == 2 and len(lines[0]["jti"]) == 32
        assert token(c) not in agent.node.agent.err(), "a token is in the log"


# --- bundles ----------------------------------------------------------------------------------------------------------


def test_key_set(agent):
    """Workload API section 6.2.2: a JWK set; EC coordinates of the curve's width."""
    agent.start()
    with Raw(agent.socket) as c:
        keys = key_set(c)
        assert set(keys) == {"keys"} and len(keys["keys"]) == 1
        key = keys["keys"][0]
        assert set(key) == {"kid", "kty", "crv", "x", "y"} and key["kty"] == "EC" and key["crv"] == "P-256"
        assert len(key["x"]) == len(key["y"]) == 43
        s = c.open(BUNDLES)
        assert s.next()
        agent.reload(ids=("first",))  # still entitled, the same keys: nothing is sent
        assert s.quiet(1)
        agent.reload(ids=())
        assert s.wait_end().status == PERMISSION_DENIED


@pytest.mark.parametrize("algorithm", ["ES384", "RS256"])
def test_other_algorithms(agent, algorithm):
    start(agent, f"jwt: {{algorithm: {algorithm}}}\n")
    with Raw(agent.socket) as c:
        svid = token(c)
        assert jwt.get_unverified_header(svid)["alg"] == algorithm
        assert judge(svid, key_set(c))["sub"] == FIRST
        assert validated(validate(c, svid)).spiffe_id == FIRST


def order(agent, *argv):
    config = agent.node.conf / "agent.yaml"
    p = agent.lab.run_in([agent.node.postern, "ca", *argv, "--jwt", "--config", config])
    assert p.returncode == 0, p.stderr


def test_rotation_keeps_tokens_valid(agent):
    """A key is in the bundle before it signs, and as long as a token of it is valid."""
    agent.start()

    def told(stream):
        r = workload_pb2.JWTBundlesResponse()
        r.ParseFromString(stream.next())
        return {k["kid"] for k in json.loads(r.bundles[f"spiffe://{TD}"])["keys"]}

    def kid(svid):
        return jwt.get_unverified_header(svid)["kid"]

    with Raw(agent.socket) as c:
        stream = c.open(BUNDLES)
        first = told(stream)
        before = token(c)
        assert {kid(before)} == first
        order(agent, "prepare")
        both = told(stream)
        assert len(both) == 2 and first < both, "the next key is told, and the first one still"
        assert kid(token(c)) in first, "a key signs that was only just told"
        order(agent, "activate")
        assert told(stream) == both
        after = token(c)
        assert kid(after) in both - first
        for svid in (before, after):
            assert validated(validate(c, svid)).spiffe_id == FIRST


# --- validation -------------------------------------------------------------------------------------------------------


def test_validate(agent):
    """Workload API section 6.2.3: the ID and all claims; aud as a list, numbers as doubles."""
    agent.start()
    with Raw(agent.socket) as c:
        svid = token(c, audience=("orders", "b"))
        r = validated(validate(c, svid))
        assert r.spiffe_id == FIRST
        want = part(svid.split(".")[1])
        assert {k: (list(v) if k == "aud" else v) for k, v in r.claims.items()} == want


def test_validate_refuses(agent):
    """Anything that is wrong is InvalidArgument, with one text."""
    agent.start()
    mine = ec.generate_private_key(ec.SECP256R1())
    claims = {"sub": FIRST, "aud": ["orders"], "exp": int(time.time()) + 60}
    with Raw(agent.socket) as c:
        svid = token(c)
        kid = jwt.get_unverified_header(svid)["kid"]
        head, body, sig = svid.split(".")
        public = json.dumps(key_set(c)["keys"][0])
        cases = {
            "no audience": (svid, "", "audience"),
            "no token": ("", "orders", "svid is missing"),
            "another audience": (svid, "other", "another audience"),
            "garbage": ("garbage", "orders", "compact JWS"),
            "without signature": (f"{head}.{body}.", "orders", "signature"),
            "changed": (f"{head}.{b64(json.dumps(claims).encode())}.{sig}", "orders", "signature is wrong"),
            "padded": (svid + "==", "orders", "signature"),
            "none": (jwt.encode(claims, None, algorithm="none"), "orders", "algorithm"),
            "HMAC with the public key": (
                hmac_token(claims, public.encode(), kid),
                "orders",
                "algorithm",
            ),
            "a stranger's key": (jwt.encode(claims, mine, algorithm="ES256"), "orders", "signature is wrong"),
            "a stranger's key under our name": (
                jwt.encode(claims, mine, algorithm="ES256", headers={"kid": kid}),
                "orders",
                "signature is wrong",
            ),
            "another trust domain": (
                jwt.encode({**claims, "sub": "spiffe://other.org/a"}, mine, algorithm="ES256"),
                "orders",
                "no bundle",
            ),
        }
        for what, (text, audience, says) in cases.items():
            s = validate(c, text, audience)
            assert s.status == INVALID_ARGUMENT and says in s.text and not s.messages, f"{what}: {s.status} {s.text}"


# --- others' clients --------------------------------------------------------------------------------------------------


def test_pypi_spiffe(agent):
    """fetch, validate and bundles of PyPI's client."""
    agent.start()
    with WorkloadApiClient(f"unix:{agent.socket}") as client:
        svid = client.fetch_jwt_svid(audience={"orders"})
        assert str(svid.spiffe_id) == FIRST and svid.audience == {"orders"}
        assert len(client.fetch_jwt_svids(audience={"orders"})) == 2
        again = client.validate_jwt_svid(svid.token, "orders")
        assert str(again.spiffe_id) == FIRST
        bundle = client.fetch_jwt_bundles().get_bundle_for_trust_domain(TrustDomain(TD))
        kid = jwt.get_unverified_header(svid.token)["kid"]
        assert JwtSvid.parse_and_validate(svid.token, bundle, {"orders"}).spiffe_id == svid.spiffe_id
        assert bundle.get_jwt_authority(kid) is not None


def test_survives_a_restart_of_the_agent(agent):
    """Keys are kept: a token that was good before is good after."""
    agent.start()
    with Raw(agent.socket) as c:
        svid = token(c)
    assert agent.node.agent.stop() == 0
    agent.node.start_agent()
    with Raw(agent.socket) as c:
        assert validated(validate(c, svid)).spiffe_id == FIRST


@pytest.mark.parametrize("name", clients.CLIENTS)
def test_clients_of_five_languages(name, agent):
    """Each fetches, reads and validates; a token that is none, or for another, is refused to each."""
    agent.start()

    def ask_client(*argv):
        p = agent.lab.run_in(clients.argv(name, *argv), with_hosts=False, timeout=90)
        found = clients.events(p.stdout)
        assert found, f"said nothing: {p.stdout[-2000:]} {p.stderr[-2000:]}"
        return found

    fetched, keys = ask_client("jwt", agent.socket, "orders")
    assert [s["id"] for s in fetched["svids"]] == [FIRST, f"spiffe://{TD}/second"], fetched
    assert keys["domains"] == {TD: 1}, keys
    text = fetched["svids"][0]["token"]
    (said,) = ask_client("validate", agent.socket, "orders", text)
    assert said["event"] == "valid" and said["id"] == FIRST, said
    for audience, svid in (("other", text), ("orders", text[:-4] + "AAAA")):
        (said,) = ask_client("validate", agent.socket, audience, svid)
        assert said["event"] == "error", said
