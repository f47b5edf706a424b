"""postern svid --jwt, show, validate, and postern bundle: a person's client, against our own agent."""

import json
import re
import signal
import subprocess

import jwt
import pytest
from lab import wait_for
from node import TD, UIDS, spiffe_id

CLIENT = spiffe_id("client")


def postern(node, *argv, uid=UIDS["client"], stdin=None):
    argv = [node.postern, *argv]
    if stdin is None:
        return node.lab.run_in(argv, netns=node.netns, uid=uid)
    return subprocess.run(
        [str(a) for a in node.lab.argv_in(argv, netns=node.netns, uid=uid)],
        input=stdin,
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )


def at(node):
    return "--socket", f"unix:{node.socket}"


def token(node, **kw):
    p = postern(node, "svid", "fetch", "--jwt", "--audience", "orders", "--raw", *at(node), **kw)
    assert p.returncode == 0, p.stderr
    return p.stdout.strip()


def keys(node):
    p = postern(node, "bundle", "show", "--jwt", "--json", *at(node))
    assert p.returncode == 0, p.stderr
    return json.loads(p.stdout)["trust_domains"][TD]


# --- refusals --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "argv",
    [
        ["svid", "fetch", "--jwt"],
        ["svid", "fetch", "--audience", "a"],
        ["svid", "fetch", "--raw"],
        ["svid", "fetch", "--jwt", *["--audience", "a"] * 17],
        ["svid", "show"],
        ["svid", "show", "a", "b"],
        ["svid", "validate"],
        ["svid", "validate", "a.b.c"],
        ["svid", "validate", "a.b.c", "--audience"],
        ["svid", "validate", "a.b.c", "--audience", "a", "--trust-domain", "b"],
        ["bundle"],
        ["bundle", "list"],
        ["bundle", "show", "--jtw"],
    ],
)
def test_wrong_use(node, argv):
    p = postern(node, *argv)
    assert p.returncode == 2 and "usage: postern" in p.stderr, p.stderr


def test_no_agent(node):
    for argv in (["svid", "fetch", "--jwt", "--audience", "a"], ["svid", "validate", "a", "--audience", "a"], ["bundle", "show"]):
        p = postern(node, *argv, *at(node))
        assert p.returncode == 1 and str(node.socket) in p.stderr, p.stderr


def test_nobody(node):
    node.start_agent()
    for argv in (["svid", "fetch", "--jwt", "--audience", "a"], ["bundle", "show", "--jwt"], ["bundle", "show"]):
        p = postern(node, *argv, *at(node), uid=48999)
        assert p.returncode == 1 and "PermissionDenied" in p.stderr and not p.stdout, p.stderr


# --- tokens ----------------------------------------------------------------------------------------


def test_fetch_and_validate(node):
    node.start_agent()
    p = postern(node, "svid", "fetch", "--jwt", "--audience", "orders", "--audience", "b", *at(node))
    assert p.returncode == 0, p.stderr
    assert re.search(rf"^identity +{CLIENT}$", p.stdout, re.M) and re.search(r"^audience +b$", p.stdout, re.M)
    t = token(node)
    assert jwt.decode(t, options={"verify_signature": False})["sub"] == CLIENT
    good = postern(node, "svid", "validate", t, "--audience", "orders", *at(node))
    assert good.returncode == 0 and "good" in good.stdout and CLIENT in good.stdout, good.stderr
    good = postern(node, "svid", "validate", "-", "--audience", "orders", *at(node), stdin=t + "\n")
    assert good.returncode == 0, good.stderr
    bad = postern(node, "svid", "validate", t, "--audience", "other", *at(node))
    assert bad.returncode == 1 and "another audience" in bad.stderr and "good" not in bad.stdout
    bad = postern(node, "svid", "validate", t[:-3] + "AAA", "--audience", "orders", *at(node))
    assert bad.returncode == 1 and not bad.stdout


