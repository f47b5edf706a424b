/*
 * inject: puts the sidecar and its interception into a pod's specification, and takes them out.
 *
 * It works on trees (jansson) and knows no file and no cluster: the command reads manifests, the
 * admission webhook reads reviews, and both ask here. A tree is changed as a whole or not at all.
 * Whatever is in it was written by strangers; docs/injection.md says what is refused and why.
 *
 * Thread: any; no global state. Nothing here fails but by saying so through `tell`.
 */
#ifndef POSTERN_INJECT_H
#define POSTERN_INJECT_H

#include <jansson.h>
#include <postern/buf.h>
#include <postern/conf.h>
#include <postern/err.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define INJECT_ANNOTATION_PREFIX "postern.dev/"
#define INJECT_PROXY_NAME "postern-proxy"
#define INJECT_RULES_NAME "postern-intercept"
#define INJECT_VOLUME_NAME "postern-agent"
#define INJECT_RECORD INJECT_ANNOTATION_PREFIX "injected"
#define INJECT_PROBES INJECT_ANNOTATION_PREFIX "probes"

enum {
    INJECT_OUTBOUND_PORT = 15001,
    INJECT_INBOUND_PORT = 15006,
    INJECT_HBONE_PORT = 15008,
    INJECT_METRICS_PORT = 15020,
    INJECT_PROBE_PORT = 15021,
    INJECT_UID = 64700, /* no image's usual one: 65532, 65534 and 1337 are */
};

struct inject_options {
    const char *image;                    /* of the sidecar; required */
    const char *rules_image;              /* of the init container; NULL: the same */
    const char *pull_policy;              /* IfNotPresent, Always, Never */
    uint32_t proxy_uid;                   /* not 0 */
    const char *agent_dir;                /* on the node: holds the agent's socket */
    const char *agent_socket;             /* its name in there */
    const char *cpu, *memory;             /* requests */
    const char *cpu_limit, *memory_limit; /* NULL: none */
    enum log_level log_level;
    enum conf_access_log access_log;
    bool classic;      /* for pods that don't say */
    bool ipv4_only;    /* IPv6 is neither listened on nor intercepted */
    bool no_intercept; /* something else makes the rules */
    bool strict;       /* what is only told is refused too */
};

void inject_options_init(struct inject_options *ret);
/* Whether they are of use; ERR_USAGE. */
int inject_options_check(const struct inject_options *o, struct err *err);

enum inject_outcome {
    INJECT_CHANGED,
    INJECT_UNCHANGED, /* nothing to do: no pod in it, or it is as it should be */
    INJECT_OPTED_OUT, /* its pods say `inject: disabled` */
    INJECT_REFUSED,   /* the tree is as it was */
};

enum inject_severity { INJECT_SAYS_REFUSED, INJECT_SAYS_TOLD };

struct inject_tell {
    /* `where` names the object and the place in it; both hold a stranger's text, in which control
     * bytes have been replaced. */
    void (*tell)(void *arg, enum inject_severity severity, const char *where, const char *what);
    void *arg;
};

/* A pod, or what a workload makes pods of: {metadata, spec}. `kind` is the workload's, `where` its
 * name for people. */
enum inject_outcome inject_pod(json_t *pod, const char *kind, const char *where,
                               const struct inject_options *o, const struct inject_tell *tell);
enum inject_outcome uninject_pod(json_t *pod, const char *kind, const char *where,
                                 const struct inject_tell *tell);

/* A whole document: what is no workload of Kubernetes is INJECT_UNCHANGED. Of a List all items. */
enum inject_outcome inject_document(json_t *tree, const struct inject_options *o,
                                    const struct inject_tell *tell);
enum inject_outcome uninject_document(json_t *tree, const struct inject_tell *tell);

/* The annotations as Markdown, for docs/reference. */
bool inject_reference(struct buf *out);

#endif
