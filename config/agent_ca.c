/* agent_ca: the `ca` section of an Agent file: where the authority comes from, and what protects
 * its keys. docs/authority.md says what each of it means. */
#include <postern/conf.h>

#include "config_priv.h"

enum { CREDENTIAL_MAX = 255 };

static const char *const words_source[] = {"self", "disk", NULL};

/* --- key_at_rest: a word, or a mapping ---------------------------------------------------------
 */
/* A credential is a file of one directory: its name leads nowhere else. */
static bool check_credential(struct context *c, const struct field *f, const struct node *n)
{
    if (n->text.n == 0 || memchr(n->text.p, '/', n->text.n) != NULL || n->text.p[0] == '.') {
        value_fail(c, f, n, NULL, "which is no credential's name");
        return false;
    }
    return true;
}

/* A token holds the root's key and nothing else: what protects the rest has to be said too. */
static void check_token_rest(struct context *c, const struct node *map, struct conf_agent *a)
{
    bool file = node_get(map, "passphrase_file") != NULL;
    bool credential = node_get(map, "credential") != NULL;
    bool plain = node_get(map, "state") != NULL;

    if (node_get(map, "pkcs11") == NULL) {
        report(c, map, NULL, "write key_at_rest: plain", "'state' is of use beside 'pkcs11' only");
    } else if (file + credential + plain != 1) {
        report(c, map, "one of passphrase_file, credential, and state: plain", NULL,
               "the token holds the root's key, and %s protects the keys for tokens, which stay "
               "in the state file",
               file + credential + plain == 0 ? "nothing is said of what" : "more than one thing");
    }
    a->ca.key.kind = file ? CONF_KEY_PASSPHRASE : credential ? CONF_KEY_CREDENTIAL : CONF_KEY_PLAIN;
}

static void check_key(struct context *c, const struct node *map, void *value)
{
    struct conf_agent *a = value;
    bool file = a->ca.key.passphrase_file != NULL, credential = a->ca.key.credential != NULL;
    bool plain = node_get(map, "state") != NULL;

    if (plain || node_get(map, "pkcs11") != NULL) {
        check_token_rest(c, map, a);
        return;
    }
    if (file == credential) {
        if (node_get(map, "passphrase_file") == NULL && node_get(map, "credential") == NULL) {
            report(c, map, "passphrase_file or credential", NULL,
                   "'key_at_rest' names no source of the passphrase");
        } else if (file) {
            report(c, map, "one of passphrase_file and credential", NULL,
                   "'key_at_rest' names two sources");
        }
    }
    a->ca.key.kind = file ? CONF_KEY_PASSPHRASE : CONF_KEY_CREDENTIAL;
}

static bool scalar_key(struct context *c, const struct field *f, const struct node *n, void *value)
{
    struct conf_agent *a = value;

    if (n->quoted || !str_eq(n->text, STR_LIT("plain"))) {
        value_fail(c, f, n, "write {passphrase_file: PATH} or {credential: NAME} to have it sealed",
                   "which is no such protection");
        return false;
    }
    a->ca.key.kind = CONF_KEY_PLAIN;
    return true;
}

static const char *const words_state[] = {"plain", NULL};

static const struct field fields_key[] = {
    {.name = "passphrase_file",
     .type = TYPE_PATH,
     AT(struct conf_agent, ca.key.passphrase_file),
     .doc = "The state is sealed under a key made of this file's content, of which one newline at "
            "the end does not count. Mode 0600 or 0400, the agent's own user."},
    {.name = "credential",
     .type = TYPE_TEXT,
     .max = CREDENTIAL_MAX,
     .check = check_credential,
     AT(struct conf_agent, ca.key.credential),
     .doc = "The same, from the systemd credential of this name (`LoadCredential=`, "
            "`LoadCredentialEncrypted=`)."},
    {.name = "old_passphrase_file",
     .type = TYPE_PATH,
     AT(struct conf_agent, ca.key.old_passphrase_file),
     .doc = "To exchange the passphrase: what the state is sealed under until now. At the next "
            "start it is sealed under the new one."},
    {.name = "pkcs11",
     .type = TYPE_MAP,
     .table = &table_token,
     AT(struct conf_agent, ca.key.token),
     .def_doc = "none",
     .doc = "A token holds the root's key, which is made in it and never leaves it. What else is "
            "in the state file is protected by what stands beside this."},
    {.name = "state",
     .type = TYPE_WORD,
     .words = words_state,
     AT(struct conf_agent, ca.key.token.state),
     .def_doc = "none",
     .doc = "Beside `pkcs11`: `plain`, if the mode is enough for the keys of tokens."},
};
static const struct table table_key = {
    .name = "key_at_rest", FIELDS(fields_key), .check = check_key};

