/* files: the names, contents and modes of what is written. */
#include "spiffe_helper_priv.h"

#include <stdio.h>
#include <string.h>

enum { NAME_LEN_MAX = 200 };

/* --- files ------------------------------------------------------------------------------------ */
static bool check_name(struct helper *c, const struct hcl_node *n)
{
    const char *name = n->text;

    if (strchr(name, '/') != NULL || strcmp(name, ".") == 0 || strncmp(name, "..", 2) == 0 ||
        strlen(name) > NAME_LEN_MAX) {
        helper_refuse(c, n, "'%s' is not the plain name of a file in cert_dir", n->key);
        return false;
    }
    return true;
}

static void put_file(struct helper *c, const struct hcl_node *n, const char *rest)
{
    if (check_name(c, n)) {
        helper_put(c, "      - {name: ");
        helper_put_quoted(c, n->text);
        helper_put(c, ", %s}\n", rest);
    }
}

static void put_x509(struct helper *c)
{
    char bundle[120];
    bool add = helper_truth(c, ADD_INTERMEDIATES_TO_BUNDLE, false);
    bool all = helper_truth(c, INCLUDE_FEDERATED_DOMAINS, false);

    (void)snprintf(bundle, sizeof(bundle), "what: bundle, trust: %s, add_intermediates: %s",
                   all ? "all" : "own", add ? "true" : "false");
    put_file(c, c->at[SVID_FILE_NAME], add ? "what: leaf" : "what: chain");
    put_file(c, c->at[SVID_KEY_FILE_NAME], "what: key");
    put_file(c, c->at[SVID_BUNDLE_FILE_NAME], bundle);
}

static bool is_word_list(const struct hcl_node *list)
{
    for (const struct hcl_node *n = list->child; n != NULL; n = n->next) {
        if (n->kind != HCL_STRING || n->text[0] == '\0' || !helper_is_plain(n->text)) {
            return false;
        }
    }
    return list->kind == HCL_LIST;
}

static bool is_word(const struct hcl_node *n)
{
    return n != NULL && n->kind == HCL_STRING && n->text[0] != '\0' && helper_is_plain(n->text);
}

static void put_token(struct helper *c, const struct hcl_node *object)
{
    const struct hcl_node *audience = NULL, *extra = NULL, *name = NULL;

    for (const struct hcl_node *n = object->child; n != NULL; n = n->next) {
        if (strcmp(n->key, "jwt_audience") != 0 && strcmp(n->key, "jwt_extra_audiences") != 0 &&
            strcmp(n->key, "jwt_svid_file_name") != 0) {
            helper_refuse(c, n, "'%s' is no key of spiffe-helper's in 'jwt_svids'", n->key);
        }
    }
    audience = helper_find(object, "jwt_audience");
    extra = helper_find(object, "jwt_extra_audiences");
    name = helper_find(object, "jwt_svid_file_name");
    if (!is_word(audience) || !is_word(name) || (extra != NULL && !is_word_list(extra))) {
        helper_refuse(
            c, object,
            "'jwt_svids' needs 'jwt_audience' and 'jwt_svid_file_name', both strings, and "
            "'jwt_extra_audiences' is a list of strings");
        return;
    }
    if (!check_name(c, name)) {
        return;
    }
    helper_put(c, "      - {name: ");
    helper_put_quoted(c, name->text);
    helper_put(c, ", what: jwt, audience: [");
    helper_put_quoted(c, audience->text);
    for (const struct hcl_node *n = extra != NULL ? extra->child : NULL; n != NULL; n = n->next) {
        helper_put(c, ", ");
        helper_put_quoted(c, n->text);
    }
    helper_put(c, "]}\n");
}

size_t helper_tokens(const struct helper *c)
{
    const struct hcl_node *list = c->at[JWT_SVIDS];
    size_t n = 0;

    for (const struct hcl_node *t = list != NULL ? list->child : NULL; t != NULL; t = t->next) {
        n++;
    }
    return list != NULL && list->kind == HCL_OBJECT ? 1 : n;
}

static void put_tokens(struct helper *c)
{
    const struct hcl_node *list = c->at[JWT_SVIDS];

    if (list == NULL) {
        return;
    }
    if (list->kind == HCL_OBJECT) {
        put_token(c, list);
        return;
    }
    for (const struct hcl_node *n = list->child; n != NULL; n = n->next) {
        if (n->kind == HCL_OBJECT) {
            put_token(c, n);
        } else {
            helper_refuse(c, n, "'jwt_svids' holds something else than objects");
        }
    }
}

