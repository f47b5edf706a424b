/* inject: which pods are refused, and what is told about others; options. */
#include "pods.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

/* --- what is refused -------------------------------------------------------------------------- */
static const struct {
    const char *yaml, *where, *what;
} refused[] = {
    {POD("  hostNetwork: true\n" APP), "Pod p: spec.hostNetwork", "node's own traffic"},
    {POD("  hostPID: true\n" APP), "Pod p: spec.hostPID", "sidecar's process"},
    {POD("  shareProcessNamespace: true\n" APP), "spec.shareProcessNamespace", "process"},
    {POD("  hostUsers: false\n" APP), "spec.hostUsers", "user namespace"},
    {POD("  os: {name: windows}\n" APP), "spec.os", "linux only"},
    {ONE("securityContext: {runAsUser: 64700}"), "spec.containers[0] (app)", "uid 64700"},
    {ONE("securityContext: {runAsUser: 0xfcbc}"), "spec.containers[0]", "uid 64700"},
    {ONE("securityContext: {runAsUser: \"1\"}"), "spec.containers[0]", "not a number"},
    {POD("  securityContext: {runAsUser: 64700}\n" APP), "spec.containers[0]", "uid 64700"},
    {POD("  initContainers: [{name: i, securityContext: {runAsUser: 64700}}]\n" APP),
     "spec.initContainers[0] (i)", "uid 64700"},
    {POD("  ephemeralContainers: [{name: e, securityContext: {privileged: true}}]\n" APP),
     "spec.ephemeralContainers[0] (e)", "privileged"},
    {ONE("securityContext: {privileged: true}"), "spec.containers[0]", "privileged"},
    {ONE("securityContext: {procMount: Unmasked}"), "spec.containers[0]", "procMount"},
    {ONE("securityContext: {windowsOptions: {hostProcess: true}}"), "spec.containers[0]", "host"},
    {ONE("securityContext: {capabilities: {add: [NET_ADMIN]}}"), "spec.containers[0]", "NET_ADMIN"},
    {ONE("securityContext: {capabilities: {add: [NET_BIND_SERVICE, NET_RAW]}}"), "containers[0]",
     "NET_RAW"},
    {ONE("securityContext: {capabilities: {add: [SETUID]}}"), "spec.containers[0]", "SETUID"},
    {ONE("securityContext: {capabilities: {add: [SETGID]}}"), "spec.containers[0]", "SETGID"},
    {ONE("securityContext: {capabilities: {add: [SYS_ADMIN]}}"), "spec.containers[0]", "SYS_ADMIN"},
    {ONE("securityContext: {capabilities: {add: [SYS_PTRACE]}}"), "spec.containers[0]",
     "SYS_PTRACE"},
    {ONE("securityContext: {capabilities: {add: [SYS_MODULE]}}"), "containers[0]", "SYS_MODULE"},
    {ONE("securityContext: {capabilities: {add: [BPF]}}"), "spec.containers[0]", "BPF"},
    {ONE("securityContext: {capabilities: {add: [ALL]}}"), "spec.containers[0]", "ALL"},
    {ONE("securityContext: {capabilities: {add: [cap_net_raw]}}"), "spec.containers[0]", "NET_RAW"},
    {ONE("securityContext: {capabilities: {add: [Net_Raw], drop: [ALL]}}"), "containers[0]",
     "NET_RAW"},
    {ONE("ports: [{containerPort: 15008}]"), "spec.containers[0]", "port 15008"},
    {ONE("ports: [{containerPort: 15006}]"), "spec.containers[0]", "port 15006"},
    {ONE("ports: [{containerPort: 15020, protocol: TCP}]"), "spec.containers[0]", "port 15020"},
    {ONE("ports: [{containerPort: 15021}]"), "spec.containers[0]", "port 15021"},
    {ONE("readinessProbe: {httpGet: {port: 15021, path: /probe/app.readiness}}"),
     "spec.containers[0] (app)", "readinessProbe asks port 15021"},
    {ONE("livenessProbe: {tcpSocket: {port: \"15006\"}}"), "spec.containers[0] (app)",
     "livenessProbe asks port 15006"},
    {ONE("lifecycle: {preStop: {httpGet: {port: 15020}}}"), "spec.containers[0] (app)",
     "preStop asks port 15020"},
    {ONE("volumeMounts: [{name: postern-agent, mountPath: /x}]"), "spec.containers[0]",
     "mounts postern-agent"},
    {POD("  volumes: [{name: postern-agent, emptyDir: {}}]\n" APP), "spec.volumes",
     "does not say that it has been injected"},
    {POD("  containers: [{name: postern-proxy, image: evil}]\n"), "spec.containers[0]",
     "postern-proxy is the sidecar's"},
    {POD("  initContainers: [{name: postern-intercept, image: evil}]\n" APP),
     "spec.initContainers[0]", "postern-intercept is the sidecar's"},
    {POD("  containers: [{name: app}, {name: istio-proxy}]\n"), "containers[1]", "another mesh"},
    {POD("  initContainers: [{name: linkerd-init}]\n" APP), "initContainers[0]", "another mesh"},
    {"apiVersion: v1\nkind: Pod\nmetadata: {annotations: {kubernetes.io/config.mirror: x}}\n"
     "spec:\n" APP,
     "Pod (no name)", "mirrors"},
    /* shapes that no API server takes */
    {"apiVersion: v1\nkind: Pod\n", "spec", "none"},
    {POD("  containers: []\n"), "spec.containers", "not a list"},
    {POD("  containers: {a: 1}\n"), "spec.containers", "not a list"},
    {POD("  containers: [app]\n"), "spec.containers", "not a list"},
    {POD("  initContainers: x\n" APP), "spec.initContainers", "not a list"},
    {POD("  volumes: {}\n" APP), "spec.volumes", "not a list"},
    {"apiVersion: v1\nkind: Pod\nmetadata: [1]\nspec:\n" APP, "metadata", "not a mapping"},
    {"apiVersion: v1\nkind: Pod\nmetadata: {annotations: x}\nspec:\n" APP, "metadata",
     "not a mapping"},
    {"apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: d}\nspec: {}\n", "Deployment d",
     "no pod template"},
    {"apiVersion: batch/v1\nkind: Job\nmetadata: {name: j}\nspec: {template: {metadata: "
     "{annotations: {postern.dev/sidecar: classic}}, spec: {containers: [{name: a}]}}}\n",
     "Job j", "never would"},
    {"apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: d, annotations: "
     "{postern.dev/inject: disabled}}\nspec: {template: {spec: {containers: [{name: a}]}}}\n",
     "Deployment d: metadata.annotations[postern.dev/inject]", "belongs to the pods"},
    {"apiVersion: v1\nkind: PodList\nitems: [{spec: {containers: [{name: a}]}}]\n", "PodList",
     "write it as a List"},
    /* annotations */
    {NOTED("inject", "'yes'"), "metadata.annotations[postern.dev/inject]", "'yes' is not"},
    {NOTED("inject", "false"), "metadata.annotations[postern.dev/inject]", "no text"},
    {NOTED("injekt", "enabled"), "annotations[postern.dev/injekt]",
     "did you mean postern.dev/inject"},
    {NOTED("image", "evil"), "annotations[postern.dev/image]", "no such annotation"},
    {NOTED("", "x"), "annotations[postern.dev/]", "no such annotation"},
    {NOTED("sidecar", "Native"), "annotations[postern.dev/sidecar]", "'Native'"},
    {NOTED("ports", "'8080'"), "annotations[postern.dev/ports]", "PORT/PROTOCOL"},
    {NOTED("ports", "8080/grpc"), "annotations[postern.dev/ports]", "8080/grpc"},
    {NOTED("ports", "0/tcp"), "annotations[postern.dev/ports]", "0/tcp"},
    {NOTED("ports", "65536/tcp"), "annotations[postern.dev/ports]", "65536"},
    {NOTED("ports", "'1/tcp,'"), "annotations[postern.dev/ports]", "1/tcp,"},
    {NOTED("ports", "'1/tcp,1/http'"), "annotations[postern.dev/ports]", "1/http"},
    {NOTED("ports", "'1/tcp, 2/tcp'"), "annotations[postern.dev/ports]", "1/tcp, 2"},
    {NOTED("ports", "99999999999999999999/tcp"), "annotations[postern.dev/ports]", "9999"},
    {POD("  containers: [{name: c, image: i, ports: [{containerPort: 15010}]}]\n"),
     "spec.containers[0]", "15010 is the sidecar's"},
    {NOTED("ports", "15001/tcp"), "annotations[postern.dev/ports]", "15001 is the sidecar's"},
    {NOTED("exclude-inbound-ports", "80-70"), "postern.dev/exclude-", "not a list of ports"},
    {NOTED("exclude-inbound-ports", "'80,,81'"), "postern.dev/exclude-", "not a list of ports"},
    {NOTED("exclude-inbound-ports", "--remove"), "exclude-inbound-ports", "--remove"},
    {NOTED("exclude-inbound-ports", "''"), "exclude-inbound-ports", "''"},
    {"apiVersion: v1\nkind: Pod\nmetadata: {annotations: {postern.dev/canary: 'on', "
     "postern.dev/exclude-inbound-ports: 15000-15010}}\nspec:\n" APP,
     "postern.dev/canary", "port 15010 is excluded"},
    {NOTED("exclude-outbound-ports", "\"1\\n2\""), "exclude-outbound-ports", "'1?2'"},
    {NOTED("exclude-outbound-cidrs", "10.0.0.1/8"), "postern.dev/exclude-", "10.0.0.1/8"},
    {NOTED("exclude-outbound-cidrs", "\"0.0.0.0/0' ; evil\""), "exclude-outbound-cidrs", "evil"},
    {NOTED("exclude-outbound-uids", "root"), "exclude-outbound-uids", "root"},
    {NOTED("exclude-outbound-uids", "9-8"), "postern.dev/exclude-", "not a list of numeric uids"},
    {NOTED("inbound-mode", "none"), "annotations[postern.dev/inbound-mode]", "none"},
    {NOTED("udp", "deny"), "annotations[postern.dev/udp]", "deny"},
    {NOTED("uncaptured", "'on'"), "annotations[postern.dev/uncaptured]", "on"},
    {NOTED("canary", "yes"), "annotations[postern.dev/canary]", "no text"},
    {NOTED("spiffe-id", "\"spiffe://td/x\\nstate: {from: files}\""), "postern.dev/spiffe-id",
     "?state"},
    {NOTED("spiffe-id", "'spiffe://td'"), "annotations[postern.dev/spiffe-id]", "spiffe://td"},
    {NOTED("log-level", "trace"), "annotations[postern.dev/log-level]", "trace"},
    {NOTED("access-log", "none"), "annotations[postern.dev/access-log]", "none"},
    {"apiVersion: v1\nkind: Pod\nmetadata: {name: p, annotations: {postern.dev/ports: 80/http, "
     "postern.dev/exclude-inbound-ports: 70-90}}\nspec:\n" APP,
     "annotations[postern.dev/ports]", "80 is excluded"},
    {"apiVersion: v1\nkind: Pod\nmetadata: {name: \"p\\e[31m\\x85\", annotations: "
     "{\"postern.dev/a\\\"/\": x}}\nspec:\n" APP,
     "p?[31m??", "no such annotation"},
};

