"""Injection: what the command prints and refuses, over recordings of an API server; and pods that are made of what
it printed, in real containers, which speak mTLS to each other. docs/injection.md, cases I."""

import contextlib
import copy
import json
import os
import signal
import socket
import subprocess

import pytest
from containers import Cni, forbidden, kubelet_cgroup, new_container_id, new_pod_uid
from fake_kubelet import pod
from lab import ROOT, free_port, in_netns, wait_for
from node import TD
from test_containers import IMAGE, World

DATA = ROOT / "tests" / "data" / "kubernetes"
IMAGE_ARG = ("--image", "registry.example/postern:0.1")
PROXY_UID = 64700
TOKEN = "/var/run/secrets/kubernetes.io/serviceaccount"

WEB = """# Source: chart/web.yaml
apiVersion: apps/v1
kind: Deployment
metadata:
  name: web # the name
spec:
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      containers:
      - name: app
        image: registry.example/web:1
        securityContext: {capabilities: {drop: [ALL]}}
        env: [{name: ANSWER, value: "yes"}]
"""
OTHER = """# a   service
apiVersion: v1
kind: Service
metadata: {name: web,   labels: {on: "off"}}
spec: {ports: [{port: 80}]}
"""
HOST = """apiVersion: v1
kind: Pod
metadata: {name: host, namespace: kube-system}
spec: {hostNetwork: true, containers: [{name: app, image: a}]}
"""


def postern(build, *argv, text=None):
    env = {**os.environ, "POSTERN_SANDBOX_KILL": "1"}
    return subprocess.run(
        [build / "proxy" / "postern", *argv], input=text, capture_output=True, text=True, timeout=60, check=False, env=env
    )


def inject(build, text, *argv):
    p = postern(build, "inject", *IMAGE_ARG, *argv, text=text)
    assert p.returncode == 0, p.stderr
    return p.stdout


# --- refusals ----------------------------------------------------------------------------------------
def test_one_refusal_and_nothing_is_written(build):
    p = postern(build, "inject", *IMAGE_ARG, text=f"{WEB}---\n{HOST}---\n{HOST.replace('host,', 'host2,')}")
    assert p.returncode == 1 and p.stdout == ""
    for name in ("host", "host2"):
        assert f"refused: Pod kube-system/{name}: spec.hostNetwork: " in p.stderr
    p = postern(build, "inject", *IMAGE_ARG, "--skip-refused", text=f"{WEB}---\n{HOST}")
    assert p.returncode == 0 and p.stdout.endswith(f"---\n{HOST}") and "postern-proxy" in p.stdout


@pytest.mark.parametrize(
    "argv", [(), ("--image",), ("--image", "$(X)"), ("--image", "a", "x"), ("--image", "a", "--proxy-uid", "0"), ("--image", "a", "--log-level", "x")]
)  # fmt: skip
def test_wrong_command_line(build, argv):
    p = postern(build, "inject", *argv, text=WEB)
    assert p.returncode == 2 and p.stdout == "" and p.stderr


def test_input_that_cannot_be_read(build, tmp_path):
    assert postern(build, "inject", *IMAGE_ARG, "-f", tmp_path / "none").returncode == 2
    p = postern(build, "inject", *IMAGE_ARG, text="a: 1\na: 2\n")
    assert p.returncode == 2 and p.stdout == "" and "standard input:2:1: " in p.stderr


def test_nothing_is_in_reach_of_a_manifest(build, lab):
    """While it writes more than its reader takes, all that it was going to read is read: look at it then."""
    manifest = lab.dir / "many.yaml"
    manifest.write_text("---\n".join([WEB] * 100))
    read_end, write_end = os.pipe()
    env = {**os.environ, "POSTERN_SANDBOX_KILL": "1"}
    p = subprocess.Popen(
        [build / "proxy" / "postern", "inject", *IMAGE_ARG, "-f", manifest], stdout=write_end, stderr=subprocess.PIPE, env=env
    )
    os.close(write_end)
    try:
        got = os.read(read_end, 1)
        lines = dict(line.split(":\t", 1) for line in open(f"/proc/{p.pid}/status").read().splitlines() if ":\t" in line)
        assert lines["Seccomp"] == "2" and lines["NoNewPrivs"] == "1"
        assert int(lines["CapPrm"], 16) == 0 and int(lines["CapBnd"], 16) == 0
        assert {os.readlink(f"/proc/{p.pid}/fd/{fd}") for fd in os.listdir(f"/proc/{p.pid}/fd")}.isdisjoint({str(manifest)})
        while chunk := os.read(read_end, 65536):
            got += chunk
    finally:
        os.close(read_end)
        p.stderr.close()
        assert p.wait(30) == 0
    assert got.decode().count("name: postern-proxy\n") == 100


