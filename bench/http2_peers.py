"""Pairs for bench/compare that carry requests over HTTP/2: in cleartext from the load, HTTP/2 between the proxies and to
the origin. Their requests are compared among themselves."""

from others import EnvoyHttp
from peers import HaproxyHttp, PosternHttp

LAYER = 8  # of requests over HTTP/2: no peer of HTTP/1.1 does the same work
STREAMS = 4
ROWS = ("kept", "rate")


class PosternHttp2(PosternHttp):
    """Each stream is a request of its own, judged as one of HTTP/1.1 is. The calling side carries bytes."""

    name = "postern http2"
    layer = LAYER
    streams = STREAMS
    rows = ROWS
    reloads = upgrades = False
    note = f"HTTP/2: {STREAMS} streams on each of 4 connections, each request judged"


class HaproxyHttp2(HaproxyHttp):
    name = "haproxy http2"
    layer = LAYER
    streams = STREAMS
    rows = ROWS
    plain, alpn = " proto h2", " alpn h2"
    note = "HTTP/2 on all legs; streams of all clients share its connections"


class EnvoyHttp2(EnvoyHttp):
    name = "envoy http2"
    layer = LAYER
    streams = STREAMS
    rows = ROWS
    http2 = True
    note = "HTTP/2 on all legs, as haproxy http2"


PAIRS = (PosternHttp2, HaproxyHttp2, EnvoyHttp2)


def missing(others_missing):
    """As the pairs of the same programs that speak HTTP/1.1."""
    same = {"haproxy http2": "haproxy http", "envoy http2": "envoy http"}
    return {n: others_missing[of] for n, of in same.items() if of in others_missing}
