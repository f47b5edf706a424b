/*
 * sandbox: paths, ports and scopes. A child confines itself by a plan and tries what is outside of
 * it; older kernels are played by a lower version of Landlock.
 */
#include <postern/sandbox.h>

#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/capability.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

enum { NO_LANDLOCK = 77 };

static char dir[64];
static uint16_t open_port, other_port;
static int abi_limit;

static int kernel_abi(void)
{
    long abi = syscall(444, NULL, 0, 1);
    return abi > 0 ? (int)abi : 0;
}

static int in_child(int (*fn)(void))
{
    pid_t pid = fork();
    if (pid == 0) {
        _exit(fn());
    }
    int status = 0;
    assert_int_equal(waitpid(pid, &status, 0), pid);
    return WIFEXITED(status) ? WEXITSTATUS(status) : 1000 + WTERMSIG(status);
}

static const char *in_dir(const char *name)
{
    static char path[4][160];
    static unsigned i;
    char *p = path[i++ % 4];

    (void)snprintf(p, sizeof(path[0]), "%s/%s", dir, name);
    return p;
}

static void put(const char *path)
{
    int fd = open(path, O_CREAT | O_WRONLY | O_CLOEXEC, 0644);

    assert_int_not_equal(fd, -1);
    assert_int_equal(write(fd, "x", 1), 1);
    close(fd);
}

/* The errno of opening it, 0: it opened. */
static int try_open(const char *path, int flags)
{
    int fd = open(path, flags | O_CLOEXEC, 0600);
    int e = fd == -1 ? errno : 0;

    if (fd != -1) {
        close(fd);
    }
    return e;
}

static int try_connect(uint16_t port)
{
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_port = htons(port)};
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

    a.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    int e = connect(fd, (struct sockaddr *)&a, sizeof(a)) == 0 ? 0 : errno;
    close(fd);
    return e;
}

static int try_bind(uint16_t port)
{
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_port = htons(port)};
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

    a.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    int e = bind(fd, (struct sockaddr *)&a, sizeof(a)) == 0 ? 0 : errno;
    close(fd);
    return e;
}

static int listening(uint16_t *ret_port)
{
    struct sockaddr_in a = {.sin_family = AF_INET};
    socklen_t len = sizeof(a);
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

    a.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    assert_int_equal(bind(fd, (struct sockaddr *)&a, sizeof(a)), 0);
    assert_int_equal(listen(fd, 8), 0);
    assert_int_equal(getsockname(fd, (struct sockaddr *)&a, &len), 0);
    *ret_port = ntohs(a.sin_port);
    return fd;
}

/* --- files ------------------------------------------------------------------------------------ */
static int files(void)
{
    struct sandbox_landlock took;
    struct sandbox_plan *plan = sandbox_plan_new();

    sandbox_plan_directory_of(plan, SANDBOX_READ, in_dir("r/conf"));
    sandbox_plan_directory_of(plan, SANDBOX_READ, in_dir("link")); /* leads to far/away */
    sandbox_plan_path(plan, SANDBOX_WRITE, in_dir("w"));
    sandbox_plan_directory_of(plan, SANDBOX_REMOVE, in_dir("d/sock"));
    sandbox_plan_path(plan, SANDBOX_READ, NULL);
    sandbox_plan_path(plan, SANDBOX_READ, "");
    sandbox_plan_path(plan, SANDBOX_READ, in_dir("not-there"));
    if (sandbox_landlock(plan, SANDBOX_ABI_OF_KERNEL, &took, NULL) != 0) {
        return 10;
    }
    sandbox_plan_free(plan);
    const struct {
        const char *path;
        int flags, error;
    } cases[] = {
        {"/etc/passwd", O_RDONLY, EACCES},
        {"/proc/self/environ", O_RDONLY, EACCES},
        {"r/conf", O_WRONLY, EACCES},
        {"r/new", O_WRONLY | O_CREAT, EACCES},
        {"w/new", O_WRONLY | O_CREAT, 0},
        {"d/sock", O_RDONLY, 0},
        {"d/new", O_WRONLY | O_CREAT, EACCES},
        {"r/conf", O_RDONLY, 0},
        {"r/swapped", O_RDONLY, 0},
        {"link", O_RDONLY, 0},
        {"far/next", O_RDONLY, 0},
        {"other", O_RDONLY, 0},
        {"other/secret", O_RDONLY, 0},
    };
    /* `dir` itself is readable as the directory of "link": what is outside of it is not. */
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        const char *path = cases[i].path[0] == '/' ? cases[i].path : in_dir(cases[i].path);

        if (try_open(path, cases[i].flags) != cases[i].error) {
            return (int)i + 20;
        }
    }
    return unlink(in_dir("d/sock")) == 0 && unlink(in_dir("r/conf")) == -1 && errno == EACCES &&
                   mknod(in_dir("w/dev"), S_IFCHR | 0600, 0x103) == -1 &&
                   chmod(in_dir("w"), 0755) == 0
               ? 0
               : 11;
}

