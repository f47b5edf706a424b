/*
 * A trust domain's bundle as a file has it: PEM, or JSON (SPIFFE_Trust_Domain_and_Bundle.md): a JWK
 * set, or a map of them by trust domain. Of a set, the keys of use "x509-svid" count, and of those
 * the first certificate; what is not understood is skipped, as the specification wants it. Pure.
 */
#include <postern/credential.h>

#include "credential_priv.h"
#include <jansson.h>
#include <openssl/evp.h>
#include <postern/buf.h>
#include <stdlib.h>
#include <string.h>

enum { CERTS_MAX = 128, DER_MAX = 64 * 1024 };

/* One certificate's DER, of base64 as RFC 7517 4.7 has it, to the end of out. */
static int put_x5c(const json_t *x5c, struct buf *out, struct err *err)
{
    const char *text = json_string_value(json_array_get(x5c, 0));
    size_t n = text != NULL ? strlen(text) : 0;
    if (n == 0 || n % 4 != 0 || n / 4 * 3 > DER_MAX) {
        return err_set(err, ERR_CONFIG, "an x5c that is no base64 of a certificate");
    }
    uint8_t *at = buf_reserve(out, n / 4 * 3);
    if (at == NULL) {
        return err_set(err, ERR_LIMIT, "too many certificates");
    }
    int len = EVP_DecodeBlock(at, (const unsigned char *)text, (int)n);
    len -= len > 0 && text[n - 1] == '=' ? 1 : 0;
    len -= len > 0 && text[n - 2] == '=' ? 1 : 0;
    if (len <= 0) {
        return err_set(err, ERR_CONFIG, "an x5c that is no base64 of a certificate");
    }
    buf_commit(out, (size_t)len);
    return 0;
}

static int put_set(const json_t *set, struct buf *out, struct err *err)
{
    const json_t *keys = json_object_get(set, "keys");
    size_t i;
    const json_t *key;
    if (!json_is_array(keys)) {
        err_set(err, ERR_CONFIG, "it is no JWK set");
        return err_expected(err, "an object with a list `keys`");
    }
    json_array_foreach(keys, i, key)
    {
        const char *use = json_string_value(json_object_get(key, "use"));
        const json_t *x5c = json_object_get(key, "x5c");
        if (use != NULL && strcmp(use, "x509-svid") == 0 && json_array_size(x5c) > 0 &&
            put_x5c(x5c, out, err) == -1) {
            return err_prefix(err, "key %zu", i + 1);
        }
    }
    return 0;
}

/* The set of this trust domain: the document itself, or one of a map. */
static const json_t *set_of(const json_t *doc, struct str trust_domain)
{
    const json_t *map = json_object_get(doc, "trust_domains");
    const char *name;
    json_t *set;
    if (!json_is_object(map)) {
        return doc;
    }
    json_object_foreach((json_t *)(uintptr_t)map, name, set)
    {
        if (str_eq(str_of(name), trust_domain)) {
            return set;
        }
    }
    return NULL;
}

static int ders_of_json(struct str text, struct str trust_domain, struct buf *out, struct err *err)
{
    json_error_t e;
    json_t *doc = json_loadb(text.p, text.n, JSON_REJECT_DUPLICATES, &e);
    if (doc == NULL) {
        return err_set(err, ERR_CONFIG, "it is neither PEM nor JSON: line %d: %s", e.line, e.text);
    }
    const json_t *set = set_of(doc, trust_domain);
    int r = set != NULL
                ? put_set(set, out, err)
                : err_set(err, ERR_CONFIG, "it has no bundle of '%.*s'", STR_ARG(trust_domain));
    json_decref(doc);
    return r;
}

static int ders_of_pem(struct str text, struct buf *out, struct err *err)
{
    STACK_OF(X509) *certs = credential_parse_certs(text, CERTS_MAX, err);
    int r = certs != NULL ? 0 : -1;
    for (int i = 0; r == 0 && i < sk_X509_num(certs); i++) {
        uint8_t *der = NULL;
        size_t n = 0;
        r = x509_to_der(sk_X509_value(certs, i), &der, &n, err);
        if (r == 0 && !buf_append(out, der, n)) {
            r = err_set(err, ERR_LIMIT, "too many certificates");
        }
        free(der);
    }
    credential_certs_free(certs);
    return r;
}

int credential_parse_bundle(struct str text, struct str trust_domain, struct x509_trust *trust,
                            struct err *err)
{
    struct buf ders = BUF_INIT(CERTS_MAX * DER_MAX);
    bool pem = text.n > 0 && memmem(text.p, text.n, "-----BEGIN ", 11) != NULL;
    int r = pem ? ders_of_pem(text, &ders, err) : ders_of_json(text, trust_domain, &ders, err);
    if (r == 0) {
        r = x509_trust_add(trust, trust_domain, buf_str(&ders), err);
    }
    buf_reset(&ders);
    return r;
}
