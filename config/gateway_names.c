/* gateway_names: the tables of a Gateway file that say who is who: own certificates, what peers'
 * certificates must lead to, the names that they must show, and TLS itself. */
#include <postern/conf.h>

#include <string.h>

#include "config_priv.h"

enum { NAME_MAX_LEN = 1024, ALPN_MAX_LEN = 255, CREDENTIAL_NAME_MAX = 255 };

/* --- TLS -------------------------------------------------------------------------------------- */
static const char *const words_tls_min[] = {"1.2", "1.3", NULL};

/* What each file with TLS may say of it. */
#define CONF_TLS_FIELDS(type_, member)                                                             \
    {.name = "min_group",                                                                          \
     .type = TYPE_WORD,                                                                            \
     .words = words_group,                                                                         \
     AT(type_, member.min_group),                                                                  \
     .def = "x25519",                                                                              \
     .doc = "The weakest group for the exchange of keys: `x25519` (X25519, P-256 and better), "    \
            "`p384` (P-384 and better), `x25519mlkem768` (nothing but that hybrid with ML-KEM, "   \
            "which needs OpenSSL 3.5 on both sides). The hybrid is offered first in any case, "    \
            "where OpenSSL has it."},                                                              \
        {.name = "resumption",                                                                     \
         .type = TYPE_WORD,                                                                        \
         .words = words_resumption,                                                                \
         AT(type_, member.resumption),                                                             \
         .def = "off",                                                                             \
         .doc = "`on`: sessions are resumed, after the same questions that a full handshake "      \
                "asks: docs/handshakes.md."}

static const char *const words_resumption[] = {"off", "on", NULL};
static const char *const words_group[] = {"x25519", "p384", "x25519mlkem768", NULL};

static const struct field fields_tls[] = {
    {.name = "min",
     .type = TYPE_WORD,
     .words = words_tls_min,
     AT(struct conf_tls_side, tls.min),
     .def = "1.3",
     .doc = "The least version. `1.2` is for peers that have no other: forward secrecy and AEAD "
            "are demanded there too."},
    CONF_TLS_FIELDS(struct conf_tls_side, tls),
    {.name = "alpn",
     .type = TYPE_TEXT,
     .max = ALPN_MAX_LEN,
     LIST_AT(struct conf_tls_side, tls.alpn.items, tls.alpn.n),
     .def_doc = "`http/1.1`, `h2` for `protocol: http`, else none",
     .doc = "Application protocols, in order of preference."},
};

static void check_leg_tls(struct context *c, const struct node *map, void *value)
{
    const struct conf_tls_side *side = value;
    const struct node *resumption = node_get(map, "resumption");
    if (side->tls.resumption == CONF_RESUMPTION_ON && side->tls.min == CONF_TLS_1_2) {
        report(c, resumption, NULL, "remove one of the two",
               "'resumption: on' is for TLS 1.3, and 'min' allows 1.2");
    }
}

const struct table table_leg_tls = {.name = "tls", FIELDS(fields_tls), .check = check_leg_tls};

static const struct field fields_proxy_tls[] = {CONF_TLS_FIELDS(struct conf_proxy, tls)};
const struct table table_proxy_tls = {.name = "tls", FIELDS(fields_proxy_tls)};

/* --- names of peers --------------------------------------------------------------------------- */
#define NAME_LISTS(side)                                                                           \
    {.name = "cn",                                                                                 \
     .type = TYPE_TEXT,                                                                            \
     .max = NAME_MAX_LEN,                                                                          \
     LIST_AT(struct conf_tls_side, side.cn.items, side.cn.n),                                      \
     .doc = "The subject's common name, exactly."},                                                \
        {.name = "ou",                                                                             \
         .type = TYPE_TEXT,                                                                        \
         .max = NAME_MAX_LEN,                                                                      \
         LIST_AT(struct conf_tls_side, side.ou.items, side.ou.n),                                  \
         .doc = "One of the subject's organizational units, exactly."},                            \
        {.name = "dns",                                                                            \
         .type = TYPE_TEXT,                                                                        \
         .max = NAME_MAX_LEN,                                                                      \
         LIST_AT(struct conf_tls_side, side.dns.items, side.dns.n),                                \
         .doc = "One of the DNS names among the subject's alternative names."},                    \
        {.name = "uri",                                                                            \
         .type = TYPE_TEXT,                                                                        \
         .max = NAME_MAX_LEN,                                                                      \
         LIST_AT(struct conf_tls_side, side.uri.items, side.uri.n),                                \
         .doc = "One of the URIs among them; `*` stands for one segment of a path, `**` at the "   \
                "end for any number."}

