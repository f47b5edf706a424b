/* document: where in an object of Kubernetes its pods are. */
#include "inject_priv.h"

#include <postern/err.h>
#include <stdio.h>
#include <string.h>

enum { LIST_DEPTH_MAX = 8 };

/* By API group and kind; `to` leads from the object to what has metadata and spec. */
static const struct workload {
    const char *group, *kind;
    const char *to[4];
} workloads[] = {
    {"", "Pod", {NULL}},
    {"", "ReplicationController", {"spec", "template", NULL}},
    {"apps", "Deployment", {"spec", "template", NULL}},
    {"apps", "ReplicaSet", {"spec", "template", NULL}},
    {"apps", "StatefulSet", {"spec", "template", NULL}},
    {"apps", "DaemonSet", {"spec", "template", NULL}},
    {"batch", "Job", {"spec", "template", NULL}},
    {"batch", "CronJob", {"spec", "jobTemplate", "spec", "template"}},
};
enum { N_WORKLOADS = sizeof(workloads) / sizeof(workloads[0]) };

static const struct workload *workload_of(const json_t *tree)
{
    const char *version = tree_text(tree, "apiVersion");
    const char *kind = tree_text(tree, "kind");
    if (version == NULL || kind == NULL) {
        return NULL;
    }
    const char *slash = strchr(version, '/');
    struct str group = {version, slash != NULL ? (size_t)(slash - version) : 0};
    for (size_t i = 0; i < N_WORKLOADS; i++) {
        if (str_eq(group, str_of(workloads[i].group)) && strcmp(kind, workloads[i].kind) == 0) {
            return &workloads[i];
        }
    }
    return NULL;
}

static bool is_list(const json_t *tree)
{
    const char *version = tree_text(tree, "apiVersion");
    const char *kind = tree_text(tree, "kind");
    return version != NULL && strcmp(version, "v1") == 0 && kind != NULL &&
           strcmp(kind, "List") == 0 && tree_array(tree, "items") != NULL;
}

/* PodList, DeploymentList: as the API server answers, with items that don't say what they are. */
static bool is_list_of_workloads(const json_t *tree)
{
    const char *kind = tree_text(tree, "kind");
    for (size_t i = 0; kind != NULL && i < N_WORKLOADS; i++) {
        size_t n = strlen(workloads[i].kind);
        if (strncmp(kind, workloads[i].kind, n) == 0 && strcmp(kind + n, "List") == 0) {
            return true;
        }
    }
    return false;
}

/* Of a kind that we don't know, and yet it will make pods. */
static bool has_template(const json_t *tree)
{
    const json_t *template = tree_object(tree_object(tree, "spec"), "template");
    return tree_array(tree_object(template, "spec"), "containers") != NULL;
}

/* What is asked of each pod: in, or with NULL options out. */
struct work {
    const struct inject_options *o;
    const struct inject_tell *tell;
    bool changed, refused, opted_out;
};

static void name_of(const json_t *tree, char *ret, size_t size)
{
    const json_t *metadata = tree_object(tree, "metadata");
    const char *ns = tree_text(metadata, "namespace");
    const char *name = tree_text(metadata, "name");
    const char *generated = tree_text(metadata, "generateName");
    (void)snprintf(ret, size, "%.60s %.63s%s%.100s%s", tree_text(tree, "kind"),
                   ns != NULL ? ns : "", ns != NULL ? "/" : "",
                   name != NULL        ? name
                   : generated != NULL ? generated
                                       : "(no name)",
                   name == NULL && generated != NULL ? "*" : "");
}

static void say_of(const json_t *tree, struct work *k, bool refuse, const char *what)
{
    char where[300];
    struct pod p = {.where = where, .tell = k->tell, .strict = k->o != NULL && k->o->strict};
    name_of(tree, where, sizeof(where));
    if (refuse) {
        pod_refuse(&p, "", "%s", what);
    } else {
        pod_tell(&p, "", "%s", what);
    }
    k->refused = k->refused || p.n_refused > 0;
}

/* A workload's own annotations are not its pods': whoever writes ours there expects something. */
static void refuse_misplaced(const json_t *tree, const char *where, struct work *k)
{
    struct pod p = {.where = where, .tell = k->tell};
    const json_t *annotations = tree_object(tree_object(tree, "metadata"), "annotations");
    const char *key;
    json_t *value;
    json_object_foreach((json_t *)(uintptr_t)annotations, key, value)
    {
        if (str_has_prefix(str_of(key), STR_LIT(INJECT_ANNOTATION_PREFIX))) {
            char path[200];
            (void)snprintf(path, sizeof(path), "metadata.annotations[%.120s]", key);
            pod_refuse(&p, path, "it belongs to the pods: spec.template.metadata.annotations");
            k->refused = true;
        }
    }
}

static void do_workload(json_t *tree, const struct workload *w, struct work *k)
{
    char where[300];
    json_t *pod = tree;
    enum inject_outcome r;
    name_of(tree, where, sizeof(where));
    for (size_t i = 0; i < 4 && w->to[i] != NULL; i++) {
        pod = tree_object(pod, w->to[i]);
    }
    if (pod == NULL && k->o == NULL) {
        return; /* nothing of ours can be in it */
    }
    if (pod == NULL) {
        say_of(tree, k, true, "there is no pod template in it");
        return;
    }
    if (pod != tree) {
        refuse_misplaced(tree, where, k);
    }
    r = k->o != NULL ? inject_pod(pod, w->kind, where, k->o, k->tell)
                     : uninject_pod(pod, w->kind, where, k->tell);
    k->changed = k->changed || r == INJECT_CHANGED;
    k->refused = k->refused || r == INJECT_REFUSED;
    k->opted_out = k->opted_out || r == INJECT_OPTED_OUT;
}

static void do_object(json_t *tree, struct work *k, unsigned depth)
{
    const struct workload *w = workload_of(tree);
    size_t i;
    json_t *item;
    if (w != NULL) {
        do_workload(tree, w, k);
    } else if (is_list(tree) && depth < LIST_DEPTH_MAX) {
        json_array_foreach(tree_array(tree, "items"), i, item)
        {
            do_object(item, k, depth + 1);
        }
    } else if (is_list(tree)) {
        say_of(tree, k, true, "lists in lists, too deeply");
    } else if (is_list_of_workloads(tree)) {
        say_of(tree, k, true, "a list whose items don't say their kind; write it as a List");
    } else if (has_template(tree) && k->o != NULL) {
        say_of(tree, k, false,
               "it has a pod template, but is of a kind that is not known: left as it is");
    }
}

/* On a copy: of a list, too, all or nothing. */
static enum inject_outcome do_document(json_t *tree, struct work *k)
{
    json_t *next = json_deep_copy(tree);
    do_object(next, k, 0);
    if (!k->refused && k->changed) {
        json_object_clear(tree);
        json_object_update(tree, next);
    }
    json_decref(next);
    return k->refused     ? INJECT_REFUSED
           : k->changed   ? INJECT_CHANGED
           : k->opted_out ? INJECT_OPTED_OUT
                          : INJECT_UNCHANGED;
}

enum inject_outcome inject_document(json_t *tree, const struct inject_options *o,
                                    const struct inject_tell *tell)
{
    struct work k = {.o = o, .tell = tell};
    return do_document(tree, &k);
}

enum inject_outcome uninject_document(json_t *tree, const struct inject_tell *tell)
{
    struct work k = {.tell = tell};
    return do_document(tree, &k);
}
