#include "signer_priv.h"

#include <postern/agent_child.h>
#include <string.h>

enum { PATHS_MAX = 128 };

/* Words are checked nowhere else: each has to end within its message. */
static size_t add_words(const uint8_t *words, size_t len, const char **ret, size_t n)
{
    for (size_t i = 0; i < len && n < PATHS_MAX;) {
        const char *word = (const char *)words + i;
        size_t size = strnlen(word, len - i);

        if (size == len - i) {
            break;
        }
        ret[n++] = word;
        i += size + 1;
    }
    return n;
}

/* NAME=/path: what a variable names may be read. */
static size_t add_values(const struct agent_msg_start_signer *start, const char **ret, size_t n)
{
    const char *words[PATHS_MAX];
    size_t n_words = add_words(start->environment, start->environment_len, words, 0);

    for (size_t i = 0; i < n_words && n < PATHS_MAX; i++) {
        const char *value = strchr(words[i], '=');

        if (value != NULL && value[1] == '/') {
            ret[n++] = value + 1;
        }
    }
    return n;
}

int signer_drop_privileges(const struct agent_msg_start_signer *start,
                           struct agent_msg_report *ret_report, struct err *err)
{
    /* Where the system has its libraries. */
    const char *read[PATHS_MAX + 8] = {"/usr/lib", "/usr/lib64",       "/lib",
                                       "/lib64",   "/etc/ld.so.cache", "/usr/local/lib"};
    const char *write[PATHS_MAX + 1] = {NULL};
    char module[AGENT_PATH_MAX + 1] = "";
    size_t n = 6;
    struct agent_confine c = {.role = AGENT_ROLE_SIGNER,
                              .uid = start->run_uid,
                              .gid = start->run_gid,
                              .max_fds = 256,
                              .read_files = read,
                              .write_files = write,
                              .syscalls = signer_syscalls};

    memcpy(module, start->module, start->module_len);
    read[n++] = module;
    n = add_values(start, read, n);
    read[n] = NULL;
    n = add_words(start->paths, start->paths_len, write, 0);
    write[n] = NULL;
    return agent_confine(&c, ret_report, err);
}
