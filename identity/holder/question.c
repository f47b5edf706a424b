/* What may be asked: sizes, kinds, and no field that does not belong. */
#include "holder_priv.h"

#include <string.h>

static bool no_transcript(const struct holder_question *q, size_t from)
{
    uint8_t any = 0;
    for (size_t i = from; i < sizeof(q->transcript); i++) {
        any |= q->transcript[i];
    }
    return any == 0;
}

bool holder_question_ok(const void *data, size_t len, bool has_fd, struct holder_question *ret)
{
    struct holder_question q;
    bool ok = false;
    if (len != sizeof(q) || has_fd) {
        return false;
    }
    memcpy(&q, data, sizeof(q));
    switch (q.type) {
    case HOLDER_MAKE:
    case HOLDER_REPORT:
        ok = q.holder == 0 && q.key == 0 && q.role == 0 && q.transcript_len == 0 &&
             no_transcript(&q, 0);
        break;
    case HOLDER_DROP:
        ok = q.key != 0 && q.role == 0 && q.transcript_len == 0 && no_transcript(&q, 0);
        break;
    case HOLDER_SIGN:
        ok = q.key != 0 && q.role <= AWAY_CLIENT &&
             (q.transcript_len == 32 || q.transcript_len == 48) &&
             no_transcript(&q, q.transcript_len);
        break;
    default:
        break;
    }
    if (!ok || q.version != HOLDER_WIRE_VERSION || q.id == 0) {
        return false;
    }
    *ret = q;
    return true;
}
