/* role_agent_policy: `postern agent policy push|stage|promote|rollback|status`: another policy for
 * this node's proxies, in stages, and back. docs/policy-rollout.md. */
#include "role_options.h"
#include "roles_priv.h"

#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <postern/agent_control.h>
#include <postern/conf.h>
#include <postern/mem.h>
#include <postern/os.h>
#include <postern/rollout.h>
#include <pwd.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

enum { ASK_MS = 60000, POLL_MS = 200 };

struct options {
    const char *verb, *what, *comment, *config, *control, *socket, *percent;
    struct buf stage;
    uint64_t wait_s;
    bool waits, json;
};

/* --- what was said ---------------------------------------------------------------------------- */
static bool add_term(struct options *o, const char *kind, const char *value)
{
    return buf_printf(&o->stage, "%s%s=%s", buf_len(&o->stage) > 0 ? " " : "", kind, value);
}

static bool take_to(void *options, const char *text)
{
    return add_term(options, "to", text);
}

static bool take_label(void *options, const char *text)
{
    return add_term(options, "label", text);
}

static bool take_wait(void *options, const char *text)
{
    struct options *o = options;

    o->waits = true;
    return str_to_u64(str_of(text), 86400, &o->wait_s);
}

static const struct role_option OPTIONS[] = {
    ROLE_TAKE("--to", "PATTERN", take_to,
              "STAGE: proxies whose SPIFFE ID is one of these; may be repeated"),
    ROLE_TAKE("--label", "KEY=VALUE", take_label,
              "STAGE: whose file has all of these in `state.labels`"),
    ROLE_TEXT("--percent", "N", struct options, percent, "STAGE: that many of a hundred"),
    ROLE_TEXT("--comment", "TEXT", struct options, comment, "why, for the record"),
    ROLE_TAKE("--wait", "SECONDS", take_wait,
              "until all that are meant run it; else 1, with who does not"),
    ROLE_TEXT("--config", "FILE", struct options, config,
              "the agent's file, which names its sockets"),
    ROLE_TEXT("--control", "PATH", struct options, control,
              "the control socket (" AGENT_CONTROL_DEFAULT ")"),
    ROLE_TEXT("--socket", "PATH", struct options, socket,
              "the admin socket, which knows what proxies run"),
    ROLE_FLAG("--json", struct options, json, "the answer as JSON"),
};
static const struct role_use USE = {
    .command = "agent policy",
    .uses = ROLE_USES("agent policy push FILE [STAGE] [--comment TEXT] [OPTIONS]",
                      "agent policy stage STAGE [OPTIONS]", "agent policy promote [OPTIONS]",
                      "agent policy rollback [GENERATION|files] [OPTIONS]",
                      "agent policy status [OPTIONS]"),
    .about = "STAGE: only these proxies, until `promote`\n",
    ROLE_OPTIONS(OPTIONS),
    .max_words = 2,
};

/* False: the process ends with *ret_status. */
static bool take_options(int argc, char **argv, struct options *o, int *ret_status)
{
    if (!role_options(&USE, &argc, argv, o, ret_status)) {
        return false;
    }
    o->verb = argc > 1 ? argv[1] : "";
    o->what = argc > 2 ? argv[2] : NULL;
    if (o->percent != NULL && !add_term(o, "percent", o->percent)) {
        *ret_status = role_misuse(&USE, "the stage is too long");
        return false;
    }
    return true;
}

/* Who gives the order, for the record: what this user goes by. */
static void by_whom(char ret[ROLLOUT_BY_MAX + 1])
{
    /* One thread. NOLINTBEGIN(concurrency-mt-unsafe) */
    const char *name = getenv("SUDO_USER");
    const struct passwd *pw = name == NULL ? getpwuid(getuid()) : NULL;
    /* NOLINTEND(concurrency-mt-unsafe) */

    name = name != NULL ? name : pw != NULL ? pw->pw_name : NULL;
    if (name == NULL || name[0] == '\0' || !rollout_text_ok(str_of(name), ROLLOUT_BY_MAX)) {
        (void)snprintf(ret, ROLLOUT_BY_MAX + 1, "uid %u", (unsigned)getuid());
    } else {
        (void)snprintf(ret, ROLLOUT_BY_MAX + 1, "%s", name);
    }
}