static void test_refused(void **state)
{
    struct inject_options o = pod_options();
    (void)state;
    for (size_t i = 0; i < sizeof(refused) / sizeof(refused[0]); i++) {
        struct pod_said s = {.text = BUF_INIT(1 << 16)};
        struct inject_tell tell = {pod_on_tell, &s};
        json_t *tree = pod_tree(refused[i].yaml);
        json_t *before = json_deep_copy(tree);
        enum inject_outcome r = inject_document(tree, &o, &tell);
        assert_true(buf_append(&s.text, "", 1));
        const char *text = (const char *)buf_head(&s.text);
        if (r != INJECT_REFUSED || s.n_refused == 0 || strstr(text, refused[i].where) == NULL ||
            strstr(text, refused[i].what) == NULL) {
            fail_msg("%s\n-> %d: %s", refused[i].yaml, (int)r, text);
        }
        assert_true(json_equal(tree, before));
        json_decref(before);
        json_decref(tree);
        buf_reset(&s.text);
    }
}

/* A huge number of ports; an annotation as long as may be and one byte more. */
static void test_bounds(void **state)
{
    struct inject_options o = pod_options();
    (void)state;
    for (int n = 64; n <= 65; n++) {
        struct pod_said s = {.text = BUF_INIT(1 << 16)};
        struct inject_tell tell = {pod_on_tell, &s};
        struct buf list = BUF_INIT(1 << 16);
        for (int i = 0; i < n; i++) {
            assert_true(buf_printf(&list, "%s%d/http", i > 0 ? "," : "", 1000 + i));
        }
        assert_true(buf_append(&list, "", 1));
        json_t *tree = pod_tree(NOTED("ports", "x"));
        json_object_set_new(json_object_get(json_object_get(tree, "metadata"), "annotations"),
                            "postern.dev/ports", json_string((const char *)buf_head(&list)));
        assert_int_equal(inject_document(tree, &o, &tell),
                         n == 64 ? INJECT_CHANGED : INJECT_REFUSED);
        json_decref(tree);
        buf_reset(&list);
        buf_reset(&s.text);
    }
}

