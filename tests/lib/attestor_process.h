/*
 * attestor_process: the real attestor, started with the test in the place of supervisor, keeper,
 * service and workloads. Every function asserts (cmocka).
 */
#ifndef ATTESTOR_PROCESS_H
#define ATTESTOR_PROCESS_H

#include <postern/agent_ipc.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

enum {
    ATTESTOR_WAIT_MS = 20000,
    ATTESTOR_MAX_UID_HANDLES = 8,
    ATTESTOR_UID = 64602,
    ATTESTOR_OTHER_UID = 48901,
};

struct attestor_process {
    int control, keeper, service, listen;
    pid_t pid;
    int pidfd;
    char dir[64], sock[96];
    bool fallback;
};

/* The message that came last, and its descriptor. */
extern union agent_msg attestor_in;
extern int attestor_in_fd;

int attestor_setup(void **state);
/* As on a kernel without SO_PEERPIDFD. */
int attestor_setup_fallback(void **state);
/* It has to be there still, and to go with 0. */
int attestor_teardown(void **state);

enum ipc_outcome attestor_recv(int fd, enum agent_way way);
void attestor_expect(int fd, enum agent_way way, enum agent_msg_type type);
bool attestor_silent(int fd);
void attestor_send(int fd, const void *msg, int passed);
void attestor_new_service(struct attestor_process *a);
int attestor_connect(const struct attestor_process *a);
/* The next caller: first the keeper hears of it, then the service. */
uint64_t attestor_next_caller(struct attestor_process *a, struct agent_msg_caller *ret);
const struct agent_msg_reattested *attestor_reattest(struct attestor_process *a, uint64_t handle);
void attestor_own_path(char *ret, size_t size);
void attestor_assert_path(const struct agent_msg_caller *c, const char *path);

/* A process that does what the test says, letter by letter (see run_workload), and answers each
 * with a byte. */
struct workload {
    pid_t pid;
    int order, answer;
};
struct workload workload_start(const struct attestor_process *a);
/* Runs `path`, a copy of cat that answers letters, connected before the exec. */
/* Connects; then, once it is told to go on by a byte, becomes that program. */
struct workload workload_start_foreign(const struct attestor_process *a, const char *path);
void workload_tell(const struct workload *w, char c);
void workload_heard(const struct workload *w);
void workload_order(const struct workload *w, char c);
void workload_end(struct workload *w);

#endif
