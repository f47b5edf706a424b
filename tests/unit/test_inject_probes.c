/* inject: the questions of a kubelet, which the sidecar asks in its place: what is not believed,
 * and what becomes of them. */
#include "pods.h"

#include <postern/conf.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static json_t *notes_of(json_t *pod)
{
    return json_object_get(json_object_get(pod, "metadata"), "annotations");
}

/* The note of what they were is a stranger's text: what it does not say is made up by nobody. */
static void test_probes_note_is_not_believed(void **state)
{
    static const char *const notes[] = {"",
                                        "{",
                                        "[]",
                                        "{\"app.readiness\": 1}",
                                        "{\"app.readiness\": {\"exec\": {}, \"x\": 1}}",
                                        "{\"app.readiness\": {\"httpGet\": 7}}"};
    (void)state;
    for (size_t i = 0; i < sizeof(notes) / sizeof(notes[0]); i++) {
        struct pod_said s = {.text = BUF_INIT(1 << 16)};
        struct inject_tell tell = {pod_on_tell, &s};
        struct inject_options o = pod_options();
        json_t *pod =
            pod_injected(POD("  containers: [{name: app, readinessProbe: {httpGet: {port: "
                             "80}}}]\n"),
                         &o);
        json_object_set_new(notes_of(pod), "postern.dev/probes", json_string(notes[i]));
        json_t *before = json_deep_copy(pod);
        assert_int_equal(inject_document(pod, &o, &tell), INJECT_REFUSED);
        assert_int_equal(uninject_document(pod, &tell), INJECT_REFUSED);
        assert_int_equal(s.n_refused, 2);
        assert_true(json_equal(pod, before));
        json_decref(before);
        json_decref(pod);
        buf_reset(&s.text);
    }
}

/* Whoever gives a container another name by hand does not lose its probe by what comes after. */
static void test_probes_of_a_renamed_container(void **state)
{
    struct pod_said s = {.text = BUF_INIT(1 << 16)};
    struct inject_tell tell = {pod_on_tell, &s};
    struct inject_options o = pod_options();
    (void)state;
    json_t *pod = pod_injected(
        POD("  containers: [{name: app, livenessProbe: {httpGet: {port: 80}}}]\n"), &o);
    json_object_set_new(pod_member(pod, "containers", "app"), "name", json_string("web"));
    json_t *before = json_deep_copy(pod);
    assert_int_equal(uninject_document(pod, &tell), INJECT_REFUSED);
    assert_int_equal(inject_document(pod, &o, &tell), INJECT_REFUSED);
    assert_true(json_equal(pod, before));
    assert_true(buf_append(&s.text, "", 1));
    assert_non_null(strstr((const char *)buf_head(&s.text), "livenessProbe asks port 15021"));
    json_decref(before);
    json_decref(pod);
    buf_reset(&s.text);
}

/* More than one variable can hold. */
static void test_probes_bound(void **state)
{
    struct inject_options o = pod_options();
    struct pod_said s = {.text = BUF_INIT(1 << 16)};
    struct inject_tell tell = {pod_on_tell, &s};
    (void)state;
    json_t *pod = pod_tree(POD("  containers: [{name: app}]\n"));
    json_t *list = json_object_get(json_object_get(pod, "spec"), "containers");
    for (int i = 0; i < 70; i++) {
        char name[20];
        (void)snprintf(name, sizeof(name), "c%d", i);
        json_array_append_new(list, json_pack("{s:s, s:{s:{s:i}}}", "name", name, "livenessProbe",
                                              "tcpSocket", "port", 80));
    }
    assert_int_equal(inject_document(pod, &o, &tell), INJECT_REFUSED);
    json_decref(pod);
    buf_reset(&s.text);
}

