/*
 * postern-token MODULE LABEL KEY PIN-FILE [PATH...]: signs handshakes for the process that started
 * it, with a key in a PKCS#11 token. Two processes: one that watches and starts the other, and the
 * other, which reads the PIN, gives everything up, loads the module, and answers questions. A
 * module that fails ends its process and gets another one; a PIN that was refused is not tried
 * again before its file changes, since a token locks itself after a few.
 *
 * Descriptor: TOKEN_FD_ASKER. It ends when the asker does.
 */
#include "tls_priv.h"

#include <errno.h>
#include <fcntl.h>
#include <openssl/crypto.h>
#include <poll.h>
#include <postern/file_mark.h>
#include <postern/ipc.h>
#include <postern/log.h>
#include <postern/os.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

enum {
    PIN_MAX = 256,
    START_S = 20,
    PAUSE_MIN_MS = 100,
    PAUSE_MAX_MS = 10000,
    WATCH_MS = 1000, /* between looks at the PIN's file */
};

static void say(const char *event, const struct err *err)
{
    struct log *log = log_new_fd(STDERR_FILENO, LOG_INFO, "token"); /* no state outside main */
    log_failure(log, LOG_ERROR, event, err);
    log_free(log);
}

/* --- the PIN ---------------------------------------------------------------------------------- */
static int read_pin(const char *path, char **ret, size_t *ret_len, struct err *err)
{
    struct stat st;
    os_autofd int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK);

    if (fd == -1 || fstat(fd, &st) == -1) {
        err_sys(err, "the PIN's file cannot be opened");
        return err_where(err, "%s", path);
    }
    if (!S_ISREG(st.st_mode) || (st.st_mode & 0027) != 0 || st.st_size == 0 ||
        st.st_size > PIN_MAX) {
        err_set(err, ERR_CONFIG, "the PIN's file has mode %04o and %lld bytes",
                (unsigned)(st.st_mode & 07777), (long long)st.st_size);
        err_where(err, "%s", path);
        return err_expected(err, "mode 0600 or 0640, 1 to %d bytes", PIN_MAX);
    }
    char *text = mem_secret_alloc((size_t)st.st_size);
    if (text == NULL || pread(fd, text, (size_t)st.st_size, 0) != (ssize_t)st.st_size) {
        mem_secret_free(text);
        return err_set(err, ERR_SYSTEM, "the PIN's file cannot be read whole");
    }
    *ret = text;
    *ret_len = (size_t)st.st_size - (text[st.st_size - 1] == '\n' ? 1 : 0);
    return 0;
}

/* --- the process with the module -------------------------------------------------------------- */
static bool question_ok(const struct token_question *q, size_t len)
{
    return len == sizeof(*q) && q->version == TOKEN_WIRE_VERSION && q->scheme <= AWAY_RSA_PSS &&
           q->hash <= AWAY_SHA512 && q->digest_len == 32 + 16 * q->hash &&
           q->salt_len <= AWAY_HASH_MAX && q->public_len > 0 && q->public_len <= TOKEN_PUBLIC_MAX;
}

/* 0: goes on; 1: the asker is gone; -1: the token failed. */
static int serve_one(struct token_process *p, struct err *err)
{
    static struct token_question q; /* too large for the stack; one thread */
    static struct token_answer a;
    struct pollfd fd = {.fd = TOKEN_FD_ASKER, .events = POLLIN};
    size_t len = 0;
    int passed = -1;

    if (poll(&fd, 1, -1) == -1) {
        return errno == EINTR ? 0 : err_sys(err, "poll");
    }
    switch (ipc_recv(TOKEN_FD_ASKER, &q, sizeof(q), &len, &passed)) {
    case IPC_OK:
        break;
    case IPC_AGAIN:
        return 0;
    case IPC_CLOSED:
    case IPC_BAD:
        return 1;
    }
    if (passed != -1 || !question_ok(&q, len)) {
        return err_set(err, ERR_PROTOCOL, "a question that is none");
    }
    if (q.until_ms <= os_now_ms()) {
        return 0; /* nobody waits for it any more */
    }
    a = (struct token_answer){.version = TOKEN_WIRE_VERSION, .id = q.id};
    (void)alarm(SIGNER_CALL_S);
    int r = token_sign(p, &q, &a, &a.error);
    (void)alarm(0);
    if (ipc_send(TOKEN_FD_ASKER, &a, sizeof(a), -1) == IPC_CLOSED) {
        return 1;
    }
    if (r == -1 && a.error.code == ERR_CONFIG) {
        return 0; /* a key that is not there: the token is all right */
    }
    *err = r == -1 ? a.error : *err;
    return r;
}

