/* sidecar: the containers and the volume that go into a pod. What the API server would add by
 * default is written out where it can be, so that it adds little. */
#include "inject_priv.h"

#include <postern/intercept.h>
#include <postern/mem.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define AGENT_MOUNT "/run/postern"
#define VARIABLE "POSTERN_PROXY"

static const char *level_name(enum log_level level)
{
    static const char *const names[] = {
        [LOG_ERROR] = "error", [LOG_WARN] = "warn", [LOG_INFO] = "info", [LOG_DEBUG] = "debug"};
    return names[level];
}

/* The proxy's file. Everything in it was checked, and nothing holds a `$`, which the kubelet would
 * expand in a variable. */
static bool put_questions(struct buf *out, const json_t *questions, const char *any)
{
    bool ok = json_array_size(questions) == 0 ||
              buf_printf(out, "probes:\n  address: \"%s:%d\"\n  list:\n", any, INJECT_PROBE_PORT);
    size_t i, k;
    json_t *q, *line;
    json_array_foreach(questions, i, q)
    {
        const char *path = tree_text(q, "path"), *host = tree_text(q, "host");
        const char *service = tree_text(q, "service");
        const json_t *headers = tree_array(q, "headers");
        ok = ok &&
             buf_printf(out, "    - name: %s\n      port: %d\n      protocol: %s\n",
                        tree_text(q, "name"), (int)json_integer_value(json_object_get(q, "port")),
                        tree_text(q, "protocol"));
        ok = ok && (path == NULL || buf_printf(out, "      path: \"%s\"\n", path)) &&
             (host == NULL || buf_printf(out, "      host: \"%s\"\n", host)) &&
             (service == NULL || buf_printf(out, "      service: \"%s\"\n", service)) &&
             (json_array_size(headers) == 0 || buf_printf(out, "      headers:\n"));
        json_array_foreach(headers, k, line)
        {
            ok = ok && buf_printf(out, "        - \"%s\"\n", json_string_value(line));
        }
    }
    return ok;
}

static bool put_ports(struct buf *out, const struct wishes *w)
{
    bool ok = true;
    for (size_t i = 0; i < w->n_ports; i++) {
        ok = ok && (i > 0 || buf_printf(out, "    ports:\n")) &&
             buf_printf(out, "      - port: %u\n        protocol: %s\n", w->ports[i].port,
                        w->ports[i].http ? "http" : "tcp");
    }
    return ok;
}

static char *proxy_file(const struct wishes *w, const struct inject_options *o,
                        const json_t *questions)
{
    struct buf out = BUF_INIT(2 << 20);
    const char *any = o->ipv4_only ? "0.0.0.0" : "[::]";
    bool ok = buf_printf(&out, "kind: Proxy\nlevel: 1\nidentity:\n  socket: unix:%s/%s\n",
                         AGENT_MOUNT, o->agent_socket);
    if (w->spiffe_id != NULL) {
        ok = ok && buf_printf(&out, "  spiffe_id: %s\n", w->spiffe_id);
    }
    ok = ok && buf_printf(&out,
                          "state:\n  from: agent\nlisteners:\n"
                          "  - name: outbound\n    direction: outbound\n"
                          "    capture: intercepted\n    address: 127.0.0.1:%d\n",
                          INJECT_OUTBOUND_PORT);
    if (!o->ipv4_only) {
        ok = ok && buf_printf(&out,
                              "  - name: outbound6\n    direction: outbound\n"
                              "    capture: intercepted\n    address: \"[::1]:%d\"\n",
                              INJECT_OUTBOUND_PORT);
    }
    ok = ok && buf_printf(&out,
                          "  - name: inbound\n    direction: inbound\n"
                          "    capture: intercepted\n    address: \"%s:%d\"\n",
                          any, INJECT_INBOUND_PORT);
    ok = ok && (!w->tproxy || buf_printf(&out, "    transparent: true\n"));
    ok = ok && put_ports(&out, w);
    ok = ok && buf_printf(&out,
                          "  - name: hbone\n    direction: inbound\n"
                          "    capture: hbone\n    address: \"%s:%d\"\n",
                          any, INJECT_HBONE_PORT);
    ok = ok && put_ports(&out, w);
    ok = ok && buf_printf(&out,
                          "metrics:\n  address: \"%s:%d\"\n"
                          "log:\n  level: %s\n  access: %s\n",
                          any, INJECT_METRICS_PORT, level_name(w->log_level),
                          w->access_log == CONF_ACCESS_DENIED ? "denied" : "all");
    ok = ok && (!w->canary || buf_printf(&out, "interception:\n  canary: on\n"));
    ok = ok && (!w->tproxy || buf_printf(&out, "run_as: %u\n", (unsigned)o->proxy_uid));
    ok = ok && put_questions(&out, questions, any);
    POSTERN_ASSERT(ok); /* it has a bound, and so has all that goes in */
    char *text = mem_must_strndup((const char *)buf_head(&out), buf_len(&out));
    buf_reset(&out);
    return text;
}

