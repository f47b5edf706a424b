/*
 * agent: running a node CA agent: its supervisor, which starts, joins and stops the processes of
 * docs/privilege-separation.md and is the only one that touches files. Whole process: call it once,
 * from the main thread, before any other is started. Blocks until the agent ends.
 *
 * SIGTERM, SIGINT: orderly end. SIGHUP: reads the entries again; a bad file changes nothing.
 */
#ifndef POSTERN_AGENT_H
#define POSTERN_AGENT_H

#include <postern/conf.h>
#include <postern/err.h>
#include <postern/log.h>
#include <stdbool.h>

struct agent_options {
    const struct conf_agent *conf;
    bool force_fallback; /* attest as on a kernel without SO_PEERPIDFD (tests) */
};

/* 0: ended as asked. -1: it could not start or go on; the codes ERR_CONFIG and ERR_USAGE mean that
 * a file is wrong (each of its errors has been logged), all others the system. */
int agent_run(const struct agent_options *options, struct log *log, struct err *err);

#endif
