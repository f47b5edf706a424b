/*
 * rollout: policies that were pushed: which there are, which is in force, which is staged and for
 * whom. docs/policy-rollout.md.
 *
 * Pure: a set in memory, its file as text, and whether a stage means a proxy. The supervisor holds
 * the set; the service only asks about the stage. Generation 0 is the agent's file. Thread: any,
 * one at a time.
 */
#ifndef POSTERN_ROLLOUT_H
#define POSTERN_ROLLOUT_H

#include <postern/buf.h>
#include <postern/err.h>
#include <postern/str.h>
#include <stdbool.h>
#include <stdint.h>

enum {
    ROLLOUT_STAGE_MAX = 2047, /* bytes of a stage as text */
    ROLLOUT_TERMS_MAX = 16,   /* of each kind in it */
    ROLLOUT_LABEL_MAX = 128,  /* KEY=VALUE */
    ROLLOUT_KEPT = 16,        /* generations */
    ROLLOUT_BY_MAX = 64,      /* bytes of each text */
    ROLLOUT_COMMENT_MAX = 256,
    ROLLOUT_SOURCE_MAX = 1024,
    ROLLOUT_FILE_MAX = 1 << 20,
    ROLLOUT_SHA256_TEXT = 65,
};

/* --- for whom --------------------------------------------------------------------------------- */
/* "to=PATTERN label=KEY=VALUE percent=N", each once or more but percent, with one blank between. */
struct rollout_stage {
    char *text;                                                  /* owned */
    struct str to[ROLLOUT_TERMS_MAX], labels[ROLLOUT_TERMS_MAX]; /* lent from it */
    size_t n_to, n_labels;
    unsigned percent; /* 0: not said */
};
/* -1: it is none, with why. */
int rollout_stage_parse(struct str text, struct rollout_stage **ret, struct err *err);
struct rollout_stage *rollout_stage_free(struct rollout_stage *s);
bool rollout_label_ok(struct str label);
/* What is known of a proxy: its attested identities; what it says of itself. */
struct rollout_proxy {
    const struct str *ids;
    size_t n_ids;
    struct str name;
    const struct str *labels;
    size_t n_labels;
};
bool rollout_stage_means(const struct rollout_stage *s, const struct rollout_proxy *p);

/* --- the set ---------------------------------------------------------------------------------- */
struct rollout_item {
    uint64_t generation;
    uint64_t replaced; /* what was in force before it was */
    int64_t pushed_s;
    uint64_t n_rules;
    char sha256[ROLLOUT_SHA256_TEXT];
    char source[ROLLOUT_SOURCE_MAX + 1]; /* the file that it came from, for messages */
    char by[ROLLOUT_BY_MAX + 1];
    char comment[ROLLOUT_COMMENT_MAX + 1];
};
struct rollout {
    struct rollout_item items[ROLLOUT_KEPT + 1]; /* ascending */
    size_t n;
    uint64_t last;     /* the highest number that was ever given */
    uint64_t in_force; /* 0: the file */
    uint64_t staged;   /* 0: none */
    char stage[ROLLOUT_STAGE_MAX + 1];
};
/* A text of people: no control characters, UTF-8 left to others. */
bool rollout_text_ok(struct str s, size_t max);
const struct rollout_item *rollout_find(const struct rollout *r, uint64_t generation);
/* With the next number, which it returns; neither in force nor staged. What is then too much goes:
 * *ret_gone is its number, 0: nothing. */
uint64_t rollout_add(struct rollout *r, const struct rollout_item *item, uint64_t *ret_gone);
/* One that is there, or 0. Ends a stage. again: it was in force before, so what it replaced then
 * is still what it replaced. */
void rollout_put_in_force(struct rollout *r, uint64_t generation, bool again);
void rollout_put_staged(struct rollout *r, uint64_t generation, const char *stage);
/* What `rollback` without a number means: -1: there is nothing before. */
int rollout_before(const struct rollout *r, uint64_t *ret_generation, struct err *err);

bool rollout_print(const struct rollout *r, struct buf *out);
/* Exactly what rollout_print makes, sound in itself. */
int rollout_parse(struct str text, struct rollout *ret, struct err *err);
/* The set as JSON: members, without the braces around them. */
bool rollout_document(const struct rollout *r, struct buf *out);

#endif
