/* rotate: the tables of a Rotate file, the layouts that stand for lists of files, and what no
 * single key can say: which keys a kind of file takes, and whom files may be given to. */
#include <postern/conf_rotate.h>

#include <grp.h>
#include <postern/mem.h>
#include <pwd.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "after_priv.h"
#include "config_priv.h"

static const char *const words_what[] = {"chain",    "leaf",   "intermediates", "key",
                                         "combined", "bundle", "pkcs12",        "truststore",
                                         "jwt",      "jwks",   "jwt-bundles",   NULL};
static const char *const words_order[] = {"chain-first", "key-first", NULL};
static const char *const words_encoding[] = {"pkcs8", "sec1", NULL};
static const char *const words_trust[] = {"own", "federated", "all", NULL};
static const char *const words_layout[] = {"files",   "separate", "nginx",         "postgres",
                                           "haproxy", "java",     "spiffe-helper", NULL};
static const char *const words_key[] = {"auto", "csr", "agent", NULL};

bool conf_rotate_is_secret(enum conf_rotate_what what)
{
    return what == CONF_ROTATE_KEY || what == CONF_ROTATE_COMBINED || what == CONF_ROTATE_PKCS12 ||
           what == CONF_ROTATE_JWT;
}

bool conf_rotate_is_x509(enum conf_rotate_what what)
{
    return what != CONF_ROTATE_JWT && what != CONF_ROTATE_JWKS && what != CONF_ROTATE_JWT_BUNDLES;
}

/* --- files ------------------------------------------------------------------------------------ */
/* One name in a directory. Two dots at the beginning are ours. */
static bool check_file_name(struct context *c, const struct field *f, const struct node *n)
{
    struct str name = n->text;
    if (memchr(name.p, '/', name.n) != NULL || str_eq(name, STR_LIT(".")) ||
        str_has_prefix(name, STR_LIT(".."))) {
        value_fail(c, f, n, NULL, "which is not the plain name of a file");
        return false;
    }
    return true;
}

static void check_file(struct context *c, const struct node *map, void *value);

static const struct field fields_file[] = {
    {.name = "name",
     .type = TYPE_TEXT,
     .max = CONF_ROTATE_NAME_MAX,
     .required = true,
     .check = check_file_name,
     .expected = "a file's name without a directory, not beginning with '..'",
     AT(struct conf_rotate_file, name),
     .doc = "In the output's directory."},
    {.name = "what",
     .type = TYPE_WORD,
     .words = words_what,
     .required = true,
     AT(struct conf_rotate_file, what),
     .doc = "`chain`: leaf, then intermediates. `leaf`, `intermediates`, `key`: one of them. "
            "`combined`: chain and key. `bundle`: the authorities to trust. All of these PEM. "
            "`pkcs12`: key and chain. `truststore`: the authorities as PKCS#12, which Java reads. "
            "`jwt`: a JWT-SVID. `jwks`: the keys that verify JWT-SVIDs. "
            "`jwt-bundles`: those of each trust domain that the agent knows, a JSON object of "
            "key sets in base64 under the domains' names, as spiffe-helper writes it."},
    {.name = "order",
     .type = TYPE_WORD,
     .words = words_order,
     AT(struct conf_rotate_file, order),
     .def = "chain-first",
     .doc = "Of a `combined` file."},
    {.name = "encoding",
     .type = TYPE_WORD,
     .words = words_encoding,
     AT(struct conf_rotate_file, encoding),
     .def = "pkcs8",
     .doc = "Of the key in `key` and `combined`: `BEGIN PRIVATE KEY`, or the older form "
            "(`BEGIN EC PRIVATE KEY`, `BEGIN RSA PRIVATE KEY`)."},
    {.name = "trust",
     .type = TYPE_WORD,
     .words = words_trust,
     AT(struct conf_rotate_file, trust),
     .def = "own",
     .doc = "Of `bundle` and `truststore`: the authorities of the own trust domain, of the "
            "federated ones, or both. A program that trusts a file of several trust domains lets "
            "each of them name any identity, unless it checks SPIFFE IDs itself."},
    {.name = "trust_domain",
     .type = TYPE_TRUST_DOMAIN,
     AT(struct conf_rotate_file, trust_domain),
     .def_doc = "the identity's own",
     .doc = "Of `bundle`, `truststore` and `jwks`: the keys of this trust domain alone."},
    {.name = "add_intermediates",
     .type = TYPE_BOOL,
     AT(struct conf_rotate_file, add_intermediates),
     .def = "false",
     .doc = "Of `bundle`: the intermediates of the own chain stand there too."},
    {.name = "audience",
     .type = TYPE_TEXT,
     .max = 1024,
     LIST_AT(struct conf_rotate_file, audience.items, audience.n),
     .doc = "Of `jwt`, and required there: whom the token is for."},
};
static const struct table table_file = {
    .name = "a file",
    .doc = "Which keys a file takes depends on `what`.",
    .size = sizeof(struct conf_rotate_file),
    FIELDS(fields_file),
    .check = check_file,
};