# --- bytes -------------------------------------------------------------------------------------------
def test_what_is_not_changed_passes_byte_for_byte(build):
    text = f"{OTHER}---\n{WEB}---\n# only this\n---\n{OTHER}"
    out = inject(build, text)
    assert out.startswith(f"{OTHER}---\n# Source: chart/web.yaml\napiVersion: apps/v1\n")
    assert out.endswith(f"---\n# only this\n---\n{OTHER}")
    assert inject(build, out) == out
    # Only the printed form of the changed document stays; a second way there and back is the same.
    back = postern(build, "uninject", text=out)
    assert back.returncode == 0 and "postern" not in back.stdout
    assert inject(build, back.stdout) == out


def test_files_and_forms(build, tmp_path):
    (tmp_path / "a.yaml").write_text(WEB)
    (tmp_path / "b.yaml").write_text(OTHER.rstrip("\n"))
    (tmp_path / "c.yaml").write_text(f"---\n{WEB}")
    p = postern(build, "inject", *IMAGE_ARG, *(a for n in "abc" for a in ("-f", tmp_path / f"{n}.yaml")))
    assert p.returncode == 0 and p.stdout.count("\n---\n") == 2 and p.stdout.count("name: postern-proxy\n") == 2
    assert inject(build, p.stdout) == p.stdout
    # JSON in, JSON out.
    one = json.loads((DATA / "review-web-669f4c586b-first.json").read_text())["request"]["object"]
    out = inject(build, json.dumps(one))
    assert json.loads(out)["spec"]["initContainers"][1]["name"] == "postern-proxy"


def test_opt_out(build):
    text = WEB.replace("labels: {app: web}}\n    spec", "labels: {app: web}, annotations: {postern.dev/inject: disabled}}\n    spec")
    assert text != WEB
    p = postern(build, "inject", *IMAGE_ARG, text=text)
    assert p.returncode == 0 and p.stdout == text and "left as it is" in p.stderr


# --- recordings of an API server ---------------------------------------------------------------------
def recorded(name):
    return json.loads((DATA / f"review-{name}.json").read_text())["request"]["object"]


def as_the_api_server_adds(injected, name):
    """What stands in the recording of the second call and not in that of the first: defaults, and the token's mount."""
    again = recorded(f"{name}-again")
    mount = next(m for c in again["spec"]["initContainers"] for m in c["volumeMounts"] if m["mountPath"] == TOKEN)
    o = copy.deepcopy(injected)
    for c in o["spec"]["initContainers"]:
        if c["name"].startswith("postern-"):
            c.setdefault("volumeMounts", []).append(mount)
            c["terminationMessagePath"] = "/dev/termination-log"
            c["terminationMessagePolicy"] = "File"
    return o


def test_recorded_first_and_again(build):
    first = recorded("web-669f4c586b-first")
    injected = json.loads(inject(build, json.dumps(first)))
    again = json.dumps(as_the_api_server_adds(injected, "web-669f4c586b"))
    assert inject(build, again) == again, "the second call changed what the API server had added to"
    back = json.loads(postern(build, "uninject", text=json.dumps(injected)).stdout)
    assert back == first
    assert json.loads(postern(build, "uninject", text=again).stdout) == first
    # Another image: ours is replaced, and nothing of the pod's own.
    newer = json.loads(inject(build, again, "--image", "registry.example/postern:0.2"))
    for c in newer["spec"]["initContainers"]:
        assert c["image"] == "registry.example/postern:0.2"
    assert newer["spec"]["containers"] == first["spec"]["containers"]


def test_recorded_probes(build):
    """Named ports, and both kinds of probe; what they were comes back."""
    full = recorded("full-first")
    del full["spec"]["shareProcessNamespace"]
    injected = json.loads(inject(build, json.dumps(full)))
    app = injected["spec"]["containers"][0]
    for kind in ("liveness", "readiness"):
        assert app[f"{kind}Probe"]["httpGet"] == {"path": f"/probe/app.{kind}", "port": 15021, "scheme": "HTTP"}
    again = json.dumps(as_the_api_server_adds(injected, "full"))
    assert inject(build, again) == again
    assert json.loads(postern(build, "uninject", text=again).stdout) == full


