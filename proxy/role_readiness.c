/* readiness: whether ports that take plaintext beside mTLS can do without, and who hinders it. */
#include "role_options.h"
#include "roles_priv.h"

#include <jansson.h>
#include <postern/os.h>
#include <postern/permissive.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { WINDOW_S = 24 * 3600, STATUS_NOT_READY = 3, STATUS_UNKNOWN = 4, CALLERS_SHOWN = 20 };

struct options {
    const char *config, *socket;
    uint64_t window_s;
    bool json;
};

static bool take_window(void *options, const char *text)
{
    struct options *o = options;
    return role_take_time(text, &o->window_s);
}

static const struct role_option OPTIONS[] = {
    ROLE_TEXT("--config", "FILE", struct options, config,
              "the file of a proxy or gateway, which tells of itself since its start,\n"
              "or of an agent, which tells what all proxies of its node told it"),
    ROLE_TEXT("--socket", "PATH", struct options, socket,
              "the admin socket itself (default as of `postern status`)"),
    ROLE_TAKE("--window", "TIME", take_window,
              "how long a port has to be quiet, such as 90m or 168h (default 24h)"),
    ROLE_FLAG("--json", struct options, json, "the answer with its verdicts, as JSON"),
};
static const struct role_use USE = {
    .command = "readiness",
    .uses = ROLE_USES("readiness [--config FILE] [--socket PATH] [--window TIME] [--json]",
                      "agent readiness, the same"),
    ROLE_OPTIONS(OPTIONS),
    .notes =
        "exit status: 0 every permissive port is ready for `mode: strict`, 3 one is not, 4 one\n"
        "is not known yet\n",
};

static int64_t number(const json_t *o, const char *key)
{
    return (int64_t)json_integer_value(json_object_get(o, key));
}

static const char *text(const json_t *o, const char *key, const char *none)
{
    const char *s = json_string_value(json_object_get(o, key));
    return s != NULL ? s : none;
}

/* --- one port --------------------------------------------------------------------------------- */

static bool is_strict(const json_t *port)
{
    return strcmp(text(port, "mode", ""), "strict") == 0;
}

/* What an agent tells of a port that no proxy tells it of any more. */
static bool is_stale(const json_t *port, int64_t now_s, int64_t gap_s)
{
    return json_object_get(port, "told_s") != NULL && now_s - number(port, "told_s") > gap_s;
}

static enum permissive_verdict judge(const json_t *port, int64_t now_s, int64_t window_s,
                                     bool stale)
{
    const struct permissive_facts f = {.watched_since_s = number(port, "watched_since_s"),
                                       .last_allowed_s = number(port, "last_allowed_s"),
                                       .last_mtls_s = number(port, "last_mtls_s"),
                                       .open = (uint64_t)number(port, "open")};
    enum permissive_verdict v = permissive_verdict(&f, now_s, window_s);
    return stale && v != PERMISSIVE_NOT_READY ? PERMISSIVE_UNKNOWN_YET : v;
}

static const char *why(enum permissive_verdict v, bool stale)
{
    if (stale && v == PERMISSIVE_UNKNOWN_YET) {
        return "no proxy tells the agent of it any more";
    }
    switch (v) {
    case PERMISSIVE_READY:
        return "nobody was let in without mTLS: set `mode: strict`";
    case PERMISSIVE_NOT_READY:
        return "plaintext is in use";
    case PERMISSIVE_UNKNOWN_YET:
        return "it was not watched for that long";
    case PERMISSIVE_UNKNOWN_NOBODY:
        break;
    }
    return "nobody came at all, not with mTLS either";
}

static const char *shown_verdict(enum permissive_verdict v)
{
    return v == PERMISSIVE_READY ? "READY" : v == PERMISSIVE_NOT_READY ? "NOT READY" : "UNKNOWN";
}

