#include "jwt_priv.h"

#include <stdlib.h>

static const char ALPHABET[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

bool jwt_base64_append(struct buf *out, const void *p, size_t n)
{
    const uint8_t *in = p;
    size_t len = n / 3 * 4 + (n % 3 > 0 ? n % 3 + 1 : 0);
    uint8_t *to = buf_reserve(out, len);
    size_t at = 0;
    uint32_t bits = 0;
    unsigned held = 0;

    if (to == NULL) {
        return false;
    }
    for (size_t i = 0; i < n; i++) {
        bits = bits << 8 | in[i];
        for (held += 8; held >= 6; held -= 6) {
            to[at++] = (uint8_t)ALPHABET[bits >> (held - 6) & 63];
        }
    }
    if (held > 0) {
        to[at++] = (uint8_t)ALPHABET[bits << (6 - held) & 63];
    }
    POSTERN_ASSERT(at == len);
    buf_commit(out, len);
    return true;
}

static int value_of(char c)
{
    if (c >= 'A' && c <= 'Z') {
        return c - 'A';
    }
    if (c >= 'a' && c <= 'z') {
        return c - 'a' + 26;
    }
    if (c >= '0' && c <= '9') {
        return c - '0' + 52;
    }
    return c == '-' ? 62 : c == '_' ? 63 : -1;
}

bool jwt_base64_decode(struct str text, uint8_t **ret, size_t *ret_len)
{
    uint8_t *out;
    size_t len = 0;
    uint32_t bits = 0;
    unsigned held = 0;

    if (text.n % 4 == 1) {
        return false;
    }
    out = malloc(text.n / 4 * 3 + 4);
    if (out == NULL) {
        return false;
    }
    for (size_t i = 0; i < text.n; i++) {
        int v = value_of(text.p[i]);

        if (v == -1) {
            free(out);
            return false;
        }
        bits = bits << 6 | (uint32_t)v;
        held += 6;
        if (held >= 8) {
            held -= 8;
            out[len++] = (uint8_t)(bits >> held);
        }
    }
    if ((bits & ((1U << held) - 1)) != 0) { /* more than one text would mean these bytes */
        free(out);
        return false;
    }
    out[len] = 0;
    *ret = out;
    *ret_len = len;
    return true;
}
