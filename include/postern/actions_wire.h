/*
 * actions_wire: the messages between `postern rotate`, postern-rotate-run and
 * postern-rotate-probe. docs/rotation-actions.md says who is who.
 *
 * Each message is one struct of fixed size over a SOCK_SEQPACKET pair, without a descriptor. What
 * goes to the runner holds numbers and digests and no text: what is to be done, it knows from the
 * configuration, which it reads by itself. A message that actions_wire_check does not take ends
 * whoever receives it (the runner) or is answered by ending the sender (the daemon).
 *
 * Thread: any; pure.
 */
#ifndef POSTERN_ACTIONS_WIRE_H
#define POSTERN_ACTIONS_WIRE_H

#include <postern/conf_rotate.h>
#include <postern/err.h>
#include <postern/ipc.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum {
    ACTIONS_FD_CHANNEL = 3, /* of the runner to the daemon; of a probe to the runner */
    ACTIONS_SHA256_SIZE = 32,
    ACTIONS_TEXT_MAX = 400,
    ACTIONS_LINE_MAX = 1024,  /* bytes of a line of output */
    ACTIONS_LINES_MAX = 100,  /* lines of one run */
    ACTIONS_JOBS_MAX = 256,   /* at once */
    ACTIONS_TERM_MS = 5000,   /* from SIGTERM to SIGKILL, of a command */
    ACTIONS_CHILD_MS = 10000, /* the same, of the child when the daemon is gone */
};

enum actions_way { ACTIONS_TO_RUNNER, ACTIONS_TO_DAEMON };
enum actions_type {
    /* to the runner */
    ACTIONS_RUN = 1,      /* one try of an action */
    ACTIONS_VERIFY,       /* ask which certificate is served */
    ACTIONS_CANCEL,       /* give a question up; a command goes on */
    ACTIONS_RELOAD,       /* read the configuration again */
    ACTIONS_CHILD_START,  /* once */
    ACTIONS_CHILD_SIGNAL, /* hand a signal on */
    /* to the daemon */
    ACTIONS_LOADED, /* after the start and after each RELOAD */
    ACTIONS_OUTPUT, /* a line that a command wrote */
    ACTIONS_DONE,   /* the end of RUN or VERIFY */
    ACTIONS_CHILD_STARTED,
    ACTIONS_CHILD_ENDED,
    ACTIONS_N_TYPES,
};

/* What became of one try. */
enum actions_outcome {
    ACTIONS_OK,
    ACTIONS_FAILED,
    ACTIONS_TIMED_OUT,
    ACTIONS_REFUSED,   /* it was not done; text says why */
    ACTIONS_CANCELLED, /* as told */
    ACTIONS_NO_CHILD,  /* a signal to the child before there is one */
    ACTIONS_N_OUTCOMES,
};
const char *actions_outcome_name(enum actions_outcome outcome);

/* What VERIFY found out. */
enum actions_verdict {
    ACTIONS_SERVED,
    ACTIONS_OLD,
    ACTIONS_OTHER,
    ACTIONS_UNREACHABLE,
    ACTIONS_N_VERDICTS,
};
const char *actions_verdict_name(enum actions_verdict verdict);

struct actions_head {
    uint32_t type;
    uint32_t size; /* of the whole message */
};

struct actions_msg_run {
    struct actions_head head;
    uint64_t job; /* never used twice */
    uint64_t generation;
    uint64_t digest;         /* of the configuration whose indexes they are: actions_digest */
    uint32_t output, action; /* indexes of the configuration */
};
struct actions_msg_verify {
    struct actions_head head;
    uint64_t job;
    uint64_t digest; /* as in RUN */
    uint32_t output;
    uint32_t has_old;
    uint8_t want[ACTIONS_SHA256_SIZE]; /* of the leaf, DER */
    uint8_t old[ACTIONS_SHA256_SIZE];
};
struct actions_msg_cancel {
    struct actions_head head;
    uint64_t job;
};
struct actions_msg_reload {
    struct actions_head head;
    uint64_t digest; /* of what the daemon has read: actions_digest */
};
struct actions_msg_child_start {
    struct actions_head head;
};
struct actions_msg_child_signal {
    struct actions_head head;
    uint32_t signo; /* one of actions_forwarded */
    uint32_t zero;
};

