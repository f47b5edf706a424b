/* conf_agent: what an Agent file says, as plain structs. The rules of conf.h hold. */
#ifndef POSTERN_CONF_AGENT_H
#define POSTERN_CONF_AGENT_H

#include <postern/conf_common.h>
#include <postern/conf_policy_context.h>
#include <postern/log.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

struct conf_kubernetes {
    bool configured; /* the file has the key; else the rest counts for nothing */
    struct conf_sockaddr address;
    char *ca_file, *server_name;             /* NULL: none; the address */
    char *token_file, *cert_file, *key_file; /* NULL: none */
    bool insecure, plaintext;
    char *node_name; /* NULL: any */
    uint32_t poll_ms;
};

/* What callers may make the agent hold and do. */
struct conf_agent_limits {
    uint32_t connections; /* 0: as many as descriptors last for */
    uint32_t connections_per_uid, calls, calls_per_uid, calls_per_connection;
    uint64_t memory_per_uid; /* bytes */
    uint32_t issue_burst_per_uid, issue_rate_per_uid;
};
enum conf_jwt_algorithm { CONF_JWT_ES256, CONF_JWT_ES384, CONF_JWT_RS256 };

enum conf_ca_source { CONF_CA_SELF, CONF_CA_DISK };
enum conf_key_at_rest { CONF_KEY_UNSAID, CONF_KEY_PLAIN, CONF_KEY_PASSPHRASE, CONF_KEY_CREDENTIAL };
struct conf_ca {
    bool present; /* the file has such a section */
    enum conf_ca_source source;
    struct {
        enum conf_key_at_rest kind;
        char *passphrase_file, *credential, *old_passphrase_file; /* NULL: not named */
        struct conf_token token;
    } key;
    struct {
        char *cert_file, *key_file, *bundle_file; /* source disk only */
    } disk;
    uint32_t outage_warn_s;
};

struct conf_agent {
    char *path;
    char *trust_domain;
    char *socket;
    char *state_dir;
    char *entries_path;
    uint64_t journal_max_size; /* bytes of one file */
    uint32_t journal_keep;     /* files, the one that is written included */
    char *control_socket;      /* NULL: control.sock in the state directory */
    struct {
        char *policy_path, *mesh_path, *modes_path; /* NULL: none */
    } state;                                        /* what proxies are told */
    struct conf_policy_context policy_context;
    struct conf_ca ca;
    uint32_t root_ttl_s, node_ttl_s, svid_ttl_s;
    uint32_t jwt_ttl_s, jwt_key_ttl_s;
    enum conf_jwt_algorithm jwt_algorithm; /* of new keys for tokens */
    uid_t keeper_uid, attestor_uid, service_uid, kubelet_uid, signer_uid;
    struct conf_kubernetes kubernetes;
    uint64_t executable_max; /* bytes; larger ones have no digest */
    struct conf_admin admin;
    struct conf_sockaddr metrics;
    enum log_level log_level;
    struct conf_agent_limits limits;
};

#endif
