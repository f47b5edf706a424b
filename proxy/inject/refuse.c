/* refuse: which pods are not injected, and why. The boundary between workloads is the other side's
 * inbound policy; this is about what a pod's containers could do to the sidecar beside them. */
#include "inject_priv.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

/* --- trees ------------------------------------------------------------------------------------ */
json_t *tree_object(const json_t *parent, const char *key)
{
    json_t *v = json_object_get(parent, key);
    return json_is_object(v) ? v : NULL;
}

json_t *tree_array(const json_t *parent, const char *key)
{
    json_t *v = json_object_get(parent, key);
    return json_is_array(v) ? v : NULL;
}

const char *tree_text(const json_t *parent, const char *key)
{
    return json_string_value(json_object_get(parent, key));
}

bool tree_true(const json_t *parent, const char *key)
{
    return json_is_true(json_object_get(parent, key));
}

int tree_find(const json_t *array, const char *name)
{
    size_t i;
    json_t *e;
    json_array_foreach(array, i, e)
    {
        const char *have = tree_text(e, "name");
        if (have != NULL && strcmp(have, name) == 0) {
            return (int)i;
        }
    }
    return -1;
}

/* --- saying so -------------------------------------------------------------------------------- */
/* Nothing of it reaches a terminal as it is. */
static void clean(char *text)
{
    const struct str s = str_of(text);
    for (size_t i = 0; i < s.n; i++) {
        for (size_t n = str_control(s, i); n > 0; n--) {
            text[i + n - 1] = '?';
        }
    }
}

static void say(struct pod *p, enum inject_severity severity, const char *path, const char *fmt,
                va_list ap)
{
    char where[500], what[700];
    (void)snprintf(where, sizeof(where), "%.250s%s%.200s", p->where, path[0] != '\0' ? ": " : "",
                   path);
    (void)vsnprintf(what, sizeof(what), fmt, ap);
    clean(where);
    clean(what);
    p->tell->tell(p->tell->arg, severity, where, what);
}

void pod_refuse(struct pod *p, const char *path, const char *fmt, ...)
{
    va_list ap;
    p->n_refused++;
    va_start(ap, fmt);
    say(p, INJECT_SAYS_REFUSED, path, fmt, ap);
    va_end(ap);
}

void pod_tell(struct pod *p, const char *path, const char *fmt, ...)
{
    va_list ap;
    p->n_refused += p->strict ? 1 : 0;
    va_start(ap, fmt);
    say(p, p->strict ? INJECT_SAYS_REFUSED : INJECT_SAYS_TOLD, path, fmt, ap);
    va_end(ap);
}

/* --- capabilities ----------------------------------------------------------------------------- */
/* With one of these a container leaves the capture, or reaches into the sidecar. */
static const char *const evading[] = {"ALL",       "NET_ADMIN", "NET_RAW",    "SETUID",
                                      "SETGID",    "SYS_ADMIN", "SYS_PTRACE", "SYS_MODULE",
                                      "SYS_RAWIO", "BPF",       NULL};
/* Of these, what runtimes give to a container that says nothing. */
static const char *const by_default[] = {"NET_RAW", "SETUID", "SETGID", NULL};

/* CAP_NET_RAW and net_raw mean NET_RAW to some runtime, when they are added. */
static bool same_capability(const char *written, const char *name)
{
    struct str s = str_of(written);
    if (s.n > 4 && str_eq_nocase((struct str){s.p, 4}, STR_LIT("CAP_"))) {
        s = (struct str){s.p + 4, s.n - 4};
    }
    return str_eq_nocase(s, str_of(name));
}

/* Without the prefix, as every runtime takes it: with one, containerd drops nothing. */
static bool drops_capability(const json_t *list, const char *name)
{
    size_t i;
    json_t *e;
    json_array_foreach(list, i, e)
    {
        if (json_is_string(e) && str_eq_nocase(str_of(json_string_value(e)), str_of(name))) {
            return true;
        }
    }
    return false;
}

static void check_added(struct pod *p, const char *path, const json_t *add)
{
    size_t i;
    json_t *e;
    json_array_foreach(add, i, e)
    {
        for (const char *const *c = evading; json_is_string(e) && *c != NULL; c++) {
            if (same_capability(json_string_value(e), *c)) {
                pod_refuse(p, path, "it adds the capability %s: with that it can leave the capture",
                           *c);
            }
        }
    }
}

