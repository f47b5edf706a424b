/*
 * The entry points of the roles, one wiring file each (role_NAME.c). Each takes the role's own
 * argument vector (argv[0] is the role's name) and returns the process's exit status: 0 done, 1 it
 * failed, 2 the command line or the configuration is wrong.
 */
#ifndef POSTERN_ROLES_PRIV_H
#define POSTERN_ROLES_PRIV_H

#include <postern/agent_control.h>

int agent_main(int argc, char **argv);
int ca_main(int argc, char **argv);
int agent_proxies_main(int argc, char **argv);
int check_main(int argc, char **argv);
int svid_main(int argc, char **argv);
int proxy_main(int argc, char **argv);
int journal_main(int argc, char **argv);
int quarantine_main(int argc, char **argv);
int status_main(int argc, char **argv);
int version_main(int argc, char **argv);

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
