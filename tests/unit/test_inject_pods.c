/* inject: pods that pretend to have the sidecar, or that others have changed; what goes in, and
 * that it goes out again. */
#include "pods.h"

#include <postern/conf.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

/* --- again ------------------------------------------------------------------------------------ */
/* What the API server adds stays, and changes nothing. */
static void test_after_the_api_server(void **state)
{
    static const char *const lists[] = {"initContainers", "initContainers"};
    static const char *const names[] = {"postern-intercept", "postern-proxy"};
    struct pod_said s = {.text = BUF_INIT(1 << 16)};
    struct inject_tell tell = {pod_on_tell, &s};
    struct inject_options o = pod_options();
    (void)state;
    json_t *pod = pod_injected(POD(APP), &o);
    for (size_t i = 0; i < 2; i++) {
        json_t *c = pod_member(pod, lists[i], names[i]);
        json_t *mounts = json_object_get(c, "volumeMounts");
        if (mounts == NULL) {
            mounts = json_array();
            json_object_set_new(c, "volumeMounts", mounts);
        }
        json_object_set_new(c, "terminationMessagePath", json_string("/dev/termination-log"));
        json_object_set_new(c, "terminationMessagePolicy", json_string("File"));
        json_array_append_new(mounts, json_pack("{s:s, s:b, s:s}", "name", "kube-api-access-x",
                                                "readOnly", 1, "mountPath",
                                                "/var/run/secrets/kubernetes.io/serviceaccount"));
        json_object_set_new(json_object_get(c, "resources"), "limits",
                            json_pack("{s:s}", "memory", "1Gi"));
    }
    assert_int_equal(inject_document(pod, &o, &tell), INJECT_UNCHANGED);
    o.image = "registry.example/postern:0.2";
    assert_int_equal(inject_document(pod, &o, &tell), INJECT_CHANGED);
    assert_string_equal(json_string_value(json_object_get(
                            pod_member(pod, "initContainers", "postern-proxy"), "image")),
                        o.image);
    json_decref(pod);
    buf_reset(&s.text);
}

/* A pod that says it has been injected, with something else in the sidecar's place. */
static void set_command(json_t *c)
{
    json_object_set_new(c, "command", json_pack("[s]", "/bin/sh"));
}

static void set_privileged(json_t *c)
{
    json_object_set_new(json_object_get(c, "securityContext"), "privileged", json_true());
}

static void set_env(json_t *c)
{
    json_array_append_new(json_object_get(c, "env"),
                          json_pack("{s:s, s:s}", "name", "LD_PRELOAD", "value", "/x"));
}

static void set_mount(json_t *c)
{
    json_array_append_new(
        json_object_get(c, "volumeMounts"),
        json_pack("{s:s, s:b, s:s}", "name", "x", "readOnly", 1, "mountPath", "/usr/bin"));
}

static void set_image(json_t *c)
{
    json_object_set_new(c, "image", json_string("evil"));
}

static void set_socket_elsewhere(json_t *c)
{
    json_object_set_new(json_array_get(json_object_get(c, "volumeMounts"), 0), "subPath",
                        json_string("x"));
}

static void test_pretending(void **state)
{
    static void (*const changes[])(json_t *) = {set_command, set_privileged, set_env,
                                                set_mount,   set_image,      set_socket_elsewhere};
    struct inject_options o = pod_options();
    (void)state;
    for (size_t i = 0; i < sizeof(changes) / sizeof(changes[0]); i++) {
        struct pod_said s = {.text = BUF_INIT(1 << 16)};
        struct inject_tell tell = {pod_on_tell, &s};
        json_t *pod = pod_injected(POD(APP), &o);
        json_t *want = json_deep_copy(pod);
        changes[i](pod_member(pod, "initContainers", "postern-proxy"));
        assert_int_equal(inject_document(pod, &o, &tell), INJECT_CHANGED);
        assert_true(json_equal(pod, want));
        json_decref(want);
        json_decref(pod);
        buf_reset(&s.text);
    }
}

