/*
 * Records of authorities, in memory and as bytes. The payload, numbers big-endian:
 *
 *   u32 version (1), u64 sequence, text8 trust domain, u16 count, then each record:
 *   u8 kind, u8 state, text8 id, i64 created, i64 changed, i64 not after, i64 signed until,
 *   u16 length and key, u16 length and certificate
 */
#include "store.h"

#include <postern/mem.h>
#include <stdlib.h>
#include <string.h>

enum { VERSION = 1, TRUST_DOMAIN_MAX = 255, RECORD_FIXED = 1 + 1 + 1 + 4 * 8 + 2 + 2 };

const char *keeper_kind_name(enum keeper_kind kind)
{
    return kind == KEEPER_X509 ? "x509" : "jwt";
}

const char *keeper_state_name(enum keeper_state state)
{
    static const char *const NAMES[] = {"unknown", "prepared", "active", "old", "tainted"};

    return (size_t)state < sizeof(NAMES) / sizeof(NAMES[0]) ? NAMES[state] : NAMES[0];
}

/* --- records ---------------------------------------------------------------------------------- */
static void record_deinit(struct keeper_record *r)
{
    mem_secret_free(r->key);
    free(r->cert);
    *r = (struct keeper_record){.key = NULL};
}

void keeper_store_init(struct keeper_store *store, struct str trust_domain)
{
    *store =
        (struct keeper_store){.trust_domain = mem_must_strndup(trust_domain.p, trust_domain.n)};
}

void keeper_store_deinit(struct keeper_store *store)
{
    for (size_t i = 0; i < store->n; i++) {
        record_deinit(&store->records[i]);
    }
    free(store->records);
    free(store->trust_domain);
    *store = (struct keeper_store){.records = NULL};
}

static size_t count_kind(const struct keeper_store *store, enum keeper_kind kind)
{
    size_t n = 0;

    for (size_t i = 0; i < store->n; i++) {
        n += store->records[i].kind == kind ? 1 : 0;
    }
    return n;
}

struct keeper_record *keeper_store_add(struct keeper_store *store, enum keeper_kind kind,
                                       enum keeper_state state)
{
    if (count_kind(store, kind) >= KEEPER_RECORDS_MAX) {
        return NULL;
    }
    store->records = mem_must_realloc(store->records, (store->n + 1) * sizeof(*store->records));
    store->records[store->n] = (struct keeper_record){.kind = kind, .state = state};
    return &store->records[store->n++];
}

void keeper_store_remove(struct keeper_store *store, const struct keeper_record *record)
{
    size_t at = (size_t)(record - store->records);

    POSTERN_ASSERT(at < store->n);
    record_deinit(&store->records[at]);
    memmove(&store->records[at], &store->records[at + 1],
            (store->n - at - 1) * sizeof(*store->records));
    store->n--;
}

struct keeper_record *keeper_store_find(const struct keeper_store *store, enum keeper_kind kind,
                                        enum keeper_state state)
{
    for (size_t i = 0; i < store->n; i++) {
        if (store->records[i].kind == kind && store->records[i].state == state) {
            return &store->records[i];
        }
    }
    return NULL;
}

struct keeper_record *keeper_store_find_id(const struct keeper_store *store, enum keeper_kind kind,
                                           struct str id)
{
    for (size_t i = 0; i < store->n; i++) {
        if (store->records[i].kind == kind && str_eq(str_of(store->records[i].id), id)) {
            return &store->records[i];
        }
    }
    return NULL;
}

bool keeper_record_set_key(struct keeper_record *record, const void *der, size_t len)
{
    uint8_t *copy = len > 0 && len <= KEEPER_KEY_MAX ? mem_secret_alloc(len) : NULL;

    if (copy == NULL) {
        return false;
    }
    memcpy(copy, der, len);
    mem_secret_free(record->key);
    record->key = copy;
    record->key_len = len;
    return true;
}

bool keeper_record_set_cert(struct keeper_record *record, const void *der, size_t len)
{
    if (len == 0 || len > KEEPER_CERT_MAX) {
        return false;
    }
    free(record->cert);
    record->cert = mem_must_calloc(1, len);
    memcpy(record->cert, der, len);
    record->cert_len = len;
    return true;
}