/* A patch, as kustomize has them: nothing to inject into, and nothing to take out. */
static void test_no_template(void **state)
{
    struct pod_said s = {.text = BUF_INIT(1 << 16)};
    struct inject_tell tell = {pod_on_tell, &s};
    struct inject_options o = pod_options();
    (void)state;
    json_t *tree = pod_tree("apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: d}\n");
    assert_int_equal(inject_document(tree, &o, &tell), INJECT_REFUSED);
    assert_int_equal(uninject_document(tree, &tell), INJECT_UNCHANGED);
    json_decref(tree);
    buf_reset(&s.text);
}

/* Nothing of a list is changed when one of its items is refused. */
static void test_list_is_whole(void **state)
{
    struct pod_said s = {.text = BUF_INIT(1 << 16)};
    struct inject_tell tell = {pod_on_tell, &s};
    struct inject_options o = pod_options();
    (void)state;
    json_t *tree = pod_tree(
        "apiVersion: v1\nkind: List\nitems:\n"
        "- {apiVersion: v1, kind: Pod, metadata: {name: a}, spec: {containers: [{name: a}]}}\n"
        "- {apiVersion: v1, kind: Pod, metadata: {name: b}, spec: {hostPID: true, containers: "
        "[{name: a}]}}\n");
    json_t *before = json_deep_copy(tree);
    assert_int_equal(inject_document(tree, &o, &tell), INJECT_REFUSED);
    assert_true(json_equal(tree, before));
    json_array_remove(json_object_get(tree, "items"), 1);
    assert_int_equal(inject_document(tree, &o, &tell), INJECT_CHANGED);
    json_decref(before);
    json_decref(tree);
    buf_reset(&s.text);
}