def test_recorded_refusals(build):
    for name, said in (
        ("hostnet-first", "spec.hostNetwork"),
        ("full-first", "spec.shareProcessNamespace"),
        ("web-669f4c586b-again", "adds the capability NET_ADMIN"),  # of another injector
    ):
        p = postern(build, "inject", *IMAGE_ARG, text=json.dumps(recorded(name)))
        assert p.returncode == 1 and p.stdout == "" and said in p.stderr, p.stderr
    # Keys with quotes and slashes and texts with newlines arrive verbatim, and leave so.
    full = recorded("full-first")
    del full["spec"]["shareProcessNamespace"]
    out = json.loads(inject(build, json.dumps(full)))
    assert out["metadata"]["annotations"]['quote"slash/'] == "x\u00e9\n"


# --- pods that are made of it ------------------------------------------------------------------------
ENTRIES = f"""kind: Entries
level: 1
entries:
  - id: sidecars
    spiffe_id: spiffe://{TD}/ns/{{k8s.ns}}/sa/{{k8s.sa}}
    selectors: ["k8s:container-name:postern-proxy", "unix:uid:{PROXY_UID}"]
"""
POLICY = f"""kind: Policy
level: 1
rules:
  - name: client-reads-web
    action: ALLOW
    target: {{principals: [spiffe://{TD}/ns/shop/sa/web]}}
    from: [{{principals: [spiffe://{TD}/ns/shop/sa/client]}}]
    to: [{{ports: [8080], methods: [GET], paths: ["/hello*"]}}]
"""
MESH = """kind: Mesh
level: 1
unlisted: deny
services:
  - name: web
    addresses: ["{address}"]
    ports: [{{port: 8080, protocol: http}}]
    identities: [spiffe://{td}/ns/shop/sa/web]
    transport: direct
"""


def pod_of(name, command, probes=None, **annotations):
    app = {"name": "app", "image": "i", "command": command, "securityContext": {"runAsUser": 1000, "allowPrivilegeEscalation": False}}
    app |= probes or {}
    meta = {"name": name, "namespace": "shop", "annotations": annotations}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": meta, "spec": {"serviceAccountName": name, "containers": [app]}}


SITE = "mkdir /tmp/w && echo hello > /tmp/w/hello.txt && echo no > /tmp/w/secret.txt && exec httpd -f -p 8080 -h /tmp/w"
PROBES = {
    "startupProbe": {"httpGet": {"path": "/hello.txt", "port": 8080}, "periodSeconds": 1},
    "livenessProbe": {"tcpSocket": {"port": 8080}},
    "readinessProbe": {"httpGet": {"path": "/none", "port": 8080}},
}
PODS = {
    "apiVersion": "v1",
    "kind": "List",
    "items": [
        pod_of("web", ["/bin/sh", "-c", SITE], PROBES, **{"postern.dev/ports": "8080/http"}),
        pod_of("client", ["/bin/sleep", "1000"]),
    ],
}


