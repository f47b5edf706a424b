/*
 * tls: mutual TLS 1.3 between workloads, as streams (net.h).
 *
 * The peer is judged by x509_peers_verify and nothing else, inside the handshake, against the
 * authorities, names and identities of the stream's party: a wrong peer fails the handshake with a
 * proper alert. What one worker has verified it need not verify again. No early data,
 * no renegotiation. Sessions are resumed only where party and caller say so, and then by what is in
 * force at that moment (docs/handshakes.md). TLS 1.2 only where a party says so, then with forward
 * secrecy and AEAD.
 *
 * OpenSSL never sees the socket. A BIO of ours hands it what one recv brought into the worker's
 * scratch, and collects all records of a write for one send.
 *
 * tls_party: all that one side of a leg goes by, one generation, immutable, reference-counted
 * (atomic), held by its snapshot; SSL objects keep what they need of it alive. tls_worker: one a
 * worker, outlives its streams. tls_stream: embedded in its owner, which must not move it. Thread:
 * tls_party any; the rest on its worker.
 */
#ifndef POSTERN_TLS_H
#define POSTERN_TLS_H

#include <openssl/ssl.h>
#include <postern/deny.h>
#include <postern/err.h>
#include <postern/net.h>
#include <postern/x509.h>
#include <postern/x509_peers.h>
#include <stdbool.h>
#include <stdint.h>

/* --- parties ---------------------------------------------------------------------------------- */
enum tls_min { TLS_MIN_1_3, TLS_MIN_1_2 };
/* The weakest group for the exchange of keys that is taken: the list is one of strength. */
enum tls_min_group { TLS_MIN_X25519, TLS_MIN_P384, TLS_MIN_X25519MLKEM768 };
/* Whether this OpenSSL has what that demands. */
int tls_min_group_check(enum tls_min_group min, struct err *err);

/* All of it is lent for the call; what has references is referenced. */
struct tls_party_spec {
    bool server;
    /* Own certificates; a client may have none, which is then what it shows. A server's first is
     * the default, the others are chosen by the client's server name: exactly, then by wildcard.
     * Where several with keys of different kinds have the same names, the client's abilities
     * choose. */
    const struct x509_svid *const *own;
    size_t n_own;
    /* NULL: a server that asks for no certificate: its peers have no identity. */
    const struct x509_peers *peers;
    /* Which of the peer's names count. NULL: a server takes whom the authorities vouch for, a
     * client goes by `expected` alone. */
    const struct x509_names *names;
    /* Client, SPIFFE peers: any of these, unless the connection says others. */
    const struct str *expected;
    size_t n_expected;
    enum tls_min min;
    enum tls_min_group min_group;
    /* Application protocols, the preferred one first. A server answers with the first that the
     * client offers too; where there is none, with nothing, or a refusal if alpn_required. */
    const struct str *alpn;
    size_t n_alpn;
    bool alpn_required;
    const char *server_name; /* client: said in the hello; NULL: none */
    /* Sessions may be resumed, where the stream is given tickets as well. Without effect where
     * TLS 1.2 is allowed, or no certificate is asked for. */
    bool resumption;
};
enum { TLS_OWN_MAX = 64, TLS_ALPN_BYTES = 255 };

struct tls_party;
int tls_party_new(const struct tls_party_spec *spec, struct tls_party **ret, struct err *err);
struct tls_party *tls_party_ref(const struct tls_party *p);
struct tls_party *tls_party_unref(struct tls_party *p);
/* The same authorities, lists, names and identities: whoever was right by `a` is by `b`. */
bool tls_party_judges_alike(const struct tls_party *a, const struct tls_party *b);
/* NULL: no certificate is asked for. Lent. */
const struct x509_peers *tls_party_peers(const struct tls_party *p);
/* The protocol of posterns among themselves: what a sidecar's parties offer. */
extern const struct str tls_alpn_postern;
/* HTTP/2: what sessions that carry streams are. */
extern const struct str tls_alpn_h2;

/* --- tickets
 * -------------------------------------------------------------------------------------- Keys of
 * one generation, immutable, reference-counted (atomic), made by the main thread anew at every
 * change that takes anything away, and every TLS_TICKETS_LIFE_S. */
