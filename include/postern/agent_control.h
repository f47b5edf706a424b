/*
 * agent_control: how root orders things of a running agent.
 *
 * The supervisor of `postern agent` listens on a Unix socket of its own (SOCK_SEQPACKET, mode 0600,
 * in a directory that nobody else may write to; the peer's uid must be root's or the agent's own).
 * A connection carries one request, one fixed-size struct, and gets one answer: `ok` with a JSON
 * document, or an error, in one or more fixed-size parts. Then it is closed. Who may do what is in
 * docs/privilege-separation.md; the other processes of the agent have no way to this socket.
 *
 * A verb is a row of the table in control_wire.c (which arguments it takes) and a function in the
 * supervisor (control_verbs.c). The checks are pure functions of the bytes, on both sides.
 *
 * agent_control_ask is for commands: blocking, one deadline. Thread: any.
 */
#ifndef POSTERN_AGENT_CONTROL_H
#define POSTERN_AGENT_CONTROL_H

#include <postern/buf.h>
#include <postern/err.h>
#include <postern/str.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum {
    AGENT_CONTROL_ARGS_MAX = 4,
    AGENT_CONTROL_ARG_MAX = 2048,         /* bytes of one argument; a verb may say less */
    AGENT_CONTROL_PART_MAX = 16384,       /* bytes of the document in one part */
    AGENT_CONTROL_DOCUMENT_MAX = 1 << 20, /* of the whole answer */
};
static const char AGENT_CONTROL_NAME[] = "control.sock"; /* in the state directory */
#define AGENT_CONTROL_DEFAULT "/var/lib/postern/control.sock"

/* Add a verb at the end, its row to control_wire.c and its function to control_verbs.c. */
enum agent_control_verb {
    AGENT_CONTROL_NONE,
    AGENT_CONTROL_AGENT,              /* who the agent is: trust domain, directories, processes */
    AGENT_CONTROL_QUARANTINE_ADD,     /* subject, reason; number: for how many seconds, 0: no end */
    AGENT_CONTROL_QUARANTINE_REMOVE,  /* subject */
    AGENT_CONTROL_QUARANTINE_LIST,    /* the answer of all four: quarantine_document */
    AGENT_CONTROL_QUARANTINE_SERIALS, /* image digest, then serials with commas */
    AGENT_CONTROL_CA,          /* authorities. number: enum agent_ca_verb; arg 0: an id, or empty */
    AGENT_CONTROL_POLICY_PUSH, /* a file; source, stage or empty, comment, by whom */
    AGENT_CONTROL_POLICY_STAGE,    /* stage, by whom */
    AGENT_CONTROL_POLICY_PROMOTE,  /* by whom */
    AGENT_CONTROL_POLICY_ROLLBACK, /* by whom; number: a generation with the flag, else 0 */
    AGENT_CONTROL_POLICY_STATUS,   /* the answer of all five: supervisor_rollout's document */
    AGENT_N_CONTROL_VERBS,
};
enum { AGENT_CONTROL_ROLLBACK_TO = 1 }; /* flag: to `number`, 0 being the files */
enum { AGENT_CONTROL_CA_JWT = 1, AGENT_CONTROL_CA_FORCE = 2 }; /* flags */
enum { AGENT_CONTROL_SERIALS_LAST = 1 };                       /* flag: now put them in force */
const char *agent_control_name(uint32_t verb);
/* Whether exactly one descriptor comes with the request: of a regular file, to be read. */
bool agent_control_takes_file(uint32_t verb);

struct agent_control_arg {
    uint16_t len;
    char text[AGENT_CONTROL_ARG_MAX]; /* not terminated, no NUL inside */
};
struct agent_control_request {
    uint32_t magic;
    uint32_t size;   /* of the whole struct */
    uint32_t verb;   /* enum agent_control_verb */
    uint32_t flags;  /* bits that the verb defines */
    uint64_t number; /* what the verb says it is, else 0 */
    struct agent_control_arg args[AGENT_CONTROL_ARGS_MAX];
};
struct agent_control_answer {
    uint32_t magic;
    uint32_t size;
    uint32_t len;     /* bytes of text */
    uint32_t last;    /* 1: this is the last part */
    struct err error; /* code ERR_NONE: done; else why not, in the only part */
    char text[AGENT_CONTROL_PART_MAX];
};

/* Zeroes it and fills the head. */
void agent_control_init(struct agent_control_request *r, enum agent_control_verb verb);
/* false, and nothing done, if the verb does not take that much there. */
bool agent_control_put(struct agent_control_request *r, size_t i, struct str s);
struct str agent_control_arg(const struct agent_control_request *r, size_t i);

/* Pure functions of the bytes: the size, the verb, and each argument as the verb's row has it. */
bool agent_control_check_request(const void *msg, size_t len);
bool agent_control_check_answer(const void *msg, size_t len);

void agent_control_init_answer(struct agent_control_answer *a);

/* Asks and appends the document to out. -1: it could not be asked, or it refused; the supervisor's
 * own words are in err then. A socket on which neither root nor our own uid listens is refused. */
int agent_control_ask(const char *path, const struct agent_control_request *r, unsigned timeout_ms,
                      struct buf *out, struct err *err);

/* With a file (borrowed), for verbs that take one. */
int agent_control_ask_file(const char *path, const struct agent_control_request *r, int file,
                           unsigned timeout_ms, struct buf *out, struct err *err);

/* --- for both ends ---------------------------------------------------------------------------- */
/* A Unix address of any length: one that does not fit sun_path is reached by its directory, whose
 * descriptor (*ret_dir, the caller's, or -1) has to stay open while the address is used. ret_path
 * has the name to use. */
enum { AGENT_CONTROL_PATH_MAX = 108 };
int agent_control_address(const char *path, char ret_path[AGENT_CONTROL_PATH_MAX], int *ret_dir,
                          struct err *err);

#endif
