"""containers: real ones, by a containerd of the test's own (root, state and socket in its directory), with
control groups in the shapes that a kubelet gives them. Everything is removed by close(), after a failure too:
tasks, shims, mounts and control groups that were made here, found by what was recorded and by nothing else.
"""

import contextlib
import json
import os
import pathlib
import secrets
import shutil
import signal
import subprocess
import uuid

from lab import LabError, run, wait_for

NEEDED = ("containerd", "ctr", "runc", "containerd-shim-runc-v2")
CNI_PLUGINS = pathlib.Path("/usr/lib/cni")
BUSYBOX = pathlib.Path("/bin/busybox")
CGROUPS = pathlib.Path("/sys/fs/cgroup")

CONFIG = """version = 2
root = "{dir}/root"
state = "{dir}/state"
disabled_plugins = [{disabled}]
[grpc]
  address = "{dir}/c.sock"
[plugins."io.containerd.grpc.v1.cri"]
  restrict_oom_score_adj = true
"""
# What a test does not use and what may be missing on a machine.
DISABLED = (
    "io.containerd.grpc.v1.cri",
    "io.containerd.snapshotter.v1.aufs",
    "io.containerd.snapshotter.v1.btrfs",
    "io.containerd.snapshotter.v1.devmapper",
    "io.containerd.snapshotter.v1.zfs",
    "io.containerd.internal.v1.opt",
    "io.containerd.internal.v1.tracing",
)


def hierarchies():
    """Where control groups may be made on this machine: one for each hierarchy of version 1, and version 2."""
    if (CGROUPS / "cgroup.controllers").exists():
        return [CGROUPS]
    return [d for d in CGROUPS.iterdir() if d.is_dir() and not d.is_symlink() and (d / "cgroup.procs").exists()]


def forbidden():
    """Why this machine cannot run containers; None: it can. Missing packages are no reason: ./dev installs them."""
    for d in hierarchies():
        probe = d / f"postern-probe-{secrets.token_hex(4)}"
        try:
            probe.mkdir()
            probe.rmdir()
        except OSError as e:
            return f"no control group can be made in {d}: {e.strerror}"
    if not hierarchies():
        return "no control groups are mounted"
    return None


def new_pod_uid():
    return str(uuid.uuid4())


def new_container_id():
    return secrets.token_hex(32)


def kubelet_cgroup(pod_uid, container_id, qos="burstable"):
    """As the cgroupfs driver makes it; a Guaranteed pod has no class."""
    return "/" + "/".join(p for p in ("kubepods", qos, f"pod{pod_uid}", container_id) if p)


def kubelet_cgroup_systemd(pod_uid, container_id, qos="burstable"):
    name = f"kubepods-{qos}" if qos else "kubepods"
    pod = f"{name}-pod{pod_uid.replace('-', '_')}.slice"
    return "/" + "/".join(
        ["kubepods.slice", *([f"{name}.slice"] if qos else []), pod, f"cri-containerd-{container_id}.scope"]
    )


class Containerd:
    def __init__(self, lab, postern):
        self.lab = lab
        self.dir = lab.private_dir("containerd", mode=0o711)
        self.socket = self.dir / "c.sock"
        self.ids = []
        self.cgroups = []
        self.execs = 0
        disabled = ", ".join(f'"{d}"' for d in DISABLED)
        (self.dir / "config.toml").write_text(CONFIG.format(dir=self.dir, disabled=disabled))
        self.process = lab.start("containerd", ["containerd", "-c", self.dir / "config.toml"])
        try:
            wait_for("containerd's socket", lambda: self.ctr("version", check=False).returncode == 0, 30)
            self.rootfs = self._rootfs(postern)
        except BaseException:
            self.close()
            raise

    def ctr(self, *argv, check=True, timeout=30, **kw):
        return run("ctr", "-a", self.socket, *argv, check=check, timeout=timeout, **kw)

    def _rootfs(self, postern):
        """busybox, and postern and setpriv with the libraries that they are linked with."""
        root = self.dir / "rootfs"
        for d in ("bin", "proc", "sys", "dev", "tmp", "agent", "etc"):
            (root / d).mkdir(parents=True)
        shutil.copy(BUSYBOX, root / "bin" / "busybox")
        for name in ("sh", "sleep", "cat", "wget", "httpd"):
            (root / "bin" / name).symlink_to("busybox")
        (root / "libexec").mkdir()
        helper = postern.parent.parent / "libexec" / "postern-intercept"
        for program, to in ((postern, "bin"), (helper, "libexec"), (shutil.which("setpriv"), "bin")):
            shutil.copy(program, root / to / pathlib.Path(program).name)
            for line in run("ldd", program).stdout.splitlines():
                for library in (w for w in line.split() if w.startswith("/")):
                    to = root / library.lstrip("/")
                    to.parent.mkdir(parents=True, exist_ok=True)
                    shutil.copy(library, to)
        (root / "tmp").chmod(0o1777)
        return root

    # --- containers ---
    def start(self, container_id, cgroup, argv=("/bin/sleep", "1000"), user=None, mounts=(), netns=None, more=()):
        """Detached; returns the pid of its first process. That becomes the user by itself: this ctr cannot say.
        `more`: options of ctr."""
        if user is not None:
            argv = ["/bin/setpriv", f"--reuid={user}", f"--regid={user}", "--clear-groups", *argv]
        args = ["run", "--detach", "--rootfs", "--cgroup", cgroup, "--log-uri", f"file://{self.dir}/{container_id}.log"]
        args += ["--env", "ASAN_OPTIONS=detect_leaks=0"]
        if netns is not None:
            args += ["--with-ns", f"network:{netns}"]
        for src, dst in mounts:
            args += ["--mount", f"type=bind,src={src},dst={dst},options=rbind:rw"]
        self.ids.append(container_id)
        self.cgroups.append(cgroup)
        self.ctr(*args, *more, self.rootfs, container_id, *argv)
        return self.pid(container_id)

    def pid(self, container_id):
        for line in self.ctr("task", "ls").stdout.splitlines()[1:]:
            name, pid = line.split()[:2]
            if name == container_id:
                return int(pid)
        raise LabError(f"no task {container_id}")

    def log(self, container_id):
        path = self.dir / f"{container_id}.log"
        return path.read_text(errors="replace") if path.exists() else ""

    def exec_argv(self, container_id, argv, user=None):
        self.execs += 1
        more = ["--user", str(user)] if user is not None else []
        return ["ctr", "-a", self.socket, "task", "exec", "--exec-id", f"x{self.execs}", *more, container_id, *argv]

    def exec(self, container_id, argv, user=None, timeout=40):
        """A process that is started in the container from outside, as `kubectl exec` does."""
        return run(*self.exec_argv(container_id, argv, user), check=False, timeout=timeout)

    # --- the end ---
    def _shims(self):
        found = []
        for d in pathlib.Path("/proc").iterdir():
            with contextlib.suppress(OSError):
                if d.name.isdigit():
                    words = (d / "cmdline").read_bytes().split(b"\0")
                    if b"shim" in words[0] and str(self.socket).encode() in words:
                        found.append(int(d.name))
        return found

    def _cgroup_dirs(self):
        for cgroup in self.cgroups:
            parts = cgroup.strip("/").split("/")
            for h in hierarchies():
                for n in range(len(parts), 0, -1):
                    yield h.joinpath(*parts[:n])

    def close(self):
        for i in self.ids:
            self.ctr("task", "rm", "--force", i, check=False)
            self.ctr("container", "rm", i, check=False)
        for pid in self._shims():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.process.stop()
        for line in reversed(pathlib.Path("/proc/self/mounts").read_text().splitlines()):
            where = line.split()[1]
            if where.startswith(f"{self.dir}/"):
                subprocess.run(["umount", "-l", where], check=False)
        for d in self._cgroup_dirs():
            remove_cgroup(d)


