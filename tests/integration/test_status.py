"""What running processes tell: status for people, OpenMetrics, readiness; and that it is true."""

import ctypes
import http.client
import json
import os
import pathlib
import re
import socket
import subprocess

import pytest
from lab import admin_ask, free_port, run, wait_for
from node import UIDS, spiffe_id
from prometheus_client.openmetrics import parser
from servers import TcpServer, echo


def get(node, port, path):
    with node.inside():
        c = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
        c.connect()
    c.request("GET", path)
    r = c.getresponse()
    return r.status, r.getheader("content-type"), r.read().decode()


def status_text(node, admin):
    """As in a pipe: no terminal anywhere."""
    p = subprocess.run(
        [node.postern, "status", "--socket", admin], stdin=subprocess.DEVNULL, capture_output=True, text=True,
        timeout=30, check=False, start_new_session=True,
    )
    assert p.returncode == 0, p.stderr
    assert "\x1b" not in p.stdout
    return p.stdout


def kernel(pid):
    fields = {}
    for line in pathlib.Path(f"/proc/{pid}/status").read_text().splitlines():
        key, _, value = line.partition(":")
        fields[key] = value.split()
    return fields


def landlock_abi():
    """Of this kernel; 0: it has none."""
    landlock_create_ruleset, version = 444, 1
    return max(ctypes.CDLL(None).syscall(landlock_create_ruleset, None, 0, version), 0)


@pytest.fixture
def mesh(node):
    """The node, its client side and server side, the plain port, the server side's metrics port."""
    node.start_agent()
    metrics = free_port()
    with TcpServer(node.netns, echo) as server:
        tls, plain = free_port(), free_port()
        inbound = node.server_side(tls, server.port, extra=f"metrics:\n  address: 127.0.0.1:{metrics}\n")
        outbound = node.client_side(plain, tls)
        yield node, outbound, inbound, plain, metrics


def test_status_of_a_proxy(mesh):
    node, outbound, inbound, plain, _ = mesh
    with node.inside():
        live = socket.create_connection(("127.0.0.1", plain), timeout=10)
    live.sendall(b"x")
    assert live.recv(1) == b"x"
    text = status_text(node, inbound.admin)
    s = inbound.status()
    for want in (spiffe_id("server"), s["identity"]["serial"], s["identity"]["not_after"]):
        assert want in text, text
    assert re.search(rf"^  agent +{node.socket}$", text, re.M), text
    assert re.search(r"^policy *\n(?:  .*\n)*?  generation +1$", text, re.M), text
    assert re.search(r"^  open +1$", text, re.M), text
    assert s["connections"]["inbound"]["pump"] == 1 and s["policy"]["rules"] == 1
    live.close()
    k, h = kernel(inbound.process.pid), s["hardening"]
    assert (h["uid"], h["no_new_privs"], h["dumpable"], h["seccomp"]) == (UIDS["server"], True, False, "proxy")
    assert int(h["capabilities"], 16) == int(k["CapEff"][0], 16) == int(k["CapPrm"][0], 16) == 0
    assert k["NoNewPrivs"] == ["1"] and k["Seccomp"] == ["2"] and k["Uid"] == [str(UIDS["server"])] * 4
    for task in pathlib.Path(f"/proc/{inbound.process.pid}/task").iterdir():
        assert re.search(r"^Seccomp:\t2$", (task / "status").read_text(), re.M), "a thread without the filter"
    assert h["landlock_abi"] == landlock_abi() or inbound.node.build.name == "build-asan", h


def test_status_of_an_agent(mesh):
    node, *_ = mesh
    text = status_text(node, node.run / "agent-admin.sock")
    for want in ("test.example", "keeper", "attestor", "service", "no_new_privs", "seccomp", "serial"):
        assert want in text, text
    serials = json.loads(admin_ask(node.run / "agent-admin.sock", "status"))["authority"]["root_serials"]
    assert serials and serials == [s.lower() for s in serials]
    assert all(re.search(rf"^ +- {serial}$", text, re.M) for serial in serials), text
    children = pathlib.Path(f"/proc/{node.agent.pid}/task/{node.agent.pid}/children").read_text().split()
    assert len(children) == 3
    for pid in children:
        k = kernel(pid)
        assert k["NoNewPrivs"] == ["1"] and k["Seccomp"] == ["2"], pid
        assert re.search(rf"^ +pid +{pid}$", text, re.M), (pid, text)


def families(text):
    assert text.endswith("# EOF\n")
    return {f.name: f for f in parser.text_string_to_metric_families(text)}


