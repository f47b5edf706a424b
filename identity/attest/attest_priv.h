/* attest: what its files share. */
#ifndef POSTERN_ATTEST_PRIV_H
#define POSTERN_ATTEST_PRIV_H

#include <postern/attest.h>

/* A file of a process's directory, or the descriptor itself if the name is "": a regular file, and
 * on which mount. */
bool attest_exe_stat(int dir_fd, const char *name, struct attest_exe_key *ret, uint64_t *ret_mount);
/* Reads a file of a process's directory, as much as there is room for; -1: it cannot be read. */
ssize_t attest_read_text(int dir_fd, const char *name, char *text, size_t size);

#endif
