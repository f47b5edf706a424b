/*
 * agent_msg_kubelet: kubelet <-> supervisor, and kubelet -> keeper: the files and the connection of
 * each question, and the pods of this node. docs/kubernetes.md.
 */
#ifndef POSTERN_AGENT_MSG_KUBELET_H
#define POSTERN_AGENT_MSG_KUBELET_H

#include <postern/agent_msg.h>
#include <postern/err.h>
#include <stdbool.h>
#include <stdint.h>

struct agent_msg_start_kubelet {
    struct agent_msg_head head;
    uint32_t log_level;
    uint32_t poll_ms, timeout_ms;
    uint32_t run_uid, run_gid; /* what to become, if started by root */
    bool insecure, plaintext;
    uint16_t host_len, server_name_len, node_name_len;
    char host[AGENT_HOST_MAX];
    char server_name[AGENT_POD_NAME_MAX]; /* that the certificate must have */
    char node_name[AGENT_POD_NAME_MAX];   /* empty: any */
};
enum agent_kubelet_file {
    AGENT_KUBELET_CA,
    AGENT_KUBELET_TOKEN,
    AGENT_KUBELET_CERT,
    AGENT_KUBELET_KEY,
    AGENT_N_KUBELET_FILES,
};
struct agent_msg_kubelet_file {
    struct agent_msg_head head;
    uint32_t which; /* enum agent_kubelet_file */
};
struct agent_msg_kubelet_state {
    struct agent_msg_head head;
    uint64_t n_asked, n_failed;                /* since the process's start */
    int64_t fetched_s;                         /* when the last good list came; 0: never */
    uint32_t n_pods, n_containers, n_left_out; /* of the last good list */
    uint32_t restarts;                         /* of the process; the supervisor fills it in */
    bool configured, insecure, plaintext;      /* likewise */
    struct err error;    /* of the last question, code ERR_NONE if it was good */
    struct err left_out; /* the first pod that was left out, and why */
};
struct agent_msg_pods_begin {
    struct agent_msg_head head;
    uint32_t n_pods;
};
/* Texts may be empty where the kubelet does not tell; uid, ns and name are not. */
struct agent_msg_pod {
    struct agent_msg_head head;
    uint32_t n_containers;
    uint16_t uid_len, ns_len, name_len, sa_len, node_len, labels_len;
    char uid[AGENT_POD_UID_MAX]; /* as in cgroups */
    char ns[AGENT_POD_NAME_MAX];
    char name[AGENT_POD_NAME_MAX];
    char sa[AGENT_POD_NAME_MAX];
    char node[AGENT_POD_NAME_MAX];
    char labels[AGENT_POD_LABELS_MAX];
};
struct agent_msg_container {
    struct agent_msg_head head;
    uint16_t id_len, name_len, image_len, image_id_len, digest_len;
    char id[AGENT_CONTAINER_ID_MAX];
    char name[AGENT_CONTAINER_NAME_MAX];
    char image[AGENT_IMAGE_MAX];
    char image_id[AGENT_IMAGE_MAX];
    char digest[AGENT_IMAGE_MAX]; /* "sha256:HEX", the end of image_id */
};

#endif