/* One output has one name once: the links would be the same. */
static void check_names(struct helper *c)
{
    static const enum key with_name[] = {SVID_FILE_NAME, SVID_KEY_FILE_NAME, SVID_BUNDLE_FILE_NAME};
    enum { SEEN_MAX = HELPER_TOKENS_MAX + 4 };
    const struct hcl_node *seen[SEEN_MAX];
    const struct hcl_node *tokens = c->at[JWT_SVIDS];
    size_t n_seen = 0;

    for (size_t i = 0; c->x509 && i < sizeof(with_name) / sizeof(with_name[0]); i++) {
        seen[n_seen++] = c->at[with_name[i]];
    }
    if (helper_text(c, JWT_BUNDLE_FILE_NAME)[0] != '\0') {
        seen[n_seen++] = c->at[JWT_BUNDLE_FILE_NAME];
    }
    for (const struct hcl_node *t = tokens != NULL && tokens->kind == HCL_LIST ? tokens->child
                                                                               : NULL;
         t != NULL && n_seen < SEEN_MAX; t = t->next) {
        const struct hcl_node *name =
            t->kind == HCL_OBJECT ? helper_find(t, "jwt_svid_file_name") : NULL;

        if (is_word(name)) {
            seen[n_seen++] = name;
        }
    }
    for (size_t i = 1; i < n_seen; i++) {
        for (size_t k = 0; k < i; k++) {
            if (strcmp(seen[i]->text, seen[k]->text) == 0) {
                helper_refuse(c, seen[i], "two files are called '%.60s'", seen[i]->text);
                k = i;
            }
        }
    }
}

void helper_put_files(struct helper *c)
{
    if (c->x509) {
        put_x509(c);
    }
    put_tokens(c);
    if (helper_text(c, JWT_BUNDLE_FILE_NAME)[0] != '\0') {
        put_file(c, c->at[JWT_BUNDLE_FILE_NAME], "what: jwt-bundles");
    }
    check_names(c);
}

/* --- modes ------------------------------------------------------------------------------------ */
struct modes {
    uint64_t cert, key, token, bundle;
};

static void check_mode(struct helper *c, enum key k, uint64_t mode, bool secret)
{
    const struct hcl_node *n = c->at[k];
    uint64_t never = secret ? 0137 : 0133;

    if (n == NULL || ((mode & never) == 0 && mode <= 0777 && (mode & 0400) != 0)) {
        return;
    }
    helper_refuse(c, n, "'%s' is %04o%s: %s", n->key, (unsigned)mode,
                  n->text[0] != '0' ? ", since it is written without a 0 in front" : "",
                  (mode & 07) != 0 && secret
                      ? "keys and tokens are never readable by everybody; give them a group, and "
                        "say their mode with --key-mode 0440"
                      : "files are read by their readers, and nothing else");
}

static void check_modes(struct helper *c, const struct modes *m, bool bundle)
{
    bool tokens = helper_tokens(c) > 0;

    if (c->x509) {
        check_mode(c, CERT_FILE_MODE, m->cert, false);
    } else if (bundle) {
        check_mode(c, JWT_BUNDLE_FILE_MODE, m->bundle, false);
    }
    if (c->options->key_mode != 0) {
        return;
    }
    if (c->x509) {
        check_mode(c, KEY_FILE_MODE, m->key, true);
    }
    if (tokens) {
        check_mode(c, JWT_SVID_FILE_MODE, m->token, true);
    }
    if (c->x509 && tokens && m->key != m->token) {
        helper_refuse(
            c, c->at[JWT_SVID_FILE_MODE] != NULL ? c->at[JWT_SVID_FILE_MODE] : c->at[KEY_FILE_MODE],
            "'key_file_mode' and 'jwt_svid_file_mode' differ (%04o, %04o): keys and tokens of "
            "an output have one mode; say it with --key-mode MODE, or write them to two "
            "directories",
            (unsigned)m->key, (unsigned)m->token);
    }
}

void helper_put_modes(struct helper *c)
{
    const struct modes m = {
        .cert = helper_integer(c, c->at[CERT_FILE_MODE], HELPER_CERT_MODE),
        .key = helper_integer(c, c->at[KEY_FILE_MODE], HELPER_SECRET_MODE),
        .token = helper_integer(c, c->at[JWT_SVID_FILE_MODE], HELPER_SECRET_MODE),
        .bundle = helper_integer(c, c->at[JWT_BUNDLE_FILE_MODE], HELPER_SECRET_MODE),
    };
    bool bundle = helper_text(c, JWT_BUNDLE_FILE_NAME)[0] != '\0';
    uint64_t secret = c->options->key_mode != 0 ? c->options->key_mode : c->x509 ? m.key : m.token;

    check_modes(c, &m, bundle);
    if (c->x509 && bundle && m.bundle != m.cert) {
        helper_note(c, c->at[JWT_BUNDLE_FILE_NAME],
                    "'%s' has the mode of 'cert_file_mode' (%04o), as all that is public",
                    helper_text(c, JWT_BUNDLE_FILE_NAME), (unsigned)m.cert);
    }
    helper_put(c, "    mode: '%04o'\n    public_mode: '%04o'\n", (unsigned)secret & 0777,
               (unsigned)(c->x509 || !bundle ? m.cert : m.bundle) & 0777);
}
