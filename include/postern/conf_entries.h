/* conf_entries: what an Entries file says, as plain structs. The rules of conf.h hold. */
#ifndef POSTERN_CONF_ENTRIES_H
#define POSTERN_CONF_ENTRIES_H

#include <postern/conf_lists.h>
#include <stddef.h>
#include <stdint.h>

/* In the order of enum agent_selector_type. */
enum conf_selector_type {
    CONF_SELECTOR_UNIX_UID,
    CONF_SELECTOR_UNIX_USER,
    CONF_SELECTOR_UNIX_GID,
    CONF_SELECTOR_UNIX_GROUP,
    CONF_SELECTOR_UNIX_SUPPLEMENTARY_GID,
    CONF_SELECTOR_UNIX_SUPPLEMENTARY_GROUP,
    CONF_SELECTOR_UNIX_PATH,
    CONF_SELECTOR_UNIX_SHA256,
    CONF_SELECTOR_SYSTEMD_ID,
    CONF_SELECTOR_CONTAINER_ID,
    CONF_SELECTOR_CONTAINER_RUNTIME,
    CONF_SELECTOR_K8S_NS,
    CONF_SELECTOR_K8S_SA,
    CONF_SELECTOR_K8S_POD_NAME,
    CONF_SELECTOR_K8S_POD_UID,
    CONF_SELECTOR_K8S_POD_LABEL,
    CONF_SELECTOR_K8S_NODE_NAME,
    CONF_SELECTOR_K8S_CONTAINER_NAME,
    CONF_SELECTOR_K8S_CONTAINER_IMAGE,
    CONF_SELECTOR_K8S_IMAGE_DIGEST,
    CONF_N_SELECTORS,
};

struct conf_selector {
    enum conf_selector_type type;
    uint32_t number; /* uid, gid (names are resolved at load), runtime (enum agent_runtime) */
    char *written;   /* as the file has it */
    char *text;      /* what is behind the type; NULL where it is a number */
};

struct conf_entry {
    char *id;                        /* unique in the file */
    unsigned line;                   /* where it stands in the file */
    char *spiffe_id;                 /* maybe with variables, such as {k8s.ns} */
    struct conf_selector *selectors; /* at least one */
    size_t n_selectors;
    uint32_t ttl_s;     /* 0: the agent's default */
    uint32_t jwt_ttl_s; /* of tokens; 0: the agent's default */
    struct conf_strings dns_names;
    char *hint; /* NULL: none */
};

struct conf_entries {
    char *path;
    struct conf_entry *entries;
    size_t n_entries;
};

#endif