enum { TLS_TICKETS_LIFE_S = 3600 };
struct tls_tickets;
struct tls_tickets *tls_tickets_new(void);
struct tls_tickets *tls_tickets_ref(const struct tls_tickets *t);
struct tls_tickets *tls_tickets_unref(struct tls_tickets *t);
bool tls_tickets_too_old(const struct tls_tickets *t, uint64_t now_ms);

/* --- a worker's part -------------------------------------------------------------------------- */
struct tls_chains;
struct tls_sessions;
struct tls_resume;
struct tls_worker {
    struct net_scratch *scratch;   /* lent */
    BIO_METHOD *method;            /* owned */
    struct tls_chains *chains;     /* owned: those that were verified (docs/handshakes.md) */
    struct tls_sessions *sessions; /* owned: that its clients may resume; NULL: none */
};
int tls_worker_init(struct tls_worker *w, struct net_scratch *scratch, struct err *err);
void tls_worker_deinit(struct tls_worker *w);
/* When the tickets are others. */
void tls_worker_forget_sessions(struct tls_worker *w);

/* --- failures --------------------------------------------------------------------------------- */
/* The step of a handshake that said no. */
enum tls_step {
    TLS_STEP_NONE,
    TLS_STEP_HELLO,       /* no common version, suite or group; or not TLS at all */
    TLS_STEP_CERTIFICATE, /* the peer sent none */
    TLS_STEP_IDENTITY,    /* its certificate is not one that counts here: see verdict */
    TLS_STEP_QUARANTINED, /* a valid SVID, but its identity or certificate is quarantined */
    TLS_STEP_EXPECTED,    /* a valid certificate, but none of the expected identities or names */
    TLS_STEP_REFUSED,     /* the peer sent an alert: see alert_received */
    TLS_STEP_CLOSED,      /* the peer went away */
    TLS_STEP_PROTOCOL,    /* anything else that OpenSSL refused */
};
const char *tls_step_name(enum tls_step step);
/* An alert's number in words: "bad certificate". */
const char *tls_alert_text(uint8_t alert);

enum { TLS_NO_ALERT = 255 };

struct tls_failure {
    enum tls_step step;
    enum x509_verdict verdict;
    uint8_t alert_sent, alert_received; /* TLS_NO_ALERT: none */
    char shown_id[256];                 /* what the peer's certificate says, cut; may be empty */
    int64_t shown_not_before_s, shown_not_after_s; /* of the peer's leaf; 0: none seen */
    struct err err;                                /* for people */
};

/* --- streams ---------------------------------------------------------------------------------- */
/* Who the verified peer is; of one that was not asked, all is empty. Immutable. Connections of one
 * worker whose peers sent the same chain share one: it is counted plainly, and stays there. */
struct tls_peer {
    unsigned refs;
    int64_t not_before_s, not_after_s; /* of its whole path; not_after_s 0: not asked */
    char serial[48];
    uint8_t cert_sha256[32];
    uint8_t chain_sha256[32];    /* of all certificates as they were sent, leaf first */
    STACK_OF(X509) * chain;      /* these; references; NULL: not asked */
    struct x509_key_id *issuers; /* owned; whose keys vouch for it, nearest first */
    size_t n_issuers;
    size_t id_len;
    char id[]; /* the principal (x509_peers.h), NUL-terminated */
};
struct tls_peer *tls_peer_ref(struct tls_peer *p);
struct tls_peer *tls_peer_unref(struct tls_peer *p);
/* Judges it again, by a party of the same side: X509_OK, or why its chain, its certificate's state
 * or its names would be refused today. Not asked about: expiry, which was judged at the handshake,
 * who is expected, and who is quarantined. */
enum x509_verdict tls_peer_judge(const struct tls_peer *p, const struct tls_party *party);

