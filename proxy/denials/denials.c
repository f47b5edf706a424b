/* The ring: slots of one size, each with a count that is odd while it is written. */
#include <postern/denials.h>

#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

enum { WORDS = DENIALS_SLOT / 8 - 1, BYTES = WORDS * 8 };

/* Data are stored with release and loaded with acquire: whoever sees a word of a new denial sees
 * the odd count before it, and looks at the count last. */
struct slot {
    _Atomic uint64_t turn;
    _Atomic uint64_t words[WORDS];
};
_Static_assert(sizeof(struct slot) == DENIALS_SLOT, "as is said");

struct denials {
    _Atomic(struct slot *) slots; /* owned; NULL: nothing was denied yet */
    uint32_t n;
    _Atomic uint64_t written;
};

struct denials *denials_new(uint32_t n)
{
    struct denials *d = mem_must_new(struct denials);
    d->n = n;
    return d;
}

struct denials *denials_free(struct denials *d)
{
    if (d != NULL) {
        free(atomic_load_explicit(&d->slots, memory_order_relaxed));
        free(d);
    }
    return NULL;
}

bool denials_wanted(const struct denials *d)
{
    return d != NULL && d->n > 0;
}

/* --- a denial as bytes ------------------------------------------------------------------------ */

/* In this order: what callers make long comes last. */
#define TEXTS(x)                                                                                   \
    {&(x)->decision, &(x)->protocol, &(x)->reason, &(x)->listener, &(x)->own_id, &(x)->peer_id,    \
     &(x)->source,   &(x)->rule,     &(x)->method, &(x)->host,     &(x)->path,   &(x)->query}
enum { N_TEXTS = 12 };

struct fixed {
    uint64_t ts_ms, conn, generation, files_generation, state_generation;
    uint16_t lengths[N_TEXTS];
    uint16_t port, n_fields;
    uint8_t flags[8];
};
struct field_head {
    uint16_t name, value;
    uint8_t kind, withheld;
};

struct writer {
    uint8_t bytes[BYTES];
    size_t n;
};

static void add(struct writer *w, const void *p, size_t n)
{
    if (n > 0) {
        memcpy(w->bytes + w->n, p, n);
        w->n += n;
    }
}

/* All of the texts, as far as there is room: those behind are shorter for it. Half a query would be
 * another one. True: all are whole. */
static bool add_texts(struct writer *w, const struct denial *x, struct fixed *f)
{
    const struct str *const texts[N_TEXTS] = TEXTS(x);
    bool whole = true;
    for (size_t i = 0; i < N_TEXTS; i++) {
        struct str s = *texts[i];
        size_t room = BYTES - w->n;
        size_t n = s.n <= room ? s.n : i == N_TEXTS - 1 ? 0 : room;
        f->lengths[i] = (uint16_t)n;
        whole = whole && n == s.n;
        add(w, s.p, n);
    }
    return whole;
}

/* A value that is not whole would be another one: such a field is left out. */
static bool add_fields(struct writer *w, const struct denial *x, struct fixed *f)
{
    for (size_t i = 0; i < x->n_fields; i++) {
        const struct denial_field *field = &x->fields[i];
        size_t value = field->withheld ? 0 : field->value.n;
        if (f->n_fields == DENIALS_FIELDS_MAX ||
            sizeof(struct field_head) + field->name.n + value > BYTES - w->n) {
            return false;
        }
        struct field_head h;
        memset(&h, 0, sizeof(h));
        h.name = (uint16_t)field->name.n;
        h.value = (uint16_t)value;
        h.kind = (uint8_t)field->kind;
        h.withheld = field->withheld;
        add(w, &h, sizeof(h));
        add(w, field->name.p, field->name.n);
        add(w, field->value.p, value);
        f->n_fields++;
    }
    return true;
}

static void write_denial(struct writer *w, const struct denial *x)
{
    struct fixed f;
    memset(&f, 0, sizeof(f));
    f.ts_ms = x->ts_ms;
    f.conn = x->conn;
    f.generation = x->generation;
    f.files_generation = x->files_generation;
    f.state_generation = x->state_generation;
    f.port = x->port;
    w->n = sizeof(f);
    bool whole = add_texts(w, x, &f);
    bool all = add_fields(w, x, &f);
    bool query = x->query_known && f.lengths[N_TEXTS - 1] == x->query.n;
    const bool flags[8] = {x->request,      x->grpc,          query,  x->headers_known,
                           x->claims_known, x->other_reading, !whole, x->fields_cut || !all};
    memcpy(f.flags, flags, sizeof(f.flags));
    memcpy(w->bytes, &f, sizeof(f));
}

/* --- writing ---------------------------------------------------------------------------------- */

