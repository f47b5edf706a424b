/* inject: which pods are refused, what goes in, and that it goes out again. Bad cases first. */
#include <postern/conf.h>
#include <postern/inject.h>
#include <postern/manifest.h>
#include <postern/mem.h>
#include <postern/os.h>

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

/* All that is said, one line each: "refused where: what". */
struct said {
    struct buf text;
    size_t n_refused, n_told;
};

static void on_tell(void *arg, enum inject_severity severity, const char *where, const char *what)
{
    struct said *s = arg;
    bool refused = severity == INJECT_SAYS_REFUSED;
    s->n_refused += refused ? 1 : 0;
    s->n_told += refused ? 0 : 1;
    for (const char *c = where; *c != '\0'; c++) {
        assert_true((unsigned char)*c >= ' ' && *c != 0x7f);
    }
    for (const char *c = what; *c != '\0'; c++) {
        assert_true((unsigned char)*c >= ' ' && *c != 0x7f);
    }
    assert_true(buf_printf(&s->text, "%s %s: %s\n", refused ? "refused" : "told", where, what));
}

static struct inject_options options(void)
{
    struct inject_options o;
    inject_options_init(&o);
    o.image = "registry.example/postern:0.1";
    return o;
}

static json_t *tree_of(const char *yaml)
{
    struct err err = ERR_INIT;
    char text[1200];
    struct manifest *m = manifest_parse("f", str_of(yaml), &err);
    if (m == NULL) {
        fail_msg("%s\n%s", err_text(&err, text, sizeof(text)), yaml);
    }
    json_t *tree = json_incref(m->docs[0].tree);
    manifest_free(m);
    return tree;
}

