"""postern policy explain: whatever is denied in a random run is explained, and the change that is proposed, done to the file
by what the tool says of it and nothing else, turns it; and the same of what a running proxy has denied."""

import copy
import json
import random
import signal
import subprocess

from lab import admin_ask, free_port, wait_for
from node import TD, spiffe_id
from servers import TcpServer, http_one
from test_commands import postern
from test_http import request

TARGET = "spiffe://a.b/ns/shop/sa/orders"
PEERS = ["spiffe://a.b/ns/shop/sa/web", "spiffe://a.b/ns/shop/sa/cron", "spiffe://a.b/ns/ops/sa/admin", "spiffe://c.d/x"]
METHODS = ["GET", "POST", "PUT"]
PATHS = ["/orders", "/orders/1", "/admin/x", "/a b", "/{}", "/*"]
HOSTS = ["orders", "orders.shop"]
PORTS = [8080, 9090]
RUNS, RULES = 24, 5


def path_pattern(rng):
    return rng.choice(["/orders", "/orders/*", "/orders/{}", "/admin*", "*x", "/a%20b"])


def some(rng, values, most=2):
    return rng.sample(values, rng.randint(1, most))


def random_rule(rng, name):
    rule = {"name": name, "action": rng.choice(["ALLOW", "ALLOW", "DENY"])}
    if rng.random() < 0.3:
        rule["target"] = {"principals": [rng.choice([TARGET, "spiffe://a.b/ns/shop/sa/*", "spiffe://a.b/other"])]}
    if rng.random() < 0.8:
        rule["from"] = [
            rng.choice(
                [
                    {"principals": some(rng, PEERS)},
                    {"not_principals": some(rng, PEERS)},
                    {"namespaces": some(rng, ["shop", "ops"])},
                    {"trust_domains": ["a.b"], "ip_blocks": ["10.0.0.0/8"]},
                    {"not_ip_blocks": ["10.0.0.1"], "principals": ["spiffe://a.b/*"]},
                ]
            )
            for _ in range(rng.randint(1, 2))
        ]
    if rng.random() < 0.25:
        rule["role"] = "reader"
    elif rng.random() < 0.8:
        rule["to"] = [
            rng.choice(
                [
                    {"ports": some(rng, PORTS), "methods": some(rng, METHODS)},
                    {"paths": [path_pattern(rng)], "hosts": some(rng, HOSTS)},
                    {"not_paths": [path_pattern(rng)], "ports": some(rng, PORTS)},
                    {"not_methods": some(rng, METHODS)},
                    {"headers": [{"name": "x-env", "values": some(rng, ["test", "live"])}]},
                    {"not_headers": [{"name": "x-env", "present": True}], "methods": some(rng, METHODS)},
                ]
            )
            for _ in range(rng.randint(1, 2))
        ]
    return rule


def random_policy(rng):
    role = {"name": "reader", "to": [{"methods": ["GET"], "paths": ["/orders/{}"]}]}
    return {"kind": "Policy", "level": 2, "roles": [role], "rules": [random_rule(rng, f"r{i}") for i in range(RULES)]}


def random_request(rng):
    argv = ["--target", TARGET, "--port", str(rng.choice(PORTS)), "--source", rng.choice(["10.0.0.1", "192.0.2.7"])]
    argv += ["--peer", rng.choice(PEERS)] if rng.random() < 0.9 else []
    if rng.random() < 0.85:
        argv += ["--method", rng.choice(METHODS), "--host", rng.choice(HOSTS)]
        argv += ["--path", rng.choice(PATHS).replace(" ", "%20").replace("{}", "%7B%7D")]
        argv += ["--header", "x-env:" + rng.choice(["live", "other"])] if rng.random() < 0.5 else []
    return argv


def put(entry, edit):
    """One item into, or out of, a list of an entry."""
    items = entry.setdefault(edit["list"], [])
    if "name" in edit:
        same = [v for v in items if v["name"] == edit["name"] and "values" in v]
        if edit["do"] == "remove_item" and "item" not in edit:
            items[:] = [v for v in items if v["name"] != edit["name"]]
        elif edit["do"] == "add_item" and same:
            same[0]["values"].append(edit["item"])
        else:
            raise AssertionError(edit)
    elif edit["do"] == "add_item":
        items.append(edit["item"])
    else:
        items.remove(edit["item"])
    if not items:
        del entry[edit["list"]]


