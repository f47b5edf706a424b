"""HTTP/2 and gRPC: real clients and servers through a client gateway and a server gateway."""

import json
import os
import pathlib
import re
import socket
import subprocess
import sys

import pytest
from lab import free_port, in_netns, wait_for
from plain_gateway import Gateways

LIB = pathlib.Path(__file__).parents[1] / "lib"
SIDES = (
    "credentials: [{name: web, cert: web.pem, key: web-key.pem}, {name: me, cert: client.pem, key: client-key.pem}]\n"
    "trust: [{name: ca, ca: ca.pem}]\n"
)
POLICY = (
    "kind: Policy\nlevel: 1\nrules:\n- name: t\n  action: ALLOW\n  from:\n  - principals: ['dns:client.example']\n"
    "  to:\n  - paths: ['/t.T/*', '/', '/rare']\n"
)


class Rig:
    """Client gateways at `plain` (whatever is agreed on) and `h2` (HTTP/2 by ALPN), before one server gateway; at `far` the
    same by way of a relay."""

    def __init__(self, lab, build):
        self.gw = Gateways(lab, build)
        self.lab = lab
        self.gw.pki.issue("web", cn="web", dns=["web.example"])
        self.cert, self.key = self.gw.pki.issue("client", cn="client", dns=["client.example"])
        (self.gw.conf / "policy.yaml").write_text(POLICY)
        self.target, self.tls, self.plain, self.h2, self.far, relay = (free_port() for _ in range(6))
        self.audit = lab.private_dir("audit") / "audit.jsonl"
        allow = "credentials: [web], trust: ca, allow: {dns: [client.example]}"
        self.server = self.gw.start(
            SIDES + f"policy: policy.yaml\naudit: {{to: file, path: {self.audit}}}\nlisteners:\n"
            f"- {{name: in, type: server, address: '127.0.0.1:{self.tls}', to: '127.0.0.1:{self.target}', protocol: http,\n"
            f"   {allow}, rate_limits: [{{paths: [/rare], rate: 1}}]}}\n"
        )
        self.gw.start(
            SIDES + "policy: policy.yaml\nlisteners:\n"
            f"- {{name: relay, type: relay, address: '127.0.0.1:{relay}', to: '127.0.0.1:{self.tls}', protocol: http,\n"
            f"   {allow}, upstream: {{credentials: [me], trust: ca, verify: {{dns: [web.example]}}}}}}\n"
        )
        me = "credentials: [me], trust: ca, verify: {dns: [web.example]}"
        common = f"type: client, to: '127.0.0.1:{self.tls}', {me}"
        self.gw.start(
            SIDES + "listeners:\n"
            f"- {{name: plain, address: '127.0.0.1:{self.plain}', {common}}}\n"
            f"- {{name: agreed, address: '127.0.0.1:{self.h2}', {common}, tls: {{alpn: [h2]}}}}\n"
            f"- {{name: far, type: client, address: '127.0.0.1:{self.far}', to: '127.0.0.1:{relay}', {me}}}\n"
        )

    def serve(self, *argv):
        argv = [sys.executable, *(argv or (LIB / "h2_server.py", "127.0.0.1", str(self.target)))]
        process = self.lab.start("h2-server", argv, netns=self.gw.netns)

        def there():
            assert process.alive(), process.err()[-2000:]
            with in_netns(self.gw.netns):
                try:
                    socket.create_connection(("127.0.0.1", self.target), timeout=5).close()
                except ConnectionRefusedError:
                    return False
            return True

        wait_for("the server", there)


@pytest.fixture
def rig(lab, build):
    return Rig(lab, build)


def test_grpc(rig):
    argv = [sys.executable, LIB / "grpc_calls.py", f"127.0.0.1:{rig.target}", f"127.0.0.1:{rig.plain}"]
    p = rig.gw.run(*argv, timeout=120)
    assert p.returncode == 0 and "all calls" in p.stdout, p.stdout + p.stderr
    assert '"grpc_status":7' in rig.server.process.err()


@pytest.mark.skipif("POSTERN_GRPC_CLIENTS" not in os.environ, reason="POSTERN_GRPC_CLIENTS=PROGRAM[,PROGRAM] from lib/grpc_clients")
def test_grpc_of_other_languages(rig):
    rig.serve(LIB / "grpc_calls.py", f"127.0.0.1:{rig.target}")
    for client in os.environ["POSTERN_GRPC_CLIENTS"].split(","):
        for port in (rig.plain, rig.h2, rig.far):
            p = rig.gw.run(*client.split(), f"127.0.0.1:{port}", timeout=120)
            assert p.returncode == 0 and "all calls" in p.stdout, p.stdout + p.stderr


