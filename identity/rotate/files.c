/* files: the bytes of a set, made of one moment's SVID, trust, tokens and key sets. Pure but for
 * the memory: nothing is read or written here. */
#include "rotate_priv.h"

#include <openssl/evp.h>
#include <postern/mem.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct rotate_files {
    const struct conf_rotate_output *of;
    struct rotate_bytes *items; /* one for each file of the output */
    struct rotate_set set;
};

MEM_DEFINE_CLEANUP(STACK_OF(X509), sk_X509_free)

/* --- which authorities -------------------------------------------------------------------------
 */
static struct str domain_of(const char *spiffe_id)
{
    struct spiffe_id id;
    if (spiffe_id == NULL || spiffe_id_parse(str_of(spiffe_id), &id, NULL) == -1) {
        return STR_NONE;
    }
    return id.trust_domain;
}

static bool wants_domain(const struct conf_rotate_file *f, struct str own, struct str domain)
{
    if (f->trust_domain != NULL) {
        return str_eq(str_of(f->trust_domain), domain);
    }
    bool is_own = str_eq(own, domain);
    return f->trust == CONF_ROTATE_ALL || (f->trust == CONF_ROTATE_OWN) == is_own;
}

static int add_roots(STACK_OF(X509) * list, const struct rotate_material *m, struct str domain,
                     bool omit_expired)
{
    STACK_OF(X509) *roots = x509_trust_roots(m->x509->trust, domain);
    for (int i = 0; i < sk_X509_num(roots); i++) {
        X509 *root = sk_X509_value(roots, i);
        if (omit_expired && x509_not_after_s(root) <= m->now_s) {
            continue;
        }
        if (sk_X509_push(list, root) == 0) {
            return -1;
        }
    }
    return 0;
}

/* The authorities of a file, lent, in the agent's order; the own domain's first. */
static STACK_OF(X509) * authorities(const struct conf_rotate_output *o,
                                    const struct conf_rotate_file *f,
                                    const struct rotate_material *m, struct err *err)
{
    struct str own = domain_of(m->x509->svid->spiffe_id);
    mem_auto(sk_X509_free) STACK_OF(X509) *list = sk_X509_new_null();
    bool found = false;
    bool ok = list != NULL;
    for (int pass = 0; ok && pass < 2; pass++) {
        for (size_t i = 0; ok && i < x509_trust_count(m->x509->trust); i++) {
            struct str domain = x509_trust_domain(m->x509->trust, i);
            if (str_eq(domain, own) == (pass == 0) && wants_domain(f, own, domain)) {
                found = true;
                ok = add_roots(list, m, domain, o->omit_expired) == 0;
            }
        }
    }
    if (!ok) {
        err_set(err, ERR_SYSTEM, "no memory");
        return NULL;
    }
    if (!found && f->trust_domain != NULL) {
        err_set(err, ERR_UNAVAILABLE, "file '%s': the agent has no bundle of trust domain '%s'",
                f->name, f->trust_domain);
        return NULL;
    }
    STACK_OF(X509) *ret = list;
    list = NULL;
    return ret;
}

/* --- one file ----------------------------------------------------------------------------------
 */
static int append_certs(struct rotate_bytes *b, STACK_OF(X509) * certs, struct err *err)
{
    for (int i = 0; i < sk_X509_num(certs); i++) {
        if (rotate_pem_cert(b, sk_X509_value(certs, i), err) == -1) {
            return -1;
        }
    }
    return 0;
}

static int append_chain(struct rotate_bytes *b, const struct x509_svid *svid, struct err *err)
{
    if (rotate_pem_cert(b, svid->leaf, err) == -1) {
        return -1;
    }
    return append_certs(b, svid->intermediates, err);
}

static int append_combined(struct rotate_bytes *b, const struct conf_rotate_file *f,
                           const struct x509_svid *svid, struct err *err)
{
    if (f->order == CONF_ROTATE_KEY_FIRST) {
        return rotate_pem_key(b, svid->key, f->encoding, err) == 0 ? append_chain(b, svid, err)
                                                                   : -1;
    }
    return append_chain(b, svid, err) == 0 ? rotate_pem_key(b, svid->key, f->encoding, err) : -1;
}

static int append_authorities(struct rotate_bytes *b, const struct conf_rotate_output *o,
                              const struct conf_rotate_file *f, const struct rotate_material *m,
                              struct err *err)
{
    mem_auto(sk_X509_free) STACK_OF(X509) *list = authorities(o, f, m, err);
    if (list == NULL) {
        return -1;
    }
    if (f->what == CONF_ROTATE_TRUSTSTORE) {
        return rotate_pkcs12_trust(b, list, m->passphrase, err);
    }
    if (append_certs(b, list, err) == -1) {
        return -1;
    }
    return f->add_intermediates ? append_certs(b, m->x509->svid->intermediates, err) : 0;
}

static int append_key_set(struct rotate_bytes *b, const struct conf_rotate_file *f,
                          const struct rotate_material *m, struct err *err)
{
    struct str domain = f->trust_domain != NULL ? str_of(f->trust_domain) : domain_of(m->spiffe_id);
    for (size_t i = 0; i < m->n_key_sets; i++) {
        if (str_eq(m->key_sets[i].trust_domain, domain) || (domain.n == 0 && m->n_key_sets == 1)) {
            rotate_bytes_append(b, m->key_sets[i].json.p, m->key_sets[i].json.n);
            return 0;
        }
    }
    return err_set(err, ERR_UNAVAILABLE,
                   "file '%s': the agent has no key set of trust domain '%.*s'", f->name,
                   STR_ARG(domain));
}

