/*
 * x509_peers: whom a peer's certificate must lead to, and which of its names count. Two kinds:
 *   SPIFFE    trust bundles by trust domain (x509.h); the principal is the peer's SPIFFE ID
 *   ordinary  certificate authorities of no trust domain, with revocation lists where given; the
 *             principal is a name with its kind: "dns:db.example", "uri:...", "cn:...", "ou:...",
 *             "ip:...", or "x509:" and a digest. None of these can be a SPIFFE ID: an ordinary
 *             authority does not vouch for trust domains, whatever URI it writes into a
 * certificate.
 *
 * Pure functions over OpenSSL objects; no I/O, no clock, any thread. x509_peers and x509_names are
 * immutable once shared, reference-counted (atomic). docs/credentials.md.
 */
#ifndef POSTERN_X509_PEERS_H
#define POSTERN_X509_PEERS_H

#include <postern/x509.h>

/* --- names ------------------------------------------------------------------------------------ */
enum x509_name_kind {
    X509_NAME_URI, /* `*` is one segment, `**` at the end is the rest */
    X509_NAME_DNS, /* RFC 9525; an IP literal counts against IP names only */
    X509_NAME_CN,  /* exact; the subject has exactly one */
    X509_NAME_OU,  /* exact; any of the subject's */
    X509_N_NAME_KINDS,
};
const char *x509_name_kind_text(enum x509_name_kind kind); /* "uri", "dns", "cn", "ou" */

/* Names of which one has to be in a certificate. */
struct x509_names;
/* any: every certificate that leads to the authorities will do. */
struct x509_names *x509_names_new(bool any);
struct x509_names *x509_names_ref(const struct x509_names *n);
struct x509_names *x509_names_unref(struct x509_names *n);
/* Before it is shared. Fails on what no certificate can match: an empty or overlong text, control
 * characters, `**` before the end, a host name that is none. */
int x509_names_add(struct x509_names *n, enum x509_name_kind kind, struct str text,
                   struct err *err);
/* The same, once: the certificate has to be for this host as well, whichever name it shows. */
int x509_names_demand_host(struct x509_names *n, struct str host, struct err *err);
size_t x509_names_count(const struct x509_names *n);
/* The same texts in the same order. Either may be NULL. */
bool x509_names_equal(const struct x509_names *a, const struct x509_names *b);

/* Whether `pattern` matches `uri` by segments: `*` stands for one that is not empty, `**`, which is
 * the last, for all that follows, or nothing. A slash at the end of uri does not count. */
bool x509_uri_match(struct str pattern, struct str uri);
/* Whether a host name is one that a certificate's DNS name stands for: without regard to case; `*.`
 * at the beginning is exactly one label, and at least two follow it. */
bool x509_dns_match(struct str presented, struct str host, bool wildcard);
/* Whether one of a certificate's DNS names stands for the host; for choosing by server name. exact:
 * without wildcards. */
bool x509_cert_has_host(X509 *cert, struct str host, bool exact);
/* Whether `other` has every DNS name that `cert` has, and it has one. */
bool x509_cert_covers_names(X509 *other, X509 *cert);
/* The names for people: "dns:a, uri:b, cn:c", printable, cut to the size. */
size_t x509_cert_show_names(X509 *cert, char *ret, size_t size);

/* --- authorities ------------------------------------------------------------------------------ */
struct x509_peers;
struct x509_peers *x509_peers_new_spiffe(const struct x509_trust *trust);
/* Takes references. Each of cas must be an authority. crls NULL: revocation is not asked about;
 * else every certificate below an anchor needs the list of its issuer. Lists that are partial,
 * incremental or say what we do not understand are refused. */
int x509_peers_new_ordinary(STACK_OF(X509) * cas, STACK_OF(X509_CRL) * crls,
                            struct x509_peers **ret, struct err *err);
struct x509_peers *x509_peers_ref(const struct x509_peers *p);
struct x509_peers *x509_peers_unref(struct x509_peers *p);
/* NULL: ordinary. Lent. */
const struct x509_trust *x509_peers_trust(const struct x509_peers *p);
/* Certificates of authorities, and lists. */
size_t x509_peers_count(const struct x509_peers *p);
size_t x509_peers_crl_count(const struct x509_peers *p);
/* The earliest next update of the lists; 0: there are none, or they don't say. */
int64_t x509_peers_crl_end_s(const struct x509_peers *p);
bool x509_peers_equal(const struct x509_peers *a, const struct x509_peers *b);

/* --- judging ---------------------------------------------------------------------------------- */
struct x509_ask {
    X509 *leaf;
    STACK_OF(X509) * chain; /* what came with it; may be NULL */
    bool is_server;         /* the peer acts as TLS server */
    bool again; /* of an established connection: whether lists are outdated is not asked */
    int64_t now_s;
};
/* names NULL: no name is asked about. ret->id is the principal; for a refusal what was shown. */
enum x509_verdict x509_peers_verify(const struct x509_peers *peers, const struct x509_names *names,
                                    const struct x509_ask *ask, struct x509_peer *ret,
                                    struct err *err);

MEM_DEFINE_CLEANUP(struct x509_peers, x509_peers_unref)
MEM_DEFINE_CLEANUP(struct x509_names, x509_names_unref)

#endif