/* --- the file --------------------------------------------------------------------------------- */
/* A copy in memory of our own: what is handed over does not change any more. */
static int copy_of(const char *path, char *ret_source, size_t size, struct err *err)
{
    mem_autofree char *text = NULL;
    mem_autofree char *full = realpath(path, NULL);
    size_t len = 0;
    int fd;

    if (os_read_file(path, CONF_POLICY_FILE_MAX, false, &text, &len, err) == -1) {
        return -1;
    }
    if (snprintf(ret_source, size, "%s", full != NULL ? full : path) >= (int)size) {
        err_set(err, ERR_LIMIT, "the file's name is too long");
        return err_where(err, "%s", path);
    }
    fd = memfd_create("policy", MFD_CLOEXEC);
    for (size_t at = 0; fd != -1 && at < len;) {
        ssize_t n = write(fd, text + at, len - at);

        if (n < 0 && errno != EINTR) {
            close(fd);
            fd = -1;
        }
        at += n > 0 ? (size_t)n : 0;
    }
    return fd != -1 ? fd : err_sys(err, "no memory for a copy of the file");
}

static int prepare(struct options *o, struct agent_control_request *r, int *ret_file,
                   struct err *err)
{
    char source[ROLLOUT_SOURCE_MAX + 1], by[ROLLOUT_BY_MAX + 1];
    uint64_t generation = 0;
    bool ok = true;

    by_whom(by);
    if (strcmp(o->verb, "push") == 0 && o->what != NULL) {
        agent_control_init(r, AGENT_CONTROL_POLICY_PUSH);
        *ret_file = copy_of(o->what, source, sizeof(source), err);
        if (*ret_file == -1) {
            return 1;
        }
        ok = agent_control_put(r, 0, str_of(source)) &&
             agent_control_put(r, 1, buf_str(&o->stage)) &&
             agent_control_put(r, 2, str_of(o->comment)) && agent_control_put(r, 3, str_of(by));
    } else if (o->what != NULL && strcmp(o->verb, "rollback") != 0) {
        return role_usage(&USE);
    } else if (strcmp(o->verb, "stage") == 0 && buf_len(&o->stage) > 0 && o->comment == NULL) {
        agent_control_init(r, AGENT_CONTROL_POLICY_STAGE);
        ok = agent_control_put(r, 0, buf_str(&o->stage)) && agent_control_put(r, 1, str_of(by));
    } else if (buf_len(&o->stage) > 0 || o->comment != NULL) {
        return role_usage(&USE);
    } else if (strcmp(o->verb, "promote") == 0) {
        agent_control_init(r, AGENT_CONTROL_POLICY_PROMOTE);
        ok = agent_control_put(r, 0, str_of(by));
    } else if (strcmp(o->verb, "rollback") == 0) {
        agent_control_init(r, AGENT_CONTROL_POLICY_ROLLBACK);
        ok = agent_control_put(r, 0, str_of(by));
        if (o->what != NULL && strcmp(o->what, "files") != 0 &&
            (!str_to_u64(str_of(o->what), UINT64_MAX / 2, &generation) || generation == 0)) {
            return role_usage(&USE);
        }
        if (o->what != NULL) {
            r->flags = AGENT_CONTROL_ROLLBACK_TO;
            r->number = strcmp(o->what, "files") != 0 ? generation : 0;
        }
    } else if (strcmp(o->verb, "status") == 0 && !o->waits) {
        agent_control_init(r, AGENT_CONTROL_POLICY_STATUS);
    } else {
        return role_usage(&USE);
    }
    if (!ok) {
        err_set(err, ERR_USAGE, "too long: a comment has at most %d bytes, a stage %d",
                ROLLOUT_COMMENT_MAX, ROLLOUT_STAGE_MAX);
        return 2;
    }
    return 0;
}

/* --- showing ---------------------------------------------------------------------------------- */
static const char *text_of(const json_t *o, const char *key)
{
    const char *s = json_string_value(json_object_get(o, key));

    return s != NULL ? s : "";
}

static long long number_of(const json_t *o, const char *key)
{
    return (long long)json_integer_value(json_object_get(o, key));
}

