"""soak_world: an agent, two pairs of proxies with all their lanes, what stands behind them, and what happens to them.

The pair `steady` lives as long as the run, so that what it holds can be followed. The pair `upgraded` is exchanged for
new processes again and again. Everything listens on loopback, in a network namespace of the program's own.
"""

import os
import pathlib
import random
import signal
import socket
import struct
import subprocess
import threading
import time

from lab import admin_ask, wait_for
from peers import HOST, family

TD = "soak.example"
UIDS = {"client": 47401, "server": 47402, "guest": 47403}
ORIGIN_PORT, FAULTY_PORT = 7000, 7009
PAIRS = {"steady": 8100, "upgraded": 8200}
LANES = ("tcp", "http", "hbone")  # and the faulty one of the steady pair
GUEST_PORT = 8300
QUIET = ['"reason":"done"', '"reason":"answered"', '"status":200']  # lines that nobody reads, thousands a second


def ports(pair):
    """lane -> (plain, mTLS)"""
    base = PAIRS[pair]
    return {lane: (base + i, base + 50 + i) for i, lane in enumerate((*LANES, "faulty"))}


class Proxy:
    """One process, and where its log goes, without what is in it thousands of times a second."""

    def __init__(self, world, name, conf, uid, take_over=False):
        self.name, self.conf, self.uid, self.admin = name, conf, uid, world.d / name / "admin.sock"
        world.n += 1
        self.log = world.d / f"{name}-{world.n}.log"
        argv = [world.postern, "proxy", *(["--take-over"] if take_over else []), conf]
        argv = ["setpriv", f"--reuid={uid}", f"--regid={uid}", "--clear-groups", "--", *argv]
        quiet = ["grep", "--line-buffered", "-vF"] + [x for q in QUIET for x in ("-e", q)]
        with open(self.log, "wb") as log:
            self.p = subprocess.Popen([str(x) for x in argv], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                                      stderr=subprocess.PIPE, start_new_session=True)  # fmt: skip
            self.filter = subprocess.Popen(quiet, stdin=self.p.stderr, stdout=log, env={**os.environ, "LC_ALL": "C"},
                                           start_new_session=True)  # fmt: skip
        self.p.stderr.close()
        self.begun = time.monotonic()

    def said(self, word):
        return word.encode() in self.log.read_bytes()

    def pids(self):
        return family(self.p.pid) if self.p.poll() is None else []

    def has_identity(self):
        if self.p.poll() is not None:
            raise RuntimeError(f"{self.name} ended with {self.p.returncode}: {self.log.read_text()[-2000:]}")
        return '"spiffe_id":"spiffe' in admin_ask(str(self.admin), "status").replace(" ", "")


class Faulty:
    """An upstream that answers, resets, breaks off, stalls, and from time to time does not listen at all."""

    def __init__(self):
        self.stop, self.listens = threading.Event(), True
        self.threads = [threading.Thread(target=self.run, daemon=True)]
        self.threads[0].start()

    def run(self):
        while not self.stop.is_set():
            with socket.create_server((HOST, FAULTY_PORT), backlog=64) as s:
                s.settimeout(0.2)
                end = time.monotonic() + 15
                self.listens = True
                while time.monotonic() < end and not self.stop.is_set():
                    try:
                        c, _ = s.accept()
                    except TimeoutError:
                        continue
                    threading.Thread(target=self.serve, args=(c,), daemon=True).start()
                self.listens = False
            self.stop.wait(2)

    def serve(self, c):
        with c:
            try:
                c.settimeout(20)
                head = b""
                while b"\r\n\r\n" not in head:
                    data = c.recv(4096)
                    if not data:
                        return
                    head += data
                path = head.split(b" ", 2)[1]
                if path == b"/stall":
                    c.recv(1)  # until the other side has had enough
                elif path == b"/ok":
                    c.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok")
                else:
                    if path == b"/half":
                        c.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n" + b"x" * 5000)
                        time.sleep(0.05)
                    c.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            except OSError:
                pass


