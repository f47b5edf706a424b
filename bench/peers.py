"""Pairs of proxies for bench/compare: each takes plain connections on one port, carries them over mutual TLS 1.3
to its other half, and hands them to the origin. All with the same kind of certificates, the same suite and the same
number of workers, full handshakes only, no access log."""

import json
import os
import pathlib
import shutil
import signal
import socket
import subprocess
import sys
import time

HERE = pathlib.Path(__file__).resolve().parent
SUITE = "TLS_AES_128_GCM_SHA256"
HOST = "127.0.0.1"
# The bound of connections that each proxy is told; two descriptors each have to fit below the limit.
MAX_CONNECTIONS = 9000
NGINX_MODULES = ("/usr/lib/nginx/modules", "/usr/share/nginx/modules")


class Failed(Exception):
    pass


def run(*argv, **kw):
    r = subprocess.run([str(a) for a in argv], capture_output=True, text=True, **kw)
    if r.returncode != 0:
        raise Failed(f"{' '.join(str(a) for a in argv[:3])} ...: {r.stderr.strip() or r.stdout.strip()}")
    return r.stdout


def listening(port):
    try:
        with socket.create_connection((HOST, port), timeout=1):
            return True
    except OSError:
        return False


def wait_for(what, condition, process=None, seconds=20):
    end = time.monotonic() + seconds
    while not condition():
        if process is not None and process.poll() is not None:
            raise Failed(f"{what}: ended with {process.returncode}")
        if time.monotonic() > end:
            raise Failed(f"{what}: not within {seconds} s")
        time.sleep(0.02)


# --- certificates ------------------------------------------------------------------------------


def make_certificates(d):
    """A P-256 root, an intermediate and two leaves with a SPIFFE ID each: the form that an agent issues."""

    def key(name):
        run("openssl", "ecparam", "-name", "prime256v1", "-genkey", "-noout", "-out", d / f"{name}.key")

    def issue(name, issuer, extensions):
        key(name)
        (d / f"{name}.ext").write_text(extensions)
        run("openssl", "req", "-new", "-key", d / f"{name}.key", "-subj", f"/O=bench/CN={name}", "-out", d / f"{name}.csr")
        run(
            "openssl", "x509", "-req", "-in", d / f"{name}.csr", "-CA", d / f"{issuer}.crt", "-CAkey",
            d / f"{issuer}.key", "-set_serial", f"0x{os.urandom(8).hex()}", "-days", "2", "-sha256", "-extfile",
            d / f"{name}.ext", "-out", d / f"{name}.crt",
        )  # fmt: skip

    key("root")
    run(
        "openssl", "req", "-x509", "-new", "-key", d / "root.key", "-subj", "/O=bench/CN=root", "-days", "2",
        "-addext", "keyUsage=critical,keyCertSign,cRLSign", "-out", d / "root.crt",
    )  # fmt: skip
    issue("node", "root", "basicConstraints=critical,CA:TRUE\nkeyUsage=critical,keyCertSign,cRLSign\n")
    for side in ("client", "server"):
        issue(
            side,
            "node",
            "basicConstraints=critical,CA:FALSE\nkeyUsage=critical,digitalSignature\n"
            "extendedKeyUsage=serverAuth,clientAuth\n"
            f"subjectAltName=URI:spiffe://bench.example/{side},DNS:{side}\n",
        )
        chain = (d / f"{side}.crt").read_text() + (d / "node.crt").read_text()
        (d / f"{side}.chain").write_text(chain)
        (d / f"{side}.pem").write_text((d / f"{side}.key").read_text() + chain)


# --- processes ---------------------------------------------------------------------------------


def family(pid):
    """The process and all below it."""
    out = [pid]
    for task in pathlib.Path(f"/proc/{pid}/task").glob("*/children"):
        try:
            out += [p for child in task.read_text().split() for p in family(int(child))]
        except OSError:
            continue  # it has just ended
    return out


