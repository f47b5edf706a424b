"""The agent's control socket from Python: requests as bytes, so that tests can send wrong ones too."""

import json
import socket
import struct

MAGIC = 0x50634C31
ARG_MAX, ARGS = 2048, 4
PART_MAX = 16384
REQUEST_SIZE = 24 + ARGS * (2 + ARG_MAX)
ERR = struct.Struct("=Ii200s400s200s240s")
ANSWER_SIZE = 16 + ERR.size + PART_MAX


class Refused(Exception):
    """What the supervisor said."""


def request(verb, args=(), number=0, flags=0, magic=MAGIC, size=REQUEST_SIZE):
    out = struct.pack("=IIIIQ", magic, size, verb, flags, number)
    for i in range(ARGS):
        text = args[i].encode() if i < len(args) else b""
        out += struct.pack("=H", len(text)) + text.ljust(ARG_MAX, b"\0")
    return out


def connect(path, timeout=30):
    s = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    s.settimeout(timeout)
    s.connect(str(path))
    return s


def receive(s):
    """The document of one answer."""
    text = b""
    while True:
        part = s.recv(ANSWER_SIZE + 1)
        if not part:
            raise ConnectionError("ended without an answer")
        assert len(part) == ANSWER_SIZE, len(part)
        magic, size, n, last = struct.unpack_from("=IIII", part)
        assert (magic, size) == (MAGIC, ANSWER_SIZE)
        code, _, where, what, _, _ = ERR.unpack_from(part, 16)
        if code != 0:
            raise Refused(what.split(b"\0")[0].decode() + " " + where.split(b"\0")[0].decode())
        text += part[16 + ERR.size : 16 + ERR.size + n]
        if last:
            return text.decode()


def ask(path, verb, args=(), number=0, flags=0):
    with connect(path) as s:
        s.send(request(verb, args, number, flags))
        return json.loads(receive(s))
