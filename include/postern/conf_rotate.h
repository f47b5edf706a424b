/*
 * conf_rotate: what a Rotate file says, as plain structs: which sets of files `postern rotate`
 * keeps fresh, where, for whom, and in which forms. The rules of conf.h hold.
 */
#ifndef POSTERN_CONF_ROTATE_H
#define POSTERN_CONF_ROTATE_H

#include <postern/conf.h>
#include <postern/conf_after.h>

enum conf_rotate_what {
    CONF_ROTATE_CHAIN,         /* leaf and intermediates, PEM */
    CONF_ROTATE_LEAF,          /* the leaf alone, PEM */
    CONF_ROTATE_INTERMEDIATES, /* PEM; may be empty */
    CONF_ROTATE_KEY,           /* PEM */
    CONF_ROTATE_COMBINED,      /* key and chain in one file, PEM */
    CONF_ROTATE_BUNDLE,        /* authorities, PEM */
    CONF_ROTATE_PKCS12,        /* key and chain */
    CONF_ROTATE_TRUSTSTORE,    /* authorities, PKCS#12 as Java reads it */
    CONF_ROTATE_JWT,           /* a token for an audience */
    CONF_ROTATE_JWKS,          /* keys that verify tokens */
    CONF_ROTATE_JWT_BUNDLES,   /* those of each trust domain, as spiffe-helper writes them */
    CONF_ROTATE_N_WHATS,
};
enum conf_rotate_order { CONF_ROTATE_CHAIN_FIRST, CONF_ROTATE_KEY_FIRST };
enum conf_rotate_encoding { CONF_ROTATE_PKCS8, CONF_ROTATE_SEC1 };
/* Whose authorities: of the own trust domain, of the others, of all. */
enum conf_rotate_trust { CONF_ROTATE_OWN, CONF_ROTATE_FEDERATED, CONF_ROTATE_ALL };
enum conf_rotate_layout {
    CONF_ROTATE_NO_LAYOUT, /* `files` says it */
    CONF_ROTATE_SEPARATE,
    CONF_ROTATE_NGINX,
    CONF_ROTATE_POSTGRES,
    CONF_ROTATE_HAPROXY,
    CONF_ROTATE_JAVA,
    CONF_ROTATE_SPIFFE_HELPER,
};

struct conf_rotate_file {
    char *name;
    enum conf_rotate_what what;
    enum conf_rotate_order order;       /* combined */
    enum conf_rotate_encoding encoding; /* key, combined */
    enum conf_rotate_trust trust;       /* bundle, truststore, jwks */
    char *trust_domain;                 /* jwks: the one domain; NULL: the identity's own */
    bool add_intermediates;             /* bundle */
    struct conf_strings audience;       /* jwt; at least one there */
};

enum {
    CONF_ROTATE_OUTPUTS_MAX = 64,
    CONF_ROTATE_FILES_MAX = 64, /* of one output */
    CONF_ROTATE_NAME_MAX = 200, /* bytes of a file's name */
};
struct conf_rotate_output {
    char *name;
    char *directory;
    char *spiffe_id; /* NULL: the first offered */
    enum conf_key_mode key;
    char *owner, *group; /* as written; NULL: not named */
    bool has_owner, has_group;
    uid_t uid; /* of `owner` */
    gid_t gid; /* of `group`, else the owner's own */
    uint32_t mode, public_mode;
    enum conf_rotate_layout layout; /* already written out in files */
    struct conf_rotate_file *files;
    size_t n_files;
    char *passphrase_file; /* NULL: none; of its pkcs12 and truststore files */
    bool omit_expired;
    bool replace_files;
    uint32_t keep;            /* generations before the present one */
    struct conf_after *after; /* what is done after a change, in this order */
    size_t n_after;
    struct conf_verify verify; /* where the new certificate has to be served then */
};

struct conf_rotate {
    char *path; /* the file itself, absolute */
    char *name;
    char *socket;                    /* NULL: from SPIFFE_ENDPOINT_SOCKET */
    uint32_t renew_at, renew_jitter; /* percent of the life */
    uint32_t warn_before_expiry;     /* percent of the life */
    struct conf_rotate_output *outputs;
    size_t n_outputs;
    struct conf_admin admin;
    struct conf_sockaddr metrics;
    enum log_level log_level;
};

/* Whether such a file holds a key or a token: it is written with `mode`, others with
 * `public_mode`. */
bool conf_rotate_is_secret(enum conf_rotate_what what);
/* Whether it is made of the X.509-SVID and its trust. */
bool conf_rotate_is_x509(enum conf_rotate_what what);

int conf_load_rotate(const char *path, struct conf_diag *diag, struct conf_rotate **ret);
int conf_parse_rotate(const char *name, const char *text, size_t len, struct conf_diag *diag,
                      struct conf_rotate **ret);
struct conf_rotate *conf_rotate_free(struct conf_rotate *c);

#endif
