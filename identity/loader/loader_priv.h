/* What the files of the loader share: main.c is the process and reads entries, documents.c reads
 * what proxies are told, privs.c is all that it may do. */
#ifndef POSTERN_LOADER_PRIV_H
#define POSTERN_LOADER_PRIV_H

#include <postern/agent_ipc.h>
#include <postern/conf.h>

int loader_tell(const void *msg, struct err *err);
int loader_tell_diagnostic(const struct err *diagnostic, struct err *err);
/* Of a file that is taken. */
int loader_tell_doubts(const struct conf_diag *doubts, struct err *err);
/* All of diag, then the end. */
int loader_tell_refusal(const struct conf_diag *diag, struct err *err);
int loader_tell_loaded(size_t n_items, size_t n_diagnostics, struct err *err);

/* Says a document in parts, or what is wrong with it; then the end. reader: for whom a policy is
 * read (policy_source_read). -1: it cannot be said. */
int loader_load_document(enum agent_document which, const char *name, const char *text, size_t len,
                         const char *reader, struct err *err);

/* What to become, if this is root; then nothing but its list (privs.c). */
int loader_drop_privileges(uint32_t uid, uint32_t gid, struct agent_msg_report *ret_report,
                           struct err *err);

#endif