static void print_callers(const json_t *port)
{
    const json_t *list = json_object_get(port, "callers");
    size_t n = json_array_size(list);
    for (size_t i = 0; i < n && i < CALLERS_SHOWN; i++) {
        const json_t *c = json_array_get(list, i);
        char at[32];
        os_time_text(number(c, "last_seen_s"), at, sizeof(at));
        printf("        %-24s %-14s %lld connections, %lld allowed, %lld denied, last %s\n",
               text(c, "source", "?"), text(c, "class", "?"), (long long)number(c, "connections"),
               (long long)number(c, "allowed"), (long long)number(c, "denied"), at);
    }
    size_t more =
        (n > CALLERS_SHOWN ? n - CALLERS_SHOWN : 0) + (size_t)number(port, "callers_not_shown");
    if (more > 0) {
        printf("        and %zu more\n", more);
    }
}

static void print_port(const json_t *port, enum permissive_verdict v, bool stale)
{
    printf("    %s port %lld: ", text(port, "listener", "?"), (long long)number(port, "port"));
    if (is_strict(port)) {
        printf("STRICT  it turned by itself: write `mode: strict`\n");
        return;
    }
    printf("%s  %s\n", shown_verdict(v), why(v, stale));
    print_callers(port);
}

/* --- all of them ------------------------------------------------------------------------------ */

struct sums {
    size_t n, not_ready, unknown;
};

struct at {
    int64_t now_s, window_s, gap_s;
};

static void judge_workload(json_t *w, const struct at *at, bool json, struct sums *sums)
{
    json_t *ports = json_object_get(w, "ports");
    if (!json && json_array_size(ports) > 0) {
        printf("%s (%s)\n", text(w, "identity", "no identity"), text(w, "name", "no name"));
    }
    for (size_t i = 0; i < json_array_size(ports); i++) {
        json_t *port = json_array_get(ports, i);
        bool stale = is_stale(port, at->now_s, at->gap_s);
        enum permissive_verdict v = judge(port, at->now_s, at->window_s, stale);
        if (json) {
            json_object_set_new(
                port, "verdict",
                json_string(is_strict(port) ? "strict" : permissive_verdict_name(v)));
        } else {
            print_port(port, v, stale);
        }
        sums->n++;
        if (!is_strict(port)) {
            sums->not_ready += v == PERMISSIVE_NOT_READY;
            sums->unknown += v == PERMISSIVE_UNKNOWN_YET || v == PERMISSIVE_UNKNOWN_NOBODY;
        }
    }
}

static int answer(const struct buf *out, int64_t window_s, bool json)
{
    struct sums sums = {0, 0, 0};
    json_t *o = json_loadb((const char *)buf_head(out), buf_len(out), JSON_REJECT_DUPLICATES, NULL);
    json_t *list = json_object_get(o, "workloads");
    if (!json_is_array(list)) {
        fprintf(stderr, "postern: the answer says nothing about readiness\n");
        json_decref(o);
        return 1;
    }
    const struct at at = {number(o, "now_s"), window_s, number(o, "gap_s")};
    for (size_t i = 0; i < json_array_size(list); i++) {
        judge_workload(json_array_get(list, i), &at, json, &sums);
    }
    if (json) {
        json_object_set_new(o, "window_s", json_integer((json_int_t)window_s));
        char *dumped = json_dumps(o, JSON_INDENT(2));
        printf("%s\n", dumped != NULL ? dumped : "");
        free(dumped);
    } else if (sums.n == 0) {
        printf("no port is permissive\n");
    }
    json_decref(o);
    return sums.not_ready > 0 ? STATUS_NOT_READY : sums.unknown > 0 ? STATUS_UNKNOWN : 0;
}

int readiness_main(int argc, char **argv)
{
    struct options o = {.window_s = WINDOW_S};
    int status;
    if (!role_options(&USE, &argc, argv, &o, &status)) {
        return status;
    }
    struct buf out = BUF_INIT(ROLE_ANSWER_MAX);
    status = role_admin_ask(o.config, o.socket, "readiness", &out);
    if (status == 0) {
        status = answer(&out, (int64_t)o.window_s, o.json);
    }
    buf_reset(&out);
    return status;
}
