/*
 * The entry points of the roles, one wiring file each (role_NAME.c). Each takes the role's own
 * argument vector (argv[0] is the role's name) and returns the process's exit status: 0 done, 1 it
 * failed, 2 the command line or the configuration is wrong.
 */
#ifndef POSTERN_ROLES_PRIV_H
#define POSTERN_ROLES_PRIV_H

int agent_main(int argc, char **argv);
int check_main(int argc, char **argv);
int svid_main(int argc, char **argv);
int proxy_main(int argc, char **argv);
int status_main(int argc, char **argv);
int version_main(int argc, char **argv);

#endif
