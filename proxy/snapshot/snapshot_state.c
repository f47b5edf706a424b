/* Building the part of a snapshot that the agent tells: parsed as strictly as files, and whole. */
#include <postern/snapshot.h>

#include <openssl/evp.h>
#include <postern/mem.h>
#include <stdlib.h>
#include <string.h>

static void hash(EVP_MD_CTX *md, struct str text)
{
    uint64_t n = text.n;
    POSTERN_ASSERT(EVP_DigestUpdate(md, &n, sizeof(n)) == 1 &&
                   EVP_DigestUpdate(md, text.p != NULL ? text.p : "", text.n) == 1);
}

static void hash_deny(EVP_MD_CTX *md, const struct deny_item *deny, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        hash(md, (struct str){(const char *)&deny[i].kind, sizeof(deny[i].kind)});
        hash(md, deny[i].text);
    }
}

void snapshot_told_digest(const struct snapshot_told *told, uint8_t ret[32])
{
    const struct snapshot_text *const texts[] = {&told->policy, &told->mesh, &told->modes};
    EVP_MD_CTX *md = EVP_MD_CTX_new();
    POSTERN_ASSERT(md != NULL && EVP_DigestInit_ex(md, EVP_sha256(), NULL) == 1);
    for (size_t i = 0; i < 3; i++) {
        hash(md, str_of(texts[i]->source));
        hash(md, texts[i]->text);
    }
    POSTERN_ASSERT(EVP_DigestFinal_ex(md, ret, NULL) == 1);
    EVP_MD_CTX_free(md);
}

static void digest_of_all(struct snapshot_state *s, const struct deny_item *deny, size_t n)
{
    EVP_MD_CTX *md = EVP_MD_CTX_new();
    POSTERN_ASSERT(md != NULL && EVP_DigestInit_ex(md, EVP_sha256(), NULL) == 1);
    hash(md, (struct str){(const char *)s->documents_digest, sizeof(s->documents_digest)});
    hash_deny(md, deny, n);
    POSTERN_ASSERT(EVP_DigestFinal_ex(md, s->digest, NULL) == 1);
    EVP_MD_CTX_free(md);
}

static int take_policy(struct snapshot_state *s, const struct snapshot_text *t,
                       struct conf_diag *diag, struct err *err)
{
    struct conf_policy *conf = NULL;
    unsigned n = 0;
    if (t->source == NULL) {
        return 0;
    }
    if (conf_parse_policy(t->source, t->text.p, t->text.n, diag, &conf) == -1) {
        return err_set(err, ERR_CONFIG, "the agent's policy has errors");
    }
    s->has_policy = true;
    s->n_rules = conf->n_rules;
    s->policy = policy_new(conf, err);
    conf_policy_free(conf);
    POSTERN_ASSERT(EVP_Digest(t->text.p, t->text.n, s->policy_sha256, &n, EVP_sha256(), NULL) == 1);
    if (t->text.n <= SNAPSHOT_POLICY_TEXT_MAX) {
        s->policy_text = mem_must_strndup(t->text.n > 0 ? t->text.p : "", t->text.n);
        s->policy_text_len = t->text.n;
    }
    return s->policy != NULL ? 0 : -1;
}

static int take_mesh(struct snapshot_state *s, const struct snapshot_text *t,
                     struct conf_diag *diag, struct err *err)
{
    struct conf_mesh *conf = NULL;
    if (t->source == NULL) {
        return 0;
    }
    if (conf_parse_mesh(t->source, t->text.p, t->text.n, diag, &conf) == -1) {
        return err_set(err, ERR_CONFIG, "the agent's mesh map has errors");
    }
    s->has_mesh = true;
    int r = route_table_new(conf, &s->routes, err);
    conf_mesh_free(conf);
    return r;
}

static int take_modes(struct snapshot_state *s, const struct snapshot_text *t,
                      struct conf_diag *diag, struct err *err)
{
    struct conf_modes *conf = NULL;
    if (t->source == NULL) {
        return 0;
    }
    if (conf_parse_modes(t->source, t->text.p, t->text.n, diag, &conf) == -1) {
        return err_set(err, ERR_CONFIG, "the agent's modes have errors");
    }
    s->no_plaintext = conf->plaintext == CONF_PLAINTEXT_NEVER;
    conf_modes_free(conf);
    return 0;
}

int snapshot_state_new(const struct snapshot_told *told, struct conf_diag *diag,
                       struct snapshot_state **ret, struct err *err)
{
    mem_auto(snapshot_state_unref) struct snapshot_state *s = mem_must_new(struct snapshot_state);
    atomic_init(&s->refs, 1);
    s->generation = told->generation;
    s->deny_version = told->deny_version;
    /* All three, so that the errors of all are seen at once. */
    int policy = take_policy(s, &told->policy, diag, err);
    int mesh = take_mesh(s, &told->mesh, diag, err);
    int modes = take_modes(s, &told->modes, diag, err);
    if (policy == -1 || mesh == -1 || modes == -1) {
        return -1;
    }
    s->deny = deny_set_new(told->deny, told->n_deny);
    snapshot_told_digest(told, s->documents_digest);
    digest_of_all(s, told->deny, told->n_deny);
    *ret = s;
    s = NULL;
    return 0;
}

struct snapshot_state *snapshot_state_new_deny(struct snapshot_state *before, uint64_t deny_version,
                                               const struct deny_item *deny, size_t n_deny)
{
    struct snapshot_state *documents = before->documents != NULL ? before->documents : before;
    struct snapshot_state *s = mem_must_new(struct snapshot_state);
    atomic_init(&s->refs, 1);
    s->documents = snapshot_state_ref(documents);
    s->generation = before->generation;
    s->deny_version = deny_version;
    s->has_policy = documents->has_policy;
    s->has_mesh = documents->has_mesh;
    s->policy = documents->policy;
    s->n_rules = documents->n_rules;
    s->routes = documents->routes;
    s->no_plaintext = documents->no_plaintext;
    memcpy(s->policy_sha256, documents->policy_sha256, sizeof(s->policy_sha256));
    s->deny = deny_set_new(deny, n_deny);
    memcpy(s->documents_digest, documents->documents_digest, sizeof(s->documents_digest));
    digest_of_all(s, deny, n_deny);
    return s;
}

struct snapshot_state *snapshot_state_ref(struct snapshot_state *s)
{
    POSTERN_ASSERT(atomic_fetch_add_explicit(&s->refs, 1, memory_order_relaxed) > 0);
    return s;
}

struct snapshot_state *snapshot_state_unref(struct snapshot_state *s)
{
    if (s != NULL && atomic_fetch_sub_explicit(&s->refs, 1, memory_order_acq_rel) == 1) {
        if (s->documents == NULL) {
            policy_free(s->policy);
            route_table_free(s->routes);
        }
        free(s->policy_text);
        snapshot_state_unref(s->documents);
        deny_set_free(s->deny);
        free(s);
    }
    return NULL;
}
