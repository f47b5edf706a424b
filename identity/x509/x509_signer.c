/*
 * Leaves by the thousand. A signer is an authority made ready: checked once, its name, key
 * identifier and signature algorithm taken from a leaf that x509_issue made with it, its signing
 * context kept. What is signed is then laid out here, field by field, in exactly the form of
 * x509_issue (a test compares the two): OpenSSL's objects and fetches cost more than the
 * arithmetic.
 *
 * DER is written from the end to the front, since a length stands before what it measures.
 */
#include <postern/x509.h>

#include "x509_priv.h"
#include <openssl/ec.h>
#include <openssl/err.h>
#include <openssl/obj_mac.h>
#include <postern/os.h>
#include <stdlib.h>
#include <time.h>

enum {
    SERIAL_LEN = 16,
    KEY_ID_LEN = 20,
    DER_MAX = 12 * 1024, /* of a leaf: 64 names of 253 bytes would not fit, and are refused */
    SIGNATURE_MAX = 1024,
    TAG_INTEGER = 0x02,
    TAG_BITS = 0x03,
    TAG_OCTETS = 0x04,
    TAG_SEQUENCE = 0x30,
    TAG_UTC_TIME = 0x17,
    TAG_GENERALIZED_TIME = 0x18,
    TAG_VERSION = 0xa0,
    TAG_EXTENSIONS = 0xa3,
    TAG_KEY_ID = 0x80, /* in an authority key identifier */
    TAG_DNS = 0x82,    /* general names */
    TAG_URI = 0x86,
};

struct x509_signer {
    unsigned refs;
    EVP_PKEY *key;     /* a reference */
    EVP_MD *md;        /* NULL: the key has its own */
    EVP_PKEY_CTX *ctx; /* ready to sign digests; NULL: not for this kind of key */
    EVP_MD *sha256;
    EC_GROUP *group;
    EC_POINT *point; /* to try keys on */
    BN_CTX *bn;
    uint8_t *name, *algorithm; /* DER, owned */
    size_t n_name, n_algorithm;
    uint8_t key_id[64]; /* of the authority */
    size_t n_key_id;    /* 0: it has none, and so have its leaves */
    int64_t not_after_s;
};

/* --- DER, backwards --------------------------------------------------------------------------- */

struct der {
    uint8_t bytes[DER_MAX];
    size_t at; /* of the first byte that is written */
    bool full;
};

static void put(struct der *d, const void *p, size_t n)
{
    if (d->full || n > d->at) {
        d->full = true;
        return;
    }
    d->at -= n;
    memcpy(d->bytes + d->at, p, n);
}

static void put_byte(struct der *d, unsigned byte)
{
    uint8_t b = (uint8_t)byte;
    put(d, &b, 1);
}

/* Head of the element whose content was written since `end`. */
static void wrap(struct der *d, unsigned tag, size_t end)
{
    size_t n = end - d->at;
    if (n < 0x80) {
        put_byte(d, (unsigned)n);
    } else {
        unsigned bytes = 0;
        for (; n > 0; n >>= 8, bytes++) {
            put_byte(d, n & 0xff);
        }
        put_byte(d, 0x80 | bytes);
    }
    put_byte(d, tag);
}

static void put_element(struct der *d, unsigned tag, const void *p, size_t n)
{
    size_t end = d->at;
    put(d, p, n);
    wrap(d, tag, end);
}

/* Year, month and day of a number of days since 1970-01-01 (proleptic, years 1970 to 9999). */
static void civil_of(int64_t days, int ret[3])
{
    int64_t z = days + 719468;
    int64_t era = z / 146097;
    int64_t doe = z - era * 146097;
    int64_t yoe = (doe - doe / 1460 + doe / 36524 - doe / 146096) / 365;
    int64_t doy = doe - (365 * yoe + yoe / 4 - yoe / 100);
    int64_t mp = (5 * doy + 2) / 153;
    ret[2] = (int)(doy - (153 * mp + 2) / 5 + 1);
    ret[1] = (int)(mp < 10 ? mp + 3 : mp - 9);
    ret[0] = (int)(yoe + era * 400 + (ret[1] <= 2 ? 1 : 0));
}

/* RFC 5280, 4.1.2.5: two digits of the year through 2049. */
static void put_time(struct der *d, int64_t t_s)
{
    int date[3];
    char text[48];
    int s = (int)(t_s % 86400);
    civil_of(t_s / 86400, date);
    bool utc = date[0] < 2050;
    int n =
        snprintf(text, sizeof(text), "%0*d%02d%02d%02d%02d%02dZ", utc ? 2 : 4,
                 utc ? date[0] % 100 : date[0], date[1], date[2], s / 3600, s / 60 % 60, s % 60);
    put_element(d, utc ? TAG_UTC_TIME : TAG_GENERALIZED_TIME, text, (size_t)n);
}

