/* after: `after` and `verify` of an output in a Rotate file: what is done after its files have
 * changed, and where it is asked whether the new certificate is served. docs/rotation-actions.md.
 */
#include <postern/conf.h>

#include <grp.h>
#include <postern/mem.h>
#include <pwd.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>

#include "after_priv.h"
#include "config_priv.h"

enum {
    ACTIONS_MAX = 16,
    ARGV_MAX = 64,
    ARGV_BYTES_MAX = 16384,
    UNIT_MAX = 255,
    VERIFY_MS = 30000,
};

/* --- words ------------------------------------------------------------------------------------ */
/* None that would end every process, or that no process can take. */
static const char *const words_signal[] = {"HUP",  "USR1", "USR2", "WINCH", "INT",
                                           "QUIT", "TERM", "CONT", "ALRM",  NULL};
static const int signals[] = {SIGHUP,  SIGUSR1, SIGUSR2, SIGWINCH, SIGINT,
                              SIGQUIT, SIGTERM, SIGCONT, SIGALRM};
static const char *const words_mounts[] = {"own", "any", NULL};
static const char *const words_if_failed[] = {"stop", "continue", NULL};
static const char *const verbs[CONF_N_SYSTEMD_VERBS] = {
    "reload", "restart", "try-reload-or-restart", "reload-or-restart"};
static const char *const kinds[] = {"signal", "command", "systemd", "http"};
enum { N_KINDS = sizeof(kinds) / sizeof(kinds[0]) };

const char *conf_after_kind_name(enum conf_after_kind kind)
{
    return kinds[kind];
}

const char *conf_systemd_verb_name(enum conf_systemd_verb verb)
{
    return verbs[verb];
}

const char *conf_after_target(const struct conf_after *a)
{
    switch (a->kind) {
    case CONF_AFTER_SIGNAL:
        return a->signal.child      ? "the child"
               : a->signal.pid_file ? a->signal.pid_file
                                    : a->signal.executable;
    case CONF_AFTER_COMMAND:
        return a->command.argv.items[0];
    case CONF_AFTER_SYSTEMD:
        return a->systemd.units[a->systemd.verb];
    case CONF_AFTER_HTTP:
    default:
        return a->http.url_text;
    }
}

/* --- signal ----------------------------------------------------------------------------------- */
static void check_signal(struct context *c, const struct node *map, void *value)
{
    struct conf_after *a = value;
    int n_targets = (node_get(map, "pid_file") != NULL) + (node_get(map, "pid") != NULL) +
                    (node_get(map, "child") != NULL);
    const struct node *executable = node_get(map, "executable");

    a->signal.present = true;
    a->signal.signo = signals[a->signal.word];
    if (n_targets != 1) {
        report(c, map, "one of pid_file, pid and child", NULL, "'signal' names %s",
               n_targets == 0 ? "no process" : "its process in two ways");
    } else if (node_get(map, "child") != NULL && !a->signal.child) {
        report(c, node_get(map, "child"), "true", "leave the key out otherwise",
               "'child' is false");
    } else if (a->signal.child && executable != NULL) {
        report(c, executable->key, NULL, "remove it: the child is known by itself",
               "'executable' of the child");
    } else if (a->signal.child && node_get(map, "mounts") != NULL) {
        report(c, node_get(map, "mounts")->key, NULL, "remove it: the child is known by itself",
               "'mounts' of the child");
    } else if (!a->signal.child && executable == NULL) {
        report(c, map, "executable: the program that the process runs",
               "a number alone may be anybody's by then", "'signal' names no executable");
    }
}

