/* convert: spiffe-helper's keys, one by one, into a Rotate file. docs/spiffe-helper.md has the
 * table. */
#include <postern/spiffe_helper.h>

#include <postern/mem.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "hcl_priv.h"

enum key {
    AGENT_ADDRESS,
    CMD,
    CMD_ARGS,
    PID_FILE_NAME,
    CERT_DIR,
    DAEMON_MODE,
    ADD_INTERMEDIATES_TO_BUNDLE,
    RENEW_SIGNAL,
    SVID_FILE_NAME,
    SVID_KEY_FILE_NAME,
    SVID_BUNDLE_FILE_NAME,
    JWT_SVIDS,
    JWT_BUNDLE_FILE_NAME,
    INCLUDE_FEDERATED_DOMAINS,
    CERT_FILE_MODE,
    KEY_FILE_MODE,
    JWT_BUNDLE_FILE_MODE,
    JWT_SVID_FILE_MODE,
    HINT,
    OMIT_EXPIRED,
    HEALTH_CHECKS,
    N_KEYS,
};
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

/* Its own defaults. */
#define DEFAULT_SOCKET "/tmp/spire-agent/public/api.sock"
enum {
    DEFAULT_CERT_MODE = 0644,
    DEFAULT_SECRET_MODE = 0600,
    DEFAULT_HEALTH_PORT = 8081,
    ARGS_MAX = 60,      /* a command of ours takes 64 words, */
    ARGS_BYTES = 12000, /* and 16 KiB of them, */
    WORD_MAX = 4000,    /* none longer than this */
    TOKENS_MAX = 60,
    PATH_LEN_MAX = 3000,
    NAME_LEN_MAX = 200,
};

struct args {
    char *items[ARGS_MAX];
    size_t n;
};

struct convert {
    const struct spiffe_helper_options *options;
    spiffe_helper_tell_fn tell;
    void *arg;
    const struct hcl_node *at[N_KEYS]; /* NULL: not in the file */
    bool refused;
    bool x509, daemon;
    struct args args; /* of cmd */
    struct buf *out;
    bool full;
};

/* --- telling ---------------------------------------------------------------------------------- */
static void tell(struct convert *c, bool refused, const struct hcl_node *n, const char *fmt,
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

static void refuse(struct convert *c, const struct hcl_node *n, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));
static void refuse(struct convert *c, const struct hcl_node *n, const char *fmt, ...)
{
    va_list ap;

    va_start(ap, fmt);
    tell(c, true, n, fmt, ap);
    va_end(ap);
}

static void note(struct convert *c, const struct hcl_node *n, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));
static void note(struct convert *c, const struct hcl_node *n, const char *fmt, ...)
{
    va_list ap;

    va_start(ap, fmt);
    tell(c, false, n, fmt, ap);
    va_end(ap);
}

/* --- values ----------------------------------------------------------------------------------- */
/* "" where the key is not there, or empty: both are the same over there. */
static const char *text_of(const struct convert *c, enum key k)
{
    return c->at[k] != NULL && c->at[k]->text != NULL ? c->at[k]->text : "";
}

static bool truth_of(const struct convert *c, enum key k, bool absent)
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

static uint64_t integer_of(struct convert *c, const struct hcl_node *n, uint64_t absent)
{
    uint64_t v = 0;

    if (n == NULL) {
        return absent;
    }
    if (!parse_integer(n->text, &v)) {
        refuse(c, n, "'%s' is no whole number of at most 32 bits", n->key);
    }
    return v == 0 ? absent : v;
}

/* What stands in YAML between single quotes. */
static bool is_plain(const char *text)
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

