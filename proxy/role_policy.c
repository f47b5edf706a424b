/* role_policy: `postern policy COMMAND`: argument parsing and files; the work is done in
 * policy_tools. Nothing of a running proxy or agent is asked here. */
#include "roles_priv.h"

#include <errno.h>
#include <postern/buf.h>
#include <postern/conf.h>
#include <postern/mem.h>
#include <postern/os.h>
#include <postern/policy_tools.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

enum { FILE_MAX = 4 << 20 };

static int fmt_main(int argc, char **argv);

static const struct command {
    const char *name;
    int (*run)(int argc, char **argv);
    const char *use;
} commands[] = {
    {"fmt", fmt_main, "fmt [-w | --check] FILE..."},
};
enum { N_COMMANDS = sizeof(commands) / sizeof(commands[0]) };

static int usage(FILE *out)
{
    for (size_t i = 0; i < N_COMMANDS; i++) {
        fprintf(out, "%s postern policy %s\n", i == 0 ? "usage:" : "      ", commands[i].use);
    }
    fprintf(out, "Exit status: 0 fine; 1 something was found; 2 it could not be looked at.\n"
                 "More: postern-policy(1)\n");
    return out == stdout ? 0 : 2;
}

/* What does not fit, or cannot be written, is told about. */
static int print(const struct buf *b)
{
    if (fwrite(buf_head(b), 1, buf_len(b), stdout) != buf_len(b) || fflush(stdout) != 0) {
        fprintf(stderr, "postern: cannot write what was found: %s\n", strerrordesc_np(errno));
        return 2;
    }
    return 0;
}

/* --- fmt ---------------------------------------------------------------------------------------
 */
struct fmt_options {
    bool write, check;
};

/* Where a link leads, with the mode that the file has. */
static int write_back(const char *path, const struct buf *text, struct err *err)
{
    struct stat st;
    mem_autofree char *real = realpath(path, NULL);
    if (real == NULL || stat(real, &st) == -1) {
        return err_sys(err, "%s", path);
    }
    return os_write_file_atomic(real, buf_head(text), buf_len(text), st.st_mode & 07777, err);
}

static int fmt_text(const struct fmt_options *o, const char *path, struct str text)
{
    struct conf_diag *diag = conf_diag_new();
    struct conf_policy *conf = NULL;
    struct buf out = BUF_INIT(POLICY_TOOLS_TEXT_MAX);
    struct err err = ERR_INIT;
    int rc = 2;
    if (conf_parse_policy(path, text.p, text.n, diag, &conf) != 0) {
        role_print_diag(diag);
    } else if (policy_fmt(path, text, &out, &err) != 0) {
        rc = role_say("policy fmt", &err, 2);
    } else if (o->check) {
        rc = str_eq(text, buf_str(&out)) ? 0 : 1;
        if (rc == 1) {
            printf("%s\n", path);
        }
    } else if (!o->write) {
        rc = print(&out);
    } else if (str_eq(text, buf_str(&out))) {
        rc = 0;
    } else {
        rc = write_back(path, &out, &err) == 0 ? 0 : role_say("policy fmt", &err, 2);
    }
    buf_reset(&out);
    conf_policy_free(conf);
    conf_diag_free(diag);
    return rc;
}

static int fmt_main(int argc, char **argv)
{
    struct fmt_options o = {.write = false};
    int first = 1;
    for (; first < argc && argv[first][0] == '-'; first++) {
        if (strcmp(argv[first], "-w") == 0) {
            o.write = true;
        } else if (strcmp(argv[first], "--check") == 0) {
            o.check = true;
        } else {
            return usage(stderr);
        }
    }
    if (first == argc || (o.write && o.check)) {
        return usage(stderr);
    }
    int rc = 0;
    for (int i = first; i < argc; i++) {
        mem_autofree char *text = NULL;
        size_t len = 0;
        struct err err = ERR_INIT;
        int r = os_read_file(argv[i], FILE_MAX, false, &text, &len, &err) != 0
                    ? role_say("policy fmt", &err, 2)
                    : fmt_text(&o, argv[i], (struct str){text, len});
        rc = r > rc ? r : rc;
    }
    return rc;
}

/* -----------------------------------------------------------------------------------------------
 */
int policy_main(int argc, char **argv)
{
    if (argc > 1 && (strcmp(argv[1], "--help") == 0 || strcmp(argv[1], "help") == 0)) {
        return usage(stdout);
    }
    for (size_t i = 0; argc > 1 && i < N_COMMANDS; i++) {
        if (strcmp(argv[1], commands[i].name) == 0) {
            if (argc == 3 && strcmp(argv[2], "--help") == 0) {
                printf("usage: postern policy %s\nMore: postern-policy(1)\n", commands[i].use);
                return 0;
            }
            return commands[i].run(argc - 1, argv + 1);
        }
    }
    return usage(stderr);
}
