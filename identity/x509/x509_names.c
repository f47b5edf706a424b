/*
 * A certificate's names, and whether one of them is among those that count. The names are the
 * peer's bytes: one that holds what no name may (a NUL, blanks, control characters) makes the whole
 * certificate bad, since somebody else may read it differently.
 */
#include <postern/x509_peers.h>

#include "x509_names_priv.h"
#include "x509_priv.h"
#include <arpa/inet.h>
#include <openssl/err.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>

enum {
    NAME_MAX_LEN = 1024,
    HOST_MAX = 253,
    ADDRESS_MAX = 16,
};

MEM_DEFINE_CLEANUP(GENERAL_NAMES, GENERAL_NAMES_free)

struct name {
    enum x509_name_kind kind;
    char *text; /* owned */
    struct str view;
    uint8_t address[ADDRESS_MAX]; /* a DNS name that is an IP literal */
    size_t address_len;           /* 0: it is none */
};

struct x509_names {
    atomic_uint refs;
    bool any;
    struct name *items; /* owned */
    size_t n;
    struct name host; /* has to be there as well; text NULL: none has to */
};

const char *x509_name_kind_text(enum x509_name_kind kind)
{
    static const char *const texts[] = {[X509_NAME_URI] = "uri",
                                        [X509_NAME_DNS] = "dns",
                                        [X509_NAME_CN] = "cn",
                                        [X509_NAME_OU] = "ou"};
    return (size_t)kind < X509_N_NAME_KINDS ? texts[kind] : "?";
}

/* --- what may be a name ----------------------------------------------------------------------- */
static bool all_between(struct str s, unsigned char low, unsigned char high)
{
    for (size_t i = 0; i < s.n; i++) {
        unsigned char c = (unsigned char)s.p[i];
        if (c < low || c > high) {
            return false;
        }
    }
    return s.n > 0 && s.n <= NAME_MAX_LEN;
}

/* URIs and host names: printable ASCII without blanks. */
static bool graphic(struct str s)
{
    return all_between(s, 0x21, 0x7e);
}

/* Texts of a subject: UTF-8 without control characters. */
static bool subject_text(struct str s)
{
    return all_between(s, 0x20, 0xff) && memchr(s.p, 0x7f, s.n) == NULL;
}

static bool host_ok(struct str host)
{
    size_t label = 0;
    for (size_t i = 0; i < host.n; i++) {
        char c = host.p[i];
        bool fits = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
                    c == '-' || c == '_' || (c == '*' && i == 0 && host.n > 2 && host.p[1] == '.');
        if (c == '.' ? label == 0 : !fits) {
            return false;
        }
        label = c == '.' ? 0 : label + 1;
    }
    return label > 0 && host.n <= HOST_MAX;
}

static size_t parse_address(struct str text, uint8_t ret[ADDRESS_MAX])
{
    char z[INET6_ADDRSTRLEN];
    if (text.n >= sizeof(z)) {
        return 0;
    }
    memcpy(z, text.p, text.n);
    z[text.n] = '\0';
    if (inet_pton(AF_INET, z, ret) == 1) {
        return 4;
    }
    return inet_pton(AF_INET6, z, ret) == 1 ? 16 : 0;
}

/* --- the names that count --------------------------------------------------------------------- */
struct x509_names *x509_names_new(bool any)
{
    struct x509_names *n = mem_must_new(struct x509_names);
    atomic_init(&n->refs, 1);
    n->any = any;
    return n;
}

struct x509_names *x509_names_ref(const struct x509_names *n)
{
    struct x509_names *mine =
        (struct x509_names *)(uintptr_t)n; /* all but the count is immutable */
    POSTERN_ASSERT(atomic_fetch_add_explicit(&mine->refs, 1, memory_order_relaxed) > 0);
    return mine;
}

struct x509_names *x509_names_unref(struct x509_names *n)
{
    if (n == NULL || atomic_fetch_sub_explicit(&n->refs, 1, memory_order_acq_rel) > 1) {
        return NULL;
    }
    for (size_t i = 0; i < n->n; i++) {
        free(n->items[i].text);
    }
    free(n->items);
    free(n->host.text);
    free(n);
    return NULL;
}

