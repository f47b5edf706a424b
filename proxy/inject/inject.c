/*
 * inject: a pod with the sidecar, and back. What would be in it is made from options and
 * annotations alone, and what is there of ours is compared with that: a pod cannot pretend to have
 * been injected, and one that has been, by these options, stays as it is to the byte.
 */
#include "inject_priv.h"

#include <postern/mem.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define TOKEN_MOUNT "/var/run/secrets/kubernetes.io/serviceaccount"

/* Which of these there were not before, so that they go again when they are empty. */
static const char *const parents[] = {"metadata", "annotations", "initContainers", "volumes", NULL};
enum { N_PARENTS = 4 };

/* --- the record ------------------------------------------------------------------------------- */
/* "v1" and the parents that were made. Other text is no record: nothing was made. */
static bool record_has(const char *record, const char *parent)
{
    size_t n = strlen(parent);
    const char *at = record;
    while ((at = strchr(at, ' ')) != NULL) {
        at++;
        if (strncmp(at, parent, n) == 0 && (at[n] == ' ' || at[n] == '\0')) {
            return true;
        }
    }
    return false;
}

static const char *record_of(const json_t *pod)
{
    const json_t *a = tree_object(tree_object(pod, "metadata"), "annotations");
    return tree_text(a, INJECT_RECORD);
}

static json_t *record_make(const bool made[N_PARENTS])
{
    char text[100];
    int n = snprintf(text, sizeof(text), "v1");
    for (int i = 0; i < N_PARENTS; i++) {
        if (made[i]) {
            n += snprintf(text + n, sizeof(text) - (size_t)n, " %s", parents[i]);
        }
    }
    return json_string(text);
}

/* --- what is ours already --------------------------------------------------------------------- */
static void drop_text(json_t *c, const json_t *ours, const char *key, const char *value)
{
    const char *have = tree_text(c, key);
    if (have != NULL && strcmp(have, value) == 0 && json_object_get(ours, key) == NULL) {
        json_object_del(c, key);
    }
}

/* The token that the API server mounts into every container. */
static void drop_token(json_t *c)
{
    json_t *mounts = tree_array(c, "volumeMounts");
    for (size_t i = json_array_size(mounts); i-- > 0;) {
        const json_t *m = json_array_get(mounts, i);
        const char *path = tree_text(m, "mountPath");
        if (path != NULL && strcmp(path, TOKEN_MOUNT) == 0 && tree_true(m, "readOnly") &&
            json_object_size(m) == 3 && tree_text(m, "name") != NULL) {
            json_array_remove(mounts, i);
        }
    }
    if (mounts != NULL && json_array_size(mounts) == 0) {
        json_object_del(c, "volumeMounts");
    }
}

/* What a LimitRange adds; less than we ask for is not ours. */
static void drop_more_resources(json_t *c, const json_t *ours)
{
    static const char *const sides[] = {"requests", "limits", NULL};
    json_t *have = tree_object(c, "resources"), *all = tree_object(ours, "resources");
    for (const char *const *side = sides; *side != NULL; side++) {
        json_t *more = tree_object(have, *side), *asked = tree_object(all, *side);
        const char *key;
        json_t *value;
        void *next;
        json_object_foreach_safe(more, next, key, value)
        {
            if (json_object_get(asked, key) == NULL) {
                json_object_del(more, key);
            }
        }
        if (asked == NULL && more != NULL) {
            json_object_del(have, *side);
        }
    }
}

/* Whether `have` is what we made, and no more than what the API server adds to it. */
static bool is_as_made(const json_t *have, const json_t *ours)
{
    json_t *c = json_deep_copy(have);
    drop_text(c, ours, "terminationMessagePath", "/dev/termination-log");
    drop_text(c, ours, "terminationMessagePolicy", "File");
    drop_token(c);
    drop_more_resources(c, ours);
    bool same = json_equal(c, ours);
    json_decref(c);
    return same;
}

/* Puts `ours` (taken) under its name at `at`, or where it is; what is as it should be stays. */
static void place(json_t *array, const char *name, json_t *ours, size_t at, bool exactly)
{
    int have = tree_find(array, name);
    if (have != -1) {
        json_t *old = json_incref(json_array_get(array, (size_t)have));
        if (is_as_made(old, ours)) {
            json_decref(ours);
            ours = json_incref(old);
        }
        json_decref(old);
        json_array_remove(array, (size_t)have);
        at = exactly ? at : (size_t)have;
    }
    size_t n = json_array_size(array);
    json_array_insert_new(array, at < n ? at : n, ours);
}