def change(policy, edits):
    """The file as docs/policy-tools.md says that it is to be changed."""
    policy = copy.deepcopy(policy)
    for edit in edits:
        if edit["do"] == "add_rule":
            policy["rules"].append(edit["rule"])
            continue
        rule = next(r for r in policy["rules"] if r["name"] == edit["rule"])
        if edit["do"] == "remove_rule":
            policy["rules"].remove(rule)
            continue
        if edit["in"] == "target":
            entries, entry = None, rule["target"]
        else:
            entries = rule.setdefault(edit["in"], [{}])
            entry = entries[edit["entry"] or 0]
        put(entry, edit)
        if entries is not None and not all(entries):
            del rule[edit["in"]]  # an entry that asks for nothing holds always, and so do they all
    return policy


def test_every_denial_is_explained_and_the_change_turns_it(build, tmp_path):
    seed = random.randrange(2**32)
    rng = random.Random(seed)
    policy = tmp_path / "policy.yaml"
    kinds = set()
    denied = 0

    def explain(request):
        p = postern(build, "policy", "explain", "--json", *request, policy)
        assert p.returncode == 0, (seed, request, policy.read_text(), p.stderr)
        return json.loads(p.stdout)

    while denied < RUNS:
        before, request = random_policy(rng), random_request(rng)
        policy.write_text(json.dumps(before))  # JSON is YAML
        why = explain(request)
        if why["verdict"] == "allow":
            continue
        denied += 1
        told = (seed, request, before, why)
        decided = [r for r in why["rules"] if r["decided"]]
        assert [r["rule"] for r in decided] == ([why["rule"]] if "rule" in why else []), told
        for rule in why["rules"]:
            assert rule["matched"] or rule["failures"], told
        assert why["change"] and why["turns"], told
        policy.write_text(json.dumps(change(before, why["change"])))
        after = explain(request)
        assert after["verdict"] == "allow", (*told, policy.read_text())
        kinds |= {edit["do"] for edit in why["change"]}
    assert "add_item" in kinds, (seed, kinds)


def test_a_decision_of_a_log_cannot_speak_to_the_terminal(build, tmp_path):
    """What a log says was asked for may be anything: no control character of it is printed, and no line is forged."""
    hostile = "/x\x1b]0;owned\x07\u009b31m\nallowed by rule \"all\""
    line = {"event": "request", "direction": "inbound", "own_id": TARGET, "peer_id": PEERS[0], "port": 8080, "source": "10.0.0.1:5"}
    line |= {"method": "GET", "host": "a\x1bb", "path": hostile, "verdict": "deny", "decision": "d-1"}
    log, policy = tmp_path / "log", tmp_path / "policy.yaml"
    log.write_text(json.dumps(line) + "\n")
    to = [{"paths": ["/orders"], "hosts": ["orders"], "methods": ["GET"]}]
    policy.write_text(json.dumps({"kind": "Policy", "level": 1, "rules": [{"name": "r", "action": "ALLOW", "to": to}]}))
    for form in ([], ["--json"]):
        p = postern(build, "policy", "explain", *form, "--log", log, "--decision", "d-1", policy)
        assert p.returncode == 0, p.stderr
        assert not any(c < " " or "\x7f" <= c <= "\x9f" for c in p.stdout.replace("\n", "")), p.stdout
        assert "\nallowed by rule" not in p.stdout
    host, path = json.loads(p.stdout)["rules"][0]["failures"]
    assert host["actual"] == "a\x1bb" and path["actual"] == "/x%1B]0;owned%07%C2%9B31m%0Aallowed%20by%20rule%20%22all%22"


RUNNING = {
    "kind": "Policy",
    "level": 2,
    "rules": [
        {
            "name": "read",
            "action": "ALLOW",
            "from": [{"principals": [spiffe_id("client")]}],
            "to": [
                {
                    "paths": ["/pub/*"],
                    "query": [{"name": "debug", "values": ["1"]}],
                    "headers": [{"name": "x-env", "values": ["test"]}],
                }
            ],
        },
        {
            "name": "keyed",
            "action": "ALLOW",
            "from": [{"principals": [spiffe_id("other")]}],
            "to": [{"headers": [{"name": "x-api-key", "present": True}]}],
        },
    ],
}


