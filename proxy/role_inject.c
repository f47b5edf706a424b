/*
 * role_inject: `postern inject` and `postern uninject`: manifests in, manifests out. All files are
 * read first; then the process gives up the file system, and only then it looks at what it read.
 */
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
    struct inject_options options;
    struct source sources[FILES_MAX];
    size_t n_sources;
    size_t n_refused, n_changed;
    struct buf out;
};

static int usage(bool in)
{
    if (!in) {
        fprintf(stderr, "usage: postern uninject [-f FILE|-]...\n");
        return 2;
    }
    fprintf(stderr,
            "usage: postern inject --image IMAGE [-f FILE|-]... [OPTIONS]\n"
            "  -f FILE               YAML or JSON; - (and no -f at all) is standard input\n"
            "  --image IMAGE         of the sidecar\n"
            "  --init-image IMAGE    of the interception (the same)\n"
            "  --pull-policy POLICY  IfNotPresent, Always or Never (IfNotPresent)\n"
            "  --proxy-uid N         what the sidecar runs as (%d)\n"
            "  --agent-directory DIR on the node, holds the agent's socket (/run/postern)\n"
            "  --agent-socket NAME   in there (agent.sock)\n"
            "  --cpu, --memory       what the sidecar requests (10m, 32Mi)\n"
            "  --cpu-limit, --memory-limit   what it may have at most (no limit)\n"
            "  --log-level LEVEL, --access-log all|denied\n"
            "  --classic             an ordinary container, not a native sidecar\n"
            "  --no-intercept        something else makes the rules\n"
            "  --ipv4-only           leave IPv6 alone\n"
            "  --strict              refuse what is otherwise only told\n"
            "  --skip-refused        pass what is refused as it is\n",
            INJECT_UID);
    return 2;
}

/* --- the command line ------------------------------------------------------------------------- */
static int say(const struct command *c, const struct err *err)
{
    char text[1200];
    fprintf(stderr, "postern %s: %s\n", c->in ? "inject" : "uninject",
            err_text(err, text, sizeof(text)));
    return 2;
}

static bool take_flag(struct command *c, const char *arg)
{
    struct {
        const char *name;
        bool *to;
    } flags[] = {{"--classic", &c->options.classic},
                 {"--no-intercept", &c->options.no_intercept},
                 {"--ipv4-only", &c->options.ipv4_only},
                 {"--strict", &c->options.strict},
                 {"--skip-refused", &c->skip_refused}};
    for (size_t i = 0; i < sizeof(flags) / sizeof(flags[0]); i++) {
        if (strcmp(arg, flags[i].name) == 0) {
            *flags[i].to = true;
            return true;
        }
    }
    return false;
}

/* Words of the command line that are not texts for the options as they are. */
static int take_words(struct command *c, const char *uid, const char *level, const char *access,
                      struct err *err)
{
    uint64_t v = 0;
    if (uid != NULL && !str_to_u64(str_of(uid), INT32_MAX, &v)) {
        err_set(err, ERR_USAGE, "--proxy-uid %.40s: not a numeric uid", uid);
        return err_expected(err, "a number from 1 to %d", INT32_MAX);
    }
    c->options.proxy_uid = uid != NULL ? (uint32_t)v : c->options.proxy_uid;
    if (level != NULL && !log_level_parse(str_of(level), &c->options.log_level)) {
        err_set(err, ERR_USAGE, "--log-level %.40s: no such level", level);
        return err_expected(err, "error, warn, info or debug");
    }
    if (access != NULL && strcmp(access, "all") != 0 && strcmp(access, "denied") != 0) {
        err_set(err, ERR_USAGE, "--access-log %.40s: not one of its values", access);
        return err_expected(err, "all or denied");
    }
    c->options.access_log =
        access != NULL && strcmp(access, "denied") == 0 ? CONF_ACCESS_DENIED : CONF_ACCESS_ALL;
    return inject_options_check(&c->options, err);
}

/* 0, or the exit status after telling why. */
static int take_options(struct command *c, int argc, char **argv)
{
    const char *uid = NULL, *level = NULL, *access = NULL, *file = NULL;
    struct inject_options *o = &c->options;
    const struct role_text texts[] = {{"-f", &file},
                                      {"--image", &o->image},
                                      {"--init-image", &o->rules_image},
                                      {"--pull-policy", &o->pull_policy},
                                      {"--proxy-uid", &uid},
                                      {"--agent-directory", &o->agent_dir},
                                      {"--agent-socket", &o->agent_socket},
                                      {"--cpu", &o->cpu},
                                      {"--memory", &o->memory},
                                      {"--cpu-limit", &o->cpu_limit},
                                      {"--memory-limit", &o->memory_limit},
                                      {"--log-level", &level},
                                      {"--access-log", &access}};
    size_t n_texts = c->in ? sizeof(texts) / sizeof(texts[0]) : 1;
    struct err err = ERR_INIT;
    for (int i = 1; i < argc; i++) {
        file = NULL;
        if (!role_take_text(texts, n_texts, argc, argv, &i) && !(c->in && take_flag(c, argv[i]))) {
            return usage(c->in);
        }
        if (file != NULL && c->n_sources == FILES_MAX) {
            fprintf(stderr, "postern: more than %d files\n", FILES_MAX);
            return 2;
        }
        if (file != NULL) {
            c->sources[c->n_sources++].name = file;
        }
    }
    if (c->n_sources == 0) {
        c->sources[c->n_sources++].name = "-";
    }
    if (c->in && take_words(c, uid, level, access, &err) != 0) {
        return say(c, &err);
    }
    return 0;
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
    int r = take_options(c, argc, argv);
    if (r == 0) {
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