static void test_files(void **state)
{
    (void)state;
    if (kernel_abi() == 0) {
        skip();
    }
    (void)mkdir(in_dir("r"), 0755);
    (void)mkdir(in_dir("w"), 0755);
    (void)mkdir(in_dir("d"), 0755);
    (void)mkdir(in_dir("far"), 0755);
    (void)mkdir(in_dir("other"), 0755);
    put(in_dir("r/conf"));
    put(in_dir("r/swapped"));
    put(in_dir("d/sock"));
    put(in_dir("far/away"));
    put(in_dir("far/next"));
    put(in_dir("other/secret"));
    assert_int_equal(symlink("far/away", in_dir("link")), 0);
    assert_int_equal(in_child(files), 0);
}

/* A link out of the configuration's directory: the directory behind it, and nothing else there. */
static int links(void)
{
    struct sandbox_landlock took;
    struct sandbox_plan *plan = sandbox_plan_new();

    sandbox_plan_directory_of(plan, SANDBOX_READ, in_dir("r/out"));
    if (sandbox_landlock(plan, SANDBOX_ABI_OF_KERNEL, &took, NULL) != 0) {
        return 10;
    }
    sandbox_plan_free(plan);
    return try_open(in_dir("r/out"), O_RDONLY) == 0 &&
                   try_open(in_dir("far/next"), O_RDONLY) == 0 &&
                   try_open(in_dir("other/secret"), O_RDONLY) == EACCES
               ? 0
               : 11;
}

static void test_links(void **state)
{
    (void)state;
    if (kernel_abi() == 0) {
        skip();
    }
    assert_int_equal(symlink("../far/away", in_dir("r/out")), 0);
    assert_int_equal(in_child(links), 0);
}

/* A file in the root directory opens itself, not everything. */
static int root_file(void)
{
    struct sandbox_landlock took;
    struct sandbox_plan *plan = sandbox_plan_new();

    sandbox_plan_directory_of(plan, SANDBOX_READ, "/proxy.yaml");
    if (sandbox_landlock(plan, SANDBOX_ABI_OF_KERNEL, &took, NULL) != 0) {
        return 10;
    }
    sandbox_plan_free(plan);
    return try_open("/etc/passwd", O_RDONLY) == EACCES ? 0 : 11;
}

static void test_root_file(void **state)
{
    (void)state;
    if (kernel_abi() == 0) {
        skip();
    }
    assert_int_equal(in_child(root_file), 0);
}

/* --- ports ------------------------------------------------------------------------------------ */
static int ports(void)
{
    struct sandbox_landlock took;
    struct sandbox_plan *plan = sandbox_plan_new();

    sandbox_plan_connect(plan, open_port);
    if (sandbox_landlock(plan, SANDBOX_ABI_OF_KERNEL, &took, NULL) != 0) {
        return 10;
    }
    sandbox_plan_free(plan);
    if (!took.connect || !took.bind || took.n_connect_ports != 1 || took.n_bind_ports != 0) {
        return 11;
    }
    if (try_connect(other_port) != EACCES || try_bind(0) != EACCES ||
        try_bind(open_port) != EACCES) {
        return 12;
    }
    return try_connect(open_port) == 0 ? 0 : 13;
}

static int any_port(void)
{
    struct sandbox_landlock took;
    struct sandbox_plan *plan = sandbox_plan_new();

    sandbox_plan_connect_any(plan, "because");
    sandbox_plan_bind_any(plan, "because");
    if (sandbox_landlock(plan, SANDBOX_ABI_OF_KERNEL, &took, NULL) != 0) {
        return 10;
    }
    sandbox_plan_free(plan);
    return !took.connect && strcmp(took.connect_why, "because") == 0 && took.missing[0] == '\0' &&
                   try_connect(other_port) == 0 && try_bind(0) == 0
               ? 0
               : 11;
}