static const struct field fields_allow[] = {
    {.name = "any",
     .type = TYPE_BOOL,
     AT(struct conf_tls_side, allow.any),
     .def = "false",
     .doc = "`true`: whoever the CA vouches for; then nothing else is said."},
    NAME_LISTS(allow),
};
static const struct field fields_verify[] = {
    NAME_LISTS(verify),
    {.name = "host",
     .type = TYPE_TEXT,
     .max = NAME_MAX_LEN,
     AT(struct conf_tls_side, verify.host),
     .def_doc = "not asked",
     .doc = "A host name or address that the certificate must be for as well, whichever of the "
            "others it shows."},
};

static void check_allow(struct context *c, const struct node *map, void *value)
{
    const struct conf_tls_side *side = value;
    const struct node *any = node_get(map, "any");
    if (side->allow.any && map->n > 1) {
        report(c, any->key, NULL, "keep the names, or 'any: true' alone",
               "'allow' names some and lets anyone in");
    } else if (any != NULL && any->kind == NODE_SCALAR && !side->allow.any && map->n == 1) {
        report(c, map, "names, or 'any: true'", NULL, "'allow' lets nobody in");
    }
}

const struct table table_peer_allow = {
    .name = "allow",
    .doc = "One entry that matches lets in.",
    FIELDS(fields_allow),
    .empty_advice = "name whom to let in, or say 'any: true'",
    .check = check_allow,
};
const struct table table_peer_verify = {
    .name = "verify",
    .doc = "One entry that matches is enough.",
    FIELDS(fields_verify),
    .empty_advice = "leave it out to demand the name that it connects to",
};

/* --- own certificates ------------------------------------------------------------------------- */
static bool check_credential_name(struct context *c, const struct field *f, const struct node *n)
{
    if (memchr(n->text.p, '/', n->text.n) != NULL || n->text.p[0] == '.') {
        value_fail(c, f, n, NULL, "which is no credential's name");
        return false;
    }
    return true;
}

static const struct field fields_workload_api[] = {
    {.name = "socket",
     .type = TYPE_UNIX,
     AT(struct conf_credential, workload_api.socket),
     .def_doc = "`$SPIFFE_ENDPOINT_SOCKET`",
     .doc = "The SPIFFE Workload API that gives the SVID."},
    {.name = "spiffe_id",
     .type = TYPE_SPIFFE_ID,
     AT(struct conf_credential, workload_api.spiffe_id),
     .def_doc = "the first offered",
     .doc = "Which identity to take where several are offered."},
    {.name = "key",
     .type = TYPE_WORD,
     .words = words_identity_key,
     AT(struct conf_credential, workload_api.key),
     .def = "auto",
     .doc = "As `key` in `identity`."},
};
static const struct table table_workload_api = {.name = "workload_api",
                                                FIELDS(fields_workload_api)};

static void check_credential(struct context *c, const struct node *map, void *value);

static const struct field fields_credential[] = {
    {.name = "name",
     .type = TYPE_NAME,
     .max = 64,
     .required = true,
     AT(struct conf_credential, name),
     .doc = "Unique in the file; listeners name it."},
    {.name = "cert",
     .type = TYPE_PATH,
     AT(struct conf_credential, cert),
     .doc = "PEM: the certificate first, then those that lead to the CA."},
    {.name = "key",
     .type = TYPE_PATH,
     AT(struct conf_credential, key),
     .def_doc = "in the file of `cert`",
     .doc = "PEM: its private key."},
    {.name = "pkcs12",
     .type = TYPE_PATH,
     AT(struct conf_credential, pkcs12),
     .doc = "A PKCS#12 file with certificates and key, in the place of `cert` and `key`."},
    {.name = "passphrase_file",
     .type = TYPE_PATH,
     AT(struct conf_credential, passphrase_file),
     .doc = "What opens `key` or `pkcs12`; one newline at the end does not count."},
    {.name = "passphrase_credential",
     .type = TYPE_TEXT,
     .max = CREDENTIAL_NAME_MAX,
     .check = check_credential_name,
     AT(struct conf_credential, passphrase_credential),
     .doc = "The same, from the systemd credential of this name."},
    {.name = "pkcs11",
     .type = TYPE_MAP,
     .table = &table_token,
     AT(struct conf_credential, token),
     .doc = "A token that holds the key of `cert`, in the place of `key`."},
    {.name = "workload_api",
     .type = TYPE_MAP,
     .table = &table_workload_api,
     .doc = "A Workload API beside that of `identity`, in the place of all files."},
};
const struct table table_credential = {
    .name = "a credential",
    .doc = "One of `cert`, `pkcs12` and `workload_api` says where it comes from. Files are read "
           "again when they change, and on SIGHUP.",
    .size = sizeof(struct conf_credential),
    FIELDS(fields_credential),
    .check = check_credential,
};