void denials_put(struct denials *d, const struct denial *x)
{
    struct slot *slots = atomic_load_explicit(&d->slots, memory_order_relaxed);
    uint64_t written = atomic_load_explicit(&d->written, memory_order_relaxed);
    if (d->n == 0) {
        return;
    }
    if (slots == NULL) {
        slots = (struct slot *)calloc(d->n, sizeof(*slots));
        if (slots == NULL) {
            return;
        }
        atomic_store_explicit(&d->slots, slots, memory_order_release);
    }
    struct writer w;
    write_denial(&w, x);
    memset(w.bytes + w.n, 0, (8 - w.n % 8) % 8);
    struct slot *s = &slots[written % d->n];
    uint64_t turn = atomic_load_explicit(&s->turn, memory_order_relaxed);
    atomic_store_explicit(&s->turn, turn + 1, memory_order_relaxed);
    for (size_t i = 0; i * 8 < w.n; i++) {
        uint64_t word;
        memcpy(&word, w.bytes + i * 8, sizeof(word));
        atomic_store_explicit(&s->words[i], word, memory_order_release);
    }
    atomic_store_explicit(&s->turn, turn + 2, memory_order_release);
    atomic_store_explicit(&d->written, written + 1, memory_order_release);
}

/* --- reading ---------------------------------------------------------------------------------- */

static bool take(const uint8_t **p, size_t *left, size_t n, const char **ret)
{
    if (n > *left) {
        return false;
    }
    *ret = (const char *)*p;
    *p += n;
    *left -= n;
    return true;
}

static bool take_field(const uint8_t **p, size_t *left, struct denial_field *ret)
{
    struct field_head h;
    const char *head, *name, *value;
    if (!take(p, left, sizeof(h), &head)) {
        return false;
    }
    memcpy(&h, head, sizeof(h));
    if (h.kind > DENIAL_PARAMETER || !take(p, left, h.name, &name) ||
        !take(p, left, h.value, &value)) {
        return false;
    }
    *ret = (struct denial_field){.name = {name, h.name},
                                 .value = {value, h.value},
                                 .kind = (enum denial_field_kind)h.kind,
                                 .withheld = h.withheld != 0};
    return true;
}

bool denial_parse(struct denial_copy *ret, size_t n)
{
    struct fixed f;
    const uint8_t *p = (const uint8_t *)ret->bytes;
    const char *head;
    size_t left = n;
    if (n > sizeof(ret->bytes) || !take(&p, &left, sizeof(f), &head)) {
        return false;
    }
    memcpy(&f, head, sizeof(f));
    ret->denial = (struct denial){.ts_ms = f.ts_ms,
                                  .conn = f.conn,
                                  .generation = f.generation,
                                  .files_generation = f.files_generation,
                                  .state_generation = f.state_generation,
                                  .port = f.port,
                                  .request = f.flags[0] != 0,
                                  .grpc = f.flags[1] != 0,
                                  .query_known = f.flags[2] != 0,
                                  .headers_known = f.flags[3] != 0,
                                  .claims_known = f.flags[4] != 0,
                                  .other_reading = f.flags[5] != 0,
                                  .path_cut = f.flags[6] != 0,
                                  .fields_cut = f.flags[7] != 0,
                                  .fields = ret->fields,
                                  .n_fields = f.n_fields};
    struct str *const texts[N_TEXTS] = TEXTS(&ret->denial);
    for (size_t i = 0; i < N_TEXTS; i++) {
        texts[i]->n = f.lengths[i];
        if (!take(&p, &left, texts[i]->n, &texts[i]->p)) {
            return false;
        }
    }
    if (f.n_fields > DENIALS_FIELDS_MAX) {
        return false;
    }
    for (size_t i = 0; i < f.n_fields; i++) {
        if (!take_field(&p, &left, &ret->fields[i])) {
            return false;
        }
    }
    return true;
}

size_t denials_count(const struct denials *d)
{
    uint64_t written =
        atomic_load_explicit(&((struct denials *)(uintptr_t)d)->written, memory_order_acquire);
    return written < d->n ? (size_t)written : d->n;
}

bool denials_read(const struct denials *d, size_t back, struct denial_copy *ret)
{
    struct denials *m = (struct denials *)(uintptr_t)d; /* an atomic load is none of a const */
    uint64_t written = atomic_load_explicit(&m->written, memory_order_acquire);
    struct slot *slots = atomic_load_explicit(&m->slots, memory_order_acquire);
    if (slots == NULL || back >= d->n || back >= written) {
        return false;
    }
    struct slot *s = &slots[(written - 1 - back) % d->n];
    uint64_t turn = atomic_load_explicit(&s->turn, memory_order_acquire);
    for (size_t i = 0; i < WORDS; i++) {
        ret->bytes[i] = atomic_load_explicit(&s->words[i], memory_order_acquire);
    }
    uint64_t after = atomic_load_explicit(&s->turn, memory_order_relaxed);
    return turn % 2 == 0 && turn == after && denial_parse(ret, BYTES);
}