def test_metrics_are_openmetrics(mesh):
    node, outbound, inbound, plain, metrics = mesh
    with node.inside(), socket.create_connection(("127.0.0.1", plain), timeout=10) as s:
        s.sendall(b"four")
        assert s.recv(4) == b"four"
    inbound.wait_event("connection")
    status, kind, text = get(node, metrics, "/metrics")
    assert status == 200 and kind.startswith("application/openmetrics-text; version=1.0.0"), kind
    got = families(text)

    def value(name, **labels):
        return sum(
            s.value for f in got.values() for s in f.samples
            if s.name == name and all(s.labels.get(k) == v for k, v in labels.items())
        )

    assert value("postern_connections_accepted_total", direction="inbound") == 1
    assert value("postern_connections_closed_total", direction="inbound", reason="done") == 1
    assert value("postern_bytes_up_total", direction="inbound") == 4
    assert value("postern_ready") == 1 and value("postern_policy_rules") == 1
    assert all(f.documentation for f in got.values())
    assert families(outbound.metrics()) and families(admin_ask(node.run / "agent-admin.sock", "metrics"))


def test_only_metrics_and_readiness_over_tcp(mesh):
    node, *_, metrics = mesh
    assert get(node, metrics, "/ready")[0] == 200
    for path in ("/status", "/", "/metrics/../status"):
        assert get(node, metrics, path)[0] in (400, 404), path


def test_not_ready_before_the_identity(node):
    node.write_entries()
    node.write_agent()
    tls, metrics = free_port(), free_port()
    proxy = node.server_side(tls, free_port(), wait=False, extra=f"metrics:\n  address: 127.0.0.1:{metrics}\n")
    wait_for("the admin socket", lambda: proxy.admin.exists())
    assert get(node, metrics, "/ready")[0] == 503
    node.start_agent()
    proxy.wait_identity()
    wait_for("ready", lambda: get(node, metrics, "/ready")[0] == 200)


def test_keepalive_on_both_legs(mesh):
    """A peer that vanished without a word is noticed: every socket of a proxied connection probes."""
    node, outbound, inbound, plain, _ = mesh
    with node.inside(), socket.create_connection(("127.0.0.1", plain), timeout=10) as s:
        s.sendall(b"x")
        assert s.recv(1) == b"x"
        for proxy in (outbound, inbound):

            def legs(pid=proxy.process.pid):
                out = run("nsenter", f"--net=/run/netns/{node.netns}", "ss", "-tnop", "state", "established").stdout
                return [line for line in out.splitlines() if f"pid={pid}," in line]

            wait_for("two legs that probe", lambda: [("keepalive" in leg) for leg in legs()] == [True, True])


@pytest.mark.parametrize("key,source", [("agent", "agent"), ("csr", "csr"), ("auto", "csr")])
def test_who_makes_the_key(node, key, source):
    node.start_agent()
    with TcpServer(node.netns, echo) as server:
        tls, plain = free_port(), free_port()
        proxies = [node.server_side(tls, server.port, key=key), node.client_side(plain, tls, key=key)]
        with node.inside(), socket.create_connection(("127.0.0.1", plain), timeout=10) as s:
            s.sendall(b"x")
            assert s.recv(1) == b"x"
        assert [p.status()["identity"]["key"] for p in proxies] == [source] * 2
        assert not proxies[0].events("identity"), "nothing was fallen back from"


@pytest.fixture
def one_cpu(lab):
    """The file by which a process joins a cgroup that may use one CPU; version 1 or 2."""
    top = pathlib.Path("/sys/fs/cgroup")
    v1 = (top / "cpu" / "cpu.cfs_quota_us").exists() or (top / "cpu" / "cgroup.procs").exists()
    group = (top / "cpu" if v1 else top) / f"postern-{lab.prefix}"
    try:
        group.mkdir()
        if v1:
            (group / "cpu.cfs_quota_us").write_text("100000")
        else:
            (group / "cpu.max").write_text("100000 100000")
    except OSError as e:
        if group.exists():
            group.rmdir()
        pytest.skip(f"no cgroup with a CPU quota can be made here: {e}")
    yield group / "cgroup.procs"
    for p in lab.processes:
        p.stop()

    def removed():
        try:
            group.rmdir()
        except OSError:
            return False
        return True

    wait_for("the cgroup to be empty", removed)


@pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="one CPU is all there is")
def test_workers_by_the_cgroups_quota(node, one_cpu):
    node.start_agent()
    proxy = node.server_side(free_port(), free_port())
    assert proxy.status()["workers"] == 2, "a sidecar takes two at most, and there are two CPUs"
    argv = proxy.process.argv
    proxy.process.stop()
    proxy.process = node.lab.start("quota", ["sh", "-c", 'echo $$ >"$0" && exec "$@"', one_cpu, *argv])
    proxy.wait_event("ready")
    assert proxy.status()["workers"] == 1
