/* The names of what is in messages, for logs and for people. */
#include <postern/agent_ipc.h>

#include "agent_ipc_priv.h"

const char *agent_msg_name(uint32_t type)
{
    return type < AGENT_N_MSGS ? agent_ipc_rules[type].name : "unknown";
}

const char *agent_role_name(enum agent_role role)
{
    static const char *const NAMES[AGENT_N_ROLES] = {"supervisor", "keeper",  "attestor", "service",
                                                     "loader",     "kubelet", "signer"};

    return role < AGENT_N_ROLES ? NAMES[role] : "unknown";
}

const char *agent_outcome_name(uint32_t outcome)
{
    static const char *const NAMES[AGENT_N_OUTCOMES] = {
        "ok",      "no_handle", "stale_facts", "stale_generation", "not_entitled", "bad_audience",
        "bad_key", "limited",   "unavailable", "quarantined",      "pending"};

    return outcome < AGENT_N_OUTCOMES ? NAMES[outcome] : "unknown";
}

const char *agent_runtime_name(uint32_t runtime)
{
    static const char *const NAMES[AGENT_N_RUNTIMES] = {"none", "other",  "containerd",
                                                        "crio", "docker", "podman"};

    return runtime < AGENT_N_RUNTIMES ? NAMES[runtime] : "unknown";
}

const char *agent_selector_name(uint32_t type)
{
    static const char *const NAMES[AGENT_N_SELECTORS] = {
        [AGENT_SELECTOR_UNIX_UID] = "unix:uid",
        [AGENT_SELECTOR_UNIX_USER] = "unix:user",
        [AGENT_SELECTOR_UNIX_GID] = "unix:gid",
        [AGENT_SELECTOR_UNIX_GROUP] = "unix:group",
        [AGENT_SELECTOR_UNIX_SUPPLEMENTARY_GID] = "unix:supplementary_gid",
        [AGENT_SELECTOR_UNIX_SUPPLEMENTARY_GROUP] = "unix:supplementary_group",
        [AGENT_SELECTOR_UNIX_PATH] = "unix:path",
        [AGENT_SELECTOR_UNIX_SHA256] = "unix:sha256",
        [AGENT_SELECTOR_SYSTEMD_ID] = "systemd:id",
        [AGENT_SELECTOR_CONTAINER_ID] = "container:id",
        [AGENT_SELECTOR_CONTAINER_RUNTIME] = "container:runtime",
        [AGENT_SELECTOR_K8S_NS] = "k8s:ns",
        [AGENT_SELECTOR_K8S_SA] = "k8s:sa",
        [AGENT_SELECTOR_K8S_POD_NAME] = "k8s:pod-name",
        [AGENT_SELECTOR_K8S_POD_UID] = "k8s:pod-uid",
        [AGENT_SELECTOR_K8S_POD_LABEL] = "k8s:pod-label",
        [AGENT_SELECTOR_K8S_NODE_NAME] = "k8s:node-name",
        [AGENT_SELECTOR_K8S_CONTAINER_NAME] = "k8s:container-name",
        [AGENT_SELECTOR_K8S_CONTAINER_IMAGE] = "k8s:container-image",
        [AGENT_SELECTOR_K8S_IMAGE_DIGEST] = "k8s:image-digest",
    };

    return type < AGENT_N_SELECTORS ? NAMES[type] : "unknown";
}

const char *agent_document_name(uint32_t document)
{
    static const char *const NAMES[AGENT_N_DOCUMENTS] = {"policy", "mesh", "modes"};

    return document < AGENT_N_DOCUMENTS ? NAMES[document] : "unknown";
}

const char *agent_token_name(uint32_t token)
{
    static const char *const NAMES[AGENT_N_TOKENS] = {"none", "ok", "away"};

    return token < AGENT_N_TOKENS ? NAMES[token] : "unknown";
}

const char *agent_outage_name(uint32_t outage)
{
    static const char *const NAMES[AGENT_N_OUTAGES] = {"root", "authority", "bundle", "token"};

    return outage < AGENT_N_OUTAGES ? NAMES[outage] : "unknown";
}