class Kubelet:
    """Runs pods by their specification, as far as injection writes one: the part that a kubelet would play."""

    def __init__(self, world):
        self.world, self.cni = world, Cni(world.lab)
        self.addresses = {}

    def network(self, name):
        netns, self.addresses[name] = self.cni.add(name)
        return netns

    def run(self, spec_of_pod, netns):
        meta, spec = spec_of_pod["metadata"], spec_of_pod["spec"]
        uid, ids = new_pod_uid(), {}
        containers = spec.get("initContainers", []) + spec["containers"]
        for c in containers:
            ids[c["name"]] = new_container_id()
        told = pod(uid, ns=meta["namespace"], name=meta["name"], sa=spec["serviceAccountName"],
                   containers=[(n, i, *IMAGE) for n, i in ids.items()])  # fmt: skip
        self.world.tell(*self.world.pods, told)
        for c in containers:
            self.start(c, spec, ids[c["name"]], uid, netns)
            if c not in spec.get("initContainers", []):
                continue
            if c.get("restartPolicy") != "Always":
                self.wait_end(c, ids[c["name"]])
            else:
                self.wait_started(c, meta["name"])
        for c in spec["containers"]:
            self.wait_started(c, meta["name"])
        return ids

    def start(self, c, spec, container_id, uid, netns):
        context = c["securityContext"]
        volumes = {v["name"]: v for v in spec.get("volumes", [])}
        more = ["--seccomp"]
        if context.get("readOnlyRootFilesystem"):
            more.append("--read-only")
        for e in c.get("env", []):
            more += ["--env", f"{e['name']}={e['value']}"]
        mounts = []
        for m in c.get("volumeMounts", []):
            assert m["readOnly"] is True
            more += ["--mount", f"type=bind,src={volumes[m['name']]['hostPath']['path']},dst={m['mountPath']},options=rbind:ro"]
        capabilities = context.get("capabilities", {})
        keep = ",".join(["-all"] + [f"+{name.lower()}" for name in capabilities.get("add", [])])
        if capabilities.get("add"):
            more += [a for name in capabilities["add"] for a in ("--cap-add", f"CAP_{name}")]
        user = context["runAsUser"]
        argv = ["/bin/setpriv", f"--reuid={user}", f"--regid={user}", "--clear-groups", f"--bounding-set={keep}", f"--inh-caps={keep}"]
        if context.get("allowPrivilegeEscalation") is False:
            argv.append("--no-new-privs")
        argv += c.get("command", ["/bin/postern"]) + c.get("args", [])
        self.world.runtime.start(container_id, kubelet_cgroup(uid, container_id), argv=argv, mounts=mounts, netns=netns, more=more)

    def wait_started(self, c, name):
        if "startupProbe" in c:
            wait_for(f"{c['name']} to be started", lambda: self.probe(c["startupProbe"], name), 60)

    def wait_end(self, c, container_id):
        def ended():
            listing = self.world.runtime.ctr("task", "ls").stdout
            return any(container_id in line and "STOPPED" in line for line in listing.splitlines())

        wait_for(f"{c['name']} to end: {self.world.runtime.log(container_id)}", ended, 30)

    def status(self, probe, name):
        head = self.fetch(name, probe["httpGet"]["port"], probe["httpGet"]["path"]).split(b"\r\n")[0].decode()
        return int(head.split()[1])

    def probe(self, probe, name):
        """From the node's own network, as the kubelet asks."""
        port, path = probe["httpGet"]["port"], probe["httpGet"]["path"]
        return self.fetch(name, port, path).startswith(b"HTTP/1.1 200")

    def fetch(self, name, port, path="/"):
        with in_netns(self.cni.host), socket.create_connection((self.addresses[name], port), timeout=5) as s:
            s.sendall(f"GET {path} HTTP/1.1\r\nHost: {name}\r\nConnection: close\r\n\r\n".encode())
            data = b""
            while chunk := s.recv(65536):
                data += chunk
            return data

    def close(self):
        self.cni.close()


WHY_NOT = forbidden()


@pytest.mark.skipif(WHY_NOT is not None, reason=f"the kernel forbids it: {WHY_NOT}")
@pytest.mark.parametrize("kind", ["native", "classic", "tproxy"])
def test_injected_pods_speak_mtls(node, build, kind):
    """Of the third kind the sidecar starts as root, becomes its own user, keeps clients' addresses, and is started
    only once it has seen that it is captured."""
    world = kubelet = None
    wanted = json.loads(json.dumps(PODS))
    for pod in wanted["items"] if kind == "tproxy" else []:
        pod["metadata"]["annotations"] |= {"postern.dev/inbound-mode": "tproxy", "postern.dev/canary": "on", "postern.dev/udp": "drop"}
    (node.conf / "policy.yaml").write_text(POLICY)
    (node.conf / "mesh.yaml").write_text(MESH.format(address="192.0.2.1", td=TD))
    try:
        world = World(node, entries=ENTRIES, extra="state:\n  policy: policy.yaml\n  mesh: mesh.yaml\n")
        kubelet = Kubelet(world)
        netns = {name: kubelet.network(name) for name in ("web", "client")}
        mesh = node.conf / "mesh.yaml.new"
        mesh.write_text(MESH.format(address=kubelet.addresses["web"], td=TD))
        mesh.rename(node.conf / "mesh.yaml")
        out = inject(build, json.dumps(wanted), "--agent-directory", str(node.run), *(["--classic"] if kind == "classic" else []))
        pods = json.loads(out)["items"]
        ids = {p["metadata"]["name"]: kubelet.run(p, netns[p["metadata"]["name"]]) for p in pods}

        def get(path):
            argv = ["/bin/wget", "-q", "-O", "-", f"http://{kubelet.addresses['web']}:8080{path}"]
            return world.runtime.exec(ids["client"]["app"], argv, user=1000)

        got = wait_for("the client to reach the web server", lambda: get("/hello.txt").stdout, 30)
        assert got == "hello\n"
        assert get("/secret.txt").stdout == "", "what no rule allows was answered"
        log = world.runtime.log(ids["web"]["postern-proxy"])
        lines = [json.loads(line) for line in log.splitlines() if line.startswith("{")]
        peers = {line.get("peer_id") for line in lines if line.get("event") in ("request", "connection")}
        assert f"spiffe://{TD}/ns/shop/sa/client" in peers, log
        sidecar = [c for c in pods[0]["spec"]["initContainers"] + pods[0]["spec"]["containers"] if c["name"] == "postern-proxy"][0]
        assert sidecar["readinessProbe"]["httpGet"]["port"] == (15010 if kind == "tproxy" else 15020)
        wait_for("the sidecar to be ready", lambda: kubelet.status(sidecar["readinessProbe"], "web") == 200)
        # In plaintext from outside: only the port that is not intercepted.
        assert b"ready" in kubelet.fetch("web", 15020, "/ready")
        for port in (8080, 15001, 15006):
            try:
                data = kubelet.fetch("web", port)
            except OSError:
                data = b""
            assert b"hello" not in data and not data.startswith(b"HTTP/"), (port, data)
        # The kubelet's questions are led to the sidecar, which asks the workload; and it says nothing else.
        app = next(c for c in pods[0]["spec"]["containers"] if c["name"] == "app")
        asked = {k: kubelet.status(app[k], "web") for k in PROBES}
        assert asked == {"startupProbe": 200, "livenessProbe": 200, "readinessProbe": 404}
        assert b"hello" not in kubelet.fetch("web", 15021, app["startupProbe"]["httpGet"]["path"])
        for path in ("/", "/hello.txt", "/probe/", "/probe/app.startup/../hello.txt", "/probe/app.startup?x"):
            assert kubelet.fetch("web", 15021, path).startswith(b"HTTP/1.1 404"), path
        os.kill(world.runtime.pid(ids["web"]["app"]), signal.SIGKILL)
        wait_for("probes to fail", lambda: kubelet.status(app["livenessProbe"], "web") == 503, 10)
        # The applications' own: nothing of the agent's, and the rules are what was asked for.
        assert world.runtime.exec(ids["client"]["app"], ["/bin/cat", "/run/postern/agent.sock"]).returncode != 0
    finally:
        for part in (kubelet, world):
            if part is not None:
                part.close()


