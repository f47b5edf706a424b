/* What the files of this room share: words of a command line, and what its flags say. */
#ifndef POSTERN_GHOSTUNNEL_PRIV_H
#define POSTERN_GHOSTUNNEL_PRIV_H

#include <postern/ghostunnel.h>
#include <stdint.h>

/* --- words.c ---------------------------------------------------------------------------------- */
enum { GHOST_WORDS_MAX = 1024 };
struct ghost_words {
    char *items[GHOST_WORDS_MAX]; /* owned */
    size_t n;
};
/* As a shell splits and unquotes; what only a shell could fill in is an error. */
int ghost_words_split(struct str text, struct ghost_words *ret, struct err *err);
void ghost_words_deinit(struct ghost_words *w);

/* --- flags.c ---------------------------------------------------------------------------------- */
enum ghost_mode { GHOST_SERVER = 1, GHOST_CLIENT = 2, GHOST_BOTH = 3 };

enum ghost_flag {
    /* of both */
    GHOST_KEYSTORE,
    GHOST_CERT,
    GHOST_KEY,
    GHOST_STOREPASS,
    GHOST_CACERT,
    GHOST_WORKLOAD_API,
    GHOST_WORKLOAD_ADDR,
    GHOST_CIPHER_SUITES,
    GHOST_UNSAFE_SUITES,
    GHOST_MAX_TLS,
    GHOST_TIMED_RELOAD,
    GHOST_SHUTDOWN_TIMEOUT,
    GHOST_CONNECT_TIMEOUT,
    GHOST_CLOSE_TIMEOUT,
    GHOST_LIFETIME,
    GHOST_CONNECTIONS,
    GHOST_GRAPHITE,
    GHOST_METRICS_URL,
    GHOST_METRICS_PREFIX,
    GHOST_METRICS_INTERVAL,
    GHOST_STATUS,
    GHOST_PPROF,
    GHOST_SHUTDOWN,
    GHOST_QUIET,
    GHOST_SKIP_RESOLVE,
    GHOST_SYSLOG,
    GHOST_EVENTLOG,
    GHOST_KEYCHAIN_IDENTITY,
    GHOST_KEYCHAIN_ISSUER,
    GHOST_KEYCHAIN_TOKEN,
    GHOST_PKCS11_MODULE,
    GHOST_PKCS11_LABEL,
    GHOST_PKCS11_PIN,
    GHOST_USE_LANDLOCK,
    GHOST_NO_LANDLOCK,
    /* of one, or of each its own */
    GHOST_LISTEN,
    GHOST_TARGET,
    GHOST_TARGET_STATUS,
    GHOST_PROXY_PROTOCOL,
    GHOST_PROXY_MODE,
    GHOST_UNSAFE_TARGET,
    GHOST_ALLOW_ALL,
    GHOST_ALLOW_CN,
    GHOST_ALLOW_OU,
    GHOST_ALLOW_DNS,
    GHOST_ALLOW_IP,
    GHOST_ALLOW_URI,
    GHOST_ALLOW_POLICY,
    GHOST_ALLOW_QUERY,
    GHOST_NO_AUTH,
    GHOST_ACME,
    GHOST_UNSAFE_LISTEN,
    GHOST_SERVER_NAME,
    GHOST_PROXY,
    GHOST_VERIFY_CN,
    GHOST_VERIFY_OU,
    GHOST_VERIFY_DNS,
    GHOST_VERIFY_IP,
    GHOST_VERIFY_URI,
    GHOST_VERIFY_POLICY,
    GHOST_VERIFY_QUERY,
    GHOST_N_FLAGS,
};

struct ghost_values {
    const char **items; /* the array is owned, its texts are words' */
    size_t n;           /* 1 for a flag without a value, too */
};
struct ghost_line {
    enum ghost_mode mode;
    struct ghost_values of[GHOST_N_FLAGS];
    const char *ssl_cert_file; /* the environment's, or NULL */
};
/* fmt's text is told as a refusal or a note. */
struct ghost_teller {
    ghostunnel_tell_fn tell;
    void *arg;
    bool refused;
};
void ghost_refuse(struct ghost_teller *t, const char *fmt, ...)
    __attribute__((format(printf, 2, 3)));
void ghost_note(struct ghost_teller *t, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

/* Which flags there are, and what the environment in front says where they are not. Flags that have
 * no counterpart at all are refused here. */
void ghost_line_read(const struct ghost_words *w, struct ghost_teller *t, struct ghost_line *ret);
void ghost_line_deinit(struct ghost_line *l);
/* "" where it is not there. */
const char *ghost_text(const struct ghost_line *l, enum ghost_flag f);
bool ghost_has(const struct ghost_line *l, enum ghost_flag f);
/* As Go reads durations, in whole milliseconds, rounded up. */
bool ghost_duration(const char *text, uint64_t *ret_ms);

/* --- made.c ----------------------------------------------------------------------------------- */
struct ghost_made {
    const struct ghostunnel_options *options;
    const struct ghost_line *line;
    struct ghost_teller *teller;
    struct buf *out;
    bool full;
};
void ghost_put(struct ghost_made *m, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
void ghost_put_quoted(struct ghost_made *m, const char *text);
/* A path as it is from anywhere. */
void ghost_put_path(struct ghost_made *m, const char *path);
/* identity, credentials and trust: who we are, and who others have to be. */
void ghost_put_names(struct ghost_made *m);
/* Whether the certificate and the authorities come from a Workload API. */
bool ghost_is_spiffe(const struct ghost_line *l);
/* `allow`, or `verify` and `identities`. host: what a client connects to. */
void ghost_put_allow(struct ghost_made *m);
void ghost_put_verify(struct ghost_made *m, const char *host);

#endif
