/*
 * One credential or trust: what it is made of, and loading it whole. Its files are read together,
 * and looked at again afterwards: what was exchanged meanwhile is read again later.
 *
 * Places of files: cert or pkcs12, then the key, then the passphrase, as far as they are there; ca,
 * then crl; or a bundle each.
 */
#include "credential_priv.h"

#include <openssl/err.h>
#include <postern/mem.h>
#include <postern/os.h>
#include <stdlib.h>
#include <string.h>

enum { CHAIN_MAX = 16, CAS_MAX = 512 };

/* --- making ----------------------------------------------------------------------------------- */
static char *dup_or_null(const char *text)
{
    return text != NULL ? mem_must_strdup(text) : NULL;
}

static bool same_text(const char *a, const char *b)
{
    return a == b || (a != NULL && b != NULL && strcmp(a, b) == 0);
}

static void add_file(struct source *s, const char *path, const char *trust_domain)
{
    s->files = mem_must_realloc(s->files, (s->n_files + 1) * sizeof(*s->files));
    s->files[s->n_files++] = (struct source_file){.path = mem_must_strdup(path),
                                                  .trust_domain = dup_or_null(trust_domain)};
}

static struct source *new_source(struct credentials *all, const char *name)
{
    struct source *s = mem_must_new(struct source);
    s->all = all;
    s->refs = 1;
    s->name = mem_must_strdup(name);
    return s;
}

struct source *source_new_own(struct credentials *all, const struct credential_spec *spec)
{
    struct source *s = new_source(all, spec->name);
    s->kind = spec->kind;
    if (spec->kind == CREDENTIAL_WORKLOAD_API) {
        s->socket = dup_or_null(spec->workload.socket);
        s->spiffe_id = dup_or_null(spec->workload.spiffe_id);
        s->key_mode = spec->workload.key;
        return s;
    }
    add_file(s, spec->kind == CREDENTIAL_PKCS12 ? spec->pkcs12 : spec->cert, NULL);
    s->away = spec->away;
    s->has_key = spec->kind == CREDENTIAL_PEM && spec->key != NULL;
    s->has_passphrase = spec->passphrase_file != NULL;
    if (s->has_key) {
        add_file(s, spec->key, NULL);
    }
    if (s->has_passphrase) {
        add_file(s, spec->passphrase_file, NULL);
    }
    return s;
}

struct source *source_new_trust(struct credentials *all, const struct credential_trust *spec)
{
    struct source *s = new_source(all, spec->name);
    s->is_trust = true;
    s->has_crl = spec->crl != NULL;
    if (spec->ca != NULL) {
        add_file(s, spec->ca, NULL);
    }
    if (s->has_crl) {
        add_file(s, spec->crl, NULL);
    }
    for (size_t i = 0; i < spec->n_bundles; i++) {
        add_file(s, spec->bundles[i].path, spec->bundles[i].trust_domain);
    }
    return s;
}

struct source *source_ref(struct source *s)
{
    s->refs++;
    return s;
}

struct source *source_unref(struct source *s)
{
    if (s == NULL || --s->refs > 0) {
        return NULL;
    }
    identity_client_free(s->client);
    for (size_t i = 0; i < s->n_files; i++) {
        free(s->files[i].path);
        free(s->files[i].trust_domain);
    }
    free(s->files);
    free(s->name);
    free(s->socket);
    free(s->spiffe_id);
    x509_svid_free(s->own);
    x509_peers_unref(s->peers);
    free(s);
    return NULL;
}

/* --- the same description --------------------------------------------------------------------- */
static bool same_files(const struct source *a, const struct source *b)
{
    bool same = a->n_files == b->n_files;
    for (size_t i = 0; same && i < a->n_files; i++) {
        same = strcmp(a->files[i].path, b->files[i].path) == 0 &&
               same_text(a->files[i].trust_domain, b->files[i].trust_domain);
    }
    return same;
}

static bool same_source(const struct source *a, const struct source *b)
{
    return strcmp(a->name, b->name) == 0 && a->is_trust == b->is_trust && a->kind == b->kind &&
           a->has_key == b->has_key && a->has_passphrase == b->has_passphrase &&
           a->has_crl == b->has_crl && a->away.key == b->away.key && a->away.arg == b->away.arg &&
           a->key_mode == b->key_mode && same_text(a->socket, b->socket) &&
           same_text(a->spiffe_id, b->spiffe_id) && same_files(a, b);
}

bool source_is_own(const struct source *s, const struct credential_spec *spec)
{
    struct source *other = source_new_own(s->all, spec);
    bool same = same_source(s, other);
    source_unref(other);
    return same;
}

