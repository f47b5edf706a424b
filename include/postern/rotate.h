/*
 * rotate: sets of certificate files on disk, each changed as a whole. docs/rotation.md says what
 * may go wrong and what holds then.
 *
 * A set lives in a directory of its own. In it, "..gen-SEQ-MS" is one generation, plain files that
 * are complete and on disk before anything leads there; "..data" is a link to the present
 * generation, and moving it is the change; NAME is a link to ..data/NAME, which stays as it is.
 *
 * Thread: one loop's. Functions that touch the disk block: the daemon has nothing else to do.
 */
#ifndef POSTERN_ROTATE_H
#define POSTERN_ROTATE_H

#include <postern/buf.h>
#include <postern/conf_rotate.h>
#include <postern/err.h>
#include <postern/identity_client.h>
#include <postern/jwt_bundles.h>
#include <postern/loop.h>
#include <postern/x509.h>
#include <stdbool.h>
#include <stdint.h>

/* --- what a set says of itself ---------------------------------------------------------------- */
/* One of the things in a set that end: the SVID, or a token. */
struct rotate_part {
    char
        file[CONF_ROTATE_NAME_MAX + 1]; /* of a token; empty: the SVID and all that is made of it */
    int64_t begins_s;                   /* when it came */
    int64_t ends_s;
};
struct rotate_set {
    uint64_t generation; /* of the directory: grows with each change, over restarts too */
    int64_t written_s;
    char spiffe_id[SPIFFE_ID_MAX + 1]; /* empty: an output of key sets alone */
    char serial[48];                   /* of the leaf */
    bool has_leaf;
    uint8_t leaf_sha256[32]; /* of its DER */
    size_t n_parts;
    struct rotate_part parts[CONF_ROTATE_FILES_MAX + 1];
};
/* The earliest end; 0: nothing in it ends. */
int64_t rotate_set_ends_s(const struct rotate_set *set);

enum rotate_freshness {
    ROTATE_FRESH,
    ROTATE_STALE,   /* less than warn_percent of a part's life is left */
    ROTATE_EXPIRED, /* a part has ended */
    ROTATE_MISSING, /* there is no set, or a file of it is not there as it should be */
};
const char *rotate_freshness_name(enum rotate_freshness f);
enum rotate_freshness rotate_set_judge(const struct rotate_set *set, uint32_t warn_percent,
                                       int64_t now_s);
/* When that will change next; INT64_MAX: never. */
int64_t rotate_set_next_change_s(const struct rotate_set *set, uint32_t warn_percent,
                                 int64_t now_s);
/* The text that stands beside the files (..set.json). Pure. */
int rotate_set_parse(struct str json, struct rotate_set *ret, struct err *err);

/* What is on disk, for whoever may look into the directory; no daemon has to run. MISSING: err says
 * what; else the set is in *ret. */
enum rotate_freshness rotate_published_read(const struct conf_rotate_output *o,
                                            uint32_t warn_percent, int64_t now_s,
                                            struct rotate_set *ret, struct err *err);

/* --- the bytes of a set ------------------------------------------------------------------------
 */
struct rotate_token {
    const char *text; /* NULL: the file is no token */
    int64_t begins_s, ends_s;
};
/* All that files are made of; what no file of the output needs may be absent. Lent. */
struct rotate_material {
    const struct identity_state *x509;
    const struct rotate_token *tokens; /* one for each file of the output */
    const struct jwt_key_set *key_sets;
    size_t n_key_sets;
    const char *spiffe_id;  /* whose: of the SVID or of the tokens; NULL: not known */
    const char *passphrase; /* never NULL */
    int64_t now_s;
};
struct rotate_file {
    const char *name; /* lent, of the output's file */
    bool secret;
    const uint8_t *data;
    size_t len;
};
struct rotate_files; /* keys in it are in secret memory */
/* ERR_UNAVAILABLE: the agent did not say what a file is made of (such as a trust domain). */
int rotate_files_new(const struct conf_rotate_output *o, const struct rotate_material *m,
                     struct rotate_files **ret, struct err *err);
struct rotate_files *rotate_files_free(struct rotate_files *f);
size_t rotate_files_count(const struct rotate_files *f);
struct rotate_file rotate_files_get(const struct rotate_files *f, size_t i);
/* What it will say of itself; generation and time of writing are not known yet. */
const struct rotate_set *rotate_files_set(const struct rotate_files *f);

/* --- one directory -----------------------------------------------------------------------------
 */
/* Told before each step that changes something on disk; false: it fails with errno. For tests. */
typedef bool (*rotate_step_fn)(void *arg, const char *what);