/* Moved, doubled, in the wrong list, or with the annotation alone. */
static void test_pretending_whole(void **state)
{
    struct pod_said s = {.text = BUF_INIT(1 << 16)};
    struct inject_tell tell = {pod_on_tell, &s};
    struct inject_options o = pod_options();
    (void)state;
    json_t *want = pod_injected(POD(APP), &o);
    json_t *pod = json_deep_copy(want);
    json_t *spec = json_object_get(pod, "spec");
    json_t *init = json_object_get(spec, "initContainers");
    json_array_append_new(json_object_get(spec, "containers"),
                          json_pack("{s:s, s:s}", "name", "postern-proxy", "image", "evil"));
    json_array_append(init, json_array_get(init, 0));
    json_array_remove(init, 0);
    json_array_append_new(init, json_pack("{s:s}", "name", "postern-proxy"));
    json_array_append_new(json_object_get(spec, "volumes"),
                          json_pack("{s:s, s:{}}", "name", "postern-agent", "emptyDir"));
    assert_int_equal(inject_document(pod, &o, &tell), INJECT_CHANGED);
    assert_true(json_equal(pod, want));
    json_decref(pod);
    pod = pod_tree(NOTED("injected", "\"v1 metadata annotations \\u0001\""));
    assert_int_equal(inject_document(pod, &o, &tell), INJECT_CHANGED);
    assert_non_null(pod_member(pod, "initContainers", "postern-proxy"));
    json_decref(pod);
    json_decref(want);
    buf_reset(&s.text);
}

/* --- what goes in, and out -------------------------------------------------------------------- */
#define TEMPLATE "{metadata: {labels: {a: b}}, spec: {containers: [{name: app, image: a}]}}"
static const char *const workloads[] = {
    POD(APP),
    POD("  initContainers: [{name: first}, {name: side, restartPolicy: Always}]\n"
        "  volumes: [{name: v, emptyDir: {}}]\n" APP),
    POD("  initContainers: []\n  volumes: []\n" APP),
    "apiVersion: v1\nkind: Pod\nspec: {containers: [{name: app}]}\n",
    "apiVersion: v1\nkind: Pod\nmetadata: {generateName: g-, annotations: {x: y}}\nspec:\n" APP,
    "apiVersion: v1\nkind: Pod\nmetadata: {annotations: {}}\nspec:\n" APP,
    "apiVersion: v1\nkind: ReplicationController\nspec: {template: " TEMPLATE "}\n",
    "apiVersion: apps/v1\nkind: Deployment\nspec: {template: " TEMPLATE "}\n",
    "apiVersion: apps/v1\nkind: ReplicaSet\nspec: {template: " TEMPLATE "}\n",
    "apiVersion: apps/v1\nkind: StatefulSet\nspec: {template: " TEMPLATE "}\n",
    "apiVersion: apps/v1\nkind: DaemonSet\nspec: {template: " TEMPLATE "}\n",
    "apiVersion: batch/v1\nkind: Job\nspec: {template: " TEMPLATE "}\n",
    "apiVersion: batch/v1\nkind: CronJob\nspec: {jobTemplate: {spec: {template: " TEMPLATE "}}}\n",
    POD("  initContainers: [{name: side, restartPolicy: Always, startupProbe: {tcpSocket: {port: "
        "'70'}, periodSeconds: 3}}]\n"
        "  containers: [{name: app, ports: [{name: web, containerPort: 80}], readinessProbe: "
        "{httpGet: {path: /r, port: web, httpHeaders: [{name: X-A, value: b c}]}}, livenessProbe: "
        "{httpGet: {port: 80, scheme: HTTP}}}, {name: other, readinessProbe: {exec: {command: "
        "[x]}}}]\n"),
    "apiVersion: v1\nkind: List\nitems: [{apiVersion: v1, kind: Service}, {apiVersion: v1, kind: "
    "Pod, spec: {containers: [{name: app}]}}]\n",
};

static void do_way(const char *yaml, const struct inject_options *o)
{
    struct pod_said s = {.text = BUF_INIT(1 << 16)};
    struct inject_tell tell = {pod_on_tell, &s};
    json_t *tree = pod_tree(yaml);
    json_t *before = json_deep_copy(tree);
    char *again;
    enum inject_outcome r = inject_document(tree, o, &tell);
    if (r != INJECT_CHANGED) {
        fail_msg("%s\n-> %d: %.*s", yaml, (int)r, STR_ARG(buf_str(&s.text)));
    }
    char *once = json_dumps(tree, JSON_PRESERVE_ORDER);
    assert_int_equal(inject_document(tree, o, &tell), INJECT_UNCHANGED);
    again = json_dumps(tree, JSON_PRESERVE_ORDER);
    assert_string_equal(once, again);
    assert_int_equal(uninject_document(tree, &tell), INJECT_CHANGED);
    assert_true(json_equal(tree, before));
    assert_int_equal(uninject_document(tree, &tell), INJECT_UNCHANGED);
    free(once);
    free(again);
    json_decref(before);
    json_decref(tree);
    buf_reset(&s.text);
}