/* --- extensions, each with its OID, its criticality and the value in an OCTET STRING -----------
 */

static const uint8_t OID_BASIC_CONSTRAINTS[] = {0x06, 0x03, 0x55, 0x1d, 0x13};
static const uint8_t OID_KEY_USAGE[] = {0x06, 0x03, 0x55, 0x1d, 0x0f};
static const uint8_t OID_EXT_KEY_USAGE[] = {0x06, 0x03, 0x55, 0x1d, 0x25};
static const uint8_t OID_SUBJECT_KEY_ID[] = {0x06, 0x03, 0x55, 0x1d, 0x0e};
static const uint8_t OID_AUTHORITY_KEY_ID[] = {0x06, 0x03, 0x55, 0x1d, 0x23};
static const uint8_t OID_ALT_NAME[] = {0x06, 0x03, 0x55, 0x1d, 0x11};
static const uint8_t CRITICAL[] = {0x01, 0x01, 0xff};
static const uint8_t NO_CA[] = {0x30, 0x00};
static const uint8_t DIGITAL_SIGNATURE[] = {0x03, 0x02, 0x07, 0x80};
static const uint8_t SERVER_AND_CLIENT[] = {0x30, 0x14, 0x06, 0x08, 0x2b, 0x06, 0x01, 0x05,
                                            0x05, 0x07, 0x03, 0x01, 0x06, 0x08, 0x2b, 0x06,
                                            0x01, 0x05, 0x05, 0x07, 0x03, 0x02};
/* SEQUENCE { SET { SEQUENCE { organizationName, UTF8String as OpenSSL chooses it } } } */
static const uint8_t SUBJECT[] = {0x30, 0x12, 0x31, 0x10, 0x30, 0x0e, 0x06, 0x03, 0x55, 0x04,
                                  0x0a, 0x0c, 0x07, 'P',  'o',  's',  't',  'e',  'r',  'n'};
/* Up to and with the octet that says that no bit of the BIT STRING is unused. */
static const uint8_t P256_KEY[] = {0x30, 0x59, 0x30, 0x13, 0x06, 0x07, 0x2a, 0x86, 0x48,
                                   0xce, 0x3d, 0x02, 0x01, 0x06, 0x08, 0x2a, 0x86, 0x48,
                                   0xce, 0x3d, 0x03, 0x01, 0x07, 0x03, 0x42, 0x00};

/* The value was written since `end`. */
static void wrap_extension(struct der *d, const uint8_t *oid, bool critical, size_t end)
{
    wrap(d, TAG_OCTETS, end);
    if (critical) {
        put(d, CRITICAL, sizeof(CRITICAL));
    }
    put(d, oid, sizeof(OID_ALT_NAME)); /* all of them are as long */
    wrap(d, TAG_SEQUENCE, end);
}

static void put_extension(struct der *d, const uint8_t *oid, bool critical, const uint8_t *value,
                          size_t n)
{
    size_t end = d->at;
    put(d, value, n);
    wrap_extension(d, oid, critical, end);
}

static void put_names(struct der *d, const struct x509_issue *what)
{
    size_t end = d->at;
    for (size_t i = what->n_dns_names; i > 0; i--) {
        put_element(d, TAG_DNS, what->dns_names[i - 1].p, what->dns_names[i - 1].n);
    }
    put_element(d, TAG_URI, what->spiffe_id.p, what->spiffe_id.n);
    wrap(d, TAG_SEQUENCE, end);
    wrap_extension(d, OID_ALT_NAME, false, end);
}

static void put_key_ids(const struct x509_signer *s, struct der *d, const uint8_t *key_id)
{
    size_t end = d->at;
    if (s->n_key_id == 0) {
        return;
    }
    put_element(d, TAG_KEY_ID, s->key_id, s->n_key_id);
    wrap(d, TAG_SEQUENCE, end);
    wrap_extension(d, OID_AUTHORITY_KEY_ID, false, end);
    end = d->at;
    put_element(d, TAG_OCTETS, key_id, KEY_ID_LEN);
    wrap_extension(d, OID_SUBJECT_KEY_ID, false, end);
}

/* --- the statement ---------------------------------------------------------------------------- */

static void put_serial(struct der *d, const uint8_t serial[SERIAL_LEN])
{
    size_t end = d->at;
    put(d, serial, SERIAL_LEN);
    if ((serial[0] & 0x80) != 0) {
        put_byte(d, 0); /* it is positive */
    }
    wrap(d, TAG_INTEGER, end);
}

