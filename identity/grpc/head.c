/* Header fields: pure functions over their bytes. */
#include "grpc_priv.h"

#include <stdio.h>

nghttp2_nv grpc_nv(const char *name, const char *value)
{
    /* nghttp2 copies both and writes to neither; its type says otherwise. */
    return (nghttp2_nv){.name = (uint8_t *)(uintptr_t)name,
                        .value = (uint8_t *)(uintptr_t)value,
                        .namelen = strlen(name),
                        .valuelen = strlen(value),
                        .flags = NGHTTP2_NV_FLAG_NONE};
}

bool grpc_content_type_ok(struct str s)
{
    struct str base = STR_LIT("application/grpc");
    return str_has_prefix(s, base) && (s.n == base.n || s.p[base.n] == '+' || s.p[base.n] == ';');
}

/* RFC 9113 8.2.2: these make a message malformed. */
bool grpc_field_is_connection_specific(struct str name)
{
    return str_eq(name, STR_LIT("connection")) || str_eq(name, STR_LIT("keep-alive")) ||
           str_eq(name, STR_LIT("proxy-connection")) ||
           str_eq(name, STR_LIT("transfer-encoding")) || str_eq(name, STR_LIT("upgrade"));
}

bool grpc_field_is_metadata(struct str name)
{
    return name.n > 0 && name.p[0] != ':' && !str_has_prefix(name, STR_LIT("grpc-")) &&
           !str_eq(name, STR_LIT("content-type")) && !str_eq(name, STR_LIT("content-length")) &&
           !str_eq(name, STR_LIT("te")) && !str_eq(name, STR_LIT("host"));
}

static uint64_t unit_ns(char unit)
{
    switch (unit) {
    case 'H':
        return 3600U * UINT64_C(1000000000);
    case 'M':
        return 60U * UINT64_C(1000000000);
    case 'S':
        return UINT64_C(1000000000);
    case 'm':
        return 1000000;
    case 'u':
        return 1000;
    case 'n':
        return 1;
    default:
        return 0;
    }
}

bool grpc_timeout_parse(struct str s, uint64_t *ret_ms)
{
    if (s.n < 2 || s.n > 9) {
        return false;
    }
    uint64_t ns = unit_ns(s.p[s.n - 1]);
    uint64_t value = 0;
    if (ns == 0 || !str_to_u64((struct str){s.p, s.n - 1}, 99999999, &value)) {
        return false;
    }
    /* 99,999,999 hours are 3.6e20 ns: more than 64 bits hold, so count in the larger unit. */
    uint64_t ms = ns >= 1000000 ? value * (ns / 1000000) : (value * ns + 999999) / 1000000;
    *ret_ms = ms > UINT32_MAX ? UINT32_MAX : ms;
    return true;
}

void grpc_timeout_print(uint64_t ms, char ret[16])
{
    if (ms <= 99999999) {
        (void)snprintf(ret, 16, "%um", (unsigned)ms);
    } else {
        uint64_t s = ms / 1000;
        (void)snprintf(ret, 16, "%uS", (unsigned)(s > 99999999 ? 99999999 : s));
    }
}

/* gRPC: space to ~ without % as they are, every other byte of the UTF-8 text as %XX. */
size_t grpc_message_encode(const char *text, char *out, size_t size)
{
    static const char hex[] = "0123456789ABCDEF";
    size_t n = 0;
    size_t whole = 0; /* length at the last boundary between characters */
    for (const unsigned char *p = (const unsigned char *)text; *p != '\0'; p++) {
        bool plain = *p >= 0x20 && *p <= 0x7e && *p != '%';
        size_t need = plain ? 1 : 3;
        if ((*p & 0xc0) != 0x80) {
            whole = n;
        }
        if (size - n <= need) {
            n = whole;
            break;
        }
        if (plain) {
            out[n++] = (char)*p;
        } else {
            out[n++] = '%';
            out[n++] = hex[*p >> 4];
            out[n++] = hex[*p & 15];
        }
    }
    out[n] = '\0';
    return n;
}

static int hex_value(char c)
{
    if (c >= '0' && c <= '9') {
        return c - '0';
    }
    if (c >= 'a' && c <= 'f') {
        return c - 'a' + 10;
    }
    return c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1;
}

size_t grpc_message_decode(struct str s, char *out, size_t size)
{
    size_t n = 0;
    for (size_t i = 0; i < s.n && size - n > 1; i++) {
        unsigned char c = (unsigned char)s.p[i];
        if (c == '%' && s.n - i > 2 && hex_value(s.p[i + 1]) >= 0 && hex_value(s.p[i + 2]) >= 0) {
            c = (unsigned char)(hex_value(s.p[i + 1]) * 16 + hex_value(s.p[i + 2]));
            i += 2;
        }
        out[n++] = (char)c;
    }
    /* Decoded first: a control character may be written in either way. */
    struct str text = {out, n};
    size_t kept = 0;
    for (size_t i = 0; i < text.n;) {
        size_t control = str_control(text, i);
        char c = control > 0 ? '?' : out[i];
        i += control > 0 ? control : 1;
        out[kept++] = c;
    }
    out[kept] = '\0';
    return kept;
}

const char *grpc_status_name(enum grpc_status status)
{
    static const char *const names[] = {
        "OK",
        "Cancelled",
        "Unknown",
        "InvalidArgument",
        "DeadlineExceeded",
        "NotFound",
        "AlreadyExists",
        "PermissionDenied",
        "ResourceExhausted",
        "FailedPrecondition",
        "Aborted",
        "OutOfRange",
        "Unimplemented",
        "Internal",
        "Unavailable",
        "DataLoss",
        "Unauthenticated",
    };
    size_t i = (size_t)status;
    return i < sizeof(names) / sizeof(names[0]) ? names[i] : "Unknown";
}

/* http-grpc-status-mapping.md. */
enum grpc_status grpc_status_of_http(int http_status)
{
    switch (http_status) {
    case 400:
        return GRPC_INTERNAL;
    case 401:
        return GRPC_UNAUTHENTICATED;
    case 403:
        return GRPC_PERMISSION_DENIED;
    case 404:
        return GRPC_UNIMPLEMENTED;
    case 429:
    case 502:
    case 503:
    case 504:
        return GRPC_UNAVAILABLE;
    default:
        return GRPC_UNKNOWN;
    }
}

/* PROTOCOL-HTTP2.md, Errors. */
enum grpc_status grpc_status_of_reset(uint32_t error_code)
{
    switch (error_code) {
    case NGHTTP2_REFUSED_STREAM:
        return GRPC_UNAVAILABLE;
    case NGHTTP2_CANCEL:
        return GRPC_CANCELLED;
    case NGHTTP2_ENHANCE_YOUR_CALM:
        return GRPC_RESOURCE_EXHAUSTED;
    case NGHTTP2_INADEQUATE_SECURITY:
        return GRPC_PERMISSION_DENIED;
    default:
        return GRPC_INTERNAL;
    }
}