#define WHAT(w) (1U << CONF_ROTATE_##w)

static void check_file(struct context *c, const struct node *map, void *value)
{
    static const struct {
        const char *key;
        unsigned whats;
    } takes[] = {
        {"order", WHAT(COMBINED)},
        {"encoding", WHAT(KEY) | WHAT(COMBINED)},
        {"trust", WHAT(BUNDLE) | WHAT(TRUSTSTORE)},
        {"trust_domain", WHAT(BUNDLE) | WHAT(TRUSTSTORE) | WHAT(JWKS)},
        {"add_intermediates", WHAT(BUNDLE)},
        {"audience", WHAT(JWT)},
    };
    const struct conf_rotate_file *f = value;
    if (node_get(map, "what") == NULL) {
        return;
    }
    for (size_t i = 0; i < sizeof(takes) / sizeof(takes[0]); i++) {
        const struct node *n = node_get(map, takes[i].key);
        if (n != NULL && (takes[i].whats & 1U << f->what) == 0) {
            report(c, n->key, NULL, "remove it", "a file of '%s' has no '%s'", words_what[f->what],
                   takes[i].key);
        }
    }
    if (f->what == CONF_ROTATE_JWT && node_get(map, "audience") == NULL) {
        report(c, map, "the audiences of the token", NULL, "missing key 'audience' of a 'jwt'");
    }
    if (node_get(map, "trust") != NULL && node_get(map, "trust_domain") != NULL) {
        report(c, node_get(map, "trust")->key, NULL, "leave one of them out",
               "both 'trust' and 'trust_domain'");
    }
}

/* --- layouts ---------------------------------------------------------------------------------- */
static const struct layout_file {
    enum conf_rotate_layout layout;
    const char *name;
    enum conf_rotate_what what;
} layouts[] = {
    {CONF_ROTATE_SEPARATE, "tls.crt", CONF_ROTATE_CHAIN},
    {CONF_ROTATE_SEPARATE, "tls.key", CONF_ROTATE_KEY},
    {CONF_ROTATE_SEPARATE, "ca.crt", CONF_ROTATE_BUNDLE},
    {CONF_ROTATE_NGINX, "fullchain.pem", CONF_ROTATE_CHAIN},
    {CONF_ROTATE_NGINX, "privkey.pem", CONF_ROTATE_KEY},
    {CONF_ROTATE_NGINX, "ca.pem", CONF_ROTATE_BUNDLE},
    {CONF_ROTATE_POSTGRES, "server.crt", CONF_ROTATE_CHAIN},
    {CONF_ROTATE_POSTGRES, "server.key", CONF_ROTATE_KEY},
    {CONF_ROTATE_POSTGRES, "root.crt", CONF_ROTATE_BUNDLE},
    {CONF_ROTATE_HAPROXY, "tls.pem", CONF_ROTATE_COMBINED},
    {CONF_ROTATE_HAPROXY, "ca.pem", CONF_ROTATE_BUNDLE},
    {CONF_ROTATE_JAVA, "keystore.p12", CONF_ROTATE_PKCS12},
    {CONF_ROTATE_JAVA, "truststore.p12", CONF_ROTATE_TRUSTSTORE},
    {CONF_ROTATE_SPIFFE_HELPER, "svid.pem", CONF_ROTATE_CHAIN},
    {CONF_ROTATE_SPIFFE_HELPER, "svid_key.pem", CONF_ROTATE_KEY},
    {CONF_ROTATE_SPIFFE_HELPER, "svid_bundle.pem", CONF_ROTATE_BUNDLE},
};

