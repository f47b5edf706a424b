/*
 * quarantine: the deny list of one node: SPIFFE IDs, serials of certificates and digests of
 * container images, each with a reason and perhaps an end. docs/quarantine.md says what it does.
 *
 * A set belongs to the agent's supervisor: it keeps it in a file (quarantine_print,
 * quarantine_parse) and hands it, whole, to keeper and service. `version` grows with every change,
 * also over restarts, and over the loss of the file as far as the clock tells. Pure functions, time
 * handed in. Thread: any.
 */
#ifndef POSTERN_QUARANTINE_H
#define POSTERN_QUARANTINE_H

#include <postern/buf.h>
#include <postern/err.h>
#include <postern/str.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum quarantine_kind {
    QUARANTINE_SPIFFE_ID,
    QUARANTINE_SERIAL,       /* lower-case hex, whole bytes, no leading zero byte */
    QUARANTINE_IMAGE_DIGEST, /* "sha256:" and 64 digits */
    QUARANTINE_N_KINDS,
};
const char *quarantine_kind_name(uint32_t kind);

enum {
    QUARANTINE_ITEMS_MAX = 4096,
    QUARANTINE_TEXT_MAX = 2048,
    QUARANTINE_REASON_MAX = 256,
    QUARANTINE_FILE_MAX = 16 << 20,
};

struct quarantine_item {
    uint64_t id;
    uint64_t parent; /* of a serial that an image digest brought: that one's id; else 0 */
    enum quarantine_kind kind;
    char *text;      /* owned, as reason */
    char *reason;    /* "" if none was given */
    int64_t added_s; /* wall clock, as until_s */
    int64_t until_s; /* 0: until it is removed */
    uint64_t due_ms; /* os_now_ms before which it does not end, whatever the wall clock says */
};
struct quarantine {
    uint64_t version, last_id;
    struct quarantine_item *items; /* owned, in the order of their ids */
    size_t n;
};
void quarantine_deinit(struct quarantine *q);

/* What a person writes: spiffe://…, serial:HEX (colons and capitals are let through), sha256:HEX,
 * or name@sha256:HEX. ret_text is the one spelling that is compared. */
int quarantine_subject(struct str s, enum quarantine_kind *ret_kind,
                       char ret_text[QUARANTINE_TEXT_MAX + 1], struct err *err);

/* Adds one, or changes reason and end of one that is there. now_s and now_ms are the two clocks;
 * for_s 0: without an end. *ret_item (may be NULL) is lent until the next change. */
int quarantine_add(struct quarantine *q, enum quarantine_kind kind, const char *text,
                   const char *reason, uint64_t for_s, uint64_t parent, int64_t now_s,
                   uint64_t now_ms, struct quarantine_item **ret_item, struct err *err);
const struct quarantine_item *quarantine_find(const struct quarantine *q, enum quarantine_kind kind,
                                              const char *text);
/* With the serials that it brought. */
void quarantine_remove(struct quarantine *q, uint64_t id, int64_t now_s);
/* The first whose end is over by both clocks, NULL: none. A jump of the wall clock alone ends
 * nothing while the agent runs; after a restart it is all there is. */
const struct quarantine_item *quarantine_due(const struct quarantine *q, int64_t now_s,
                                             uint64_t now_ms);
/* Milliseconds until one may be due, at most max_ms. */
uint64_t quarantine_next_ms(const struct quarantine *q, int64_t now_s, uint64_t now_ms,
                            uint64_t max_ms);

/* The file: jsonl, a head, a line an item, an end that counts them. false: no memory. */
bool quarantine_print(const struct quarantine *q, struct buf *out);
int quarantine_parse(struct str text, uint64_t now_ms, struct quarantine *ret, struct err *err);
/* For people and programs: {"version":..,"scope":"this node only","items":[...]}. */
bool quarantine_document(const struct quarantine *q, struct buf *out);

#endif
