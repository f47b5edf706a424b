/* What stands in the journal's lines. The order of fields is docs/journal.md's. */
#include "keeper_priv.h"

#include <postern/journal.h>
#include <postern/os.h>
#include <stdlib.h>
#include <string.h>

enum {
    SUM_UP_MS = 10000, /* refusals are told in sums */
    PATH_TEXT_MAX = 1024,
    KUBERNETES_TEXT_MAX = 512,
};

/* --- issuance --------------------------------------------------------------------------------- */
static void put_time(struct jsonl_writer *w, const char *key, int64_t wall_s)
{
    char when[32];

    os_time_text(wall_s, when, sizeof(when));
    jsonl_put_text(w, key, str_of(when), sizeof(when));
}

static void put_known(struct jsonl_writer *w, const char *key, const char *text, size_t max)
{
    if (text != NULL && text[0] != '\0') {
        jsonl_put_text(w, key, str_of(text), max);
    }
}

static void put_caller(struct jsonl_writer *w, const struct keeper_caller *c,
                       const struct keeper_facts *f)
{
    jsonl_put_uint(w, "uid", f->uid);
    jsonl_put_uint(w, "gid", f->gid);
    jsonl_put_int(w, "pid", c->pid);
    put_known(w, "path", f->path, PATH_TEXT_MAX);
    put_known(w, "unit", f->unit, KUBERNETES_TEXT_MAX);
    put_known(w, "pod_uid", f->pod_uid, KUBERNETES_TEXT_MAX);
    put_known(w, "container_id", f->container_id, KUBERNETES_TEXT_MAX);
    if (f->container != NULL) {
        put_known(w, "image_digest", f->container->digest, KUBERNETES_TEXT_MAX);
    }
}

/* SHA-256 of the key as it stands in the certificate (SubjectPublicKeyInfo, RFC 5480): a fixed
 * beginning for P-256, and the point. */
static void put_key(struct jsonl_writer *w, const uint8_t point[AGENT_POINT_SIZE])
{
    static const uint8_t begin[] = {0x30, 0x59, 0x30, 0x13, 0x06, 0x07, 0x2a, 0x86, 0x48,
                                    0xce, 0x3d, 0x02, 0x01, 0x06, 0x08, 0x2a, 0x86, 0x48,
                                    0xce, 0x3d, 0x03, 0x01, 0x07, 0x03, 0x42, 0x00};
    uint8_t info[sizeof(begin) + AGENT_POINT_SIZE], hash[JOURNAL_HASH_SIZE];

    memcpy(info, begin, sizeof(begin));
    memcpy(info + sizeof(begin), point, AGENT_POINT_SIZE);
    journal_hash((struct str){(const char *)info, sizeof(info)}, hash);
    jsonl_put_hex(w, "key", hash, sizeof(hash));
}

void keeper_journal_issued_x509(struct keeper *k, const struct keeper_caller *c,
                                const struct keeper_grant *g, const struct keeper_leaf *leaf,
                                const uint8_t point[AGENT_POINT_SIZE])
{
    struct keeper_journal_line *l = &k->journal.line;
    struct keeper_facts facts;

    keeper_facts_get(k, c, &facts);
    keeper_journal_begin(k, l, "issued");
    jsonl_put_text(&l->w, "kind", STR_LIT("x509"), 8);
    jsonl_put_text(&l->w, "spiffe_id", str_of(g->spiffe_id), AGENT_ID_MAX);
    jsonl_put_text(&l->w, "entry", str_of(g->entry->id), AGENT_NAME_MAX);
    jsonl_put_hex(&l->w, "serial", leaf->serial, sizeof(leaf->serial));
    put_time(&l->w, "not_before", leaf->not_before_s);
    put_time(&l->w, "not_after", leaf->not_after_s);
    put_key(&l->w, point);
    put_caller(&l->w, c, &facts);
    (void)keeper_journal_end(k, l);
}

void keeper_journal_issued_jwt(struct keeper *k, const struct keeper_caller *c,
                               const struct keeper_grant *g, const char *kid,
                               const uint8_t jti[JWT_JTI_SIZE], int64_t issued_s, int64_t expires_s)
{
    struct keeper_journal_line *l = &k->journal.line;
    struct keeper_facts facts;

    keeper_facts_get(k, c, &facts);
    keeper_journal_begin(k, l, "issued");
    jsonl_put_text(&l->w, "kind", STR_LIT("jwt"), 8);
    jsonl_put_text(&l->w, "spiffe_id", str_of(g->spiffe_id), AGENT_ID_MAX);
    jsonl_put_text(&l->w, "entry", str_of(g->entry->id), AGENT_NAME_MAX);
    jsonl_put_hex(&l->w, "jti", jti, JWT_JTI_SIZE);
    put_time(&l->w, "not_before", issued_s);
    put_time(&l->w, "not_after", expires_s);
    put_known(&l->w, "key", kid, 128);
    put_caller(&l->w, c, &facts);
    (void)keeper_journal_end(k, l);
}

/* --- refusals --------------------------------------------------------------------------------- */
void keeper_journal_refused(struct keeper *k, uint32_t outcome)
{
    struct keeper_journal *j = &k->journal;

    if (outcome < AGENT_N_OUTCOMES) {
        j->refused[outcome]++;
        j->n_refused++;
    }
}

