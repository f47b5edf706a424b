#include "keeper_process.h"

#include <fcntl.h>
#include <poll.h>
#include <postern/mem.h>
#include <postern/os.h>
#include <postern/proc.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

union agent_msg keeper_in;

/* --- harness ---------------------------------------------------------------------------------- */
void keeper_send(int fd, const void *msg, int passed)
{
    struct pollfd p = {.fd = fd, .events = POLLOUT};
    enum ipc_outcome o;

    while ((o = agent_ipc_send(fd, msg, passed)) == IPC_AGAIN) {
        assert_int_equal(poll(&p, 1, KEEPER_WAIT_MS), 1);
    }
    assert_int_equal(o, IPC_OK);
}

enum ipc_outcome keeper_recv(int fd, enum agent_way way)
{
    struct pollfd p = {.fd = fd, .events = POLLIN};
    enum ipc_outcome o;
    int passed = -1;

    while ((o = agent_ipc_recv(fd, way, &keeper_in, &passed)) == IPC_AGAIN) {
        assert_int_equal(poll(&p, 1, KEEPER_WAIT_MS), 1);
    }
    return o;
}

/* The next message of that type; others on the way are passed over. */
const union agent_msg *keeper_expect(int fd, enum agent_way way, enum agent_msg_type type)
{
    do {
        assert_int_equal(keeper_recv(fd, way), IPC_OK);
        if (keeper_in.head.type == AGENT_MSG_FAILED && type != AGENT_MSG_FAILED) {
            char text[1200];

            print_message("failed: %s\n", err_text(&keeper_in.failed.error, text, sizeof(text)));
        }
    } while (keeper_in.head.type != (uint32_t)type);
    return &keeper_in;
}

void keeper_new_service(struct keeper_process *k)
{
    struct agent_msg_plain m;
    int pair[2];

    assert_int_equal(ipc_pair(pair, NULL), 0);
    agent_ipc_init(&m, AGENT_MSG_SERVICE, 0);
    keeper_send(k->control, &m, pair[1]);
    close(pair[1]);
    if (k->service != -1) {
        close(k->service);
    }
    k->service = pair[0];
}

void keeper_spawn(struct keeper_process *k)
{
    static const char *const env[] = {"POSTERN_SANDBOX_KILL=1", NULL};
    const char *argv[] = {"postern-keeper", NULL};
    struct proc_spec spec = {
        .path = PROCESS, .argv = argv, .env = env, .n_fds = 2, .parent_death_signal = SIGKILL};
    struct agent_msg_start_keeper start;
    int control[2], attestor[2];
    struct err err = ERR_INIT;

    assert_int_equal(ipc_pair(control, NULL), 0);
    assert_int_equal(ipc_pair(attestor, NULL), 0);
    spec.fds[0] = control[1];
    spec.fds[1] = attestor[1];
    assert_int_equal(proc_spawn(&spec, &k->pid, &k->pidfd, &err), 0);
    close(control[1]);
    close(attestor[1]);
    k->control = control[0];
    k->attestor = attestor[0];
    k->service = -1;
    k->next_handle = 100;
    agent_ipc_init(&start, AGENT_MSG_START_KEEPER, 0);
    start.root_ttl_s = 86400;
    start.node_ttl_s = k->node_ttl_s != 0 ? k->node_ttl_s : 7200;
    start.svid_ttl_s = 600;
    start.outage_warn_s = 3600;
    start.jwt_ttl_s = k->jwt_ttl_s != 0 ? k->jwt_ttl_s : 300;
    start.jwt_key_ttl_s = k->jwt_key_ttl_s != 0 ? k->jwt_key_ttl_s : 86400;
    start.jwt_algorithm = k->jwt_algorithm;
    start.log_level = LOG_ERROR;
    start.max_handles = 64;
    start.max_uid_handles = KEEPER_MAX_UID_HANDLES;
    start.uid_issue_burst = KEEPER_ISSUE_BURST;
    start.uid_issue_per_s = 4;
    start.run_uid = start.run_gid = KEEPER_UID;
    assert_true(agent_ipc_put(start.trust_domain, AGENT_TRUST_DOMAIN_MAX, &start.trust_domain_len,
                              STR_LIT("example.org")));
    keeper_send(k->control, &start, -1);
}

