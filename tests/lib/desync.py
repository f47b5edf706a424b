"""Requests that two servers could read differently, made by rules: a family of tricks each, with what has to become of it.

A case is bytes of a client, and either the token of the refusal or the requests that have to arrive: method, target, the
header lines that are the client's, and the body. `before` requests arrive whole before a refusal. Nothing here knows how
the proxy reads; an expectation follows from the trick.
"""

import itertools
from dataclasses import dataclass, field


@dataclass
class Case:
    family: str
    data: bytes
    refused: str = ""  # token; empty: all of it passes
    requests: list = field(default_factory=list)  # (method, target, headers, body) that arrive, those before a refusal too


PROBE = b"GET /smuggled HTTP/1.1\r\nHost: evil\r\n\r\n"
PREFIX = b"GET /smuggled HTTP/1.1\r\nX: "
KEPT = (b"host", b"content-length", b"transfer-encoding")


def head(method=b"POST", target=b"/d", version=b"HTTP/1.1", lines=(), host=b"Host: a"):
    every = ([host] if host else []) + list(lines)
    return b"%s %s %s\r\n%s\r\n" % (method, target, version, b"".join(e + b"\r\n" for e in every))


def refuse(family, data, token, requests=()):
    return Case(family, data, token, list(requests))


def passes(family, data, *requests):
    return Case(family, data, "", list(requests))


def got(method=b"POST", target=b"/d", lines=(), host=b"Host: a", body=b""):
    return (method, target, ([host] if host else []) + list(lines), body)


SPELLED = (b"chunked", b"Chunked", b"CHUNKED")
BODIES = (b"0\r\n\r\n" + PROBE, b"5\r\nhello\r\n0\r\n\r\n", PREFIX)


def both_lengths():
    for n, te, body, first in itertools.product((0, 1, 4, 5, 44, 999), SPELLED, BODIES, (True, False)):
        pair = [b"Content-Length: %d" % n, b"Transfer-Encoding: " + te]
        yield refuse("CL.TE" if first else "TE.CL", head(lines=pair if first else pair[::-1]) + body, "length_with_coding")


