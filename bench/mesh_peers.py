"""Mesh proxies as pairs for bench/compare: Istio's ztunnel over HBONE. They take no plain listener and no files of
certificates, but redirected connections and a control plane, which is played here."""

import os
import pathlib
import re
import subprocess

from peers import HERE, Failed, Pair, Process, run, wait_for

TESTS_PYTHON = HERE.parent / "build-venv" / "bin" / "python"
CA_PORT = 15900


class Elsewhere:
    """A network namespace joined to ours by a veth, as a pod is to its node; it ends with its holder."""

    ours, theirs = "10.7.0.1", "10.7.0.2"

    def __init__(self, d):
        self.holder = Process(d, "holder", ["unshare", "--net", "sleep", "infinity"])
        pid = self.holder.p.pid
        here = os.readlink("/proc/self/ns/net")
        wait_for("a network namespace", lambda: os.readlink(f"/proc/{pid}/ns/net") != here, self.holder.p)
        self.enter = ["nsenter", f"--net=/proc/{pid}/ns/net", "--"]
        try:
            run("ip", "link", "add", "pod0", "type", "veth", "peer", "name", "pod1", "netns", str(pid))
            run("ip", "address", "add", f"{self.ours}/24", "dev", "pod0")
            run("ip", "link", "set", "pod0", "up")
            run(*self.enter, "ip", "address", "add", f"{self.theirs}/24", "dev", "pod1")
            for name in ("lo", "pod1"):
                run(*self.enter, "ip", "link", "set", name, "up")
            for name in ("ipv4/ip_local_port_range", "ipv4/ip_local_reserved_ports", "core/somaxconn"):
                value = pathlib.Path("/proc/sys/net", name).read_text().strip()  # as in ours
                run(*self.enter, "sh", "-c", f"echo '{value}' >/proc/sys/net/{name}")
        except Failed:
            self.close()
            raise

    def close(self):
        self.holder.stop()


class Ztunnel(Pair):
    """One for each side, in its dedicated mode. Its ports are fixed, so the client's side has a network of its own, the
    load with it, as a pod's proxy stands beside its pod."""

    name = "ztunnel"
    path = None  # bench/compare --ztunnel
    pools = True
    note = ("its halves stand in two network namespaces, joined by a veth, and the kernel redirects connections to it: it has "
            "no plain listener")  # fmt: skip

    def workload(self, name, address):
        return (
            f"- uid: cluster//v1/Pod/default/{name}\n  name: {name}\n  namespace: default\n  serviceAccount: {name}\n"
            f"  trustDomain: bench.example\n  workloadIps: [{address}]\n  protocol: HBONE\n  node: local\n  network: ''\n"
            f"  services: {{}}\n  authorizationPolicies: [{'default/client-only' if name == 'server' else ''}]\n"
        )

    def mesh(self):
        path = self.d / "mesh.yaml"
        path.write_text(
            "workloads:\n" + self.workload("server", Elsewhere.ours) + self.workload("client", Elsewhere.theirs)
            + "policies:\n- name: client-only\n  namespace: default\n  scope: Namespace\n  action: Allow\n"
            "  dryRun: false\n  rules: [[[{principals: [!Exact bench.example/ns/default/sa/client]}]]]\n"
        )  # fmt: skip
        return path

    def start(self, name, enter):
        ca = Process(self.d, f"ca-{name}", [*enter, TESTS_PYTHON, HERE / "mesh_ca.py", self.certs, CA_PORT])
        self.helpers.append(ca)
        probe = [*enter, "bash", "-c", f"exec 3<>/dev/tcp/127.0.0.1/{CA_PORT}"]
        try:
            wait_for(ca.name, lambda: subprocess.run(probe, capture_output=True).returncode == 0, ca.p)
        except Failed as e:
            raise Failed(f"{e}: {ca.said().strip().splitlines()[-1:]}") from e
        variables = {
            "PROXY_MODE": "dedicated",
            "PROXY_WORKLOAD_INFO": f"default/{name}/{name}",
            "LOCAL_XDS_PATH": str(self.mesh()),
            "XDS_ADDRESS": "",
            "CA_ADDRESS": f"https://127.0.0.1:{CA_PORT}",
            "CA_ROOT_CA": str(self.certs / "root.crt"),
            "NODE_NAME": "local",
            "ENABLE_ORIG_SRC": "false",  # needs routes that are not here
            "ZTUNNEL_WORKER_THREADS": str(self.workers),
            "RUST_LOG": "error",  # no access log
        }
        argv = [*enter, "env", *(f"{k}={v}" for k, v in variables.items()), self.path, "proxy", "ztunnel"]
        p = Process(self.d, f"ztunnel-{name}", argv)
        self.processes.append(p)
        return p

    def up(self):
        self.helpers = []
        self.pod = Elsewhere(self.d)
        self.enter, self.host, self.listen = self.pod.enter, self.pod.ours, self.to
        rules = self.d / "redirect.nft"
        # What it sends itself is not followed: that would be its cost here, and is not everywhere.
        rules.write_text(
            "table ip bench {\n  chain out { type nat hook output priority -100; "
            f"ip daddr {self.host} tcp dport {self.to} redirect to :15001; }}\n"
            "  chain raw_out { type filter hook output priority -300; tcp dport 15008 notrack; }\n"
            "  chain raw_in { type filter hook prerouting priority -300; tcp sport 15008 notrack; }\n}\n"
        )
        run(*self.enter, "nft", "-f", rules)
        both = [self.start("server", []), self.start("client", self.enter)]
        load = [*self.enter, self.build / "bench" / "load", "idle", "--to", f"{self.host}:{self.to}", "--path", "/small"]

        def through():
            try:
                argv = [str(x) for x in load]
                return subprocess.run(argv, stdin=subprocess.DEVNULL, capture_output=True, timeout=3).returncode == 0
            except subprocess.TimeoutExpired:
                return False

        for p in both:
            try:
                wait_for(p.name, through, p.p)
            except Failed as e:
                raise Failed(f"{e}\n{p.said()}") from e

    def down(self):
        super().down()
        for p in getattr(self, "helpers", []):
            p.stop()
        if getattr(self, "pod", None) is not None:
            self.pod.close()
            subprocess.run(["ip", "link", "delete", "pod0"], capture_output=True)  # gone with its other end, or not
            wait_for("the veth's end", lambda: not pathlib.Path("/sys/class/net/pod0").exists())


PAIRS = (Ztunnel,)


def versions():
    if Ztunnel.path is None:
        return {}
    r = subprocess.run([Ztunnel.path, "version"], capture_output=True, text=True)
    found = re.search(r'GitTag:"?([^",}]*)|Version:"?([^",}]*)', r.stdout + r.stderr)
    return {"ztunnel": "ztunnel " + next((x for x in (found.groups() if found else ()) if x), "(version not said)")}


def missing():
    """Why a pair cannot run here, by name."""
    out = {}
    if Ztunnel.path is None:
        out["ztunnel"] = "where it is was not said (--ztunnel)"
    elif not os.access(Ztunnel.path, os.X_OK):
        out["ztunnel"] = f"{Ztunnel.path} cannot be executed"
    elif not TESTS_PYTHON.exists():
        out["ztunnel"] = "the tests' Python is not there, which plays its authority (./dev makes it)"
    return out