struct actions_msg_loaded {
    struct actions_head head;
    uint64_t digest;
    uint32_t failed; /* then all stays as it was, and error says why */
    uint32_t zero;
    struct err error;
};
struct actions_msg_output {
    struct actions_head head;
    uint64_t job;
    uint32_t len;  /* of text */
    uint32_t lost; /* lines that were left out, so far; text is empty then */
    char text[ACTIONS_LINE_MAX];
};
struct actions_msg_done {
    struct actions_head head;
    uint64_t job;
    uint32_t outcome;
    uint32_t verdict;     /* of VERIFY with ACTIONS_OK */
    int32_t exit_status;  /* of a program; 128 and the signal's number; -1: none ran */
    uint32_t http_status; /* 0: none */
    uint32_t tries;       /* VERIFY: how often it connected */
    uint32_t has_seen;
    uint8_t seen[ACTIONS_SHA256_SIZE]; /* VERIFY: the leaf that was served last */
    uint32_t text_len;
    char text[ACTIONS_TEXT_MAX];
};
struct actions_msg_child_started {
    struct actions_head head;
    int32_t pid;
    uint32_t zero;
};
struct actions_msg_child_ended {
    struct actions_head head;
    int32_t status; /* as exit_status; -1: it could not be started */
    uint32_t text_len;
    char text[ACTIONS_TEXT_MAX];
};

union actions_msg {
    struct actions_head head;
    struct actions_msg_run run;
    struct actions_msg_verify verify;
    struct actions_msg_cancel cancel;
    struct actions_msg_reload reload;
    struct actions_msg_child_start child_start;
    struct actions_msg_child_signal child_signal;
    struct actions_msg_loaded loaded;
    struct actions_msg_output output;
    struct actions_msg_done done;
    struct actions_msg_child_started child_started;
    struct actions_msg_child_ended child_ended;
};

/* Zeroes the message and sets its head. */
void actions_wire_init(void *msg, enum actions_type type);
const char *actions_type_name(enum actions_type type);
/* NULL: a message of that way, whole, each number in its range. Else why it is none. */
const char *actions_wire_check(enum actions_way way, const void *bytes, size_t len);
/* ipc_send of the whole message. */
enum ipc_outcome actions_send(int fd, const void *msg) __attribute__((warn_unused_result));
/* ipc_recv and the check; a descriptor that comes with it is closed and makes it IPC_BAD. */
enum ipc_outcome actions_recv(int fd, enum actions_way way, union actions_msg *ret)
    __attribute__((warn_unused_result));

/* The signals that are handed on to the child, 0-terminated. */
extern const int actions_forwarded[];
/* A digest of all that the runner does for a configuration: both sides have to have read the same.
 * It finds a file that was changed between two looks; it is no defence against who writes it. */
uint64_t actions_digest(const struct conf_rotate *conf);

/* --- between runner and probe ----------------------------------------------------------------- */
enum { PROBE_HEADERS_MAX = 4096 + 64, PROBE_BODY_MAX = 4096 };
enum probe_kind { PROBE_HTTP = 1, PROBE_VERIFY };
struct probe_question {
    uint32_t kind;
    uint32_t timeout_ms;
    struct conf_url url;
    char server_name[CONF_HOST_MAX + 1]; /* "": none */
    /* PROBE_VERIFY */
    uint8_t want[ACTIONS_SHA256_SIZE], old[ACTIONS_SHA256_SIZE];
    uint32_t has_old;
    /* PROBE_HTTP */
    char method[8];
    char ca_file[1024]; /* "": none */
    uint32_t headers_len, body_len;
    char headers[PROBE_HEADERS_MAX]; /* lines with their ends */
    char body[PROBE_BODY_MAX];
};
struct probe_answer {
    uint32_t outcome; /* enum actions_outcome; OK: an answer came, which the runner judges */
    uint32_t verdict; /* PROBE_VERIFY, if OK */
    uint32_t http_status;
    uint32_t tries;
    uint32_t has_seen;
    uint8_t seen[ACTIONS_SHA256_SIZE];
    uint32_t text_len;
    char text[ACTIONS_TEXT_MAX];
};
/* Whether it is an answer: of its size, each number in its range. */
bool probe_answer_check(const void *bytes, size_t len);

#endif
