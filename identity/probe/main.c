/*
 * postern-rotate-probe: one question to one place, and the end: an HTTP request, or which
 * certificate is served. It is started by postern-rotate-run for each, and gives up everything else
 * before the first byte from outside.
 */
#include "probe_priv.h"

#include <errno.h>
#include <poll.h>
#include <postern/mem.h>
#include <postern/os.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { CA_MAX = 1 << 20, LOOK_MS = 100 };

void probe_set_text(struct probe_answer *a, const struct err *err)
{
    char text[1200];
    size_t n = strlen(err_text(err, text, sizeof(text)));

    n = n < ACTIONS_TEXT_MAX ? n : ACTIONS_TEXT_MAX;
    memcpy(a->text, text, n);
    a->text_len = (uint32_t)n;
}

static int receive(struct probe_question *q, struct err *err)
{
    struct pollfd p = {.fd = ACTIONS_FD_CHANNEL, .events = POLLIN};
    size_t len = 0;
    int passed = -1;
    enum ipc_outcome outcome;

    while ((outcome = ipc_recv(ACTIONS_FD_CHANNEL, q, sizeof(*q), &len, &passed)) == IPC_AGAIN) {
        (void)poll(&p, 1, -1);
    }
    if (outcome != IPC_OK || passed != -1 || len != sizeof(*q)) {
        err_set(err, ERR_USAGE, "descriptor %d brings no question", ACTIONS_FD_CHANNEL);
        return err_advise(err, "postern-rotate-probe is started by `postern rotate`");
    }
    return 0;
}

static void answer(const struct probe_answer *a)
{
    struct pollfd p = {.fd = ACTIONS_FD_CHANNEL, .events = POLLOUT};

    while (ipc_send(ACTIONS_FD_CHANNEL, a, sizeof(*a), -1) == IPC_AGAIN) {
        (void)poll(&p, 1, -1);
    }
}

/* Whose socket it is decides whom we become, so it has to be there: a server that is started again
 * makes it anew. */
static void await_socket(const struct probe_question *q, uint64_t until_ms)
{
    struct stat st;

    while (q->kind == PROBE_VERIFY && q->url.unix_path[0] != '\0' &&
           stat(q->url.unix_path, &st) == -1 && errno == ENOENT && os_now_ms() < until_ms) {
        (void)poll(NULL, 0, LOOK_MS);
    }
}

static int ask(const struct probe_question *q, struct probe_answer *a, struct err *err)
{
    uint64_t until_ms = os_now_ms() + q->timeout_ms;
    mem_autofree char *ca = NULL;
    size_t ca_len = 0;
    struct probe_tls tls;

    if (q->ca_file[0] != '\0' && os_read_file(q->ca_file, CA_MAX, false, &ca, &ca_len, err) == -1) {
        return err_where(err, "%s", q->ca_file);
    }
    if (probe_tls_init(&tls, (struct str){ca, ca_len}, err) == -1) {
        probe_tls_deinit(&tls);
        return -1;
    }
    await_socket(q, until_ms);
    if (probe_confine(&q->url, err) == -1) {
        probe_tls_deinit(&tls);
        return -1;
    }
    if (q->kind == PROBE_VERIFY) {
        probe_verify(q, &tls, until_ms, a);
    } else {
        probe_request(q, &tls, until_ms, a);
    }
    probe_tls_deinit(&tls);
    return 0;
}

int main(void)
{
    struct probe_question *q = mem_must_new(struct probe_question);
    struct probe_answer a = {.verdict = ACTIONS_UNREACHABLE};
    struct sigaction ignore = {.sa_handler = SIG_IGN};
    struct err err = ERR_INIT;
    char text[1200];

    (void)sigaction(SIGPIPE, &ignore, NULL);
    if (receive(q, &err) == -1) {
        (void)dprintf(STDERR_FILENO, "postern-rotate-probe: %s\n",
                      err_text(&err, text, sizeof(text)));
        _exit(1);
    }
    if (ask(q, &a, &err) == -1) {
        a.outcome = ACTIONS_FAILED;
        probe_set_text(&a, &err);
    }
    answer(&a);
    _exit(0);
}