static void test_ports(void **state)
{
    (void)state;
    if (kernel_abi() < 4) {
        skip();
    }
    int a = listening(&open_port), b = listening(&other_port);
    assert_int_equal(in_child(ports), 0);
    if (kernel_abi() >= 6) {
        assert_int_equal(in_child(any_port), 0);
    }
    close(a);
    close(b);
}

/* --- scopes ----------------------------------------------------------------------------------- */
static struct sockaddr_un abstract_name;
static socklen_t abstract_len;

static int try_abstract(void)
{
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    int e = connect(fd, (struct sockaddr *)&abstract_name, abstract_len) == 0 ? 0 : errno;

    close(fd);
    return e;
}

static int scoped(void)
{
    struct sandbox_landlock took;
    struct sandbox_plan *plan = sandbox_plan_new();

    if (try_abstract() != 0 || kill(getppid(), 0) != 0) {
        return 10;
    }
    if (sandbox_landlock(plan, SANDBOX_ABI_OF_KERNEL, &took, NULL) != 0 || !took.abstract ||
        !took.signals) {
        return 11;
    }
    sandbox_plan_free(plan);
    if (try_abstract() != EPERM || kill(getppid(), 0) != -1 || errno != EPERM) {
        return 12;
    }
    return kill(getpid(), 0) == 0 ? 0 : 13;
}

static int unscoped(void)
{
    struct sandbox_landlock took;
    struct sandbox_plan *plan = sandbox_plan_new();

    sandbox_plan_allow_abstract(plan);
    sandbox_plan_allow_signals(plan);
    if (sandbox_landlock(plan, SANDBOX_ABI_OF_KERNEL, &took, NULL) != 0 || took.abstract ||
        took.signals || took.missing[0] != '\0') {
        return 11;
    }
    sandbox_plan_free(plan);
    return try_abstract() == 0 && kill(getppid(), 0) == 0 ? 0 : 12;
}

static void test_scopes(void **state)
{
    (void)state;
    if (kernel_abi() < 6) {
        skip();
    }
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    abstract_name = (struct sockaddr_un){.sun_family = AF_UNIX};
    abstract_len = sizeof(sa_family_t); /* the kernel finds a free name */
    assert_int_equal(bind(fd, (struct sockaddr *)&abstract_name, abstract_len), 0);
    abstract_len = sizeof(abstract_name);
    assert_int_equal(getsockname(fd, (struct sockaddr *)&abstract_name, &abstract_len), 0);
    assert_int_equal(listen(fd, 8), 0);
    assert_int_equal(in_child(scoped), 0);
    assert_int_equal(in_child(unscoped), 0);
    close(fd);
}

/* --- older kernels ---------------------------------------------------------------------------- */
static int older(void)
{
    struct sandbox_landlock took;
    struct sandbox_plan *plan = sandbox_plan_new();
    bool net = abi_limit >= 4, scope = abi_limit >= 6;

    sandbox_plan_path(plan, SANDBOX_WRITE, in_dir("w"));
    sandbox_plan_connect(plan, open_port);
    if (sandbox_landlock(plan, abi_limit, &took, NULL) != 0) {
        return 10;
    }
    sandbox_plan_free(plan);
    if (took.abi != abi_limit || took.files != (abi_limit > 0) || took.connect != net ||
        took.bind != net || took.abstract != scope || took.signals != scope) {
        return 11;
    }
    if ((strstr(took.missing, "files") != NULL) != (abi_limit < 3) ||
        (strstr(took.missing, "TCP ports") != NULL) != !net ||
        (strstr(took.missing, "signals") != NULL) != !scope || (took.missing[0] == '\0') != scope) {
        return 12;
    }
    /* What is said to be in force is, and no more. */
    if ((try_open("/etc/passwd", O_RDONLY) == EACCES) != took.files ||
        (try_connect(other_port) == EACCES) != took.connect ||
        (kill(getppid(), 0) == -1) != took.signals) {
        return 13;
    }
    return try_open(in_dir("w/older"), O_WRONLY | O_CREAT) == 0 && try_connect(open_port) == 0 ? 0
                                                                                               : 14;
}

