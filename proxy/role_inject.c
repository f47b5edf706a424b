/*
 * role_inject: `postern inject` and `postern uninject`: manifests in, manifests out. All files are
 * read first; then the process gives up the file system, and only then it looks at what it read.
 */
#include "role_options.h"
#include "roles_priv.h"

#include <errno.h>
#include <postern/inject.h>
#include <postern/manifest.h>
#include <postern/mem.h>
#include <postern/os.h>
#include <postern/sandbox.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { FILES_MAX = 64 };

/* What is left to do once everything is read. */
static const char *const SYSCALLS[] = {
    "write",        "writev",       "close",       "fstat",      "newfstatat", "brk",
    "munmap",       "mremap",       "madvise",     "futex",      "getrandom",  "clock_gettime",
    "rt_sigaction", "rt_sigreturn", "sigaltstack", "gettid",     "getpid",     "rt_sigprocmask",
    "sched_yield",  "prctl",        "exit",        "exit_group", "lseek",      NULL};

struct source {
    const char *name; /* lent */
    char *text;       /* owned */
    size_t len;
    struct manifest *manifest; /* owned */
};

struct command {
    bool in; /* inject, not uninject */
    bool skip_refused;
    const char *uid, *level, *access; /* of the command line */
    struct inject_options options;
    struct source sources[FILES_MAX];
    size_t n_sources;
    size_t n_refused, n_changed;
    struct buf out;
};

/* --- the command line ------------------------------------------------------------------------- */
static int say(const struct command *c, const struct err *err)
{
    char text[1200];
    fprintf(stderr, "postern %s: %s\n", c->in ? "inject" : "uninject",
            err_text(err, text, sizeof(text)));
    return 2;
}

static bool take_file(void *command, const char *text)
{
    struct command *c = command;
    if (c->n_sources == FILES_MAX) {
        return false;
    }
    c->sources[c->n_sources++].name = text;
    return true;
}

_Static_assert(INJECT_UID == 64700 && FILES_MAX == 64, "the usage says so");
static const struct role_option OPTIONS[] = {
    ROLE_TAKE("-f", "FILE", take_file,
              "YAML or JSON; - (and no -f at all) is standard input;\n64 files at most"),
    ROLE_TEXT("--image", "IMAGE", struct command, options.image, "of the sidecar"),
    ROLE_TEXT("--init-image", "IMAGE", struct command, options.rules_image,
              "of the interception (the same)"),
    ROLE_TEXT("--pull-policy", "POLICY", struct command, options.pull_policy,
              "IfNotPresent, Always or Never (IfNotPresent)"),
    ROLE_TEXT("--proxy-uid", "N", struct command, uid, "what the sidecar runs as (64700)"),
    ROLE_TEXT("--agent-directory", "DIR", struct command, options.agent_dir,
              "on the node, holds the agent's socket (/run/postern)"),
    ROLE_TEXT("--agent-socket", "NAME", struct command, options.agent_socket,
              "in there (agent.sock)"),
    ROLE_TEXT("--cpu", "QUANTITY", struct command, options.cpu, "what the sidecar requests (10m)"),
    ROLE_TEXT("--memory", "QUANTITY", struct command, options.memory, "and of memory (32Mi)"),
    ROLE_TEXT("--cpu-limit", "QUANTITY", struct command, options.cpu_limit,
              "what it may have at most (no limit)"),
    ROLE_TEXT("--memory-limit", "QUANTITY", struct command, options.memory_limit,
              "and of memory (no limit)"),
    ROLE_TEXT("--log-level", "LEVEL", struct command, level, "error, warn, info or debug (info)"),
    ROLE_TEXT("--access-log", "all|denied", struct command, access,
              "which requests are logged (all)"),
    ROLE_FLAG("--classic", struct command, options.classic,
              "an ordinary container, not a native sidecar"),
    ROLE_FLAG("--no-intercept", struct command, options.no_intercept,
              "something else makes the rules"),
    ROLE_FLAG("--ipv4-only", struct command, options.ipv4_only, "leave IPv6 alone"),
    ROLE_FLAG("--strict", struct command, options.strict, "refuse what is otherwise only told"),
    ROLE_FLAG("--skip-refused", struct command, skip_refused, "pass what is refused as it is"),
};
static const struct role_use USES[] = {
    {.command = "uninject",
     .uses = ROLE_USES("uninject [-f FILE|-]..."),
     .options = OPTIONS,
     .n_options = 1},
    {.command = "inject",
     .uses = ROLE_USES("inject --image IMAGE [-f FILE|-]... [OPTIONS]"),
     ROLE_OPTIONS(OPTIONS)},
};

