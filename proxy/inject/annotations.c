/* annotations: what a pod's author may ask for. One table drives reading, errors and the reference.
 * The values are strangers' text: each is a word of a list, or passes the parser that the sidecar
 * itself would use. */
#include "inject_priv.h"

#include <postern/spiffe.h>
#include <stdio.h>
#include <string.h>

#define PREFIX INJECT_ANNOTATION_PREFIX

struct annotation;
typedef bool (*reader)(struct pod *p, const struct annotation *a, const char *value,
                       struct wishes *w);

struct annotation {
    const char *name; /* behind the prefix */
    reader read;
    const char *values, *def, *doc; /* for people */
    const char *const *words;
};

static bool refuse_value(struct pod *p, const struct annotation *a, const char *value)
{
    char path[100];
    (void)snprintf(path, sizeof(path), "metadata.annotations[%s%s]", PREFIX, a->name);
    pod_refuse(p, path, "'%.80s' is not one of its values, expected %s", value, a->values);
    return false;
}

static int word_of(const struct annotation *a, const char *value)
{
    for (int i = 0; a->words[i] != NULL; i++) {
        if (strcmp(a->words[i], value) == 0) {
            return i;
        }
    }
    return -1;
}

static bool read_inject(struct pod *p, const struct annotation *a, const char *value,
                        struct wishes *w)
{
    int i = word_of(a, value);
    w->disabled = i == 1;
    return i != -1 || refuse_value(p, a, value);
}

static bool read_sidecar(struct pod *p, const struct annotation *a, const char *value,
                         struct wishes *w)
{
    int i = word_of(a, value);
    w->classic = i == 1;
    return i != -1 || refuse_value(p, a, value);
}

static bool read_log_level(struct pod *p, const struct annotation *a, const char *value,
                           struct wishes *w)
{
    return log_level_parse(str_of(value), &w->log_level) || refuse_value(p, a, value);
}

static bool read_access_log(struct pod *p, const struct annotation *a, const char *value,
                            struct wishes *w)
{
    int i = word_of(a, value);
    w->access_log = i == 1 ? CONF_ACCESS_DENIED : CONF_ACCESS_ALL;
    return i != -1 || refuse_value(p, a, value);
}

static bool read_spiffe_id(struct pod *p, const struct annotation *a, const char *value,
                           struct wishes *w)
{
    struct spiffe_id id;
    if (spiffe_id_parse(str_of(value), &id, NULL) != 0 || id.path.n == 0) {
        return refuse_value(p, a, value);
    }
    w->spiffe_id = value;
    return true;
}

/* 8080/http,9000/tcp */
static bool read_port(struct str item, uint16_t *ret_port, bool *ret_http)
{
    const char *slash = memchr(item.p, '/', item.n);
    uint64_t port = 0;
    if (slash == NULL ||
        !str_to_u64((struct str){item.p, (size_t)(slash - item.p)}, 65535, &port) || port == 0) {
        return false;
    }
    struct str protocol = {slash + 1, item.n - (size_t)(slash + 1 - item.p)};
    *ret_port = (uint16_t)port;
    *ret_http = str_eq(protocol, STR_LIT("http"));
    return *ret_http || str_eq(protocol, STR_LIT("tcp"));
}

static bool read_ports(struct pod *p, const struct annotation *a, const char *value,
                       struct wishes *w)
{
    const char *at = value;
    for (;;) {
        const char *comma = strchrnul(at, ',');
        uint16_t port;
        bool http;
        if (!read_port((struct str){at, (size_t)(comma - at)}, &port, &http) ||
            w->n_ports == PORTS_MAX) {
            return refuse_value(p, a, value);
        }
        for (size_t i = 0; i < w->n_ports; i++) {
            if (w->ports[i].port == port) {
                return refuse_value(p, a, value);
            }
        }
        w->ports[w->n_ports].port = port;
        w->ports[w->n_ports++].http = http;
        if (*comma == '\0') {
            return true;
        }
        at = comma + 1;
    }
}

static bool read_mode(struct pod *p, const struct annotation *a, const char *value,
                      struct wishes *w)
{
    int i = word_of(a, value);
    w->tproxy = i == 1;
    return i != -1 || refuse_value(p, a, value);
}