__attribute__((noreturn)) static void work(struct token_process *p)
{
    struct err err = ERR_INIT;
    char *pin = NULL;
    size_t len = 0;
    int r = read_pin(p->pin_file, &pin, &len, &err);

    r = r == 0 ? token_confine(p, &err) : -1;
    if (r == 0) {
        (void)alarm(START_S);
        r = signer_token_open(&p->name, (struct str){pin, len}, &p->token, &err);
        (void)alarm(0);
    }
    mem_secret_free(pin);
    while (r == 0) {
        r = serve_one(p, &err);
    }
    if (r == -1) {
        say("token_failed", &err);
    }
    _exit(r == 1 ? 0 : err.code == ERR_DENIED ? TOKEN_EXIT_PIN : TOKEN_EXIT_FAILED);
}

/* --- the process that watches ----------------------------------------------------------------- */
/* True: the asker is gone. */
static bool pause_for(int ms)
{
    struct pollfd p = {.fd = TOKEN_FD_ASKER, .events = 0};
    return poll(&p, 1, ms) == 1;
}

/* True: the asker is gone. */
static bool wait_for_pin(const char *path, const struct file_mark *before)
{
    struct file_mark now = file_mark_now(path);
    while (now.ino == 0 || file_mark_same(&now, before)) {
        if (pause_for(WATCH_MS)) {
            return true;
        }
        now = file_mark_now(path);
    }
    return false;
}

static void watch(struct token_process *p)
{
    int pause_ms = PAUSE_MIN_MS;
    for (;;) {
        struct file_mark pin = file_mark_now(p->pin_file);
        uint64_t started_ms = os_now_ms();
        int status = 0;
        pid_t pid = fork();
        if (pid == 0) {
            work(p);
        }
        while (pid != -1 && waitpid(pid, &status, 0) == -1 && errno == EINTR) {
        }
        if (pid != -1 && WIFEXITED(status) && WEXITSTATUS(status) == 0) {
            return;
        }
        if (pid != -1 && WIFEXITED(status) && WEXITSTATUS(status) == TOKEN_EXIT_PIN) {
            if (wait_for_pin(p->pin_file, &pin)) {
                return;
            }
            continue;
        }
        pause_ms = os_now_ms() - started_ms > PAUSE_MAX_MS ? PAUSE_MIN_MS : pause_ms;
        if (pause_for(pause_ms)) {
            return;
        }
        pause_ms = pause_ms * 2 < PAUSE_MAX_MS ? pause_ms * 2 : PAUSE_MAX_MS;
    }
}

int main(int argc, char **argv)
{
    struct err err = ERR_INIT;
    if (argc < 5) {
        fprintf(stderr, "postern-token is started by `postern gateway`\n");
        return 2;
    }
    struct token_process p = {.name = {.module = argv[1], .label = argv[2], .key = argv[3]},
                              .pin_file = argv[4],
                              .paths = (const char *const *)argv + 5};
    /* No configuration file of OpenSSL's: it could load code. */
    if (OPENSSL_init_crypto(OPENSSL_INIT_NO_LOAD_CONFIG, NULL) != 1 ||
        token_confine_watcher(&err) == -1) {
        say("token_failed", &err);
        return 1;
    }
    watch(&p);
    return 0;
}
