/*
 * manifest: Kubernetes manifests as trees, and back.
 *
 * A text is YAML of any number of documents, or JSON (one value after another). Each document is a
 * jansson tree, and the run of bytes that it stands in; the runs follow each other without a gap,
 * so that what is not changed can be written as it was. Scalars mean what they mean to kubectl
 * (sigs.k8s.io/yaml, which is YAML 1.1): `yes` is true, `0644` is 420, a date is a text.
 *
 * Pure: bytes in, bytes out. All that a text makes us hold is bounded, aliases counted as often as
 * they are used. A failure fills a struct err with ERR_CONFIG or ERR_LIMIT and file:line:column.
 * Thread: any.
 */
#ifndef POSTERN_MANIFEST_H
#define POSTERN_MANIFEST_H

#include <jansson.h>
#include <postern/buf.h>
#include <postern/err.h>
#include <postern/mem.h>
#include <postern/str.h>
#include <stdbool.h>
#include <stddef.h>

enum {
    MANIFEST_TEXT_MAX = 16 << 20,
    MANIFEST_WRITE_MAX = 64 << 20,
    MANIFEST_DOCUMENTS_MAX = 10000,
    MANIFEST_NODES_MAX = 1000000, /* values of one text, aliases expanded */
    MANIFEST_DEPTH_MAX = 100,
    MANIFEST_KEY_MAX = 320, /* bytes of a key; no key of Kubernetes is longer */
};

enum manifest_form { MANIFEST_YAML, MANIFEST_JSON };

struct manifest_doc {
    json_t *tree;      /* owned; null for a document without content */
    struct str bytes;  /* the whole run, separator and comments included; lent from the text */
    size_t header_len; /* of these: the separator, and comments on lines above the content */
    unsigned line;     /* where the content begins */
};

struct manifest {
    enum manifest_form form;
    struct manifest_doc *docs;
    size_t n;
};

/* The text has to outlive what is returned. `name` is for errors. NULL: err says why. */
struct manifest *manifest_parse(const char *name, struct str text, struct err *err);
struct manifest *manifest_free(struct manifest *m);
MEM_DEFINE_CLEANUP(struct manifest, manifest_free)

/* Document i with another tree: its header, and the tree in the text's form. False: it does not fit
 * into `out`. */
bool manifest_write(const struct manifest *m, size_t i, const json_t *tree, struct buf *out);
/* A tree as YAML, ended by a newline; as deep as MANIFEST_DEPTH_MAX at most. What is written reads
 * as the same tree here and with kubectl. */
bool manifest_write_yaml(const json_t *tree, struct buf *out);

/* What an unquoted scalar of YAML means: a new null, boolean, number or string; NULL: it has no
 * counterpart in JSON (not a number, infinity, a number that is too large). */
json_t *manifest_scalar(struct str text);

#endif
