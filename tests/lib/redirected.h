/*
 * redirected: the kernel's word of where a client wanted to go, in a test without redirection.
 * Linked with --wrap for net_original_dst and net_dial: every connection is taken
 * for one that was made to 192.0.2.7, at the port that is said here, and what is dialled there goes
 * to 127.0.0.1.
 */
#ifndef POSTERN_TESTS_REDIRECTED_H
#define POSTERN_TESTS_REDIRECTED_H

#include <stdint.h>

/* From now on, for every thread. */
void redirected_port(uint16_t port);

#endif