static int copy_record(const struct keeper_record *from, struct keeper_record *to, struct err *err)
{
    uint8_t *key = to->key, *cert = to->cert;

    *to = *from;
    to->key = key;
    to->cert = cert;
    to->key_len = to->cert_len = 0;
    if ((from->key != NULL && !keeper_record_set_key(to, from->key, from->key_len)) ||
        (from->cert != NULL && !keeper_record_set_cert(to, from->cert, from->cert_len))) {
        return err_set(err, ERR_LIMIT, "no memory for a key");
    }
    return 0;
}

int keeper_store_copy(const struct keeper_store *store, struct keeper_store *ret, struct err *err)
{
    struct keeper_store copy;

    keeper_store_init(&copy, str_of(store->trust_domain));
    copy.sequence = store->sequence;
    for (size_t i = 0; i < store->n; i++) {
        const struct keeper_record *from = &store->records[i];
        struct keeper_record *to = keeper_store_add(&copy, from->kind, from->state);

        if (to == NULL || copy_record(from, to, err) == -1) {
            keeper_store_deinit(&copy);
            return -1;
        }
    }
    *ret = copy;
    return 0;
}

/* --- writing ---------------------------------------------------------------------------------- */
/* The room was measured before: nothing here can run over it. */
struct writer {
    uint8_t *p;
    size_t left;
};

static void put(struct writer *w, const void *p, size_t n)
{
    POSTERN_ASSERT(n <= w->left);
    if (n > 0) {
        memcpy(w->p, p, n);
    }
    w->p += n;
    w->left -= n;
}

static void put_number(struct writer *w, uint64_t value, size_t n)
{
    for (size_t i = n; i > 0; i--) {
        uint8_t byte = (uint8_t)(value >> (8 * (i - 1)));

        put(w, &byte, 1);
    }
}

static void put_text8(struct writer *w, const char *text)
{
    size_t n = strlen(text);

    put_number(w, n, 1);
    put(w, text, n);
}

static void put_record(struct writer *w, const struct keeper_record *r)
{
    put_number(w, r->kind, 1);
    put_number(w, r->state, 1);
    put_text8(w, r->id);
    put_number(w, (uint64_t)r->created_s, 8);
    put_number(w, (uint64_t)r->changed_s, 8);
    put_number(w, (uint64_t)r->not_after_s, 8);
    put_number(w, (uint64_t)r->signed_until_s, 8);
    put_number(w, r->key_len, 2);
    put(w, r->key, r->key_len);
    put_number(w, r->cert_len, 2);
    put(w, r->cert, r->cert_len);
}

int keeper_store_encode(const struct keeper_store *store, uint8_t **ret, size_t *ret_len,
                        struct err *err)
{
    size_t size = 4 + 8 + 1 + strlen(store->trust_domain) + 2;
    struct writer w;
    uint8_t *bytes;

    for (size_t i = 0; i < store->n; i++) {
        const struct keeper_record *r = &store->records[i];

        size += RECORD_FIXED + strlen(r->id) + r->key_len + r->cert_len;
    }
    if (size > KEEPER_PAYLOAD_MAX) {
        return err_set(err, ERR_LIMIT, "the authorities need %zu bytes", size);
    }
    bytes = mem_secret_alloc(size);
    if (bytes == NULL) {
        return err_set(err, ERR_LIMIT, "no memory for the authorities");
    }
    w = (struct writer){bytes, size};
    put_number(&w, VERSION, 4);
    put_number(&w, store->sequence, 8);
    put_text8(&w, store->trust_domain);
    put_number(&w, store->n, 2);
    for (size_t i = 0; i < store->n; i++) {
        put_record(&w, &store->records[i]);
    }
    POSTERN_ASSERT(w.left == 0);
    *ret = bytes;
    *ret_len = size;
    return 0;
}

/* --- reading ---------------------------------------------------------------------------------- */
/* A cursor whose first error stays. */
struct reader {
    const uint8_t *p;
    size_t left;
    bool bad;
};

