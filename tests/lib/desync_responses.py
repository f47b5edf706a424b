"""Responses that two readers could take differently, by rules: what a workload says, to which request, and what the client
may see of it: the bytes of a whole response, or 502 with the token, or an end that says that it was cut short."""

import itertools
from dataclasses import dataclass

from desync import CODINGS, LENGTHS, SIZES, SPELLED

GET, HEAD, POST = b"GET", b"HEAD", b"POST"


@dataclass
class Response:
    family: str
    data: bytes
    token: str = ""  # of the 502
    sees: bytes = b""  # the end of what the client gets
    cut: bool = False  # it begins, and is reset
    method: bytes = GET
    minor: int = 1


def answer(lines=(), body=b"", status=b"200 OK", version=b"HTTP/1.1"):
    return b"%s %s\r\n%s\r\n%s" % (version, status, b"".join(e + b"\r\n" for e in lines), body)


EVIL = b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil"


def responses():
    ok = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello"
    for v in LENGTHS:
        yield Response("CL", answer([b"Content-Length: " + v], b"x" + EVIL), "length_malformed")
    for a, b in itertools.product((b"0", b"5", b"05", b"+5"), repeat=2):
        yield Response("CL.CL", answer([b"Content-Length: " + a, b"content-length: " + b], b"hello"), "length_duplicate")
    for n, te in itertools.product((0, 5, 99), SPELLED):
        yield Response("CL.TE", answer([b"Content-Length: %d" % n, b"Transfer-Encoding: " + te], b"0\r\n\r\n" + EVIL), "length_with_coding")
    for token, values in CODINGS.items():
        for v in values:
            yield Response("TE.TE", answer([v], b"5\r\nhello\r\n0\r\n\r\n"), token)
    for te in SPELLED:
        yield Response("HTTP/1.0", answer([b"Transfer-Encoding: " + te], b"0\r\n\r\n"), "coding_http10", minor=0)
        yield Response("HTTP/1.0", answer([b"Transfer-Encoding: " + te], b"0\r\n\r\n", version=b"HTTP/1.0"), "coding_http10")
    for sizes in SIZES.values():
        for size in sizes:
            yield Response("chunk size", answer([b"Transfer-Encoding: chunked"], size + b"\r\nhello\r\n0\r\n\r\n"), cut=True)
    for data in (b"5\nhello\r\n0\r\n\r\n", b"5\r\nhello0\r\n\r\n", b"5\r\nhello\n0\r\n\r\n", b"0\r\nContent-Length: 1\r\n\r\n", b"0\r\nX : y\r\n\r\n", b"0\r\n X: y\r\n\r\n", b"0\r\nX: y\n\r\n"):
        yield Response("chunk end", answer([b"Transfer-Encoding: chunked"], data), cut=True)
    for n in (6, 10, 1000):
        yield Response("short", answer([b"Content-Length: %d" % n], b"hello"), cut=True)
    yield Response("short", answer([b"Transfer-Encoding: chunked"], b"5\r\nhello\r\n"), cut=True)
    for status, line in itertools.product((b"204 No Content", b"103 Early Hints", b"102 Processing"), (b"Content-Length: 4", b"Transfer-Encoding: chunked")):
        yield Response("bodiless", answer([line], b"evil", status=status), "body_forbidden")
    for status in (b"304 Not Modified", b"204 No Content"):
        yield Response("bodiless", answer([], EVIL, status=status), sees=answer([], status=status))
    yield Response("bodiless", answer([b"Content-Length: 4"], b"evil", status=b"304 Not Modified"), sees=answer([b"Content-Length: 4"], status=b"304 Not Modified"))
    for lines in ([b"Content-Length: 44"], [b"Transfer-Encoding: chunked"], []):
        yield Response("HEAD", answer(lines, EVIL), sees=answer(lines), method=HEAD)
    for extra in (EVIL, b"x", b"\r\n", b"HTTP/1.1 "):
        yield Response("behind the end", ok + extra, sees=ok)
        chunked = answer([b"Transfer-Encoding: chunked"], b"5\r\nhello\r\n0\r\n\r\n")
        yield Response("behind the end", chunked + extra, sees=chunked)
    for n in (1, 2, 10):
        interim = answer([b"X: y"], status=b"103 Early Hints") * n
        yield Response("interim", interim + ok, sees=interim + ok)
    for n in (33, 100):
        flood = answer([b"X: y"], status=b"103 Early Hints") * n
        yield Response("interim", flood + ok, "interim_many")
    for bad in (b"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n" + EVIL, b"HTTP/1.1 101 S\r\n\r\n" + EVIL):
        yield Response("upgrade", bad, "upgrade_unasked")
    for bad, token in (
        (b"HTTP/1.1 20 OK", "status_line"), (b"HTTP/1.1 099 OK", "status_line"), (b"HTTP/1.1 600 OK", "status_line"), (b"HTTP/1.1 2000 OK", "status_line"), (b"HTTP/1.1  200 OK", "status_line"), (b"HTTP/1.1 abc OK", "status_line"),
        (b"HTTP/1.1 200\tOK", "status_line"), (b"HTTP/1.1 +20 OK", "status_line"), (b"HTTP/1.1 200OK", "status_line"), (b"HTTP/2.0 200 OK", "version"), (b"HTTP/1.2 200 OK", "version"), (b"HTTP/1.11 200 OK", "version"), (b"http/1.1 200 OK", "protocol"), (b"ICY 200 OK", "protocol"),
        (b" HTTP/1.1 200 OK", "protocol"), (b"HTTP/1.1 200 O\x00K", "control_byte"), (b"HTTP/1.1 200 O\x0bK", "control_byte"), (b"garbage", "protocol"), (b"\r\nHTTP/1.1 200 OK", None), (b"HTTP/1.1 200 OK\rX: y", "bare_cr"), (b"HTTP/1.1 200 OK\nX: y", "bare_lf"),
    ):
        if token:
            yield Response("status line", bad + b"\r\nContent-Length: 5\r\n\r\nhello", token)
    for c in [*range(0, 9), 11, 12, *range(14, 32), 127]:
        yield Response("bytes", answer([b"X: y" + bytes([c]) + b"z", b"Content-Length: 0"]), "control_byte")
        yield Response("bytes", answer([b"X" + bytes([c]) + b"Y: z", b"Content-Length: 0"]), "control_byte")
    for name, blank in itertools.product((b"Content-Length", b"Transfer-Encoding", b"X", b"Set-Cookie", b"Connection"), (b" ", b"\t")):
        yield Response("spaces", answer([name + blank + b": 5"], b"hello"), "header_name_space")
        yield Response("folding", answer([b"X: y\r\n" + blank + name + b": 5"], b"hello"), "header_folded")
    for c in b"!#$%&'*+.^_`|~":
        yield Response("CL", answer([b"Content%cLength: 5" % c], b"hello"), "header_lookalike")
        yield Response("TE.TE", answer([b"Transfer%cEncoding: chunked" % c], b"0\r\n\r\n"), "header_lookalike")
    for name in (b"Content-Length", b"Transfer-Encoding", b"Set-Cookie", b"Cache-Control", b"Content-Type", b"Location", b"WWW-Authenticate"):
        yield Response("connection", answer([b"Connection: " + name, b"Content-Length: 5"], b"hello"), "connection_lists")
