/* values: spiffe-helper's keys and their values, how they are told of, and how ours are written. */
#include "spiffe_helper_priv.h"

#include <postern/mem.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

enum type { TEXT, INTEGER, BOOLEAN, OBJECTS, OBJECT };

static const struct {
    const char *name;
    enum type type;
} KEYS[N_KEYS] = {
    [AGENT_ADDRESS] = {"agent_address", TEXT},
    [CMD] = {"cmd", TEXT},
    [CMD_ARGS] = {"cmd_args", TEXT},
    [PID_FILE_NAME] = {"pid_file_name", TEXT},
    [CERT_DIR] = {"cert_dir", TEXT},
    [DAEMON_MODE] = {"daemon_mode", BOOLEAN},
    [ADD_INTERMEDIATES_TO_BUNDLE] = {"add_intermediates_to_bundle", BOOLEAN},
    [RENEW_SIGNAL] = {"renew_signal", TEXT},
    [SVID_FILE_NAME] = {"svid_file_name", TEXT},
    [SVID_KEY_FILE_NAME] = {"svid_key_file_name", TEXT},
    [SVID_BUNDLE_FILE_NAME] = {"svid_bundle_file_name", TEXT},
    [JWT_SVIDS] = {"jwt_svids", OBJECTS},
    [JWT_BUNDLE_FILE_NAME] = {"jwt_bundle_file_name", TEXT},
    [INCLUDE_FEDERATED_DOMAINS] = {"include_federated_domains", BOOLEAN},
    [CERT_FILE_MODE] = {"cert_file_mode", INTEGER},
    [KEY_FILE_MODE] = {"key_file_mode", INTEGER},
    [JWT_BUNDLE_FILE_MODE] = {"jwt_bundle_file_mode", INTEGER},
    [JWT_SVID_FILE_MODE] = {"jwt_svid_file_mode", INTEGER},
    [HINT] = {"hint", TEXT},
    [OMIT_EXPIRED] = {"omit_expired", BOOLEAN},
    [HEALTH_CHECKS] = {"health_checks", OBJECT},
};

/* --- telling ---------------------------------------------------------------------------------- */
static void tell(struct helper *c, bool refused, const struct hcl_node *n, const char *fmt,
                 va_list ap)
{
    char what[600], text[1000];

    (void)vsnprintf(what, sizeof(what), fmt, ap);
    (void)snprintf(text, sizeof(text), "%s:%u:%u: %s", c->options->name, n != NULL ? n->line : 1,
                   n != NULL ? n->column : 1, what);
    /* It may hold anything that the file held: nothing of it reaches a terminal as it is. */
    for (char *p = text; *p != '\0'; p++) {
        if ((unsigned char)*p < ' ' || *p == 0x7f) {
            *p = '?';
        }
    }
    c->refused |= refused;
    c->tell(c->arg, refused, text);
}

void helper_refuse(struct helper *c, const struct hcl_node *n, const char *fmt, ...)
{
    va_list ap;

    va_start(ap, fmt);
    tell(c, true, n, fmt, ap);
    va_end(ap);
}

void helper_note(struct helper *c, const struct hcl_node *n, const char *fmt, ...)
{
    va_list ap;

    va_start(ap, fmt);
    tell(c, false, n, fmt, ap);
    va_end(ap);
}

/* --- values ----------------------------------------------------------------------------------- */
/* "" where the key is not there, or empty: both are the same over there. */
const char *helper_text(const struct helper *c, enum key k)
{
    return c->at[k] != NULL && c->at[k]->text != NULL ? c->at[k]->text : "";
}

bool helper_truth(const struct helper *c, enum key k, bool absent)
{
    return c->at[k] != NULL ? c->at[k]->truth : absent;
}

