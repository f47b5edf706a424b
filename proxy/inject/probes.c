/*
 * probes: a kubelet asks in plaintext and without an identity, which an intercepted port does not
 * take. So its questions are led to the sidecar, which asks the workload itself (probes.h). What a
 * probe was before is kept in an annotation, as JSON, and put back from there: that is a stranger's
 * text too, and what it says is judged like any probe.
 */
#include "inject_priv.h"

#include <postern/mem.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
    PATH_MAX_BYTES = 1000,
    HEADERS_MAX = 16,
    HEADER_MAX_BYTES = 400,
    SERVICE_MAX_BYTES = 255,
    PROBES_MAX = 64,
    ALL_MAX_BYTES = 48 * 1024 /* the kernel takes 128 KiB in a variable */
};

const char *const probe_kinds[] = {"startupProbe", "livenessProbe", "readinessProbe", NULL};
/* What of a probe says what is asked, of those that can be led. */
static const char *const handlers[] = {"httpGet", "tcpSocket", "grpc", NULL};
static const char *const lists[] = {"initContainers", "containers", NULL};

uint16_t port_of(const json_t *c, const json_t *port)
{
    size_t i;
    json_t *e;
    uint64_t number = 0;
    if (json_is_integer(port)) {
        json_int_t v = json_integer_value(port);
        return v > 0 && v <= 65535 ? (uint16_t)v : 0;
    }
    const char *name = json_string_value(port);
    if (name != NULL && str_to_u64(str_of(name), 65535, &number)) {
        return (uint16_t)number;
    }
    json_array_foreach(tree_array(c, "ports"), i, e)
    {
        const char *have = tree_text(e, "name");
        if (name != NULL && have != NULL && strcmp(name, have) == 0 &&
            json_is_integer(json_object_get(e, "containerPort"))) {
            return port_of(NULL, json_object_get(e, "containerPort"));
        }
    }
    return 0;
}

/* --- what can be led -------------------------------------------------------------------------- */
/* Text that stands in double quotes in the proxy's file, within a variable of a container. */
static bool is_safe(const char *text, bool blanks, size_t max)
{
    size_t n = strlen(text);
    for (size_t i = 0; i < n; i++) {
        unsigned char ch = (unsigned char)text[i];
        if (ch < ' ' || ch >= 0x7f || (ch == ' ' && !blanks) || strchr("\"\\$", ch) != NULL) {
            return false;
        }
    }
    return n <= max;
}

static bool is_label(const char *name)
{
    return name != NULL && name[0] != '\0' && strlen(name) <= 63 &&
           strspn(name, "abcdefghijklmnopqrstuvwxyz0123456789-") == strlen(name);
}

static bool is_header(const char *name, const char *value)
{
    static const char letters[] =
        "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_";
    static const char *const not_ours[] = {"connection", "content-length", "transfer-encoding"};
    for (size_t i = 0; name != NULL && i < sizeof(not_ours) / sizeof(not_ours[0]); i++) {
        if (str_eq_nocase(str_of(name), str_of(not_ours[i]))) {
            return false;
        }
    }
    return name != NULL && value != NULL && name[0] != '\0' &&
           strspn(name, letters) == strlen(name) && is_safe(value, true, HEADER_MAX_BYTES) &&
           strlen(name) <= 100;
}

static bool can_lead_http(const json_t *http)
{
    const char *scheme = tree_text(http, "scheme"), *path = tree_text(http, "path");
    const json_t *headers = json_object_get(http, "httpHeaders");
    size_t i;
    json_t *h;
    bool ok = (scheme == NULL || strcmp(scheme, "HTTP") == 0) &&
              (path == NULL || is_safe(path, false, PATH_MAX_BYTES)) &&
              json_array_size(headers) <= HEADERS_MAX;
    json_array_foreach(headers, i, h)
    {
        ok = ok && is_header(tree_text(h, "name"), tree_text(h, "value"));
    }
    return ok;
}