static void collect(struct convert *c, const struct hcl_node *root)
{
    static const char *const types[] = {"a string", "a number", "true or false",
                                        "a list of objects", "an object"};

    for (const struct hcl_node *n = root->child; n != NULL; n = n->next) {
        size_t k = 0;

        while (k < N_KEYS && strcmp(KEYS[k].name, n->key) != 0) {
            k++;
        }
        if (k == N_KEYS) {
            refuse(c, n, "'%s' is no key of spiffe-helper's", n->key);
        } else if (!check_type(n, KEYS[k].type)) {
            refuse(c, n, "'%s' is not %s", n->key, types[KEYS[k].type]);
        } else if (n->text != NULL && !is_plain(n->text)) {
            refuse(c, n, "'%s' holds control characters, or what is not ASCII", n->key);
        } else {
            c->at[k] = n;
        }
    }
}

/* --- writing ---------------------------------------------------------------------------------- */
static void put(struct convert *c, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
static void put(struct convert *c, const char *fmt, ...)
{
    va_list ap;

    va_start(ap, fmt);
    c->full |= !buf_vprintf(c->out, fmt, ap);
    va_end(ap);
}

static void put_quoted(struct convert *c, const char *text)
{
    put(c, "'");
    for (; *text != '\0'; text++) {
        put(c, "%s%c", *text == '\'' ? "'" : "", *text);
    }
    put(c, "'");
}

/* A path as it is from anywhere. */
static void put_path(struct convert *c, const char *path)
{
    mem_autofree char *whole = path[0] == '/'
                                   ? mem_must_strdup(path)
                                   : mem_must_printf("%s/%s", c->options->directory, path);

    put_quoted(c, whole);
}

/* --- cmd and its arguments -------------------------------------------------------------------- */
/* As Go's CSV reader has it, with a space for the comma: quotes around a field, doubled within. */
static void split_args(struct convert *c)
{
    const struct hcl_node *n = c->at[CMD_ARGS];
    const char *p = text_of(c, CMD_ARGS);
    mem_autofree char *word = mem_must_calloc(strlen(p) + 1, 1);
    size_t bytes = 0;
    bool last_blank = false;

    while (*p != '\0') {
        size_t len = 0;
        bool quoted = *p == '"';

        if (c->args.n == ARGS_MAX) {
            refuse(c, n, "'cmd_args' has more than %d words", ARGS_MAX);
            return;
        }
        for (p += quoted ? 1 : 0; *p != '\0' && (quoted ? true : *p != ' '); p++) {
            if (*p == '"' && !quoted) {
                refuse(c, n, "'cmd_args' has a quote inside of a word");
                return;
            }
            if (*p == '"') {
                if (p[1] != '"') {
                    break;
                }
                p++;
            }
            word[len++] = *p;
        }
        if (quoted && (*p != '"' || (p[1] != ' ' && p[1] != '\0'))) {
            refuse(c, n, "'cmd_args' has a quote that is not ended, or not at the end of a word");
            return;
        }
        bytes += len + 1;
        if (len > WORD_MAX || bytes > ARGS_BYTES) {
            refuse(c, n, "'cmd_args' is longer than %d bytes, or a word of it than %d", ARGS_BYTES,
                   WORD_MAX);
            return;
        }
        if (len == 0) {
            refuse(c, n, "'cmd_args' has an empty word (two spaces in a row are one)");
            return;
        }
        c->args.items[c->args.n++] = mem_must_strndup(word, len);
        p += quoted ? 1 : 0;
        if (*p == ' ') {
            p++;
            last_blank = *p == '\0';
        }
        if (last_blank) {
            refuse(c, n, "'cmd_args' ends with a space, which means an empty word");
        }
    }
}

/* Without SIG; NULL: none of those that may be sent. */
static const char *signal_word(struct convert *c)
{
    static const char *const words[] = {"HUP",  "USR1", "USR2", "WINCH", "INT",
                                        "QUIT", "TERM", "CONT", "ALRM"};
    const char *name = text_of(c, RENEW_SIGNAL);

    for (size_t i = 0; i < sizeof(words) / sizeof(words[0]); i++) {
        if (strncmp(name, "SIG", 3) == 0 && strcmp(name + 3, words[i]) == 0) {
            return words[i];
        }
    }
    refuse(c, c->at[RENEW_SIGNAL], "'renew_signal' %.40s is none that a process is sent to reload",
           name);
    return NULL;
}

/* A command that is signalled later has to be one that goes on; one that is not reloads. */
static bool is_child(const struct convert *c)
{
    return text_of(c, CMD)[0] != '\0' && text_of(c, RENEW_SIGNAL)[0] != '\0';
}

static void put_shell_word(struct convert *c, const char *text)
{
    put(c, " '");
    for (; *text != '\0'; text++) {
        if (*text == '\'') {
            put(c, "'\\''");
        } else {
            put(c, "%c", *text);
        }
    }
    put(c, "'");
}

static void put_command(struct convert *c)
{
    const char *cmd = text_of(c, CMD);

    put(c, "      - command: [");
    if (strchr(cmd, '/') == NULL) {
        put(c, "/usr/bin/env, "); /* it is looked for in PATH */
        put_quoted(c, cmd);
    } else {
        put_path(c, cmd);
    }
    for (size_t i = 0; i < c->args.n; i++) {
        put(c, ", ");
        put_quoted(c, c->args.items[i]);
    }
    put(c, "]\n        if_failed: continue\n");
    note(c, c->at[CMD],
         "'cmd' is run after each change; without 'renew_signal' it is taken for one "
         "that reloads and ends");
}

static void put_child(struct convert *c, const char *word)
{
    put(c, "      - signal: {child: true, signal: %s}\n        if_failed: continue\n", word);
    note(c, c->at[CMD],
         "'cmd' is the supervised child: run it as the first line of the file says. "
         "When it ends, so does the daemon, with its status; there it would be "
         "started again at the next renewal");
}

static void put_pid_file(struct convert *c, const char *word)
{
    if (c->options->executable == NULL) {
        refuse(c, c->at[PID_FILE_NAME],
               "'pid_file_name': a number alone may be anybody's by then; name the program that "
               "the process runs, with --executable PATH");
        return;
    }
    put(c, "      - signal: {pid_file: ");
    put_path(c, text_of(c, PID_FILE_NAME));
    put(c, ", executable: ");
    put_quoted(c, c->options->executable);
    put(c, ", signal: %s}\n        if_failed: continue\n", word);
}

static void check_actions(struct convert *c)
{
    bool has_pid_file = text_of(c, PID_FILE_NAME)[0] != '\0';

    if (text_of(c, CMD)[0] == '\0' && text_of(c, CMD_ARGS)[0] != '\0') {
        refuse(c, c->at[CMD_ARGS], "'cmd_args' without 'cmd'");
    }
    if (has_pid_file && text_of(c, RENEW_SIGNAL)[0] == '\0') {
        refuse(c, c->at[PID_FILE_NAME], "'pid_file_name' without 'renew_signal'");
    }
    if (!c->daemon && has_pid_file) {
        refuse(c, c->at[PID_FILE_NAME],
               "'pid_file_name' with 'daemon_mode = false', which spiffe-helper refuses as well");
    }
    if (text_of(c, CMD)[0] != '\0') {
        split_args(c);
    }
}

static void put_actions(struct convert *c)
{
    bool has_cmd = text_of(c, CMD)[0] != '\0', has_pid_file = text_of(c, PID_FILE_NAME)[0] != '\0';
    const char *word = NULL;

    if (!c->daemon && has_cmd) {
        note(c, c->at[CMD], "'cmd' is not run with 'daemon_mode = false', as there");
    }
    if (!c->daemon || (!has_cmd && !has_pid_file)) {
        return;
    }
    if (text_of(c, RENEW_SIGNAL)[0] != '\0') {
        word = signal_word(c);
    }
    put(c, "    after:\n");
    if (is_child(c) && word != NULL) {
        put_child(c, word);
    } else if (has_cmd) {
        put_command(c);
    }
    if (has_pid_file && word != NULL) {
        put_pid_file(c, word);
    }
}

/* --- files ------------------------------------------------------------------------------------ */
static bool check_name(struct convert *c, const struct hcl_node *n)
{
    const char *name = n->text;

    if (strchr(name, '/') != NULL || strcmp(name, ".") == 0 || strncmp(name, "..", 2) == 0 ||
        strlen(name) > NAME_LEN_MAX) {
        refuse(c, n, "'%s' is not the plain name of a file in cert_dir", n->key);
        return false;
    }
    return true;
}

static void put_file(struct convert *c, const struct hcl_node *n, const char *rest)
{
    if (check_name(c, n)) {
        put(c, "      - {name: ");
        put_quoted(c, n->text);
        put(c, ", %s}\n", rest);
    }
}

static void put_x509(struct convert *c)
{
    char bundle[120];
    bool add = truth_of(c, ADD_INTERMEDIATES_TO_BUNDLE, false);
    bool all = truth_of(c, INCLUDE_FEDERATED_DOMAINS, false);

    (void)snprintf(bundle, sizeof(bundle), "what: bundle, trust: %s, add_intermediates: %s",
                   all ? "all" : "own", add ? "true" : "false");
    put_file(c, c->at[SVID_FILE_NAME], add ? "what: leaf" : "what: chain");
    put_file(c, c->at[SVID_KEY_FILE_NAME], "what: key");
    put_file(c, c->at[SVID_BUNDLE_FILE_NAME], bundle);
}

static const struct hcl_node *find(const struct hcl_node *object, const char *key)
{
    const struct hcl_node *n = object->child;

    while (n != NULL && strcmp(n->key, key) != 0) {
        n = n->next;
    }
    return n;
}

static bool is_word_list(const struct hcl_node *list)
{
    for (const struct hcl_node *n = list->child; n != NULL; n = n->next) {
        if (n->kind != HCL_STRING || n->text[0] == '\0' || !is_plain(n->text)) {
            return false;
        }
    }
    return list->kind == HCL_LIST;
}

static bool is_word(const struct hcl_node *n)
{
    return n != NULL && n->kind == HCL_STRING && n->text[0] != '\0' && is_plain(n->text);
}

static void put_token(struct convert *c, const struct hcl_node *object)
{
    const struct hcl_node *audience = NULL, *extra = NULL, *name = NULL;

    for (const struct hcl_node *n = object->child; n != NULL; n = n->next) {
        if (strcmp(n->key, "jwt_audience") != 0 && strcmp(n->key, "jwt_extra_audiences") != 0 &&
            strcmp(n->key, "jwt_svid_file_name") != 0) {
            refuse(c, n, "'%s' is no key of spiffe-helper's in 'jwt_svids'", n->key);
        }
    }
    audience = find(object, "jwt_audience");
    extra = find(object, "jwt_extra_audiences");
    name = find(object, "jwt_svid_file_name");
    if (!is_word(audience) || !is_word(name) || (extra != NULL && !is_word_list(extra))) {
        refuse(c, object,
               "'jwt_svids' needs 'jwt_audience' and 'jwt_svid_file_name', both strings, and "
               "'jwt_extra_audiences' is a list of strings");
        return;
    }
    if (!check_name(c, name)) {
        return;
    }
    put(c, "      - {name: ");
    put_quoted(c, name->text);
    put(c, ", what: jwt, audience: [");
    put_quoted(c, audience->text);
    for (const struct hcl_node *n = extra != NULL ? extra->child : NULL; n != NULL; n = n->next) {
        put(c, ", ");
        put_quoted(c, n->text);
    }
    put(c, "]}\n");
}

static size_t n_tokens(const struct convert *c)
{
    const struct hcl_node *list = c->at[JWT_SVIDS];
    size_t n = 0;

    for (const struct hcl_node *t = list != NULL ? list->child : NULL; t != NULL; t = t->next) {
        n++;
    }
    return list != NULL && list->kind == HCL_OBJECT ? 1 : n;
}

static void put_tokens(struct convert *c)
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
            refuse(c, n, "'jwt_svids' holds something else than objects");
        }
    }
}

