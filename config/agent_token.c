/* agent_token: `ca.key_at_rest.pkcs11` of an Agent file: the token that holds the root's key, and
 * all that the process which uses it may touch. docs/authority.md, "A token". */
#include <postern/conf.h>

#include "config_priv.h"

enum { TOKEN_LABEL_MAX = 32, KEY_LABEL_MAX = 47, NAME_MAX_LEN = 255, WORDS_MAX = 4096 };

static void check_token(struct context *c, const struct node *map, void *value);

/* NAME=VALUE. What the dynamic linker reads is nobody's to set. */
static bool check_environment(struct context *c, const struct field *f, const struct node *n)
{
    size_t i = 0;

    while (i < n->text.n &&
           ((n->text.p[i] >= 'A' && n->text.p[i] <= 'Z') ||
            (i > 0 && n->text.p[i] >= '0' && n->text.p[i] <= '9') || n->text.p[i] == '_')) {
        i++;
    }
    if (i == 0 || i == n->text.n || n->text.p[i] != '=' ||
        (n->text.n > 3 && memcmp(n->text.p, "LD_", 3) == 0)) {
        value_fail(c, f, n, "such as SOFTHSM2_CONF=/etc/postern/softhsm2.conf",
                   "which is not NAME=VALUE");
        return false;
    }
    return true;
}

static bool check_name(struct context *c, const struct field *f, const struct node *n)
{
    if (n->text.n == 0 || memchr(n->text.p, '/', n->text.n) != NULL || n->text.p[0] == '.') {
        value_fail(c, f, n, NULL, "which is no credential's name");
        return false;
    }
    return true;
}

static const struct field fields_token[] = {
    {.name = "module",
     .type = TYPE_PATH,
     .required = true,
     AT(struct conf_token, module),
     .doc = "The PKCS#11 library. It is loaded by a process of its own (`users.signer`), after "
            "that has given up everything else."},
    {.name = "token",
     .type = TYPE_TEXT,
     .required = true,
     .min = 1,
     .max = TOKEN_LABEL_MAX,
     AT(struct conf_token, label),
     .doc = "The token's label."},
    {.name = "key",
     .type = TYPE_TEXT,
     .min = 1,
     .max = KEY_LABEL_MAX,
     AT(struct conf_token, key),
     .def = "postern",
     .doc = "The key's label. Made at first start if there is none; keys of later roots are "
            "labelled with this, a dash and the authority's id."},
    {.name = "pin_file",
     .type = TYPE_PATH,
     AT(struct conf_token, pin_file),
     .doc = "The user PIN, of which one newline at the end does not count. Mode 0600 or 0400, the "
            "agent's own user."},
    {.name = "pin_credential",
     .type = TYPE_TEXT,
     .max = NAME_MAX_LEN,
     .check = check_name,
     AT(struct conf_token, pin_credential),
     .doc = "The same, from the systemd credential of this name."},
    {.name = "token_paths",
     .type = TYPE_PATH,
     LIST_AT(struct conf_token, paths.items, paths.n),
     .def_doc = "none",
     .doc = "What the module may read and write beside the system's libraries: a token's "
            "directory, a device. The files' own modes have to let `users.signer` in."},
    {.name = "environment",
     .type = TYPE_TEXT,
     .max = WORDS_MAX,
     .check = check_environment,
     LIST_AT(struct conf_token, environment.items, environment.n),
     .def_doc = "none: an empty environment",
     .doc = "Variables that the module reads, `NAME=VALUE` each. A value that is an absolute path "
            "may be read."},
};
const struct table table_token = {.name = "pkcs11",
                                  .size = sizeof(struct conf_token),
                                  FIELDS(fields_token),
                                  .check = check_token};

static size_t words_size(const char *const *items, size_t n)
{
    size_t size = 0;

    for (size_t i = 0; i < n; i++) {
        size += items[i] != NULL ? strlen(items[i]) + 1 : 0; /* one that failed */
    }
    return size;
}

static void check_token(struct context *c, const struct node *map, void *value)
{
    struct conf_token *t = value;
    bool file = node_get(map, "pin_file") != NULL;

    t->configured = true;
    if (file == (node_get(map, "pin_credential") != NULL)) {
        report(c, map, "one of pin_file and pin_credential", NULL,
               file ? "'pkcs11' names two sources of the PIN"
                    : "'pkcs11' names no source of the PIN");
    }
    if (words_size((const char *const *)t->paths.items, t->paths.n) > WORDS_MAX ||
        words_size((const char *const *)t->environment.items, t->environment.n) > WORDS_MAX) {
        report(c, map, NULL, NULL, "'token_paths' or 'environment' is longer than %d bytes",
               WORDS_MAX);
    }
}
