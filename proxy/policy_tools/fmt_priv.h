/*
 * fmt_priv: a YAML text as a tree that knows its comments. Shared by fmt_read.c, which makes it,
 * fmt_write.c, which prints it in the canonical form, and fmt.c, which holds the two against each
 * other.
 *
 * An *entry* is a key with its value, or an item of a list: what can begin a line. A comment on
 * lines of its own belongs to the entry behind it, one at the end of a line to the entry before it.
 */
#ifndef POSTERN_POLICY_FMT_PRIV_H
#define POSTERN_POLICY_FMT_PRIV_H

#include <postern/policy_tools.h>

enum fmt_kind { FMT_SCALAR, FMT_LIST, FMT_MAP };

struct fmt_comment {
    struct str text; /* from the # on, without blanks at the end; lent from the text */
    bool blank;      /* an empty line stands before it */
};

struct fmt_comments {
    struct fmt_comment *items; /* owned */
    size_t n, cap;
};

struct fmt_node;

struct fmt_entry {
    struct fmt_node *in;    /* the collection */
    char *name;             /* owned; of a list's item NULL */
    struct str key;         /* the same */
    struct fmt_node *value; /* owned; NULL while it is read */
    size_t start;           /* where it begins in the text, in bytes */
    unsigned line;          /* and on which line */
    bool blank;             /* an empty line stands before it */
    struct fmt_comments above;
    struct str behind; /* at its line's end; empty: none */
};

struct fmt_node {
    enum fmt_kind kind;
    char *scalar;    /* owned; NULL: a collection */
    struct str text; /* the same */
    bool quoted;
    bool flow;  /* a collection in brackets */
    size_t end; /* of a scalar or flow collection */
    unsigned end_line;
    struct fmt_entry *owner;    /* NULL: the root */
    struct fmt_entry **entries; /* owned, and what they point at */
    size_t n, cap;
};

struct fmt_doc {
    struct fmt_node *root;      /* owned */
    struct fmt_entry **entries; /* all, in the order of the text; the array is owned */
    size_t n, cap;
    struct fmt_comments top, end; /* before the first entry, behind the last */
};

/* -1: the text has a comment where none can be kept, or is no YAML. */
int fmt_read(const char *name, struct str text, struct fmt_doc *ret, struct err *err);
void fmt_doc_deinit(struct fmt_doc *d);
/* -1: something that no policy holds. */
int fmt_write(const struct fmt_doc *d, struct buf *out, struct err *err);
/* Whether an unquoted text could be taken for a number, a date, a bool or nothing. */
bool fmt_text_is_ambiguous(struct str text);

#endif
