/*
 * main: argv to role. Every role has its own wiring file; nothing here knows what a role does.
 * This and the role files are the only places with state of file scope.
 */
#include "roles_priv.h"

#include <errno.h>
#include <postern/err.h>
#include <postern/proc.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

static int intercept_main(int argc, char **argv);
static int help_main(int argc, char **argv);

static const struct role {
    const char *name;
    int (*run)(int argc, char **argv);
    const char *use;
    const char *what;
} roles[] = {
    {"agent", agent_main, "agent FILE", "node CA agent: attests processes and issues their SVIDs"},
    {"agent", agent_main, "agent attest PID", "what an agent sees of a process"},
    {"agent", agent_main, "agent proxies", "which proxy runs what of the agent's state"},
    {"agent", agent_main, "agent policy COMMAND ...",
     "another policy for this node's proxies, in stages, and back (push, stage, promote, "
     "rollback, status)"},
    {"proxy", proxy_main, "proxy FILE", "sidecar: mTLS and policy for one workload's traffic"},
    {"rotate", rotate_main, "rotate FILE",
     "keep certificate files fresh for programs that do their own TLS (--once, --status)"},
    {"gateway", gateway_main, "gateway FILE",
     "mTLS in front of programs that have none, by explicit listeners"},
    {"intercept", intercept_main, "intercept [OPTIONS]",
     "redirect this network namespace's traffic to a sidecar (--check, --remove, --print)"},
    {"inject", inject_main, "inject --image IMAGE [-f FILE|-]",
     "put the sidecar into the pods of Kubernetes manifests"},
    {"uninject", uninject_main, "uninject [-f FILE|-]", "take it out again"},
    {"check", check_main, "check FILE... | --schema KIND",
     "say what is wrong with configuration files, and run nothing"},
    {"policy", policy_main, "policy COMMAND ...",
     "what a policy says, what is doubtful about it, what a change of it changes (explain, lint, "
     "diff, test, fmt, replay, suggest, convert)"},
    {"svid", svid_main, "svid fetch|watch|show|validate",
     "ask a SPIFFE agent who we are; what a certificate or token says, and whether it is good"},
    {"bundle", bundle_main, "bundle show [--jwt]", "ask a SPIFFE agent what it trusts"},
    {"journal", journal_main, "journal verify|show",
     "the record of what an agent issued: is it whole, and what is in it"},
    {"audit", audit_main, "audit verify FILE...", "is an audit log what a proxy or gateway wrote"},
    {"entries", entries_main, "entries show|lint|test|import",
     "what an entry file says, what is doubtful about it, what a process gets by it"},
    {"quarantine", quarantine_main, "quarantine add|remove|list",
     "stop issuing to, and connections of, an identity, certificate or image on this node"},
    {"ca", ca_main, "ca show|prepare|activate|...", "the agent's authorities and their exchange"},
    {"status", status_main, "status", "what a running proxy or agent is and does"},
    {"readiness", readiness_main, "readiness",
     "whether ports that take plaintext beside mTLS can do without, and who hinders it"},
    {"version", version_main, "version [--sbom[=cyclonedx]]",
     "version, commit, libraries, feature level; or what it is made of (SPDX, CycloneDX)"},
    {"help", help_main, "help", "this list"},
};
enum { N_ROLES = sizeof(roles) / sizeof(roles[0]) };

/* Interception links libnftables, which a process that holds keys and parses traffic must not: it
 * is an executable of its own, and this only becomes it. */
static int intercept_main(int argc, char **argv)
{
    char path[4096];
    struct err err = ERR_INIT;
    char text[1024];
    (void)argc;
    if (proc_helper_path("postern-intercept", path, sizeof(path), &err) != 0) {
        fprintf(stderr, "postern: %s\n", err_text(&err, text, sizeof(text)));
        return 1;
    }
    execv(path, argv);
    fprintf(stderr, "postern: cannot run %s: %s\n", path, strerrordesc_np(errno));
    return 1;
}

static void print_usage(FILE *out)
{
    fprintf(out, "usage: postern ROLE [ARGUMENTS]\n\n");
    for (size_t i = 0; i < N_ROLES; i++) {
        fprintf(out, "  %-32s %s\n", roles[i].use, roles[i].what);
    }
}

static int help_main(int argc, char **argv)
{
    (void)argc;
    (void)argv;
    print_usage(stdout);
    return 0;
}

#ifdef POSTERN_STATIC
/* In an image helpers are this executable under other names: one copy of what they are linked with.
 */
int rotate_probe_main(void);
int key_holder_main(void);
int heir_main(void);

static bool is_called(const char *called, const char *helper)
{
    const char *slash = called != NULL ? strrchr(called, '/') : NULL;
    const char *name = slash != NULL ? slash + 1 : called;
    return name != NULL && strcmp(name, helper) == 0;
}
#endif

static bool is_help(const char *word)
{
    return strcmp(word, "--help") == 0 || strcmp(word, "-h") == 0;
}

/* Every role answers what it does not understand with its usage, a mistake on standard error.
 * Asked for, the same text is an answer. */
static int run_role(const struct role *role, int argc, char **argv)
{
    bool asked = argc > 1 && is_help(argv[argc - 1]);
    if (asked && dup2(STDOUT_FILENO, STDERR_FILENO) == -1) {
        return 1;
    }
    int rc = role->run(argc, argv);
    return asked && rc == 2 ? 0 : rc;
}

int main(int argc, char **argv)
{
#ifdef POSTERN_STATIC
    if (is_called(argv[0], "postern-rotate-probe")) {
        return rotate_probe_main();
    }
    if (is_called(argv[0], "postern-key-holder")) {
        return key_holder_main();
    }
    if (is_called(argv[0], "postern-heir")) {
        return heir_main();
    }
#endif
    if (argc < 2) {
        print_usage(stderr);
        return 2;
    }
    const char *name = argv[1];
    if (strcmp(name, "--version") == 0) {
        name = "version";
    } else if (is_help(name)) {
        name = "help";
    }
    for (size_t i = 0; i < N_ROLES; i++) {
        if (strcmp(name, roles[i].name) == 0) {
            return run_role(&roles[i], argc - 1, argv + 1);
        }
    }
    fprintf(stderr, "postern: no role '%s'\n", name);
    print_usage(stderr);
    return 2;
}