/* Its port is a number, and no name. */
static bool can_lead_grpc(const json_t *grpc)
{
    const char *service = tree_text(grpc, "service");
    return json_is_integer(json_object_get(grpc, "port")) &&
           (service == NULL || is_safe(service, false, SERVICE_MAX_BYTES));
}

bool probe_can_be_led(const json_t *c, const json_t *probe, const struct wishes *w,
                      const struct inject_options *o, uint16_t *ret_port)
{
    const json_t *http = tree_object(probe, "httpGet"), *tcp = tree_object(probe, "tcpSocket");
    const json_t *grpc = tree_object(probe, "grpc");
    const json_t *handler = http != NULL ? http : tcp != NULL ? tcp : grpc;
    int n = (http != NULL) + (tcp != NULL) + (grpc != NULL);
    if (n != 1 || !is_label(tree_text(c, "name")) || json_object_get(handler, "host") != NULL) {
        return false;
    }
    *ret_port = port_of(c, json_object_get(handler, "port"));
    return *ret_port != 0 && wishes_capture(w, o, *ret_port) &&
           (http == NULL || can_lead_http(http)) && (grpc == NULL || can_lead_grpc(grpc));
}

void refuse_probes(struct pod *p, const struct wishes *w, const struct inject_options *o)
{
    size_t n = 0, bytes = 0;
    for (const char *const *list = lists; *list != NULL; list++) {
        size_t i;
        json_t *c;
        json_array_foreach(tree_array(p->spec, *list), i, c)
        {
            for (const char *const *k = probe_kinds; *k != NULL; k++) {
                const json_t *probe = tree_object(c, *k);
                uint16_t port;
                if (probe_can_be_led(c, probe, w, o, &port)) {
                    n++;
                    bytes += json_dumpb(probe, NULL, 0, JSON_COMPACT);
                }
            }
        }
    }
    if (n > PROBES_MAX || bytes > ALL_MAX_BYTES) {
        pod_refuse(p, "spec", "more probes than can be led to the sidecar (%d, %d KiB)", PROBES_MAX,
                   ALL_MAX_BYTES / 1024);
    }
}

/* --- leading ---------------------------------------------------------------------------------- */
static void probe_name(const json_t *c, const char *kind, char *ret, size_t size)
{
    (void)snprintf(ret, size, "%s.%.*s", tree_text(c, "name"),
                   (int)(strlen(kind) - strlen("Probe")), kind);
}

/* As the proxy's file says it: {name, port, protocol, path, host, headers: [text], service}. */
static json_t *make_question(const char *name, const json_t *probe, uint16_t port)
{
    const json_t *http = tree_object(probe, "httpGet"), *grpc = tree_object(probe, "grpc");
    const char *protocol = http != NULL ? "http" : grpc != NULL ? "grpc" : "tcp";
    json_t *q = json_pack("{s:s, s:i, s:s}", "name", name, "port", (int)port, "protocol", protocol);
    json_t *lines = json_array();
    const char *path = tree_text(http, "path"), *service = tree_text(grpc, "service");
    size_t i;
    json_t *h;
    POSTERN_ASSERT(q != NULL);
    if (path != NULL && path[0] != '\0') {
        mem_autofree char *whole = mem_must_printf("%s%s", path[0] == '/' ? "" : "/", path);
        json_object_set_new(q, "path", json_string(whole));
    }
    if (service != NULL && service[0] != '\0') {
        json_object_set_new(q, "service", json_string(service));
    }
    json_array_foreach(tree_array(http, "httpHeaders"), i, h)
    {
        const char *key = tree_text(h, "name"), *value = tree_text(h, "value");
        mem_autofree char *line = mem_must_printf("%s: %s", key, value);
        if (!str_eq_nocase(str_of(key), STR_LIT("host"))) {
            json_array_append_new(lines, json_string(line));
        } else if (value[0] != '\0' && strchr(value, ' ') == NULL) {
            json_object_set_new(q, "host", json_string(value));
        }
    }
    json_object_set_new(q, "headers", lines);
    return q;
}