static void test_older_kernels(void **state)
{
    (void)state;
    int a = listening(&open_port), b = listening(&other_port);

    for (abi_limit = 0; abi_limit <= 6 && abi_limit <= kernel_abi(); abi_limit++) {
        assert_int_equal(in_child(older), 0);
    }
    close(a);
    close(b);
}

/* --- a plan within another -------------------------------------------------------------------- */
static void test_covers(void **state)
{
    (void)state;
    struct err err = ERR_INIT;
    struct sandbox_plan *have = sandbox_plan_new();

    sandbox_plan_path(have, SANDBOX_READ, "/etc/postern");
    sandbox_plan_path(have, SANDBOX_WRITE, "/var/lib/x");
    sandbox_plan_path(have, SANDBOX_REMOVE, "/run/x");
    sandbox_plan_connect(have, 5432);
    const struct {
        enum sandbox_right right;
        const char *path;
        uint16_t port;
        bool any, covered;
        const char *says;
    } cases[] = {
        {SANDBOX_READ, "/etc", 0, false, false, "/etc"},
        {SANDBOX_READ, "/etc/postern2", 0, false, false, "/etc/postern2"},
        {SANDBOX_WRITE, "/etc/postern", 0, false, false, "/etc/postern"},
        {SANDBOX_READ, "/run/x", 0, false, false, "/run/x"},
        {SANDBOX_EXECUTE, "/var/lib/x", 0, false, false, "/var/lib/x"},
        {SANDBOX_READ, NULL, 443, false, false, "443"},
        {SANDBOX_READ, NULL, 5432, true, false, "any port (because)"},
        {SANDBOX_READ, "/etc/postern", 5432, false, true, NULL},
        {SANDBOX_READ, "/etc/postern/a/b", 0, false, true, NULL},
        {SANDBOX_READ, "/var/lib/x/y", 0, false, true, NULL},
        {SANDBOX_REMOVE, "/var/lib/x/y", 0, false, true, NULL},
        {SANDBOX_REMOVE, "/run/x", 0, false, true, NULL},
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct sandbox_plan *want = sandbox_plan_new();

        sandbox_plan_path(want, cases[i].right, cases[i].path);
        sandbox_plan_connect(want, cases[i].port);
        if (cases[i].any) {
            sandbox_plan_connect_any(want, "because");
        }
        if (sandbox_plan_covers(have, want, &err) != cases[i].covered) {
            fail_msg("case %zu", i);
        }
        if (cases[i].says != NULL && strstr(err.what, cases[i].says) == NULL) {
            fail_msg("case %zu: %s", i, err.what);
        }
        sandbox_plan_free(want);
    }
    sandbox_plan_connect_any(have, "because");
    struct sandbox_plan *want = sandbox_plan_new();
    sandbox_plan_connect(want, 443);
    sandbox_plan_connect_any(want, "because");
    assert_true(sandbox_plan_covers(have, want, &err));
    sandbox_plan_free(want);
    sandbox_plan_free(have);
    assert_null(sandbox_plan_free(NULL));
}

/* A directory that comes after the start has no rule, so nothing in it may be taken for covered. */
static int comes_later(void)
{
    struct sandbox_landlock took;
    struct err err = ERR_INIT;
    struct sandbox_plan *have = sandbox_plan_new();
    struct sandbox_plan *want = sandbox_plan_new();
    int hold[2];
    char c;

    if (pipe(hold) != 0) {
        return 10;
    }
    pid_t maker = fork(); /* not confined */
    if (maker == 0) {
        close(hold[1]);
        _exit(read(hold[0], &c, 1) == 0 && mkdir(in_dir("late"), 0700) == 0 ? 0 : 1);
    }
    sandbox_plan_path(have, SANDBOX_READ, in_dir("late"));
    sandbox_plan_path(have, SANDBOX_READ, in_dir("r"));
    sandbox_plan_path(want, SANDBOX_READ, in_dir("r/conf"));
    sandbox_plan_path(want, SANDBOX_READ, in_dir("late"));
    if (sandbox_landlock(have, SANDBOX_ABI_OF_KERNEL, &took, NULL) != 0) {
        return 11;
    }
    if (!sandbox_plan_covers(have, want, &err)) {
        return 12; /* as at the start: nothing to reach */
    }
    int status = 1;
    close(hold[1]);
    if (waitpid(maker, &status, 0) != maker || status != 0 ||
        try_open(in_dir("late"), O_RDONLY | O_DIRECTORY) != EACCES) {
        return 13;
    }
    if (sandbox_plan_covers(have, want, &err) || strstr(err.what, "late") == NULL ||
        strstr(err.what, "nothing was when it started") == NULL) {
        return 14;
    }
    sandbox_plan_free(want);
    sandbox_plan_free(have);
    return 0;
}

