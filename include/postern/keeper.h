/*
 * keeper: which identities a caller has, by the keeper's own judgement. A library of its own so
 * that `postern entries test` asks the very code that decides.
 *
 * Facts of a caller come from the attestor and, for pods, from the kubelet; entries come from the
 * loader. Matching asks for all selectors of an entry, finds candidates by an index and so costs
 * what the caller's facts are many, not what the entries are. docs/attestation.md has the rules.
 *
 * Pure functions over memory: no files, no system calls. Thread: one.
 */
#ifndef POSTERN_KEEPER_H
#define POSTERN_KEEPER_H

#include <postern/agent_ipc.h>
#include <postern/err.h>
#include <postern/str.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* --- facts ------------------------------------------------------------------------------------ */
/* A container as the kubelet tells of it. Texts are never NULL, and "" where unknown. */
struct keeper_container {
    char *id;       /* hexadecimal, without "containerd://" */
    char *name;     /* of the container in its pod */
    char *image;    /* as the kubelet reports it */
    char *image_id; /* likewise: REPOSITORY@sha256:HEX, or sha256:HEX of an imported image */
    char *digest;   /* sha256:HEX, the end of image_id */
};
struct keeper_label {
    char *key, *value;
};
struct keeper_pod {
    char *uid; /* as in cgroups, with dashes */
    char *ns, *sa, *name, *node;
    struct keeper_label *labels;
    size_t n_labels;
    struct keeper_container *containers; /* init and ephemeral ones too */
    size_t n_containers;
};

/* All that is known of a caller. Nothing is owned; texts are NULL where unknown. */
struct keeper_facts {
    uint64_t state;    /* the same number: the same facts, but for the pod; 0: nothing is said */
    uint32_t uid, gid; /* effective */
    const uint32_t *groups;
    size_t n_groups;
    bool own_view;  /* agent_msg_caller says what this and the next are */
    bool contained; /* not: a process of the host itself */
    const char *path;
    const uint8_t *sha256; /* AGENT_SHA256_SIZE bytes */
    const char *unit;
    uint32_t runtime; /* enum agent_runtime */
    const char *container_id;
    const char *pod_uid;
    bool pod_untold; /* it is in a pod, and the kubelet, which is asked, has not told of that one */
    const struct keeper_pod *pod;             /* NULL: no pod, or the kubelet does not know it */
    const struct keeper_container *container; /* of that pod; NULL: not known (yet) */
};

/* --- entries ---------------------------------------------------------------------------------- */
struct keeper_selector {
    uint32_t type, number;
    const char *text; /* in the entry's texts; "" for numbers */
};

struct keeper_entry {
    char *id, *hint;                   /* owned; hint may be NULL */
    char *spiffe_id;                   /* owned; with variables if is_template */
    char *texts;                       /* owned: of the selectors */
    struct keeper_selector *selectors; /* owned */
    char **dns_names;                  /* owned */
    size_t n_selectors, n_dns_names;
    uint32_t ttl_s;     /* 0: the agent's default */
    uint32_t jwt_ttl_s; /* the same */
    uint32_t line;
    bool is_template;
};

struct keeper_index;
struct keeper_entries {
    uint64_t generation;
    struct keeper_entry *items;
    size_t n, expected;
    struct err refused;         /* first thing wrong with a set in the making */
    struct keeper_index *index; /* owned; made by keeper_entries_check */
};

/* An entry that is granted to a caller, with the identity that it comes to for that caller. */
struct keeper_grant {
    uint32_t place; /* of the entry in its set */
    const struct keeper_entry *entry;
    char spiffe_id[AGENT_ID_MAX + 1];
};

struct keeper_entries *keeper_entries_new(uint64_t generation, size_t expected);
struct keeper_entries *keeper_entries_free(struct keeper_entries *set);
/* Adds the next entry; what is wrong with it is kept in `refused` until the commit. */
void keeper_entries_add(struct keeper_entries *set, const struct agent_msg_entry *msg,
                        struct str trust_domain);
/* 0 if the set is complete and good, which makes it ready to be asked. Counts the differences to
 * the old set (may be NULL), by id. */
int keeper_entries_check(struct keeper_entries *set, const struct keeper_entries *old,
                         uint32_t *ret_added, uint32_t *ret_removed, uint32_t *ret_changed,
                         struct err *err);
/* Places in the set that are granted to these facts, in order, at most AGENT_IDENTITIES_MAX. Of
 * several that come to the same identity only the first is there. */
size_t keeper_entries_match(const struct keeper_entries *set, const struct keeper_facts *facts,
                            uint32_t ret[AGENT_IDENTITIES_MAX]);
/* Whether the entry at that place is among those, and as what. */
bool keeper_entries_grant(const struct keeper_entries *set, const struct keeper_facts *facts,
                          uint32_t place, struct keeper_grant *ret);

/* --- one entry -------------------------------------------------------------------------------- */
bool keeper_selector_holds(const struct keeper_selector *s, const struct keeper_facts *facts);
enum keeper_refusal {
    KEEPER_GRANTED,
    KEEPER_SELECTOR,  /* a selector does not hold */
    KEEPER_CONTAINED, /* nothing but unix selectors, and the caller is no process of the host */
    KEEPER_TEMPLATE,  /* a variable has no value that may stand in an ID */
};
/* Whether the entry alone is granted; *ret_selector: the first that does not hold. */
enum keeper_refusal keeper_entry_judge(const struct keeper_entry *e,
                                       const struct keeper_facts *facts, size_t *ret_selector);

/* --- templates -------------------------------------------------------------------------------- */
/* enum spiffe_kind of a selector type. */
unsigned keeper_selector_kind(uint32_t type);
/* The ID for these facts; false: see spiffe_template_expand. */
bool keeper_template_expand(const char *spiffe_id, const struct keeper_facts *facts,
                            char ret[AGENT_ID_MAX + 1]);

#endif
