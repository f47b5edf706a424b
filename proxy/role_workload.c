/* role_workload: one call of a command to any SPIFFE agent, and what every such command has in
 * common. */
#include "roles_priv.h"

#include <postern/grpc.h>
#include <postern/identity_client.h>
#include <postern/loop.h>
#include <postern/os.h>
#include <postern/proto.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/signalfd.h>
#include <unistd.h>

struct ask {
    const struct role_workload *what;
    struct loop *loop;
    struct loop_timer timeout;
    int signal_fd;
    bool ended, got_one;
    int rc;
    struct err *err;
};

static void stop(struct ask *a, int rc)
{
    if (!a->ended) {
        a->ended = true;
        a->rc = rc;
    }
    loop_stop(a->loop);
}

static void on_message(void *arg, struct str message)
{
    struct ask *a = arg;
    if (a->ended) {
        return;
    }
    a->got_one = true;
    if (a->what->on_message(a->what->arg, message, a->err) == -1) {
        stop(a, -1);
    } else if (a->what->streaming) {
        stop(a, 0);
    }
}

static void on_end(void *arg, enum grpc_status status, const char *text)
{
    struct ask *a = arg;
    if (status == GRPC_OK && a->got_one) {
        stop(a, 0);
        return;
    }
    if (!a->ended) {
        err_set(a->err, status == GRPC_PERMISSION_DENIED ? ERR_DENIED : ERR_UNAVAILABLE,
                "the agent answers %s: %s", grpc_status_name(status),
                text[0] != '\0' ? text : "no reason given");
    }
    stop(a, -1);
}

static void on_closed(void *arg, const struct err *why)
{
    struct ask *a = arg;
    if (!a->ended) {
        *a->err = *why;
    }
    stop(a, -1);
}

static void on_timeout(void *arg)
{
    struct ask *a = arg;
    err_set(a->err, ERR_UNAVAILABLE, "no answer within %llu s",
            (unsigned long long)a->what->timeout_s);
    stop(a, -1);
}

static void on_signal(void *arg, unsigned ready)
{
    struct ask *a = arg;
    struct signalfd_siginfo taken;
    (void)ready;
    if (read(a->signal_fd, &taken, sizeof(taken)) == (ssize_t)sizeof(taken)) {
        err_set(a->err, ERR_UNAVAILABLE, "interrupted");
        stop(a, 1);
    }
}

static int run(struct ask *a, const char *path, struct err *err)
{
    static const struct grpc_metadata metadata[] = {{PROTO_WORKLOAD_KEY, PROTO_WORKLOAD_VALUE}};
    static const struct grpc_client_events events = {NULL, on_closed};
    static const struct grpc_client_handlers handlers = {on_message, on_end};
    const struct grpc_request request = {.path = a->what->method,
                                         .message = a->what->message,
                                         .metadata = metadata,
                                         .n_metadata = 1,
                                         .streaming = a->what->streaming};
    struct grpc_client *client = grpc_client_connect(a->loop, path, NULL, &events, a, err);
    if (client == NULL) {
        return -1;
    }
    if (grpc_client_start(client, &request, &handlers, a, err) == NULL) {
        grpc_client_free(client);
        return -1;
    }
    loop_timer_arm(&a->timeout, a->what->timeout_s * 1000);
    loop_run(a->loop);
    grpc_client_free(client);
    return a->rc;
}

static int ask(struct ask *a, struct err *err)
{
    char path[108];
    if (identity_socket_path(a->what->socket, path, sizeof(path), err) == -1) {
        return -1;
    }
    a->loop = loop_new(err);
    if (a->loop == NULL) {
        return -1;
    }
    struct loop_io *signals = loop_io_new(a->loop, a->signal_fd, on_signal, a);
    loop_io_want(signals, LOOP_READ);
    loop_timer_init(&a->timeout, a->loop, on_timeout, a);
    int rc = run(a, path, err);
    loop_timer_disarm(&a->timeout);
    loop_io_free(signals);
    loop_free(a->loop);
    return rc;
}

/* The signals are blocked and read, so that one that comes as the answer does stays pending for
 * the caller's own wait: with a handler it would be lost with the loop. */
int role_workload_ask(const struct role_workload *what, struct err *err)
{
    struct ask a = {.what = what, .err = err};
    sigset_t ends, before;
    role_end_signals(&ends);
    (void)pthread_sigmask(SIG_BLOCK, &ends, &before);
    a.signal_fd = signalfd(-1, &ends, SFD_CLOEXEC | SFD_NONBLOCK);
    int rc = a.signal_fd == -1 ? err_sys(err, "signalfd") : ask(&a, err);
    if (a.signal_fd != -1) {
        close(a.signal_fd);
    }
    (void)pthread_sigmask(SIG_SETMASK, &before, NULL);
    return rc;
}

void role_end_signals(sigset_t *ret)
{
    sigemptyset(ret);
    sigaddset(ret, SIGINT);
    sigaddset(ret, SIGTERM);
}

int role_say(const char *command, const struct err *err, int status)
{
    char text[1200];
    fprintf(stderr, "postern %s: %s\n", command, err_text(err, text, sizeof(text)));
    return status;
}

void role_print_times(int64_t from_s, int64_t until_s, int64_t now_s)
{
    char from[32], until[32];
    int64_t left_s = until_s - now_s;
    os_time_text(until_s, until, sizeof(until));
    if (from_s != INT64_MIN) {
        os_time_text(from_s, from, sizeof(from));
        printf("valid         %s to %s", from, until);
    } else {
        printf("valid         until %s", until);
    }
    if (left_s > 0) {
        if (left_s >= 2 * 86400) {
            printf(" (%lld days left)\n", (long long)left_s / 86400);
        } else {
            printf(" (%lldm %02llds left)\n", (long long)left_s / 60, (long long)left_s % 60);
        }
    } else {
        printf(" (EXPIRED)\n");
    }
}

void role_put(const char *text)
{
    const struct str s = str_of(text);
    for (size_t i = 0; i < s.n;) {
        size_t control = str_control(s, i);
        (void)putchar(control > 0 ? '?' : (unsigned char)s.p[i]);
        i += control > 0 ? control : 1;
    }
}

void role_put_text(const char *text)
{
    role_put(text);
    (void)putchar('\n');
}

void role_print_text(const char *name, const char *text)
{
    printf("%-13s ", name);
    role_put_text(text);
}