bool source_is_trust(const struct source *s, const struct credential_trust *spec)
{
    struct source *other = source_new_trust(s->all, spec);
    bool same = same_source(s, other);
    source_unref(other);
    return same;
}

/* --- reading ---------------------------------------------------------------------------------- */
/* The i-th file of at most so many bytes. Its mark is remembered, also of one that is refused. */
static int read_file(struct source *s, size_t i, size_t max, struct file_bytes *ret,
                     struct err *err)
{
    struct source_file *f = &s->files[i];
    f->read = f->seen = file_mark_now(f->path);
    if (file_read(f->path, max, ret, err) == -1) {
        return -1;
    }
    f->read = f->seen = ret->mark;
    return 0;
}

/* One of them was exchanged while the others were read. */
static int check_still_same(const struct source *s, struct err *err)
{
    for (size_t i = 0; i < s->n_files; i++) {
        struct file_mark now = file_mark_now(s->files[i].path);
        if (!file_mark_same(&now, &s->files[i].read)) {
            err_set(err, ERR_UNAVAILABLE, "it changed while it was read");
            return err_where(err, "%s", s->files[i].path);
        }
    }
    return 0;
}

static struct str view(const struct file_bytes *b)
{
    return (struct str){b->p, b->n};
}

/* Without the end of its line. */
static struct str passphrase_of(const struct file_bytes *b)
{
    struct str text = view(b);
    text.n -= text.n > 0 && text.p[text.n - 1] == '\n' ? 1 : 0;
    text.n -= text.n > 0 && text.p[text.n - 1] == '\r' ? 1 : 0;
    return text;
}

/* A key that is elsewhere, for the first certificate. */
static int take_away_key(const struct source *s, struct str cert, struct x509_svid **ret,
                         struct err *err)
{
    STACK_OF(X509) *chain = credential_parse_certs(cert, CHAIN_MAX, err);
    EVP_PKEY *public_key = chain != NULL ? X509_get0_pubkey(sk_X509_value(chain, 0)) : NULL;
    EVP_PKEY *key = NULL;
    int r = -1;
    if (chain != NULL && public_key == NULL) {
        (void)credential_crypto_failed(err, "the certificate's public key cannot be read");
    } else if (chain != NULL) {
        key = s->away.key(s->away.arg, public_key, err);
        r = key != NULL ? credential_own(chain, key, ret, err) : -1;
    }
    EVP_PKEY_free(key);
    credential_certs_free(chain);
    return r;
}

static int parse_own(struct source *s, const struct file_bytes files[3], struct x509_svid **ret,
                     struct err *err)
{
    struct str cert = view(&files[0]);
    struct str key = s->has_key ? view(&files[1]) : cert;
    struct str passphrase =
        s->has_passphrase ? passphrase_of(&files[s->has_key ? 2 : 1]) : STR_NONE;
    switch (s->kind) {
    case CREDENTIAL_PEM:
        return credential_parse_pem(cert, key, passphrase, ret, err);
    case CREDENTIAL_PKCS12:
        return credential_parse_pkcs12(cert, passphrase, ret, err);
    case CREDENTIAL_TOKEN:
        return take_away_key(s, cert, ret, err);
    case CREDENTIAL_WORKLOAD_API:
        break;
    }
    return err_set(err, ERR_UNSUPPORTED, "no such kind");
}

size_t source_secret(const struct source *s)
{
    return s->has_passphrase ? s->n_files - 1 : s->has_key ? 1 : 0;
}

static bool same_own(const struct x509_svid *a, const struct x509_svid *b)
{
    if (a == NULL || X509_cmp(a->leaf, b->leaf) != 0 ||
        sk_X509_num(a->intermediates) != sk_X509_num(b->intermediates)) {
        return false;
    }
    for (int i = 0; i < sk_X509_num(a->intermediates); i++) {
        if (X509_cmp(sk_X509_value(a->intermediates, i), sk_X509_value(b->intermediates, i)) != 0) {
            return false;
        }
    }
    return true;
}

static int load_own(struct source *s, bool *ret_changed, struct err *err)
{
    struct file_bytes files[3] = {{.n = 0}};
    struct x509_svid *next = NULL;
    int r = 0;
    for (size_t i = 0; r == 0 && i < s->n_files; i++) {
        bool is_passphrase = s->has_passphrase && i + 1 == s->n_files;
        r = read_file(s, i, is_passphrase ? CREDENTIAL_PASSPHRASE_MAX : CREDENTIAL_FILE_MAX,
                      &files[i], err);
    }
    s->open_to_all =
        r == 0 && s->kind != CREDENTIAL_TOKEN && (files[source_secret(s)].mode & 0004) != 0;
    if (r == 0) {
        r = parse_own(s, files, &next, err);
        if (r == -1) {
            err_where(err, "%s", s->files[s->has_key ? 1 : 0].path);
        }
    }
    for (size_t i = 0; i < 3; i++) {
        file_bytes_deinit(&files[i]);
    }
    if (r == 0 && check_still_same(s, err) == -1) {
        x509_svid_free(next);
        return -1;
    }
    if (r == 0) {
        POSTERN_ASSERT(next != NULL);
        *ret_changed = !same_own(s->own, next);
        x509_svid_free(s->own);
        s->own = next;
        s->end_stage = *ret_changed ? 0 : s->end_stage;
    }
    return r;
}