def test_offline(node):
    node.start_agent()
    t = token(node)
    path = node.lab.dir / "keys.json"
    path.write_text(json.dumps(keys(node)))
    offline = ["--audience", "orders", "--bundle", path]
    assert postern(node, "svid", "validate", t, *offline, "--trust-domain", TD, uid=0).returncode == 0
    p = postern(node, "svid", "validate", t, *offline, uid=0)
    assert p.returncode == 0 and "the token's own trust domain" in p.stdout, p.stderr
    p = postern(node, "svid", "validate", t, *offline, "--trust-domain", "other.org", uid=0)
    assert p.returncode == 1 and "no bundle" in p.stderr and not p.stdout
    path.write_text('{"keys":[]}')
    assert postern(node, "svid", "validate", t, *offline, uid=0).returncode == 1
    path.write_text("{")
    p = postern(node, "svid", "validate", t, *offline, uid=0)
    assert p.returncode == 1 and "keys.json" in p.stderr


def test_watch_renews(node):
    node.start_agent(extra="jwt: {ttl: 2s}\n")
    p = node.lab.start(
        "watch",
        [node.postern, "svid", "watch", "--jwt", "--audience", "a", "--raw", *at(node)],
        netns=node.netns,
        uid=UIDS["client"],
    )
    wait_for("a second token", lambda: len(set(p.out().split())) >= 2)
    assert p.stop(signal.SIGINT) == 0


def test_watch_ends_as_the_token_comes(node):
    """A signal that arrives between the answer and the wait for the next one counts as well."""
    node.start_agent(extra="jwt: {ttl: 2s}\n")
    argv = [node.postern, "svid", "watch", "--jwt", "--audience", "a", "--raw", *at(node)]
    for _ in range(5):
        with subprocess.Popen(
            node.lab.argv_in([str(a) for a in argv], netns=node.netns, uid=UIDS["client"]), stdout=subprocess.PIPE
        ) as p:
            try:
                p.stdout.readline()
                p.send_signal(signal.SIGINT)
                assert p.wait(20) == 0
            finally:
                p.kill()


# --- what a file says ------------------------------------------------------------------------------


def test_show(node):
    node.start_agent()
    out = node.lab.private_dir("out", UIDS["client"])
    for argv in ([], ["--jwt", "--audience", "orders"]):
        p = postern(node, "svid", "fetch", *argv, "--write", out / "w", *at(node))
        assert p.returncode == 0, p.stderr

    def show(name):
        p = postern(node, "svid", "show", out / "w" / name)
        assert p.returncode == 0 and "PRIVATE KEY-" not in p.stdout, p.stderr
        return p.stdout

    said = show("svid.pem")
    assert re.search(rf"^identity +{CLIENT}$", said, re.M) and said.count("kind ") == 2
    assert re.search(r"^kind +PRIVATE KEY$", show("svid_key.pem"), re.M)
    assert re.search(r"^kind +authority$", show("bundle.pem"), re.M)
    said = show("jwt_svid.token")
    assert CLIENT in said and "not checked" in said
    p = postern(node, "svid", "show", "/etc/passwd")
    assert p.returncode == 1 and "/etc/passwd" in p.stderr
    assert postern(node, "svid", "show", "/nonexistent").returncode == 1


def test_bundle(node):
    node.start_agent()
    p = postern(node, "bundle", "show", *at(node))
    assert p.returncode == 0 and re.search(rf"^trust domain +{TD}$", p.stdout, re.M), p.stderr
    assert re.search(r"^kind +authority$", p.stdout, re.M)
    p = postern(node, "bundle", "show", "--json", *at(node))
    (key,) = json.loads(p.stdout)["trust_domains"][TD]["keys"]
    assert key["use"] == "x509-svid" and "kid" not in key and len(key["x5c"]) == 1
    assert {"kty", "crv", "x", "y"} <= set(key)
    (key,) = keys(node)["keys"]
    assert key["kid"] == jwt.get_unverified_header(token(node))["kid"]