class FaultyLane(threading.Thread):
    """Asks for faults, and judges what comes of them: its own answer, in time."""

    EXPECTED = {"/ok": {"200"}, "/reset": {"502"}, "/half": {"cut"}, "/stall": {"nothing"}}
    REFUSED = {"503", "502"}

    def __init__(self, port, upstream):
        super().__init__(daemon=True)
        self.port, self.upstream, self.stop = port, upstream, threading.Event()
        self.counts, self.unexpected, self.own_port = {}, [], 0
        self.start()

    def ask(self, path):
        with socket.create_connection((HOST, self.port), timeout=10) as s:
            self.own_port = s.getsockname()[1]
            s.settimeout(1 if path == "/stall" else 10)
            s.sendall(f"GET {path} HTTP/1.1\r\nHost: faulty\r\nConnection: close\r\n\r\n".encode())
            data = b""
            try:
                while chunk := s.recv(65536):
                    data += chunk
            except TimeoutError:
                return "nothing" if not data else "stalled in the middle"
            except OSError:
                pass
            if not data:
                return "reset"
            head, _, body = data.partition(b"\r\n\r\n")
            status = head.split(b" ")[1].decode()
            length = next((int(x.split(b":")[1]) for x in head.lower().split(b"\r\n") if x.startswith(b"content-length:")), 0)
            return status if len(body) >= length else "cut"

    def run(self):
        order = random.Random(6)
        while not self.stop.wait(0.02):
            path = order.choice(list(self.EXPECTED))
            listened = self.upstream.listens
            try:
                got = self.ask(path)
            except OSError as e:
                got = repr(e)
            ok = got in self.EXPECTED[path] or (got in self.REFUSED and not (listened and self.upstream.listens))
            # One that came and went in between may have met the closed door.
            ok = ok or (got in self.REFUSED and time.monotonic() - self.closed_at() < 3)
            self.counts[path, got] = self.counts.get((path, got), 0) + 1
            if not ok:
                self.unexpected.append({"at_ms": int(time.time() * 1000), "port": self.own_port, "what": got, "lane": f"steady faulty, {path}"})

    def closed_at(self):
        if not self.upstream.listens:
            self.closed = time.monotonic()
        return getattr(self, "closed", time.monotonic() - 100)


class Guest(threading.Thread):
    """One connection of an identity that is denied from time to time: it has to go, and may come back."""

    def __init__(self):
        super().__init__(daemon=True)
        self.stop, self.denied_at, self.cut_ms, self.late, self.answers = threading.Event(), None, [], 0, 0
        self.start()

    def run(self):
        while not self.stop.is_set():
            try:
                with socket.create_connection((HOST, GUEST_PORT), timeout=5) as s:
                    while not self.stop.wait(0.01):
                        s.sendall(b"GET /small HTTP/1.1\r\nHost: a\r\n\r\n")
                        if not s.recv(4096).startswith(b"HTTP/1.1 200"):
                            break
                        self.answers += 1
                        if self.denied_at is not None and time.monotonic() - self.denied_at > 1:
                            self.late += 1
                            break
            except OSError:
                pass
            if self.denied_at is not None:
                self.cut_ms.append(1000 * (time.monotonic() - self.denied_at))
                while self.denied_at is not None and not self.stop.wait(0.05):
                    pass