static bool keeps_defaults(const json_t *context, const json_t *uid)
{
    const json_t *drop = tree_array(tree_object(context, "capabilities"), "drop");
    bool dropped = drops_capability(drop, "ALL");
    bool each = true;
    for (const char *const *c = by_default; *c != NULL; c++) {
        each = each && drops_capability(drop, *c);
    }
    /* Without root, and without a way to it, a process has no capability of the container's. */
    bool never_root = json_is_integer(uid) && json_integer_value(uid) != 0 &&
                      json_is_false(json_object_get(context, "allowPrivilegeEscalation"));
    return !dropped && !each && !never_root;
}

/* --- containers ------------------------------------------------------------------------------- */
bool container_is_ours(const json_t *c)
{
    const char *name = tree_text(c, "name");
    return name != NULL &&
           (strcmp(name, INJECT_PROXY_NAME) == 0 || strcmp(name, INJECT_RULES_NAME) == 0);
}

static bool is_of_another_mesh(const char *name)
{
    static const char *const names[] = {
        "istio-proxy",   "istio-init",       "linkerd-proxy", "linkerd-init",
        "envoy-sidecar", "consul-dataplane", "kuma-sidecar",  NULL};
    for (const char *const *n = names; name != NULL && *n != NULL; n++) {
        if (strcmp(*n, name) == 0) {
            return true;
        }
    }
    return false;
}

static bool is_own_port(json_int_t port)
{
    return port == INJECT_OUTBOUND_PORT || port == INJECT_INBOUND_PORT ||
           port == INJECT_HBONE_PORT || port == INJECT_METRICS_PORT || port == INJECT_PROBE_PORT;
}

static void check_ports(struct pod *p, const char *path, const json_t *c)
{
    size_t i;
    json_t *e;
    json_array_foreach(tree_array(c, "ports"), i, e)
    {
        json_int_t port = json_integer_value(json_object_get(e, "containerPort"));
        const char *protocol = tree_text(e, "protocol");
        bool canary = port == INTERCEPT_CANARY_PORT || port == INTERCEPT_INBOUND_CANARY_PORT;
        if ((is_own_port(port) || canary) && (protocol == NULL || strcmp(protocol, "TCP") == 0)) {
            pod_refuse(p, path, "port %lld is the sidecar's", (long long)port);
        }
    }
}

static void check_context(struct pod *p, const char *path, const json_t *c,
                          const struct inject_options *o)
{
    const json_t *pod_context = tree_object(p->spec, "securityContext");
    const json_t *context = tree_object(c, "securityContext");
    const json_t *uid = json_object_get(context, "runAsUser");
    if (uid == NULL || json_is_null(uid)) {
        uid = json_object_get(pod_context, "runAsUser");
    }
    if (uid != NULL && !json_is_null(uid) && !json_is_integer(uid)) {
        pod_refuse(p, path, "runAsUser is not a number");
    } else if (uid != NULL && json_integer_value(uid) == (json_int_t)o->proxy_uid) {
        pod_refuse(p, path,
                   "it runs as uid %u, the sidecar's: its connections would pass as the "
                   "sidecar's; choose another uid, or --proxy-uid",
                   (unsigned)o->proxy_uid);
    }
    if (tree_true(context, "privileged")) {
        pod_refuse(p, path, "it is privileged: it can leave the capture and reach the sidecar");
    }
    if (tree_true(tree_object(context, "windowsOptions"), "hostProcess")) {
        pod_refuse(p, path, "it is a host process");
    }
    const char *proc = tree_text(context, "procMount");
    if (proc != NULL && strcmp(proc, "Default") != 0) {
        pod_refuse(p, path, "procMount is not Default");
    }
    check_added(p, path, tree_array(tree_object(context, "capabilities"), "add"));
}