struct rotate_dir;
/* Makes the directory if it is not there, checks whose it is, locks it, removes what was left half
 * made. o is lent until rotate_dir_use or close. ERR_DENIED: it is not ours alone; ERR_UNAVAILABLE:
 * another daemon has it. */
struct rotate_dir *rotate_dir_open(const struct conf_rotate_output *o, struct err *err);
/* Unlocks. Takes NULL. What is published stays. */
struct rotate_dir *rotate_dir_close(struct rotate_dir *d);
void rotate_dir_set_step(struct rotate_dir *d, rotate_step_fn step, void *arg);
/* Another configuration of the same directory. */
void rotate_dir_use(struct rotate_dir *d, const struct conf_rotate_output *o);
/* The present generation; 0: none. */
uint64_t rotate_dir_generation(const struct rotate_dir *d);
/* The change. On failure the old set is in force, and nothing of the new one is left; if an error
 * came after the change, *ret_generation is the new one and -1 is returned all the same: it is in
 * force, and perhaps not on the disk yet, or a link is missing. */
int rotate_dir_publish(struct rotate_dir *d, const struct rotate_files *files, uint64_t now_ms,
                       uint64_t *ret_generation, struct err *err);
/* Removes generations that nobody needs any more. */
int rotate_dir_tidy(struct rotate_dir *d, uint64_t now_ms, struct err *err);

MEM_DEFINE_CLEANUP(struct rotate_files, rotate_files_free)
MEM_DEFINE_CLEANUP(struct rotate_dir, rotate_dir_close)

/* --- one output, kept fresh --------------------------------------------------------------------
 */
/* What has changed, for those who act on it. Lent for the call. */
struct rotate_change {
    const struct conf_rotate_output *output;
    const struct rotate_set *set; /* has_leaf: what a server has to show from now on */
    bool first;                   /* there was no set before */
};

enum rotate_notice {
    ROTATE_AGENT_AWAY,   /* the first failure of a row; the files stay */
    ROTATE_AGENT_BACK,   /* a good answer after that */
    ROTATE_FELL_BACK,    /* the agent cannot sign requests: it makes the key from now on */
    ROTATE_DENIED,       /* the agent has no identity for us; the files stay */
    ROTATE_GAVE_UP,      /* the agent called the question wrong: SIGHUP asks again */
    ROTATE_BAD_ANSWER,   /* a message that broke the specification was ignored */
    ROTATE_NOT_RENEWED,  /* the SVID has ended */
    ROTATE_WRITE_FAILED, /* the old files stay; tried again */
    ROTATE_TIDY_FAILED,  /* something old could not be removed */
    ROTATE_N_NOTICES,
};
const char *rotate_notice_name(enum rotate_notice notice);

struct rotate_output;
struct rotate_output_events {
    /* After each change, when it is in force. */
    void (*on_change)(void *arg, struct rotate_output *out, const struct rotate_change *change);
    /* Fresh, stale, expired: each time that it becomes another. */
    void (*on_freshness)(void *arg, struct rotate_output *out, enum rotate_freshness freshness);
    /* For the log; why may be NULL where nothing went wrong. */
    void (*on_notice)(void *arg, struct rotate_output *out, enum rotate_notice notice,
                      const struct err *why);
};

struct rotate_output_status {
    const struct conf_rotate_output *output;
    const struct rotate_set *set; /* what is in force; lent; NULL: nothing */
    enum rotate_freshness freshness;
    bool complete; /* written at least once by this process */
    uint64_t n_changes, n_write_failures;
    const struct err *write_error; /* of the last try; lent; NULL: what is known is written */
    int64_t last_change_s;         /* 0: never */
    struct identity_status x509;   /* zeroed where no file needs an SVID */
    bool needs_x509;
};

/* conf, o and events are lent. Callbacks come from the loop; nothing is written before there is a
 * directory. */
struct rotate_output *rotate_output_new(struct loop *loop, const struct conf_rotate *conf,
                                        const struct conf_rotate_output *o,
                                        const struct rotate_output_events *events, void *arg,
                                        struct err *err);
/* Takes the directory over: opened, and in use for nothing else. */
void rotate_output_give_dir(struct rotate_output *out, struct rotate_dir *dir);
/* Takes NULL. Files stay. Not from within a callback of its own. */
struct rotate_output *rotate_output_free(struct rotate_output *out);
/* Before it is freed: the directory stays open and locked, for another output. */
struct rotate_dir *rotate_output_take_dir(struct rotate_output *out);
void rotate_output_get_status(const struct rotate_output *out, struct rotate_output_status *ret);

#endif