size_t x509_names_count(const struct x509_names *n)
{
    return n->n;
}

bool x509_names_equal(const struct x509_names *a, const struct x509_names *b)
{
    if (a == NULL || b == NULL || a->any != b->any || a->n != b->n ||
        !str_eq(a->host.view, b->host.view)) {
        return a == b;
    }
    for (size_t i = 0; i < a->n; i++) {
        if (a->items[i].kind != b->items[i].kind || !str_eq(a->items[i].view, b->items[i].view)) {
            return false;
        }
    }
    return true;
}

static int check_name(enum x509_name_kind kind, struct str text, bool is_address, struct err *err)
{
    bool printable =
        kind == X509_NAME_URI || kind == X509_NAME_DNS ? graphic(text) : subject_text(text);
    if (!printable) {
        return err_set(err, ERR_CONFIG,
                       "no certificate has such a name: it is empty, longer than "
                       "%d bytes, or has blanks or control characters",
                       (int)NAME_MAX_LEN);
    }
    if (kind == X509_NAME_DNS && !is_address && !host_ok(text)) {
        err_set(err, ERR_CONFIG, "'%.*s' is not a host name", (int)(text.n < 100 ? text.n : 100),
                text.p);
        return err_expected(err, "labels of letters, digits and hyphens, or an IP address");
    }
    if (kind == X509_NAME_URI) {
        for (size_t i = 0; i + 1 < text.n; i++) {
            bool twice = text.p[i] == '*' && text.p[i + 1] == '*';
            bool segment =
                (i == 0 || text.p[i - 1] == '/') && (i + 2 == text.n || text.p[i + 2] == '/');
            if (twice && segment && i + 2 != text.n) {
                err_set(err, ERR_CONFIG, "`**` stands before the end");
                return err_expected(err, "`**` as the last segment, `*` for one segment");
            }
        }
    }
    return 0;
}

static int make_name(enum x509_name_kind kind, struct str text, struct name *ret, struct err *err)
{
    struct name name = {.kind = kind};
    if (kind == X509_NAME_DNS) {
        name.address_len = parse_address(text, name.address);
        text.n -= text.n > 1 && text.p[text.n - 1] == '.' ? 1 : 0; /* the root is meant anyway */
    }
    if (check_name(kind, text, name.address_len > 0, err) == -1) {
        return -1;
    }
    name.text = mem_must_strndup(text.p, text.n);
    name.view = str_of(name.text);
    *ret = name;
    return 0;
}

int x509_names_add(struct x509_names *n, enum x509_name_kind kind, struct str text, struct err *err)
{
    struct name name;
    if (make_name(kind, text, &name, err) == -1) {
        return -1;
    }
    n->items = mem_must_realloc(n->items, (n->n + 1) * sizeof(*n->items));
    n->items[n->n++] = name;
    return 0;
}

int x509_names_demand_host(struct x509_names *n, struct str host, struct err *err)
{
    POSTERN_ASSERT(n->host.text == NULL);
    return make_name(X509_NAME_DNS, host, &n->host, err);
}

/* --- matching --------------------------------------------------------------------------------- */
/* Up to the next slash, which goes too; *ret_more: there was one. */
static struct str take_segment(struct str *s, bool *ret_more)
{
    const char *slash = s->n > 0 ? memchr(s->p, '/', s->n) : NULL;
    struct str segment = {s->p, slash != NULL ? (size_t)(slash - s->p) : s->n};
    *ret_more = slash != NULL;
    s->p = slash != NULL ? slash + 1 : s->p + s->n;
    s->n -= segment.n + (slash != NULL ? 1 : 0);
    return segment;
}

