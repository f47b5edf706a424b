"""Keys of requests' tokens that come and go while a proxy runs: by the agent's stream and by a file."""

import base64
import http.client
import json
import os
import time

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from lab import free_port, wait_for
from node import TD, UIDS, spiffe_id
from servers import TcpServer, http_one

POLICY = """kind: Policy
level: 2
rules:
  - name: by-workload
    action: ALLOW
    from: [{{claims: [{{name: sub, values: ["spiffe://{td}/client"]}}]}}]
    to: [{{paths: [/w]}}]
  - name: by-person
    action: ALLOW
    from: [{{claims: [{{name: iss, values: ["https://idp"]}}]}}]
    to: [{{paths: [/p]}}]
"""
CLIENT = spiffe_id("client")


def part(n):
    return base64.urlsafe_b64encode(n.to_bytes(32, "big")).rstrip(b"=").decode()


def key_set(key):
    n = key.public_key().public_numbers()
    return json.dumps({"keys": [{"kty": "EC", "crv": "P-256", "kid": "k", "use": "sig", "x": part(n.x), "y": part(n.y)}]})


def person(key):
    claims = {"iss": "https://idp", "aud": "orders", "exp": int(time.time()) + 600}
    return jwt.encode(claims, key, algorithm="ES256", headers={"kid": "k"})


@pytest.fixture
def site(node):
    node.start_agent(extra="jwt: {ttl: 1s, key_ttl: 10s}\n")
    keys = node.conf / "keys.json"
    first = ec.generate_private_key(ec.SECP256R1())
    keys.write_text(key_set(first))
    with TcpServer(node.netns, http_one) as server:
        tls, plain = free_port(), free_port()
        extra = (
            f"jwt:\n  - {{trust_domain: {TD}, bundle: true, audiences: [orders]}}\n"
            f"  - {{issuer: 'https://idp', jwks_file: {keys}, audiences: [orders]}}\n"
        )
        proxy = node.server_side(tls, server.port, protocol="http", policy=POLICY, extra=extra)
        node.client_side(plain, tls)
        yield node, plain, proxy, keys, first


def ask(node, port, path, token=None):
    with node.inside():
        c = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
        c.connect()
    c.request("GET", path, headers={"Authorization": f"Bearer {token}"} if token else {})
    status = c.getresponse().status
    c.close()
    return status


def workload_token(node):
    argv = [node.postern, "svid", "fetch", "--jwt", "--audience", "orders", "--raw", "--socket", f"unix:{node.socket}"]
    p = node.lab.run_in(argv, netns=node.netns, uid=UIDS["client"])
    assert p.returncode == 0, p.stderr
    return p.stdout.strip()


def loaded(proxy, source):
    return proxy.events("token_keys_loaded", **{"from": source})


def test_keys_come_and_go(site):
    node, port, proxy, path, first = site
    wait_for("the proxy", lambda: proxy.status()["ready"])
    assert proxy.status()["token_keys"][0]["keys"], "it was ready before it knew the keys"

    # By the agent: its own tokens, and nobody else's for the same name.
    token = workload_token(node)
    forged = jwt.encode(
        {"sub": CLIENT, "aud": "orders", "exp": int(time.time()) + 600},
        first,
        algorithm="ES256",
        headers={"kid": jwt.get_unverified_header(token)["kid"]},
    )
    assert ask(node, port, "/w") == 403
    assert ask(node, port, "/w", forged) == 401
    assert ask(node, port, "/w", token) == 200

    # By the file: exchanged, it counts without a reload.
    second = ec.generate_private_key(ec.SECP256R1())
    assert ask(node, port, "/p", person(first)) == 200
    assert ask(node, port, "/p", person(second)) == 401
    new = path.with_suffix(".new")
    new.write_text(key_set(second))
    os.replace(new, path)
    wait_for("the file's new keys", lambda: loaded(proxy, str(path)))
    assert ask(node, port, "/p", person(first)) == 401
    assert ask(node, port, "/p", person(second)) == 200

    # One that is not sound changes nothing, and is told once.
    path.write_text(key_set(first)[:-20])
    wait_for("the refusal", lambda: proxy.events("token_keys_refused"))
    assert ask(node, port, "/p", person(second)) == 200
    refused = [e["refused"] for e in proxy.status()["token_keys"]]
    assert refused[0] is None
    assert str(path) in refused[1]
    path.write_text(key_set(first))
    wait_for("the file's keys again", lambda: len(loaded(proxy, str(path))) == 2)
    assert ask(node, port, "/p", person(first)) == 200
    assert ask(node, port, "/p", person(second)) == 401
    assert len(proxy.events("token_keys_refused")) == 1

    # The agent's next key is there before it signs.
    wait_for("the agent's next key", lambda: any(e["keys"] == 2 for e in loaded(proxy, "agent")))
    token = workload_token(node)
    assert ask(node, port, "/w", token) == 200
    node.agent.stop()
    assert ask(node, port, "/w", token) == 200
    assert proxy.process.alive()