static const struct field fields_signal[] = {
    {.name = "pid_file",
     .type = TYPE_PATH,
     AT(struct conf_after, signal.pid_file),
     .doc = "The file with the process's number, read anew each time. It has to belong to root, to "
            "our own user, or to the user of the process; only its owner may write to it."},
    {.name = "pid",
     .type = TYPE_UINT,
     .min = 1,
     .max = 4194304,
     AT(struct conf_after, signal.pid),
     .doc = "The number itself: for a process whose number is known, such as 1 in a container."},
    {.name = "child",
     .type = TYPE_BOOL,
     AT(struct conf_after, signal.child),
     .doc = "`true`: the supervised child of `postern rotate FILE -- CMD`."},
    {.name = "signal",
     .type = TYPE_WORD,
     .words = words_signal,
     AT(struct conf_after, signal.word),
     .def = "HUP",
     .doc = "Which one."},
    {.name = "executable",
     .type = TYPE_PATH,
     AT(struct conf_after, signal.executable),
     .doc = "The program that the process has to run, or it gets no signal. A must with `pid_file` "
            "and `pid`."},
    {.name = "mounts",
     .type = TYPE_WORD,
     .words = words_mounts,
     AT(struct conf_after, signal.any_mounts),
     .def = "own",
     .doc = "`own`: it runs the very file that `executable` is here. `any`: or one that has this "
            "path where the process lives: a container that shares its processes with ours, and "
            "whose root is believed."},
};
static const struct table table_signal = {
    .name = "signal", FIELDS(fields_signal), .check = check_signal};

/* --- systemd ---------------------------------------------------------------------------------- */
static bool check_unit(struct context *c, const struct field *f, const struct node *n)
{
    for (size_t i = 0; i < n->text.n; i++) {
        char ch = n->text.p[i];
        bool alnum =
            (ch >= 'a' && ch <= 'z') || (ch >= 'A' && ch <= 'Z') || (ch >= '0' && ch <= '9');
        if (!alnum && (i == 0 || strchr(":_.@\\-", ch) == NULL)) {
            value_fail(c, f, n, NULL, "which is no unit's name");
            return false;
        }
    }
    return true;
}

static void check_systemd(struct context *c, const struct node *map, void *value)
{
    struct conf_after *a = value;
    int n = 0;

    a->systemd.present = true;
    for (int i = 0; i < CONF_N_SYSTEMD_VERBS; i++) {
        if (node_get(map, verbs[i]) != NULL) {
            a->systemd.verb = (enum conf_systemd_verb)i;
            n++;
        }
    }
    if (n != 1) {
        report(c, map, "one of reload, restart, try-reload-or-restart and reload-or-restart", NULL,
               n == 0 ? "'systemd' says nothing to do"
                      : "'systemd' says more than one thing to do");
    }
}

#define UNIT_FIELD(verb_name, verb_index, text)                                                    \
    {.name = (verb_name),                                                                          \
     .type = TYPE_TEXT,                                                                            \
     .min = 1,                                                                                     \
     .max = UNIT_MAX,                                                                              \
     .check = check_unit,                                                                          \
     AT(struct conf_after, systemd.units[verb_index]),                                             \
     .doc = (text)}
static const struct field fields_systemd[] = {
    UNIT_FIELD("reload", CONF_SYSTEMD_RELOAD, "The unit to reload."),
    UNIT_FIELD("restart", CONF_SYSTEMD_RESTART, "The unit to restart."),
    UNIT_FIELD("try-reload-or-restart", CONF_SYSTEMD_TRY_RELOAD_OR_RESTART,
               "The unit to reload, or restart where it cannot; nothing if it does not run."),
    UNIT_FIELD("reload-or-restart", CONF_SYSTEMD_RELOAD_OR_RESTART,
               "The unit to reload, or restart where it cannot; started if it does not run."),
    {.name = "systemctl",
     .type = TYPE_PATH,
     AT(struct conf_after, systemd.systemctl),
     .def = "/usr/bin/systemctl",
     .doc = "The program that asks the service manager."},
};
static const struct table table_systemd = {
    .name = "systemd", FIELDS(fields_systemd), .check = check_systemd};

/* --- shared ----------------------------------------------------------------------------------- */
bool after_check_url(struct context *c, const struct field *f, const struct node *n)
{
    struct conf_url url;
    const char *why = conf_url_parse(n->text, &url);
    if (why != NULL) {
        value_fail(c, f, n, NULL, why);
        return false;
    }
    return true;
}

size_t after_words_size(const struct conf_words *w)
{
    size_t size = 0;
    for (size_t i = 0; i < w->n; i++) {
        size += w->items[i] != NULL ? strlen(w->items[i]) + 1 : 0; /* one that failed */
    }
    return size;
}