CODINGS = {
    "coding_malformed": [
        b"Transfer-Encoding: xchunked", b"Transfer-Encoding: chunkedx", b"Transfer-Encoding: chunke", b"Transfer-Encoding:",
        b"Transfer-Encoding: identity", b"Transfer-Encoding: gzip", b"Transfer-Encoding: gzip, chunked",
        b"Transfer-Encoding: chunked, gzip", b"Transfer-Encoding: chunked, chunked", b"Transfer-Encoding: chunked,",
        b"Transfer-Encoding: ,chunked", b"Transfer-Encoding: chunked;q=1", b"Transfer-Encoding: chunked;", b"Transfer-Encoding: \"chunked\"",
        b"Transfer-Encoding:  chunked", b"Transfer-Encoding:\tchunked", b"Transfer-Encoding: chunked ", b"Transfer-Encoding: chunked\t",
        b"Transfer-Encoding: \tchunked", b"Transfer-Encoding: 'chunked'", b"Transfer-Encoding: chunked-false", b"Transfer-Encoding: chunk ed",
        b"Transfer-Encoding: cow", b"Transfer-Encoding: trailers", b"Transfer-Encoding: chunked\xa0", b"Transfer-Encoding: \xa0chunked",
        b"Transfer-Encoding: \xffchunked", b"Transfer-Encoding: x, chunked", b"Transfer-Encoding: chunked, identity",
    ],
    "header_name_space": [b"Transfer-Encoding : chunked", b"Transfer-Encoding\t: chunked", b"Transfer Encoding: chunked", b"Transfer-Encoding  : chunked"],
    "header_folded": [b" Transfer-Encoding: chunked", b"\tTransfer-Encoding: chunked", b"Transfer-Encoding:\r\n chunked", b"Transfer-Encoding: chunked\r\n , identity", b"X: y\r\n Transfer-Encoding: chunked"],
    "header_lookalike": [b"Transfer_Encoding: chunked", b"Transfer.Encoding: chunked", b"transfer+encoding: chunked"],
    "control_byte": [b"Transfer-Encoding: \x0bchunked", b"Transfer-Encoding: chunked\x00", b"Transfer-Encoding\x00: chunked", b"\x00Transfer-Encoding: chunked", b"Transfer-Encoding: \x0cchunked", b"Transfer-Encoding: chu\x08nked", b"Transfer-Encoding: \x7fchunked"],
    "coding_duplicate": [b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked", b"Transfer-Encoding: identity\r\nTransfer-Encoding: chunked", b"Transfer-Encoding: chunked\r\nTransfer-encoding: cow", b"transfer-encoding:\r\nTransfer-Encoding: chunked"],
    "header_name_byte": [b"Transfer-Encoding\xa0: chunked", b"\xefTransfer-Encoding: chunked", b"Transfer(Encoding): chunked", b"Transfer-Encoding;: chunked", b"[Transfer-Encoding]: chunked"],
    "header_name_empty": [b": chunked", b": Transfer-Encoding: chunked"],
    "header_no_colon": [b"Transfer-Encoding", b"Transfer-Encoding\r\nX: y"],
    "bare_cr": [b"Transfer-Encoding: chunked\rX: y", b"X: y\rTransfer-Encoding: chunked", b"Transfer-Encoding: chunked\r\r"],
    "bare_lf": [b"X: y\nTransfer-Encoding: chunked", b"Transfer-Encoding: chunked\nX: y", b"Transfer-Encoding\n: chunked"],
}


def codings():
    for token, values in CODINGS.items():
        for v, body in itertools.product(values, (b"0\r\n\r\n" + PROBE, b"5\r\nhello\r\n0\r\n\r\n")):
            yield refuse("TE.TE", head(lines=[v]) + body, token)
            if token not in ("coding_malformed", "header_lookalike", "coding_duplicate"):  # found before meaning is asked for
                yield refuse("TE.TE", head(lines=[b"Content-Length: 5", v]) + body, token)


LENGTHS = [
    b"+1", b"-1", b"-0", b"+0", b"0x1", b"0X0", b"1 1", b"1,1", b"1, 1", b"0, 0", b"1,2", b",1", b"1,", b"01", b"00", b"0001", b"1.0", b"1e1", b"1_0", b"1;",
    b"1 ;", b"abc", b"", b" ", b"'1'", b"\"1\"", b"1234567890123456789", b"99999999999999999999", b"18446744073709551616", b"9223372036854775808",
    b"1\xa0", b"\xa01", b"\xd9\xa1", b"0b1", b"0o1", b"1L", b"1h", b"NaN", b"Infinity", b"1%", b"%31", b"1#", b"1-1", b"1..2", b"(1)",
]


def lengths():
    for v, m in itertools.product(LENGTHS, (b"POST", b"GET", b"PUT")):
        yield refuse("CL", head(m, lines=[b"Content-Length: " + v]) + b"x" + PROBE, "length_malformed")
    for lead in (b"", b"  ", b"\t", b" \t"):
        if lead:
            yield refuse("CL", head(lines=[b"Content-Length:" + lead + b"5"]) + b"hello", "length_malformed")
        else:
            yield passes("CL", head(lines=[b"Content-Length:5"]) + b"hello", got(lines=[b"Content-Length:5"], body=b"hello"))
    for trail in (b" ", b"\t", b"  "):
        yield refuse("CL", head(lines=[b"Content-Length: 5" + trail]) + b"hello", "length_malformed")
    for a, b in itertools.product((b"0", b"5", b"6", b"+5", b"05", b"5,5"), repeat=2):
        for m in (b"POST", b"GET"):
            yield refuse("CL.CL", head(m, lines=[b"Content-Length: " + a, b"content-length: " + b]) + b"hello", "length_duplicate")
    for c in b"!#$%&'*+.^_`|~":
        for name in (b"Content%cLength", b"content%clength"):
            yield refuse("CL", head(lines=[(name % c) + b": 5"]) + b"hello", "header_lookalike")
            yield refuse("TE.TE", head(lines=[(name.replace(b"Length", b"X").replace(b"length", b"x") and b"Transfer%cEncoding" % c) + b": chunked"]) + b"0\r\n\r\n", "header_lookalike")


def hidden_requests():
    """A length says where a body ends, whatever the method, and whatever the body looks like."""
    for m in (b"POST", b"GET", b"PUT", b"DELETE", b"PATCH", b"OPTIONS", b"REPORT"):
        for body in (PROBE, PREFIX, b"0\r\n\r\n" + PROBE, b"\r\n\r\n" + PROBE, b"x"):
            ln = b"Content-Length: %d" % len(body)
            yield passes("CL.0", head(m, lines=[ln]) + body + head(b"GET", b"/next"), got(m, lines=[ln], body=body), got(b"GET", b"/next"))
        body = b"%x\r\n%s\r\n0\r\n\r\n" % (len(PROBE), PROBE)
        te = b"Transfer-Encoding: chunked"
        yield passes("CL.0", head(m, lines=[te]) + body + head(b"GET", b"/next"), got(m, lines=[te], body=PROBE), got(b"GET", b"/next"))
    for m in (b"POST", b"GET", b"PUT", b"DELETE"):
        for rest, token in (
            (b"hello", None), (b"\r\n" + PROBE, "empty_line"), (b"\n" + PROBE, "empty_line"), (b"x=1&y=2 z", "method_malformed"), (b"0\r\n\r\n", "method_malformed"),
            (b"GPOST / HTTP/1.1\r\nHost: a\r\n\r\n", "method_unknown"), (b" GET / HTTP/1.1\r\n\r\n", "method_malformed"), (b"\x00" + PROBE, "method_malformed"),
        ):
            if token:
                yield refuse("0.CL", head(m) + rest, token, [got(m)])


LINES = [b"GET /d HTTP/1.1", b"Host: a", b"X: y", b"Y: z", b""]


def line_ends():
    for i, (end, token) in itertools.product(range(5), ((b"\n", "bare_lf"), (b"\r", "bare_cr"), (b"\n\r", "bare_lf"), (b"\r\r\n", "bare_cr"), (b"\x0b\n", None), (b"\x00\r\n", None))):
        for method in (b"GET", b"POST", b"PUT"):
            data = b"".join(line + (end if i == j else b"\r\n") for j, line in enumerate([method + LINES[0][3:]] + LINES[1:])) + b"tail"
            if token is None:
                token_here = "request_line" if i == 0 else "control_byte"
                if i == 0:
                    continue
            else:
                token_here = token
            yield refuse("line ends", data, token_here)
    for name, blank, value in itertools.product((b"X", b"Content-Length", b"Transfer-Encoding", b"Cookie", b"Connection", b"Accept"), (b" ", b"\t"), (b"1", b"chunked")):
        yield refuse("folding", head(lines=[name + b": a\r\n" + blank + value]) + b"x", "header_folded")
        yield refuse("folding", head(lines=[name + b":\r\n" + blank + value]) + b"x", "header_folded")


def bytes_in_places():
    for c in [*range(0, 9), 11, 12, *range(14, 32), 127]:
        b = bytes([c])
        yield refuse("bytes", head(b"GE" + b + b"T"), "method_malformed")
        yield refuse("bytes", head(b"GET", b"/d" + b), "target_byte")
        yield refuse("bytes", head(b"GET", lines=[b"X" + b + b"Y: z"]), "control_byte")
        yield refuse("bytes", head(b"GET", lines=[b"X: y" + b + b"z"]), "control_byte")
    for c in range(0x80, 0x100, 5):
        b = bytes([c])
        yield refuse("bytes", head(b"GE" + b + b"T"), "method_malformed")
        yield refuse("bytes", head(b"GET", b"/d" + b), "target_byte")
        yield refuse("bytes", head(b"GET", lines=[b"X" + b + b": z"]), "header_name_byte")
        yield passes("bytes", head(b"GET", lines=[b"X: y" + b + b"z"]), got(b"GET", lines=[b"X: y" + b + b"z"]))
    for c in b"\"(),/;<=>?@[\\]{}":
        yield refuse("bytes", head(b"GET", lines=[b"X" + bytes([c]) + b"Y: z"]), "header_name_byte")
        yield refuse("bytes", head(b"G" + bytes([c])), "method_malformed")
    for name, blank in itertools.product((b"Host", b"Content-Length", b"Transfer-Encoding", b"X", b"Cookie", b"Connection", b"Upgrade", b"Expect", b"Authorization"), (b" ", b"\t")):
        yield refuse("spaces", head(b"GET", lines=[name + blank + b": 1"]), "header_name_space")
        yield refuse("spaces", head(b"GET", lines=[name[:2] + blank + name[2:] + b": 1"] if len(name) > 2 else [name + blank + blank + b": 1"]), "header_name_space")


SIZES = {
    "chunk_size": [
        b"", b" 5", b"5 ", b"\t5", b"5\t", b"+5", b"-5", b"0x5", b"0X5", b"x5", b"5x", b"g", b"5h", b"5,", b"5.", b"'5'", b"\"5\"", b"5_", b"_5", b"5 5", b"\x005", b"5\x00", b"\xa05",
        b"0000000000000005", b"ffffffffffffffff", b"10000000000000005", b"fffffffffffffffff", b"7fffffffffffffffffff", b"%35", b"#5", b"5#", b"5=1", b"5 ;a", b"5\t;a", b"5\x0b",
    ],
    "chunk_extension": [
        b"5;", b"5; a", b"5;a ", b"5;a =1", b"5;a= 1", b"5;a=", b"5;=1", b"5;;", b"5;a;", b"5;a=\"x\"y", b"5;a=\"\x00\"", b"5;a\x00", b"5;\xa0", b"5;a=\xa0", b"5;a b", b"5;a=b c",
        b"5;" + b"a" * 257, b"5;a=" + b"b" * 300, b"5;a=\"" + b"b" * 300 + b"\"", b"5;\ta", b"5;a,b", b"5;(a)",
    ],
}


def chunks():
    te = [b"Transfer-Encoding: chunked"]
    for token, sizes in SIZES.items():
        for size, more in itertools.product(sizes, (b"", PROBE)):
            yield refuse("chunk size", head(lines=te) + size + b"\r\nhello\r\n0\r\n\r\n" + more, token)
    for data, token in (
        (b"5\nhello\r\n0\r\n\r\n", "bare_lf"), (b"5\r\nhello\n0\r\n\r\n", "chunk_end"), (b"5\r\nhello0\r\n\r\n", "chunk_end"), (b"5\r\nhelloX\r\n0\r\n\r\n", "chunk_end"), (b"5\r\nhello\r0\r\n\r\n", "chunk_end"),
        (b"5\r\nhello\r\n0\n\n", "bare_lf"), (b"5\r\nhello\r\n0\r\n\n", "bare_lf"), (b"5\rhello\r\n0\r\n\r\n", "bare_cr"), (b"0\r\n\rX", "bare_cr"), (b"5;a\nhello\r\n0\r\n\r\n", "bare_lf"), (b"5;a=\"\n\"\r\nhello\r\n0\r\n\r\n", "bare_lf"),
        (b"4\r\nhello\r\n0\r\n\r\n", "chunk_end"), (b"6\r\nhello\r\n0\r\n\r\n", "chunk_end"), (b"0\r\nX\r\n\r\n", "header_no_colon"), (b"0\r\n X: y\r\n\r\n", "header_folded"), (b"0\r\nX : y\r\n\r\n", "header_name_space"),
        (b"0\r\n: y\r\n\r\n", "header_name_empty"), (b"0\r\nX: y\n\r\n", "bare_lf"), (b"0\r\nX: \x00\r\n\r\n", "control_byte"), (b"0\r\nX(: y\r\n\r\n", "header_name_byte"), (b"\r\n5\r\nhello\r\n0\r\n\r\n", "chunk_size"),
    ):
        for spelled in SPELLED:
            yield refuse("chunk end", head(lines=[b"Transfer-Encoding: " + spelled]) + data, token)
    for name in (
        b"Content-Length", b"Transfer-Encoding", b"Host", b"Connection", b"Upgrade", b"TE", b"Expect", b"Keep-Alive", b"Proxy-Connection", b"X-Forwarded-For", b"X-Forwarded-Client-Cert", b"Forwarded", b"X-Real-IP",
        b"X_Forwarded_For", b"Content_Length", b"Transfer_Encoding", b"x-postern-reason", b"Authorization", b"Cookie", b"Cache-Control", b"Content-Type", b"Content-Encoding", b"Content-Range", b"Max-Forwards", b"Range", b"Trailer",
        b"Client-Cert", b"If-Match", b"Set-Cookie", b"traceparent", b"tracestate",
    ):
        yield refuse("trailers", head(lines=te) + b"0\r\n%s: 1\r\n\r\n" % name, "trailer_forbidden")
        yield refuse("trailers", head(lines=te) + b"5\r\nhello\r\n0\r\nX: y\r\n%s: 1\r\n\r\n" % name.upper(), "trailer_forbidden")
    for size, body in ((b"5", b"hello"), (b"05", b"hello"), (b"A", b"0123456789"), (b"a", b"0123456789"), (b"5;a", b"hello"), (b"5;a=b", b"hello"), (b"5;a=\"b c\"", b"hello"), (b"5;a=\"\\\"\"", b"hello"), (b"000000000000005", b"hello")):
        for trailer in (b"", b"X-Sum: 1\r\n"):
            yield passes("chunk size", head(lines=te) + size + b"\r\n" + body + b"\r\n0\r\n" + trailer + b"\r\n" + head(b"GET", b"/next"), got(lines=te, body=body), got(b"GET", b"/next"))


SERVERS_OWN = [
    b"Host", b"Content-Length", b"Transfer-Encoding", b"Expect", b"Authorization", b"Cookie", b"Cache-Control", b"Content-Type", b"Content-Encoding", b"X-Forwarded-For", b"X-Forwarded-Client-Cert", b"X-Forwarded-Host",
    b"Forwarded", b"X-Real-IP", b"x-postern-decision", b"Client-Cert", b"Range", b"If-Match", b"Max-Forwards", b"traceparent", b"Content_Length", b"X_Forwarded_For",
]


def connections():
    for name, form in itertools.product(SERVERS_OWN, (b"%s", b"close, %s", b"%s, keep-alive", b"x,%s,,")):
        yield refuse("connection", head(b"GET", lines=[b"Connection: " + form % name]), "connection_lists")
    for bad in (b"a b", b"a;b", b"(a)", b"a, b c", b"\"a\"", b"a=b", b"@", b"a/b", b", ".join([b"x"] * 33)):
        yield refuse("connection", head(b"GET", lines=[b"Connection: " + bad]), "connection_malformed")
    for name in (b"X-Other", b"Keep-Alive", b"x-other"):
        yield passes("connection", head(b"GET", lines=[b"Connection: " + name, b"X-Other: 1", b"Keep-Alive: 5"]), got(b"GET", lines=[] if b"ther" in name else [b"X-Other: 1"]))
    for gone in (b"Keep-Alive: 1", b"Proxy-Connection: keep-alive", b"Proxy-Authorization: x", b"X-Forwarded-For: 1.1.1.1", b"X_Forwarded_For: 1", b"X-Forwarded.Host: b", b"Forwarded: for=1", b"X-Real-IP: 1", b"X-Forwarded-Client-Cert: By=x", b"X-Postern-Reason: x", b"Client-Cert: x", b"L5d-Client-Id: x", b"HTTP2-Settings: x", b"TE: gzip"):
        yield passes("hop by hop", head(b"GET", lines=[gone, b"X: y"]), got(b"GET", lines=[b"X: y"]))
    for bad in (b"a b", b"a/b/c", b"@", b"a/", b"/a", b"a;b", b"(x)"):
        yield refuse("upgrade", head(b"GET", lines=[b"Connection: upgrade", b"Upgrade: " + bad]), "upgrade_malformed")
    for other in (b"h2c", b"HTTP/2.0", b"TLS/1.0", b"h2", b"http/1.1", b"websocket, h2c"):
        yield passes("upgrade", head(b"GET", lines=[b"Connection: upgrade", b"Upgrade: " + other]), got(b"GET"))
    for bad in (b"200-continue", b"100-continue, x", b"x", b"100", b"", b"100-continue;q=1"):
        yield refuse("expect", head(lines=[b"Content-Length: 5", b"Expect: " + bad]) + b"hello", "expect_unknown")


HOSTS_BAD = [
    b"", b"a b", b"a,b", b"a/b", b"a?b", b"a#b", b"a@b", b"u@a", b"a:b", b"a:", b"a:0", b"a:65536", b"a:1:2", b"a:-1", b"a:+1", b"a:1x", b"[::1", b"::1", b"[::g]", b"[::1]x", b"[::1]:", b"a%2eb", b"a..b", b".a", b"a\\b", b"a\"b", b"<a>",
    b"http://a", b"a:80/", b"a;b", b"a=b", b"a|b", b"a&b", b"*", b"a'b", b"a(b)", b"a{b}", b"a^b", b"a`b", b"a!b", b"a$b", b"a+b", b"\xe9", b"a\xa0", b"x" * 256, b"[]", b"[1.2.3.4]", b"a:000080",
]


def hosts():
    for v in HOSTS_BAD:
        yield refuse("host", head(b"GET", host=b"Host: " + v), "host_malformed")
    for a, b in itertools.product((b"a", b"b", b"a:80", b"A"), repeat=2):
        yield refuse("host", head(b"GET", host=b"Host: " + a, lines=[b"host: " + b]), "host_duplicate")
        yield refuse("host", head(b"GET", host=b"HOST: " + a, lines=[b"X: y", b"hOst: " + b]), "host_duplicate")
    for m in (b"GET", b"POST", b"HEAD", b"OPTIONS"):
        yield refuse("host", head(m, host=None, lines=[b"X: y"]), "host_missing")
        yield refuse("host", head(m, b"http://a/d", host=None, lines=[b"X: y"]), "host_missing")
    for target, host in itertools.product((b"http://a/d", b"http://a:80/d", b"HTTP://a/d", b"http://A/d?q"), (b"b", b"a:81", b"a.b", b"aa", b"ab:80")):
        yield refuse("absolute", head(b"GET", target, host=b"Host: " + host), "host_mismatch")
    for target in (b"http://u@a/d", b"http://a:x/d", b"http:///d", b"http://a:0/d", b"http://[::1/d"):
        yield refuse("absolute", head(b"GET", target), "host_malformed")
    for target in (b"https://a/d", b"ftp://a/d", b"a/d", b"d", b"*", b"?q", b"http:/a", b"http:a", b"javascript:x", b"a:80", b"ws://a/d"):
        yield refuse("absolute", head(b"GET", target), "target_form")
    for target, path in ((b"http://a/d", b"/d"), (b"http://a", b"/"), (b"http://a?q", b"/?q"), (b"http://A/d", b"/d"), (b"http://a:80/d?q=1", b"/d?q=1")):
        yield passes("absolute", head(b"GET", target), got(b"GET", path))


METHODS = [b"GET", b"HEAD", b"POST", b"PUT", b"DELETE", b"PATCH", b"OPTIONS", b"TRACE", b"PROPFIND", b"PURGE"]


def request_lines():
    for m in METHODS:
        for bad in (m.lower(), m.title(), m + b"X", b"X" + m, m[:-1] + m[-1:].lower()):
            yield refuse("method", head(bad), "method_unknown")
    for bad in (b"CONNECT", b"CONNECT "):
        yield refuse("method", b"%s a:1 HTTP/1.1\r\nHost: a:1\r\n\r\n" % bad.strip(), "method_connect")
    for bad in (b"DESCRIBE", b"ANNOUNCE", b"SOURCE", b"DEBUG", b"TRACK", b"RPC_IN_DATA", b"A" * 21, b"GET_", b"GET-", b"G3T", b"%47ET", b"GET.", b"!", b"GET~"):
        yield refuse("method", head(bad), "method_unknown")
    for bad in (b"", b"G(T", b"GET,", b"{GET}", b"G\"T"):
        yield refuse("method", head(bad), "method_malformed")
    for v, token in (
        (b"HTTP/0.9", "protocol"), (b"HTTP/1.2", "version"), (b"HTTP/2.0", "version"), (b"HTTP/3.0", "version"), (b"HTTP/1.10", "version"), (b"HTTP/11", "version"), (b"HTTP/1.", None), (b"HTTP/1", None), (b"HTTP/", None), (b"http/1.1", "protocol"),
        (b"Http/1.1", "protocol"), (b"HTTPS/1.1", "protocol"), (b"HTTP 1.1", None), (b"HTTP/1.1 x", "request_line"), (b"HTTP/1.1 ", "request_line"), (b" HTTP/1.1", "request_line"), (b"HTP/1.1", "protocol"), (b"ICY/1.1", "protocol"), (b"RTSP/1.0", "protocol"), (b"HTTP/1,1", "protocol"), (b"HTTP/a.b", "protocol"), (b"HTTP/1.x", "protocol"),
    ):
        if token is None or v == b"HTTP/0.9":
            continue
        for m in (b"GET", b"POST"):
            yield refuse("version", head(m, version=v), token)
    for data, token in (
        (b"GET  /d HTTP/1.1\r\nHost: a\r\n\r\n", "request_line"), (b"GET /d  HTTP/1.1\r\nHost: a\r\n\r\n", "request_line"), (b"GET\t/d HTTP/1.1\r\nHost: a\r\n\r\n", "method_malformed"), (b"GET /d\tHTTP/1.1\r\nHost: a\r\n\r\n", "target_byte"),
        (b"GET /d\r\nHost: a\r\n\r\n", "version"), (b"GET /a b HTTP/1.1\r\nHost: a\r\n\r\n", "protocol"), (b"\r\nGET /d HTTP/1.1\r\nHost: a\r\n\r\n", "empty_line"), (b"\nGET /d HTTP/1.1\r\nHost: a\r\n\r\n", "empty_line"), (b" GET /d HTTP/1.1\r\nHost: a\r\n\r\n", "method_malformed"),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", None), (b"\x16\x03\x01\x02\x00\x01", "method_malformed"), (b"\x00\x00\x12\x04\x00", "method_malformed"), (b"GET /d#f HTTP/1.1\r\nHost: a\r\n\r\n", "target_byte"), (b"GET /d%zz HTTP/1.1\r\nHost: a\r\n\r\n", "target_percent"), (b"GET /d?%2 HTTP/1.1\r\nHost: a\r\n\r\n", "target_percent"),
    ):
        if token:
            yield refuse("request line", data, token)
    for pseudo in (b":method: GET", b":path: /smuggled", b":authority: b", b":scheme: http", b":status: 200", b":protocol: websocket"):
        yield refuse("H2-like", head(b"GET", lines=[pseudo]), "header_name_empty")
        yield refuse("H2-like", head(b"GET", host=None, lines=[pseudo, b"Host: a"]), "header_name_empty")
    for m in (b"POST", b"GET", b"PUT"):
        for spelled in SPELLED:
            yield refuse("HTTP/1.0", head(m, version=b"HTTP/1.0", lines=[b"Transfer-Encoding: " + spelled]) + b"0\r\n\r\n", "coding_http10")
        yield refuse("HTTP/1.0", head(m, version=b"HTTP/1.0", lines=[b"Transfer-Encoding: chunked", b"Content-Length: 5"]) + b"0\r\n\r\n", "length_with_coding")
    yield refuse("TRACE", head(b"TRACE", lines=[b"Content-Length: 1"]) + b"x", "body_forbidden")
    yield refuse("TRACE", head(b"TRACE", lines=[b"Transfer-Encoding: chunked"]) + b"0\r\n\r\n", "body_forbidden")


PATHS = [
    b"/a%2fb", b"/a%2Fb", b"/a%5cb", b"/a%5Cb", b"/a%00", b"/%00/a", b"/a%0ab", b"/a%0d%0ab", b"/a%7f", b"/a%1f", b"//", b"//a", b"/a//b", b"/a//", b"/.", b"/..", b"/a/.", b"/a/..", b"/a/../b", b"/a/./b", b"/./a", b"/../a", b"/a/..;/b", b"/a;b",
    b"/;/a", b"/a;x=1/b", b"/a%3bb", b"/a%3Bb", b"/%2e", b"/%2e%2e", b"/%2e%2e/a", b"/.%2e/a", b"/%2e./a", b"/%2E%2E/a", b"/a/%2e/b", b"/%61", b"/%41", b"/a%2db", b"/a%5fb", b"/%30", b"/a%252fb", b"/a%252e%252e/b", b"/a%255cb", b"/a%253bb",
    b"/a%2500", b"/%2561", b"/%25252f", b"/%c0%af", b"/%c0%ae%c0%ae/a", b"/%c1%9c", b"/%e0%80%af", b"/%f0%80%80%af", b"/%f8%80%80%80%af", b"/%fc%80%80%80%80%af", b"/%fe", b"/%ff", b"/a/%2e%2e%2fb", b"/..%2fa", b"/..%5ca", b"/.%252e/a", b"/a/..%00/b", b"/a%2f..%2fb",
    b"/a/...;/../b", b"/%c0%2e", b"/%C0%AF..", b"/%25c0%25af", b"/a%2f%2fb", b"/%2f", b"/%2f/", b"/a/%5c..%5cb",
]


def paths():
    for p, m in itertools.product(PATHS, (b"GET", b"POST")):
        yield refuse("paths", head(m, p), "path_ambiguous")
        yield refuse("paths", head(m, b"http://a" + p), "path_ambiguous")
    for p in (b"/a\\b", b"/a\"b", b"/<a>", b"/a{b}", b"/a`b", b"/a\xe9", b"/a}b"):
        yield refuse("paths", head(b"GET", p), "target_byte")
    for p in (b"/a%20b", b"/%c3%a9", b"/a%25", b"/a%3ab", b"/a%2520", b"/a/", b"/a...b", b"/.a", b"/a.", b"/...", b"/a?//../;%2f", b"/a:b@c", b"/a,b'c(d)", b"/a~b!$&*+=", b"/%e9", b"/a%2a"):
        yield passes("paths", head(b"GET", p), got(b"GET", p))


def sizes():
    yield refuse("sizes", head(b"GET", b"/" + b"a" * 8000), "target_long")
    yield refuse("sizes", head(b"GET", lines=[b"X: " + b"a" * 70000]), "head_long")
    yield refuse("sizes", head(b"GET", lines=[b"X%d: y" % i for i in range(100)]), "headers_many")
    yield passes("sizes", head(b"GET", b"/" + b"a" * 7000), got(b"GET", b"/" + b"a" * 7000))


def requests():
    makers = (both_lengths, codings, lengths, hidden_requests, line_ends, bytes_in_places, chunks, connections, hosts, request_lines, paths, sizes)
    return [c for make in makers for c in make()]
