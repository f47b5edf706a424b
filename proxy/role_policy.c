/* role_policy: `postern policy COMMAND`: argument parsing and files; the work is done in
 * policy_tools. Nothing of a running proxy or agent is asked here. */
#include "role_policy.h"

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
static int test_main(int argc, char **argv);
static int schema_main(int argc, char **argv);

static const struct command {
    const char *name;
    int (*run)(int argc, char **argv);
    const char *use;
} commands[] = {
    {"fmt", fmt_main, "fmt [-w | --check] FILE..."},
    {"test", test_main, "test [--policy POLICY] [--for FILE] [--tap] [--junit OUTPUT] FILE..."},
    {"lint", policy_lint_main,
     "lint [--proxy FILE | --gateway FILE] [--mesh FILE] [--for FILE] [--json] POLICY..."},
    {"explain", policy_explain_main,
     "explain [--json] [--for FILE] --target ID --port PORT [--peer ID] [--method M --path P] ... "
     "POLICY"},
    {"explain", policy_explain_main,
     "explain [--json] [--for FILE] --log LOG --decision ID POLICY"},
    {"explain", policy_explain_main, "explain [--json] --proxy SOCKET [ID [POLICY]]"},
    {"diff", policy_diff_main, "diff [--json] [--for FILE] OLD NEW"},
    {"replay", policy_replay_main, "replay [--json] [--for FILE] LOG POLICY"},
    {"suggest", policy_suggest_main, "suggest [--paths] [--denied] LOG..."},
    {"convert", policy_convert_main,
     "convert [--trust-domain TD] [--tcp-ports LIST | none] [OPTIONS] FILE..."},
    {"schema", schema_main, "schema [KIND]"},
};
enum { N_COMMANDS = sizeof(commands) / sizeof(commands[0]) };

static int usage_to(FILE *out)
{
    for (size_t i = 0; i < N_COMMANDS; i++) {
        fprintf(out, "%s postern policy %s\n", i == 0 ? "usage:" : "      ", commands[i].use);
    }
    fprintf(out, "Exit status: 0 fine; 1 something was found; 2 it could not be looked at.\n"
                 "More: postern-policy(1)\n");
    return out == stdout ? 0 : 2;
}

int policy_usage(void)
{
    return usage_to(stderr);
}

int policy_print(const struct buf *b)
{
    size_t n = buf_len(b) > 0 ? fwrite(buf_head(b), 1, buf_len(b), stdout) : 0;
    if (n != buf_len(b) || fflush(stdout) != 0) {
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
        rc = policy_print(&out);
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
            return policy_usage();
        }
    }
    if (first == argc || (o.write && o.check)) {
        return policy_usage();
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

/* --- test --------------------------------------------------------------------------------------
 */
struct test_options {
    const char *policy, *junit, *for_whom;
    bool tap;
};

/* Standard output has one form, the file another. */
static int tell_results(const struct test_options *o, const struct conf_policy_test *test,
                        const struct policy_test_result *results)
{
    struct buf out = BUF_INIT(POLICY_TOOLS_TEXT_MAX);
    struct buf junit = BUF_INIT(POLICY_TOOLS_TEXT_MAX);
    struct err err = ERR_INIT;
    int rc = 2;
    if (!policy_test_print(test, results, o->tap ? POLICY_TEST_TAP : POLICY_TEST_TEXT, &out) ||
        (o->junit != NULL && !policy_test_print(test, results, POLICY_TEST_JUNIT, &junit))) {
        fprintf(stderr, "postern: the results are too long to print\n");
    } else if (o->junit != NULL &&
               os_write_file_atomic(o->junit, buf_head(&junit), buf_len(&junit), 0644, &err) != 0) {
        rc = role_say("policy test", &err, 2);
    } else {
        rc = policy_print(&out);
    }
    buf_reset(&out);
    buf_reset(&junit);
    return rc;
}

static int test_file(const struct test_options *o, const char *path)
{
    struct conf_diag *diag = conf_diag_new();
    struct conf_policy_test *test = NULL;
    struct role_policy policy = {.conf = NULL};
    int rc = 2;
    if (conf_load_policy_test(path, diag, &test) != 0) {
        role_print_diag(diag);
    } else if (o->policy == NULL && test->policy_path == NULL) {
        fprintf(stderr, "postern: %s names no policy: say 'policy' there, or --policy\n", path);
    } else if (policy_load(o->policy != NULL ? o->policy : test->policy_path, o->for_whom,
                           &policy) == 0) {
        struct policy_test_result *results =
            policy_test_run(test, policy.conf, policy.policy, os_wall_s());
        rc = tell_results(o, test, results);
        if (rc == 0 && policy_test_failed(results, test->n_cases) > 0) {
            rc = 1;
        }
        policy_test_results_free(results, test->n_cases);
    }
    policy_unload(&policy);
    conf_policy_test_free(test);
    conf_diag_free(diag);
    return rc;
}

static int test_main(int argc, char **argv)
{
    struct test_options o = {.policy = NULL};
    const struct role_text texts[] = {
        {"--policy", &o.policy}, {"--junit", &o.junit}, {"--for", &o.for_whom}};
    int first = 1;
    for (; first < argc && argv[first][0] == '-'; first++) {
        if (strcmp(argv[first], "--tap") == 0) {
            o.tap = true;
        } else if (!role_take_text(texts, 3, argc, argv, &first)) {
            return policy_usage();
        }
    }
    if (first == argc || (argc - first > 1 && (o.junit != NULL || o.tap))) {
        return policy_usage();
    }
    int rc = 0;
    for (int i = first; i < argc; i++) {
        int r = test_file(&o, argv[i]);
        rc = r > rc ? r : rc;
    }
    return rc;
}

/* --- schema ------------------------------------------------------------------------------------
 */
static int schema_main(int argc, char **argv)
{
    if (argc > 2 || (argc == 2 && argv[1][0] == '-')) {
        return policy_usage();
    }
    return role_print_schema(argc == 2 ? argv[1] : "Policy");
}

/* -----------------------------------------------------------------------------------------------
 */
int policy_main(int argc, char **argv)
{
    if (argc > 1 && (strcmp(argv[1], "--help") == 0 || strcmp(argv[1], "help") == 0)) {
        return usage_to(stdout);
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
    return policy_usage();
}