static bool read_udp(struct pod *p, const struct annotation *a, const char *value, struct wishes *w)
{
    int i = word_of(a, value);
    w->udp_drop = i == 1;
    return i != -1 || refuse_value(p, a, value);
}

static bool read_uncaptured(struct pod *p, const struct annotation *a, const char *value,
                            struct wishes *w)
{
    int i = word_of(a, value);
    w->drop_all = i == 1;
    return i != -1 || refuse_value(p, a, value);
}

static bool read_canary(struct pod *p, const struct annotation *a, const char *value,
                        struct wishes *w)
{
    int i = word_of(a, value);
    w->canary = i == 1;
    return i != -1 || refuse_value(p, a, value);
}

/* The lists are judged together, by the interception's own parser. */
static bool read_list(struct pod *p, const struct annotation *a, const char *value,
                      struct wishes *w)
{
    if (value[0] == '\0' || strlen(value) > LIST_TEXT_MAX ||
        strspn(value, "0123456789abcdefABCDEF.:/,-") != strlen(value) || value[0] == '-') {
        return refuse_value(p, a, value);
    }
    if (strcmp(a->name, "exclude-inbound-ports") == 0) {
        w->exclude_inbound_ports = value;
    } else if (strcmp(a->name, "exclude-outbound-ports") == 0) {
        w->exclude_outbound_ports = value;
    } else if (strcmp(a->name, "exclude-outbound-uids") == 0) {
        w->exclude_uids = value;
    } else {
        w->exclude_outbound_cidrs = value;
    }
    return true;
}

/* Ours: what we wrote ourselves. It is read where it counts, and never believed. */
static bool read_record(struct pod *p, const struct annotation *a, const char *value,
                        struct wishes *w)
{
    (void)p;
    (void)a;
    (void)value;
    (void)w;
    return true;
}

static const char *const words_inject[] = {"enabled", "disabled", NULL};
static const char *const words_sidecar[] = {"native", "classic", NULL};
static const char *const words_mode[] = {"redirect", "tproxy", NULL};
static const char *const words_pass[] = {"pass", "drop", NULL};
static const char *const words_off[] = {"off", "on", NULL};
static const char *const words_access[] = {"all", "denied", NULL};

static const struct annotation annotations[] = {
    {"inject", read_inject, "`enabled` or `disabled`", "`enabled`",
     "`disabled`: the pod is left as it is.", words_inject},
    {"sidecar", read_sidecar, "`native` or `classic`", "`native`, or as `--classic` says",
     "`native`: an init container that stays, started before and ended after the others "
     "(Kubernetes 1.29). `classic`: an ordinary container.",
     words_sidecar},
    {"ports", read_ports, "list of PORT/PROTOCOL, such as `8080/http,9000/tcp`",
     "every port, as `tcp`",
     "What the workload's ports speak: `http`, so that requests are judged one by one, or `tcp`.",
     NULL},
    {"exclude-inbound-ports", read_list, "list of ports and ranges, such as `9090,8000-8010`",
     "none",
     "Ports of the pod that the sidecar does not take: whoever reaches the pod reaches them, in "
     "plaintext.",
     NULL},
    {"exclude-outbound-ports", read_list, "list of ports and ranges", "none",
     "Destination ports that the sidecar does not take: such connections leave as they are.", NULL},
    {"exclude-outbound-cidrs", read_list, "list of address blocks, such as `10.0.0.0/8,fd00::/8`",
     "none", "The same for destination addresses.", NULL},
    {"exclude-outbound-uids", read_list, "list of numeric users, such as `998,2000-2099`", "none",
     "Users whose connections the sidecar does not take.", NULL},
    {"inbound-mode", read_mode, "`redirect` or `tproxy`", "`redirect`",
     "`tproxy`: the workload sees its clients' addresses. The sidecar then starts as root with "
     "NET_RAW and what it takes to become its own user, which it does at once, with NET_RAW left.",
     words_mode},
    {"udp", read_udp, "`pass` or `drop`", "`pass`",
     "`drop`: what is not TCP is refused, both ways, but for names (port 53).", words_pass},
    {"uncaptured", read_uncaptured, "`pass` or `drop`", "`pass`",
     "`drop`: what leaves and was neither captured nor excluded is refused, whatever it is.",
     words_pass},
    {"canary", read_canary, "`off` or `on`", "`off`",
     "`on`: the sidecar is ready only while it is captured. Not beside rules of an older "
     "`postern intercept`, which have no canary.",
     words_off},
    {"spiffe-id", read_spiffe_id, "SPIFFE ID with a path", "the first that the agent offers",
     "Which identity the sidecar takes where the agent offers several.", NULL},
    {"log-level", read_log_level, "`error`, `warn`, `info` or `debug`", "as `--log-level` says",
     "The least severe line that the sidecar writes.", NULL},
    {"access-log", read_access_log, "`all` or `denied`", "as `--access-log` says",
     "`all`: one line a connection or request. `denied`: refusals only.", words_access},
    {"injected", read_record, "written by `postern inject`", "none",
     "What was put in, for `postern uninject`. Nobody else writes it.", NULL},
    {"probes", read_record, "written by `postern inject`", "none",
     "The probes as they were before they were led to the sidecar. Nobody else writes it.", NULL},
};
enum { N_ANNOTATIONS = sizeof(annotations) / sizeof(annotations[0]) };

