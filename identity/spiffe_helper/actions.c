/* actions: cmd, cmd_args, renew_signal and pid_file_name: what is done after a change. */
#include "spiffe_helper_priv.h"

#include <postern/mem.h>
#include <string.h>

enum {
    ARGS_BYTES = 12000, /* a command of ours takes 16 KiB, */
    WORD_MAX = 4000,    /* no word longer than this */
};

/* --- cmd and its arguments -------------------------------------------------------------------- */
/* As Go's CSV reader has it, with a space for the comma: quotes around a field, doubled within. */
static void split_args(struct helper *c)
{
    const struct hcl_node *n = c->at[CMD_ARGS];
    const char *p = helper_text(c, CMD_ARGS);
    mem_autofree char *word = mem_must_calloc(strlen(p) + 1, 1);
    size_t bytes = 0;
    bool last_blank = false;

    while (*p != '\0') {
        size_t len = 0;
        bool quoted = *p == '"';

        if (c->args.n == HELPER_ARGS_MAX) {
            helper_refuse(c, n, "'cmd_args' has more than %d words", HELPER_ARGS_MAX);
            return;
        }
        for (p += quoted ? 1 : 0; *p != '\0' && (quoted ? true : *p != ' '); p++) {
            if (*p == '"' && !quoted) {
                helper_refuse(c, n, "'cmd_args' has a quote inside of a word");
                return;
            }
            if (*p == '"') {
                if (p[1] != '"') {
                    break;
                }
                p++;
            }
            word[len++] = *p;
        }
        if (quoted && (*p != '"' || (p[1] != ' ' && p[1] != '\0'))) {
            helper_refuse(c, n,
                          "'cmd_args' has a quote that is not ended, or not at the end of a word");
            return;
        }
        bytes += len + 1;
        if (len > WORD_MAX || bytes > ARGS_BYTES) {
            helper_refuse(c, n, "'cmd_args' is longer than %d bytes, or a word of it than %d",
                          ARGS_BYTES, WORD_MAX);
            return;
        }
        if (len == 0) {
            helper_refuse(c, n, "'cmd_args' has an empty word (two spaces in a row are one)");
            return;
        }
        c->args.items[c->args.n++] = mem_must_strndup(word, len);
        p += quoted ? 1 : 0;
        if (*p == ' ') {
            p++;
            last_blank = *p == '\0';
        }
        if (last_blank) {
            helper_refuse(c, n, "'cmd_args' ends with a space, which means an empty word");
        }
    }
}

/* Without SIG; NULL: none of those that may be sent. */
static const char *signal_word(struct helper *c)
{
    static const char *const words[] = {"HUP",  "USR1", "USR2", "WINCH", "INT",
                                        "QUIT", "TERM", "CONT", "ALRM"};
    const char *name = helper_text(c, RENEW_SIGNAL);

    for (size_t i = 0; i < sizeof(words) / sizeof(words[0]); i++) {
        if (strncmp(name, "SIG", 3) == 0 && strcmp(name + 3, words[i]) == 0) {
            return words[i];
        }
    }
    helper_refuse(c, c->at[RENEW_SIGNAL],
                  "'renew_signal' %.40s is none that a process is sent to reload", name);
    return NULL;
}

/* A command that is signalled later has to be one that goes on; one that is not reloads. */
static bool is_child(const struct helper *c)
{
    return helper_text(c, CMD)[0] != '\0' && helper_text(c, RENEW_SIGNAL)[0] != '\0';
}

static void put_shell_word(struct helper *c, const char *text)
{
    helper_put(c, " '");
    for (; *text != '\0'; text++) {
        if (*text == '\'') {
            helper_put(c, "'\\''");
        } else {
            helper_put(c, "%c", *text);
        }
    }
    helper_put(c, "'");
}

void helper_put_child(struct helper *c)
{
    if (c->daemon && is_child(c)) {
        helper_put(c, " --");
        put_shell_word(c, helper_text(c, CMD));
        for (size_t i = 0; i < c->args.n; i++) {
            put_shell_word(c, c->args.items[i]);
        }
    }
}

static void put_command(struct helper *c)
{
    const char *cmd = helper_text(c, CMD);

    helper_put(c, "      - command: [");
    if (strchr(cmd, '/') == NULL) {
        helper_put(c, "/usr/bin/env, "); /* it is looked for in PATH */
        helper_put_quoted(c, cmd);
    } else {
        helper_put_path(c, cmd);
    }
    for (size_t i = 0; i < c->args.n; i++) {
        helper_put(c, ", ");
        helper_put_quoted(c, c->args.items[i]);
    }
    helper_put(c, "]\n        if_failed: continue\n");
    helper_note(c, c->at[CMD],
                "'cmd' is run after each change; without 'renew_signal' it is taken for one "
                "that reloads and ends");
}

static void put_child(struct helper *c, const char *word)
{
    helper_put(c, "      - signal: {child: true, signal: %s}\n        if_failed: continue\n", word);
    helper_note(c, c->at[CMD],
                "'cmd' is the supervised child: run it as the first line of the file says. "
                "When it ends, so does the daemon, with its status; there it would be "
                "started again at the next renewal");
}

static void put_pid_file(struct helper *c, const char *word)
{
    if (c->options->executable == NULL) {
        helper_refuse(
            c, c->at[PID_FILE_NAME],
            "'pid_file_name': a number alone may be anybody's by then; name the program that "
            "the process runs, with --executable PATH");
        return;
    }
    helper_put(c, "      - signal: {pid_file: ");
    helper_put_path(c, helper_text(c, PID_FILE_NAME));
    helper_put(c, ", executable: ");
    helper_put_quoted(c, c->options->executable);
    helper_put(c, ", signal: %s}\n        if_failed: continue\n", word);
}

void helper_check_actions(struct helper *c)
{
    bool has_pid_file = helper_text(c, PID_FILE_NAME)[0] != '\0';

    if (helper_text(c, CMD)[0] == '\0' && helper_text(c, CMD_ARGS)[0] != '\0') {
        helper_refuse(c, c->at[CMD_ARGS], "'cmd_args' without 'cmd'");
    }
    if (has_pid_file && helper_text(c, RENEW_SIGNAL)[0] == '\0') {
        helper_refuse(c, c->at[PID_FILE_NAME], "'pid_file_name' without 'renew_signal'");
    }
    if (!c->daemon && has_pid_file) {
        helper_refuse(
            c, c->at[PID_FILE_NAME],
            "'pid_file_name' with 'daemon_mode = false', which spiffe-helper refuses as well");
    }
    if (helper_text(c, CMD)[0] != '\0') {
        split_args(c);
    }
}

void helper_put_actions(struct helper *c)
{
    bool has_cmd = helper_text(c, CMD)[0] != '\0',
         has_pid_file = helper_text(c, PID_FILE_NAME)[0] != '\0';
    const char *word = NULL;

    if (!c->daemon && has_cmd) {
        helper_note(c, c->at[CMD], "'cmd' is not run with 'daemon_mode = false', as there");
    }
    if (!c->daemon || (!has_cmd && !has_pid_file)) {
        return;
    }
    if (helper_text(c, RENEW_SIGNAL)[0] != '\0') {
        word = signal_word(c);
    }
    helper_put(c, "    after:\n");
    if (is_child(c) && word != NULL) {
        put_child(c, word);
    } else if (has_cmd) {
        put_command(c);
    }
    if (has_pid_file && word != NULL) {
        put_pid_file(c, word);
    }
}