/* A trust domain's name needs no escape in JSON. */
static void append_key_sets(struct rotate_bytes *b, const struct rotate_material *m)
{
    rotate_bytes_append(b, "{", 1);
    for (size_t i = 0; i < m->n_key_sets; i++) {
        const struct jwt_key_set *set = &m->key_sets[i];
        size_t size = (set->json.n + 2) / 3 * 4 + 1;
        mem_autofree unsigned char *text = mem_must_calloc(size, 1);
        mem_autofree char *head =
            mem_must_printf("%s\"%.*s\":\"", i > 0 ? "," : "", STR_ARG(set->trust_domain));
        int n = EVP_EncodeBlock(text, (const unsigned char *)set->json.p, (int)set->json.n);
        rotate_bytes_append(b, head, strlen(head));
        rotate_bytes_append(b, text, (size_t)n);
        rotate_bytes_append(b, "\"", 1);
    }
    rotate_bytes_append(b, "}", 1);
}

static int make_file(struct rotate_bytes *b, const struct conf_rotate_output *o, size_t i,
                     const struct rotate_material *m, struct err *err)
{
    const struct conf_rotate_file *f = &o->files[i];
    if (f->what == CONF_ROTATE_JWT) {
        rotate_bytes_append(b, m->tokens[i].text, strlen(m->tokens[i].text));
        return 0;
    }
    if (f->what == CONF_ROTATE_JWKS) {
        return append_key_set(b, f, m, err);
    }
    if (f->what == CONF_ROTATE_JWT_BUNDLES) {
        append_key_sets(b, m);
        return 0;
    }
    POSTERN_ASSERT(m->x509 != NULL && m->x509->svid != NULL);
    const struct x509_svid *svid = m->x509->svid;
    switch (f->what) {
    case CONF_ROTATE_CHAIN:
        return append_chain(b, svid, err);
    case CONF_ROTATE_LEAF:
        return rotate_pem_cert(b, svid->leaf, err);
    case CONF_ROTATE_INTERMEDIATES:
        return append_certs(b, svid->intermediates, err);
    case CONF_ROTATE_KEY:
        return rotate_pem_key(b, svid->key, f->encoding, err);
    case CONF_ROTATE_COMBINED:
        return append_combined(b, f, svid, err);
    case CONF_ROTATE_PKCS12:
        return rotate_pkcs12_identity(b, svid, m->passphrase, err);
    case CONF_ROTATE_BUNDLE:
    case CONF_ROTATE_TRUSTSTORE:
        return append_authorities(b, o, f, m, err);
    case CONF_ROTATE_JWT:
    case CONF_ROTATE_JWKS:
    case CONF_ROTATE_JWT_BUNDLES:
    case CONF_ROTATE_N_WHATS:
        break;
    }
    POSTERN_ASSERT(false);
}

/* --- the set -----------------------------------------------------------------------------------
 */
static int describe(struct rotate_set *set, const struct conf_rotate_output *o,
                    const struct rotate_material *m, struct err *err)
{
    if (m->spiffe_id != NULL) {
        snprintf(set->spiffe_id, sizeof(set->spiffe_id), "%s", m->spiffe_id);
    }
    if (m->x509 != NULL) {
        unsigned len = 0;
        const struct x509_svid *svid = m->x509->svid;
        set->has_leaf = true;
        snprintf(set->serial, sizeof(set->serial), "%s", svid->serial);
        if (X509_digest(svid->leaf, EVP_sha256(), set->leaf_sha256, &len) != 1 || len != 32) {
            return err_set(err, ERR_CRYPTO, "cannot hash the certificate");
        }
        set->parts[set->n_parts++] =
            (struct rotate_part){.begins_s = m->x509->renewed_at_s, .ends_s = svid->not_after_s};
    }
    for (size_t i = 0; i < o->n_files; i++) {
        if (o->files[i].what == CONF_ROTATE_JWT) {
            struct rotate_part *part = &set->parts[set->n_parts++];
            snprintf(part->file, sizeof(part->file), "%s", o->files[i].name);
            part->begins_s = m->tokens[i].begins_s;
            part->ends_s = m->tokens[i].ends_s;
        }
    }
    return 0;
}

int rotate_files_new(const struct conf_rotate_output *o, const struct rotate_material *m,
                     struct rotate_files **ret, struct err *err)
{
    mem_auto(rotate_files_free) struct rotate_files *f = mem_must_new(struct rotate_files);
    f->of = o;
    f->items = mem_must_calloc(o->n_files, sizeof(*f->items));
    for (size_t i = 0; i < o->n_files; i++) {
        f->items[i].secret = conf_rotate_is_secret(o->files[i].what);
        if (make_file(&f->items[i], o, i, m, err) == -1) {
            return -1;
        }
    }
    if (describe(&f->set, o, m, err) == -1) {
        return -1;
    }
    *ret = f;
    f = NULL;
    return 0;
}

struct rotate_files *rotate_files_free(struct rotate_files *f)
{
    if (f != NULL) {
        for (size_t i = 0; i < f->of->n_files; i++) {
            rotate_bytes_reset(&f->items[i]);
        }
        free(f->items);
        free(f);
    }
    return NULL;
}

size_t rotate_files_count(const struct rotate_files *f)
{
    return f->of->n_files;
}

struct rotate_file rotate_files_get(const struct rotate_files *f, size_t i)
{
    POSTERN_ASSERT(i < f->of->n_files);
    return (struct rotate_file){.name = f->of->files[i].name,
                                .secret = f->items[i].secret,
                                .data = f->items[i].data,
                                .len = f->items[i].len};
}

const struct rotate_set *rotate_files_set(const struct rotate_files *f)
{
    return &f->set;
}
