/* pods: manifests to inject a sidecar into, and what is said meanwhile. */
#ifndef POSTERN_TEST_PODS_H
#define POSTERN_TEST_PODS_H

#include <jansson.h>
#include <postern/buf.h>
#include <postern/inject.h>
#include <stddef.h>

/* All that is said, one line each: "refused where: what". */
struct pod_said {
    struct buf text;
    size_t n_refused, n_told;
};
/* For struct inject_tell; arg is a struct pod_said. */
void pod_on_tell(void *arg, enum inject_severity severity, const char *where, const char *what);
struct inject_options pod_options(void); /* the defaults, with an image */

#define POD(spec) "apiVersion: v1\nkind: Pod\nmetadata: {name: p}\nspec:\n" spec
#define APP "  containers: [{name: app, image: a}]\n"
#define ONE(rest) POD("  containers: [{name: app, image: a, " rest "}]\n")
#define NOTED(name, value)                                                                         \
    "apiVersion: v1\nkind: Pod\nmetadata: {name: p, annotations: {\"postern.dev/" name             \
    "\": " value "}}\nspec:\n" APP

/* The first document as a tree; the caller's. */
json_t *pod_tree(const char *yaml);
/* Likewise, with the sidecar in it. */
json_t *pod_injected(const char *yaml, const struct inject_options *o);
/* The container of that name in `containers` or another list, lent; NULL: there is none. */
const json_t *pod_find(const json_t *pod, const char *list, const char *name, size_t *ret_at);
json_t *pod_member(json_t *pod, const char *list, const char *name);

#endif