static void test_in_and_out(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof(workloads) / sizeof(workloads[0]); i++) {
        struct inject_options o = pod_options();
        do_way(workloads[i], &o);
        o.no_intercept = true;
        do_way(workloads[i], &o);
        o.classic = strstr(workloads[i], "Job") == NULL;
        do_way(workloads[i], &o);
        o.no_intercept = false;
        do_way(workloads[i], &o);
    }
}

static const char *const untouched[] = {
    "apiVersion: apps.example.org/v1\nkind: StatefulSet\n",
    "apiVersion: v1\nkind: Service\nmetadata: {annotations: {postern.dev/x: y}}\n",
    "apiVersion: apps.example.org/v1\nkind: Deployment\nspec: {x: 1}\n",
    "apiVersion: apiextensions.k8s.io/v1\nkind: CustomResourceDefinition\nspec: {}\n",
    "apiVersion: v1\nkind: Deployment\n",
    "kind: Pod\n",
    "[1, 2]",
    "null",
    "text",
};

static void test_untouched(void **state)
{
    struct inject_options o = pod_options();
    (void)state;
    for (size_t i = 0; i < sizeof(untouched) / sizeof(untouched[0]); i++) {
        struct pod_said s = {.text = BUF_INIT(1 << 16)};
        struct inject_tell tell = {pod_on_tell, &s};
        json_t *tree = pod_tree(untouched[i]);
        assert_int_equal(inject_document(tree, &o, &tell), INJECT_UNCHANGED);
        assert_int_equal(uninject_document(tree, &tell), INJECT_UNCHANGED);
        assert_int_equal(s.n_told + s.n_refused, 0);
        json_decref(tree);
        buf_reset(&s.text);
    }
}

/* First interception, then the sidecar, then the rest; in classic mode the other way round. */
static void test_order(void **state)
{
    static const char yaml[] =
        POD("  initContainers: [{name: first}, {name: side, restartPolicy: Always}]\n" APP);
    struct inject_options o = pod_options();
    size_t at = 9;
    (void)state;
    json_t *pod = pod_injected(yaml, &o);
    assert_non_null(pod_find(pod, "initContainers", "postern-intercept", &at));
    assert_int_equal(at, 0);
    const json_t *proxy = pod_find(pod, "initContainers", "postern-proxy", &at);
    assert_non_null(proxy);
    assert_int_equal(at, 1);
    assert_string_equal(json_string_value(json_object_get(proxy, "restartPolicy")), "Always");
    json_decref(pod);
    o.classic = true;
    pod = pod_injected(yaml, &o);
    assert_non_null(pod_find(pod, "initContainers", "postern-intercept", &at));
    assert_int_equal(at, 2);
    proxy = pod_find(pod, "containers", "postern-proxy", &at);
    assert_non_null(proxy);
    assert_int_equal(at, 1);
    assert_null(json_object_get(proxy, "restartPolicy"));
    json_decref(pod);
}

/* The proxy's file is one, and says what was asked for; it holds nothing that the kubelet expands.
 */
static void test_proxy_file(void **state)
{
    struct inject_options o = pod_options();
    struct conf_diag *diag = conf_diag_new();
    struct conf_proxy *conf = NULL;
    size_t at;
    (void)state;
    json_t *pod =
        pod_injected("apiVersion: v1\nkind: Pod\nmetadata: {annotations: {postern.dev/ports: "
                     "'8080/http,70/tcp', postern.dev/spiffe-id: 'spiffe://td/a', "
                     "postern.dev/log-level: debug, postern.dev/access-log: denied}}\nspec:\n" APP,
                     &o);
    const json_t *proxy = pod_find(pod, "initContainers", "postern-proxy", &at);
    const char *text = json_string_value(
        json_object_get(json_array_get(json_object_get(proxy, "env"), 0), "value"));
    assert_non_null(text);
    assert_null(strchr(text, '$'));
    assert_int_equal(conf_parse_proxy("x", text, strlen(text), diag, &conf), 0);
    assert_string_equal(conf->identity.socket, "/run/postern/agent.sock");
    assert_string_equal(conf->identity.spiffe_id, "spiffe://td/a");
    assert_int_equal(conf->state.from, CONF_STATE_AGENT);
    assert_int_equal(conf->n_listeners, 4);
    assert_int_equal(conf->listeners[2].n_ports, 2);
    assert_int_equal(conf->listeners[3].capture, CONF_HBONE);
    assert_int_equal(conf->listeners[3].n_ports, 2);
    assert_int_equal(conf->listeners[3].ports[0].protocol, CONF_PROTOCOL_HTTP);
    assert_int_equal(conf->listeners[2].ports[0].protocol, CONF_PROTOCOL_HTTP);
    assert_int_equal(conf->log_level, LOG_DEBUG);
    assert_int_equal(conf->access_log, CONF_ACCESS_DENIED);
    assert_null(conf->policy_path);
    conf_proxy_free(conf);
    conf_diag_free(diag);
    json_decref(pod);
}

