"""Who a caller in a container is: containers by containerd and runc, in control groups as a kubelet makes
them, and a kubelet of ours that tells of them. docs/attestation.md and docs/kubernetes.md, cases R."""

import json
import os
import pathlib
import threading

import pytest
from containers import (
    Cni,
    Containerd,
    forbidden,
    kubelet_cgroup,
    kubelet_cgroup_systemd,
    move_to_cgroup,
    new_container_id,
    new_pod_uid,
)
from fake_kubelet import FakeKubelet, pod
from lab import admin_ask, wait_for
from node import TD

WHY_NOT = forbidden()
pytestmark = pytest.mark.skipif(WHY_NOT is not None, reason=f"the kernel forbids it: {WHY_NOT}")

IMAGE = ("docker.io/library/app:1", "docker.io/library/app@sha256:" + "ab" * 32)
PROXY_UID = 1337

# Order counts: the sidecar's first.
ENTRIES = f"""kind: Entries
level: 1
entries:
  - id: sidecar
    spiffe_id: spiffe://{TD}/ns/{{k8s.ns}}/sa/{{k8s.sa}}/proxy
    selectors: ["k8s:container-name:proxy", "unix:uid:{PROXY_UID}"]
  - id: app
    spiffe_id: spiffe://{TD}/ns/{{k8s.ns}}/sa/{{k8s.sa}}
    selectors: ["k8s:container-name:app"]
  - id: by-digest
    spiffe_id: spiffe://{TD}/digest/{{k8s.container-name}}
    selectors: ["k8s:image-digest:sha256:{"ab" * 32}", "k8s:pod-label:tier:db"]
  - id: host-root
    spiffe_id: spiffe://{TD}/host/root
    selectors: ["unix:uid:0"]
  - id: host-app
    spiffe_id: spiffe://{TD}/host/app
    selectors: ["unix:uid:1000"]
"""


SOCKET = ("--socket", "/agent/agent.sock")
FETCH = ("/bin/postern", "svid", "fetch", *SOCKET)
WATCH = ("/bin/postern", "svid", "watch", *SOCKET)


def spiffe(path):
    return f"spiffe://{TD}/{path}"


class World:
    """An agent on a node of Kubernetes."""

    def __init__(self, node, entries=ENTRIES, extra=""):
        self.node, self.lab = node, node.lab
        self.kubelet = FakeKubelet(self.lab.private_dir("kubelet") / "pki")
        self.pods = []
        token = self.lab.dir / "kubelet" / "token"
        token.write_text("secret-1\n")
        (node.conf / "entries.yaml").write_text(entries)
        # So seldom that nothing comes in time but what somebody presses for.
        node.write_agent(
            f"kubernetes:\n  node_name: vm\n  poll: 10m\n  kubelet:\n    address: 127.0.0.1:{self.kubelet.port}\n"
            f"    ca_file: {self.kubelet.authority.crt}\n    token_file: {token}\n{extra}"
        )
        node.start_agent(env={**os.environ, "POSTERN_SANDBOX_KILL": "1"})
        self.wait_status(lambda s: s["fetched"])
        try:
            self.runtime = Containerd(self.lab, node.postern)
        except BaseException:
            self.kubelet.close()
            raise
        self.mounts = [(node.run, "/agent")]

    def status(self):
        return json.loads(admin_ask(self.node.run / "agent-admin.sock", "status"))["kubernetes"]

    def wait_status(self, condition):
        return wait_for("the agent to know its pods", lambda: condition(self.status()), 15)

    def tell(self, *pods):
        self.pods = list(pods)
        self.kubelet.set_pods(*pods)

    def run_pod(self, name, containers, ns="shop", sa="default", labels=None, shape=kubelet_cgroup, uid=None, told=True, **kw):
        """containers: {name: keywords of Containerd.start}. Returns {name: id}."""
        uid = uid or new_pod_uid()
        ids = {c: new_container_id() for c in containers}
        qos = kw.pop("qos", "burstable")
        one = pod(uid, ns=ns, name=name, sa=sa, labels=labels, containers=[(c, i, *IMAGE) for c, i in ids.items()])
        if told:
            self.tell(*self.pods, one)
        for c, more in containers.items():
            self.runtime.start(ids[c], shape(uid, ids[c], qos), mounts=self.mounts, **{**kw, **more})
        return {**ids, "uid": uid, "pod": one}

    def identities(self, container_id, user=None, wanted=None):
        """The SPIFFE ID that a process in that container gets first, or when it asks for one; [] if none."""
        more = ["--id", wanted] if wanted else []
        return ids_of(self.runtime.exec(container_id, [*FETCH, *more], user=user))

    def close(self):
        self.runtime.close()
        self.kubelet.close()