/* Each but the first of that name, and all of it if it does not belong here at all. */
static void remove_named(json_t *array, const char *name, bool all)
{
    bool first = !all;
    for (size_t i = 0; i < json_array_size(array);) {
        const char *have = tree_text(json_array_get(array, i), "name");
        if (have == NULL || strcmp(have, name) != 0) {
            i++;
        } else if (first) {
            first = false;
            i++;
        } else {
            json_array_remove(array, i);
        }
    }
}

/* --- in --------------------------------------------------------------------------------------- */
static json_t *want(json_t *parent, const char *key, json_t *empty, bool *ret_made)
{
    json_t *v = json_object_get(parent, key);
    if (v == NULL || json_is_null(v)) {
        *ret_made = true;
        json_object_set_new(parent, key, empty);
        return json_object_get(parent, key);
    }
    json_decref(empty);
    return v;
}

static void put_in(json_t *pod, const struct wishes *w, const struct inject_options *o,
                   const char *record)
{
    bool made[N_PARENTS];
    for (int i = 0; i < N_PARENTS; i++) {
        made[i] = record != NULL && record_has(record, parents[i]);
    }
    json_t *spec = json_object_get(pod, "spec");
    json_t *metadata = want(pod, "metadata", json_object(), &made[0]);
    json_t *annotations = want(metadata, "annotations", json_object(), &made[1]);
    json_t *containers = json_object_get(spec, "containers");
    json_t *init = want(spec, "initContainers", json_array(), &made[2]);
    json_t *volumes = want(spec, "volumes", json_array(), &made[3]);
    bool rules = !o->no_intercept;
    json_t *questions = probes_lead(pod, w, o);
    json_t *proxy = make_proxy(w, o, questions);

    json_decref(questions);
    remove_named(containers, INJECT_RULES_NAME, true);
    remove_named(init, INJECT_RULES_NAME, !rules);
    remove_named(containers, INJECT_PROXY_NAME, !w->classic);
    remove_named(init, INJECT_PROXY_NAME, w->classic);
    remove_named(volumes, INJECT_VOLUME_NAME, false);
    if (w->classic) {
        place(containers, INJECT_PROXY_NAME, proxy, SIZE_MAX, false);
        if (rules) {
            place(init, INJECT_RULES_NAME, make_rules(w, o), SIZE_MAX, true);
        }
    } else {
        place(init, INJECT_PROXY_NAME, proxy, 0, true);
        if (rules) {
            place(init, INJECT_RULES_NAME, make_rules(w, o), 0, true);
        }
    }
    if (json_array_size(init) == 0) {
        made[2] = made[2] && json_object_del(spec, "initContainers") != 0;
    }
    place(volumes, INJECT_VOLUME_NAME, make_volume(o), SIZE_MAX, false);
    json_object_set_new(annotations, INJECT_RECORD, record_make(made));
}

/* --- out -------------------------------------------------------------------------------------- */
static void drop_empty(json_t *parent, const char *key, const char *record)
{
    const json_t *v = json_object_get(parent, key);
    bool empty = json_is_object(v) ? json_object_size(v) == 0 : json_array_size(v) == 0;
    if (v != NULL && empty && record_has(record, key)) {
        json_object_del(parent, key);
    }
}

static void take_out(json_t *pod, const char *record)
{
    json_t *spec = json_object_get(pod, "spec");
    json_t *metadata = json_object_get(pod, "metadata");
    json_t *annotations = json_object_get(metadata, "annotations");
    mem_autofree char *made = mem_must_strdup(record); /* it goes */
    probes_restore(pod);
    remove_named(tree_array(spec, "containers"), INJECT_PROXY_NAME, true);
    remove_named(tree_array(spec, "containers"), INJECT_RULES_NAME, true);
    remove_named(tree_array(spec, "initContainers"), INJECT_PROXY_NAME, true);
    remove_named(tree_array(spec, "initContainers"), INJECT_RULES_NAME, true);
    remove_named(tree_array(spec, "volumes"), INJECT_VOLUME_NAME, true);
    json_object_del(annotations, INJECT_RECORD);
    drop_empty(spec, "initContainers", made);
    drop_empty(spec, "volumes", made);
    drop_empty(metadata, "annotations", made);
    drop_empty(pod, "metadata", made);
}