/* --- an action -------------------------------------------------------------------------------- */
static void find_user(struct context *c, const struct node *n, struct conf_after *a)
{
    char space[16384];
    struct passwd pw;
    struct passwd *found = NULL;
    struct shown s;
    uint64_t number;

    a->command.has_user = true;
    (void)snprintf(a->command.home, sizeof(a->command.home), "/");
    if (str_to_u64(n->text, UINT32_MAX - 1, &number)) {
        a->command.uid = (uid_t)number;
        a->command.gid = (gid_t)number;
    } else if (getpwnam_r(a->command.user, &pw, space, sizeof(space), &found) != 0 ||
               found == NULL) {
        report(c, n, "a user of this machine, or a number", NULL, "no such user %s",
               show(&s, n->text));
    } else {
        a->command.uid = pw.pw_uid;
        a->command.gid = pw.pw_gid;
        (void)snprintf(a->command.home, sizeof(a->command.home), "%s", pw.pw_dir);
    }
}

static void find_group(struct context *c, const struct node *n, struct conf_after *a)
{
    char space[16384];
    struct group gr;
    struct group *found = NULL;
    struct shown s;
    uint64_t number;

    if (str_to_u64(n->text, UINT32_MAX - 1, &number)) {
        a->command.gid = (gid_t)number;
    } else if (getgrnam_r(a->command.group, &gr, space, sizeof(space), &found) != 0 ||
               found == NULL) {
        report(c, n, "a group of this machine, or a number", NULL, "no such group %s",
               show(&s, n->text));
    } else {
        a->command.gid = gr.gr_gid;
    }
}

static void check_command(struct context *c, const struct node *map, struct conf_after *a)
{
    const struct node *user = node_get(map, "user");
    const struct node *group = node_get(map, "group");
    const struct node *argv = node_get(map, "command");

    if (argv == NULL) {
        const struct node *stray = user != NULL ? user : group;
        if (stray != NULL) {
            report(c, stray->key, NULL, "remove it", "%s without a command",
                   user != NULL ? "'user'" : "'group'");
        }
        return;
    }
    if (a->command.argv.n > 0 && a->command.argv.items[0] != NULL &&
        a->command.argv.items[0][0] != '/') {
        report(c, argv, "the program's absolute path first", "there is no shell and no PATH here",
               "'command' begins with a relative path");
    }
    if (a->command.argv.n > ARGV_MAX || after_words_size(&a->command.argv) > ARGV_BYTES_MAX) {
        report(c, argv, NULL, NULL, "more than %d words, or %d bytes", ARGV_MAX, ARGV_BYTES_MAX);
    }
    if (user != NULL && a->command.user != NULL) {
        find_user(c, user, a);
    }
    if (group != NULL && user == NULL) {
        report(c, group->key, "user, too", NULL, "'group' without 'user'");
    } else if (group != NULL && a->command.group != NULL) {
        find_group(c, group, a);
    }
}

static void check_action(struct context *c, const struct node *map, void *value)
{
    struct conf_after *a = value;
    int n = 0;

    for (int i = 0; i < N_KINDS; i++) {
        if (node_get(map, kinds[i]) != NULL) {
            a->kind = (enum conf_after_kind)i;
            n++;
        }
    }
    if (n != 1) {
        report(c, map, "one of signal, command, systemd and http",
               n > 1 ? "make two elements of it" : NULL, "an action that says %s",
               n == 0 ? "nothing to do" : "more than one thing to do");
    }
    check_command(c, map, a);
}