def ids_of(p):
    found = [line.split()[1] for line in p.stdout.splitlines() if line.startswith("identity")]
    assert found or "denied" in p.stderr.lower(), p
    return found


@pytest.fixture
def world(node):
    one = World(node)
    yield one
    one.close()


# --- each its own ------------------------------------------------------------------------------------
def test_each_pod_has_its_own_identity(world):
    web = world.run_pod("web-1", {"app": {}, "proxy": {"user": PROXY_UID, "argv": WATCH}}, ns="shop", sa="web")
    db = world.run_pod("db-1", {"app": {"user": 1000}}, ns="data", sa="db", labels={"tier": "db"})
    assert world.identities(web["app"]) == [spiffe("ns/shop/sa/web")]
    wait_for("the sidecar's own", lambda: spiffe("ns/shop/sa/web/proxy") in world.runtime.log(web["proxy"]))
    assert world.identities(db["app"], 1000) == [spiffe("ns/data/sa/db")]
    assert world.identities(db["app"], 1000, spiffe("digest/app")) == [spiffe("digest/app")]
    # Nobody has another one's by asking for it.
    for other in ("ns/data/sa/db", "digest/app", "ns/shop/sa/web/proxy", "host/root"):
        assert world.identities(web["app"], wanted=spiffe(other)) == []


SHAPES = {
    "guaranteed": {"qos": ""},
    "besteffort": {"qos": "besteffort"},
    "systemd": {"shape": kubelet_cgroup_systemd},
    "systemd guaranteed": {"shape": kubelet_cgroup_systemd, "qos": ""},
}


@pytest.mark.parametrize("shape", SHAPES)
def test_shapes_of_control_groups(world, shape):
    ids = world.run_pod("web-1", {"app": {}}, **SHAPES[shape])
    assert world.identities(ids["app"]) == [spiffe("ns/shop/sa/default")]


def test_static_pod(world):
    """Its uid is a hash of its file, without dashes, in the control group and at the kubelet."""
    ids = world.run_pod("etcd-vm", {"app": {}}, ns="kube-system", sa="", uid=os.urandom(16).hex())
    # Without a service account there is no /sa/ to fill in, so that entry gives nothing.
    assert world.identities(ids["app"]) == []
    ids = world.run_pod("api-vm", {"app": {}}, ns="kube-system", sa="node", uid=os.urandom(16).hex())
    assert world.identities(ids["app"]) == [spiffe("ns/kube-system/sa/node")]


# --- the sidecar's is the sidecar's ------------------------------------------------------------------
def test_exec_into_the_sidecar_is_not_the_sidecar(world):
    ids = world.run_pod("web-1", {"app": {}, "proxy": {"user": PROXY_UID}}, sa="web")
    assert world.identities(ids["proxy"], 0) == [], "`kubectl exec` as root got the sidecar's identity"
    assert world.identities(ids["proxy"], 1000) == []
    assert world.identities(ids["proxy"], PROXY_UID) == [spiffe("ns/shop/sa/web/proxy")]