static const struct annotation *find(const char *name)
{
    for (size_t i = 0; i < N_ANNOTATIONS; i++) {
        if (strcmp(annotations[i].name, name) == 0) {
            return &annotations[i];
        }
    }
    return NULL;
}

/* How many bytes two words share at their beginning and end: enough to find a slip. */
static const char *nearest(const char *name)
{
    size_t best = 0, n = strlen(name);
    const char *found = NULL;
    for (size_t i = 0; i < N_ANNOTATIONS; i++) {
        const char *word = annotations[i].name;
        size_t m = strlen(word), head = 0, tail = 0;
        while (head < n && head < m && word[head] == name[head]) {
            head++;
        }
        while (tail + head < n && tail + head < m && word[m - 1 - tail] == name[n - 1 - tail]) {
            tail++;
        }
        if (head + tail > best && 2 * (head + tail) > m) {
            best = head + tail;
            found = word;
        }
    }
    return found;
}

static void read_one(struct pod *p, const char *key, const json_t *value, struct wishes *w)
{
    const char *name = key + strlen(PREFIX);
    const struct annotation *a = find(name);
    char path[200];
    if (a == NULL) {
        const char *near = nearest(name);
        (void)snprintf(path, sizeof(path), "metadata.annotations[%.120s]", key);
        pod_refuse(p, path, "no such annotation%s%s", near != NULL ? "; did you mean " PREFIX : "",
                   near != NULL ? near : "");
    } else if (!json_is_string(value)) {
        (void)snprintf(path, sizeof(path), "metadata.annotations[%.120s]", key);
        pod_refuse(p, path, "it holds no text; put the value into quotes");
    } else if (json_string_length(value) != strlen(json_string_value(value))) {
        (void)refuse_value(p, a, json_string_value(value));
    } else {
        (void)a->read(p, a, json_string_value(value), w);
    }
}

/* --- the interception's command line -----------------------------------------------------------
 */
static void argv_add(json_t *argv, const char *option, const char *value)
{
    json_array_append_new(argv, json_string(option));
    if (value != NULL) {
        json_array_append_new(argv, json_string(value));
    }
}

json_t *rules_argv(const struct wishes *w, const struct inject_options *o)
{
    json_t *argv = json_array();
    char number[20], ports[LIST_TEXT_MAX + 20];
    (void)snprintf(number, sizeof(number), "%u", (unsigned)o->proxy_uid);
    (void)snprintf(ports, sizeof(ports), "%d,%d%s%s", INJECT_METRICS_PORT, INJECT_PROBE_PORT,
                   w->exclude_inbound_ports != NULL ? "," : "",
                   w->exclude_inbound_ports != NULL ? w->exclude_inbound_ports : "");
    argv_add(argv, "intercept", NULL);
    argv_add(argv, "--proxy-uid", number);
    argv_add(argv, "--exclude-inbound-ports", ports);
    if (w->exclude_outbound_ports != NULL) {
        argv_add(argv, "--exclude-outbound-ports", w->exclude_outbound_ports);
    }
    if (w->exclude_outbound_cidrs != NULL) {
        argv_add(argv, "--exclude-outbound-cidrs", w->exclude_outbound_cidrs);
    }
    if (w->exclude_uids != NULL) {
        argv_add(argv, "--exclude-uids", w->exclude_uids);
    }
    if (w->tproxy) {
        argv_add(argv, "--inbound-mode", "tproxy");
    }
    if (w->udp_drop) {
        argv_add(argv, "--udp", "drop");
    }
    if (w->drop_all) {
        argv_add(argv, "--drop-all", NULL);
    }
    if (o->ipv4_only) {
        argv_add(argv, "--ipv4-only", NULL);
    }
    return argv;
}