static bool layout_has(enum conf_rotate_layout layout, const char *name)
{
    for (size_t i = 0; i < sizeof(layouts) / sizeof(layouts[0]); i++) {
        if (layouts[i].layout == layout && strcmp(layouts[i].name, name) == 0) {
            return true;
        }
    }
    return false;
}

/* The layout's files, then those of `files`. */
static void write_out_layout(struct context *c, const struct node *map,
                             struct conf_rotate_output *o)
{
    size_t n_more = 0;
    for (size_t i = 0; i < sizeof(layouts) / sizeof(layouts[0]); i++) {
        n_more += layouts[i].layout == o->layout ? 1 : 0;
    }
    for (size_t i = 0; i < o->n_files; i++) {
        if (o->files[i].name != NULL && layout_has(o->layout, o->files[i].name)) {
            report(c, node_get(map, "files"), NULL, "give it another name",
                   "file '%s' is in layout '%s' already", o->files[i].name,
                   words_layout[o->layout]);
        }
    }
    struct conf_rotate_file *all = mem_must_calloc(n_more + o->n_files + 1, sizeof(*all));
    size_t n = 0;
    for (size_t i = 0; i < sizeof(layouts) / sizeof(layouts[0]); i++) {
        if (layouts[i].layout == o->layout) {
            all[n++] = (struct conf_rotate_file){.name = mem_must_strdup(layouts[i].name),
                                                 .what = layouts[i].what};
        }
    }
    if (o->n_files > 0) {
        memcpy(all + n, o->files, o->n_files * sizeof(*all));
    }
    mem_autofree struct conf_rotate_file *old = o->files;
    o->n_files += n;
    o->files = all;
}

/* --- outputs ---------------------------------------------------------------------------------- */
static const struct field fields_output_identity[] = {
    {.name = "spiffe_id",
     .type = TYPE_SPIFFE_ID,
     AT(struct conf_rotate_output, spiffe_id),
     .def_doc = "the first offered",
     .doc = "Which identity to take where several are offered."},
    {.name = "key",
     .type = TYPE_WORD,
     .words = words_key,
     AT(struct conf_rotate_output, key),
     .def = "auto",
     .doc = "`csr`: an ECDSA P-256 key is made here, and the agent never sees it. `agent`: the "
            "agent makes the key, of the type that it makes. `auto`: `csr` where the agent can, "
            "and a warning in the log where not."},
};
static const struct table table_output_identity = {.name = "identity",
                                                   FIELDS(fields_output_identity)};

static void check_output(struct context *c, const struct node *map, void *value);