/* Words of the command line that are not texts for the options as they are. */
static int take_words(struct command *c, struct err *err)
{
    uint64_t v = 0;
    if (c->uid != NULL && !str_to_u64(str_of(c->uid), INT32_MAX, &v)) {
        err_set(err, ERR_USAGE, "--proxy-uid %.40s: not a numeric uid", c->uid);
        return err_expected(err, "a number from 1 to %d", INT32_MAX);
    }
    c->options.proxy_uid = c->uid != NULL ? (uint32_t)v : c->options.proxy_uid;
    if (c->level != NULL && !log_level_parse(str_of(c->level), &c->options.log_level)) {
        err_set(err, ERR_USAGE, "--log-level %.40s: no such level", c->level);
        return err_expected(err, "error, warn, info or debug");
    }
    if (c->access != NULL && strcmp(c->access, "all") != 0 && strcmp(c->access, "denied") != 0) {
        err_set(err, ERR_USAGE, "--access-log %.40s: not one of its values", c->access);
        return err_expected(err, "all or denied");
    }
    c->options.access_log = c->access != NULL && strcmp(c->access, "denied") == 0
                                ? CONF_ACCESS_DENIED
                                : CONF_ACCESS_ALL;
    return inject_options_check(&c->options, err);
}

/* False: the process ends with *ret_status. */
static bool take_options(struct command *c, int argc, char **argv, int *ret_status)
{
    struct err err = ERR_INIT;
    if (!role_options(&USES[c->in ? 1 : 0], &argc, argv, c, ret_status)) {
        return false;
    }
    if (c->n_sources == 0) {
        c->sources[c->n_sources++].name = "-";
    }
    if (c->in && take_words(c, &err) != 0) {
        *ret_status = say(c, &err);
        return false;
    }
    return true;
}

/* --- in and out ------------------------------------------------------------------------------- */
static int read_stdin(struct source *s, struct err *err)
{
    struct buf b = BUF_INIT(MANIFEST_TEXT_MAX + 1);
    ssize_t n = 1;
    while (n > 0) {
        uint8_t *to = buf_reserve(&b, 65536);
        if (to == NULL) {
            buf_reset(&b);
            return err_set(err, ERR_LIMIT, "standard input is larger than %d bytes",
                           MANIFEST_TEXT_MAX);
        }
        n = read(STDIN_FILENO, to, 65536);
        if (n == -1 && errno != EINTR) {
            err_sys(err, "cannot read standard input");
            buf_reset(&b);
            return -1;
        }
        buf_commit(&b, n > 0 ? (size_t)n : 0);
        n = n == -1 ? 1 : n;
    }
    s->len = buf_len(&b);
    s->text = mem_must_calloc(1, s->len + 1);
    if (s->len > 0) {
        memcpy(s->text, buf_head(&b), s->len);
    }
    buf_reset(&b);
    return 0;
}

static int read_source(struct source *s, struct err *err)
{
    if (strcmp(s->name, "-") == 0) {
        s->name = "standard input";
        return read_stdin(s, err);
    }
    if (os_read_file(s->name, MANIFEST_TEXT_MAX, false, &s->text, &s->len, err) != 0) {
        return err->where[0] != '\0' ? -1 : err_where(err, "%s", s->name);
    }
    return 0;
}

/* From here on: what was read, and standard output and error. */
static int confine(struct err *err)
{
    static const struct sandbox_filter filter = {
        .name = "inject", .calls = SYSCALLS, .some = SANDBOX_DATA_MEMORY | SANDBOX_OWN_SIGNALS};
    struct sandbox_plan *nothing = sandbox_plan_new();
    struct sandbox_landlock landlock;
    int r;

    json_object_seed(0); /* its first object would open a file for that */
    r = sandbox_enter(nothing, &filter, &landlock, err);
    sandbox_plan_free(nothing);
    return r;
}

