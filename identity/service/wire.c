/* A cursor over the fields of a protobuf message, for messages that nest: who reads decides how
 * deep. */
#include "service_priv.h"

static bool varint(struct service_wire *w, uint64_t *ret)
{
    uint64_t value = 0;
    for (unsigned shift = 0; shift < 64 && w->n > 0; shift += 7) {
        uint8_t byte = *w->p;
        w->p++;
        w->n--;
        value |= (uint64_t)(byte & 0x7f) << shift;
        if ((byte & 0x80) == 0) {
            *ret = value;
            return true;
        }
    }
    return false;
}

static bool take(struct service_wire *w, uint64_t n, struct str *ret)
{
    if (n > w->n) {
        return false;
    }
    *ret = (struct str){(const char *)w->p, (size_t)n};
    w->p += n;
    w->n -= (size_t)n;
    return true;
}

struct service_wire service_wire_of(struct str message)
{
    return (struct service_wire){.p = (const uint8_t *)message.p, .n = message.n};
}

bool service_wire_next(struct service_wire *w)
{
    enum { VARINT = 0, FIXED64 = 1, BYTES = 2, FIXED32 = 5 };
    uint64_t key = 0;
    bool ok = false;
    w->number = 0;
    w->bytes = STR_NONE;
    if (w->bad || w->n == 0) {
        return false;
    }
    if (!varint(w, &key) || key >> 3 == 0 || key >> 3 > UINT32_MAX / 8) {
        w->bad = true;
        return false;
    }
    w->field = (uint32_t)(key >> 3);
    w->is_bytes = (key & 7) == BYTES;
    switch (key & 7) {
    case VARINT:
        ok = varint(w, &w->number);
        break;
    case BYTES:
        ok = varint(w, &w->number) && take(w, w->number, &w->bytes);
        break;
    case FIXED64:
        ok = take(w, 8, &w->bytes);
        break;
    case FIXED32:
        ok = take(w, 4, &w->bytes);
        break;
    default: /* groups, which nobody sends */
        break;
    }
    w->bad = !ok;
    return ok;
}

bool service_wire_put(struct buf *out, uint32_t field, struct str bytes)
{
    uint8_t head[20];
    size_t n = 0;
    uint64_t numbers[] = {(uint64_t)field << 3 | 2, bytes.n};
    for (size_t i = 0; i < 2; i++) {
        uint64_t v = numbers[i];
        for (; v >= 0x80; v >>= 7) {
            head[n++] = (uint8_t)(v | 0x80);
        }
        head[n++] = (uint8_t)v;
    }
    return buf_append(out, head, n) && buf_append_str(out, bytes);
}