static const struct field fields_output[] = {
    {.name = "name",
     .type = TYPE_NAME,
     .max = 64,
     .required = true,
     AT(struct conf_rotate_output, name),
     .doc = "Unique in the file; in logs, metrics and `--status`."},
    {.name = "directory",
     .type = TYPE_PATH,
     .required = true,
     AT(struct conf_rotate_output, directory),
     .doc = "Where the files are, for this output alone. Made if it is not there; the directory "
            "above has to be. It belongs to the daemon's user, and nobody else may write in it."},
    {.name = "identity", .type = TYPE_MAP, .table = &table_output_identity, .doc = "Whose files."},
    {.name = "layout",
     .type = TYPE_WORD,
     .words = words_layout,
     AT(struct conf_rotate_output, layout),
     .def = "files",
     .doc = "A list of files by one word; `files` adds to it. `separate`: tls.crt, tls.key, "
            "ca.crt. `nginx`: fullchain.pem, privkey.pem, ca.pem. `postgres`: server.crt, "
            "server.key, root.crt. `haproxy`: tls.pem (combined), ca.pem. `java`: keystore.p12, "
            "truststore.p12. `spiffe-helper`: svid.pem, svid_key.pem, svid_bundle.pem."},
    {.name = "files",
     .type = TYPE_MAP,
     .table = &table_file,
     LIST_AT(struct conf_rotate_output, files, n_files),
     .def_doc = "those of `layout`",
     .doc = "What is written. All files of an output change together."},
    {.name = "owner",
     .type = TYPE_TEXT,
     .max = 64,
     AT(struct conf_rotate_output, owner),
     .def_doc = "the daemon's user",
     .doc = "Whose the files are: a user's name or number. The directory stays the daemon's."},
    {.name = "group",
     .type = TYPE_TEXT,
     .max = 64,
     AT(struct conf_rotate_output, group),
     .def_doc = "the owner's own group",
     .doc = "A group's name or number."},
    {.name = "mode",
     .type = TYPE_MODE,
     AT(struct conf_rotate_output, mode),
     .def = "0600",
     .doc = "Of files that hold a key or a token. Nothing for others, nothing but reading for the "
            "group."},
    {.name = "public_mode",
     .type = TYPE_MODE,
     AT(struct conf_rotate_output, public_mode),
     .def = "0644",
     .doc = "Of the other files. The directories let in whom either mode lets read."},
    {.name = "passphrase_file",
     .type = TYPE_PATH,
     AT(struct conf_rotate_output, passphrase_file),
     .def_doc = "an empty passphrase",
     .doc = "The passphrase of `pkcs12` and `truststore`, of which one newline at the end does "
            "not count. Read at each change; root's or the daemon's own user's, and not open to "
            "others. Java refuses an empty one."},
    {.name = "omit_expired",
     .type = TYPE_BOOL,
     AT(struct conf_rotate_output, omit_expired),
     .def = "true",
     .doc = "Authorities that have ended are left out of `bundle` and `truststore`."},
    {.name = "replace_files",
     .type = TYPE_BOOL,
     AT(struct conf_rotate_output, replace_files),
     .def = "false",
     .doc = "Plain files that stand where a link of ours has to be are replaced; else that is an "
            "error. For directories that another program has filled before."},
    {.name = "keep",
     .type = TYPE_UINT,
     .min = 1,
     .max = 100,
     AT(struct conf_rotate_output, keep),
     .def = "2",
     .doc = "How many generations before the present one stay, for readers that hold one open."},
    {.name = "after",
     .type = TYPE_MAP,
     .table = &table_action,
     LIST_AT(struct conf_rotate_output, after, n_after),
     .def_doc = "nothing",
     .doc = "What is done after each change, in this order."},
    {.name = "verify",
     .type = TYPE_MAP,
     .table = &table_verify,
     .scalar = verify_scalar,
     AT(struct conf_rotate_output, verify),
     .def_doc = "nowhere",
     .doc = "Where the new certificate has to be served then. A URL alone means `{url: URL}`."},
};
static const struct table table_output = {
    .name = "an output",
    .size = sizeof(struct conf_rotate_output),
    FIELDS(fields_output),
    .check = check_output,
};

/* A name, or a number for what this machine has no name for. */
static bool find_user(const char *name, uid_t *ret_uid, gid_t *ret_gid)
{
    char space[16384];
    struct passwd pw;
    struct passwd *found = NULL;
    uint64_t number = 0;
    bool by_number = str_to_u64(str_of(name), UINT32_MAX - 1, &number);
    int rc = by_number ? getpwuid_r((uid_t)number, &pw, space, sizeof(space), &found)
                       : getpwnam_r(name, &pw, space, sizeof(space), &found);
    if (rc == 0 && found != NULL) {
        *ret_uid = found->pw_uid;
        *ret_gid = found->pw_gid;
        return true;
    }
    *ret_uid = (uid_t)number;
    *ret_gid = (gid_t)number;
    return by_number;
}

static bool find_group(const char *name, gid_t *ret)
{
    char space[16384];
    struct group gr;
    struct group *found = NULL;
    uint64_t number = 0;
    if (str_to_u64(str_of(name), UINT32_MAX - 1, &number)) {
        *ret = (gid_t)number;
        return true;
    }
    if (getgrnam_r(name, &gr, space, sizeof(space), &found) != 0 || found == NULL) {
        return false;
    }
    *ret = found->gr_gid;
    return true;
}