static const uint8_t *take(struct reader *r, size_t n)
{
    const uint8_t *p = r->p;

    if (r->bad || n > r->left) {
        r->bad = true;
        return NULL;
    }
    r->p += n;
    r->left -= n;
    return p;
}

static uint64_t take_number(struct reader *r, size_t n)
{
    const uint8_t *p = take(r, n);
    uint64_t value = 0;

    for (size_t i = 0; p != NULL && i < n; i++) {
        value = value << 8 | p[i];
    }
    return value;
}

/* A time: no agent writes one before 1970. */
static int64_t take_time(struct reader *r)
{
    uint64_t value = take_number(r, 8);

    if (value > INT64_MAX) {
        r->bad = true;
        return 0;
    }
    return (int64_t)value;
}

static struct str take_text8(struct reader *r)
{
    size_t n = (size_t)take_number(r, 1);
    const uint8_t *p = take(r, n);

    return p != NULL ? (struct str){(const char *)p, n} : STR_NONE;
}

static bool id_ok(struct str id)
{
    if (id.n == 0 || id.n > KEEPER_RECORD_ID_MAX) {
        return false;
    }
    for (size_t i = 0; i < id.n; i++) {
        char c = id.p[i];

        if (!((c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
              c == '-' || c == '_')) {
            return false;
        }
    }
    return true;
}

static bool take_record(struct reader *r, struct keeper_store *store)
{
    uint64_t kind = take_number(r, 1), state = take_number(r, 1);
    struct str id = take_text8(r);
    struct keeper_record *record;
    const uint8_t *p;
    size_t n;

    if (r->bad || (kind != KEEPER_X509 && kind != KEEPER_JWT) || state < KEEPER_PREPARED ||
        state > KEEPER_TAINTED || id.p == NULL || !id_ok(id) ||
        keeper_store_find_id(store, (enum keeper_kind)kind, id) != NULL) {
        return false;
    }
    if ((state == KEEPER_PREPARED || state == KEEPER_ACTIVE) &&
        keeper_store_find(store, (enum keeper_kind)kind, (enum keeper_state)state) != NULL) {
        return false;
    }
    record = keeper_store_add(store, (enum keeper_kind)kind, (enum keeper_state)state);
    if (record == NULL) {
        return false;
    }
    memcpy(record->id, id.p, id.n);
    record->created_s = take_time(r);
    record->changed_s = take_time(r);
    record->not_after_s = take_time(r);
    record->signed_until_s = take_time(r);
    n = (size_t)take_number(r, 2);
    p = take(r, n);
    if (n > 0 && (p == NULL || !keeper_record_set_key(record, p, n))) {
        return false;
    }
    n = (size_t)take_number(r, 2);
    p = take(r, n);
    return !r->bad && (n == 0 || keeper_record_set_cert(record, p, n));
}

static bool take_store(struct reader *r, struct keeper_store *store)
{
    uint64_t sequence, n;
    struct str domain;

    sequence = take_number(r, 8);
    domain = take_text8(r);
    n = take_number(r, 2);
    if (r->bad || domain.n == 0 || memchr(domain.p, 0, domain.n) != NULL) {
        return false;
    }
    keeper_store_init(store, domain);
    store->sequence = sequence;
    for (uint64_t i = 0; i < n; i++) {
        if (!take_record(r, store)) {
            return false;
        }
    }
    return !r->bad && r->left == 0;
}

int keeper_store_decode(struct str payload, struct keeper_store *ret, struct err *err)
{
    struct reader r = {(const uint8_t *)payload.p, payload.n, payload.n > KEEPER_PAYLOAD_MAX};
    struct keeper_store store = {.records = NULL};
    uint64_t version = take_number(&r, 4);

    if (!r.bad && version != VERSION) {
        err_set(err, ERR_CONFIG, "the authorities are of version %llu",
                (unsigned long long)version);
        err_expected(err, "version %d", VERSION);
        return err_advise(err, "start the release that wrote them, or a newer one");
    }
    if (!take_store(&r, &store)) {
        keeper_store_deinit(&store);
        return err_set(err, ERR_CONFIG, "the authorities are not as an agent writes them");
    }
    *ret = store;
    return 0;
}