static json_int_t probe_port(const json_t *container, const char *probe)
{
    const json_t *get = json_object_get(json_object_get(container, probe), "httpGet");
    return json_integer_value(json_object_get(get, "port"));
}

/* What is asked of interception is in its command line, and the proxy's file and rights fit. */
static void test_interception(void **state)
{
    struct inject_options o = pod_options();
    struct conf_diag *diag = conf_diag_new();
    struct conf_proxy *conf = NULL;
    size_t at;
    (void)state;
    json_t *pod = pod_injected(
        "apiVersion: v1\nkind: Pod\nmetadata: {annotations: {postern.dev/inbound-mode: "
        "tproxy, postern.dev/udp: drop, postern.dev/uncaptured: drop, postern.dev/canary: "
        "'on', postern.dev/exclude-outbound-uids: '998,2000-2099'}}\nspec:\n" APP,
        &o);
    const json_t *rules = pod_find(pod, "initContainers", "postern-intercept", &at);
    char *args = json_dumps(json_object_get(rules, "args"), JSON_COMPACT);
    assert_non_null(args);
    assert_non_null(strstr(args, "\"--exclude-uids\",\"998,2000-2099\",\"--inbound-mode\","
                                 "\"tproxy\",\"--udp\",\"drop\",\"--drop-all\""));
    const json_t *proxy = pod_find(pod, "initContainers", "postern-proxy", &at);
    assert_int_equal(probe_port(proxy, "startupProbe"), INJECT_METRICS_PORT);
    assert_int_equal(probe_port(proxy, "readinessProbe"), 15010);
    const json_t *security = json_object_get(proxy, "securityContext");
    assert_int_equal(json_integer_value(json_object_get(security, "runAsUser")), 0);
    assert_true(json_is_false(json_object_get(security, "runAsNonRoot")));
    const json_t *added = json_object_get(json_object_get(security, "capabilities"), "add");
    assert_int_equal(json_array_size(added), 4);
    assert_string_equal(json_string_value(json_array_get(added, 0)), "NET_RAW");
    const char *text = json_string_value(
        json_object_get(json_array_get(json_object_get(proxy, "env"), 0), "value"));
    assert_non_null(text);
    assert_int_equal(conf_parse_proxy("x", text, strlen(text), diag, &conf), 0);
    assert_int_equal(conf->run_as, INJECT_UID);
    assert_true(conf->listeners[2].transparent);
    /* HBONE's port is left out of the rules, and the sidecar's own listener stands there. */
    assert_int_equal(conf->n_listeners, 4);
    assert_int_equal(conf->listeners[3].capture, CONF_HBONE);
    assert_null(strstr(args, "--hbone-port"));
    free(args);
    assert_int_equal(conf->interception.canary, CONF_CANARY_ON);
    conf_proxy_free(conf);
    conf_diag_free(diag);
    json_decref(pod);

    /* And without: none of it. */
    pod = pod_injected("apiVersion: v1\nkind: Pod\nspec:\n" APP, &o);
    proxy = pod_find(pod, "initContainers", "postern-proxy", &at);
    assert_int_equal(probe_port(proxy, "readinessProbe"), INJECT_METRICS_PORT);
    security = json_object_get(proxy, "securityContext");
    assert_int_equal(json_integer_value(json_object_get(security, "runAsUser")), INJECT_UID);
    assert_null(json_object_get(json_object_get(security, "capabilities"), "add"));
    json_decref(pod);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_after_the_api_server),
        cmocka_unit_test(test_pretending),
        cmocka_unit_test(test_pretending_whole),
        cmocka_unit_test(test_in_and_out),
        cmocka_unit_test(test_untouched),
        cmocka_unit_test(test_order),
        cmocka_unit_test(test_proxy_file),
        cmocka_unit_test(test_interception),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
