/*
 * agent_msg: what the messages of <postern/agent_ipc.h> share: bounds, roles, the head that each
 * begins with, and what every child says to its supervisor. The messages themselves are beside it,
 * a header a channel.
 */
#ifndef POSTERN_AGENT_MSG_H
#define POSTERN_AGENT_MSG_H

#include <postern/err.h>
#include <postern/log.h>
#include <postern/sandbox.h>
#include <stdbool.h>
#include <stdint.h>

enum {
    AGENT_ID_MAX = 2048,            /* a SPIFFE ID */
    AGENT_TRUST_DOMAIN_MAX = 255,   /* a trust domain's name */
    AGENT_PATH_MAX = 4095,          /* an executable's path */
    AGENT_HINT_MAX = 1024,          /* a hint (Workload API) */
    AGENT_NAME_MAX = 256,           /* an entry's id */
    AGENT_DNS_NAME_MAX = 253,       /* one DNS name */
    AGENT_DNS_NAMES_MAX = 16,       /* of an entry */
    AGENT_ENTRIES_MAX = 4096,       /* of a file */
    AGENT_IDENTITIES_MAX = 2048,    /* of one caller; the first ones of the file count */
    AGENT_LEAF_MAX = 8192,          /* DER of a leaf */
    AGENT_CHAIN_MAX = 8192,         /* DER of the intermediates */
    AGENT_BUNDLE_MAX = 16384,       /* DER of the roots, one after another */
    AGENT_TOKEN_MAX = 16384,        /* a JWT-SVID */
    AGENT_AUDIENCES_MAX = 16,       /* of a token */
    AGENT_AUDIENCES_BYTES = 4096,   /* of all of them */
    AGENT_JWKS_MAX = 16384,         /* the public keys for tokens */
    AGENT_CA_ID_MAX = 64,           /* an authority's id */
    AGENT_CA_TEXT_MAX = 12288,      /* authorities as JSON */
    AGENT_POINT_SIZE = 65,          /* an uncompressed P-256 point */
    AGENT_REASON_MAX = 256,         /* why something is quarantined */
    AGENT_DENY_MAX = 4096,          /* things that are quarantined */
    AGENT_DOC_ITEMS_MAX = 131072,   /* rules of a policy, services of a mesh map */
    AGENT_DOC_PART_MAX = 8192,      /* bytes of a document in one message */
    AGENT_HISTORY_MAX = 4 << 20,    /* bytes of what is kept of permissive ports */
    AGENT_UIDS_MAX = 32,            /* that may use the admin socket */
    AGENT_SELECTORS_MAX = 24,       /* of an entry */
    AGENT_SELECTOR_TEXT_MAX = 8192, /* all texts of an entry's selectors together */
    AGENT_GROUPS_MAX = 64,          /* supplementary groups of a caller that are looked at */
    AGENT_SHA256_SIZE = 32,
    AGENT_CONTAINER_ID_MAX = 64,    /* hexadecimal */
    AGENT_POD_UID_MAX = 64,         /* with dashes; of a static pod 32 hexadecimal digits */
    AGENT_UNIT_MAX = 255,           /* a systemd unit's name */
    AGENT_HOST_MAX = 64,            /* an address with its port, as text */
    AGENT_PODS_MAX = 1024,          /* of a node */
    AGENT_POD_CONTAINERS_MAX = 64,  /* of a pod */
    AGENT_POD_NAME_MAX = 253,       /* a name in Kubernetes */
    AGENT_POD_LABELS_MAX = 8192,    /* bytes of a pod's labels, "key=value\n" each */
    AGENT_CONTAINER_NAME_MAX = 63,  /* in its pod */
    AGENT_IMAGE_MAX = 1023,         /* an image, or its id */
    AGENT_PIPELINE_MAX = 8,         /* questions without an answer yet */
    AGENT_TOKEN_LABEL_MAX = 32,     /* of a PKCS#11 token */
    AGENT_TOKEN_KEY_MAX = 64,       /* of a key in it */
    AGENT_TOKEN_WORDS_MAX = 4096,   /* bytes of its paths, of its environment */
    AGENT_FACTS_MAX_AGE_MS = 10000, /* older facts are AGENT_STALE_FACTS: ask REATTEST first */
};

