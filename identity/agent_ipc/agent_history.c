/* What the service keeps of permissive ports, to parts and back. */
#include <postern/agent_ipc.h>

#include <string.h>

bool agent_history_part(struct str all, size_t *at, struct agent_msg_history *ret)
{
    if (*at > 0 && *at >= all.n) {
        return false;
    }
    size_t n = all.n - *at;
    n = n < AGENT_DOC_PART_MAX ? n : AGENT_DOC_PART_MAX;
    agent_ipc_init(ret, AGENT_MSG_HISTORY, 0);
    ret->total = (uint32_t)all.n;
    ret->at = (uint32_t)*at;
    ret->bytes_len = (uint32_t)n;
    if (n > 0) {
        memcpy(ret->bytes, all.p + *at, n);
    }
    *at += n > 0 ? n : 1; /* nothing is said once */
    return true;
}

bool agent_history_take(struct buf *b, const struct agent_msg_history *m, bool *ret_whole)
{
    if (m->at == 0) {
        buf_reset(b);
    }
    if (m->at != buf_len(b) || m->total > AGENT_HISTORY_MAX || m->at > m->total ||
        m->bytes_len > m->total - m->at || (m->bytes_len == 0 && m->total > 0) ||
        !buf_append(b, m->bytes, m->bytes_len)) {
        return false;
    }
    *ret_whole = buf_len(b) == m->total;
    return true;
}
