/* traceparent (W3C Trace Context, level 1, 3.2): what may be passed on, and one to begin with. */
#include <postern/http1.h>

#include "http1_priv.h"

#include <postern/err.h>
#include <stdio.h>

/* Where the fields of version 00 begin and end. */
enum { TRACE_AT = 3, TRACE_END = 35, PARENT_AT = 36, PARENT_END = 52, FLAGS_AT = 53 };

static bool is_lower_hex(struct str s, size_t from, size_t to, bool *ret_zero)
{
    *ret_zero = true;
    for (size_t i = from; i < to; i++) {
        char c = s.p[i];
        if (!((c >= '0' && c <= '9') || (c >= 'a' && c <= 'f'))) {
            return false;
        }
        *ret_zero = *ret_zero && c == '0';
    }
    return true;
}

bool http1_traceparent_valid(struct str value)
{
    bool zero;
    if (value.n < HTTP1_TRACEPARENT_LEN || value.n > 2U * HTTP1_TRACEPARENT_LEN ||
        value.p[TRACE_AT - 1] != '-' || value.p[TRACE_END] != '-' || value.p[PARENT_END] != '-') {
        return false;
    }
    bool version = is_lower_hex(value, 0, TRACE_AT - 1, &zero) && memcmp(value.p, "ff", 2) != 0;
    /* What a later version appends begins with a dash (4.3). */
    bool end = value.n == HTTP1_TRACEPARENT_LEN || (!zero && value.p[HTTP1_TRACEPARENT_LEN] == '-');
    return version && end && is_lower_hex(value, TRACE_AT, TRACE_END, &zero) && !zero &&
           is_lower_hex(value, PARENT_AT, PARENT_END, &zero) && !zero &&
           is_lower_hex(value, FLAGS_AT, HTTP1_TRACEPARENT_LEN, &zero);
}

static char *put_hex(char *at, uint64_t v)
{
    for (int shift = 60; shift >= 0; shift -= 4) {
        *at++ = "0123456789abcdef"[v >> shift & 15];
    }
    return at;
}

void http1_traceparent_begin(const uint64_t random[3], char ret[HTTP1_TRACEPARENT_LEN + 1])
{
    POSTERN_ASSERT(random[0] != 0 && random[2] != 0);
    char *at = ret;
    memcpy(at, "00-", 3);
    at = put_hex(at + 3, random[0]);
    at = put_hex(at, random[1]);
    *at++ = '-';
    at = put_hex(at, random[2]);
    memcpy(at, "-01", 4);
}
