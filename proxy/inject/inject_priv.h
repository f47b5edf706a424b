/* What the files of proxy/inject share. */
#ifndef POSTERN_INJECT_PRIV_H
#define POSTERN_INJECT_PRIV_H

#include <postern/inject.h>
#include <postern/intercept.h>

enum { PORTS_MAX = 64, LIST_TEXT_MAX = 1024 };

/* One pod under work. */
struct pod {
    json_t *tree;     /* lent: {metadata, spec} */
    json_t *spec;     /* lent */
    const char *kind; /* of the workload */
    const char *where;
    const struct inject_tell *tell;
    bool strict; /* what is only told counts as refused */
    size_t n_refused;
};

/* What its annotations ask for, over the options. */
struct wishes {
    bool disabled;
    bool classic;
    enum log_level log_level;
    enum conf_access_log access_log;
    const char *spiffe_id; /* lent; NULL: the first offered */
    struct {
        uint16_t port;
        bool http;
    } ports[PORTS_MAX];
    size_t n_ports;
    const char *exclude_inbound_ports, *exclude_outbound_ports, *exclude_outbound_cidrs; /* lent */
    const char *exclude_uids;                                                            /* lent */
    bool tproxy, udp_drop, drop_all, canary;
    struct intercept_options rules; /* the same, as the interception will read them */
};

/* Says it, and counts what is refused. `path` is the place below the pod; may be "". */
void pod_refuse(struct pod *p, const char *path, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));
void pod_tell(struct pod *p, const char *path, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));

/* An object's member, if it is of that type; absent and null are alike NULL. */
json_t *tree_object(const json_t *parent, const char *key);
json_t *tree_array(const json_t *parent, const char *key);
const char *tree_text(const json_t *parent, const char *key);
bool tree_true(const json_t *parent, const char *key);
/* The index of the element whose name is this; -1: none. */
int tree_find(const json_t *array, const char *name);

/* Its annotations (annotations.c); what is wrong is refused. */
void wishes_read(struct pod *p, const struct inject_options *o, struct wishes *ret);
/* Whether a port of the pod goes to the sidecar. */
bool wishes_capture(const struct wishes *w, const struct inject_options *o, uint16_t port);
/* The command line of the interception, as {argv[0], …}; new. */
json_t *rules_argv(const struct wishes *w, const struct inject_options *o);

/* All reasons against it (refuse.c). `ours`: it has been injected before. */
void refuse_pod(struct pod *p, const struct wishes *w, const struct inject_options *o, bool ours);
/* Probes that ask the sidecar, once those are put back that can be. */
void refuse_lost_probes(struct pod *p);
/* Whether a container was made by us: by its name. */
bool container_is_ours(const json_t *c);

/* What the kubelet asks (probes.c). A port by its number, or by its name in the container; 0: none
 * of either. */
extern const char *const probe_kinds[];
uint16_t port_of(const json_t *c, const json_t *port);
/* Whether a probe is one that the sidecar can ask in the kubelet's place, and has to. */
bool probe_can_be_led(const json_t *c, const json_t *probe, const struct wishes *w,
                      const struct inject_options *o, uint16_t *ret_port);
/* Refuses more than one variable can hold. */
void refuse_probes(struct pod *p, const struct wishes *w, const struct inject_options *o);
/* Leads all of a pod's to the sidecar, and notes what they were; returns what that is to ask. */
json_t *probes_lead(json_t *pod, const struct wishes *w, const struct inject_options *o);
/* Puts back what they were, and the note away. */
void probes_restore(json_t *pod);

/* What goes in (sidecar.c); new. `questions` as probes_lead returns them. */
json_t *make_proxy(const struct wishes *w, const struct inject_options *o, const json_t *questions);
json_t *make_rules(const struct wishes *w, const struct inject_options *o);
json_t *make_volume(const struct inject_options *o);

#endif