/* One output has one name once: the links would be the same. */
static void check_names(struct convert *c)
{
    static const enum key with_name[] = {SVID_FILE_NAME, SVID_KEY_FILE_NAME, SVID_BUNDLE_FILE_NAME};
    const struct hcl_node *seen[TOKENS_MAX + 3];
    const struct hcl_node *tokens = c->at[JWT_SVIDS];
    size_t n_seen = 0;

    for (size_t i = 0; c->x509 && i < sizeof(with_name) / sizeof(with_name[0]); i++) {
        seen[n_seen++] = c->at[with_name[i]];
    }
    for (const struct hcl_node *t = tokens != NULL && tokens->kind == HCL_LIST ? tokens->child
                                                                               : NULL;
         t != NULL && n_seen < TOKENS_MAX + 3; t = t->next) {
        const struct hcl_node *name = t->kind == HCL_OBJECT ? find(t, "jwt_svid_file_name") : NULL;

        if (is_word(name)) {
            seen[n_seen++] = name;
        }
    }
    for (size_t i = 1; i < n_seen; i++) {
        for (size_t k = 0; k < i; k++) {
            if (strcmp(seen[i]->text, seen[k]->text) == 0) {
                refuse(c, seen[i], "two files are called '%.60s'", seen[i]->text);
                k = i;
            }
        }
    }
}

