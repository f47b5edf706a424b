"""wirepb: protobuf by field numbers, for tests that have no generated code: decode gives {field: [values]}."""


def varint(n):
    out = b""
    while n > 0x7F:
        out += bytes([n & 0x7F | 0x80])
        n >>= 7
    return out + bytes([n])


def field(number, value):
    """bytes and str as a length-delimited field, int and bool as a varint; a list repeats."""
    if isinstance(value, list):
        return b"".join(field(number, v) for v in value)
    if isinstance(value, (bool, int)):
        return varint(number << 3) + varint(int(value))
    data = value.encode() if isinstance(value, str) else value
    return varint(number << 3 | 2) + varint(len(data)) + data


def message(**fields):
    """message(f1="x", f3=[b"y"])."""
    return b"".join(field(int(k[1:]), v) for k, v in fields.items())


def _read_varint(data, at):
    value = shift = 0
    while True:
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        shift += 7
        if not byte & 0x80:
            return value, at


def decode(data):
    out, at = {}, 0
    while at < len(data):
        key, at = _read_varint(data, at)
        kind = key & 7
        if kind == 0:
            value, at = _read_varint(data, at)
        elif kind == 2:
            n, at = _read_varint(data, at)
            assert at + n <= len(data), "a field beyond its message"
            value, at = data[at : at + n], at + n
        else:
            n = {1: 8, 5: 4}[kind]
            value, at = data[at : at + n], at + n
        out.setdefault(key >> 3, []).append(value)
    return out


def text(fields, number, default=""):
    return fields[number][-1].decode() if number in fields else default