void keeper_journal_sum_up(struct keeper *k, uint64_t now_ms, bool now)
{
    struct keeper_journal *j = &k->journal;

    if (j->n_refused == 0 || (!now && now_ms - j->summed_up_ms < SUM_UP_MS)) {
        return;
    }
    j->summed_up_ms = now_ms;
    keeper_journal_begin(k, &j->line, "refused");
    jsonl_put_uint(&j->line.w, "count", j->n_refused);
    for (uint32_t i = 0; i < AGENT_N_OUTCOMES; i++) {
        if (j->refused[i] > 0) {
            jsonl_put_uint(&j->line.w, agent_outcome_name(i), j->refused[i]);
        }
    }
    (void)keeper_journal_end(k, &j->line);
    memset(j->refused, 0, sizeof(j->refused));
    j->n_refused = 0;
}

/* --- authorities ------------------------------------------------------------------------------ */
enum { AUTHORITY_AGAIN_MS = 1000 };

/* Heads are worth nothing without these lines, so that one which a failing disk costs is written
 * again later, and is none of those that are lost. */
static bool end_authority(struct keeper *k)
{
    struct keeper_journal *j = &k->journal;

    if (keeper_journal_end(k, &j->line) || j->line.w.full) {
        return true;
    }
    j->n_lost--;
    j->gap_lines--;
    j->authority_again_ms = keeper_clock_now_ms(&k->clock) + AUTHORITY_AGAIN_MS;
    return false;
}

static bool put_roots(struct keeper *k)
{
    const struct keeper_force *f = k->authority.force;
    STACK_OF(X509) *roots =
        x509_chain_from_der((struct str){(const char *)f->bundle, f->bundle_len}, NULL);
    bool ok = true;

    for (int i = 0; ok && roots != NULL && i < sk_X509_num(roots); i++) {
        struct keeper_journal_line *l = &k->journal.line;
        uint8_t *der = NULL;
        size_t len = 0;

        if (x509_to_der(sk_X509_value(roots, i), &der, &len, NULL) == 0) {
            keeper_journal_begin(k, l, "authority");
            jsonl_put_text(&l->w, "kind", STR_LIT("root"), 8);
            put_time(&l->w, "not_after", x509_not_after_s(sk_X509_value(roots, i)));
            jsonl_put_base64(&l->w, "certificates", der, len);
            ok = end_authority(k);
            free(der);
        }
    }
    sk_X509_pop_free(roots, X509_free);
    return ok;
}

/* How long the first certificate of the chain is: DER, made by this process. */
static size_t first_length(const uint8_t *der, size_t len)
{
    const unsigned char *p = der;
    X509 *cert = d2i_X509(NULL, &p, (long)len);

    X509_free(cert);
    return cert != NULL ? (size_t)(p - der) : 0;
}

/* Before anything is signed by it: looked at in every turn, so that whatever changes authorities
 * need not think of it. */
bool keeper_journal_authority(struct keeper *k)
{
    struct keeper_journal *j = &k->journal;
    const struct keeper_force *f = k->authority.force;
    struct keeper_journal_line *l = &j->line;
    bool shown = j->n_chain == f->chain_len && memcmp(j->chain, f->chain, j->n_chain) == 0;

    if (j->fd == -1 || keeper_clock_now_ms(&k->clock) < j->authority_again_ms) {
        return shown;
    }
    if (j->bundle_generation != k->bundle_generation) {
        if (!put_roots(k)) {
            return shown;
        }
        j->bundle_generation = k->bundle_generation;
    }
    if (shown) {
        return true;
    }
    free(j->chain);
    j->n_chain = f->chain_len;
    j->chain = mem_must_calloc(1, f->chain_len);
    memcpy(j->chain, f->chain, f->chain_len);
    journal_hash((struct str){(const char *)f->chain, first_length(f->chain, f->chain_len)},
                 j->authority);
    keeper_journal_begin(k, l, "authority");
    jsonl_put_text(&l->w, "kind", STR_LIT("node"), 8);
    put_time(&l->w, "not_after", f->node_not_after_s);
    jsonl_put_hex(&l->w, "authority", j->authority, sizeof(j->authority));
    jsonl_put_base64(&l->w, "certificates", f->chain, f->chain_len);
    shown = end_authority(k);
    if (!shown) {
        j->n_chain = 0;
    }
    return shown;
}

void keeper_journal_change(struct keeper *k, const char *kind, const char *change, const char *id,
                           bool by_order)
{
    struct keeper_journal_line *l = &k->journal.line;

    keeper_journal_begin(k, l, "change");
    jsonl_put_text(&l->w, "kind", str_of(kind), 8);
    jsonl_put_text(&l->w, "change", str_of(change), 16);
    put_known(&l->w, "id", id, KEEPER_RECORD_ID_MAX);
    jsonl_put_text(&l->w, "by", by_order ? STR_LIT("order") : STR_LIT("schedule"), 16);
    (void)keeper_journal_end(k, l);
}

/* --- quarantine ------------------------------------------------------------------------------- */
void keeper_journal_quarantine(struct keeper *k, const struct agent_msg_deny_note *m)
{
    static const char *const changes[] = {"added", "removed", "over"};
    static const char *const kinds[] = {"spiffe_id", "serial", "image_digest"};
    struct keeper_journal_line *l = &k->journal.line;

    keeper_journal_begin(k, l, "quarantine");
    jsonl_put_text(&l->w, "change", str_of(changes[m->change]), 16);
    jsonl_put_text(&l->w, "kind", str_of(kinds[m->kind]), 16);
    jsonl_put_text(&l->w, "subject", (struct str){m->text, m->text_len}, AGENT_ID_MAX);
    if (m->until_s > 0) {
        put_time(&l->w, "until", m->until_s);
    }
    if (m->reason_len > 0) {
        jsonl_put_text(&l->w, "reason", (struct str){m->reason, m->reason_len}, AGENT_REASON_MAX);
    }
    jsonl_put_uint(&l->w, "version", m->version);
    (void)keeper_journal_end(k, l);
}