/* --- a pod ------------------------------------------------------------------------------------ */
static bool check_list(struct pod *p, const char *key, bool required)
{
    const json_t *v = json_object_get(p->spec, key);
    size_t i;
    json_t *e;
    char path[60];
    bool ok = json_is_array(v) || (!required && (v == NULL || json_is_null(v)));
    json_array_foreach(v, i, e)
    {
        ok = ok && json_is_object(e);
    }
    (void)snprintf(path, sizeof(path), "spec.%s", key);
    if (!ok || (required && json_array_size(v) == 0)) {
        pod_refuse(p, path, "not a list of mappings, as a pod has it");
    }
    return ok;
}

/* Whether the tree has a pod's shape, as far as it is walked here. */
static bool check_shape(struct pod *p)
{
    const json_t *metadata = json_object_get(p->tree, "metadata");
    const json_t *annotations = json_object_get(metadata, "annotations");
    if (!json_is_object(p->spec)) {
        pod_refuse(p, "spec", "there is none");
        return false;
    }
    if ((metadata != NULL && !json_is_object(metadata) && !json_is_null(metadata)) ||
        (annotations != NULL && !json_is_object(annotations) && !json_is_null(annotations))) {
        pod_refuse(p, "metadata", "not a mapping, as a pod has it");
    }
    (void)check_list(p, "containers", true);
    (void)check_list(p, "initContainers", false);
    (void)check_list(p, "ephemeralContainers", false);
    (void)check_list(p, "volumes", false);
    return p->n_refused == 0;
}

/* Gives the pod the other tree's content; takes that. */
static enum inject_outcome replace(json_t *pod, json_t *next)
{
    enum inject_outcome r = INJECT_UNCHANGED;
    if (!json_equal(pod, next)) {
        json_object_clear(pod);
        json_object_update(pod, next);
        r = INJECT_CHANGED;
    }
    json_decref(next);
    return r;
}

enum inject_outcome inject_pod(json_t *pod, const char *kind, const char *where,
                               const struct inject_options *o, const struct inject_tell *tell)
{
    json_t *next = json_deep_copy(pod);
    struct pod p = {.tree = next,
                    .spec = json_object_get(next, "spec"),
                    .kind = kind,
                    .where = where,
                    .tell = tell,
                    .strict = o->strict};
    struct wishes *w = mem_must_new(struct wishes);
    const char *record = record_of(pod);
    enum inject_outcome r = INJECT_REFUSED;
    if (check_shape(&p)) {
        wishes_read(&p, o, w);
    }
    if (p.n_refused == 0 && w->disabled) {
        r = record != NULL ? uninject_pod(pod, kind, where, tell) : INJECT_OPTED_OUT;
    } else if (p.n_refused == 0) {
        if (record != NULL) {
            probes_restore(next);
        }
        refuse_pod(&p, w, o, record != NULL);
        if (p.n_refused == 0) {
            put_in(next, w, o, record);
            r = replace(pod, json_incref(next));
        }
    }
    json_decref(next);
    free(w);
    return r;
}

enum inject_outcome uninject_pod(json_t *pod, const char *kind, const char *where,
                                 const struct inject_tell *tell)
{
    struct pod p = {.tree = pod,
                    .spec = json_object_get(pod, "spec"),
                    .kind = kind,
                    .where = where,
                    .tell = tell};
    const char *record = record_of(pod);
    if (record == NULL) {
        return INJECT_UNCHANGED;
    }
    if (!check_shape(&p)) {
        return INJECT_REFUSED;
    }
    json_t *next = json_deep_copy(pod);
    take_out(next, record);
    p.spec = json_object_get(next, "spec");
    refuse_lost_probes(&p);
    if (json_array_size(tree_array(p.spec, "containers")) == 0) {
        pod_refuse(&p, "spec.containers", "there is no other than the sidecar's");
    }
    if (p.n_refused > 0) {
        json_decref(next);
        return INJECT_REFUSED;
    }
    return replace(pod, next);
}