static const char *name_of(long long policy, char space[40])
{
    if (policy == 0) {
        return "the agent's file";
    }
    (void)snprintf(space, 40, "generation %lld", policy);
    return space;
}

static void print_generation(const json_t *g, long long in_force, long long staged)
{
    long long n = number_of(g, "generation");

    printf("%c %-4lld %s  %lld rules, %.12s, by %s%s%s\n",
           n == in_force ? '*'
           : n == staged ? '+'
                         : ' ',
           n, text_of(g, "pushed"), number_of(g, "rules"), text_of(g, "sha256"), text_of(g, "by"),
           text_of(g, "comment")[0] != '\0' ? ": " : "", text_of(g, "comment"));
}

static void print_proxy(const json_t *p, long long newest)
{
    const json_t *runs = json_object_get(p, "policy");
    bool behind = number_of(p, "generation") != newest;
    bool refused = behind && number_of(p, "refused_generation") == newest;
    char a[40], b[40];

    printf("%s (%s, pid %lld): ", text_of(p, "identity"), text_of(p, "name"), number_of(p, "pid"));
    printf("%s", json_is_integer(runs) ? name_of(number_of(p, "policy"), a) : "has not said yet");
    if (behind) {
        printf(", %s %s: %s", refused ? "refuses" : "waits for",
               name_of(number_of(p, "sent_policy"), b), refused ? text_of(p, "error") : "");
        printf("%s%ld s", refused ? ", " : "", (long)number_of(p, "age_seconds"));
    }
    printf("\n");
}

static void print_set(const json_t *set)
{
    const json_t *list = json_object_get(set, "generations");
    long long in_force = number_of(set, "in_force"), staged = number_of(set, "staged");
    char space[40];
    size_t i;
    json_t *g;

    printf("in force: %s\n", name_of(in_force, space));
    if (staged != 0) {
        printf("staged: generation %lld, for %s\n", staged, text_of(set, "stage"));
    }
    if (!json_is_true(json_object_get(set, "usable"))) {
        printf("what is in force or staged cannot be read: proxies are told nothing, and keep what "
               "they have. Roll back.\n");
    }
    json_array_foreach(list, i, g)
    {
        print_generation(g, in_force, staged);
    }
}

static int print_refusal(const json_t *list, const json_t *answer)
{
    size_t i;
    json_t *e;

    json_array_foreach(list, i, e)
    {
        fprintf(stderr, "%s: %s", text_of(e, "where"), text_of(e, "what"));
        if (text_of(e, "expected")[0] != '\0') {
            fprintf(stderr, ", expected %s", text_of(e, "expected"));
        }
        fprintf(stderr, "%s%s\n", text_of(e, "advice")[0] != '\0' ? "; " : "",
                text_of(e, "advice"));
    }
    fprintf(stderr, "postern: not pushed, %lld error%s: what was in force is\n",
            number_of(answer, "errors"), number_of(answer, "errors") == 1 ? "" : "s");
    return 1;
}

/* --- proxies ---------------------------------------------------------------------------------- */
static json_t *ask_proxies(const struct options *o)
{
    struct buf out = BUF_INIT(ROLE_ANSWER_MAX);
    json_t *doc = NULL;

    if (role_admin_ask(o->config, o->socket, "proxies", &out) == 0) {
        doc = json_loadb((const char *)buf_head(&out), buf_len(&out), 0, NULL);
    }
    buf_reset(&out);
    return doc;
}

enum progress { ALL_RUN_IT, SOME_WAIT, SOME_REFUSE };

/* Of those that are meant; of a stage that is `policy`, which they have been sent. */
static enum progress progress_of(const json_t *doc, const json_t *set, bool staged, FILE *names)
{
    const json_t *list = json_object_get(doc, "proxies");
    long long newest = number_of(doc, "generation");
    long long meant = number_of(set, "meant");
    enum progress all = ALL_RUN_IT;
    size_t i;
    json_t *p;