bool x509_uri_match(struct str pattern, struct str uri)
{
    bool more = true; /* of uri */
    for (;;) {
        bool pattern_more = false;
        struct str want = take_segment(&pattern, &pattern_more);
        if (!pattern_more && str_eq(want, STR_LIT("**"))) {
            return true;
        }
        if (!more) {
            return false;
        }
        struct str have = take_segment(&uri, &more);
        bool fits = str_eq(want, STR_LIT("*")) ? have.n > 0 : str_eq(want, have);
        if (!fits) {
            return false;
        }
        if (!pattern_more) {
            return uri.n == 0;
        }
    }
}

bool x509_dns_match(struct str presented, struct str host, bool wildcard)
{
    if (str_eq_nocase(presented, host)) {
        return host.n > 0;
    }
    if (!wildcard || !str_has_prefix(presented, STR_LIT("*."))) {
        return false;
    }
    struct str rest = {presented.p + 1, presented.n - 1}; /* ".b.example" */
    if (memchr(rest.p + 1, '.', rest.n - 1) == NULL || memchr(rest.p, '*', rest.n) != NULL) {
        return false;
    }
    const char *dot = host.n > 0 ? memchr(host.p, '.', host.n) : NULL;
    if (dot == NULL || dot == host.p || host.p[0] == '*') {
        return false;
    }
    struct str tail = {dot, host.n - (size_t)(dot - host.p)};
    return str_eq_nocase(tail, rest);
}

/* --- reading a certificate -------------------------------------------------------------------- */
static struct str ia5_of(const GENERAL_NAME *name)
{
    const ASN1_STRING *s = name->d.ia5;
    return (struct str){(const char *)ASN1_STRING_get0_data(s), (size_t)ASN1_STRING_length(s)};
}

int x509_sans_read(X509 *cert, GENERAL_NAMES **ret, struct err *err)
{
    int found = 0;
    ERR_clear_error();
    mem_auto(GENERAL_NAMES_free) GENERAL_NAMES *names =
        X509_get_ext_d2i(cert, NID_subject_alt_name, &found, NULL);
    ERR_clear_error();
    if (names == NULL && found != -1) {
        return err_set(err, ERR_PROTOCOL,
                       found == -2 ? "the certificate has several lists of names"
                                   : "the certificate's names cannot be read");
    }
    for (int i = 0; i < sk_GENERAL_NAME_num(names); i++) {
        const GENERAL_NAME *name = sk_GENERAL_NAME_value(names, i);
        if ((name->type == GEN_URI || name->type == GEN_DNS) && !graphic(ia5_of(name))) {
            return err_set(err, ERR_PROTOCOL,
                           "one of the certificate's %s names is empty, overlong, or holds bytes "
                           "that no name has",
                           name->type == GEN_URI ? "URI" : "DNS");
        }
    }
    *ret = names;
    names = NULL;
    return 0;
}

/* The i-th attribute of the subject of that kind, as UTF-8 (OPENSSL_free); NULL: there is none, or
 * it is no text that counts. */
static unsigned char *subject_part(X509 *cert, int nid, int *at, struct str *ret)
{
    const X509_NAME *subject = X509_get_subject_name(cert);
    *at = X509_NAME_get_index_by_NID(subject, nid, *at);
    if (*at < 0) {
        return NULL;
    }
    unsigned char *text = NULL;
    int n = ASN1_STRING_to_UTF8(&text, X509_NAME_ENTRY_get_data(X509_NAME_get_entry(subject, *at)));
    *ret = (struct str){(const char *)text, n > 0 ? (size_t)n : 0};
    if (n <= 0 || !subject_text(*ret)) {
        OPENSSL_free(text);
        ERR_clear_error();
        *ret = STR_NONE;
        return NULL;
    }
    return text;
}

static void put_principal(struct x509_peer *peer, const char *kind, struct str text, bool lower)
{
    int n = snprintf(peer->id, sizeof(peer->id), "%s:%.*s", kind, STR_ARG(text));
    peer->id_len = n > 0 && (size_t)n < sizeof(peer->id) ? (size_t)n : 0;
    for (size_t i = 0; lower && i < peer->id_len; i++) {
        char c = peer->id[i];
        peer->id[i] = c >= 'A' && c <= 'Z' ? (char)(c + 32) : c;
    }
}