enum agent_role {
    AGENT_ROLE_SUPERVISOR,
    AGENT_ROLE_KEEPER,
    AGENT_ROLE_ATTESTOR,
    AGENT_ROLE_SERVICE,
    AGENT_ROLE_LOADER,
    AGENT_ROLE_KUBELET,
    AGENT_ROLE_SIGNER,
    AGENT_N_ROLES,
};
const char *agent_role_name(enum agent_role role);

/* Who started a container, by the shape of its cgroup's name. OTHER: the name does not say. */
enum agent_runtime {
    AGENT_RUNTIME_NONE,
    AGENT_RUNTIME_OTHER,
    AGENT_RUNTIME_CONTAINERD,
    AGENT_RUNTIME_CRIO,
    AGENT_RUNTIME_DOCKER,
    AGENT_RUNTIME_PODMAN,
    AGENT_N_RUNTIMES,
};
const char *agent_runtime_name(uint32_t runtime);

/* What an entry may ask of its caller. USER and GROUP are numbers by now, but unlike UID and GID
 * they hold only in the agent's own mount and user namespaces, where the name means the same.
 * docs/attestation.md has the words. */
enum agent_selector_type {
    AGENT_SELECTOR_UNIX_UID, /* number */
    AGENT_SELECTOR_UNIX_USER,
    AGENT_SELECTOR_UNIX_GID,
    AGENT_SELECTOR_UNIX_GROUP,
    AGENT_SELECTOR_UNIX_SUPPLEMENTARY_GID,
    AGENT_SELECTOR_UNIX_SUPPLEMENTARY_GROUP,
    AGENT_SELECTOR_UNIX_PATH,   /* text: absolute */
    AGENT_SELECTOR_UNIX_SHA256, /* text: 64 hexadecimal digits, lower case */
    AGENT_SELECTOR_SYSTEMD_ID,  /* text: a unit of the system manager */
    AGENT_SELECTOR_CONTAINER_ID,
    AGENT_SELECTOR_CONTAINER_RUNTIME, /* number: enum agent_runtime */
    AGENT_SELECTOR_K8S_NS,            /* text, as all below */
    AGENT_SELECTOR_K8S_SA,
    AGENT_SELECTOR_K8S_POD_NAME,
    AGENT_SELECTOR_K8S_POD_UID,
    AGENT_SELECTOR_K8S_POD_LABEL, /* KEY:VALUE */
    AGENT_SELECTOR_K8S_NODE_NAME,
    AGENT_SELECTOR_K8S_CONTAINER_NAME,
    AGENT_SELECTOR_K8S_CONTAINER_IMAGE, /* image or image id, as the kubelet reports them */
    AGENT_SELECTOR_K8S_IMAGE_DIGEST,    /* sha256:HEX */
    AGENT_N_SELECTORS,
};
/* "unix:uid" and so on, a constant; "unknown" beyond the last. */
const char *agent_selector_name(uint32_t type);

/* Every message begins with this. Fill with agent_ipc_init. */
struct agent_msg_head {
    uint32_t type; /* enum agent_msg_type */
    uint32_t size; /* of the whole struct */
    uint64_t request_id;
};

struct agent_msg_plain {
    struct agent_msg_head head;
};
/* A handle is a number of the attestor's: never 0, never used twice in the life of an agent. */
struct agent_msg_handle {
    struct agent_msg_head head;
    uint64_t handle;
};
struct agent_msg_ask {
    struct agent_msg_head head;
    uint64_t handle;
};

enum agent_jwt_algorithm { AGENT_JWT_ES256, AGENT_JWT_ES384, AGENT_JWT_RS256 };

/* --- child -> supervisor ---------------------------------------------------------------------- */
struct agent_msg_report {
    struct agent_msg_head head;
    uint32_t role;        /* enum agent_role */
    uint32_t secret_kind; /* keeper: enum mem_secret_kind of its keys */
    struct sandbox_report report;
    bool memory_locked; /* keeper: its heap stays out of swap */
};
struct agent_msg_failed {
    struct agent_msg_head head;
    struct err error; /* every text of it is terminated */
};

#endif
