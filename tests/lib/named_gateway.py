"""named_gateway: a gateway for web.example with certificates from files, and plain ways to call it."""

import socket
import ssl

import pytest
from lab import in_netns
from plain_gateway import Gateways

TRUST = "trust: [{name: ca, ca: ca.pem}]\n"


@pytest.fixture
def gw(lab, build):
    return Gateways(lab, build)


@pytest.fixture
def web(gw):
    """A credential of the gateway's for web.example, and the client's."""
    gw.pki.issue("web", cn="web", dns=["web.example", "*.web.example"])
    cert, key = gw.pki.issue("client", cn="client", dns=["client.example"])
    gw.client = ["--cert", cert, "--key", key, "--cacert", gw.pki.pem]
    return "credentials: [{name: web, cert: web.pem, key: web-key.pem}]\n" + TRUST


def server_listener(port, to, allow="any: true"):
    """The listener `in`, which ends TLS for web.example and is plain towards the port `to`; more keys may follow."""
    return (
        f"  - name: in\n    type: server\n    address: 127.0.0.1:{port}\n    to: 127.0.0.1:{to}\n"
        f"    credentials: [web]\n    trust: ca\n    allow: {{{allow}}}\n"
    )


def connect(gw, port, host="127.0.0.1"):
    with in_netns(gw.netns):
        return socket.create_connection((host, port), timeout=15)


def tls_connect(gw, port, name):
    """Without a certificate of its own."""
    context = ssl.create_default_context(cafile=gw.pki.pem)
    context.verify_flags &= ~getattr(ssl, "VERIFY_X509_STRICT", 0)
    return context.wrap_socket(connect(gw, port), server_hostname=name)


def ends(s):
    """How a connection ends: "reset" or "end"."""
    try:
        while s.recv(4096):
            pass
    except ConnectionResetError:
        return "reset"
    return "end"