static void find_owner(struct context *c, const struct node *map, struct conf_rotate_output *o)
{
    struct shown s;
    if (o->owner != NULL) {
        o->has_owner = find_user(o->owner, &o->uid, &o->gid);
        o->has_group = o->has_owner;
        if (!o->has_owner) {
            report(c, node_get(map, "owner"), "a user's name or number", NULL,
                   "'owner' is %s, a user that this machine does not know",
                   show(&s, str_of(o->owner)));
        }
    }
    if (o->group != NULL) {
        o->has_group = find_group(o->group, &o->gid);
        if (!o->has_group) {
            report(c, node_get(map, "group"), "a group's name or number", NULL,
                   "'group' is %s, a group that this machine does not know",
                   show(&s, str_of(o->group)));
        }
    }
}

static void check_modes(struct context *c, const struct node *map,
                        const struct conf_rotate_output *o)
{
    const struct node *mode = node_get(map, "mode");
    const struct node *public_mode = node_get(map, "public_mode");
    if (o->mode == 0 || o->public_mode == 0) {
        return; /* reported */
    }
    if (mode != NULL && (o->mode & 0007) != 0) {
        report(c, mode, "0600, 0640, 0400 or 0440", "name a 'group' for those who have to read it",
               "'mode' lets everybody at keys");
    } else if (mode != NULL && ((o->mode & 0133) != 0 || (o->mode & 0400) == 0)) {
        report(c, mode, "0600, 0640, 0400 or 0440", NULL,
               "'mode' is not one for files that are read only");
    }
    if (public_mode != NULL && ((o->public_mode & 0133) != 0 || (o->public_mode & 0400) == 0)) {
        report(c, public_mode, "such as 0644, 0640 or 0444", NULL,
               "'public_mode' is not one for files that are read only");
    }
}

static bool has_what(const struct conf_rotate_output *o, unsigned whats)
{
    for (size_t i = 0; i < o->n_files; i++) {
        if ((whats & 1U << o->files[i].what) != 0) {
            return true;
        }
    }
    return false;
}

/* Also one that is none: that was reported. */
static bool names_layout(const struct node *map)
{
    const struct node *n = node_get(map, "layout");
    return n != NULL && !(n->kind == NODE_SCALAR && str_eq(n->text, STR_LIT("files")));
}

static void check_output(struct context *c, const struct node *map, void *value)
{
    struct conf_rotate_output *o = value;
    find_owner(c, map, o);
    check_modes(c, map, o);
    schema_check_unique(c, node_get(map, "files"), "name", "file");
    if (o->layout != CONF_ROTATE_NO_LAYOUT) {
        write_out_layout(c, map, o);
    } else if (node_get(map, "files") == NULL && !names_layout(map)) {
        report(c, map, "a list of files, or a layout", NULL, "an output without files");
    }
    if (o->n_files > CONF_ROTATE_FILES_MAX) {
        report(c, node_get(map, "files"), NULL, "make another output", "more than %d files",
               CONF_ROTATE_FILES_MAX);
    }
    after_check(c, node_get(map, "after"), o->n_after);
    const struct node *passphrase = node_get(map, "passphrase_file");
    if (passphrase != NULL && !has_what(o, WHAT(PKCS12) | WHAT(TRUSTSTORE))) {
        report(c, passphrase->key, NULL, "remove it",
               "'passphrase_file' of an output without 'pkcs12' and 'truststore'");
    }
}

/* --- the file --------------------------------------------------------------------------------- */
static const struct field fields_identity[] = {
    {.name = "socket",
     .type = TYPE_UNIX,
     AT(struct conf_rotate, socket),
     .def_doc = "`$SPIFFE_ENDPOINT_SOCKET`",
     .doc = "The SPIFFE Workload API that gives the SVIDs."},
};
static const struct table table_identity = {.name = "identity", FIELDS(fields_identity)};

