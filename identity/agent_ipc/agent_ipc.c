#include <postern/agent_ipc.h>

#include <string.h>
#include <unistd.h>

#include "agent_ipc_priv.h"

/* The table is in agent_rules.c. The dispatchers of the processes begin where this check ends. */

/* --- checking --------------------------------------------------------------------------------- */
static bool text_ok(const uint8_t *text, size_t len, size_t max)
{
    return len <= max && (len == 0 || memchr(text, 0, len) == NULL);
}

static bool bool_ok(const uint8_t *p)
{
    return *p <= 1;
}

static bool terminated(const uint8_t *text, size_t size)
{
    return memchr(text, 0, size) != NULL;
}

static bool err_ok(const uint8_t *p)
{
    uint32_t code;

    _Static_assert(sizeof(enum err_code) == sizeof(code), "an enum of another size");
    memcpy(&code, p + offsetof(struct err, code), sizeof(code));
    return code <= ERR_UNSUPPORTED &&
           terminated(p + offsetof(struct err, where), sizeof(((struct err *)0)->where)) &&
           terminated(p + offsetof(struct err, what), sizeof(((struct err *)0)->what)) &&
           terminated(p + offsetof(struct err, expected), sizeof(((struct err *)0)->expected)) &&
           terminated(p + offsetof(struct err, advice), sizeof(((struct err *)0)->advice));
}

static bool report_ok(const uint8_t *p)
{
    return bool_ok(p + offsetof(struct sandbox_report, no_new_privs)) &&
           bool_ok(p + offsetof(struct sandbox_report, dumpable)) &&
           bool_ok(p + offsetof(struct sandbox_report, core_dumps)) &&
           bool_ok(p + offsetof(struct sandbox_report, secure_bits)) &&
           bool_ok(p + offsetof(struct sandbox_report, seccomp)) &&
           terminated(p + offsetof(struct sandbox_report, seccomp_name),
                      sizeof(((struct sandbox_report *)0)->seccomp_name));
}

static bool dns_ok(const uint8_t *msg, const struct field *f)
{
    uint16_t n;

    memcpy(&n, msg + f->aux, sizeof(n));
    if (n > f->max) {
        return false;
    }
    for (size_t i = 0; i < n; i++) {
        const uint8_t *name = msg + f->off + i * sizeof(struct agent_dns_name);
        uint16_t len;

        memcpy(&len, name + offsetof(struct agent_dns_name, len), sizeof(len));
        if (len == 0 ||
            !text_ok(name + offsetof(struct agent_dns_name, text), len, AGENT_DNS_NAME_MAX)) {
            return false;
        }
    }
    return true;
}

static bool selectors_ok(const uint8_t *msg, const struct field *f)
{
    size_t texts = 0;
    uint16_t n, text_len;

    memcpy(&n, msg + f->aux, sizeof(n));
    memcpy(&text_len, msg + offsetof(struct agent_msg_entry, selector_text_len), sizeof(text_len));
    if (n > f->max) {
        return false;
    }
    for (size_t i = 0; i < n; i++) {
        struct agent_selector s;

        memcpy(&s, msg + f->off + i * sizeof(s), sizeof(s));
        if (s.type >= AGENT_N_SELECTORS) {
            return false;
        }
        texts += s.text_len;
    }
    return texts == text_len;
}

static bool docs_ok(const uint8_t *p)
{
    for (size_t i = 0; i < AGENT_N_DOCUMENTS; i++) {
        const uint8_t *d = p + i * sizeof(struct agent_doc_state);

        if (!bool_ok(d + offsetof(struct agent_doc_state, configured)) ||
            !err_ok(d + offsetof(struct agent_doc_state, error))) {
            return false;
        }
    }
    return true;
}

static bool field_ok(const uint8_t *msg, const struct field *f)
{
    uint16_t len16;
    uint32_t n;

    switch (f->kind) {
    case FIELD_TEXT:
        memcpy(&len16, msg + f->aux, sizeof(len16));
        return text_ok(msg + f->off, len16, f->max);
    case FIELD_BYTES:
        memcpy(&n, msg + f->aux, sizeof(n));
        return n <= f->max;
    case FIELD_COUNT:
        memcpy(&n, msg + f->off, sizeof(n));
        return n <= f->max;
    case FIELD_BOOL:
        return bool_ok(msg + f->off);
    case FIELD_ERR:
        return err_ok(msg + f->off);
    case FIELD_REPORT:
        return report_ok(msg + f->off);
    case FIELD_DOCS:
        return docs_ok(msg + f->off);
    case FIELD_DNS:
        return dns_ok(msg, f);
    case FIELD_SELECTORS:
        return selectors_ok(msg, f);
    case FIELD_END:
        break;
    }
    return true;
}

bool agent_ipc_check(enum agent_way way, const void *msg, size_t len, bool has_fd)
{
    struct agent_msg_head head;
    const struct msg_rule *rule;

    if (len < sizeof(head)) {
        return false;
    }
    memcpy(&head, msg, sizeof(head));
    if (head.type == AGENT_MSG_NONE || head.type >= AGENT_N_MSGS) {
        return false;
    }
    rule = &agent_ipc_rules[head.type];
    if ((rule->ways & (1U << way)) == 0 || len != rule->size || head.size != rule->size ||
        has_fd != rule->has_fd) {
        return false;
    }
    for (size_t i = 0; i < FIELDS_MAX && rule->fields[i].kind != FIELD_END; i++) {
        if (!field_ok(msg, &rule->fields[i])) {
            return false;
        }
    }
    return true;
}

/* --- sending and receiving -------------------------------------------------------------------- */
void agent_ipc_init(void *msg, enum agent_msg_type type, uint64_t request_id)
{
    struct agent_msg_head head = {.type = type, .request_id = request_id};

    POSTERN_ASSERT(type > AGENT_MSG_NONE && type < AGENT_N_MSGS);
    head.size = (uint32_t)agent_ipc_rules[type].size;
    memset(
        msg, 0,
        agent_ipc_rules[type].size); /* padding too: nothing of ours leaks into another process */
    memcpy(msg, &head, sizeof(head));
}

enum ipc_outcome agent_ipc_send(int fd, const void *msg, int fd_to_pass)
{
    struct agent_msg_head head;

    memcpy(&head, msg, sizeof(head));
    POSTERN_ASSERT(head.type > AGENT_MSG_NONE && head.type < AGENT_N_MSGS &&
                   head.size == agent_ipc_rules[head.type].size &&
                   (fd_to_pass != -1) == agent_ipc_rules[head.type].has_fd);
    return ipc_send(fd, msg, head.size, fd_to_pass);
}

enum ipc_outcome agent_ipc_recv(int fd, enum agent_way way, union agent_msg *ret_msg, int *ret_fd)
{
    enum ipc_outcome outcome;
    size_t len = 0;
    int passed = -1;

    outcome = ipc_recv(fd, ret_msg, sizeof(*ret_msg), &len, &passed);
    if (outcome != IPC_OK) {
        return outcome;
    }
    if (!agent_ipc_check(way, ret_msg, len, passed != -1)) {
        if (passed != -1) {
            close(passed);
        }
        return IPC_BAD;
    }
    *ret_fd = passed;
    return IPC_OK;
}

bool agent_ipc_put(char *text, size_t max, uint16_t *ret_len, struct str s)
{
    if (s.n > max || s.n > UINT16_MAX) {
        return false;
    }
    if (s.n > 0) {
        memcpy(text, s.p, s.n);
    }
    *ret_len = (uint16_t)s.n;
    return true;
}