def test_sidecars_uid_in_the_applications_container(world):
    ids = world.run_pod("web-1", {"app": {}, "proxy": {"user": PROXY_UID}}, sa="web")
    assert world.identities(ids["app"], PROXY_UID) == [spiffe("ns/shop/sa/web")]


# --- no pod, no identity -----------------------------------------------------------------------------
def test_container_without_a_pod(world):
    """Neither by Kubernetes, nor as the host's root or user 1000."""
    cid = new_container_id()
    world.runtime.start(cid, f"/default/{cid}", mounts=world.mounts)
    assert world.identities(cid) == []
    assert world.identities(cid, 1000) == []
    # The same numbers on the host are the host's.
    p = world.lab.run_in([world.node.postern, "svid", "fetch", "--socket", world.node.socket], uid=1000)
    assert ids_of(p) == [spiffe("host/app")]


def test_unix_entries_never_fit_a_container(world):
    ids = world.run_pod("job-1", {"worker": {}})
    assert world.identities(ids["worker"]) == []
    assert world.identities(ids["worker"], 1000) == []


def test_pod_that_the_kubelet_does_not_know(world):
    ids = world.run_pod("ghost-1", {"app": {}}, told=False)
    assert world.identities(ids["app"]) == []


def test_container_of_another_pod(world):
    """The kubelet lists the container in one pod, its control group names another: it is in neither."""
    other = world.run_pod("web-2", {"app": {}}, sa="other")
    cid = new_container_id()
    world.tell(*world.pods, pod(new_pod_uid(), name="web-3", sa="third", containers=[("app", cid, *IMAGE)]))
    world.runtime.start(cid, kubelet_cgroup(other["uid"], cid), mounts=world.mounts)
    assert world.identities(cid) == []


def test_a_name_below_ones_own_control_group(world):
    victim = world.run_pod("web-1", {"app": {}}, sa="victim")
    script = f"until [ -e /tmp/go ]; do sleep 0.1; done; exec {' '.join(FETCH)}"
    ids = world.run_pod("evil-1", {"app": {"argv": ("/bin/sh", "-c", script)}}, ns="evil", sa="evil")
    assert world.identities(ids["app"]) == [spiffe("ns/evil/sa/evil")]
    move_to_cgroup(world.runtime.pid(ids["app"]), kubelet_cgroup(victim["uid"], victim["app"]))
    (world.runtime.rootfs / "tmp" / "go").touch()
    log = wait_for("its answer", lambda: world.runtime.log(ids["app"]), 30)
    wait_for("its end", lambda: "denied" in world.runtime.log(ids["app"]).lower(), 30)
    assert "spiffe://" not in log, "a group below its own made it somebody"


# --- what the kubelet tells late ---------------------------------------------------------------------
def test_first_call_waits_for_the_kubelet(world):
    """The pod is there, its container's id comes a moment after it runs: the first call gets its identity."""
    uid, cid = new_pod_uid(), new_container_id()
    world.tell(pod(uid, sa="late", containers=[("app", None, *IMAGE)]))
    world.runtime.start(cid, kubelet_cgroup(uid, cid), mounts=world.mounts)
    known = pod(uid, sa="late", containers=[("app", cid, *IMAGE)])
    asked = len(world.kubelet.asked)

    def tell_late():
        # Only after it was asked, and did not know, because somebody had called.
        with world.kubelet.changed:
            world.kubelet.changed.wait_for(lambda: len(world.kubelet.asked) > asked, 20)
        world.tell(known)

    late = threading.Thread(target=tell_late)
    late.start()
    got = world.identities(cid)
    late.join()
    assert got == [spiffe("ns/shop/sa/late")]


def test_a_waiting_caller_holds_up_nobody(world):
    known = world.run_pod("web-1", {"app": {}}, sa="web")
    ghost = world.run_pod("ghost-1", {"app": {}}, told=False)
    assert world.identities(known["app"]) == [spiffe("ns/shop/sa/web")]
    done = []
    waiting = threading.Thread(target=lambda: done.append(world.identities(ghost["app"])))
    asked = len(world.kubelet.asked)
    waiting.start()
    wait_for("the ghost's call to be pending", lambda: len(world.kubelet.asked) > asked)
    assert world.identities(known["app"]) == [spiffe("ns/shop/sa/web")]
    waiting.join(30)
    assert done == [[]]


