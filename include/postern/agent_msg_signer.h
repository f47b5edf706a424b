/*
 * agent_msg_signer: supervisor -> signer, and signer <-> keeper. docs/authority.md, "A token".
 * Words are texts one after another, each ended by a NUL.
 */
#ifndef POSTERN_AGENT_MSG_SIGNER_H
#define POSTERN_AGENT_MSG_SIGNER_H

#include <postern/agent_msg.h>
#include <postern/err.h>
#include <stdbool.h>
#include <stdint.h>

struct agent_msg_start_signer {
    struct agent_msg_head head;
    uint32_t log_level;
    uint32_t run_uid, run_gid;       /* what to become, if started by root */
    uint32_t root_ttl_s, node_ttl_s; /* no certificate that it signs lives longer */
    uint16_t trust_domain_len, module_len, token_len, key_len;
    char trust_domain[AGENT_TRUST_DOMAIN_MAX];
    char module[AGENT_PATH_MAX];
    char token[AGENT_TOKEN_LABEL_MAX]; /* its label */
    char key[AGENT_TOKEN_KEY_MAX];     /* its label; others begin with it and a dash */
    uint32_t environment_len, paths_len;
    uint8_t environment[AGENT_TOKEN_WORDS_MAX]; /* NAME=VALUE */
    uint8_t paths[AGENT_TOKEN_WORDS_MAX];       /* that the module may write to */
};
struct agent_msg_signer_pin {
    struct agent_msg_head head;
    uint32_t owner_uid; /* whose the file has to be */
};
struct agent_msg_signer_key {
    struct agent_msg_head head;
    bool another; /* a new one; else the one with the label itself, made if there is none */
};
struct agent_msg_signer_key_is {
    struct agent_msg_head head;
    struct err error; /* code ERR_NONE: there is one */
    bool made;        /* just now */
    uint8_t point[AGENT_POINT_SIZE];
};
enum agent_signer_purpose { AGENT_SIGNER_ROOT, AGENT_SIGNER_NODE, AGENT_N_SIGNER_PURPOSES };
/* Fields and never bytes: the signer builds the certificate itself. */
struct agent_msg_signer_sign {
    struct agent_msg_head head;
    uint32_t purpose; /* enum agent_signer_purpose */
    int64_t not_before_s, not_after_s;
    uint8_t key[AGENT_POINT_SIZE];   /* which key signs */
    uint8_t point[AGENT_POINT_SIZE]; /* NODE: whose certificate it is; ROOT: the same again */
};
struct agent_msg_signer_signed {
    struct agent_msg_head head;
    struct err error; /* code ERR_NONE: here it is */
    uint32_t cert_len;
    uint8_t cert[AGENT_LEAF_MAX]; /* DER */
};

#endif
