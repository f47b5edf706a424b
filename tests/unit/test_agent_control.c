/*
 * agent_control: what is no request and no answer; the asker against a listener of the test's own.
 */
#include <postern/agent_control.h>
#include <postern/mem.h>
#include <postern/os.h>

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

/* --- the checks ------------------------------------------------------------------------------- */
static void break_size(struct agent_control_request *r)
{
    r->size--;
}
static void break_magic(struct agent_control_request *r)
{
    r->magic ^= 1;
}
static void break_verb(struct agent_control_request *r)
{
    r->verb = AGENT_N_CONTROL_VERBS;
}
static void break_verb_none(struct agent_control_request *r)
{
    r->verb = AGENT_CONTROL_NONE;
}
static void break_flags(struct agent_control_request *r)
{
    r->flags = 0x80000000;
}
static void break_number(struct agent_control_request *r)
{
    r->number = 1;
}
static void break_argument(struct agent_control_request *r)
{
    r->args[0].len = 1;
    r->args[0].text[0] = 'x';
}
static void break_length(struct agent_control_request *r)
{
    r->args[3].len = UINT16_MAX;
}

static void test_bad_requests(void **state)
{
    static void (*const breaks[])(struct agent_control_request *r) = {
        break_size,  break_magic,  break_verb,     break_verb_none,
        break_flags, break_number, break_argument, break_length};
    mem_autofree struct agent_control_request *r = mem_must_new(struct agent_control_request);

    (void)state;
    for (size_t i = 0; i < sizeof(breaks) / sizeof(breaks[0]); i++) {
        agent_control_init(r, AGENT_CONTROL_AGENT);
        breaks[i](r);
        assert_false(agent_control_check_request(r, sizeof(*r)));
    }
    agent_control_init(r, AGENT_CONTROL_AGENT);
    assert_false(agent_control_put(r, 0, STR_LIT("the verb takes none")));
    assert_false(agent_control_check_request(r, sizeof(*r) - 1));
    assert_true(agent_control_check_request(r, sizeof(*r)));
    assert_string_equal(agent_control_name(AGENT_CONTROL_AGENT), "agent");
    assert_string_equal(agent_control_name(12345), "unknown");
}

static void test_bad_answers(void **state)
{
    mem_autofree struct agent_control_answer *a = mem_must_new(struct agent_control_answer);
    const uint32_t no_code = 99;

    (void)state;
    agent_control_init_answer(a);
    assert_true(agent_control_check_answer(a, sizeof(*a)));
    assert_false(agent_control_check_answer(a, sizeof(*a) - 1));
    a->len = AGENT_CONTROL_PART_MAX + 1;
    assert_false(agent_control_check_answer(a, sizeof(*a)));
    agent_control_init_answer(a);
    a->last = 2;
    assert_false(agent_control_check_answer(a, sizeof(*a)));
    agent_control_init_answer(a);
    memcpy(&a->error.code, &no_code, sizeof(no_code));
    assert_false(agent_control_check_answer(a, sizeof(*a)));
    agent_control_init_answer(a);
    memset(a->error.what, 'x', sizeof(a->error.what));
    assert_false(agent_control_check_answer(a, sizeof(*a)));
    agent_control_init_answer(a);
    a->error.code = ERR_DENIED; /* but more to come */
    assert_false(agent_control_check_answer(a, sizeof(*a)));
    a->last = 1;
    assert_true(agent_control_check_answer(a, sizeof(*a)));
}

/* --- the asker -------------------------------------------------------------------------------- */
struct place {
    char dir[300];
    char path[600];
    int listener;
};

/* Long enough that the socket's path does not fit an address. */
static void place_make(struct place *p)
{
    struct sockaddr_un addr = {.sun_family = AF_UNIX};
    struct err err = ERR_INIT;
    int dir_fd = -1;

    snprintf(p->dir, sizeof(p->dir), "/tmp/postern-control-XXXXXX");
    assert_non_null(mkdtemp(p->dir));
    snprintf(p->path, sizeof(p->path), "%s/%0100d", p->dir, 0);
    assert_int_equal(mkdir(p->path, 0700), 0);
    strncat(p->path, "/control.sock", sizeof(p->path) - strlen(p->path) - 1);
    assert_int_equal(agent_control_address(p->path, addr.sun_path, &dir_fd, &err), 0);
    assert_int_not_equal(dir_fd, -1);
    p->listener = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
    assert_int_equal(bind(p->listener, (struct sockaddr *)&addr, sizeof(addr)), 0);
    assert_int_equal(listen(p->listener, 4), 0);
    close(dir_fd);
}