/* --- what is told ----------------------------------------------------------------------------- */
static const struct {
    const char *yaml, *what; /* NULL: nothing */
} told[] = {
    {POD(APP), "app"},
    {ONE("securityContext: {capabilities: {drop: [NET_RAW]}}"), "SETUID"},
    {ONE("securityContext: {runAsUser: 1000}"), "SETUID"},
    {ONE("securityContext: {runAsUser: 0, allowPrivilegeEscalation: false}"), "SETUID"},
    {ONE("securityContext: {runAsNonRoot: true, allowPrivilegeEscalation: false}"), "SETUID"},
    {ONE("securityContext: {runAsUser: 1000, allowPrivilegeEscalation: false}"), NULL},
    {ONE("securityContext: {capabilities: {drop: [all]}}"), NULL},
    {ONE("securityContext: {capabilities: {drop: [net_raw, SETUID, SETGID]}}"), NULL},
    {ONE("securityContext: {capabilities: {drop: [CAP_NET_RAW, SETUID, SETGID]}}"), "NET_RAW"},
    {ONE("securityContext: {capabilities: {drop: [CAP_ALL]}}"), "NET_RAW"},
    {POD("  securityContext: {runAsUser: 7}\n  containers: [{name: app, securityContext: "
         "{allowPrivilegeEscalation: false}}]\n"),
     NULL},
    {ONE("securityContext: {capabilities: {drop: [ALL]}}, startupProbe: {grpc: {port: 82, service: "
         "'a\"b'}}"),
     "startupProbe asks port 82 by grpc"},
    {ONE("securityContext: {capabilities: {drop: [ALL]}}, lifecycle: {preStop: {httpGet: {port: "
         "83}}}"),
     "preStop asks port 83"},
    {ONE("securityContext: {capabilities: {drop: [ALL]}}, readinessProbe: {httpGet: {port: 80, "
         "scheme: HTTPS}}"),
     "readinessProbe asks port 80 by httpGet"},
    {ONE("securityContext: {capabilities: {drop: [ALL]}}, readinessProbe: {httpGet: {port: 80, "
         "path: \"/a b\"}}"),
     "readinessProbe asks port 80"},
    {ONE("securityContext: {capabilities: {drop: [ALL]}}, readinessProbe: {httpGet: {port: 80, "
         "path: '/$(X)'}}"),
     "readinessProbe asks port 80"},
    {ONE("securityContext: {capabilities: {drop: [ALL]}}, readinessProbe: {httpGet: {port: 80, "
         "path: '/\"'}}"),
     "readinessProbe asks port 80"},
    {ONE("securityContext: {capabilities: {drop: [ALL]}}, readinessProbe: {httpGet: {port: 80, "
         "httpHeaders: [{name: A, value: \"b\\nc\"}]}}"),
     "readinessProbe asks port 80"},
    {ONE("securityContext: {capabilities: {drop: [ALL]}}, readinessProbe: {httpGet: {port: 80, "
         "httpHeaders: [{name: 'A: b', value: c}]}}"),
     "readinessProbe asks port 80"},
    {ONE("securityContext: {capabilities: {drop: [ALL]}}, readinessProbe: {httpGet: {port: 80, "
         "httpHeaders: [{name: connection, value: c}]}}"),
     "readinessProbe asks port 80"},
    {ONE("securityContext: {capabilities: {drop: [ALL]}}, readinessProbe: {httpGet: {port: 80}}"),
     NULL},
    {ONE("securityContext: {capabilities: {drop: [ALL]}}, livenessProbe: {tcpSocket: {port: 81}}"),
     NULL},
    {ONE("securityContext: {capabilities: {drop: [ALL]}}, readinessProbe: {exec: {command: [x]}}"),
     NULL},
    {"apiVersion: v1\nkind: Pod\nmetadata: {annotations: {postern.dev/exclude-inbound-ports: "
     "80-90}}\nspec: {containers: [{name: a, securityContext: {capabilities: {drop: [ALL]}}, "
     "readinessProbe: {httpGet: {port: 80}}}]}\n",
     NULL},
};

