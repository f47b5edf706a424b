"""A file of Istio's policies where a Policy is named: a proxy and an agent decide by it, say its warnings, keep the old one
when a new one is wrong, and explain by its names and lines. docs/policy-convert.md, "Read in place of a Policy"."""

import json
import signal
import socket

from lab import free_port, log_events, run, wait_for
from node import TD, spiffe_id
from servers import TcpServer, echo, http_one
from test_commands import postern
from test_http import request

HEAD = "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: {{name: {name}, namespace: istio-system}}\n"
VIEWER = (
    HEAD.replace("{name}", "viewer")
    + "spec:\n  rules:\n    - from: [{{source: {{principals: [{td}/client]}}}}]\n      to: [{{operation: {{methods: [GET]}}}}]\n"
)
CLOSED = HEAD.replace("{name}", "closed") + 'spec: {{action: DENY, rules: [{{to: [{{operation: {{paths: ["/admin*"]}}}}]}}]}}\n'
CONTEXT = f"policy_context: {{trust_domain: {TD}}}\n"


def reload(proxy, text):
    before = len(proxy.events("reloaded")) + len(proxy.events("reload_failed"))
    proxy.policy_path.write_text(text.format(td=TD))
    proxy.process.p.send_signal(signal.SIGHUP)
    wait_for("the reload", lambda: len(proxy.events("reloaded")) + len(proxy.events("reload_failed")) > before)


def events(node, event):
    return log_events(node.agent.err(), event)


def test_proxy(node, build):
    node.start_agent()
    with TcpServer(node.netns, http_one) as server:
        tls, plain = free_port(), free_port()
        policy = VIEWER + "---\n" + CLOSED
        proxy = node.server_side(tls, server.port, protocol="http", policy=policy, extra=CONTEXT)
        node.client_side(plain, tls)

        def ask(method="GET", path="/a"):
            r, _ = request(node, plain, method, path)
            return r.status, r.getheader("x-postern-decision")

        def explain(decision):
            p = postern(build, "policy", "explain", "--proxy", proxy.admin, decision)
            assert p.returncode == 0, p.stderr
            return p.stdout

        assert ask()[0] == 200
        allowed = proxy.wait_event("request", verdict="allow")
        assert allowed["rule"] == "istio-system/viewer", allowed
        status, denied = ask(path="/admin/x")
        assert status == 403
        line = proxy.wait_event("request", decision=denied)
        assert line["rule"] == "istio-system/closed"
        assert 'by rule "istio-system/closed" (line 12)' in explain(denied)
        status, denied = ask("POST")
        said = explain(denied)
        assert status == 403 and '"istio-system/viewer" (line 6)' in said and "not what the proxy has" not in said, said
        assert proxy.status()["policy"]["warnings"] == [] and not proxy.events("policy_warning")

        # What is wrong changes nothing, and says what to do.
        reload(proxy, VIEWER.replace("spec:\n", "spec:\n  selector: {{matchLabels: {{app: web}}}}\n"))
        error = proxy.events("reload_failed")[-1]
        assert error["where"] == f"{proxy.policy_path}:5:13" and "policy_context.labels" in error["advice"], error
        reload(proxy, VIEWER.replace("rules:", "action: CUSTOM\n  rules:"))
        assert "without a counterpart" in proxy.events("reload_failed")[-1]["error"]
        assert ask()[0] == 200 and ask("POST")[0] == 403
        assert proxy.status()["policy"]["generation"] == 1

        # What Istio allows unsaid is a rule, and a warning at each load.
        reload(proxy, CLOSED)
        assert ask("POST")[0] == 200 and ask(path="/admin")[0] == 403
        assert proxy.wait_event("request", verdict="allow", method="POST")["rule"] == "implied-allow"
        warning = proxy.status()["policy"]["warnings"]
        assert len(warning) == 1 and "implied-allow" in warning[0] and len(proxy.events("policy_warning")) == 1


def test_agent(node):
    """The file that the agent tells is theirs, and so is one that is pushed; each proxy has it, with its lines."""
    (node.conf / "policy.yaml").write_text((HEAD.replace("{name}", "nobody") + "spec: {{}}\n").format())
    node.start_agent(extra="state:\n  policy: policy.yaml\n")
    with TcpServer(node.netns, echo) as target:
        tls, plain = free_port(), free_port()
        proxy = node.server_side(tls, target.port, policy=None, extra="state:\n  from: agent\n")
        node.client_side(plain, tls)
        wait_for("its state", lambda: proxy.status()["state"]["connected"])

        def works():
            try:
                with node.inside():
                    s = socket.create_connection(("127.0.0.1", plain), timeout=20)
                with s:
                    s.sendall(b"a")
                    return s.recv(10) == b"a"
            except (ConnectionResetError, BrokenPipeError):
                return False

        def push(text):
            path = node.conf / "pushed.yaml"
            path.write_text(text.format(td=TD))
            args = ("push", path, "--wait", "30", "--config", node.conf / "agent.yaml")
            return run(node.postern, "agent", "policy", *args, check=False)

        assert not works()
        callers = VIEWER.replace("\n      to: [{{operation: {{methods: [GET]}}}}]", "")
        p = push(callers)
        assert p.returncode == 0, p.stderr
        assert works()
        rule = proxy.wait_event("connection", verdict="allow")
        assert rule["rule"] == "istio-system/viewer", rule
        p = push(callers.replace("spec:\n", "spec:\n  selector: {{matchLabels: {{app: web}}}}\n"))
        assert p.returncode == 1 and f"{node.conf}/pushed.yaml:5:13: " in p.stderr and "manifests" in p.stderr, p.stderr
        assert works()
        # A condition that the agent cannot see from here is a warning in its log.
        p = push(CLOSED)
        assert p.returncode == 0, p.stderr
        wait_for("warnings", lambda: len(events(node, "policy_warning")) == 2)
        assert any("policy_context.tcp_ports" in e["advice"] for e in events(node, "policy_warning"))
        assert works()
        status = json.loads(run(node.postern, "agent", "policy", "status", "--json", "--config", node.conf / "agent.yaml").stdout)
        assert status["in_force"] == 2 and spiffe_id("server") in {p["identity"] for p in status["told"]["proxies"]}