static json_t *must(json_t *v)
{
    POSTERN_ASSERT(v != NULL);
    return v;
}

static json_t *make_resources(const char *cpu, const char *memory, const char *cpu_limit,
                              const char *memory_limit)
{
    json_t *r = must(json_pack("{s:{s:s, s:s}}", "requests", "cpu", cpu, "memory", memory));
    json_t *limits = json_object();
    if (cpu_limit != NULL) {
        json_object_set_new(limits, "cpu", json_string(cpu_limit));
    }
    if (memory_limit != NULL) {
        json_object_set_new(limits, "memory", json_string(memory_limit));
    }
    if (json_object_size(limits) > 0) {
        json_object_set(r, "limits", limits);
    }
    json_decref(limits);
    return r;
}

/* Ready: an identity, and the agent's state. */
static json_t *make_probe(int port, int period_s, int failures)
{
    return must(json_pack("{s:{s:s, s:i, s:s}, s:i, s:i, s:i, s:i}", "httpGet", "path", "/ready",
                          "port", port, "scheme", "HTTP", "timeoutSeconds", 2, "periodSeconds",
                          period_s, "successThreshold", 1, "failureThreshold", failures));
}

json_t *make_proxy(const struct wishes *w, const struct inject_options *o, const json_t *questions)
{
    mem_autofree char *file = proxy_file(w, o, questions);
    json_t *c =
        must(json_pack("{s:s, s:s, s:s, s:[s, s, s], s:[{s:s, s:s}]}", "name", INJECT_PROXY_NAME,
                       "image", o->image, "imagePullPolicy", o->pull_policy, "args", "proxy",
                       "--env", VARIABLE, "env", "name", VARIABLE, "value", file));
    if (!w->classic) {
        json_object_set_new(c, "restartPolicy", json_string("Always"));
    }
    json_object_set_new(c, "ports",
                        must(json_pack("[{s:s, s:i, s:s}]", "name", "postern-metrics",
                                       "containerPort", INJECT_METRICS_PORT, "protocol", "TCP")));
    json_object_set_new(c, "resources",
                        make_resources(o->cpu, o->memory, o->cpu_limit, o->memory_limit));
    json_int_t uid = w->tproxy ? 0 : (json_int_t)o->proxy_uid;
    json_t *security = must(json_pack(
        "{s:{s:[s]}, s:I, s:I, s:b, s:b, s:b, s:{s:s}}", "capabilities", "drop", "ALL", "runAsUser",
        uid, "runAsGroup", uid, "runAsNonRoot", !w->tproxy, "readOnlyRootFilesystem", 1,
        "allowPrivilegeEscalation", 0, "seccompProfile", "type", "RuntimeDefault"));
    if (w->tproxy) { /* a capability reaches no user but root, so it becomes its own itself */
        json_object_set_new(
            json_object_get(security, "capabilities"), "add",
            must(json_pack("[s, s, s, s]", "NET_RAW", "SETGID", "SETPCAP", "SETUID")));
    }
    json_object_set_new(c, "securityContext", security);
    json_object_set_new(c, "startupProbe", make_probe(INJECT_METRICS_PORT, 1, 120));
    /* By the way of everybody else's connections: ready only while these are captured. */
    int ready_at = w->canary ? INTERCEPT_INBOUND_CANARY_PORT : INJECT_METRICS_PORT;
    json_object_set_new(c, "readinessProbe", make_probe(ready_at, 10, 3));
    json_object_set_new(c, "volumeMounts",
                        must(json_pack("[{s:s, s:s, s:b}]", "name", INJECT_VOLUME_NAME, "mountPath",
                                       AGENT_MOUNT, "readOnly", 1)));
    return c;
}

/* Root, for NET_ADMIN to be effective, and nothing of what root else could. */
json_t *make_rules(const struct wishes *w, const struct inject_options *o)
{
    json_t *c = must(json_pack("{s:s, s:s, s:s, s:o}", "name", INJECT_RULES_NAME, "image",
                               o->rules_image != NULL ? o->rules_image : o->image,
                               "imagePullPolicy", o->pull_policy, "args", rules_argv(w, o)));
    json_object_set_new(c, "resources", make_resources("10m", "16Mi", NULL, NULL));
    json_object_set_new(
        c, "securityContext",
        must(json_pack("{s:{s:[s], s:[s]}, s:i, s:i, s:b, s:b, s:b, s:{s:s}}", "capabilities",
                       "add", "NET_ADMIN", "drop", "ALL", "runAsUser", 0, "runAsGroup", 0,
                       "runAsNonRoot", 0, "readOnlyRootFilesystem", 1, "allowPrivilegeEscalation",
                       0, "seccompProfile", "type", "RuntimeDefault")));
    return c;
}

json_t *make_volume(const struct inject_options *o)
{
    return must(json_pack("{s:s, s:{s:s, s:s}}", "name", INJECT_VOLUME_NAME, "hostPath", "path",
                          o->agent_dir, "type", "Directory"));
}