static void send_state_message(struct keeper_process *k, enum agent_msg_type type, int fd,
                               bool fresh)
{
    struct agent_msg_state s;

    agent_ipc_init(&s, type, 0);
    s.fresh = fresh;
    s.owner_uid = geteuid();
    keeper_send(k->control, &s, fd);
}

void keeper_send_passphrase(struct keeper_process *k, const char *text, bool old, unsigned mode)
{
    struct agent_msg_key_source m;
    int file = keeper_temp_file();

    assert_int_equal(write(file, text, strlen(text)), strlen(text));
    assert_int_equal(fchmod(file, mode), 0);
    agent_ipc_init(&m, AGENT_MSG_KEY_SOURCE, 0);
    m.owner_uid = geteuid();
    m.old = old;
    keeper_send(k->control, &m, file);
    close(file);
}

void keeper_send_state(struct keeper_process *k, int file, bool fresh)
{
    send_state_message(k, AGENT_MSG_STATE_FILE, file, fresh);
}

void keeper_send_old_state(struct keeper_process *k, int key, int cert, int file)
{
    send_state_message(k, AGENT_MSG_STATE_KEY, key, false);
    send_state_message(k, AGENT_MSG_STATE_CERT, cert, false);
    send_state_message(k, AGENT_MSG_STATE_FILE, file, true);
}

void keeper_place_state(struct keeper_process *k)
{
    struct agent_msg_state_placed m;

    keeper_expect(k->control, AGENT_WAY_KEEPER_SUPERVISOR, AGENT_MSG_STATE_WRITTEN);
    agent_ipc_init(&m, AGENT_MSG_STATE_PLACED, 0);
    m.ok = true;
    keeper_send(k->control, &m, -1);
}

void keeper_serve_state(struct keeper_process *k)
{
    struct agent_msg_state_placed placed;
    int file;

    assert_int_equal(keeper_recv(k->control, AGENT_WAY_KEEPER_SUPERVISOR), IPC_OK);
    if (keeper_in.head.type == AGENT_MSG_STATE_WANTED) {
        file = keeper_temp_file();
        keeper_send_state(k, file, true);
        close(file);
    } else if (keeper_in.head.type == AGENT_MSG_STATE_WRITTEN) {
        agent_ipc_init(&placed, AGENT_MSG_STATE_PLACED, 0);
        placed.ok = true;
        keeper_send(k->control, &placed, -1);
    }
}

int keeper_temp_file(void)
{
    char name[] = "/tmp/postern-test-XXXXXX";
    int fd = mkostemp(name, O_CLOEXEC);

    assert_int_not_equal(fd, -1);
    unlink(name);
    return fd;
}

void keeper_put_entry(struct keeper_process *k, uint32_t index, const char *id, const char *spiffe,
                      int64_t uid, const char *path)
{
    static struct agent_msg_entry e;

    agent_ipc_init(&e, AGENT_MSG_ENTRY, 0);
    e.index = index;
    if (uid >= 0) {
        e.selectors[e.n_selectors++] =
            (struct agent_selector){.type = AGENT_SELECTOR_UNIX_UID, .number = (uint32_t)uid};
    }
    if (path != NULL) {
        assert_true(agent_ipc_put(e.selector_text, AGENT_SELECTOR_TEXT_MAX, &e.selector_text_len,
                                  str_of(path)));
        e.selectors[e.n_selectors++] = (struct agent_selector){.type = AGENT_SELECTOR_UNIX_PATH,
                                                               .text_len = e.selector_text_len};
    }
    assert_true(agent_ipc_put(e.id, AGENT_NAME_MAX, &e.id_len, str_of(id)));
    assert_true(agent_ipc_put(e.spiffe_id, AGENT_ID_MAX, &e.spiffe_id_len, str_of(spiffe)));
    assert_true(agent_ipc_put(e.hint, AGENT_HINT_MAX, &e.hint_len, STR_LIT("hinted")));
    e.n_dns_names = 1;
    assert_true(agent_ipc_put(e.dns_names[0].text, AGENT_DNS_NAME_MAX, &e.dns_names[0].len,
                              STR_LIT("a.example.org")));
    keeper_send(k->control, &e, -1);
}

