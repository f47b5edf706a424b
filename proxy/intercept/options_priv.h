/* One value of a command line each; what is wrong with it goes into err. */
#ifndef POSTERN_INTERCEPT_OPTIONS_PRIV_H
#define POSTERN_INTERCEPT_OPTIONS_PRIV_H

#include <postern/intercept.h>

int option_port(const char *name, const char *arg, uint16_t *ret, struct err *err);
/* To the list at its count, which grows: an option may be given more than once. */
int option_ports(const char *name, const char *arg, struct intercept_range *list, size_t *n,
                 struct err *err);
int option_blocks(const char *name, const char *arg, struct intercept_block *list, size_t *n,
                  struct err *err);
int option_uids(const char *arg, struct intercept_options *o, struct err *err);

#endif