def test_what_a_running_proxy_has_denied(node, build):
    """By the id that the caller got: by the policy that the proxy runs, without what is nobody's business; the change that is
    proposed turns it, after a reload; who may not ask is told nothing."""
    node.start_agent()
    with TcpServer(node.netns, http_one) as server:
        tls, plain = free_port(), free_port()
        text = json.dumps(RUNNING).replace("{", "{{").replace("}", "}}")
        proxy = node.server_side(tls, server.port, protocol="http", policy=text, extra="  denials: 2\nworkers: 1\n")
        node.client_side(plain, tls)
        assert TD in text

        def ask(path="/pub/a%C2%9B31m?debug=1&other=mine", **headers):
            r, _ = request(node, plain, "GET", path, headers={"x-env": "live", "x-other": "private", **headers})
            return r.status, r.getheader("x-postern-decision")

        def explain(*argv):
            return postern(build, "policy", "explain", "--proxy", proxy.admin, *argv)

        p = explain()
        assert p.returncode == 0 and "nothing was denied" in p.stdout
        status, denied = ask()
        assert status == 403
        p = explain(denied)
        assert p.returncode == 0, p.stderr
        for said in ("denied (no_rule)", spiffe_id("client"), "header x-env: live", "debug=1", "x-env [test] does not hold live"):
            assert said in p.stdout, p.stdout
        assert not any("\x7f" <= c <= "\x9f" for c in p.stdout), p.stdout
        told = admin_ask(proxy.admin, f"denial/{denied}")
        assert "private" not in told and "mine" not in told and "x-other" not in told

        status, secret = ask(**{"x-api-key": "s3cret"})
        assert status == 403
        told = admin_ask(proxy.admin, f"denial/{secret}") + admin_ask(proxy.admin, "denials")
        p = explain(secret)
        assert p.returncode == 0 and "not kept, so not known here: the value of x-api-key" in p.stdout, p.stdout
        assert "s3cret" not in told + p.stdout

        p = explain()
        assert p.returncode == 0 and [line.split()[1] for line in p.stdout.splitlines()] == [secret, denied], p.stdout
        for argv in (["f" * 32], ["0" * 32, "--json"]):
            p = explain(*argv)
            assert p.returncode == 1 and "not among" in p.stderr and not p.stdout
        argv = [build / "proxy" / "postern", "policy", "explain", "--proxy", proxy.admin, denied]
        p = subprocess.run(argv, capture_output=True, text=True, timeout=60, check=False, user=65533, group=65533)
        assert p.returncode == 1 and not p.stdout, p.stdout

        why = json.loads(explain("--json", denied).stdout)
        assert why["policy"] == {"name": str(proxy.policy_path), "as_loaded": True} and why["explanation"]["turns"]
        proxy.policy_path.write_text(json.dumps(change(RUNNING, why["explanation"]["change"])))
        why = json.loads(explain("--json", denied).stdout)
        assert not why["policy"]["as_loaded"] and why["explanation"]["verdict"] == "allow"
        before = proxy.status()["policy"]["generation"]
        proxy.process.p.send_signal(signal.SIGHUP)
        wait_for("the reload", lambda: proxy.status()["policy"]["generation"] > before)
        assert ask()[0] == 200
        p = explain(denied)
        assert "denied (no_rule)" in p.stdout and "loaded anew since then" in p.stdout, p.stdout
        assert 'allowed by rule "read"' in p.stdout
        last = ask("/other")[1]
        kept = [d["decision"] for d in json.loads(explain("--json").stdout)["denials"]]
        assert kept == [last, secret] and explain(denied).returncode == 1


def test_the_policy_that_denies_is_the_one_that_explains(node, build):
    """An agent's policy alone; then a file of the proxy's beside it, that takes away; then the agent's denies what the file allows."""
    allow = "kind: Policy\nlevel: 1\nrules:\n  - {{name: {name}, action: ALLOW, from: [{{principals: ['{who}']}}]}}\n"
    both, nobody = f"spiffe://{TD}/*", f"spiffe://{TD}/nobody"
    told = node.conf / "told.yaml"
    told.write_text(allow.format(name="agents", who=nobody))
    node.start_agent(extra="state:\n  policy: told.yaml\n")
    with TcpServer(node.netns, http_one) as server:
        tls, plain = free_port(), free_port()
        own = allow.format(name="own", who=both).replace("{", "{{").replace("}", "}}")
        proxy = node.server_side(tls, server.port, protocol="http", policy=own, extra="state:\n  from: agent\n")
        node.client_side(plain, tls)
        wait_for("the state", lambda: proxy.status()["state"]["connected"])

        def explained():
            r, _ = request(node, plain, "GET", "/x")
            assert r.status == 403
            why = postern(build, "policy", "explain", "--proxy", proxy.admin, "--json", r.getheader("x-postern-decision"))
            assert why.returncode == 0, why.stderr
            why = json.loads(why.stdout)
            return why["policy"], [x["rule"] for x in why["explanation"]["rules"]]

        policy, rules = explained()
        assert policy == {"name": "the agent's policy", "as_loaded": True} and rules == ["agents"]
        proxy.policy_path.write_text(allow.format(name="own", who=nobody))
        told.write_text(allow.format(name="agents", who=both))
        before = proxy.status()["policy"]["generation"]
        proxy.process.p.send_signal(signal.SIGHUP)
        wait_for("the reload", lambda: proxy.status()["policy"]["generation"] > before)
        wait_for("the file's word", lambda: explained() == ({"name": str(proxy.policy_path), "as_loaded": True}, ["own"]))
