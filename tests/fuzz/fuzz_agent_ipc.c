/*
 * The check of a message between the agent's processes. First byte: the way it came and whether a
 * descriptor came with it; the rest is the message.
 *
 * Properties: what passes has exactly the size that its head says, every text of the types that a
 * compromised service can send lies inside its message, and it passes on no way that is not its own
 * type's (seen by what the dispatchers rely on: an issue passes from the service only).
 */
#include <postern/agent_ipc.h>

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void require(bool ok)
{
    if (!ok) {
        abort();
    }
}

static void check_entry(const struct agent_msg_entry *e)
{
    require(e->index < AGENT_ENTRIES_MAX && e->id_len <= AGENT_NAME_MAX &&
            e->spiffe_id_len <= AGENT_ID_MAX && e->n_selectors <= AGENT_SELECTORS_MAX &&
            e->selector_text_len <= AGENT_SELECTOR_TEXT_MAX && e->hint_len <= AGENT_HINT_MAX &&
            e->n_dns_names <= AGENT_DNS_NAMES_MAX);
    require(memchr(e->spiffe_id, 0, e->spiffe_id_len) == NULL);
    size_t texts = 0;
    for (size_t i = 0; i < e->n_selectors; i++) {
        require(e->selectors[i].type < AGENT_N_SELECTORS);
        texts += e->selectors[i].text_len;
    }
    require(texts == e->selector_text_len);
    for (size_t i = 0; i < e->n_dns_names; i++) {
        require(e->dns_names[i].len > 0 && e->dns_names[i].len <= AGENT_DNS_NAME_MAX);
    }
}

static void check_passed(enum agent_way way, const union agent_msg *m, size_t len, bool has_fd)
{
    require(m->head.size == len && m->head.type > AGENT_MSG_NONE && m->head.type < AGENT_N_MSGS);
    require(agent_msg_name(m->head.type)[0] != 0);
    if (way == AGENT_WAY_SERVICE_KEEPER) {
        require(!has_fd &&
                (m->head.type == AGENT_MSG_IDENTITY_GET || m->head.type == AGENT_MSG_ISSUE ||
                 m->head.type == AGENT_MSG_BUNDLE_GET || m->head.type == AGENT_MSG_JWKS_GET ||
                 m->head.type == AGENT_MSG_JWT_SIGN));
    }
    if (way == AGENT_WAY_KUBELET_KEEPER) {
        require(!has_fd && m->head.type >= AGENT_MSG_PODS_BEGIN &&
                m->head.type <= AGENT_MSG_PODS_COMMIT);
    }
    if (way == AGENT_WAY_SERVICE_ATTESTOR) {
        require(!has_fd &&
                (m->head.type == AGENT_MSG_REATTEST || m->head.type == AGENT_MSG_RELEASE));
    }
    if (m->head.type == AGENT_MSG_ENTRY) {
        check_entry(&m->entry);
    }
    if (m->head.type == AGENT_MSG_JWT_SIGN) {
        require(way == AGENT_WAY_SERVICE_KEEPER);
        require(m->jwt_sign.n_audiences <= AGENT_AUDIENCES_MAX &&
                m->jwt_sign.audiences_len <= AGENT_AUDIENCES_BYTES);
    }
    if (m->head.type == AGENT_MSG_FAILED || m->head.type == AGENT_MSG_DIAGNOSTIC ||
        m->head.type == AGENT_MSG_DOUBT) {
        char text[2048];

        require(strlen(m->failed.error.what) < sizeof(m->failed.error.what));
        (void)err_text(&m->failed.error, text, sizeof(text));
    }
    if (m->head.type == AGENT_MSG_ATTESTED || m->head.type == AGENT_MSG_UPDATED) {
        require(m->caller.path_len <= AGENT_PATH_MAX &&
                memchr(m->caller.path, 0, m->caller.path_len) == NULL &&
                m->caller.n_groups <= AGENT_GROUPS_MAX &&
                m->caller.container_id_len <= AGENT_CONTAINER_ID_MAX &&
                m->caller.pod_uid_len <= AGENT_POD_UID_MAX &&
                m->caller.unit_len <= AGENT_UNIT_MAX && m->caller.runtime < AGENT_N_RUNTIMES);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static union agent_msg m;
    enum agent_way way;
    bool has_fd;

    if (size < 1) {
        return 0;
    }
    way = (enum agent_way)((data[0] & 0x7f) % AGENT_N_WAYS);
    has_fd = (data[0] & 0x80) != 0;
    if (!agent_ipc_check(way, data + 1, size - 1, has_fd)) {
        return 0;
    }
    require(size - 1 <= sizeof(m));
    memset(&m, 0, sizeof(m));
    memcpy(&m, data + 1, size - 1);
    check_passed(way, &m, size - 1, has_fd);
    return 0;
}