static const struct field fields_action[] = {
    {.name = "signal",
     .type = TYPE_MAP,
     .table = &table_signal,
     .def_doc = "none",
     .doc = "Sends a signal to a process that is known for sure."},
    {.name = "command",
     .type = TYPE_TEXT,
     LIST_AT(struct conf_after, command.argv.items, command.argv.n),
     .doc = "Runs a program: its absolute path and its arguments, as they are. No shell. With "
            "`POSTERN_OUTPUT`, `POSTERN_DIRECTORY` and `POSTERN_GENERATION` in an environment that "
            "else holds `PATH`, `HOME` and `LANG` only."},
    {.name = "systemd",
     .type = TYPE_MAP,
     .table = &table_systemd,
     .def_doc = "none",
     .doc = "Has the service manager reload or restart a unit."},
    {.name = "http", .type = TYPE_MAP, .table = &table_after_http, .doc = "Makes an HTTP request."},
    {.name = "user",
     .type = TYPE_TEXT,
     .min = 1,
     .max = 64,
     AT(struct conf_after, command.user),
     .def_doc = "who started us",
     .doc = "Whom the command runs as, by name or number. Needs root."},
    {.name = "group",
     .type = TYPE_TEXT,
     .min = 1,
     .max = 64,
     AT(struct conf_after, command.group),
     .def_doc = "the user's own",
     .doc = "The command's only group."},
    {.name = "timeout",
     .type = TYPE_DURATION_MS,
     .min = 100,
     .max = 3600000,
     AT(struct conf_after, timeout_ms),
     .def = "30s",
     .doc = "For one try. A command that takes longer is ended with all of its process group."},
    {.name = "attempts",
     .type = TYPE_UINT,
     .min = 1,
     .max = 100,
     AT(struct conf_after, attempts),
     .def = "5",
     .doc = "How often it is tried in all. A newer generation ends the tries of an older one."},
    {.name = "backoff",
     .type = TYPE_DURATION_MS,
     .min = 10,
     .max = 60000,
     AT(struct conf_after, backoff_ms),
     .def = "1s",
     .doc = "Before the second try; doubled before each further one, up to a minute, a quarter "
            "more or less."},
    {.name = "if_failed",
     .type = TYPE_WORD,
     .words = words_if_failed,
     AT(struct conf_after, if_failed),
     .def = "stop",
     .doc = "When all tries have failed. `stop`: the actions behind it are skipped. `continue`: "
            "they are not."},
};
const struct table table_action = {.name = "an action",
                                   .size = sizeof(struct conf_after),
                                   FIELDS(fields_action),
                                   .check = check_action};

void after_check(struct context *c, const struct node *list, size_t n_actions)
{
    if (n_actions > ACTIONS_MAX) {
        report(c, list, NULL, "put them into one program", "more than %d actions", ACTIONS_MAX);
    }
}

/* --- verify ----------------------------------------------------------------------------------- */
static bool check_server_name(struct context *c, const struct field *f, const struct node *n)
{
    for (size_t i = 0; i < n->text.n; i++) {
        if (n->text.p[i] <= ' ' || n->text.p[i] >= 0x7f) {
            value_fail(c, f, n, NULL, "which is no host name");
            return false;
        }
    }
    return true;
}

static void check_verify(struct context *c, const struct node *map, void *value)
{
    struct conf_verify *v = value;
    const struct node *at = map->kind == NODE_MAP ? node_get(map, "url") : map;

    v->present = true;
    if (at == NULL || v->url_text == NULL || conf_url_parse(str_of(v->url_text), &v->url) != NULL) {
        return; /* reported */
    }
    if (conf_url_is_http(&v->url)) {
        report(c, at, "tls://HOST:PORT", "an HTTP server speaks TLS on its https port",
               "'verify' with an HTTP URL");
    }
}

static const struct field fields_verify[] = {
    {.name = "url",
     .type = TYPE_TEXT,
     .required = true,
     .max = 512,
     .check = after_check_url,
     .expected = "tls://HOST:PORT, tls+postgres://..., tls+mysql://..., or tls://unix:/SOCKET",
     AT(struct conf_verify, url_text),
     .doc = "`tls://HOST:PORT`, `tls+postgres://HOST[:PORT]`, `tls+mysql://HOST[:PORT]`; "
            "`unix:/SOCKET` in the place of host and port."},
    {.name = "server_name",
     .type = TYPE_TEXT,
     .min = 1,
     .max = 253,
     .check = check_server_name,
     AT(struct conf_verify, server_name),
     .def_doc = "the URL's host, if it is a name",
     .doc = "The server name to ask for (SNI)."},
    {.name = "timeout",
     .type = TYPE_DURATION_MS,
     .min = 100,
     .max = 3600000,
     AT(struct conf_verify, timeout_ms),
     .def = "30s",
     .doc = "How long the new certificate is waited for."},
};
const struct table table_verify = {.name = "verify",
                                   .size = sizeof(struct conf_verify),
                                   FIELDS(fields_verify),
                                   .check = check_verify};

bool verify_scalar(struct context *c, const struct field *f, const struct node *n, void *value)
{
    struct conf_verify *v = value;

    (void)f;
    if (!after_check_url(c, &fields_verify[0], n)) {
        return false;
    }
    v->url_text = mem_must_strndup(n->text.p, n->text.n);
    v->timeout_ms = VERIFY_MS;
    check_verify(c, n, v);
    return true;
}
