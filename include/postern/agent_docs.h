/*
 * agent_docs: the documents that proxies are told (policy, mesh map, modes), in parts, as they
 * travel from the loader over the supervisor to the service.
 *
 * Nobody on that way understands a part: the loader has parsed the file strictly and gives it out
 * as canonical JSON, rule by rule, with the principals that a rule is for beside it; who holds a
 * document can so leave out the rules that cannot concern a caller, and nothing else. The proxy
 * parses what it gets as strictly as a file. docs/state-stream.md.
 *
 * A document is built with agent_doc_add from messages that agent_ipc_recv has let pass, bounded
 * in bytes and parts (state_bounds.h). Thread: any, one at a time.
 */
#ifndef POSTERN_AGENT_DOCS_H
#define POSTERN_AGENT_DOCS_H

#include <postern/agent_ipc.h>
#include <postern/buf.h>
#include <postern/state_bounds.h>
#include <postern/str.h>

/* Bytes of a document's elements; of it as text. */
size_t agent_doc_bytes_max(uint32_t document);
size_t agent_doc_written_max(uint32_t document);

/* How large a document becomes, for whoever makes it: each part before it is said. -1: it passes a
 * bound, and err says which one, and at which line of its file. Begins zeroed, but for `which`. */
struct agent_doc_size {
    enum agent_document which;
    size_t n_items, n_bytes, n_target_bytes;
};
int agent_doc_size_head(struct str text, struct err *err);
int agent_doc_size_item(struct agent_doc_size *s, const char *source, uint32_t line,
                        struct str text, const char *const *targets, size_t n_targets,
                        struct err *err);

struct agent_doc_item {
    uint32_t line;
    uint32_t n_targets; /* 0: every workload */
    size_t text_at, n_text;
    size_t targets_at; /* n_targets texts, each terminated */
};

struct agent_doc {
    bool present; /* there is one: its head has come */
    bool broken;  /* a part did not fit; until the next init */
    char *source; /* owned: the file's name, for messages of whoever parses it */
    struct buf head, text, targets;
    struct agent_doc_item *items; /* owned */
    size_t n_items, cap_items;
};

void agent_doc_init(struct agent_doc *d);
void agent_doc_deinit(struct agent_doc *d);
/* Moves: `to` is let go first, `from` is empty afterwards. */
void agent_doc_move(struct agent_doc *to, struct agent_doc *from);
/* The next part. False: out of order or beyond a bound, and the document is of no use any more. */
bool agent_doc_add(struct agent_doc *d, const struct agent_msg_doc_part *part);

/* All parts again, as messages. tell returns -1 to stop. */
typedef int (*agent_doc_tell_fn)(void *arg, const void *msg);
int agent_doc_send(const struct agent_doc *d, uint32_t document, agent_doc_tell_fn tell, void *arg);

/* Whether a target principal ("*", exact, "prefix*", "*suffix", or a glob) means this identity. */
bool agent_doc_target_matches(struct str target, struct str id);
/* The document for a caller with these identities: one text of JSON, each item on the line that it
 * has in its source. False: `out` is full, which one of agent_doc_written_max never is. */
bool agent_doc_write(const struct agent_doc *d, enum agent_document which, const struct str *ids,
                     size_t n_ids, struct buf *out);

#endif