static void lead_one(const json_t *c, const char *kind, json_t *probe, uint16_t port,
                     json_t *questions, json_t *before)
{
    char name[100], path[120];
    probe_name(c, kind, name, sizeof(name));
    (void)snprintf(path, sizeof(path), "/probe/%s", name);
    json_array_append_new(questions, make_question(name, probe, port));
    json_t *was = json_object();
    for (const char *const *h = handlers; *h != NULL; h++) {
        json_t *handler = json_object_get(probe, *h);
        if (handler != NULL) {
            json_object_set(was, *h, handler);
            json_object_del(probe, *h);
        }
    }
    json_object_set_new(before, name, was);
    json_object_set_new(
        probe, "httpGet",
        json_pack("{s:s, s:i, s:s}", "path", path, "port", INJECT_PROBE_PORT, "scheme", "HTTP"));
}

json_t *probes_lead(json_t *pod, const struct wishes *w, const struct inject_options *o)
{
    json_t *spec = json_object_get(pod, "spec");
    json_t *annotations = json_object_get(json_object_get(pod, "metadata"), "annotations");
    json_t *questions = json_array(), *before = json_object();
    for (const char *const *list = lists; *list != NULL; list++) {
        size_t i;
        json_t *c;
        json_array_foreach(tree_array(spec, *list), i, c)
        {
            for (const char *const *k = probe_kinds; !container_is_ours(c) && *k != NULL; k++) {
                json_t *probe = tree_object(c, *k);
                uint16_t port;
                if (probe_can_be_led(c, probe, w, o, &port)) {
                    lead_one(c, *k, probe, port, questions, before);
                }
            }
        }
    }
    json_object_del(annotations, INJECT_PROBES);
    if (json_object_size(before) > 0) {
        char *text = json_dumps(before, JSON_COMPACT | JSON_PRESERVE_ORDER);
        POSTERN_ASSERT(text != NULL);
        json_object_set_new(annotations, INJECT_PROBES, json_string(text));
        free(text);
    }
    json_decref(before);
    return questions;
}

/* --- back ------------------------------------------------------------------------------------- */
static void restore_one(json_t *c, const char *kind, const json_t *before)
{
    json_t *probe = tree_object(c, kind);
    const json_t *http = tree_object(probe, "httpGet");
    const char *path = tree_text(http, "path");
    char name[100], ours[120];
    if (path == NULL || tree_text(c, "name") == NULL) {
        return;
    }
    probe_name(c, kind, name, sizeof(name));
    (void)snprintf(ours, sizeof(ours), "/probe/%s", name);
    json_t *was = tree_object(before, name);
    bool known = false;
    for (const char *const *h = handlers; *h != NULL; h++) {
        known = known || tree_object(was, *h) != NULL;
    }
    if (strcmp(path, ours) != 0 || !known ||
        json_integer_value(json_object_get(http, "port")) != INJECT_PROBE_PORT) {
        return;
    }
    json_object_del(probe, "httpGet");
    for (const char *const *h = handlers; *h != NULL; h++) {
        json_t *handler = json_object_get(was, *h);
        if (handler != NULL) {
            json_object_set_new(probe, *h, json_deep_copy(handler));
        }
    }
}

void probes_restore(json_t *pod)
{
    json_t *spec = json_object_get(pod, "spec");
    json_t *annotations = tree_object(tree_object(pod, "metadata"), "annotations");
    const char *text = tree_text(annotations, INJECT_PROBES);
    json_t *before = text != NULL ? json_loads(text, JSON_REJECT_DUPLICATES, NULL) : NULL;
    for (const char *const *list = lists; *list != NULL; list++) {
        size_t i;
        json_t *c;
        json_array_foreach(tree_array(spec, *list), i, c)
        {
            for (const char *const *k = probe_kinds; *k != NULL; k++) {
                restore_one(c, *k, before);
            }
        }
    }
    json_decref(before);
    json_object_del(annotations, INJECT_PROBES);
}