/* --- modes ------------------------------------------------------------------------------------ */
static void put_modes(struct convert *c)
{
    uint64_t cert = integer_of(c, c->at[CERT_FILE_MODE], DEFAULT_CERT_MODE);
    uint64_t key = integer_of(c, c->at[KEY_FILE_MODE], DEFAULT_SECRET_MODE);
    uint64_t token = integer_of(c, c->at[JWT_SVID_FILE_MODE], DEFAULT_SECRET_MODE);
    bool tokens = n_tokens(c) > 0;
    const struct {
        enum key key;
        uint64_t mode, never;
        bool used;
    } all[] = {
        {CERT_FILE_MODE, cert, 0133, c->x509},
        {KEY_FILE_MODE, key, 0137, c->x509},
        {JWT_SVID_FILE_MODE, token, 0137, tokens},
    };

    for (size_t i = 0; i < sizeof(all) / sizeof(all[0]); i++) {
        const struct hcl_node *n = c->at[all[i].key];

        if (n != NULL && all[i].used &&
            ((all[i].mode & all[i].never) != 0 || all[i].mode > 0777 ||
             (all[i].mode & 0400) == 0)) {
            refuse(c, n, "'%s' is %04o%s: %s", n->key, (unsigned)all[i].mode,
                   n->text[0] != '0' ? ", since it is written without a 0 in front" : "",
                   (all[i].mode & 07) != 0 && all[i].never == 0137
                       ? "keys and tokens are never readable by everybody; give them a group"
                       : "files are read by their readers, and nothing else");
        }
    }
    if (c->x509 && tokens && key != token) {
        refuse(c,
               c->at[JWT_SVID_FILE_MODE] != NULL ? c->at[JWT_SVID_FILE_MODE] : c->at[KEY_FILE_MODE],
               "'key_file_mode' and 'jwt_svid_file_mode' differ (%04o, %04o): keys and tokens of "
               "an output have one mode; write them to two directories",
               (unsigned)key, (unsigned)token);
    }
    put(c, "    mode: '%04o'\n    public_mode: '%04o'\n", (unsigned)(c->x509 ? key : token) & 0777,
        (unsigned)(c->x509 ? cert : DEFAULT_CERT_MODE) & 0777);
}