static void on_tell(void *arg, enum inject_severity severity, const char *where, const char *what)
{
    (void)arg;
    fprintf(stderr, "%s: %s: %s\n", severity == INJECT_SAYS_REFUSED ? "refused" : "note", where,
            what);
}

/* YAML documents of one file follow those of another only behind a separator. */
static bool separate(struct command *c, const struct source *s, const struct manifest_doc *d)
{
    struct str out = buf_str(&c->out);
    bool ok = out.n == 0 || out.p[out.n - 1] == '\n' || buf_append(&c->out, "\n", 1);
    bool explicit_start = str_has_prefix(d->bytes, STR_LIT("---"));
    if (ok && out.n > 0 && s->manifest->form == MANIFEST_YAML && !explicit_start) {
        ok = buf_append(&c->out, "---\n", 4);
    }
    return ok;
}

static bool do_document(struct command *c, const struct source *s, size_t i)
{
    static const struct inject_tell tell = {.tell = on_tell};
    struct manifest_doc *d = &s->manifest->docs[i];
    enum inject_outcome r =
        c->in ? inject_document(d->tree, &c->options, &tell) : uninject_document(d->tree, &tell);
    if (i == 0 && !separate(c, s, d)) {
        return false;
    }
    switch (r) {
    case INJECT_CHANGED:
        c->n_changed++;
        return manifest_write(s->manifest, i, d->tree, &c->out);
    case INJECT_REFUSED:
        c->n_refused++;
        return buf_append_str(&c->out, d->bytes);
    case INJECT_OPTED_OUT:
        fprintf(stderr, "note: %s:%u: left as it is, as its pods ask\n", s->name, d->line);
        return buf_append_str(&c->out, d->bytes);
    case INJECT_UNCHANGED:
        return buf_append_str(&c->out, d->bytes);
    }
    return false;
}

static int do_source(struct command *c, struct source *s, struct err *err)
{
    struct str text = {s->text, s->len};
    s->manifest = manifest_parse(s->name, text, err);
    if (s->manifest == NULL) {
        return -1;
    }
    for (size_t i = 0; i < s->manifest->n; i++) {
        if (!do_document(c, s, i)) {
            err_set(err, ERR_LIMIT, "more would come out than %d bytes", MANIFEST_WRITE_MAX);
            return err_where(err, "%s", s->name);
        }
    }
    return 0;
}

static int run(struct command *c)
{
    struct err err = ERR_INIT;
    for (size_t i = 0; i < c->n_sources; i++) {
        if (read_source(&c->sources[i], &err) != 0) {
            return say(c, &err);
        }
    }
    if (confine(&err) != 0) {
        return say(c, &err);
    }
    for (size_t i = 0; i < c->n_sources; i++) {
        if (do_source(c, &c->sources[i], &err) != 0) {
            return say(c, &err);
        }
    }
    if (c->n_refused > 0 && !c->skip_refused) {
        fprintf(stderr, "postern %s: %zu documents refused, and nothing written%s\n",
                c->in ? "inject" : "uninject", c->n_refused,
                c->in ? "; --skip-refused passes them as they are" : "");
        return 1;
    }
    if (os_write_all(STDOUT_FILENO, buf_head(&c->out), buf_len(&c->out)) != 0) {
        err_sys(&err, "cannot write");
        (void)say(c, &err);
        return 1;
    }
    return 0;
}

static int command_main(bool in, int argc, char **argv)
{
    struct command *c = mem_must_new(struct command);
    c->in = in;
    c->out.max = MANIFEST_WRITE_MAX;
    inject_options_init(&c->options);
    int r;
    if (take_options(c, argc, argv, &r)) {
        r = run(c);
    }
    for (size_t i = 0; i < c->n_sources; i++) {
        manifest_free(c->sources[i].manifest);
        free(c->sources[i].text);
    }
    buf_reset(&c->out);
    free(c);
    return r;
}

int inject_main(int argc, char **argv)
{
    return command_main(true, argc, argv);
}

int uninject_main(int argc, char **argv)
{
    return command_main(false, argc, argv);
}