class Process:
    def __init__(self, d, name, argv):
        self.log = d / f"{name}.log"
        self.name = name
        with open(self.log, "wb") as log:
            # A session each, as bench/pair has them: some kernels share out the CPU by session.
            self.p = subprocess.Popen(
                [str(a) for a in argv], stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
            )

    def pids(self):
        """The process and its children: nginx works in those."""
        return family(self.p.pid)

    def stop(self):
        self.p.terminate()
        try:
            self.p.wait(10)
        except subprocess.TimeoutExpired:
            for pid in self.pids()[1:]:
                os.kill(pid, 9)
            self.p.kill()
            self.p.wait()

    def said(self):
        return self.log.read_text(errors="replace")[-1500:]


def nginx_head(d, name, workers):
    modules = [f"{m}/ngx_stream_module.so" for m in NGINX_MODULES if os.path.exists(f"{m}/ngx_stream_module.so")]
    load = f"load_module {modules[0]};\n" if modules else ""
    return (
        f"{load}user root;\ndaemon off;\nworker_processes {workers};\npid {d}/{name}.pid;\nerror_log stderr error;\n"
        f"worker_rlimit_nofile 20000;\nevents {{ worker_connections {MAX_CONNECTIONS}; }}\n"
    )


def nginx(d, name, conf):
    path = d / f"{name}.conf"
    path.write_text(conf)
    return Process(d, name, ["nginx", "-p", d, "-c", path, "-e", "stderr"])


