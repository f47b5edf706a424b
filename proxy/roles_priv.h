/*
 * The entry points of the roles, one wiring file each (role_NAME.c). Each takes the role's own
 * argument vector (argv[0] is the role's name) and returns the process's exit status: 0 done, 1 it
 * failed, 2 the command line or the configuration is wrong.
 */
#ifndef POSTERN_ROLES_PRIV_H
#define POSTERN_ROLES_PRIV_H

#include <openssl/x509.h>
#include <postern/agent_control.h>
#include <postern/err.h>
#include <postern/str.h>
#include <signal.h>

int agent_main(int argc, char **argv);
int attest_main(int argc, char **argv); /* of `postern agent attest` */
int ca_main(int argc, char **argv);
int bundle_main(int argc, char **argv);
int agent_policy_main(int argc, char **argv);
int agent_proxies_main(int argc, char **argv);
int check_main(int argc, char **argv);
int inject_main(int argc, char **argv);
int uninject_main(int argc, char **argv);
int entries_main(int argc, char **argv);
int svid_main(int argc, char **argv);
int policy_main(int argc, char **argv);
int proxy_main(int argc, char **argv);
int gateway_main(int argc, char **argv);
int ghostunnel_main(int argc, char **argv); /* of `postern gateway` */
int rotate_main(int argc, char **argv);
int journal_main(int argc, char **argv);
int audit_main(int argc, char **argv);
int quarantine_main(int argc, char **argv);
int status_main(int argc, char **argv);
int readiness_main(int argc, char **argv);
int version_main(int argc, char **argv);
/* "0.1.0 (abcdef012345)" */
const char *version_text(void);
/* The bill of materials on stdout, as "spdx" or "cyclonedx"; the exit status. */
int sbom_print(const char *format);

/* --- shared by commands that ask any SPIFFE agent (role_workload.c) ----------------------------
 */
struct role_workload {
    const char *socket; /* NULL: the environment */
    const char *method;
    struct str message;
    bool streaming; /* the first message of a stream is all that is wanted */
    uint64_t timeout_s;
    int (*on_message)(void *arg, struct str message, struct err *err);
    void *arg;
};
/* Runs until the answer or the end; 1 after SIGINT or SIGTERM (err is set then too). A caller that
 * goes on afterwards blocks those two throughout, so that none is lost between two calls. */
int role_workload_ask(const struct role_workload *what, struct err *err);
/* The signals that end a command: SIGINT and SIGTERM. */
void role_end_signals(sigset_t *ret);
/* Tells the error; returns the status. */
int role_say(const char *command, const struct err *err, int status);
/* Lines for people; from_s INT64_MIN: not known. Text may be a stranger's. */
void role_print_times(int64_t from_s, int64_t until_s, int64_t now_s);
void role_put(const char *text);
void role_put_text(const char *text); /* and the line's end */
void role_print_text(const char *name, const char *text);

/* --- parts of `svid` ---------------------------------------------------------------------------
 */
enum { ROLE_AUDIENCES_MAX = 16 };
struct role_svid_jwt_options {
    bool watch, raw;
    const char *socket, *spiffe_id, *write_dir; /* NULL: see svid_options */
    const char *audiences[ROLE_AUDIENCES_MAX];
    size_t n_audiences;
    uint64_t timeout_s;
};
int role_svid_jwt(const struct role_svid_jwt_options *options);
int role_svid_show(int argc, char **argv);
int role_svid_validate(int argc, char **argv);
struct jwt_token;
void role_print_token(const struct jwt_token *token);
void role_print_authority(X509 *cert);

/* --- options with a text behind them (role_config.c) -------------------------------------------
 */
struct role_text {
    const char *name; /* "--config" */
    const char **value;
};
/* Whether argv[*i] is one of them; then *i is the index of its text, which the value points to. */
bool role_take_text(const struct role_text *texts, size_t n, int argc, char **argv, int *i);

/* --- shared by commands that are about an agent or a proxy by its file (role_config.c) ----------
 */
struct conf_diag;
struct conf_agent;
/* Tells all that is wrong with a file. */
void role_print_diag(const struct conf_diag *diag);
/* The JSON Schema of a kind of file, to standard output; the exit status. */
int role_print_schema(const char *kind);
/* An agent's file; NULL: it is wrong, and has been told about. */
struct conf_agent *role_agent_config(const char *path);
/* Asks the admin socket: `socket` if given, else as the agent's or proxy's file `config` says, else
 * the environment's, else the only one there is. 0 and the document, else the exit status, after
 * telling why. The space is BUF_INIT(ROLE_ANSWER_MAX). */
enum { ROLE_ANSWER_MAX = 16 << 20 };
int role_admin_ask(const char *config, const char *socket, const char *request, struct buf *out);

/* --- shared by commands that order things of an agent (role_control.c) -------------------------
 */
/* The agent's control socket: `control` if given, else as its file `config` says, else the default.
 * -1: the file is wrong, and has been told about. */
int role_control_path(const char *config, const char *control, char **ret);
/* STATE/name as the agent's file says; -1: the file is wrong, and has been told about. */
int role_state_path(const char *config, const char *name, char **ret);
/* The journal's directory: `dir`, or by the agent's file, or by asking the agent. Else the exit
 * status, after telling why. */
int role_journal_dir(const char *dir, const char *config, const char *control, char **ret);
/* Asks; 0 and the document, else the exit status, after telling why. */
int role_control_ask(const char *path, const struct agent_control_request *request,
                     struct buf *out);

#endif