static void check_rules(struct pod *p, const struct inject_options *o, struct wishes *w)
{
    json_t *list = rules_argv(w, o);
    char *argv[24] = {NULL};
    struct err err = ERR_INIT;
    char text[1200];
    size_t n = json_array_size(list);
    POSTERN_ASSERT(n < sizeof(argv) / sizeof(argv[0]));
    for (size_t i = 0; i < n; i++) {
        argv[i] = (char *)(uintptr_t)json_string_value(json_array_get(list, i));
    }
    if (intercept_options_parse((int)n, argv, &w->rules, &err) != 0) {
        pod_refuse(p, "metadata.annotations[" PREFIX "exclude-...]", "%s",
                   err_text(&err, text, sizeof(text)));
    }
    json_decref(list);
}

static bool in_ports(const struct intercept_range *list, size_t n, uint16_t port)
{
    for (size_t i = 0; i < n; i++) {
        if (port >= list[i].first && port <= list[i].last) {
            return true;
        }
    }
    return false;
}

bool wishes_capture(const struct wishes *w, const struct inject_options *o, uint16_t port)
{
    (void)o; /* without our own rules somebody else's are as these would be */
    return port != INJECT_HBONE_PORT &&
           !in_ports(w->rules.exclude_inbound, w->rules.n_exclude_inbound, port);
}

void wishes_read(struct pod *p, const struct inject_options *o, struct wishes *ret)
{
    const json_t *all = tree_object(tree_object(p->tree, "metadata"), "annotations");
    const char *key;
    json_t *value;
    *ret = (struct wishes){
        .classic = o->classic, .log_level = o->log_level, .access_log = o->access_log};
    json_object_foreach((json_t *)(uintptr_t)all, key, value)
    {
        if (str_has_prefix(str_of(key), STR_LIT(PREFIX))) {
            read_one(p, key, value, ret);
        }
    }
    if (!ret->disabled) {
        check_rules(p, o, ret);
    }
    if (ret->canary && p->n_refused == 0 &&
        !wishes_capture(ret, o, INTERCEPT_INBOUND_CANARY_PORT)) {
        pod_refuse(p, "metadata.annotations[" PREFIX "canary]",
                   "port %d is excluded, by which the kubelet asks whether the pod is captured",
                   INTERCEPT_INBOUND_CANARY_PORT);
    }
    for (size_t i = 0; i < ret->n_ports && p->n_refused == 0; i++) {
        if (!wishes_capture(ret, o, ret->ports[i].port)) {
            pod_refuse(p, "metadata.annotations[" PREFIX "ports]",
                       "port %u is excluded: the sidecar does not see what it speaks",
                       ret->ports[i].port);
        }
    }
}

bool inject_reference(struct buf *out)
{
    bool ok =
        buf_printf(out, "# Annotations of a pod\n"
                        "Made from the table of `proxy/inject/annotations.c`; do not edit.\n\n"
                        "Read by `postern inject` on pods and pod templates; what is not "
                        "listed here, or has another value, is refused. "
                        "[injection.md](../injection.md) has the rest.\n\n"
                        "| annotation | value | default | meaning |\n|---|---|---|---|\n");
    for (size_t i = 0; ok && i < N_ANNOTATIONS; i++) {
        const struct annotation *a = &annotations[i];
        ok = buf_printf(out, "| `%s%s` | %s | %s | %s |\n", PREFIX, a->name, a->values, a->def,
                        a->doc);
    }
    return ok;
}