static void test_comes_later(void **state)
{
    (void)state;
    if (kernel_abi() == 0) {
        skip();
    }
    assert_int_equal(in_child(comes_later), 0);
    assert_int_equal(rmdir(in_dir("late")), 0);
}

/* --- capabilities, limits --------------------------------------------------------------------- */
static int capabilities(void)
{
    struct sandbox_report r;
    struct rlimit core = {1, 1};
    int status = sandbox_status_open();

    sandbox_secure_bits();
    if (sandbox_drop_caps(0, NULL) != 0 || sandbox_limits(true, NULL) != 0) {
        return 10;
    }
    sandbox_get_report(status, &r);
    if (r.caps != 0 || r.caps_effective != 0 || r.caps_inheritable != 0 || r.caps_bounding != 0 ||
        r.caps_ambient != 0) {
        return 11;
    }
    if (!r.secure_bits || r.core_dumps || r.dumpable) {
        return 12;
    }
    if (getrlimit(RLIMIT_CORE, &core) != 0 || core.rlim_max != 0 || umask(0) != 077) {
        return 13;
    }
    /* None of them comes back. */
    return prctl(PR_SET_KEEPCAPS, 1, 0, 0, 0) == -1 &&
                   prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, CAP_KILL, 0, 0) == -1 &&
                   prctl(PR_SET_SECUREBITS, 0, 0, 0, 0) == -1 && setuid(1) == -1
               ? 0
               : 14;
}

static void test_capabilities(void **state)
{
    (void)state;
    if (geteuid() != 0) {
        skip();
    }
    assert_int_equal(in_child(capabilities), 0);
}

/* --- the kernel's text ------------------------------------------------------------------------ */
static void test_status_text(void **state)
{
    (void)state;
    static const char text[] = "Name:\tCapEff:\\n\nVmLck:\t      12 kB\nCapInh:\t0000000000000001\n"
                               "CapPrm:\t0000000000000002\nCapEff:\t00000000000000ff\n"
                               "CapBnd:\t000001ffffffffff\nCapAmb:\t0000000000000000\n"
                               "Seccomp:\t2\nSeccomp_filters:\t3\n";
    struct sandbox_report r = {0};

    sandbox_status_parse(text, sizeof(text) - 1, &r);
    assert_int_equal(r.caps_effective, 0xff);
    assert_int_equal(r.caps_inheritable, 1);
    assert_true(r.caps_bounding == 0x1ffffffffffULL);
    assert_int_equal(r.caps_ambient, 0);
    assert_int_equal(r.n_filters, 3);
    assert_int_equal(r.locked_bytes, 12 * 1024);
    /* Cut anywhere: nothing behind the end is looked at. */
    for (size_t n = 0; n < sizeof(text); n++) {
        char *copy = malloc(n > 0 ? n : 1);

        assert_non_null(copy);
        memcpy(copy, text, n);
        sandbox_status_parse(copy, n, &r);
        free(copy);
    }
}

static int remove_directory(void **state)
{
    char command[128];

    (void)state;
    (void)snprintf(command, sizeof(command), "rm -rf %s", dir);
    return system(command);
}

static int make_directory(void **state)
{
    (void)state;
    (void)snprintf(dir, sizeof(dir), "/tmp/postern-sandbox-XXXXXX");
    return mkdtemp(dir) != NULL ? 0 : -1;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_files),        cmocka_unit_test(test_links),
        cmocka_unit_test(test_root_file),    cmocka_unit_test(test_ports),
        cmocka_unit_test(test_scopes),       cmocka_unit_test(test_older_kernels),
        cmocka_unit_test(test_covers),       cmocka_unit_test(test_comes_later),
        cmocka_unit_test(test_capabilities), cmocka_unit_test(test_status_text),
    };
    return cmocka_run_group_tests(tests, make_directory, remove_directory);
}