/* --- what the kubelet asks -------------------------------------------------------------------- */
static void check_asked(struct pod *p, const char *path, const json_t *c, const char *what,
                        const json_t *handler, const struct wishes *w,
                        const struct inject_options *o)
{
    static const char *const kinds[] = {"httpGet", "tcpSocket", "grpc", NULL};
    for (const char *const *k = kinds; *k != NULL; k++) {
        const json_t *h = tree_object(handler, *k);
        uint16_t port = port_of(c, json_object_get(h, "port"));
        if (h != NULL && tree_text(h, "host") == NULL && wishes_capture(w, o, port)) {
            pod_tell(p, path,
                     "%s asks port %u by %s, in plaintext and without an identity, which the "
                     "sidecar does not take; use exec, or a port of its own that is named "
                     "in " INJECT_ANNOTATION_PREFIX "exclude-inbound-ports",
                     what, port, *k);
        }
    }
}

static const char *const hooks[] = {"postStart", "preStop", NULL};

static void check_kubelet(struct pod *p, const char *path, const json_t *c, const struct wishes *w,
                          const struct inject_options *o)
{
    uint16_t port;
    for (const char *const *k = probe_kinds; *k != NULL; k++) {
        const json_t *probe = tree_object(c, *k);
        if (!probe_can_be_led(c, probe, w, o, &port)) {
            check_asked(p, path, c, *k, probe, w, o);
        }
    }
    for (const char *const *k = hooks; *k != NULL; k++) {
        check_asked(p, path, c, *k, tree_object(tree_object(c, "lifecycle"), *k), w, o);
    }
}

static void refuse_own_port(struct pod *p, const char *path, const json_t *c, const char *what,
                            const json_t *handler)
{
    static const char *const kinds[] = {"httpGet", "tcpSocket", "grpc", NULL};
    for (const char *const *k = kinds; *k != NULL; k++) {
        const json_t *h = tree_object(handler, *k);
        uint16_t port = port_of(c, json_object_get(h, "port"));
        if (h != NULL && tree_text(h, "host") == NULL && is_own_port(port)) {
            pod_refuse(p, path,
                       "%s asks port %u, which is the sidecar's, and what it asked before is not "
                       "noted in " INJECT_PROBES "; name the workload's port",
                       what, port);
        }
    }
}

/* --- the pod ---------------------------------------------------------------------------------- */
static void check_container(struct pod *p, const char *list, size_t i, const json_t *c,
                            const struct wishes *w, const struct inject_options *o)
{
    const char *name = tree_text(c, "name");
    char path[200];
    size_t k;
    json_t *e;
    (void)snprintf(path, sizeof(path), "spec.%s[%zu] (%.80s)", list, i,
                   name != NULL ? name : "no name");
    if (is_of_another_mesh(name)) {
        pod_refuse(p, path, "it is of another mesh: two cannot take the same connections");
    }
    json_array_foreach(tree_array(c, "volumeMounts"), k, e)
    {
        const char *volume = tree_text(e, "name");
        if (volume != NULL && strcmp(volume, INJECT_VOLUME_NAME) == 0) {
            pod_refuse(p, path, "it mounts " INJECT_VOLUME_NAME ", which is the sidecar's");
        }
    }
    check_context(p, path, c, o);
    check_ports(p, path, c);
    check_kubelet(p, path, c, w, o);
}

static const char *const container_lists[] = {"initContainers", "containers", "ephemeralContainers",
                                              NULL};

void refuse_lost_probes(struct pod *p)
{
    for (const char *const *list = container_lists; *list != NULL; list++) {
        size_t i;
        json_t *c;
        json_array_foreach(tree_array(p->spec, *list), i, c)
        {
            const json_t *lifecycle = tree_object(c, "lifecycle");
            const char *name = tree_text(c, "name");
            char path[200];
            (void)snprintf(path, sizeof(path), "spec.%s[%zu] (%.80s)", *list, i,
                           name != NULL ? name : "no name");
            for (const char *const *k = probe_kinds; !container_is_ours(c) && *k != NULL; k++) {
                refuse_own_port(p, path, c, *k, tree_object(c, *k));
            }
            for (const char *const *k = hooks; !container_is_ours(c) && *k != NULL; k++) {
                refuse_own_port(p, path, c, *k, tree_object(lifecycle, *k));
            }
        }
    }
}