/* --- which of them counts --------------------------------------------------------------------- */
static bool is_host(const struct name *w, const GENERAL_NAME *san, bool is_server)
{
    if (w->kind != X509_NAME_DNS) {
        return false;
    }
    if (w->address_len > 0) {
        return san->type == GEN_IPADD &&
               (size_t)ASN1_STRING_length(san->d.iPAddress) == w->address_len &&
               memcmp(ASN1_STRING_get0_data(san->d.iPAddress), w->address, w->address_len) == 0;
    }
    return san->type == GEN_DNS && x509_dns_match(ia5_of(san), w->view, is_server);
}

static bool has_host(const struct name *host, const GENERAL_NAMES *sans, bool is_server)
{
    bool found = host->text == NULL;
    for (int i = 0; !found && i < sk_GENERAL_NAME_num(sans); i++) {
        found = is_host(host, sk_GENERAL_NAME_value(sans, i), is_server);
    }
    return found;
}

static bool match_san(const struct x509_names *want, const GENERAL_NAMES *sans, bool is_server,
                      struct x509_peer *peer)
{
    for (int i = 0; i < sk_GENERAL_NAME_num(sans); i++) {
        const GENERAL_NAME *san = sk_GENERAL_NAME_value(sans, i);
        for (size_t k = 0; k < want->n; k++) {
            const struct name *w = &want->items[k];
            if (san->type == GEN_URI && w->kind == X509_NAME_URI &&
                x509_uri_match(w->view, ia5_of(san))) {
                put_principal(peer, "uri", ia5_of(san), false);
                return true;
            }
            if (is_host(w, san, is_server)) {
                bool address = w->address_len > 0;
                put_principal(peer, address ? "ip" : "dns", w->view, !address);
                return true;
            }
        }
    }
    return false;
}

/* A subject with several common names has none: whoever reads it picks another one. */
static bool single(X509 *cert, int nid)
{
    int first = X509_NAME_get_index_by_NID(X509_get_subject_name(cert), nid, -1);
    return first >= 0 && X509_NAME_get_index_by_NID(X509_get_subject_name(cert), nid, first) < 0;
}

static bool match_subject(const struct x509_names *want, enum x509_name_kind kind, X509 *cert,
                          struct x509_peer *peer)
{
    int nid = kind == X509_NAME_CN ? NID_commonName : NID_organizationalUnitName;
    struct str have;
    int at = -1;
    if (kind == X509_NAME_CN && !single(cert, nid)) {
        return false;
    }
    do {
        unsigned char *text = subject_part(cert, nid, &at, &have);
        for (size_t k = 0; text != NULL && k < want->n; k++) {
            if (want->items[k].kind == kind && str_eq(want->items[k].view, have)) {
                put_principal(peer, x509_name_kind_text(kind), have, false);
                OPENSSL_free(text);
                return true;
            }
        }
        OPENSSL_free(text);
    } while (at >= 0);
    return false;
}

/* Anybody: by the first name there is, else by the certificate itself. */
static bool name_anybody(X509 *cert, const GENERAL_NAMES *sans, struct x509_peer *peer)
{
    static const int types[] = {GEN_URI, GEN_DNS};
    for (size_t t = 0; t < 2; t++) {
        for (int i = 0; i < sk_GENERAL_NAME_num(sans); i++) {
            const GENERAL_NAME *san = sk_GENERAL_NAME_value(sans, i);
            if (san->type == types[t]) {
                put_principal(peer, t == 0 ? "uri" : "dns", ia5_of(san), t == 1);
                return true;
            }
        }
    }
    struct str cn = STR_NONE;
    int at = -1;
    unsigned char *text =
        single(cert, NID_commonName) ? subject_part(cert, NID_commonName, &at, &cn) : NULL;
    if (text != NULL) {
        put_principal(peer, "cn", cn, false);
        OPENSSL_free(text);
        return true;
    }
    uint8_t digest[EVP_MAX_MD_SIZE];
    char hex[33] = "";
    if (X509_digest(cert, EVP_sha256(), digest, NULL) != 1) {
        return false;
    }
    for (size_t i = 0; i < 16; i++) {
        snprintf(hex + 2 * i, 3, "%02x", digest[i]);
    }
    put_principal(peer, "x509", str_of(hex), false);
    return true;
}

