/* Whether lines follow each other as an audit log wrote them. */
#include <postern/audit_verify.h>

#include <openssl/evp.h>
#include <postern/jsonl.h>
#include <postern/mem_grow.h>
#include <stdlib.h>
#include <string.h>

static void hash_of(struct str s, uint8_t ret[AUDIT_HASH_SIZE])
{
    unsigned n = AUDIT_HASH_SIZE;
    bool ok = EVP_Digest(s.p != NULL ? s.p : "", s.n, ret, &n, EVP_sha256(), NULL) == 1;
    POSTERN_ASSERT(ok && n == AUDIT_HASH_SIZE);
}

void audit_verify_file(struct audit_verify *v)
{
    v->fresh = true;
}

void audit_verify_deinit(struct audit_verify *v)
{
    free(v->hashes);
    v->hashes = NULL;
}

/* --- the chain -------------------------------------------------------------------------------- */

static void remember(struct audit_verify *v)
{
    MEM_GROW(v->hashes, v->n_hashes, v->room, 1024);
    memcpy(v->hashes[v->n_hashes++], v->head, AUDIT_HASH_SIZE);
}

/* A file that began at a take-over goes on from a line of the file before, not always its last. */
static bool goes_on_from(const struct audit_verify *v, uint64_t seq, const uint8_t *prev)
{
    return seq > v->hashes_from && seq - 1 - v->hashes_from < v->n_hashes &&
           memcmp(v->hashes[seq - 1 - v->hashes_from], prev, AUDIT_HASH_SIZE) == 0;
}

struct line {
    struct jsonl fields;
    uint64_t seq;
    bool has_prev, is_begin;
    uint8_t prev[AUDIT_HASH_SIZE];
};

static bool parse(struct str line, struct line *ret)
{
    return line.n < AUDIT_LINE_MAX && jsonl_parse(line, &ret->fields) &&
           str_eq(ret->fields.fields[0].key, STR_LIT("seq")) &&
           jsonl_get_uint(&ret->fields, "seq", &ret->seq) && ret->seq > 0 &&
           jsonl_find(&ret->fields, "event") != NULL;
}

/* Of the next line after a good one. */
static const char *follows(struct audit_verify *v, const struct line *l)
{
    if (l->is_begin && v->fresh && jsonl_is(&l->fields, "why", "taken_over") && v->any) {
        if (l->has_prev && !goes_on_from(v, l->seq, l->prev)) {
            return "this file does not go on from a line of the one before";
        }
        v->fork = true;
        return NULL;
    }
    if (l->seq != v->seq + 1) {
        return l->seq > v->seq ? "lines are missing before this one"
                               : "this line was there before, or stood somewhere else";
    }
    if (l->has_prev && memcmp(l->prev, v->head, AUDIT_HASH_SIZE) != 0) {
        return "the line before was changed, or another one stood there";
    }
    if (v->chained && !l->has_prev && !l->is_begin) {
        return "this line names none before it, and those before do";
    }
    return NULL;
}

static const char *owns_up(struct audit_verify *v, const struct line *l)
{
    uint8_t said[AUDIT_HASH_SIZE];
    uint64_t n = 0;
    bool says = jsonl_get_uint(&l->fields, "torn_bytes", &n) &&
                jsonl_get_hex(&l->fields, "torn_sha256", said, sizeof(said));
    if (v->torn_waiting != says ||
        (says && (n != v->torn_bytes || memcmp(said, v->torn_hash, sizeof(said)) != 0))) {
        return v->torn_waiting ? "the line before is none, and this one does not own up to it"
                               : "it speaks of torn bytes that are not there";
    }
    v->torn += says ? 1 : 0;
    v->torn_waiting = false;
    return NULL;
}

static void count(struct audit_verify *v, const struct line *l)
{
    uint64_t n;
    v->lines++;
    v->begins += l->is_begin ? 1 : 0;
    if (jsonl_is(&l->fields, "event", "lost")) {
        v->lost += jsonl_get_uint(&l->fields, "count", &n) ? n : 0;
    } else if (!l->is_begin) {
        v->decisions++;
        v->denied += jsonl_is(&l->fields, "verdict", "deny") ? 1 : 0;
    }
}

/* What cannot be read may be what a crash left. */
static const char *take_torn(struct audit_verify *v, struct str line)
{
    if (v->torn_waiting) {
        return "this is no line of an audit log";
    }
    v->torn_waiting = true;
    v->torn_bytes = line.n;
    hash_of(line, v->torn_hash);
    return NULL;
}

const char *audit_verify_line(struct audit_verify *v, struct str line, bool ended)
{
    struct line l = {.seq = 0};
    if (!ended || !parse(line, &l)) {
        return take_torn(v, line);
    }
    l.has_prev = jsonl_get_hex(&l.fields, "prev", l.prev, sizeof(l.prev));
    l.is_begin = jsonl_is(&l.fields, "event", "begin");
    const char *wrong = v->any ? follows(v, &l) : NULL;
    if (wrong == NULL && !v->any && !l.is_begin) {
        wrong = "the first line is no beginning: lines before it are missing";
    }
    if (wrong == NULL) {
        wrong = owns_up(v, &l);
    }
    if (wrong != NULL) {
        return wrong;
    }
    if (v->fresh) {
        v->n_hashes = 0;
        v->hashes_from = l.seq;
    }
    v->first_seq = v->any ? v->first_seq : l.seq;
    v->any = true;
    v->fresh = false;
    v->chained = l.has_prev;
    v->seq = l.seq;
    hash_of(line, v->head);
    remember(v);
    count(v, &l);
    if (v->want_seq == l.seq && memcmp(v->want, v->head, AUDIT_HASH_SIZE) == 0) {
        v->found = true;
    }
    return NULL;
}

const char *audit_verify_end(const struct audit_verify *v)
{
    if (v->torn_waiting) {
        return "the last line has no end: its process was killed, or is writing it now";
    }
    return v->want_seq != 0 && !v->found ? "the head that was asked for is not there" : NULL;
}