/* --- health ----------------------------------------------------------------------------------- */
static bool is_health_key(const struct hcl_node *n, bool *ret_typed)
{
    static const struct {
        const char *name;
        enum hcl_kind kind;
    } keys[] = {{"listener_enabled", HCL_BOOL},
                {"bind_port", HCL_NUMBER},
                {"liveness_path", HCL_STRING},
                {"readiness_path", HCL_STRING}};

    for (size_t i = 0; i < sizeof(keys) / sizeof(keys[0]); i++) {
        if (strcmp(keys[i].name, n->key) == 0) {
            *ret_typed = n->kind == keys[i].kind;
            return true;
        }
    }
    return false;
}

static void put_health(struct convert *c)
{
    const struct hcl_node *h = c->at[HEALTH_CHECKS];
    const struct hcl_node *enabled, *port;
    uint64_t number;

    if (h == NULL) {
        return;
    }
    for (const struct hcl_node *n = h->child; n != NULL; n = n->next) {
        bool typed = false;

        if (!is_health_key(n, &typed)) {
            refuse(c, n, "'%s' is no key of spiffe-helper's in 'health_checks'", n->key);
            return;
        }
        if (!typed) {
            refuse(c, n, "'%s' in 'health_checks' is of another type", n->key);
            return;
        }
    }
    enabled = find(h, "listener_enabled");
    port = find(h, "bind_port");
    if (enabled == NULL || !enabled->truth || !c->daemon) {
        return;
    }
    number = integer_of(c, port, DEFAULT_HEALTH_PORT);
    if (number > 65535) {
        refuse(c, port, "'bind_port' is no port");
        return;
    }
    put(c, "metrics: {address: '0.0.0.0:%u'}\n", (unsigned)number);
    note(c, h,
         "'health_checks': readiness is GET /ready, whatever 'readiness_path' says; for "
         "liveness ask GET /metrics, which answers as long as the daemon does");
}