static const struct field fields_renew[] = {
    {.name = "at",
     .type = TYPE_PERCENT,
     .min = 10,
     .max = 90,
     AT(struct conf_rotate, renew_at),
     .def = "50%",
     .doc = "After how much of its life a certificate or token is renewed. What the agent sends "
            "earlier counts earlier."},
    {.name = "jitter",
     .type = TYPE_PERCENT,
     .max = 30,
     AT(struct conf_rotate, renew_jitter),
     .def = "10%",
     .doc = "Spread around that, in both directions, of the life too."},
};
static const struct table table_renew = {.name = "renew", FIELDS(fields_renew)};

static const struct field fields_log[] = {
    {.name = "level",
     .type = TYPE_WORD,
     .words = words_log_level,
     AT(struct conf_rotate, log_level),
     .def = "info",
     .doc = "The least severe line that is written."},
};
static const struct table table_log = {.name = "log", FIELDS(fields_log)};

static void check_rotate(struct context *c, const struct node *map, void *value);

static const struct field fields_rotate[] = {
    KIND_FIELDS("Rotate"),
    {.name = "name",
     .type = TYPE_NAME,
     .max = 64,
     AT(struct conf_rotate, name),
     .def_doc = "the host name",
     .doc = "Shown in logs and by `postern status`."},
    {.name = "identity",
     .type = TYPE_MAP,
     .table = &table_identity,
     .doc = "Where SVIDs come from."},
    {.name = "renew", .type = TYPE_MAP, .table = &table_renew, .doc = "When they are renewed."},
    {.name = "outputs",
     .type = TYPE_MAP,
     .table = &table_output,
     .required = true,
     LIST_AT(struct conf_rotate, outputs, n_outputs),
     .doc = "The sets of files, each in a directory of its own."},
    {.name = "warn_before_expiry",
     .type = TYPE_PERCENT,
     .min = 1,
     .max = 90,
     AT(struct conf_rotate, warn_before_expiry),
     .def = "20%",
     .doc = "How much of its life is left when a set that was not renewed is warned about: in the "
            "log, in metrics, and by `--status`."},
    {.name = "admin",
     .type = TYPE_MAP,
     .table = &table_admin,
     .doc = "The socket for `postern status` and `postern rotate --status`.",
     AT(struct conf_rotate, admin)},
    {.name = "metrics",
     .type = TYPE_MAP,
     .table = &table_metrics,
     .doc = "Metrics and readiness over HTTP.",
     AT(struct conf_rotate, metrics)},
    {.name = "log", .type = TYPE_MAP, .table = &table_log, .doc = "What is logged."},
};
const struct table table_rotate = {
    .name = "the file",
    .doc = "Certificates and tokens kept fresh in files, for a program that does its own TLS. "
           "`postern rotate FILE` runs it; docs/rotation.md says how.",
    .size = sizeof(struct conf_rotate),
    FIELDS(fields_rotate),
    .check = check_rotate,
};

static void check_rotate(struct context *c, const struct node *map, void *value)
{
    struct conf_rotate *r = value;
    char host[65] = "";
    const struct node *outputs = node_get(map, "outputs");
    if (r->name == NULL) {
        (void)gethostname(host, sizeof(host) - 1);
        r->name = mem_must_strdup(host[0] != '\0' ? host : "postern");
    }
    admin_finish(&r->admin);
    schema_check_unique(c, outputs, "name", "output");
    schema_check_unique(c, outputs, "directory", "directory");
    if (r->n_outputs > CONF_ROTATE_OUTPUTS_MAX) {
        report(c, outputs, NULL, "run another daemon", "more than %d outputs",
               CONF_ROTATE_OUTPUTS_MAX);
    }
    const struct node *renew = node_get(map, "renew");
    if (r->renew_at == 0 || r->warn_before_expiry == 0) {
        return; /* reported */
    }
    if (r->renew_at + r->renew_jitter > 95 || r->renew_at < r->renew_jitter) {
        report(c, renew, NULL, "make 'jitter' smaller",
               "'jitter' reaches beyond the beginning or the end");
    } else if (r->renew_at + r->renew_jitter + r->warn_before_expiry > 100) {
        report(c,
               node_get(map, "warn_before_expiry") != NULL ? node_get(map, "warn_before_expiry")
                                                           : renew,
               NULL, "renew earlier, or warn later", "warns before it renews");
    }
}
