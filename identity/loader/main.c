/*
 * postern-loader: reads one file and says what is in it: entries field by field, what proxies are
 * told in parts. The YAML parser runs
 * here, where it can do nothing but answer: no root, no keys, no socket, no file but the one that
 * was opened for it and the lists of users and groups.
 *
 * Arguments: the file's name (for messages), uid and gid to become, what the file is, and of a
 * policy for whom it is read. Descriptors:
 * AGENT_FD_CONTROL, AGENT_FD_LOADER_FILE. Ends with 0 once everything is said, good or bad.
 */
#include "loader_priv.h"

#include <errno.h>
#include <poll.h>
#include <postern/agent_ipc.h>
#include <postern/conf.h>
#include <postern/entries.h>
#include <postern/mem.h>
#include <postern/os.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

enum { CPU_MAX_S = 30 };

int loader_tell(const void *msg, struct err *err)
{
    struct pollfd p = {.fd = AGENT_FD_CONTROL, .events = POLLOUT};

    for (;;) {
        switch (agent_ipc_send(AGENT_FD_CONTROL, msg, -1)) {
        case IPC_OK:
            return 0;
        case IPC_AGAIN:
            (void)poll(&p, 1, 1000);
            break;
        case IPC_CLOSED:
        case IPC_BAD:
            return err_set(err, ERR_UNAVAILABLE, "the supervisor is gone");
        }
    }
}

static int read_file(size_t max, char **ret, size_t *ret_len, struct err *err)
{
    mem_autofree char *text = mem_must_calloc(max + 2, 1); /* its pages come as they are read */
    size_t len = 0;

    while (len <= max) {
        ssize_t n = read(AGENT_FD_LOADER_FILE, text + len, max + 1 - len);

        if (n == -1 && errno != EINTR) {
            return err_sys(err, "the file cannot be read");
        }
        if (n == 0) {
            *ret = text;
            *ret_len = len;
            text = NULL;
            return 0;
        }
        len += n > 0 ? (size_t)n : 0;
    }
    return err_set(err, ERR_LIMIT, "the file is larger than %zu MiB", max >> 20);
}

static int tell_entry(const struct conf_entries *set, size_t index, struct err *err)
{
    static struct agent_msg_entry m;

    return entries_message(set, index, &m, err) == -1 ? -1 : loader_tell(&m, err);
}

int loader_tell_loaded(size_t n_entries, size_t n_diagnostics, struct err *err)
{
    struct agent_msg_loaded m;

    agent_ipc_init(&m, AGENT_MSG_LOADED, 0);
    m.n_entries = (uint32_t)n_entries;
    m.n_diagnostics = (uint32_t)n_diagnostics;
    return loader_tell(&m, err);
}

int loader_tell_diagnostic(const struct err *diagnostic, struct err *err)
{
    struct agent_msg_failed m;

    agent_ipc_init(&m, AGENT_MSG_DIAGNOSTIC, 0);
    m.error = *diagnostic;
    return loader_tell(&m, err);
}

static int tell_entries(const struct conf_entries *set, struct err *err)
{
    struct err too_large = ERR_INIT;

    if (set->n_entries > AGENT_ENTRIES_MAX) {
        err_set(&too_large, ERR_LIMIT, "%zu entries", set->n_entries);
        err_where(&too_large, "%s", set->path);
        err_expected(&too_large, "at most %d", AGENT_ENTRIES_MAX);
    }
    for (size_t i = 0; too_large.code == ERR_NONE && i < set->n_entries; i++) {
        if (tell_entry(set, i, &too_large) == -1 && too_large.code == ERR_UNAVAILABLE) {
            *err = too_large;
            return -1;
        }
    }
    if (too_large.code != ERR_NONE) {
        return loader_tell_diagnostic(&too_large, err) == -1 ? -1 : loader_tell_loaded(0, 1, err);
    }
    return loader_tell_loaded(set->n_entries, 0, err);
}

int loader_tell_doubts(const struct conf_diag *doubts, struct err *err)
{
    struct agent_msg_failed m;

    for (size_t i = 0; i < conf_diag_count(doubts); i++) {
        agent_ipc_init(&m, AGENT_MSG_DOUBT, 0);
        m.error = *conf_diag_get(doubts, i);
        if (loader_tell(&m, err) == -1) {
            return -1;
        }
    }
    return 0;
}

int loader_tell_refusal(const struct conf_diag *diag, struct err *err)
{
    for (size_t i = 0; i < conf_diag_count(diag); i++) {
        if (loader_tell_diagnostic(conf_diag_get(diag, i), err) == -1) {
            return -1;
        }
    }
    return loader_tell_loaded(0, conf_diag_count(diag), err);
}

/* document: AGENT_N_DOCUMENTS for a file of entries. */
static int load(const char *name, enum agent_document document, const char *reader, struct err *err)
{
    mem_autofree char *text = NULL;
    size_t len = 0;
    struct conf_diag *diag = conf_diag_new();
    struct conf_entries *set = NULL;
    struct err unreadable = ERR_INIT;
    int r = 0;

    if (read_file(document == AGENT_DOCUMENT_POLICY ? CONF_POLICY_FILE_MAX : CONF_FILE_MAX, &text,
                  &len, &unreadable) == -1) {
        err_where(&unreadable, "%s", name);
        r = loader_tell_diagnostic(&unreadable, err) == -1 ? -1 : loader_tell_loaded(0, 1, err);
    } else if (document < AGENT_N_DOCUMENTS) {
        r = loader_load_document(document, name, text, len, reader, err);
    } else if (conf_parse_entries(name, text, len, diag, &set) == 0) {
        r = tell_entries(set, err);
    } else {
        r = loader_tell_refusal(diag, err);
    }
    conf_entries_free(set);
    conf_diag_free(diag);
    return r;
}

static bool find_job(const char *text, enum agent_document *ret)
{
    uint32_t d = 0;

    while (d < AGENT_N_DOCUMENTS && strcmp(text, agent_document_name(d)) != 0) {
        d++;
    }
    *ret = (enum agent_document)d;
    return d < AGENT_N_DOCUMENTS || strcmp(text, "entries") == 0;
}

static int start(int argc, char **argv, enum agent_document *ret_document, struct err *err)
{
    const struct rlimit cpu = {CPU_MAX_S, CPU_MAX_S};
    struct agent_msg_report report;
    uint64_t uid, gid;

    if (argc != 6 || !str_to_u64(str_of(argv[2]), UINT32_MAX - 1, &uid) ||
        !str_to_u64(str_of(argv[3]), UINT32_MAX - 1, &gid) || !find_job(argv[4], ret_document)) {
        err_set(err, ERR_USAGE,
                "usage: postern-loader NAME UID GID entries|policy|mesh|modes READER");
        return err_advise(err, "postern-loader is started by `postern agent`");
    }
    (void)setrlimit(RLIMIT_CPU, &cpu);
    if (loader_drop_privileges((uint32_t)uid, (uint32_t)gid, &report, err) == -1) {
        return -1;
    }
    return loader_tell(&report, err);
}

int main(int argc, char **argv)
{
    struct err err = ERR_INIT;
    enum agent_document document = AGENT_N_DOCUMENTS;

    if (start(argc, argv, &document, &err) == -1 || load(argv[1], document, argv[5], &err) == -1) {
        char text[1200];

        (void)dprintf(STDERR_FILENO, "postern-loader: %s\n", err_text(&err, text, sizeof(text)));
        _exit(1);
    }
    _exit(0);
}