static int load_cas(struct source *s, struct x509_peers **ret, struct err *err)
{
    struct file_bytes ca = {.n = 0}, crl = {.n = 0};
    STACK_OF(X509) *cas = NULL;
    STACK_OF(X509_CRL) *crls = NULL;
    int r = read_file(s, 0, CREDENTIAL_TRUST_MAX, &ca, err);
    if (r == 0) {
        cas = credential_parse_certs(view(&ca), CAS_MAX, err);
        r = cas != NULL ? 0 : err_where(err, "%s", s->files[0].path);
    }
    if (r == 0 && s->has_crl) {
        r = read_file(s, 1, CREDENTIAL_CRL_MAX, &crl, err);
        crls = r == 0 ? credential_parse_crls(view(&crl), err) : NULL;
        if (r == 0 && crls == NULL) {
            r = err_where(err, "%s", s->files[1].path);
        }
    }
    if (r == 0 && x509_peers_new_ordinary(cas, crls, ret, err) == -1) {
        r = err_where(err, "%s", s->files[s->has_crl ? 1 : 0].path);
    }
    file_bytes_deinit(&ca);
    file_bytes_deinit(&crl);
    credential_certs_free(cas);
    sk_X509_CRL_pop_free(crls, X509_CRL_free);
    return r;
}

static int load_bundles(struct source *s, struct x509_peers **ret, struct err *err)
{
    mem_auto(x509_trust_unref) struct x509_trust *trust = x509_trust_new();
    for (size_t i = 0; i < s->n_files; i++) {
        struct file_bytes text = {.n = 0};
        if (read_file(s, i, CREDENTIAL_TRUST_MAX, &text, err) == -1) {
            return -1;
        }
        int r = credential_parse_bundle(view(&text), str_of(s->files[i].trust_domain), trust, err);
        file_bytes_deinit(&text);
        if (r == -1) {
            return err_where(err, "%s", s->files[i].path);
        }
    }
    *ret = x509_peers_new_spiffe(trust);
    return 0;
}

static int load_trust(struct source *s, bool *ret_changed, struct err *err)
{
    mem_auto(x509_peers_unref) struct x509_peers *next = NULL;
    bool bundles = s->files[0].trust_domain != NULL;
    if ((bundles ? load_bundles(s, &next, err) : load_cas(s, &next, err)) == -1 ||
        check_still_same(s, err) == -1) {
        return -1;
    }
    *ret_changed = s->peers == NULL || !x509_peers_equal(s->peers, next);
    if (*ret_changed) { /* else the old one stays, so that nobody is judged again */
        x509_peers_unref(s->peers);
        s->peers = next;
        next = NULL;
    }
    return 0;
}

int source_load(struct source *s, bool *ret_changed, struct err *err)
{
    *ret_changed = false;
    if (s->n_files == 0) {
        return 0;
    }
    if ((s->is_trust ? load_trust(s, ret_changed, err) : load_own(s, ret_changed, err)) == -1) {
        ERR_clear_error();
        if (err != NULL && err->code != ERR_UNAVAILABLE) {
            err->code = ERR_CONFIG; /* whatever it is, it stands in a file that was named */
        }
        return err_prefix(err, "%s '%s'", s->is_trust ? "trust" : "credential", s->name);
    }
    s->loaded_s = *ret_changed ? os_wall_s() : s->loaded_s;
    s->n_loaded += *ret_changed ? 1 : 0;
    return 0;
}

bool source_looks_changed(struct source *s, bool by_event)
{
    bool changed = false;
    for (size_t i = 0; i < s->n_files; i++) {
        struct source_file *f = &s->files[i];
        struct file_mark now = file_mark_now(f->path);
        changed = changed ||
                  (!file_mark_same(&now, &f->read) && (by_event || file_mark_same(&now, &f->seen)));
        f->seen = now;
    }
    return changed;
}

void source_take_state(struct source *s, const struct identity_state *state)
{
    x509_svid_free(s->own);
    s->own = state != NULL ? x509_svid_dup(state->svid) : NULL;
    s->end_stage = 0;
    s->n_loaded += state != NULL ? 1 : 0;
    s->loaded_s = state != NULL ? os_wall_s() : 0;
}