struct tls_stream {
    struct stream base; /* first: its operations get a struct stream */
    struct tls_worker *worker;
    SSL *ssl;                      /* owned */
    const struct tls_party *party; /* lent, while the handshake runs */
    const struct str *expected;    /* lent likewise; client only: any of these; none: the party's */
    size_t n_expected;
    const struct str *alpn_only; /* lent: server: see tls_require_alpn; NULL: as the party says */
    bool alpn_http;              /* server: see tls_take_http */
    const struct deny_set *deny; /* lent likewise; NULL: nobody is quarantined */
    const struct tls_tickets *tickets; /* lent likewise; NULL: nothing is resumed */
    struct tls_resume *resume;         /* owned; NULL: likewise */
    struct tls_peer *peer;             /* a reference; set when verified */
    struct tls_failure *failure;       /* owned; set when something failed that has a story */
    const uint8_t *in;                 /* ciphertext that OpenSSL has not taken yet */
    size_t in_len;
    struct buf rest;     /* the same, kept between calls: what came behind the handshake */
    uint64_t wrote_ms;   /* when a write was last made */
    uint32_t small_left; /* bytes that go out in small records still */
    bool started, established;
    uint8_t alert_sent, alert_received;
};

/* Take fd in any case; -1: no memory (the fd is then closed by stream_deinit as usual). */
int tls_stream_init_server(struct tls_stream *s, struct tls_worker *w,
                           const struct tls_party *party, int fd);
int tls_stream_init_client(struct tls_stream *s, struct tls_worker *w,
                           const struct tls_party *party, const struct str *expected,
                           size_t n_expected, int fd);
/* During its handshake: from now on by this party, and the identities that it expects. False: one
 * of the two asks the peer for a certificate and the other does not, and what was said cannot be
 * taken back. Nothing changed. */
bool tls_stream_rebase(struct tls_stream *s, const struct tls_party *party);
/* Before the first step of a handshake, once all else is set: it may resume a session, and will be
 * resumed, if its party allows that and there are tickets. destination: where a client's session is
 * good for. False: no memory. */
bool tls_resume(struct tls_stream *s, const struct tls_tickets *tickets, struct str destination);
/* With tls_stream_rebase: these are in force now. */
void tls_resume_rebase(struct tls_stream *s, const struct tls_tickets *tickets);
bool tls_resumed(const struct tls_stream *s);
/* Client, before the first step of its handshake: this protocol is offered, and no other. */
bool tls_offer_alpn(struct tls_stream *s, struct str protocol);
/* Server, before its first step: this protocol; a client that offers only others is refused, and
 * one that offers none is not. protocol is lent for the handshake. */
void tls_require_alpn(struct tls_stream *s, const struct str *protocol);
/* Server, before its first step: where the party takes none of the protocols that are offered and
 * does not mind, http/1.1 is taken, and h2 of a client that does not offer that. */
void tls_take_http(struct tls_stream *s);
/* Before the first step of a server's handshake: bytes that were read off the socket already. */
bool tls_feed(struct tls_stream *s, const uint8_t *bytes, size_t n);

/* Goes on with the handshake: STREAM_OK (done, peer is set), STREAM_AGAIN (wait for readable; and
 * for writable if stream_blocked), STREAM_FAILED (failure is set; an alert may still be in `out`
 * or on its way, so close in order). Not called again after OK or FAILED. */
enum stream_outcome tls_handshake(struct tls_stream *s);

/* tls_peer_judge of an established stream's peer. */
enum x509_verdict tls_peer_verdict(const struct tls_stream *s, const struct tls_party *party);

/* "TLSv1.3" and "TLS_AES_128_GCM_SHA256", once established; else NULL. */
const char *tls_version(const struct tls_stream *s);
const char *tls_suite(const struct tls_stream *s);
/* The group that the keys were agreed on with. */
enum tls_group {
    TLS_GROUP_X25519,
    TLS_GROUP_P256,
    TLS_GROUP_P384,
    TLS_GROUP_X25519MLKEM768,
    TLS_GROUP_OTHER,
    TLS_N_GROUPS
};
enum tls_group tls_group(const struct tls_stream *s);
const char *tls_group_name(enum tls_group group);
/* What was agreed on, and the name that the client said; STR_NONE: nothing. Lent by the stream. */
struct str tls_alpn(const struct tls_stream *s);
struct str tls_server_name(const struct tls_stream *s);
/* Of the own certificates that were shown: the earliest end, 0: none was; and the leaf's serial as
 * x509_serial_text writes it, "" likewise. */
int64_t tls_own_not_after_s(const struct tls_stream *s);
void tls_own_serial(const struct tls_stream *s, char ret[48]);
/* The peer's certificate; lent; NULL: there is none. */
X509 *tls_peer_certificate(const struct tls_stream *s);

MEM_DEFINE_CLEANUP(struct tls_party, tls_party_unref)

#endif