static void place_remove(struct place *p)
{
    close(p->listener);
    unlink(p->path);
    *strrchr(p->path, '/') = '\0';
    rmdir(p->path);
    rmdir(p->dir);
}

/* Answers one request with these parts, in a process of its own. */
static pid_t serve(struct place *p, const struct agent_control_answer *parts, size_t n)
{
    pid_t pid = fork();

    if (pid == 0) {
        static struct agent_control_request r;
        int fd = accept(p->listener, NULL, NULL);
        bool ok = recv(fd, &r, sizeof(r), 0) == (ssize_t)sizeof(r) &&
                  agent_control_check_request(&r, sizeof(r));

        for (size_t i = 0; ok && i < n; i++) {
            ok = send(fd, &parts[i], sizeof(parts[i]), MSG_NOSIGNAL) == (ssize_t)sizeof(parts[i]);
        }
        _exit(ok ? 0 : 1);
    }
    return pid;
}

static int ask(struct place *p, const struct agent_control_answer *parts, size_t n,
               struct buf *ret_out, struct err *err)
{
    mem_autofree struct agent_control_request *r = mem_must_new(struct agent_control_request);
    pid_t pid = serve(p, parts, n);
    int status, rc;

    agent_control_init(r, AGENT_CONTROL_AGENT);
    rc = agent_control_ask(p->path, r, 20000, ret_out, err);
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_int_equal(status, 0);
    return rc;
}

static void test_ask(void **state)
{
    struct agent_control_answer *parts = mem_must_calloc(2, sizeof(*parts));
    struct buf out = BUF_INIT(1 << 20);
    struct err err = ERR_INIT;
    struct place p;

    (void)state;
    place_make(&p);
    /* an end without an answer, one too early, a refusal */
    assert_int_equal(ask(&p, NULL, 0, &out, &err), -1);
    agent_control_init_answer(&parts[0]);
    parts[0].len = AGENT_CONTROL_PART_MAX;
    memset(parts[0].text, 'a', AGENT_CONTROL_PART_MAX);
    assert_int_equal(ask(&p, parts, 1, &out, &err), -1);
    assert_int_equal(buf_len(&out), 0);
    agent_control_init_answer(&parts[1]);
    parts[1].last = 1;
    err_set(&parts[1].error, ERR_DENIED, "not today");
    assert_int_equal(ask(&p, &parts[1], 1, &out, &err), -1);
    assert_string_equal(err.what, "not today");
    assert_int_equal(err.code, ERR_DENIED);
    /* two parts */
    parts[1].error = (struct err)ERR_INIT;
    parts[1].len = 1;
    parts[1].text[0] = 'b';
    assert_int_equal(ask(&p, parts, 2, &out, &err), 0);
    assert_int_equal(buf_len(&out), AGENT_CONTROL_PART_MAX + 1);
    assert_int_equal(buf_head(&out)[AGENT_CONTROL_PART_MAX], 'b');
    buf_reset(&out);
    free(parts);
    place_remove(&p);
}

static void test_ask_nobody(void **state)
{
    mem_autofree struct agent_control_request *r = mem_must_new(struct agent_control_request);
    struct buf out = BUF_INIT(1024);
    struct err err = ERR_INIT;

    (void)state;
    agent_control_init(r, AGENT_CONTROL_AGENT);
    assert_int_equal(agent_control_ask("/nonexistent/control.sock", r, 1000, &out, &err), -1);
    assert_string_equal(err.where, "/nonexistent/control.sock");
}

/* Somebody else's socket, in the place of the agent's. */
static void test_ask_another_user(void **state)
{
    mem_autofree struct agent_control_request *r = mem_must_new(struct agent_control_request);
    struct buf out = BUF_INIT(1024);
    struct err err = ERR_INIT;
    struct place p;
    pid_t pid;
    int status;

    (void)state;
    if (geteuid() != 0) {
        skip();
    }
    place_make(&p);
    pid = fork();
    if (pid == 0) { /* who calls listen() is who listens */
        _exit(setuid(65534) == 0 && listen(p.listener, 4) == 0 ? 0 : 1);
    }
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_int_equal(status, 0);
    agent_control_init(r, AGENT_CONTROL_AGENT);
    assert_int_equal(agent_control_ask(p.path, r, 1000, &out, &err), -1);
    assert_int_equal(err.code, ERR_DENIED);
    place_remove(&p);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_bad_requests),
        cmocka_unit_test(test_bad_answers),
        cmocka_unit_test(test_ask),
        cmocka_unit_test(test_ask_nobody),
        cmocka_unit_test(test_ask_another_user),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
