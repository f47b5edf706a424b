/* Whether a journal is what an agent wrote: docs/journal.md says what that proves. */
#include <postern/journal.h>

#include <inttypes.h>
#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/x509_vfy.h>
#include <openssl/x509v3.h>
#include <postern/mem.h>
#include <postern/os.h>
#include <postern/x509.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { CHAIN_MAX = 8192, SIGNATURE_MAX = 1024, CLOCK_SLACK_S = 60 };

/* An authority that a line has shown. */
struct authority {
    uint8_t hash[JOURNAL_HASH_SIZE];
    EVP_PKEY *key; /* owned */
    int64_t not_before_s, not_after_s;
};

struct verify {
    const struct journal_verify_options *o;
    struct journal_verdict *v;
    STACK_OF(X509) * roots;        /* owned */
    struct authority *authorities; /* owned */
    size_t n_authorities;
    const struct journal_file *file;
    uint64_t line_number;
    bool any;                        /* a line was good */
    uint8_t hash[JOURNAL_HASH_SIZE]; /* of the last one */
    uint64_t oldest;                 /* that the last "file" line names */
    bool head_found;                 /* the one that was asked for */
    struct str head_file;            /* what the file `head` says, without its filling */
    bool head_file_found;
};

/* --- saying what is wrong --------------------------------------------------------------------- */
static bool bad(struct verify *w, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
static bool bad(struct verify *w, const char *fmt, ...)
{
    char text[300], name[32];
    va_list ap;

    va_start(ap, fmt);
    (void)vsnprintf(text, sizeof(text), fmt, ap);
    va_end(ap);
    err_set(&w->v->error, ERR_PROTOCOL, "%s", text);
    if (w->file != NULL) {
        journal_file_name(w->file->number, name, sizeof(name));
        err_where(&w->v->error, "%s/%s:%" PRIu64, w->o->dir, name, w->line_number);
    } else {
        err_where(&w->v->error, "%s", w->o->dir);
    }
    return false;
}

/* --- authorities ------------------------------------------------------------------------------ */
static int64_t line_time(const struct journal_line *l)
{
    char text[32];
    struct tm tm = {.tm_sec = 0};
    const char *end;

    if (!jsonl_get_text(&l->fields, "time", text, sizeof(text))) {
        return -1;
    }
    end = strptime(text, "%Y-%m-%dT%H:%M:%SZ", &tm);
    return end != NULL && *end == '\0' ? (int64_t)timegm(&tm) : -1;
}

/* A path to the roots, at the time of the line: the journal outlives its certificates. */
static bool chains_to_roots(const struct verify *w, STACK_OF(X509) * chain, int64_t at_s)
{
    X509_STORE *store = X509_STORE_new();
    X509_STORE_CTX *ctx = X509_STORE_CTX_new();
    bool ok = store != NULL && ctx != NULL;

    for (int i = 0; ok && i < sk_X509_num(w->roots); i++) {
        ok = X509_STORE_add_cert(store, sk_X509_value(w->roots, i)) == 1;
    }
    ok = ok && X509_STORE_CTX_init(ctx, store, sk_X509_value(chain, 0), chain) == 1;
    if (ok) {
        X509_VERIFY_PARAM *param = X509_STORE_CTX_get0_param(ctx);

        X509_VERIFY_PARAM_set_time(param, (time_t)at_s);
        (void)X509_VERIFY_PARAM_set_flags(param,
                                          X509_V_FLAG_PARTIAL_CHAIN | X509_V_FLAG_X509_STRICT);
        ok = X509_verify_cert(ctx) == 1;
    }
    X509_STORE_CTX_free(ctx);
    X509_STORE_free(store);
    ERR_clear_error();
    return ok;
}

static const struct authority *find_authority(const struct verify *w,
                                              const uint8_t hash[JOURNAL_HASH_SIZE])
{
    for (size_t i = 0; i < w->n_authorities; i++) {
        if (memcmp(w->authorities[i].hash, hash, JOURNAL_HASH_SIZE) == 0) {
            return &w->authorities[i];
        }
    }
    return NULL;
}

static bool take_node(struct verify *w, const struct journal_line *l, STACK_OF(X509) * chain)
{
    X509 *cert = sk_X509_value(chain, 0);
    mem_autofree uint8_t *der = NULL;
    struct authority a = {.key = NULL};
    size_t len = 0;

    if (x509_to_der(cert, &der, &len, NULL) == -1) {
        return bad(w, "this authority's certificate cannot be read");
    }
    journal_hash((struct str){(const char *)der, len}, a.hash);
    if (!chains_to_roots(w, chain, line_time(l))) {
        return bad(w, "this authority's certificate is of no root that %s",
                   w->v->own_roots ? "the journal names" : "was given");
    }
    /* Else every workload could sign a journal of its own with the key of its SVID. */
    if (X509_check_ca(cert) != 1) {
        return bad(w, "this authority's certificate is none of an authority: it signs nothing");
    }
    if (find_authority(w, a.hash) != NULL) {
        return true;
    }
    a.key = X509_get_pubkey(cert);
    a.not_before_s = x509_not_before_s(cert);
    a.not_after_s = x509_not_after_s(cert);
    if (a.key == NULL) {
        return bad(w, "this authority's key cannot be read");
    }
    w->authorities =
        mem_must_realloc(w->authorities, (w->n_authorities + 1) * sizeof(*w->authorities));
    w->authorities[w->n_authorities++] = a;
    return true;
}

static bool on_authority(struct verify *w, const struct journal_line *l)
{
    mem_autofree uint8_t *ders = mem_must_calloc(1, CHAIN_MAX);
    STACK_OF(X509) *chain = NULL;
    size_t n = 0;
    bool ok;

    if (!jsonl_get_base64(&l->fields, "certificates", ders, CHAIN_MAX, &n) ||
        (chain = x509_chain_from_der((struct str){(const char *)ders, n}, NULL)) == NULL ||
        sk_X509_num(chain) == 0) {
        return bad(w, "this authority's certificates cannot be read");
    }
    if (jsonl_is(&l->fields, "kind", "node")) {
        ok = take_node(w, l, chain);
    } else {
        ok = !w->v->own_roots || sk_X509_push(w->roots, X509_dup(sk_X509_value(chain, 0))) > 0;
    }
    sk_X509_pop_free(chain, X509_free);
    return ok;
}

/* --- heads ------------------------------------------------------------------------------------ */
static bool signature_ok(const struct authority *a, struct str signed_part,
                         const uint8_t *signature, size_t n)
{
    bool own_digest = EVP_PKEY_is_a(a->key, "ED25519") == 1 || EVP_PKEY_is_a(a->key, "ED448") == 1;
    mem_autofree char *text =
        mem_must_printf("%s%.*s", JOURNAL_HEAD_PREFIX, (int)signed_part.n, signed_part.p);
    EVP_MD_CTX *ctx = EVP_MD_CTX_new();
    bool ok = ctx != NULL &&
              EVP_DigestVerifyInit_ex(ctx, NULL, own_digest ? NULL : "SHA256", NULL, NULL, a->key,
                                      NULL) == 1 &&
              EVP_DigestVerify(ctx, signature, n, (const uint8_t *)text, strlen(text)) == 1;

    EVP_MD_CTX_free(ctx);
    ERR_clear_error();
    return ok;
}

static bool on_head(struct verify *w, struct str line, const struct journal_line *l)
{
    const struct jsonl_field *f = jsonl_find(&l->fields, "signature");
    uint8_t hash[JOURNAL_HASH_SIZE], signature[SIGNATURE_MAX];
    const struct authority *a;
    int64_t at_s = line_time(l);
    size_t n = 0;

    if (!jsonl_get_hex(&l->fields, "authority", hash, sizeof(hash)) ||
        !jsonl_get_base64(&l->fields, "signature", signature, sizeof(signature), &n) ||
        f != &l->fields.fields[l->fields.n - 1]) {
        return bad(w, "this head has no signature");
    }
    a = find_authority(w, hash);
    if (a == NULL) {
        return bad(w, "this head is signed by an authority that the file does not show");
    }
    if (at_s < a->not_before_s - CLOCK_SLACK_S || at_s > a->not_after_s + CLOCK_SLACK_S) {
        return bad(w, "this head is signed by an authority that was not valid then");
    }
    if (!signature_ok(a, (struct str){line.p, f->at}, signature, n)) {
        return bad(w, "this head's signature is wrong");
    }
    w->v->n_heads++;
    w->v->signed_seq = l->seq;
    journal_hash(line, w->v->signed_hash);
    if (w->o->head_seq == l->seq &&
        memcmp(w->o->head_hash, w->v->signed_hash, JOURNAL_HASH_SIZE) == 0) {
        w->head_found = true;
    }
    if (str_eq(line, w->head_file)) {
        w->head_file_found = true;
    }
    return true;
}

/* --- lines ------------------------------------------------------------------------------------ */
/* The line follows the last one: by number, and by its hash. */
static bool follows(const struct verify *w, const struct journal_line *l)
{
    if (!w->any) {
        /* The first of all: a journal's beginning, or what is left of one. */
        static const uint8_t zeros[JOURNAL_HASH_SIZE];

        return w->file->number > 1 ? str_eq(l->event, STR_LIT("file"))
                                   : l->seq == 1 && memcmp(l->prev, zeros, sizeof(zeros)) == 0;
    }
    return l->seq == w->v->last_seq + 1 && memcmp(l->prev, w->hash, sizeof(w->hash)) == 0;
}

static bool accounts_for_torn(struct str event)
{
    return str_eq(event, STR_LIT("resumed")) || str_eq(event, STR_LIT("gap")) ||
           str_eq(event, STR_LIT("file"));
}

/* At `from` stands something that is no good line. Looks for the line behind it that owns up to
 * exactly these bytes; its offset, or 0. */
static size_t skip_torn(const struct verify *w, size_t from, uint64_t *ret_lines)
{
    size_t at = from;

    *ret_lines = 0;
    while (at < w->file->len) {
        const char *end = memchr(w->file->data + at, '\n', w->file->len - at);
        const char *behind;
        struct journal_line l;
        uint64_t n;
        uint8_t said[JOURNAL_HASH_SIZE], hash[JOURNAL_HASH_SIZE];

        if (end == NULL) {
            return 0;
        }
        at = (size_t)(end - w->file->data) + 1;
        ++*ret_lines;
        behind = at < w->file->len ? memchr(w->file->data + at, '\n', w->file->len - at) : NULL;
        if (behind == NULL ||
            !journal_line_parse(
                (struct str){w->file->data + at, (size_t)(behind - w->file->data) - at}, &l) ||
            !accounts_for_torn(l.event) || !jsonl_get_uint(&l.fields, "torn_bytes", &n) ||
            n != at - 1 - from || !jsonl_get_hex(&l.fields, "torn_sha256", said, sizeof(said))) {
            continue;
        }
        journal_hash((struct str){w->file->data + from, at - 1 - from}, hash);
        if (memcmp(said, hash, sizeof(hash)) == 0 && follows(w, &l)) {
            return at;
        }
    }
    return 0;
}

static bool on_file_line(struct verify *w, const struct journal_line *l)
{
    uint64_t number, oldest;

    if (!jsonl_get_uint(&l->fields, "number", &number) || number != w->file->number ||
        !jsonl_get_uint(&l->fields, "oldest", &oldest)) {
        return bad(w, "this file's first line is another file's");
    }
    w->oldest = oldest;
    return true;
}

static bool on_line(struct verify *w, struct str line, const struct journal_line *l, bool first)
{
    bool is_file = str_eq(l->event, STR_LIT("file"));
    bool ok = true;
    uint64_t n;

    if (is_file != (first && w->file->number > 1)) {
        return bad(w, is_file ? "a file begins in the middle of another"
                              : "this file's first line does not say which file it is");
    }
    if (jsonl_get_uint(&l->fields, "missing_head", &n)) {
        return bad(w, "here an agent found that lines up to %" PRIu64 " were gone", n);
    }
    if (is_file) {
        ok = on_file_line(w, l);
    } else if (str_eq(l->event, STR_LIT("authority"))) {
        ok = on_authority(w, l);
    } else if (str_eq(l->event, STR_LIT("head"))) {
        ok = on_head(w, line, l);
    } else if (str_eq(l->event, STR_LIT("issued"))) {
        w->v->n_issued++;
    } else if (str_eq(l->event, STR_LIT("gap")) && jsonl_get_uint(&l->fields, "lost", &n)) {
        w->v->n_lost += n;
    }
    if (!ok) {
        return false;
    }
    if (!w->any) {
        w->v->first_seq = l->seq;
    }
    w->any = true;
    w->v->last_seq = l->seq;
    w->v->n_lines++;
    journal_hash(line, w->hash);
    return true;
}

static bool why_not(struct verify *w, struct str line, bool parsed, const struct journal_line *l)
{
    if (!parsed) {
        return bad(w, "this is no line of a journal (%zu bytes), and no later line accounts for it",
                   line.n);
    }
    if (w->any && l->seq != w->v->last_seq + 1) {
        return bad(w, "line number %" PRIu64 " follows %" PRIu64, l->seq, w->v->last_seq);
    }
    return bad(w, "%s",
               w->any ? "the line before this one was another when this was written"
                      : "this is no beginning of a journal");
}

static bool verify_file(struct verify *w)
{
    bool first = true;
    size_t at = 0;

    w->line_number = 0;
    while (at < w->file->len) {
        const char *end = memchr(w->file->data + at, '\n', w->file->len - at);
        struct str line = {w->file->data + at,
                           end != NULL ? (size_t)(end - w->file->data) - at : w->file->len - at};
        struct journal_line l;
        bool parsed = end != NULL && journal_line_parse(line, &l);

        w->line_number++;
        if (!parsed || !follows(w, &l)) {
            uint64_t lines;
            size_t next = skip_torn(w, at, &lines);

            if (next == 0) {
                w->v->unfinished = end == NULL;
                return why_not(w, line, parsed, &l);
            }
            w->v->n_torn++;
            w->line_number += lines - 1;
            at = next;
            continue;
        }
        if (!on_line(w, line, &l, first)) {
            return false;
        }
        first = false;
        at += line.n + 1;
    }
    return !first || w->file->number == 1 || bad(w, "this file is empty");
}

/* --- the whole -------------------------------------------------------------------------------- */
static bool verify_files(struct verify *w, const uint64_t *numbers, size_t n, struct err *err,
                         bool *ret_failed)
{
    for (size_t i = 0; i < n; i++) {
        struct journal_file f;
        bool ok;

        if (i > 0 && numbers[i] != numbers[i - 1] + 1) {
            w->file = NULL;
            return bad(w, "file %" PRIu64 " is missing", numbers[i - 1] + 1);
        }
        if (journal_file_open(w->o->dir, numbers[i], &f, err) == -1) {
            *ret_failed = true;
            return false;
        }
        w->file = &f;
        ok = verify_file(w);
        w->file = NULL;
        journal_file_close(&f);
        if (!ok) {
            return false;
        }
        w->v->n_files++;
    }
    if (n == 0 || !w->any) {
        return bad(w, "there is no journal");
    }
    if (w->oldest != 0 && numbers[0] > w->oldest) {
        return bad(w, "files %" PRIu64 " to %" PRIu64 " are missing", w->oldest, numbers[0] - 1);
    }
    return true;
}

static bool verify_heads(struct verify *w)
{
    if (w->o->head_seq != 0 && !w->head_found) {
        return bad(w, "the head that was asked for (%" PRIu64 ") is not there", w->o->head_seq);
    }
    if (w->v->n_heads > 0 && w->head_file.n == 0) {
        return bad(w, "the file `%s`, which says how far the journal goes, is missing",
                   JOURNAL_HEAD_FILE);
    }
    if (w->head_file.n > 0 && !w->head_file_found) {
        return bad(w, "the head that the file `%s` has is not in the journal: its end is cut off",
                   JOURNAL_HEAD_FILE);
    }
    return true;
}

static void read_head_file(struct verify *w, char **ret)
{
    mem_autofree char *path = mem_must_printf("%s/%s", w->o->dir, JOURNAL_HEAD_FILE);
    size_t n = 0;

    if (os_read_file(path, 65536, true, ret, &n, NULL) == -1) {
        return;
    }
    while (n > 0 && ((*ret)[n - 1] == ' ' || (*ret)[n - 1] == '\n')) {
        n--;
    }
    w->head_file = (struct str){*ret, n};
}

int journal_verify(const struct journal_verify_options *o, struct journal_verdict *ret,
                   struct err *err)
{
    struct verify w = {.o = o, .v = ret};
    mem_autofree uint64_t *numbers = NULL;
    mem_autofree char *head = NULL;
    bool failed = false;
    size_t n = 0;

    *ret = (struct journal_verdict){.own_roots = o->roots.n == 0};
    w.roots = o->roots.n > 0 ? x509_chain_from_der(o->roots, err) : sk_X509_new_null();
    if (w.roots == NULL) {
        return -1;
    }
    /* Before the files, so that an agent that goes on writing does not get ahead of it. */
    read_head_file(&w, &head);
    if (journal_list(o->dir, &numbers, &n, err) == -1) {
        failed = true;
    } else {
        ret->good = verify_files(&w, numbers, n, err, &failed) && verify_heads(&w);
    }
    for (size_t i = 0; i < w.n_authorities; i++) {
        EVP_PKEY_free(w.authorities[i].key);
    }
    free(w.authorities);
    sk_X509_pop_free(w.roots, X509_free);
    return failed ? -1 : 0;
}