static void test_told(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof(told) / sizeof(told[0]); i++) {
        for (int strict = 0; strict < 2; strict++) {
            struct pod_said s = {.text = BUF_INIT(1 << 16)};
            struct inject_tell tell = {pod_on_tell, &s};
            struct inject_options o = pod_options();
            json_t *tree = pod_tree(told[i].yaml);
            o.strict = strict == 1;
            enum inject_outcome r = inject_document(tree, &o, &tell);
            assert_true(buf_append(&s.text, "", 1));
            const char *text = (const char *)buf_head(&s.text);
            bool any = told[i].what != NULL;
            if (r != (any && strict ? INJECT_REFUSED : INJECT_CHANGED) ||
                s.n_told != (any && !strict ? 1U : 0U) ||
                s.n_refused != (any && strict ? 1U : 0U) ||
                (any && strstr(text, told[i].what) == NULL)) {
                fail_msg("%s\n-> %d: %s", told[i].yaml, (int)r, text);
            }
            json_decref(tree);
            buf_reset(&s.text);
        }
    }
}

/* --- options ---------------------------------------------------------------------------------- */
static void test_opt_out(void **state)
{
    struct pod_said s = {.text = BUF_INIT(1 << 16)};
    struct inject_tell tell = {pod_on_tell, &s};
    struct inject_options o = pod_options();
    (void)state;
    json_t *pod = pod_tree(NOTED("inject", "disabled"));
    json_t *before = json_deep_copy(pod);
    assert_int_equal(inject_document(pod, &o, &tell), INJECT_OPTED_OUT);
    assert_true(json_equal(pod, before));
    json_decref(before);
    json_decref(pod);
    /* said afterwards: it goes */
    pod = pod_injected(NOTED("inject", "enabled"), &o);
    json_object_set_new(json_object_get(json_object_get(pod, "metadata"), "annotations"),
                        "postern.dev/inject", json_string("disabled"));
    assert_int_equal(inject_document(pod, &o, &tell), INJECT_CHANGED);
    assert_null(pod_member(pod, "initContainers", "postern-proxy"));
    json_decref(pod);
    buf_reset(&s.text);
}