#define POD(spec) "apiVersion: v1\nkind: Pod\nmetadata: {name: p}\nspec:\n" spec
#define APP "  containers: [{name: app, image: a}]\n"
#define ONE(rest) POD("  containers: [{name: app, image: a, " rest "}]\n")
#define NOTED(name, value)                                                                         \
    "apiVersion: v1\nkind: Pod\nmetadata: {name: p, annotations: {\"postern.dev/" name             \
    "\": " value "}}\nspec:\n" APP

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
    struct inject_options o = options();
    (void)state;
    for (size_t i = 0; i < sizeof(refused) / sizeof(refused[0]); i++) {
        struct said s = {.text = BUF_INIT(1 << 16)};
        struct inject_tell tell = {on_tell, &s};
        json_t *tree = tree_of(refused[i].yaml);
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
    struct inject_options o = options();
    (void)state;
    for (int n = 64; n <= 65; n++) {
        struct said s = {.text = BUF_INIT(1 << 16)};
        struct inject_tell tell = {on_tell, &s};
        struct buf list = BUF_INIT(1 << 16);
        for (int i = 0; i < n; i++) {
            assert_true(buf_printf(&list, "%s%d/http", i > 0 ? "," : "", 1000 + i));
        }
        assert_true(buf_append(&list, "", 1));
        json_t *tree = tree_of(NOTED("ports", "x"));
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
    struct said s = {.text = BUF_INIT(1 << 16)};
    struct inject_tell tell = {on_tell, &s};
    struct inject_options o = options();
    (void)state;
    json_t *tree = tree_of("apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: d}\n");
    assert_int_equal(inject_document(tree, &o, &tell), INJECT_REFUSED);
    assert_int_equal(uninject_document(tree, &tell), INJECT_UNCHANGED);
    json_decref(tree);
    buf_reset(&s.text);
}

/* Nothing of a list is changed when one of its items is refused. */
static void test_list_is_whole(void **state)
{
    struct said s = {.text = BUF_INIT(1 << 16)};
    struct inject_tell tell = {on_tell, &s};
    struct inject_options o = options();
    (void)state;
    json_t *tree = tree_of(
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
    {ONE("securityContext: {capabilities: {drop: [ALL]}}, startupProbe: {grpc: {port: 82}}"),
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
            struct said s = {.text = BUF_INIT(1 << 16)};
            struct inject_tell tell = {on_tell, &s};
            struct inject_options o = options();
            json_t *tree = tree_of(told[i].yaml);
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

/* --- what goes in, and out ---------------------------------------------------------------------
 */
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
    struct said s = {.text = BUF_INIT(1 << 16)};
    struct inject_tell tell = {on_tell, &s};
    json_t *tree = tree_of(yaml);
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
        struct inject_options o = options();
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
    struct inject_options o = options();
    (void)state;
    for (size_t i = 0; i < sizeof(untouched) / sizeof(untouched[0]); i++) {
        struct said s = {.text = BUF_INIT(1 << 16)};
        struct inject_tell tell = {on_tell, &s};
        json_t *tree = tree_of(untouched[i]);
        assert_int_equal(inject_document(tree, &o, &tell), INJECT_UNCHANGED);
        assert_int_equal(uninject_document(tree, &tell), INJECT_UNCHANGED);
        assert_int_equal(s.n_told + s.n_refused, 0);
        json_decref(tree);
        buf_reset(&s.text);
    }
}

static json_t *member(json_t *pod, const char *list, const char *name);

static const json_t *find(const json_t *pod, const char *list, const char *name, size_t *ret_at)
{
    size_t i;
    json_t *e;
    json_array_foreach(json_object_get(json_object_get(pod, "spec"), list), i, e)
    {
        if (strcmp(json_string_value(json_object_get(e, "name")), name) == 0) {
            *ret_at = i;
            return e;
        }
    }
    return NULL;
}

static json_t *injected(const char *yaml, const struct inject_options *o)
{
    struct said s = {.text = BUF_INIT(1 << 16)};
    struct inject_tell tell = {on_tell, &s};
    json_t *tree = tree_of(yaml);
    assert_int_equal(inject_document(tree, o, &tell), INJECT_CHANGED);
    buf_reset(&s.text);
    return tree;
}

/* First interception, then the sidecar, then the rest; in classic mode the other way round. */
static void test_order(void **state)
{
    static const char yaml[] =
        POD("  initContainers: [{name: first}, {name: side, restartPolicy: Always}]\n" APP);
    struct inject_options o = options();
    size_t at = 9;
    (void)state;
    json_t *pod = injected(yaml, &o);
    assert_non_null(find(pod, "initContainers", "postern-intercept", &at));
    assert_int_equal(at, 0);
    const json_t *proxy = find(pod, "initContainers", "postern-proxy", &at);
    assert_non_null(proxy);
    assert_int_equal(at, 1);
    assert_string_equal(json_string_value(json_object_get(proxy, "restartPolicy")), "Always");
    json_decref(pod);
    o.classic = true;
    pod = injected(yaml, &o);
    assert_non_null(find(pod, "initContainers", "postern-intercept", &at));
    assert_int_equal(at, 2);
    proxy = find(pod, "containers", "postern-proxy", &at);
    assert_non_null(proxy);
    assert_int_equal(at, 1);
    assert_null(json_object_get(proxy, "restartPolicy"));
    json_decref(pod);
}

/* The proxy's file is one, and says what was asked for; it holds nothing that the kubelet expands.
 */
static void test_proxy_file(void **state)
{
    struct inject_options o = options();
    struct conf_diag *diag = conf_diag_new();
    struct conf_proxy *conf = NULL;
    size_t at;
    (void)state;
    json_t *pod =
        injected("apiVersion: v1\nkind: Pod\nmetadata: {annotations: {postern.dev/ports: "
                 "'8080/http,70/tcp', postern.dev/spiffe-id: 'spiffe://td/a', "
                 "postern.dev/log-level: debug, postern.dev/access-log: denied}}\nspec:\n" APP,
                 &o);
    const json_t *proxy = find(pod, "initContainers", "postern-proxy", &at);
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
    struct inject_options o = options();
    struct conf_diag *diag = conf_diag_new();
    struct conf_proxy *conf = NULL;
    size_t at;
    (void)state;
    json_t *pod =
        injected("apiVersion: v1\nkind: Pod\nmetadata: {annotations: {postern.dev/inbound-mode: "
                 "tproxy, postern.dev/udp: drop, postern.dev/uncaptured: drop, postern.dev/canary: "
                 "'on', postern.dev/exclude-outbound-uids: '998,2000-2099'}}\nspec:\n" APP,
                 &o);
    const json_t *rules = find(pod, "initContainers", "postern-intercept", &at);
    char *args = json_dumps(json_object_get(rules, "args"), JSON_COMPACT);
    assert_non_null(args);
    assert_non_null(strstr(args, "\"--exclude-uids\",\"998,2000-2099\",\"--inbound-mode\","
                                 "\"tproxy\",\"--udp\",\"drop\",\"--drop-all\""));
    const json_t *proxy = find(pod, "initContainers", "postern-proxy", &at);
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
    pod = injected("apiVersion: v1\nkind: Pod\nspec:\n" APP, &o);
    proxy = find(pod, "initContainers", "postern-proxy", &at);
    assert_int_equal(probe_port(proxy, "readinessProbe"), INJECT_METRICS_PORT);
    security = json_object_get(proxy, "securityContext");
    assert_int_equal(json_integer_value(json_object_get(security, "runAsUser")), INJECT_UID);
    assert_null(json_object_get(json_object_get(security, "capabilities"), "add"));
    json_decref(pod);
}

/* What the kubelet would ask, the sidecar asks, by what its file says. */
static void test_probes(void **state)
{
    struct inject_options o = options();
    struct conf_diag *diag = conf_diag_new();
    struct conf_proxy *conf = NULL;
    size_t at;
    (void)state;
    json_t *pod = injected(
        POD("  containers: [{name: app, ports: [{name: web, containerPort: 80}], readinessProbe: "
            "{periodSeconds: 7, httpGet: {path: \"r?a=b&c='d'\", port: web, httpHeaders: [{name: "
            "X-A, value: "
            "'b: #c'}, {name: hOst, value: h.example}]}}, livenessProbe: {tcpSocket: {port: "
            "81}}}]\n"),
        &o);
    const json_t *probe = json_object_get(find(pod, "containers", "app", &at), "readinessProbe");
    json_t *want = json_loads("{\"periodSeconds\": 7, \"httpGet\": {\"path\": "
                              "\"/probe/app.readiness\", \"port\": 15021, \"scheme\": \"HTTP\"}}",
                              0, NULL);
    assert_true(json_equal(probe, want));
    json_decref(want);
    const char *text = json_string_value(json_object_get(
        json_array_get(json_object_get(find(pod, "initContainers", "postern-proxy", &at), "env"),
                       0),
        "value"));
    assert_int_equal(conf_parse_proxy("x", text, strlen(text), diag, &conf), 0);
    assert_int_equal(conf->probes.n, 2);
    const struct conf_probe *live = &conf->probes.items[0], *ready = &conf->probes.items[1];
    assert_string_equal(live->name, "app.liveness");
    assert_int_equal(live->protocol, CONF_PROTOCOL_TCP);
    assert_int_equal(live->port, 81);
    assert_string_equal(ready->name, "app.readiness");
    assert_int_equal(ready->protocol, CONF_PROTOCOL_HTTP);
    assert_int_equal(ready->port, 80);
    assert_string_equal(ready->path, "/r?a=b&c='d'");
    assert_string_equal(ready->host, "h.example");
    assert_int_equal(ready->headers.n, 1);
    assert_string_equal(ready->headers.items[0], "X-A: b: #c");
    conf_proxy_free(conf);
    conf_diag_free(diag);
    json_decref(pod);
}

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
        struct said s = {.text = BUF_INIT(1 << 16)};
        struct inject_tell tell = {on_tell, &s};
        struct inject_options o = options();
        json_t *pod = injected(POD("  containers: [{name: app, readinessProbe: {httpGet: {port: "
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
    struct said s = {.text = BUF_INIT(1 << 16)};
    struct inject_tell tell = {on_tell, &s};
    struct inject_options o = options();
    (void)state;
    json_t *pod =
        injected(POD("  containers: [{name: app, livenessProbe: {httpGet: {port: 80}}}]\n"), &o);
    json_object_set_new(member(pod, "containers", "app"), "name", json_string("web"));
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
    struct inject_options o = options();
    struct said s = {.text = BUF_INIT(1 << 16)};
    struct inject_tell tell = {on_tell, &s};
    (void)state;
    json_t *pod = tree_of(POD("  containers: [{name: app}]\n"));
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

/* --- again ------------------------------------------------------------------------------------ */
static json_t *member(json_t *pod, const char *list, const char *name)
{
    size_t at;
    return (json_t *)(uintptr_t)find(pod, list, name, &at);
}

/* What the API server adds stays, and changes nothing. */
static void test_after_the_api_server(void **state)
{
    static const char *const lists[] = {"initContainers", "initContainers"};
    static const char *const names[] = {"postern-intercept", "postern-proxy"};
    struct said s = {.text = BUF_INIT(1 << 16)};
    struct inject_tell tell = {on_tell, &s};
    struct inject_options o = options();
    (void)state;
    json_t *pod = injected(POD(APP), &o);
    for (size_t i = 0; i < 2; i++) {
        json_t *c = member(pod, lists[i], names[i]);
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
    assert_string_equal(
        json_string_value(json_object_get(member(pod, "initContainers", "postern-proxy"), "image")),
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
    struct inject_options o = options();
    (void)state;
    for (size_t i = 0; i < sizeof(changes) / sizeof(changes[0]); i++) {
        struct said s = {.text = BUF_INIT(1 << 16)};
        struct inject_tell tell = {on_tell, &s};
        json_t *pod = injected(POD(APP), &o);
        json_t *want = json_deep_copy(pod);
        changes[i](member(pod, "initContainers", "postern-proxy"));
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
    struct said s = {.text = BUF_INIT(1 << 16)};
    struct inject_tell tell = {on_tell, &s};
    struct inject_options o = options();
    (void)state;
    json_t *want = injected(POD(APP), &o);
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
    pod = tree_of(NOTED("injected", "\"v1 metadata annotations \\u0001\""));
    assert_int_equal(inject_document(pod, &o, &tell), INJECT_CHANGED);
    assert_non_null(member(pod, "initContainers", "postern-proxy"));
    json_decref(pod);
    json_decref(want);
    buf_reset(&s.text);
}

static void test_opt_out(void **state)
{
    struct said s = {.text = BUF_INIT(1 << 16)};
    struct inject_tell tell = {on_tell, &s};
    struct inject_options o = options();
    (void)state;
    json_t *pod = tree_of(NOTED("inject", "disabled"));
    json_t *before = json_deep_copy(pod);
    assert_int_equal(inject_document(pod, &o, &tell), INJECT_OPTED_OUT);
    assert_true(json_equal(pod, before));
    json_decref(before);
    json_decref(pod);
    /* said afterwards: it goes */
    pod = injected(NOTED("inject", "enabled"), &o);
    json_object_set_new(json_object_get(json_object_get(pod, "metadata"), "annotations"),
                        "postern.dev/inject", json_string("disabled"));
    assert_int_equal(inject_document(pod, &o, &tell), INJECT_CHANGED);
    assert_null(member(pod, "initContainers", "postern-proxy"));
    json_decref(pod);
    buf_reset(&s.text);
}

/* --- options ---------------------------------------------------------------------------------- */
static void test_options(void **state)
{
    struct inject_options o;
    (void)state;
    inject_options_init(&o);
    assert_int_equal(inject_options_check(&o, NULL), -1); /* no image */
    o = options();
    assert_int_equal(inject_options_check(&o, NULL), 0);
    static const char *const images[] = {"", "-x", "a b", "a\nb", "$(X)", "a\"b"};
    for (size_t i = 0; i < sizeof(images) / sizeof(images[0]); i++) {
        o = options();
        o.image = images[i];
        assert_int_equal(inject_options_check(&o, NULL), -1);
        o = options();
        o.rules_image = images[i];
        assert_int_equal(inject_options_check(&o, NULL), -1);
    }
    static const char *const dirs[] = {"", "run", "/run/../etc", "/run postern", "/$(X)"};
    for (size_t i = 0; i < sizeof(dirs) / sizeof(dirs[0]); i++) {
        o = options();
        o.agent_dir = dirs[i];
        assert_int_equal(inject_options_check(&o, NULL), -1);
    }
    static const char *const sockets[] = {"", "a/b", "..", "a b", "$x"};
    for (size_t i = 0; i < sizeof(sockets) / sizeof(sockets[0]); i++) {
        o = options();
        o.agent_socket = sockets[i];
        assert_int_equal(inject_options_check(&o, NULL), -1);
    }
    static const char *const quantities[] = {"", "m", "-1", "1x", "1 ", ".5", "1Mi2"};
    for (size_t i = 0; i < sizeof(quantities) / sizeof(quantities[0]); i++) {
        o = options();
        o.cpu = quantities[i];
        assert_int_equal(inject_options_check(&o, NULL), -1);
        o = options();
        o.memory_limit = quantities[i];
        assert_int_equal(inject_options_check(&o, NULL), -1);
    }
    o = options();
    o.proxy_uid = 0;
    assert_int_equal(inject_options_check(&o, NULL), -1);
    o = options();
    o.pull_policy = "Sometimes";
    assert_int_equal(inject_options_check(&o, NULL), -1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_refused),
        cmocka_unit_test(test_bounds),
        cmocka_unit_test(test_no_template),
        cmocka_unit_test(test_list_is_whole),
        cmocka_unit_test(test_told),
        cmocka_unit_test(test_in_and_out),
        cmocka_unit_test(test_untouched),
        cmocka_unit_test(test_order),
        cmocka_unit_test(test_proxy_file),
        cmocka_unit_test(test_interception),
        cmocka_unit_test(test_probes),
        cmocka_unit_test(test_probes_note_is_not_believed),
        cmocka_unit_test(test_probes_of_a_renamed_container),
        cmocka_unit_test(test_probes_bound),
        cmocka_unit_test(test_after_the_api_server),
        cmocka_unit_test(test_pretending),
        cmocka_unit_test(test_pretending_whole),
        cmocka_unit_test(test_opt_out),
        cmocka_unit_test(test_options),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