/* --- the file --------------------------------------------------------------------------------- */
static void check_sets(struct convert *c)
{
    int n_x509 = (text_of(c, SVID_FILE_NAME)[0] != '\0') +
                 (text_of(c, SVID_KEY_FILE_NAME)[0] != '\0') +
                 (text_of(c, SVID_BUNDLE_FILE_NAME)[0] != '\0');

    c->x509 = n_x509 == 3;
    c->daemon = truth_of(c, DAEMON_MODE, true);
    if (n_x509 != 0 && n_x509 != 3) {
        refuse(c, NULL,
               "of 'svid_file_name', 'svid_key_file_name' and 'svid_bundle_file_name' all "
               "or none have to be there, as spiffe-helper wants it");
    }
    if (text_of(c, JWT_BUNDLE_FILE_NAME)[0] != '\0') {
        refuse(c, c->at[JWT_BUNDLE_FILE_NAME],
               "'jwt_bundle_file_name': its form, key sets in base64 under their trust domains, is "
               "none of ours; a file of 'what: jwks' holds the key set of one domain as it is");
    }
    if (text_of(c, HINT)[0] != '\0' && c->options->spiffe_id == NULL) {
        refuse(c, c->at[HINT],
               "'hint': identities are chosen by their names here; say which, with "
               "--spiffe-id ID");
    }
    if (text_of(c, CERT_DIR)[0] == '\0') {
        refuse(c, c->at[CERT_DIR],
               "'cert_dir' is not there: files would be written to wherever "
               "spiffe-helper was started");
    }
    if (strlen(text_of(c, CERT_DIR)) > PATH_LEN_MAX || strlen(text_of(c, CMD)) > PATH_LEN_MAX ||
        strlen(text_of(c, PID_FILE_NAME)) > PATH_LEN_MAX) {
        refuse(c, NULL, "a path of more than %d bytes", PATH_LEN_MAX);
    }
    if (n_x509 == 0 && n_tokens(c) == 0) {
        refuse(c, NULL, "there is nothing to write: neither an SVID nor tokens");
    }
    if (n_tokens(c) > TOKENS_MAX) {
        refuse(c, c->at[JWT_SVIDS], "more than %d tokens", TOKENS_MAX);
    }
}