def remove_cgroup(d):
    """With whatever a workload made below it; others' are not empty and stay."""
    if not d.is_dir():
        return
    own = d.name.startswith("pod") or "-pod" in d.name or len(d.name) >= 64  # no other test's
    if own:
        for sub in sorted((p for p in d.rglob("*") if p.is_dir()), key=lambda p: -len(p.parts)):
            with contextlib.suppress(OSError):
                sub.rmdir()

    def gone():
        with contextlib.suppress(OSError):
            d.rmdir()
        return not d.is_dir() or not own  # its processes may need a moment to go

    with contextlib.suppress(LabError):
        wait_for(f"{d} to be empty", gone, 5)


def move_to_cgroup(pid, below):
    """What a workload with writable control groups can do: make any name below its own, and go there."""
    for line in pathlib.Path(f"/proc/{pid}/cgroup").read_text().splitlines():
        number, controllers, path = line.split(":", 2)
        if number == "0":
            top = CGROUPS if (CGROUPS / "cgroup.controllers").exists() else CGROUPS / "unified"
        else:
            top = CGROUPS / controllers.removeprefix("name=")
        at = top / path.lstrip("/")
        for part in below.strip("/").split("/"):
            parent, at = at, at / part
            at.mkdir(exist_ok=True)
            for name in ("cpuset.cpus", "cpuset.mems"):
                if (at / name).exists() and number != "0":
                    (at / name).write_text((parent / name).read_text())
        (at / "cgroup.procs").write_text(str(pid))


class Cni:
    """A pod's network by the CNI plugins `loopback` and `bridge`; the bridge is in a namespace of the lab's."""

    def __init__(self, lab):
        self.lab = lab
        self.host = lab.netns("cnihost")
        self.made = []

    def _plugin(self, command, plugin, netns, conf):
        env = {
            "CNI_COMMAND": command,
            "CNI_CONTAINERID": netns,
            "CNI_NETNS": f"/run/netns/{netns}",
            "CNI_IFNAME": "lo" if plugin == "loopback" else "eth0",
            "CNI_PATH": str(CNI_PLUGINS),
            "PATH": os.environ["PATH"],
        }
        p = subprocess.run(
            ["nsenter", f"--net=/run/netns/{self.host}", "--", str(CNI_PLUGINS / plugin)],
            input=json.dumps(conf), text=True, capture_output=True, env=env, timeout=30, check=False,
        )  # fmt: skip
        if p.returncode != 0:
            raise LabError(f"CNI {plugin} {command}: {p.stdout} {p.stderr}")
        return json.loads(p.stdout) if p.stdout.strip() else {}

    def add(self, name):
        """Returns (path of the namespace, its address)."""
        netns = self.lab.netns(name)
        base = {"cniVersion": "0.4.0", "name": "pods"}
        self._plugin("ADD", "loopback", netns, {**base, "type": "loopback"})
        conf = {
            **base, "type": "bridge", "bridge": "cni0", "isGateway": True,
            "ipam": {"type": "host-local", "subnet": "10.88.0.0/24", "dataDir": str(self.lab.dir / "ipam")},
        }  # fmt: skip
        result = self._plugin("ADD", "bridge", netns, conf)
        self.made.append((netns, conf))
        return f"/run/netns/{netns}", result["ips"][0]["address"].split("/")[0]

    def close(self):
        for netns, conf in self.made:
            with contextlib.suppress(LabError):
                self._plugin("DEL", "bridge", netns, conf)