/* All of TBSCertificate. */
static void put_statement(const struct x509_signer *s, struct der *d, const struct x509_issue *what,
                          int64_t not_after_s, const uint8_t *key_id, const uint8_t *serial)
{
    static const uint8_t version_3[] = {TAG_VERSION, 0x03, 0x02, 0x01, 0x02};
    size_t end = d->at;
    put_names(d, what);
    put_key_ids(s, d, key_id);
    put_extension(d, OID_EXT_KEY_USAGE, false, SERVER_AND_CLIENT, sizeof(SERVER_AND_CLIENT));
    put_extension(d, OID_KEY_USAGE, true, DIGITAL_SIGNATURE, sizeof(DIGITAL_SIGNATURE));
    put_extension(d, OID_BASIC_CONSTRAINTS, true, NO_CA, sizeof(NO_CA));
    wrap(d, TAG_SEQUENCE, end);
    wrap(d, TAG_EXTENSIONS, end);
    put(d, what->point, X509_POINT_LEN);
    put(d, P256_KEY, sizeof(P256_KEY));
    put(d, SUBJECT, sizeof(SUBJECT));
    size_t times = d->at;
    put_time(d, not_after_s);
    put_time(d, what->not_before_s);
    wrap(d, TAG_SEQUENCE, times);
    put(d, s->name, s->n_name);
    put(d, s->algorithm, s->n_algorithm);
    put_serial(d, serial);
    put(d, version_3, sizeof(version_3));
    wrap(d, TAG_SEQUENCE, end);
}

static bool sign(struct x509_signer *s, const uint8_t *p, size_t n, uint8_t *ret, size_t *ret_n)
{
    uint8_t digest[EVP_MAX_MD_SIZE];
    unsigned n_digest = 0;
    if (s->ctx != NULL) {
        return EVP_Digest(p, n, digest, &n_digest, s->md, NULL) == 1 &&
               EVP_PKEY_sign(s->ctx, ret, ret_n, digest, n_digest) == 1;
    }
    EVP_MD_CTX *ctx = EVP_MD_CTX_new();
    bool ok = ctx != NULL && EVP_DigestSignInit(ctx, NULL, s->md, NULL, s->key) == 1 &&
              EVP_DigestSign(ctx, ret, ret_n, p, n) == 1;
    EVP_MD_CTX_free(ctx);
    return ok;
}

bool x509_signer_takes(struct x509_signer *s, const uint8_t point[X509_POINT_LEN])
{
    /* The uncompressed form only; reading it checks that it is on the curve, whose cofactor is 1:
     * there is no other subgroup to be in. */
    bool ok = point[0] == 0x04 &&
              EC_POINT_oct2point(s->group, s->point, point, X509_POINT_LEN, s->bn) == 1 &&
              EC_POINT_is_on_curve(s->group, s->point, s->bn) == 1;
    ERR_clear_error();
    return ok;
}

int x509_signer_issue(struct x509_signer *s, const struct x509_issue *what, struct x509_made *ret,
                      struct err *err)
{
    struct der d = {.at = DER_MAX};
    struct der signed_part = {.at = DER_MAX};
    uint8_t key_id[EVP_MAX_MD_SIZE];
    uint8_t signature[SIGNATURE_MAX];
    size_t n_signature = sizeof(signature);
    struct x509_made made = {.not_after_s = what->not_after_s};
    if (x509_issue_check(what, err) == -1) {
        return -1;
    }
    if (what->ca) {
        return err_set(err, ERR_USAGE, "a signer makes leaves only");
    }
    if (!x509_signer_takes(s, what->point)) {
        return err_set(err, ERR_PROTOCOL, "not a point of P-256");
    }
    if (s->not_after_s < made.not_after_s) {
        made.not_after_s = s->not_after_s;
    }
    if (what->not_before_s >= made.not_after_s || what->not_before_s < 0) {
        return err_set(err, ERR_UNAVAILABLE, "the certificate would end before it begins: %s",
                       made.not_after_s < what->not_after_s ? "the issuer's own has expired"
                                                            : "its times are wrong");
    }
    os_random(made.serial, sizeof(made.serial));
    made.serial[0] = made.serial[0] == 0 ? 1 : made.serial[0];
    ERR_clear_error();
    if (EVP_Digest(what->point, X509_POINT_LEN, key_id, NULL, s->sha256, NULL) != 1) {
        return x509_err_crypto(err, "SHA-256");
    }
    put_statement(s, &signed_part, what, made.not_after_s, key_id, made.serial);
    const uint8_t *statement = signed_part.bytes + signed_part.at;
    size_t n_statement = DER_MAX - signed_part.at;
    if (signed_part.full) {
        return err_set(err, ERR_LIMIT, "the certificate would be too large");
    }
    if (!sign(s, statement, n_statement, signature, &n_signature)) {
        return x509_err_crypto(err, "cannot sign a certificate");
    }
    put(&d, signature, n_signature);
    put_byte(&d, 0); /* no bit unused */
    wrap(&d, TAG_BITS, DER_MAX);
    put(&d, s->algorithm, s->n_algorithm);
    put(&d, statement, n_statement);
    wrap(&d, TAG_SEQUENCE, DER_MAX);
    if (d.full) {
        return err_set(err, ERR_LIMIT, "the certificate would be too large");
    }
    made.len = DER_MAX - d.at;
    made.der = mem_must_calloc(1, made.len);
    memcpy(made.der, d.bytes + d.at, made.len);
    *ret = made;
    return 0;
}