def test_identity_ends_with_the_pod(world):
    ids = world.run_pod("web-1", {"app": {}}, sa="web")
    watch = world.lab.start("watch", world.runtime.exec_argv(ids["app"], WATCH))
    wait_for("the first SVID", lambda: spiffe("ns/shop/sa/web") in watch.out() + watch.err())
    # Away is not gone: the last good list counts.
    mode = world.kubelet.mode
    world.kubelet.mode = lambda h: world.kubelet.send(h, 503, b"")
    ghost = world.run_pod("ghost-1", {"app": {}}, told=False)
    assert world.identities(ghost["app"]) == []  # and made it ask
    world.wait_status(lambda s: "503" in s.get("last_error", ""))
    assert world.identities(ids["app"]) == [spiffe("ns/shop/sa/web")]
    # Gone is gone.
    world.kubelet.mode = mode
    world.tell()
    world.identities(ghost["app"])
    world.wait_status(lambda s: s["pods"] == 0)
    wait_for("the stream's end", lambda: "denied" in (watch.out() + watch.err()).lower(), 10)
    assert world.identities(ids["app"]) == []


# --- one network, two containers ---------------------------------------------------------------------
def test_two_containers_share_a_network_and_no_identity(world):
    cni = Cni(world.lab)
    try:
        netns, address = cni.add("pod")
        ids = world.run_pod(
            "web-1",
            {
                "app": {"argv": ("/bin/sh", "-c", "echo hello > /tmp/index.html; exec httpd -f -p 127.0.0.1:8080 -h /tmp")},
                "proxy": {"user": PROXY_UID},
            },
            sa="web",
            netns=netns,
        )
        pids = [world.runtime.pid(ids[c]) for c in ("app", "proxy")]
        nets = {os.readlink(f"/proc/{p}/ns/net") for p in pids}
        assert len(nets) == 1 and nets != {os.readlink("/proc/self/ns/net")}
        addresses = pathlib.Path(f"/proc/{pids[0]}/net/fib_trie").read_text()
        assert address in addresses
        got = wait_for(
            "the application to answer its neighbour",
            lambda: world.runtime.exec(ids["proxy"], ["/bin/wget", "-q", "-O", "-", "http://127.0.0.1:8080/"]).stdout,
        )
        assert got.strip() == "hello"
        assert world.identities(ids["app"]) == [spiffe("ns/shop/sa/web")]
        assert world.identities(ids["proxy"], PROXY_UID) == [spiffe("ns/shop/sa/web/proxy")]
    finally:
        cni.close()


# --- for people --------------------------------------------------------------------------------------
def test_attest_shows_what_the_kubelet_told(world):
    ids = world.run_pod("web-1", {"app": {}}, sa="web", labels={"app": "web"})
    pid = world.runtime.pid(ids["app"])
    argv = [world.node.postern, "agent", "attest", str(pid), "--config", world.node.conf / "agent.yaml"]
    text = world.lab.run_in(argv, check=True).stdout
    for selector in (
        "k8s:ns:shop",
        "k8s:sa:web",
        "k8s:pod-name:web-1",
        f"k8s:pod-uid:{ids['uid']}",
        "k8s:pod-label:app:web",
        "k8s:container-name:app",
        f"k8s:container-image:{IMAGE[0]}",
        f"k8s:image-digest:sha256:{'ab' * 32}",
        "k8s:node-name:vm",
    ):
        line = [row for row in text.splitlines() if selector in row.split()]
        assert line, f"{selector} is not in\n{text}"
        assert "kubelet" in line[0] or "k8s:pod-uid" in selector, line