bool x509_names_find(const struct x509_names *want, X509 *cert, const GENERAL_NAMES *sans,
                     bool is_server, struct x509_peer *peer)
{
    if (want != NULL && !has_host(&want->host, sans, is_server)) {
        return false;
    }
    if (want != NULL &&
        (match_san(want, sans, is_server, peer) || match_subject(want, X509_NAME_CN, cert, peer) ||
         match_subject(want, X509_NAME_OU, cert, peer))) {
        return true;
    }
    return (want == NULL || want->any) && name_anybody(cert, sans, peer);
}

const char *x509_names_first(const struct x509_names *want)
{
    return want->n > 0 ? want->items[0].text : NULL;
}

/* --- server names ----------------------------------------------------------------------------- */
bool x509_cert_has_host(X509 *cert, struct str host, bool exact)
{
    mem_auto(GENERAL_NAMES_free) GENERAL_NAMES *sans = NULL;
    bool has = false;
    if (x509_sans_read(cert, &sans, NULL) == 0) {
        for (int i = 0; i < sk_GENERAL_NAME_num(sans) && !has; i++) {
            const GENERAL_NAME *san = sk_GENERAL_NAME_value(sans, i);
            has = san->type == GEN_DNS && x509_dns_match(ia5_of(san), host, !exact);
        }
    }
    return has;
}

bool x509_cert_covers_names(X509 *other, X509 *cert)
{
    mem_auto(GENERAL_NAMES_free) GENERAL_NAMES *sans = NULL;
    size_t n = 0;
    if (x509_sans_read(cert, &sans, NULL) == -1) {
        return false;
    }
    for (int i = 0; i < sk_GENERAL_NAME_num(sans); i++) {
        const GENERAL_NAME *san = sk_GENERAL_NAME_value(sans, i);
        if (san->type == GEN_DNS) {
            n++;
            if (!x509_cert_has_host(other, ia5_of(san), true)) {
                return false;
            }
        }
    }
    return n > 0;
}

static size_t show(char *ret, size_t size, size_t at, const char *kind, struct str text)
{
    char shown[200];
    x509_text_copy(text, shown, sizeof(shown));
    int n = snprintf(ret + at, size - at, "%s%s:%s", at > 0 ? ", " : "", kind, shown);
    return n < 0 ? at : at + (size_t)n < size ? at + (size_t)n : size - 1;
}

size_t x509_cert_show_names(X509 *cert, char *ret, size_t size)
{
    int found = 0;
    size_t at = 0;
    ret[0] = '\0';
    mem_auto(GENERAL_NAMES_free) GENERAL_NAMES *sans =
        X509_get_ext_d2i(cert, NID_subject_alt_name, &found, NULL);
    ERR_clear_error();
    for (int i = 0; i < sk_GENERAL_NAME_num(sans); i++) {
        const GENERAL_NAME *san = sk_GENERAL_NAME_value(sans, i);
        if (san->type == GEN_URI || san->type == GEN_DNS) {
            at = show(ret, size, at, san->type == GEN_URI ? "uri" : "dns", ia5_of(san));
        }
    }
    static const int nids[] = {NID_commonName, NID_organizationalUnitName};
    for (size_t k = 0; k < 2; k++) {
        int entry = -1;
        do {
            struct str text = STR_NONE;
            unsigned char *owned = subject_part(cert, nids[k], &entry, &text);
            if (owned != NULL) {
                at = show(ret, size, at, k == 0 ? "cn" : "ou", text);
                OPENSSL_free(owned);
            }
        } while (entry >= 0);
    }
    return at;
}

const char *x509_names_host(const struct x509_names *want)
{
    return want->host.text;
}
