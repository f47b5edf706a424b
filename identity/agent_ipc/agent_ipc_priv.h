/* agent_ipc: the table of messages, and how its rows say what form a message has. */
#ifndef POSTERN_AGENT_IPC_PRIV_H
#define POSTERN_AGENT_IPC_PRIV_H

#include <postern/agent_ipc.h>
#include <stdbool.h>
#include <stddef.h>

enum field_kind {
    FIELD_END = 0,
    FIELD_TEXT,  /* a length (uint16_t at `aux`) and `max` bytes at `off`, no NUL among them */
    FIELD_BYTES, /* a length (uint32_t at `aux`) of at most `max` */
    FIELD_COUNT, /* a uint32_t of at most `max` */
    FIELD_BOOL,  /* 0 or 1: another byte in a bool is undefined behaviour */
    FIELD_ERR,   /* a struct err */
    FIELD_REPORT,
    FIELD_DOCS,      /* AGENT_N_DOCUMENTS of struct agent_doc_state */
    FIELD_DNS,       /* the DNS names of an entry: a uint16_t count at `aux` */
    FIELD_SELECTORS, /* likewise; their texts lie one after another in selector_text */
};

struct field {
    enum field_kind kind;
    size_t off;
    size_t aux;
    size_t max;
};

enum { FIELDS_MAX = 12 };

struct msg_rule {
    const char *name;
    size_t size;
    unsigned ways; /* bit mask of enum agent_way */
    bool has_fd;
    struct field fields[FIELDS_MAX];
};

extern const struct msg_rule agent_ipc_rules[AGENT_N_MSGS]; /* by enum agent_msg_type */

#endif
