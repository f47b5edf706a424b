/*
 * keeper_process: the real keeper, started with the test in the place of supervisor, attestor and
 * service. Every function asserts (cmocka): a test goes on only if what it asked for came about.
 */
#ifndef KEEPER_PROCESS_H
#define KEEPER_PROCESS_H

#include <postern/agent_ipc.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

enum {
    KEEPER_WAIT_MS = 20000,
    KEEPER_MAX_UID_HANDLES = 32,
    KEEPER_UID = 64601,
    KEEPER_ISSUE_BURST = 100
};

struct keeper_process {
    int control, attestor, service;
    pid_t pid;
    int pidfd;
    uint64_t generation, next_handle;
    uint32_t node_ttl_s;               /* 0: long enough for any test */
    uint32_t jwt_ttl_s, jwt_key_ttl_s; /* the same */
    uint32_t jwt_algorithm;
};

/* The message that came last. */
extern union agent_msg keeper_in;

/* Waits for room. */
void keeper_send(int fd, const void *msg, int passed);
enum ipc_outcome keeper_recv(int fd, enum agent_way way);
/* The next message of that type; others on the way are passed over. */
const union agent_msg *keeper_expect(int fd, enum agent_way way, enum agent_msg_type type);
/* A new channel in the service's place; the old one is closed. */
void keeper_new_service(struct keeper_process *k);
/* Started and told START_KEEPER. */
void keeper_spawn(struct keeper_process *k);
/* Before the state: a file with this passphrase. */
void keeper_send_passphrase(struct keeper_process *k, const char *text, bool old, unsigned mode);
/* A state file, or an empty one for it (fresh). */
void keeper_send_state(struct keeper_process *k, int file, bool fresh);
/* The two files of the old layout and an empty one for the new. */
void keeper_send_old_state(struct keeper_process *k, int key, int cert, int file);
/* Waits until the state is written and says that it is in place. */
void keeper_place_state(struct keeper_process *k);
/* Takes one message of the keeper's that asks for a place for its state, or says that it is
 * written, and does as a supervisor does. */
void keeper_serve_state(struct keeper_process *k);
/* Of mode 0600, without a name. */
int keeper_temp_file(void);
void keeper_put_entry(struct keeper_process *k, uint32_t index, const char *id, const char *spiffe,
                      int64_t uid, const char *path);
void keeper_entries_frame(struct keeper_process *k, enum agent_msg_type type, uint32_t n);
/* Entries 0 and 1 are of uid 5000, 2 of uid 5001, 3 of uid 5000 with a path. */
const struct agent_msg_entries_applied *keeper_load_entries(struct keeper_process *k);
/* Quarantines one thing (NULL: nothing), and waits until that is in force. kind: enum
 * agent_deny_kind.
 */
void keeper_deny(struct keeper_process *k, uint64_t version, uint32_t kind, const char *text);
/* Fixtures of a test: with a root, entries and a service; ended by the test's end, with 0. */
int keeper_setup(void **state);
bool keeper_still_runs(const struct keeper_process *k);
/* Waits, frees k: its exit status, -1 for a signal. */
int keeper_wait_end(struct keeper_process *k);
int keeper_teardown(void **state);

#endif