    if (newest < number_of(set, "state_generation")) {
        return SOME_WAIT; /* the service has not got it yet */
    }
    json_array_foreach(list, i, p)
    {
        bool told = number_of(p, "sent_generation") == newest;
        bool refused = number_of(p, "refused_generation") == newest;

        if ((staged && told && number_of(p, "sent_policy") != meant) ||
            number_of(p, "generation") == newest) {
            continue;
        }
        all = refused ? SOME_REFUSE : all == SOME_REFUSE ? all : SOME_WAIT;
        if (names != NULL) {
            fprintf(names, "%s (%s, pid %lld) does not run it%s%s\n", text_of(p, "identity"),
                    text_of(p, "name"), number_of(p, "pid"), refused ? ": " : " yet",
                    refused ? text_of(p, "error") : "");
        }
    }
    return all;
}

static int wait_for_all(const struct options *o, const json_t *set)
{
    const struct timespec pause = {0, (long)POLL_MS * 1000000};
    uint64_t until_ms = os_now_ms() + o->wait_s * 1000;
    bool staged =
        number_of(set, "staged") == number_of(set, "meant") && number_of(set, "staged") != 0;
    enum progress now = SOME_WAIT;
    json_t *doc = NULL;

    do {
        json_decref(doc);
        doc = ask_proxies(o);
        if (doc == NULL) {
            return 1;
        }
        now = progress_of(doc, set, staged, NULL);
        if (now == SOME_WAIT) {
            (void)nanosleep(&pause, NULL);
        }
    } while (now == SOME_WAIT && os_now_ms() < until_ms);
    if (now == ALL_RUN_IT && json_array_size(json_object_get(doc, "proxies")) == 0) {
        fprintf(stderr, "postern: no proxy is connected\n");
    } else if (now != ALL_RUN_IT) {
        (void)progress_of(doc, set, staged, stderr);
    }
    json_decref(doc);
    return now == ALL_RUN_IT ? 0 : 1;
}

/* What an order made, or `status`. */
static int show(const struct options *o, json_t *set)
{
    bool status = strcmp(o->verb, "status") == 0;
    json_t *proxies = status ? ask_proxies(o) : NULL;
    size_t i;
    json_t *p;

    if (status && proxies == NULL) {
        return 1;
    }
    if (o->json) {
        if (status) {
            (void)json_object_set(set, "told", proxies);
        }
        (void)json_dumpf(set, stdout, JSON_COMPACT);
        printf("\n");
    } else {
        print_set(set);
        json_array_foreach(json_object_get(proxies, "proxies"), i, p)
        {
            print_proxy(p, number_of(proxies, "generation"));
        }
    }
    json_decref(proxies);
    return o->waits ? wait_for_all(o, set) : 0;
}

static int run(struct options *o, struct agent_control_request *r, struct buf *out)
{
    mem_autofree char *path = NULL;
    struct err err = ERR_INIT;
    char text[1200];
    os_autofd int file = -1;
    int status = prepare(o, r, &file, &err);
    json_t *set = NULL;

    if (status != 0 && err.code == ERR_NONE) {
        return status; /* said */
    }
    if (status == 0 && role_control_path(o->config, o->control, &path) == -1) {
        return 2;
    }
    if (status == 0 && agent_control_ask_file(path, r, file, ASK_MS, out, &err) == -1) {
        status = err.code == ERR_USAGE ? 2 : 1;
    }
    if (status != 0) {
        fprintf(stderr, "postern: %s\n", err_text(&err, text, sizeof(text)));
        return status;
    }
    set = json_loadb((const char *)buf_head(out), buf_len(out), 0, NULL);
    if (json_is_array(json_object_get(set, "refused"))) {
        status = print_refusal(json_object_get(set, "refused"), set);
    } else if (set != NULL) {
        status = show(o, set);
    }
    json_decref(set);
    return status;
}

int agent_policy_main(int argc, char **argv)
{
    struct options o = {.stage = BUF_INIT(ROLLOUT_STAGE_MAX + 1)};
    mem_autofree struct agent_control_request *r = mem_must_new(struct agent_control_request);
    struct buf out = BUF_INIT(AGENT_CONTROL_DOCUMENT_MAX);
    int status;

    if (take_options(argc, argv, &o, &status)) {
        status = run(&o, r, &out);
    }
    buf_reset(&out);
    buf_reset(&o.stage);
    return status;
}
