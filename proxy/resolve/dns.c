/* Reading a name server's answer (RFC 1035 section 4): addresses and their time to live. */
#include "resolver_priv.h"

enum {
    HEADER_SIZE = 12,
    QUESTION_SIZE = 4, /* behind its name */
    RECORD_SIZE = 10,  /* behind its name, before its data */
    CLASS_IN = 1,
    TYPE_CNAME = 5,
    LABELS_MAX = 128,
};

/* Reading past the end sets `bad`, which stays. */
struct reader {
    const uint8_t *p;
    size_t left;
    bool bad;
};

static const uint8_t *take(struct reader *r, size_t n)
{
    static const uint8_t zeros[RECORD_SIZE];
    if (r->bad || r->left < n) {
        r->bad = true;
        return zeros;
    }
    const uint8_t *p = r->p;
    r->p += n;
    r->left -= n;
    return p;
}

static unsigned get16(const uint8_t *p)
{
    return (unsigned)p[0] << 8 | p[1];
}

/* A name is not needed here, only its end: labels up to the empty one, or to a reference, which is
 * never followed. */
static void skip_name(struct reader *r)
{
    for (unsigned i = 0; i < LABELS_MAX; i++) {
        uint8_t n = *take(r, 1);
        if (r->bad || n == 0) {
            return;
        }
        if ((n & 0xc0) == 0xc0) {
            (void)take(r, 1);
            return;
        }
        if ((n & 0xc0) != 0) {
            break;
        }
        (void)take(r, n);
    }
    r->bad = true;
}

static void add(struct addresses *to, unsigned type, const uint8_t *data)
{
    if (to->n == RESOLVE_ADDRS_MAX) {
        return;
    }
    struct resolve_address *a = &to->list[to->n++];
    *a = (struct resolve_address){.family = type == DNS_TYPE_A ? 4 : 6};
    memcpy(a->bytes, data, type == DNS_TYPE_A ? 4 : 16);
}

bool dns_read_answer(const uint8_t *msg, size_t len, unsigned type, struct addresses *to)
{
    struct reader r = {.p = msg, .left = len};
    const uint8_t *head = take(&r, HEADER_SIZE);
    if (r.bad || (head[2] & 0x80) == 0) { /* too short, or a question */
        return false;
    }
    unsigned n_questions = get16(head + 4);
    unsigned n_answers = get16(head + 6);
    struct addresses found = *to;
    for (unsigned i = 0; !r.bad && i < n_questions; i++) {
        skip_name(&r);
        (void)take(&r, QUESTION_SIZE);
    }
    for (unsigned i = 0; !r.bad && i < n_answers; i++) {
        skip_name(&r);
        const uint8_t *p = take(&r, RECORD_SIZE);
        unsigned record = get16(p);
        bool in = get16(p + 2) == CLASS_IN;
        uint32_t ttl = (uint32_t)get16(p + 4) << 16 | get16(p + 6);
        size_t n = get16(p + 8);
        const uint8_t *data = take(&r, n);
        if (r.bad) {
            break;
        }
        bool address = in && record == type;
        if (address && n != (type == DNS_TYPE_A ? 4 : 16)) {
            return false;
        }
        if (address) {
            add(&found, type, data);
        }
        if (in && (address || record == TYPE_CNAME) && ttl < found.ttl_s) {
            found.ttl_s = ttl; /* RFC 2181 8: what has the highest bit set is zero */
        }
        if (in && (address || record == TYPE_CNAME) && (ttl & 0x80000000U) != 0) {
            found.ttl_s = 0;
        }
    }
    if (r.bad) {
        return false;
    }
    *to = found;
    return true;
}