/* What the kubelet would ask, the sidecar asks, by what its file says. */
static void test_probes(void **state)
{
    struct inject_options o = pod_options();
    struct conf_diag *diag = conf_diag_new();
    struct conf_proxy *conf = NULL;
    size_t at;
    (void)state;
    json_t *pod = pod_injected(
        POD("  containers: [{name: app, ports: [{name: web, containerPort: 80}], readinessProbe: "
            "{periodSeconds: 7, httpGet: {path: \"r?a=b&c='d'\", port: web, httpHeaders: [{name: "
            "X-A, value: "
            "'b: #c'}, {name: hOst, value: h.example}]}}, livenessProbe: {tcpSocket: {port: "
            "81}}}]\n"),
        &o);
    const json_t *probe =
        json_object_get(pod_find(pod, "containers", "app", &at), "readinessProbe");
    json_t *want = json_loads("{\"periodSeconds\": 7, \"httpGet\": {\"path\": "
                              "\"/probe/app.readiness\", \"port\": 15021, \"scheme\": \"HTTP\"}}",
                              0, NULL);
    assert_true(json_equal(probe, want));
    json_decref(want);
    const char *text = json_string_value(json_object_get(
        json_array_get(
            json_object_get(pod_find(pod, "initContainers", "postern-proxy", &at), "env"), 0),
        "value"));
    assert_int_equal(conf_parse_proxy("x", text, strlen(text), diag, &conf), 0);
    assert_int_equal(conf->probes.n, 2);
    const struct conf_probe *live = &conf->probes.items[0], *ready = &conf->probes.items[1];
    assert_string_equal(live->name, "app.liveness");
    assert_int_equal(live->protocol, CONF_PROBE_TCP);
    assert_int_equal(live->port, 81);
    assert_string_equal(ready->name, "app.readiness");
    assert_int_equal(ready->protocol, CONF_PROBE_HTTP);
    assert_int_equal(ready->port, 80);
    assert_string_equal(ready->path, "/r?a=b&c='d'");
    assert_string_equal(ready->host, "h.example");
    assert_int_equal(ready->headers.n, 1);
    assert_string_equal(ready->headers.items[0], "X-A: b: #c");
    conf_proxy_free(conf);
    conf_diag_free(diag);
    json_decref(pod);
}

static const struct conf_probe *only_probe(json_t *pod, struct conf_proxy **ret_conf)
{
    struct conf_diag *diag = conf_diag_new();
    size_t at;
    const json_t *env =
        json_object_get(pod_find(pod, "initContainers", "postern-proxy", &at), "env");
    const char *text = json_string_value(json_object_get(json_array_get(env, 0), "value"));
    assert_int_equal(conf_parse_proxy("x", text, strlen(text), diag, ret_conf), 0);
    conf_diag_free(diag);
    assert_int_equal((*ret_conf)->probes.n, 1);
    return &(*ret_conf)->probes.items[0];
}

/* The API server fills in `service: ""` where there is none. */
static void test_grpc_probes(void **state)
{
    static const struct {
        const char *grpc, *service;
    } cases[] = {{"{port: 82}", NULL},
                 {"{port: 82, service: ''}", NULL},
                 {"{port: 82, service: live.v1}", "live.v1"}};
    struct inject_options o = pod_options();
    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct pod_said s = {.text = BUF_INIT(1 << 16)};
        struct inject_tell tell = {pod_on_tell, &s};
        struct conf_proxy *conf = NULL;
        struct buf text = BUF_INIT(1 << 16);
        size_t at;
        assert_true(buf_printf(&text,
                               POD("  containers: [{name: app, readinessProbe: {timeoutSeconds: "
                                   "3, grpc: %s}}]\n"),
                               cases[i].grpc));
        assert_true(buf_append(&text, "", 1));
        json_t *before = pod_tree((const char *)buf_head(&text));
        json_t *pod = pod_injected((const char *)buf_head(&text), &o);
        const json_t *probe =
            json_object_get(pod_find(pod, "containers", "app", &at), "readinessProbe");
        assert_null(json_object_get(probe, "grpc"));
        assert_int_equal(json_integer_value(json_object_get(probe, "timeoutSeconds")), 3);
        assert_string_equal(
            json_string_value(json_object_get(json_object_get(probe, "httpGet"), "path")),
            "/probe/app.readiness");
        const struct conf_probe *asked = only_probe(pod, &conf);
        assert_int_equal(asked->protocol, CONF_PROBE_GRPC);
        assert_int_equal(asked->port, 82);
        assert_true(cases[i].service == NULL ? asked->service == NULL
                                             : strcmp(asked->service, cases[i].service) == 0);
        assert_int_equal(uninject_document(pod, &tell), INJECT_CHANGED);
        assert_true(json_equal(pod, before));
        conf_proxy_free(conf);
        json_decref(before);
        json_decref(pod);
        buf_reset(&text);
        buf_reset(&s.text);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_probes_note_is_not_believed),
        cmocka_unit_test(test_probes_of_a_renamed_container),
        cmocka_unit_test(test_probes_bound),
        cmocka_unit_test(test_probes),
        cmocka_unit_test(test_grpc_probes),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