def start_origin(d, port, workers, big_bytes):
    """HTTP/1.1 at the port, HTTP/2 in cleartext at the next."""
    (d / "www").mkdir()
    with open(d / "www" / "big", "wb") as f:
        f.write(os.urandom(1 << 20) * (big_bytes >> 20))
    temp = "".join(f"{x}_temp_path {d}/tmp-{x};\n" for x in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi"))
    servers = "".join(
        f"server {{\nlisten *:{at} reuseport backlog=4096{http2};\nroot {d}/www;\n"
        f'location = /small {{ return 200 "{"x" * 64}"; }}\n}}\n'
        for at, http2 in ((port, ""), (port + 1, " http2"))
    )
    conf = nginx_head(d, "origin", workers) + (
        f"http {{\n{temp}access_log off;\nsendfile on;\ntcp_nodelay on;\nkeepalive_timeout 2h;\n"
        f"keepalive_requests 1000000000;\n{servers}}}\n"
    )
    p = nginx(d, "origin", conf)
    wait_for("origin", lambda: listening(port) and listening(port + 1), p.p)
    return p


# --- pairs -------------------------------------------------------------------------------------


class Pair:
    """up() returns when a connection to `listen` is taken; pids() are the processes of the data plane."""

    layer = 4  # -1: compared with no peer
    base = None  # the pair that is the same but for an option
    host = HOST
    enter = ()  # begins the command of a load that has to run elsewhere
    upgrades = False  # upgrade(side) makes another process take one side over, and returns its pid
    note = ""
    rows = None  # all
    pools = False  # its connections between the proxies outlive those of clients
    streams = 0  # requests at once on a connection of HTTP/2; 0: HTTP/1.1
    reloads = False  # reload(rules) gives the server's side a policy of so many

    def __init__(self, d, certs, ports, to, workers, build):
        self.d, self.certs, self.to, self.workers, self.build = d, certs, to, workers, build
        self.listen, self.tls = ports
        self.processes = []

    def up(self):
        raise NotImplementedError

    def keep(self, process, port):
        self.processes.append(process)
        try:
            wait_for(process.name, lambda: listening(port), process.p)
        except Failed as e:
            raise Failed(f"{e}\n{process.said()}") from e

    def pids(self):
        return [pid for p in self.processes for pid in p.pids()]

    def down(self):
        for p in self.processes:
            p.stop()
        self.processes = []


class HaproxyTcp(Pair):
    name = "haproxy tcp"
    mode = "tcp"
    plain = alpn = ""  # of its lines: what is spoken without and with TLS

    def head(self):
        keep = "option http-keep-alive\n  http-reuse always\n  " if self.mode == "http" else ""
        return (
            f"global\n  nbthread {self.workers}\n  maxconn {MAX_CONNECTIONS}\n  tune.ssl.cachesize 0\n"
            f"  ssl-default-bind-options ssl-min-ver TLSv1.3 no-tls-tickets\n"
            f"  ssl-default-bind-ciphersuites {SUITE}\n  ssl-default-server-ciphersuites {SUITE}\n"
            f"  ssl-default-server-options ssl-min-ver TLSv1.3 no-tls-tickets\n"
            f"defaults\n  mode {self.mode}\n  {keep}timeout connect 5s\n  timeout client 2h\n  timeout server 2h\n"
        )

    def up(self):
        c = self.certs
        server, client = self.d / "haproxy-server.cfg", self.d / "haproxy-client.cfg"
        server.write_text(
            self.head() + f"listen tls\n  bind {HOST}:{self.tls} ssl crt {c}/server.pem ca-file {c}/root.crt verify "
            f"required backlog 4096{self.alpn}\n  server origin {HOST}:{self.to}{self.plain}\n"
        )
        client.write_text(
            self.head() + f"listen plain\n  bind {HOST}:{self.listen} backlog 4096{self.plain}\n  server peer {HOST}:{self.tls} "
            f"ssl crt {c}/client.pem ca-file {c}/root.crt verify required verifyhost server no-ssl-reuse{self.alpn}\n"
        )
        self.keep(Process(self.d, "haproxy-server", ["haproxy", "-db", "-f", server]), self.tls)
        self.keep(Process(self.d, "haproxy-client", ["haproxy", "-db", "-f", client]), self.listen)


class HaproxyHttp(HaproxyTcp):
    name = "haproxy http"
    mode = "http"
    layer = 7
    note = "gives its upstream connection back after each request: new and idle connections cost it no TLS, so these rows of postern are compared with the others"
    pools = True


class NginxStream(Pair):
    name = "nginx stream"

    def up(self):
        c = self.certs
        tls = f"TLSv1.3;\n{{0}}_conf_command Ciphersuites {SUITE};\n"
        server = nginx_head(self.d, "nginx-server", self.workers) + (
            f"stream {{ server {{\nlisten {HOST}:{self.tls} ssl reuseport backlog=4096;\nproxy_pass {HOST}:{self.to};\n"
            f"proxy_timeout 2h;\ntcp_nodelay on;\nssl_certificate {c}/server.chain;\nssl_certificate_key {c}/server.key;\n"
            f"ssl_verify_client on;\nssl_verify_depth 3;\nssl_client_certificate {c}/root.crt;\nssl_session_cache off;\n"
            f"ssl_session_tickets off;\nssl_protocols {tls.format('ssl')}}} }}\n"
        )
        client = nginx_head(self.d, "nginx-client", self.workers) + (
            f"stream {{ server {{\nlisten {HOST}:{self.listen} reuseport backlog=4096;\nproxy_pass {HOST}:{self.tls};\n"
            f"proxy_timeout 2h;\ntcp_nodelay on;\nproxy_ssl on;\nproxy_ssl_certificate {c}/client.chain;\n"
            f"proxy_ssl_certificate_key {c}/client.key;\nproxy_ssl_verify on;\nproxy_ssl_verify_depth 3;\n"
            f"proxy_ssl_trusted_certificate {c}/root.crt;\nproxy_ssl_name server;\nproxy_ssl_session_reuse off;\n"
            f"proxy_ssl_protocols {tls.format('proxy_ssl')}}} }}\n"
        )
        self.keep(nginx(self.d, "nginx-server", server), self.tls)
        self.keep(nginx(self.d, "nginx-client", client), self.listen)


class PosternTcp(Pair):
    name = "postern tcp"
    mode = "tcp"
    log = "denied"
    transport = "direct"
    options = ()
    upgrades = True

    def pair_name(self):
        return f"compare-{os.getpid()}-{self.name.replace(' ', '-')}"

    def state(self):
        return pathlib.Path(f"/run/postern-pair-{self.pair_name()}")

    def policy(self):
        """A file, or nothing: one rule, which names the client."""
        return ()

    def up(self):
        argv = [
            sys.executable, HERE / "pair", "up", "--name", self.pair_name(), "--listen", f"{HOST}:{self.listen}",
            "--tls", f"{HOST}:{self.tls}", "--to", f"{HOST}:{self.to}", "--mode", self.mode, "--workers",
            self.workers, "--log", self.log, "--transport", self.transport, "--drain", "60s", *self.policy(),
            *self.options,
        ]  # fmt: skip
        run(*argv, env={**os.environ, "POSTERN_BUILD": str(self.build)})
        wait_for(self.name, lambda: listening(self.listen))

    def started(self):
        """(name, pid) of all that the pair has started: the agent, both sides, and those that took over."""
        return [(n, int(pid)) for n, pid in (x.split() for x in (self.state() / "pids").read_text().splitlines())]

    def pids(self):
        return [p for name, pid in self.started() if name != "agent" for p in family(pid)]

    def upgrade(self, side):
        run(sys.executable, HERE / "pair", "upgrade", "--name", self.pair_name(), "--side", side)
        return self.started()[-1][1]

    def down(self):
        if self.state().exists():
            run(sys.executable, HERE / "pair", "down", "--name", self.pair_name())


class PosternHttp(PosternTcp):
    """Every request is judged: identity, method and path."""

    name = "postern http"
    mode = "http"
    layer = 7
    note = "judges each request by identity, method and path"
    reloads = True

    def policy(self):
        path = self.d / "policy.yaml"
        path.write_text(policy_text(1, ""))
        return ("--policy", path)

    def reload(self, rules, changed):
        """A policy of so many rules; `changed` makes it differ from the one before. Returns when it is in force."""
        (self.state() / "policy.new").write_text(policy_text(rules, changed))
        (self.state() / "policy.new").rename(self.state() / "policy.yaml")
        self.hang_up()

    def server_pid(self):
        """The one that is in charge."""
        return [pid for name, pid in self.started() if name.startswith("server")][-1]

    def hang_up(self):
        admin = self.state() / "server" / "admin.sock"
        before = admin_status(admin)["policy"]["generation"]
        os.kill(self.server_pid(), signal.SIGHUP)

        def in_force():
            status = admin_status(admin)
            if status["policy"]["generation"] != before:
                return True
            if status["last_reload"] is not None and status["last_reload"].get("error"):
                raise Failed(f"{self.name}: the reload was refused: {status['last_reload']['error']}")
            return False

        wait_for(f"{self.name}: a reload", in_force, seconds=60)


def policy_text(rules, changed):
    """The rule that lets the bench through, and others, for the rest of them, of other callers."""
    out = [
        "kind: Policy\nlevel: 1\nrules:\n  - name: reads\n    action: ALLOW\n    from:\n"
        "      - principals: [spiffe://pair.example/client]\n"
        "    to:\n      - {methods: [GET, HEAD], paths: [/small, '/big*']}\n"
    ]
    for i in range(1, rules):
        out.append(
            f"  - name: rule-{i}{changed}\n    action: ALLOW\n    from: [{{principals: [spiffe://pair.example/ns/n/sa/a{i}]}}]\n"
            f"    to: [{{methods: [GET, POST], paths: ['/api/v1/{i}{changed}/*']}}]\n"
        )
    return "".join(out)


def admin_status(path):
    with socket.socket(socket.AF_UNIX) as s:
        s.settimeout(60)
        s.connect(str(path))
        s.sendall(b"GET status\n")
        data = b""
        while chunk := s.recv(65536):
            data += chunk
    return json.loads(data)


class PosternHbone(PosternTcp):
    """Streams of a session for each worker."""

    name = "postern hbone"
    transport = "hbone"
    note = "new connections and idle ones are streams of sessions that are kept, and make no handshake"
    pools = True


class PosternHboneHttp(PosternHttp):
    name = "postern hbone http"
    transport = "hbone"
    pools = True
    rows = ("fresh", "kept", "rate")


class PosternAudit(PosternHttp):
    """What the audit log costs: one line a decision, none left out."""

    name = "postern http auditing"
    base = "postern http"
    options = ("--audit", "on")
    layer = -1
    rows = ("fresh", "kept", "rate")


class PosternAuditChain(PosternAudit):
    """The same, each line with the hash of the one before."""

    name = "postern http audit chain"
    options = ("--audit", "chain")
    rows = ("kept",)


class PosternLog(PosternHttp):
    """What the log costs: one line a request."""

    name = "postern http logging"
    base = "postern http"
    log = "all"
    layer = -1  # no peer writes one
    rows = ("fresh", "kept", "rate")


class PosternResume(PosternTcp):
    name = "postern tcp resuming"
    base = "postern tcp"
    options = ("--resume",)
    layer = -1
    rows = ("fresh",)


class PosternHolder(PosternTcp):
    name = "postern tcp key holder"
    base = "postern tcp"
    options = ("--key-holder",)
    layer = -1
    rows = ("fresh",)


class PosternGateway(Pair):
    """Two gateways with certificates of an ordinary CA, from files, as ghostunnel has them."""

    name = "postern gateway"

    def conf(self, side, listener):
        c = self.certs
        text = (
            f"kind: Gateway\nlevel: 1\nname: {side}\nworkers: {self.workers}\nlog: {{level: error, access: denied}}\n"
            f"limits: {{connections: {MAX_CONNECTIONS}}}\ntrust: [{{name: ca, ca: {c}/root.crt}}]\n"
            f"credentials: [{{name: own, cert: {c}/{side}.chain, key: {c}/{side}.key}}]\n"
            f"listeners:\n  - {{name: {side}, credentials: [own], trust: ca, {listener}}}\n"
        )
        path = self.d / f"gateway-{side}.yaml"
        path.write_text(text)
        return Process(self.d, f"gateway-{side}", [self.build / "proxy" / "postern", "gateway", path])

    def up(self):
        self.keep(
            self.conf(
                "server",
                f"type: server, address: '{HOST}:{self.tls}', to: '{HOST}:{self.to}', "
                "allow: {uri: ['spiffe://bench.example/client']}",
            ),
            self.tls,
        )
        self.keep(
            self.conf(
                "client",
                f"type: client, address: '{HOST}:{self.listen}', to: '{HOST}:{self.tls}', server_name: server, "
                "verify: {uri: ['spiffe://bench.example/server']}",
            ),
            self.listen,
        )


class Ghostunnel(Pair):
    name = "ghostunnel"
    path = None  # bench/compare --ghostunnel

    def start(self, side, *argv):
        c = self.certs
        # Its own number of threads that run Go code, as the others have workers.
        argv = ["env", f"GOMAXPROCS={self.workers}", self.path, side, *argv, "--cert", c / f"{side}.chain", "--key",
                c / f"{side}.key", "--cacert", c / "root.crt", "--quiet=all"]  # fmt: skip
        return Process(self.d, f"ghostunnel-{side}", argv)

    def up(self):
        self.keep(
            self.start("server", "--listen", f"{HOST}:{self.tls}", "--target", f"{HOST}:{self.to}", "--allow-uri",
                       "spiffe://bench.example/client"), self.tls,
        )  # fmt: skip
        self.keep(
            self.start("client", "--listen", f"{HOST}:{self.listen}", "--target", f"{HOST}:{self.tls}",
                       "--override-server-name", "server", "--verify-uri", "spiffe://bench.example/server"), self.listen,
        )  # fmt: skip


class Direct(Pair):
    name = "no proxy"
    layer = 0

    def up(self):
        self.listen = self.to


PAIRS = (
    Direct, PosternTcp, PosternHbone, HaproxyTcp, NginxStream, PosternHttp, HaproxyHttp, PosternHboneHttp, PosternLog, PosternAudit, PosternAuditChain,
    PosternResume, PosternHolder, PosternGateway, Ghostunnel,
)  # fmt: skip


def missing():
    """Why a pair cannot run here, by name."""
    out = {}
    if shutil.which("haproxy") is None:
        out["haproxy tcp"] = out["haproxy http"] = "haproxy is not installed"
    if not any(os.path.exists(f"{m}/ngx_stream_module.so") for m in NGINX_MODULES):
        out["nginx stream"] = "nginx's stream module is not installed"
    if Ghostunnel.path is None:
        out["ghostunnel"] = "where it is was not said (--ghostunnel)"
    return out
