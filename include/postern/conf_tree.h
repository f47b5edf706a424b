/*
 * conf_tree: files of other systems as trees whose every node knows its line and column: any number
 * of YAML documents in a file. The subset of YAML is that of our own files: no anchors, no tags, no
 * key twice.
 *
 * Nodes and their texts live as long as the documents. What is reported goes to the diagnostics
 * that were given at the beginning, errors to the one, doubts to the other. Thread: any.
 */
#ifndef POSTERN_CONF_TREE_H
#define POSTERN_CONF_TREE_H

#include <postern/conf.h>
#include <postern/mem.h>
#include <postern/str.h>
#include <stdbool.h>
#include <stddef.h>

enum node_kind {
    NODE_BAD, /* already reported; whoever meets it says nothing */
    NODE_SCALAR,
    NODE_LIST,
    NODE_MAP,
};

struct node {
    enum node_kind kind;
    bool quoted;            /* a scalar in quotes or a block: never a number, a bool or a null */
    unsigned line, column;  /* from 1 */
    struct str text;        /* scalar: terminated, holds no NUL */
    const struct node *key; /* in a mapping: the key of this value */
    struct node *child, *last, *next;
    size_t n; /* children; duplicate keys are not among them */
};

/* The value under a key of a mapping, or NULL. */
const struct node *node_get(const struct node *map, const char *key);
/* Whether the scalar is one of YAML's words for nothing. */
bool node_is_null(const struct node *n);

struct conf_documents;
/* NULL: it is no YAML, and that was reported. Both diagnostics outlive what is returned. */
struct conf_documents *conf_documents_parse(const char *name, const char *text, size_t len,
                                            struct conf_diag *errors, struct conf_diag *doubts);
struct conf_documents *conf_documents_free(struct conf_documents *d);
MEM_DEFINE_CLEANUP(struct conf_documents, conf_documents_free)
/* A list with one child a document; an empty document is a null. */
const struct node *conf_documents_list(const struct conf_documents *d);
const char *conf_documents_name(const struct conf_documents *d);
enum conf_severity { CONF_ERROR, CONF_DOUBT };
/* Something about a node of these documents; expected and advice may be NULL. */
void conf_documents_report(const struct conf_documents *d, enum conf_severity severity,
                           const struct node *at, const char *expected, const char *advice,
                           const char *fmt, ...) __attribute__((format(printf, 6, 7)));

#endif