static void check_credential(struct context *c, const struct node *map, void *value)
{
    struct conf_credential *k = value;
    bool pem = node_get(map, "cert") != NULL;
    bool pkcs12 = node_get(map, "pkcs12") != NULL;
    bool api = node_get(map, "workload_api") != NULL;
    bool token = node_get(map, "pkcs11") != NULL;
    if (pem + pkcs12 + api != 1) {
        report(c, map, "one of cert, pkcs12 and workload_api",
               pem + pkcs12 + api == 0 && token ? "'pkcs11' holds the key; 'cert' is a file" : NULL,
               pem + pkcs12 + api == 0 ? "a credential that comes from nowhere"
                                       : "a credential that comes from several places");
        return;
    }
    k->kind = api      ? CONF_CREDENTIAL_WORKLOAD_API
              : pkcs12 ? CONF_CREDENTIAL_PKCS12
              : token  ? CONF_CREDENTIAL_PKCS11
                       : CONF_CREDENTIAL_PEM;
    const char *what = api      ? "a credential from a Workload API"
                       : pkcs12 ? "a PKCS#12 credential"
                                : "a credential whose key is in a token";
    if (k->kind != CONF_CREDENTIAL_PEM) {
        schema_refuse_key(c, map, "key", what, NULL);
    }
    if (!pem) {
        schema_refuse_key(c, map, "pkcs11", what, NULL);
    }
    if (api || token) {
        schema_refuse_key(c, map, "passphrase_file", what, NULL);
        schema_refuse_key(c, map, "passphrase_credential", what, NULL);
    } else if (k->passphrase_file != NULL && k->passphrase_credential != NULL) {
        report(c, node_get(map, "passphrase_credential")->key,
               "one of passphrase_file and passphrase_credential", NULL,
               "a credential with two sources of its passphrase");
    }
}

/* --- what peers' certificates lead to --------------------------------------------------------- */
static const struct field fields_bundle[] = {
    {.name = "trust_domain",
     .type = TYPE_TRUST_DOMAIN,
     .required = true,
     AT(struct conf_bundle_file, trust_domain),
     .doc = "Whose identities it vouches for, and no others'."},
    {.name = "file",
     .type = TYPE_PATH,
     .required = true,
     AT(struct conf_bundle_file, path),
     .doc = "The bundle, as PEM or as a SPIFFE bundle document (JWKS)."},
};
static const struct table table_bundle = {
    .name = "a bundle", .size = sizeof(struct conf_bundle_file), FIELDS(fields_bundle)};

static void check_trust(struct context *c, const struct node *map, void *value);

static const struct field fields_trust[] = {
    {.name = "name",
     .type = TYPE_NAME,
     .max = 64,
     .required = true,
     AT(struct conf_trust, name),
     .doc = "Unique in the file; listeners name it."},
    {.name = "ca",
     .type = TYPE_PATH,
     AT(struct conf_trust, ca),
     .doc = "Ordinary CAs, PEM. They vouch for names, never for SPIFFE IDs."},
    {.name = "crl",
     .type = TYPE_PATH,
     AT(struct conf_trust, crl),
     .def_doc = "none: nothing is revoked",
     .doc = "With `ca`: revocation lists, PEM or DER. Then each CA of a chain must have one that "
            "is current; where it has not, its certificates are refused."},
    {.name = "bundles",
     .type = TYPE_MAP,
     .table = &table_bundle,
     LIST_AT(struct conf_trust, bundles, n_bundles),
     .doc = "SPIFFE bundles, in the place of `ca`."},
};
const struct table table_trust = {
    .name = "a trust",
    .doc = "Either `ca` or `bundles`. Files are read again when they change, and on SIGHUP.",
    .size = sizeof(struct conf_trust),
    FIELDS(fields_trust),
    .check = check_trust,
};

static void check_trust(struct context *c, const struct node *map, void *value)
{
    bool ca = node_get(map, "ca") != NULL;
    bool bundles = node_get(map, "bundles") != NULL;
    (void)value;
    if (ca == bundles) {
        report(c, map, "one of ca and bundles",
               ca ? "an ordinary CA does not vouch for trust domains; give them two names" : NULL,
               ca ? "a trust of two kinds" : "a trust in nobody");
    } else if (bundles) {
        schema_refuse_key(c, map, "crl", "a trust of SPIFFE bundles",
                          "SVIDs are short-lived; 'postern quarantine' denies one before its end");
    }
    schema_check_unique(c, node_get(map, "bundles"), "trust_domain", "trust domain");
}

const struct conf_credential *conf_find_credential(const struct conf_proxy *c, const char *name)
{
    for (size_t i = 0; i < c->n_credentials; i++) {
        if (c->credentials[i].name != NULL && strcmp(c->credentials[i].name, name) == 0) {
            return &c->credentials[i];
        }
    }
    return NULL;
}

const struct conf_trust *conf_find_trust(const struct conf_proxy *c, const char *name)
{
    for (size_t i = 0; i < c->n_trust; i++) {
        if (c->trust[i].name != NULL && strcmp(c->trust[i].name, name) == 0) {
            return &c->trust[i];
        }
    }
    return NULL;
}