/* As Go reads integers: 0644, 0o644, 0x1a4, 420. */
static bool parse_integer(const char *text, uint64_t *ret)
{
    unsigned base = 10;
    uint64_t v = 0;

    if (text[0] == '0' && (text[1] == 'x' || text[1] == 'X')) {
        base = 16;
        text += 2;
    } else if (text[0] == '0' && (text[1] == 'o' || text[1] == 'O')) {
        base = 8;
        text += 2;
    } else if (text[0] == '0' && text[1] != '\0') {
        base = 8;
        text++;
    }
    if (*text == '\0') {
        return false;
    }
    for (; *text != '\0'; text++) {
        unsigned digit = *text >= '0' && *text <= '9'   ? (unsigned)(*text - '0')
                         : *text >= 'a' && *text <= 'f' ? (unsigned)(*text - 'a') + 10
                         : *text >= 'A' && *text <= 'F' ? (unsigned)(*text - 'A') + 10
                                                        : 99;

        if (digit >= base || v > UINT32_MAX) {
            return false;
        }
        v = v * base + digit;
    }
    *ret = v;
    return true;
}

uint64_t helper_integer(struct helper *c, const struct hcl_node *n, uint64_t absent)
{
    uint64_t v = 0;

    if (n == NULL) {
        return absent;
    }
    if (!parse_integer(n->text, &v)) {
        helper_refuse(c, n, "'%s' is no whole number of at most 32 bits", n->key);
    }
    return v == 0 ? absent : v;
}

/* What stands in YAML between single quotes. */
bool helper_is_plain(const char *text)
{
    for (; *text != '\0'; text++) {
        if ((unsigned char)*text < ' ' || (unsigned char)*text >= 0x7f) {
            return false;
        }
    }
    return true;
}

static bool check_type(const struct hcl_node *n, enum type type)
{
    switch (type) {
    case TEXT:
        return n->kind == HCL_STRING || n->kind == HCL_NUMBER;
    case INTEGER:
        return n->kind == HCL_STRING || n->kind == HCL_NUMBER;
    case BOOLEAN:
        return n->kind == HCL_BOOL;
    case OBJECT:
        return n->kind == HCL_OBJECT;
    case OBJECTS:
    default:
        return n->kind == HCL_LIST || n->kind == HCL_OBJECT;
    }
}

void helper_collect(struct helper *c, const struct hcl_node *root)
{
    static const char *const types[] = {"a string", "a number", "true or false",
                                        "a list of objects", "an object"};

    for (const struct hcl_node *n = root->child; n != NULL; n = n->next) {
        size_t k = 0;

        while (k < N_KEYS && strcmp(KEYS[k].name, n->key) != 0) {
            k++;
        }
        if (k == N_KEYS) {
            helper_refuse(c, n, "'%s' is no key of spiffe-helper's", n->key);
        } else if (!check_type(n, KEYS[k].type)) {
            helper_refuse(c, n, "'%s' is not %s", n->key, types[KEYS[k].type]);
        } else if (n->text != NULL && !helper_is_plain(n->text)) {
            helper_refuse(c, n, "'%s' holds control characters, or what is not ASCII", n->key);
        } else {
            c->at[k] = n;
        }
    }
}

const struct hcl_node *helper_find(const struct hcl_node *object, const char *key)
{
    const struct hcl_node *n = object->child;

    while (n != NULL && strcmp(n->key, key) != 0) {
        n = n->next;
    }
    return n;
}

/* --- writing ---------------------------------------------------------------------------------- */
void helper_put(struct helper *c, const char *fmt, ...)
{
    va_list ap;

    va_start(ap, fmt);
    c->full |= !buf_vprintf(c->out, fmt, ap);
    va_end(ap);
}

void helper_put_quoted(struct helper *c, const char *text)
{
    helper_put(c, "'");
    for (; *text != '\0'; text++) {
        helper_put(c, "%s%c", *text == '\'' ? "'" : "", *text);
    }
    helper_put(c, "'");
}

/* A path as it is from anywhere. */
void helper_put_path(struct helper *c, const char *path)
{
    mem_autofree char *whole = path[0] == '/'
                                   ? mem_must_strdup(path)
                                   : mem_must_printf("%s/%s", c->options->directory, path);

    helper_put_quoted(c, whole);
}