/* --- disk --------------------------------------------------------------------------------------
 */
static const struct field fields_disk[] = {
    {.name = "cert_file",
     .type = TYPE_PATH,
     .required = true,
     AT(struct conf_agent, ca.disk.cert_file),
     .doc = "PEM: the authority's certificate, then those above it, without the root."},
    {.name = "key_file",
     .type = TYPE_PATH,
     .required = true,
     AT(struct conf_agent, ca.disk.key_file),
     .doc = "PEM: its key, not encrypted. Mode 0600 or 0400, the agent's own user."},
    {.name = "bundle_file",
     .type = TYPE_PATH,
     .required = true,
     AT(struct conf_agent, ca.disk.bundle_file),
     .doc = "PEM: the roots that peers trust."},
};
static const struct table table_disk = {.name = "disk", FIELDS(fields_disk)};

/* --- ca ----------------------------------------------------------------------------------------
 */
static void check_ca(struct context *c, const struct node *map, void *value)
{
    struct conf_agent *a = value;
    const struct node *disk = node_get(map, "disk");

    a->ca.present = true;
    if (a->ca.source == CONF_CA_DISK && a->ca.key.token.configured) {
        report(c, node_get(map, "key_at_rest"), NULL, NULL,
               "'pkcs11' is of no use: 'source' is disk");
    }
    if (a->ca.source == CONF_CA_DISK && disk == NULL) {
        report(c, map, "a mapping", NULL, "missing key 'disk': 'source' is disk");
    } else if (a->ca.source == CONF_CA_SELF && disk != NULL) {
        report(c, disk, NULL, "write source: disk to use these files",
               "'disk' is of no use: 'source' is self");
    }
}

static const struct field fields_ca[] = {
    {.name = "source",
     .type = TYPE_WORD,
     .words = words_source,
     AT(struct conf_agent, ca.source),
     .def = "self",
     .doc = "`self`: a root of the agent's own, made at first start. `disk`: an authority from "
            "files, which somebody else signed."},
    {.name = "key_at_rest",
     .type = TYPE_MAP,
     .table = &table_key,
     .scalar = scalar_key,
     .type_doc = "`plain`, or a mapping",
     .expected = "plain, or a mapping",
     .def_doc = "`plain`, with a warning at each start; needed for a new state where there is a "
                "`ca` section",
     .doc = "What protects the state file, and its backups. `plain`: its mode, and nothing more."},
    {.name = "disk",
     .type = TYPE_MAP,
     .table = &table_disk,
     .def_doc = "none",
     .doc = "For `source: disk`. Read again when they change, and on SIGHUP."},
    {.name = "root_ttl",
     .type = TYPE_DURATION_S,
     .min = 10,
     .max = 30 * UINT64_C(8760) * 3600,
     AT(struct conf_agent, root_ttl_s),
     .def = "87600h",
     .doc = "Life of a root that is made."},
    {.name = "node_ttl",
     .type = TYPE_DURATION_S,
     .min = 10,
     .max = 10 * UINT64_C(8760) * 3600,
     AT(struct conf_agent, node_ttl_s),
     .def = "24h",
     .doc = "Life of the intermediate that signs on this node."},
    {.name = "outage_warn",
     .type = TYPE_DURATION_S,
     .min = 1,
     .max = UINT64_C(8760) * 3600,
     AT(struct conf_agent, ca.outage_warn_s),
     .def = "24h",
     .doc = "A log line when this node could go on for less than this without what is above it; "
            "at most a sixth of the life of what ends first."},
};
const struct table table_ca = {.name = "ca", FIELDS(fields_ca), .check = check_ca};