class World:
    def __init__(self, d, build, ttl):
        self.d, self.postern, self.ttl, self.n = d, build / "proxy" / "postern", ttl, 0
        self.agent, self.agent_log = None, open(d / "agent.log", "ab")
        self.current, self.old, self.logs = {}, [], {"client": {}, "server": {}}
        self.generation, self.denies_guest = 0, False
        self.counts = {"reloads": 0, "denials": 0, "upgrades": 0, "agent_kills": 0}
        self.codes, self.upgrade_ms = [], []
        self.begun, self.events = time.monotonic(), []  # what happened when, in seconds of the run

    # --- files ---
    def write_files(self):
        d = self.d
        (d / "run").mkdir(mode=0o755)
        entries = "kind: Entries\nlevel: 1\nentries:\n" + "".join(
            f'  - {{id: {n}, spiffe_id: "spiffe://{TD}/{n}", selectors: ["unix:uid:{uid}"], ttl: {self.ttl}}}\n'
            for n, uid in UIDS.items()
        )
        (d / "entries.yaml").write_text(entries)
        (d / "agent.yaml").write_text(
            f"kind: Agent\nlevel: 1\ntrust_domain: {TD}\nsocket: {d}/run/agent.sock\nstate_dir: {d}/state\n"
            "entries: entries.yaml\nca:\n  source: self\n  key_at_rest: plain\n"
        )
        self.write_policy()
        for pair in PAIRS:
            for side in ("client", "server"):
                self.write_proxy(f"{pair}-{side}", side, self.listeners(pair, side))
        tls = ports("steady")["tcp"][1]
        self.write_proxy("guest", "guest", self.outbound("guest", GUEST_PORT, f"{HOST}:{tls}"))

    def write_policy(self):
        rules = f"  - {{name: client-may, action: ALLOW, from: [{{principals: ['spiffe://{TD}/client']}}]}}\n"
        rules += f"  - {{name: guest-may, action: ALLOW, from: [{{principals: ['spiffe://{TD}/guest']}}]}}\n"
        rules += f"  - {{name: r{self.generation}, action: ALLOW, from: [{{principals: ['spiffe://{TD}/n{self.generation % 7}']}}]}}\n"
        if self.denies_guest:
            rules += f"  - {{name: no-guest, action: DENY, from: [{{principals: ['spiffe://{TD}/guest']}}]}}\n"
        new = self.d / "policy.new"
        new.write_text(f"kind: Policy\nlevel: 1\nrules:\n{rules}")
        new.rename(self.d / "policy.yaml")

    @staticmethod
    def outbound(name, port, to, extra=""):
        return (f"  - {{name: {name}, direction: outbound, capture: explicit, address: '{HOST}:{port}', to: '{to}', "
                f"identities: ['spiffe://{TD}/server'], protocol: tcp{extra}}}\n")  # fmt: skip

    def listeners(self, pair, side):
        out, origin = "", f"{HOST}:{ORIGIN_PORT}"
        for lane, (plain, tls) in ports(pair).items():
            if lane == "faulty" and pair != "steady":
                continue
            if side == "client" and lane == "hbone":
                out += self.outbound(lane, plain, origin, f", transport: hbone, hbone_port: {tls}")
            elif side == "client":
                out += self.outbound(lane, plain, f"{HOST}:{tls}")
            elif lane == "hbone":
                out += f"  - {{name: hbone, direction: inbound, capture: hbone, address: '{HOST}:{tls}', ports: [{{port: {ORIGIN_PORT}, protocol: tcp}}]}}\n"
            else:
                to = f"{HOST}:{FAULTY_PORT}" if lane == "faulty" else origin
                protocol = "tcp" if lane == "tcp" else "http"
                out += f"  - {{name: {lane}, direction: inbound, capture: explicit, address: '{HOST}:{tls}', to: '{to}', protocol: {protocol}}}\n"
        return out

    def write_proxy(self, name, side, listeners):
        uid = UIDS[side]
        (self.d / name).mkdir(mode=0o755)
        os.chown(self.d / name, uid, uid)
        (self.d / f"{name}.yaml").write_text(
            f"kind: Proxy\nlevel: 1\nname: {name}\nworkers: 2\nidentity: {{socket: 'unix:{self.d}/run/agent.sock', key: csr}}\n"
            + (f"policy: {self.d}/policy.yaml\n" if side == "server" else "")
            + f"listeners:\n{listeners}limits: {{connections: 20000}}\ntimeouts: {{drain: 120s}}\n"
            f"admin: {{socket: {self.d}/{name}/admin.sock, allow_uids: [0, {uid}]}}\nlog: {{level: info, access: all}}\n"
        )

    # --- processes ---
    def start_agent(self):
        self.agent = subprocess.Popen([self.postern, "agent", self.d / "agent.yaml"], stdin=subprocess.DEVNULL,
                                      stdout=self.agent_log, stderr=self.agent_log, start_new_session=True)  # fmt: skip

    def start(self):
        self.write_files()
        self.start_agent()
        wait_for("the agent's socket", (self.d / "run" / "agent.sock").exists, 30)
        for name in [f"{pair}-{side}" for pair in PAIRS for side in ("server", "client")] + ["guest"]:
            side = name.rpartition("-")[2]
            self.current[name] = Proxy(self, name, self.d / f"{name}.yaml", UIDS[side])
            self.keep_log(self.current[name])
        for p in self.current.values():
            wait_for(f"{p.name}'s identity", p.has_identity, 30)

    def keep_log(self, p):
        pair, _, side = p.name.rpartition("-")
        if side in self.logs:
            self.logs[side].setdefault(pair, []).append(p.log)

    # --- what happens ---
    def note(self, what):
        self.events.append((round(time.monotonic() - self.begun, 2), what))

    def reload(self, denies_guest=False):
        self.generation += 1
        self.denies_guest = denies_guest
        self.write_policy()
        self.note("denial" if denies_guest else "reload")
        for name, p in self.current.items():
            if name.endswith("server"):
                p.p.send_signal(signal.SIGHUP)
        self.counts["reloads"] += 1

    def upgrade(self, side):
        name = f"upgraded-{side}"
        old, begun = self.current[name], time.monotonic()
        new = Proxy(self, name, old.conf, old.uid, take_over=True)
        self.keep_log(new)

        def in_charge():
            if new.p.poll() is not None:
                raise RuntimeError(f"{name}: the new process ended: {new.log.read_text()[-2000:]}")
            return new.said('"took_over"')

        wait_for(f"{name} to be taken over", in_charge, 60)
        self.note(f"{side} upgraded")
        self.upgrade_ms.append(1000 * (time.monotonic() - begun))
        self.current[name] = new
        self.old.append(old)
        self.counts["upgrades"] += 1

    def kill_agent(self):
        gone = family(self.agent.pid)
        self.note("agent killed")
        self.agent.kill()
        self.agent.wait()
        wait_for("the end of the agent's processes", lambda: not any(pathlib.Path(f"/proc/{p}").exists() for p in gone), 20)
        self.start_agent()
        self.counts["agent_kills"] += 1

    def reap(self):
        for p in [p for p in self.old if p.p.poll() is not None]:
            self.old.remove(p)
            p.filter.wait(10)
            self.codes.append((p.name, p.p.returncode))

    def groups(self):
        """What is followed: name -> pids."""
        own = {n: self.current[n].pids() for n in ("steady-client", "steady-server")}
        everybody = [pid for p in (*self.current.values(), *self.old) for pid in p.pids()]
        agent = family(self.agent.pid) if self.agent.poll() is None else []
        return {**own, "all proxies": everybody, "agent": agent}

    def stop(self):
        for p in (*self.current.values(), *self.old):
            if p.p.poll() is None:
                p.p.send_signal(signal.SIGTERM)
                time.sleep(0.1)
                if p.p.poll() is None:
                    p.p.send_signal(signal.SIGINT)  # at once: nobody is served any more
        for p in (*self.current.values(), *self.old):
            try:
                self.codes.append((p.name, p.p.wait(20)))
                p.filter.wait(10)
            except subprocess.TimeoutExpired:
                p.p.kill()
                p.filter.kill()
                self.codes.append((p.name, "did not end"))
        if self.agent is not None and self.agent.poll() is None:
            self.agent.terminate()
            try:
                self.codes.append(("agent", self.agent.wait(20)))
            except subprocess.TimeoutExpired:
                self.agent.kill()
                self.codes.append(("agent", "did not end"))
        self.agent_log.close()