void keeper_entries_frame(struct keeper_process *k, enum agent_msg_type type, uint32_t n)
{
    struct agent_msg_entries_begin b;

    agent_ipc_init(&b, type, 0);
    b.generation = k->generation;
    b.n_entries = n;
    keeper_send(k->control, &b, -1);
}

/* Entry 0, 1: uid 5000. Entry 2: uid 5001. Entry 3: uid 5000 and a path. */
const struct agent_msg_entries_applied *keeper_load_entries(struct keeper_process *k)
{
    k->generation++;
    keeper_entries_frame(k, AGENT_MSG_ENTRIES_BEGIN, 4);
    keeper_put_entry(k, 0, "first", "spiffe://example.org/first", 5000, NULL);
    keeper_put_entry(k, 1, "second", "spiffe://example.org/second", 5000, NULL);
    keeper_put_entry(k, 2, "other", "spiffe://example.org/other", 5001, NULL);
    keeper_put_entry(k, 3, "path", "spiffe://example.org/path", 5000, "/usr/bin/right");
    keeper_entries_frame(k, AGENT_MSG_ENTRIES_COMMIT, 4);
    return &keeper_expect(k->control, AGENT_WAY_KEEPER_SUPERVISOR, AGENT_MSG_ENTRIES_APPLIED)
                ->entries_applied;
}

void keeper_deny(struct keeper_process *k, uint64_t version, uint32_t kind, const char *text)
{
    static struct agent_msg_deny_item item;
    struct agent_msg_deny_begin frame;

    agent_ipc_init(&frame, AGENT_MSG_DENY_BEGIN, 0);
    frame.version = version;
    frame.n_items = text != NULL;
    keeper_send(k->control, &frame, -1);
    if (text != NULL) {
        agent_ipc_init(&item, AGENT_MSG_DENY_ITEM, 0);
        item.kind = kind;
        assert_true(agent_ipc_put(item.text, AGENT_ID_MAX, &item.text_len, str_of(text)));
        keeper_send(k->control, &item, -1);
    }
    agent_ipc_init(&frame, AGENT_MSG_DENY_COMMIT, 5);
    frame.version = version;
    frame.n_items = text != NULL;
    keeper_send(k->control, &frame, -1);
    keeper_expect(k->control, AGENT_WAY_KEEPER_SUPERVISOR, AGENT_MSG_DENY_APPLIED);
    assert_true(keeper_in.deny_begin.version == version && keeper_in.head.request_id == 5);
}

int keeper_setup(void **state)
{
    struct keeper_process *k = mem_must_new(struct keeper_process);
    int file = keeper_temp_file();

    keeper_spawn(k);
    keeper_send_state(k, file, true);
    close(file);
    keeper_place_state(k);
    keeper_expect(k->control, AGENT_WAY_KEEPER_SUPERVISOR, AGENT_MSG_READY);
    assert_true(keeper_load_entries(k)->ok);
    keeper_new_service(k);
    *state = k;
    return 0;
}

bool keeper_still_runs(const struct keeper_process *k)
{
    struct pollfd p = {.fd = k->pidfd, .events = POLLIN};

    return poll(&p, 1, 0) == 0;
}

/* Its exit status; -1 for a signal. */
int keeper_wait_end(struct keeper_process *k)
{
    struct pollfd p = {.fd = k->pidfd, .events = POLLIN};
    int status = 0;

    assert_int_equal(poll(&p, 1, KEEPER_WAIT_MS), 1);
    assert_int_equal(waitpid(k->pid, &status, 0), k->pid);
    close(k->pidfd);
    close(k->control);
    close(k->attestor);
    if (k->service != -1) {
        close(k->service);
    }
    free(k);
    return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

/* Every test ends by closing the control channel: the keeper has to be there still and go with 0.
 */
int keeper_teardown(void **state)
{
    struct keeper_process *k = *state;
    bool ran = keeper_still_runs(k);

    shutdown(k->control, SHUT_RDWR);
    assert_true(ran);
    assert_int_equal(keeper_wait_end(k), 0);
    return 0;
}
