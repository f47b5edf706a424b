/* Whose the agent is: who could have put the socket there, and who listens on it. */
#include <postern/identity_client.h>

#include <setjmp.h>
#include <stdarg.h>
/* cmocka wants these first */
#include <cmocka.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

enum { SOMEBODY = 48970 };

struct place {
    char dir[64], path[80];
    int fd;
};

static void place_init(struct place *p)
{
    struct sockaddr_un addr = {.sun_family = AF_UNIX};

    snprintf(p->dir, sizeof(p->dir), "/tmp/test-agent-XXXXXX");
    assert_non_null(mkdtemp(p->dir));
    snprintf(p->path, sizeof(p->path), "%s/agent.sock", p->dir);
    snprintf(addr.sun_path, sizeof(addr.sun_path), "%s", p->path);
    p->fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    POSTERN_ASSERT(p->fd != -1);
    assert_int_equal(bind(p->fd, (const struct sockaddr *)&addr, sizeof(addr)), 0);
}

static void place_deinit(struct place *p)
{
    close(p->fd);
    (void)unlink(p->path);
    assert_int_equal(rmdir(p->dir), 0);
}

static int try(const struct place *p, struct err *err)
{
    int fd = identity_agent_connect(p->path, err);

    if (fd != -1) {
        assert_true((fcntl(fd, F_GETFL) & O_NONBLOCK) != 0);
        close(fd);
        return 0;
    }
    return -1;
}

static void test_nobody_there(void **state)
{
    struct place p;
    struct err err = ERR_INIT;

    (void)state;
    place_init(&p);
    assert_int_equal(try(&p, &err), -1); /* bound, and nobody listens */
    assert_int_equal(err.code, ERR_UNAVAILABLE);
    assert_int_equal(listen(p.fd, 1), 0);
    assert_int_equal(try(&p, &err), 0);
    assert_int_equal(unlink(p.path), 0);
    assert_int_equal(try(&p, &err), -1);
    assert_int_equal(err.code, ERR_UNAVAILABLE);
    place_deinit(&p);
    assert_int_equal(identity_agent_connect("/nowhere/at/all.sock", &err), -1);
    assert_int_equal(err.code, ERR_UNAVAILABLE);
    assert_int_equal(identity_agent_connect("relative.sock", &err), -1);
    assert_int_equal(err.code, ERR_CONFIG);
}

static void test_directory_of_others(void **state)
{
    struct place p;
    struct err err = ERR_INIT;

    (void)state;
    place_init(&p);
    assert_int_equal(listen(p.fd, 1), 0);
    assert_int_equal(chmod(p.dir, 0777), 0);
    assert_int_equal(try(&p, &err), -1);
    assert_int_equal(err.code, ERR_DENIED);
    assert_non_null(strstr(err.what, "mode 0777"));
    assert_int_equal(chmod(p.dir, 0775), 0);
    assert_int_equal(try(&p, &err), -1);
    assert_int_equal(chmod(p.dir, 01777), 0); /* names stay their owners' */
    assert_int_equal(try(&p, &err), 0);
    assert_int_equal(chmod(p.dir, 0755), 0);
    assert_int_equal(try(&p, &err), 0);
    if (geteuid() == 0) {
        assert_int_equal(chown(p.dir, SOMEBODY, SOMEBODY), 0);
        assert_int_equal(try(&p, &err), -1);
        assert_int_equal(err.code, ERR_DENIED);
        assert_int_equal(chown(p.dir, 0, 0), 0);
        assert_int_equal(chown(p.path, SOMEBODY, SOMEBODY), 0);
        assert_int_equal(try(&p, &err), -1);
        assert_int_equal(err.code, ERR_DENIED);
    }
    place_deinit(&p);
}

static void test_no_socket(void **state)
{
    struct place p;
    struct err err = ERR_INIT;

    (void)state;
    place_init(&p);
    assert_int_equal(unlink(p.path), 0);
    assert_int_equal(symlink("/dev/null", p.path), 0);
    assert_int_equal(try(&p, &err), -1);
    assert_int_equal(err.code, ERR_DENIED);
    place_deinit(&p);
}

/* Names that are root's, and somebody else has got to listen on it. */
static void test_somebody_else_listens(void **state)
{
    struct place p;
    struct err err = ERR_INIT;
    pid_t pid;
    int status;

    (void)state;
    if (geteuid() != 0) {
        skip();
    }
    place_init(&p);
    pid = fork();
    assert_true(pid != -1);
    if (pid == 0) {
        _exit(setgid(SOMEBODY) == 0 && setuid(SOMEBODY) == 0 && listen(p.fd, 1) == 0 ? 0 : 1);
    }
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_int_equal(status, 0);
    assert_int_equal(try(&p, &err), -1);
    assert_int_equal(err.code, ERR_DENIED);
    assert_non_null(strstr(err.what, "uid 48970 listens"));
    assert_int_equal(listen(p.fd, 1), 0); /* whoever calls it last is who is told */
    assert_int_equal(try(&p, &err), 0);
    place_deinit(&p);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_nobody_there),
        cmocka_unit_test(test_directory_of_others),
        cmocka_unit_test(test_no_socket),
        cmocka_unit_test(test_somebody_else_listens),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
