/*
 * rogue_calls: somebody else's code in one of our processes, once that has confined itself.
 *
 * Built once a process, with that process's own privs.c and nothing else of it: -DROLE_x. It
 * confines itself as the process does and then makes the system calls that it is told, a line each,
 * and answers each with a line of JSON. What must have happened is for the test to judge
 * (tests/integration/test_hardening.py). Argument: a file of configuration, for the data plane; a
 * directory that a token may write to, for the signer.
 *
 *   NAME ARGUMENT...     the system call; an argument is a number, s:TEXT, or a: (a page)
 *   connect-to PORT      a TCP connection to 127.0.0.1
 *   !threads             how many threads count and are refused likewise
 *   !refused             what was counted
 */
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <postern/sandbox.h>
#include <pthread.h>
#include <seccomp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#if defined(ROLE_DATA_PLANE)
#include "proxy_priv.h"
static bool confine(const char *argument, struct err *err)
{
    static struct proxy p;
    static struct snapshot_files files;
    struct conf_diag *diag = conf_diag_new();
    struct conf_proxy *conf = NULL;

    if (conf_load_proxy(argument, diag, &conf) == -1) {
        err_set(err, ERR_CONFIG, "the configuration is not good");
        return false;
    }
    files.conf = conf;
    p.files = &files;
    p.loop = loop_new(err);
    p.log = log_new_fd(STDERR_FILENO, LOG_WARN, "rogue");
    p.hardening = hardening_new(p.loop, p.log, err);
    key_heap_open(64, &p.key_heap);
    return proxy_confine(&p, err) == 0;
}
#elif defined(ROLE_KEEPER)
#include "keeper_priv.h"
static bool confine(const char *argument, struct err *err)
{
    struct agent_msg_start_keeper start = {.run_uid = 48971, .run_gid = 48971, .max_handles = 64};
    static struct agent_msg_report report;

    (void)argument;
    return keeper_drop_privileges(&start, &report, err) == 0;
}
#elif defined(ROLE_ATTESTOR)
#include "attestor_priv.h"
static bool confine(const char *argument, struct err *err)
{
    struct agent_msg_start_attestor start = {.run_uid = 48972, .run_gid = 48972, .max_handles = 64};
    static struct agent_msg_report report;

    (void)argument;
    return attestor_drop_privileges(&start, &report, err) == 0;
}
#elif defined(ROLE_SERVICE)
#include "service_priv.h"
static bool confine(const char *argument, struct err *err)
{
    static struct agent_msg_start_service start = {.run_uid = 48973, .run_gid = 48973};
    static struct agent_msg_report report;

    (void)argument;
    return service_drop_privileges(&start, &report, err) == 0;
}
#elif defined(ROLE_KUBELET)
#include "kubelet_priv.h"
static bool confine(const char *argument, struct err *err)
{
    static struct agent_msg_start_kubelet start = {.run_uid = 48974, .run_gid = 48974};
    static struct agent_msg_report report;

    (void)argument;
    return fetcher_drop_privileges(&start, &report, err) == 0;
}
#elif defined(ROLE_SIGNER)
#include "signer_priv.h"
static bool confine(const char *argument, struct err *err)
{
    static struct agent_msg_start_signer start = {.run_uid = 48975, .run_gid = 48975};
    static struct agent_msg_report report;

    start.paths_len = (uint32_t)strlen(argument) + 1;
    memcpy(start.paths, argument, start.paths_len);
    return signer_drop_privileges(&start, &report, err) == 0;
}
#elif defined(ROLE_LOADER)
#include "loader_priv.h"
static bool confine(const char *argument, struct err *err)
{
    static struct agent_msg_report report;

    (void)argument;
    return loader_drop_privileges(48976, 48976, &report, err) == 0;
}
#endif

static void connect_to(const char *port)
{
    struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons((uint16_t)atoi(port))};
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    int rc;

    to.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    rc = connect(fd, (const struct sockaddr *)&to, sizeof(to));
    printf("{\"ret\":%d,\"errno\":%d}\n", rc, rc == -1 ? errno : 0);
    close(fd);
}

static void *in_thread(void *arg)
{
    *(long *)arg = syscall(SYS_getppid) == -1 ? errno : 0;
    return NULL;
}

static void threads(void)
{
    pthread_t t;
    long e = -1;
    int rc = pthread_create(&t, NULL, in_thread, &e);

    if (rc == 0) {
        pthread_join(t, NULL);
    }
    printf("{\"ret\":%d,\"errno\":%ld}\n", rc, e);
}

static void tell_refused(void)
{
    struct buf out = BUF_INIT(65536);

    if (sandbox_refused_write(&out)) {
        printf("%.*s\n", (int)buf_len(&out), (const char *)buf_head(&out));
    }
    buf_reset(&out);
}

static void make_call(char **w, size_t n)
{
    static char page[4096] __attribute__((aligned(4096)));
    long a[6] = {0}, rc;
    int nr = seccomp_syscall_resolve_name(w[0]);

    if (nr < 0) {
        printf("{\"unknown\":true}\n");
        return;
    }
    for (size_t i = 1; i < n && i < 7; i++) {
        a[i - 1] = strncmp(w[i], "s:", 2) == 0 ? (long)(w[i] + 2)
                   : strcmp(w[i], "a:") == 0   ? (long)page
                                               : strtol(w[i], NULL, 0);
    }
    errno = 0;
    rc = syscall(nr, a[0], a[1], a[2], a[3], a[4], a[5]);
    if (rc == 0 && (nr == SYS_clone || nr == SYS_clone3)) {
        _exit(0);
    }
    printf("{\"ret\":%ld,\"errno\":%d}\n", rc, rc == -1 ? errno : 0);
}

static void obey(char *line)
{
    char *words[8] = {NULL}, *rest = NULL;
    size_t n = 0;

    for (char *w = strtok_r(line, " \n", &rest); w != NULL && n < 8;
         w = strtok_r(NULL, " \n", &rest)) {
        words[n++] = w;
    }
    if (n == 0) {
        printf("{}\n");
    } else if (strcmp(words[0], "connect-to") == 0 && n == 2) {
        connect_to(words[1]);
    } else if (strcmp(words[0], "!threads") == 0) {
        threads();
    } else if (strcmp(words[0], "!refused") == 0) {
        tell_refused();
    } else {
        make_call(words, n);
    }
    (void)fflush(stdout);
}

int main(int argc, char **argv)
{
    static char in_buffer[8192], out_buffer[65536]; /* stdio asks nothing of the kernel then */
    struct err err = ERR_INIT;
    char line[1024];

    (void)setvbuf(stdin, in_buffer, _IOFBF, sizeof(in_buffer));
    (void)setvbuf(stdout, out_buffer, _IOFBF, sizeof(out_buffer));
    if (!confine(argc > 1 ? argv[1] : "", &err)) {
        char text[1200];

        (void)dprintf(STDERR_FILENO, "rogue: %s\n", err_text(&err, text, sizeof(text)));
        _exit(70);
    }
    printf("{\"confined\":true}\n");
    (void)fflush(stdout);
    while (fgets(line, sizeof(line), stdin) != NULL) {
        obey(line);
    }
    _exit(0);
}