/* --- making one ready ------------------------------------------------------------------------- */

/* Digests are signed over a context that is kept; other kinds of keys make one each time. */
static bool prepare_key(struct x509_signer *s)
{
    int type = EVP_PKEY_get_base_id(s->key);
    if (type == EVP_PKEY_ED25519) {
        return true;
    }
    bool large = type == EVP_PKEY_EC && EVP_PKEY_get_bits(s->key) > 256;
    s->md = EVP_MD_fetch(NULL, large ? "SHA384" : "SHA256", NULL);
    if (s->md == NULL || type != EVP_PKEY_EC) {
        return s->md != NULL;
    }
    s->ctx = EVP_PKEY_CTX_new_from_pkey(NULL, s->key, NULL);
    return s->ctx != NULL && EVP_PKEY_sign_init(s->ctx) == 1 &&
           EVP_PKEY_CTX_set_signature_md(s->ctx, s->md) == 1;
}

/* A leaf that x509_issue makes: it checks authority and key, and shows what the algorithm is. */
static int learn(struct x509_signer *s, X509 *issuer, struct err *err)
{
    uint8_t point[X509_POINT_LEN];
    mem_auto(EVP_PKEY_free) EVP_PKEY *subject = x509_key_new(err);
    mem_auto(X509_free) X509 *leaf = NULL;
    const X509_ALGOR *algorithm = NULL;
    int64_t end_s = x509_not_after_s(issuer);
    struct x509_issue what = {.spiffe_id = STR_LIT("spiffe://signer.test/probe"),
                              .point = point,
                              .not_before_s = end_s - 1,
                              .not_after_s = end_s};
    if (subject == NULL || x509_key_point(subject, point, err) == -1 ||
        x509_issue(&what, issuer, s->key, &leaf, err) == -1) {
        return -1;
    }
    X509_get0_signature(NULL, &algorithm, leaf);
    int n_algorithm = i2d_X509_ALGOR(algorithm, &s->algorithm);
    int n_name = i2d_X509_NAME(X509_get_issuer_name(leaf), &s->name);
    const ASN1_OCTET_STRING *key_id = X509_get0_subject_key_id(issuer);
    if (n_algorithm <= 0 || n_name <= 0 ||
        (key_id != NULL && (size_t)ASN1_STRING_length(key_id) > sizeof(s->key_id))) {
        return x509_err_crypto(err, "the authority's name or key identifier");
    }
    s->n_algorithm = (size_t)n_algorithm;
    s->n_name = (size_t)n_name;
    if (key_id != NULL) {
        s->n_key_id = (size_t)ASN1_STRING_length(key_id);
        memcpy(s->key_id, ASN1_STRING_get0_data(key_id), s->n_key_id);
    }
    s->not_after_s = end_s;
    return 0;
}

struct x509_signer *x509_signer_new(X509 *issuer, EVP_PKEY *key, struct err *err)
{
    struct x509_signer *s = mem_must_new(struct x509_signer);
    ERR_clear_error();
    s->refs = 1;
    EVP_PKEY_up_ref(key);
    s->key = key;
    s->sha256 = EVP_MD_fetch(NULL, "SHA256", NULL);
    s->group = EC_GROUP_new_by_curve_name(NID_X9_62_prime256v1);
    s->point = s->group != NULL ? EC_POINT_new(s->group) : NULL;
    s->bn = BN_CTX_new();
    if (s->sha256 == NULL || s->point == NULL || s->bn == NULL || !prepare_key(s)) {
        x509_err_crypto(err, "preparing an authority");
    } else if (learn(s, issuer, err) == 0) {
        return s;
    }
    return x509_signer_unref(s);
}

struct x509_signer *x509_signer_ref(struct x509_signer *s)
{
    s->refs++;
    return s;
}

struct x509_signer *x509_signer_unref(struct x509_signer *s)
{
    if (s != NULL && --s->refs == 0) {
        EVP_PKEY_CTX_free(s->ctx);
        EVP_MD_free(s->md);
        EVP_MD_free(s->sha256);
        EC_POINT_free(s->point);
        EC_GROUP_free(s->group);
        BN_CTX_free(s->bn);
        EVP_PKEY_free(s->key);
        OPENSSL_free(s->name);
        OPENSSL_free(s->algorithm);
        free(s);
    }
    return NULL;
}