# --- the probes' port, asked by strangers --------------------------------------------------------------
def ask(port, data):
    with socket.create_connection(("127.0.0.1", port), timeout=20) as s:
        s.sendall(data)
        got = b""
        with contextlib.suppress(ConnectionResetError):
            while chunk := s.recv(65536):
                got += chunk
        return got


def test_probes_port_is_bounded(node):
    node.start_agent()
    with node.inside():
        silent = socket.create_server(("127.0.0.1", 0))
        port, workload = free_port(), silent.getsockname()[1]
    proxy = node.server_side(
        free_port(), workload, extra=f"probes:\n  address: 127.0.0.1:{port}\n  list:\n    - {{name: w, port: {workload}}}\n"
        f"    - {{name: slow, port: {workload}, protocol: http}}\n    - {{name: none, port: 1}}\n",
    )  # fmt: skip
    with node.inside():
        assert ask(port, b"GET /probe/w HTTP/1.1\r\n\r\n").startswith(b"HTTP/1.1 200 ")
        assert ask(port, b"GET /probe/none HTTP/1.1\r\n\r\n").startswith(b"HTTP/1.1 503 ")
        for bad in (b"POST /probe/w HTTP/1.1\r\n\r\n", b"\x16\x03\x01\x00", b"GET /probe/w HTTP/3\r\n\r\n", b"GET " + b"a" * 5000):
            assert ask(port, bad)[:13] in (b"HTTP/1.1 400 ", b""), bad
        assert ask(port, b"GET /probe/x HTTP/1.1\r\n\r\n").startswith(b"HTTP/1.1 404 ")
        # A file that is read again changes nothing of it.
        proxy.process.send_signal(signal.SIGHUP)
        proxy.wait_event("reloaded")
        assert ask(port, b"GET /probe/w HTTP/1.1\r\n\r\n").startswith(b"HTTP/1.1 200 ")
        # As many as may be; the next is closed, and when one goes there is room again.
        held = [socket.create_connection(("127.0.0.1", port), timeout=20) for _ in range(64)]
        assert wait_for("the one too many to be closed", lambda: ask(port, b"GET /probe/w HTTP/1.1\r\n\r\n") == b"")
        held.pop().close()
        wait_for("room again", lambda: ask(port, b"GET /probe/w HTTP/1.1\r\n\r\n").startswith(b"HTTP/1.1 200 "))
        # Who says nothing is ended, and so is a question that nobody answers.
        held[0].sendall(b"GET /probe/slow HTTP/1.1\r\n\r\n")
        assert held[0].recv(100).startswith(b"HTTP/1.1 503 ")
        assert held[1].recv(100) == b""
        for s in held:
            s.close()
        silent.close()