def test_grpc_of_cpp(rig, tmp_path):
    """gRPC's own library, which half of the languages have below them, and a client of another build than Python's."""
    flags = subprocess.run(["pkg-config", "--cflags", "--libs", "grpc++"], capture_output=True, text=True, check=True).stdout.split()
    client = tmp_path / "calls"
    subprocess.run(["g++", "-std=c++17", "-O0", LIB / "grpc_clients" / "calls.cc", "-o", client, *flags], check=True, timeout=240)
    rig.serve(LIB / "grpc_calls.py", f"127.0.0.1:{rig.target}")
    for port in (rig.plain, rig.far):
        p = rig.gw.run(client, f"127.0.0.1:{port}", timeout=120)
        assert p.returncode == 0 and "all calls" in p.stdout, p.stdout + p.stderr


def test_curl(rig):
    rig.serve()
    get = ["-w", " %{http_version} %{http_code}"]
    for port in (rig.plain, rig.h2, rig.far):
        p = rig.gw.curl("--http2-prior-knowledge", *get, f"http://127.0.0.1:{port}/")
        assert p.stdout == "hello world hello world 2 200", p.stdout + p.stderr
        p = rig.gw.curl("--http2-prior-knowledge", "-i", *get, f"http://127.0.0.1:{port}/secret")
        assert p.stdout.endswith(" 2 403") and "x-postern-decision: " in p.stdout, p.stdout + p.stderr
    # One that can both gets HTTP/1.1, which asks least of the target.
    tls = ["--cert", rig.cert, "--key", rig.key, "--cacert", rig.gw.pki.pem]
    tls += ["--resolve", f"web.example:{rig.tls}:127.0.0.1", f"https://web.example:{rig.tls}/secret"]
    p = rig.gw.curl("--http2", *get, *tls)
    assert p.stdout.endswith(" 1.1 403"), p.stdout + p.stderr


def test_audit(rig):
    """What is answered to a stream stands in the audit log by the same id, and a request too many as the denial that it is,
    whatever brought it, with the rule that had allowed it."""
    rig.serve()
    show = ["-o", "/dev/null", "-w", "%{http_code} %header{x-postern-decision}"]

    def ask(path, form="--http2-prior-knowledge", port=rig.h2):
        return rig.gw.curl(form, *show, f"http://127.0.0.1:{port}{path}").stdout.split()

    def too_many(*how):
        limited = []
        wait_for("one too many", lambda: (answer := ask("/rare", *how))[0] == "429" and limited.append(answer[1]) is None)
        return limited[0]

    limited = {"http2": too_many(), "http1": too_many("--http1.1", rig.plain)}
    status, denied = ask("/secret")
    assert status == "403"

    def line(decision):
        lines = [json.loads(x) for x in rig.audit.read_text().splitlines()]
        return next((x for x in lines if x.get("decision") == decision), None)

    wait_for("the last decision", lambda: line(denied))
    at = line(denied)
    assert (at["event"], at["protocol"], at["path"]) == ("request", "http2", "/secret"), at
    assert (at["verdict"], at["reason"]) == ("deny", "no_rule") and at["peer_id"] == "dns:client.example", at
    for protocol, decision in limited.items():
        at = line(decision)
        assert (at["protocol"], at["verdict"], at["reason"], at["path"]) == (protocol, "deny", "rate_limited", "/rare"), at
        assert at["rule"] == "t" and "near_miss" not in at, at


@pytest.mark.skipif("POSTERN_H2SPEC" not in os.environ, reason="POSTERN_H2SPEC=PATH of h2spec")
def test_h2spec(rig):
    """All but 5.1.1/2, which nghttp2 answers with a reset: where h2 was agreed on, and where HTTP/1.1 may come too."""
    rig.serve()
    for port, allowed in ((rig.h2, {"5.1.1/2"}), (rig.plain, {"5.1.1/2"})):
        p = rig.gw.run(os.environ["POSTERN_H2SPEC"], "-h", "127.0.0.1", "-p", str(port), "-S", "-o", "3", timeout=300)
        section, failed = "", set()
        for line in p.stdout.partition("Failures:")[2].splitlines():
            if m := re.match(r"\s+([0-9.]+)\. ", line):
                section = m[1]
            elif m := re.match(r"\s+× (\d+):", line):
                failed.add(f"{section}/{m[1]}")
        assert re.search(r"146 tests, 14[56] passed", p.stdout), p.stdout[-2000:]
        assert failed <= allowed, p.stdout[-4000:]
