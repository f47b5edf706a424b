/*
 * entries: entry files, beyond reading them: as messages, what is doubtful about them, and out of
 * what SPIRE prints. Pure functions over memory. Thread: any.
 */
#ifndef POSTERN_ENTRIES_H
#define POSTERN_ENTRIES_H

#include <postern/agent_ipc.h>
#include <postern/buf.h>
#include <postern/conf.h>
#include <postern/err.h>

/* Entry `index` of a file as the keeper hears of it. -1: it is too large for that. */
int entries_message(const struct conf_entries *conf, size_t index, struct agent_msg_entry *ret,
                    struct err *err);

/* --- what is doubtful ------------------------------------------------------------------------- */
enum entries_doubt {
    ENTRIES_DUPLICATE,  /* another says the same */
    ENTRIES_SHADOWED,   /* an earlier one always wins */
    ENTRIES_NEVER,      /* its selectors never hold together */
    ENTRIES_HINT_TWICE, /* whoever gets both gets the hint once */
    ENTRIES_BROAD,      /* it says next to nothing about its caller */
    ENTRIES_NO_CONTAINER,
    ENTRIES_NO_EXECUTABLE,
    ENTRIES_N_DOUBTS,
};
const char *entries_doubt_name(enum entries_doubt d);

struct entries_tell {
    void (*doubt)(void *arg, const struct conf_entry *e, enum entries_doubt d, const char *text);
    void *arg;
};
/* In the order of the file. */
void entries_lint(const struct conf_entries *conf, const struct entries_tell *tell);

/* --- SPIRE ------------------------------------------------------------------------------------ */
enum { ENTRIES_IMPORT_MAX = 16 << 20 };

struct entries_imported {
    size_t n, n_left_out;
};
/* `spire-server entry show -output json`: a file of kind Entries is appended to ret_yaml. What of
 * an entry has no place there makes it be left out whole, never widened; `problem` hears of each.
 * -1: this is no such text. */
int entries_import(const char *json, size_t len, struct buf *ret_yaml,
                   void (*problem)(void *arg, const char *text), void *arg,
                   struct entries_imported *ret, struct err *err);

#endif