static void test_options(void **state)
{
    struct inject_options o;
    (void)state;
    inject_options_init(&o);
    assert_int_equal(inject_options_check(&o, NULL), -1); /* no image */
    o = pod_options();
    assert_int_equal(inject_options_check(&o, NULL), 0);
    static const char *const images[] = {"", "-x", "a b", "a\nb", "$(X)", "a\"b"};
    for (size_t i = 0; i < sizeof(images) / sizeof(images[0]); i++) {
        o = pod_options();
        o.image = images[i];
        assert_int_equal(inject_options_check(&o, NULL), -1);
        o = pod_options();
        o.rules_image = images[i];
        assert_int_equal(inject_options_check(&o, NULL), -1);
    }
    static const char *const dirs[] = {"", "run", "/run/../etc", "/run postern", "/$(X)"};
    for (size_t i = 0; i < sizeof(dirs) / sizeof(dirs[0]); i++) {
        o = pod_options();
        o.agent_dir = dirs[i];
        assert_int_equal(inject_options_check(&o, NULL), -1);
    }
    static const char *const sockets[] = {"", "a/b", "..", "a b", "$x"};
    for (size_t i = 0; i < sizeof(sockets) / sizeof(sockets[0]); i++) {
        o = pod_options();
        o.agent_socket = sockets[i];
        assert_int_equal(inject_options_check(&o, NULL), -1);
    }
    static const char *const quantities[] = {"", "m", "-1", "1x", "1 ", ".5", "1Mi2"};
    for (size_t i = 0; i < sizeof(quantities) / sizeof(quantities[0]); i++) {
        o = pod_options();
        o.cpu = quantities[i];
        assert_int_equal(inject_options_check(&o, NULL), -1);
        o = pod_options();
        o.memory_limit = quantities[i];
        assert_int_equal(inject_options_check(&o, NULL), -1);
    }
    o = pod_options();
    o.proxy_uid = 0;
    assert_int_equal(inject_options_check(&o, NULL), -1);
    o = pod_options();
    o.pull_policy = "Sometimes";
    assert_int_equal(inject_options_check(&o, NULL), -1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_refused),     cmocka_unit_test(test_bounds),
        cmocka_unit_test(test_no_template), cmocka_unit_test(test_list_is_whole),
        cmocka_unit_test(test_told),        cmocka_unit_test(test_opt_out),
        cmocka_unit_test(test_options),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