static void put_socket(struct convert *c)
{
    const char *address = text_of(c, AGENT_ADDRESS);

    if (address[0] == '\0') {
        note(c, c->at[AGENT_ADDRESS],
             "'agent_address' is not there: %s, or what SPIFFE_ENDPOINT_SOCKET says when "
             "'identity' is taken out",
             DEFAULT_SOCKET);
        address = DEFAULT_SOCKET;
    }
    if (address[0] != '/') {
        refuse(c, c->at[AGENT_ADDRESS], "'agent_address' is no absolute path of a socket");
        return;
    }
    if (strlen(address) > 107) {
        refuse(c, c->at[AGENT_ADDRESS], "'agent_address' is longer than a socket's path can be");
        return;
    }
    put(c, "identity: {socket: ");
    mem_autofree char *unix_socket = mem_must_printf("unix:%s", address);
    put_quoted(c, unix_socket);
    put(c, "}\n");
}

static void put_head(struct convert *c)
{
    put(c, "# Runs as: postern rotate%s FILE", c->daemon ? "" : " --once");
    if (c->daemon && is_child(c)) {
        put(c, " --");
        put_shell_word(c, text_of(c, CMD));
        for (size_t i = 0; i < c->args.n; i++) {
            put_shell_word(c, c->args.items[i]);
        }
    }
    put(c, "\nkind: Rotate\nlevel: 1\n");
}

static void put_all(struct convert *c)
{
    put_head(c);
    put_socket(c);
    put_health(c);
    put(c, "outputs:\n  - name: spiffe-helper\n    directory: ");
    put_path(c, text_of(c, CERT_DIR));
    put(c, "\n    identity: {key: agent");
    if (c->options->spiffe_id != NULL) {
        put(c, ", spiffe_id: ");
        put_quoted(c, c->options->spiffe_id);
    }
    put(c, "}\n");
    put_modes(c);
    put(c, "    omit_expired: %s\n    replace_files: true\n    files:\n",
        truth_of(c, OMIT_EXPIRED, false) ? "true" : "false");
    if (c->x509) {
        put_x509(c);
    }
    put_tokens(c);
    check_names(c);
    put_actions(c);
}

int spiffe_helper_convert(const char *text, size_t len, const struct spiffe_helper_options *options,
                          spiffe_helper_tell_fn tell_fn, void *arg, struct buf *out,
                          struct err *err)
{
    struct buf made = BUF_INIT(SPIFFE_HELPER_OUT_MAX);
    struct convert c = {.options = options, .tell = tell_fn, .arg = arg, .out = &made};
    struct hcl_node *root =
        len <= SPIFFE_HELPER_FILE_MAX ? hcl_parse(options->name, text, len, err) : NULL;
    int r = -1;

    if (len > SPIFFE_HELPER_FILE_MAX) {
        err_set(err, ERR_LIMIT, "%s is larger than %d bytes", options->name,
                SPIFFE_HELPER_FILE_MAX);
    }
    if (root != NULL) {
        collect(&c, root);
        check_sets(&c);
        check_actions(&c);
        if (text_of(&c, CERT_DIR)[0] != '\0') {
            put_all(&c);
        }
        if (c.refused) {
            err_set(err, ERR_UNSUPPORTED, "%s says what cannot be carried over", options->name);
        } else if (c.full || !buf_append_str(out, buf_str(&made))) {
            err_set(err, ERR_LIMIT, "what %s says does not fit", options->name);
        } else {
            r = 0;
        }
    }
    for (size_t i = 0; i < c.args.n; i++) {
        free(c.args.items[i]);
    }
    buf_reset(&made);
    (void)hcl_free(root);
    return r;
}