/* Containers that say nothing of what runtimes give them, in one line. */
static void tell_defaults(struct pod *p)
{
    const json_t *pod_context = tree_object(p->spec, "securityContext");
    char names[300] = "";
    size_t at = 0;
    for (const char *const *list = container_lists; *list != NULL; list++) {
        size_t i;
        json_t *c;
        json_array_foreach(tree_array(p->spec, *list), i, c)
        {
            const json_t *context = tree_object(c, "securityContext");
            const json_t *uid = json_object_get(context, "runAsUser");
            uid = uid != NULL ? uid : json_object_get(pod_context, "runAsUser");
            const char *name = tree_text(c, "name");
            if (!container_is_ours(c) && keeps_defaults(context, uid) && at < sizeof(names) - 1) {
                int n = snprintf(names + at, sizeof(names) - at, "%s%.63s", at > 0 ? ", " : "",
                                 name != NULL ? name : "no name");
                at += n > 0 ? (size_t)n : 0;
            }
        }
    }
    if (at > 0) {
        pod_tell(p, "spec",
                 "NET_RAW, SETUID and SETGID, which runtimes give by default, would let these "
                 "leave their outbound capture: %s; drop ALL, or run them as another uid than 0 "
                 "with allowPrivilegeEscalation: false",
                 names);
    }
}

static void refuse_names(struct pod *p)
{
    for (const char *const *list = container_lists; *list != NULL; list++) {
        size_t i;
        json_t *c;
        json_array_foreach(tree_array(p->spec, *list), i, c)
        {
            if (container_is_ours(c)) {
                char path[100];
                (void)snprintf(path, sizeof(path), "spec.%s[%zu]", *list, i);
                pod_refuse(p, path,
                           "the name %s is the sidecar's, and the pod does not say that "
                           "it has been injected",
                           tree_text(c, "name"));
            }
        }
    }
    if (tree_find(tree_array(p->spec, "volumes"), INJECT_VOLUME_NAME) != -1) {
        pod_refuse(p, "spec.volumes",
                   "the name " INJECT_VOLUME_NAME
                   " is the sidecar's, and the pod does not say that it has "
                   "been injected");
    }
}

static void refuse_whole(struct pod *p, const struct wishes *w)
{
    static const struct {
        const char *key, *why;
    } host[] = {
        {"hostNetwork", "the rules would redirect the node's own traffic"},
        {"hostPID", "other containers would see, and could reach, the sidecar's process"},
        {"shareProcessNamespace",
         "other containers would see, and could reach, the sidecar's process"},
    };
    for (size_t i = 0; i < sizeof(host) / sizeof(host[0]); i++) {
        if (tree_true(p->spec, host[i].key)) {
            char path[60];
            (void)snprintf(path, sizeof(path), "spec.%s", host[i].key);
            pod_refuse(p, path, "%s", host[i].why);
        }
    }
    if (json_is_false(json_object_get(p->spec, "hostUsers"))) {
        pod_refuse(p, "spec.hostUsers",
                   "in a user namespace the sidecar cannot tell the agent from another process");
    }
    const char *os = tree_text(tree_object(p->spec, "os"), "name");
    if (os != NULL && strcmp(os, "linux") != 0) {
        pod_refuse(p, "spec.os", "the sidecar runs on linux only");
    }
    const json_t *annotations = tree_object(tree_object(p->tree, "metadata"), "annotations");
    if (json_object_get(annotations, "kubernetes.io/config.mirror") != NULL) {
        pod_refuse(p, "metadata", "it mirrors a pod of the node's own, which cannot be changed");
    }
    if (w->classic && (strcmp(p->kind, "Job") == 0 || strcmp(p->kind, "CronJob") == 0)) {
        pod_refuse(p, "",
                   "a classic sidecar does not end, so that the job never would; use a "
                   "native one");
    }
}

void refuse_pod(struct pod *p, const struct wishes *w, const struct inject_options *o, bool ours)
{
    refuse_whole(p, w);
    for (const char *const *list = container_lists; *list != NULL; list++) {
        size_t i;
        json_t *c;
        json_array_foreach(tree_array(p->spec, *list), i, c)
        {
            if (!container_is_ours(c)) {
                check_container(p, *list, i, c, w, o);
            }
        }
    }
    for (size_t i = 0; i < w->n_ports; i++) {
        if (is_own_port(w->ports[i].port)) {
            pod_refuse(p, "metadata.annotations[" INJECT_ANNOTATION_PREFIX "ports]",
                       "port %u is the sidecar's", w->ports[i].port);
        }
    }
    if (!ours) {
        refuse_names(p);
    }
    refuse_probes(p, w, o);
    refuse_lost_probes(p);
    tell_defaults(p);
}
